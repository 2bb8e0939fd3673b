"""OrderApiFunction against moto."""

import json
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from decimal import Decimal
from http import HTTPStatus
from threading import Barrier
from typing import Any

import pytest

from orderflow import pagination
from orderflow.auth import Caller
from orderflow.event_store import as_stream
from orderflow.events import Cause
from orderflow.pagination import READS_PER_PAGE
from orders import domain, service
from orders.domain import Order
from orders.models import PlaceOrderRequest
from orders.repository import index_attributes
from tests.customer import ADDRESS
from tests.integration.support import Answer, Api, Aws, Context, line, log_lines, measured


def stored(aws: Aws, order_id: str) -> dict[str, Any]:
    item: dict[str, Any] = aws.table("OrdersTableName").get_item(Key={"orderId": order_id})["Item"]
    return item


def settle(api: Api, order_id: str, report: str) -> None:
    """Does what OrderStatusFunction does for an event of the inventory."""
    cause = Cause("correlation-1", "cause-1")
    _, event = api.module.orders.update(order_id, lambda order: domain.settle(order, report, cause, api.module._now()))
    assert event is not None


def orders_of(aws: Aws, api: Api) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = aws.table("OrdersTableName").scan()["Items"]
    return [item for item in items if item.get("customerId") == api.claims["sub"]]


def slug(answer: Answer) -> str:
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.body["status"] == answer.status
    return str(answer.body["type"]).removeprefix("/problems/")


def test_an_order_is_placed_at_the_catalogues_price(api: Api, aws: Aws) -> None:
    keyboard, cable = aws.add_product("79.90"), aws.add_product("0.10")
    answer = api.place(line(keyboard, 2), line(cable, 3), line(keyboard), promotionCode="SPRING10", source="mobile")
    order = answer.body
    assert answer.status == HTTPStatus.CREATED
    assert answer.headers["location"] == f"/orders/{order['orderId']}"
    assert order["items"] == [
        {"productId": keyboard, "name": "Thing", "quantity": 3, "price": 79.9},
        {"productId": cable, "name": "Thing", "quantity": 3, "price": 0.1},
    ]
    assert order["totalAmount"] == 240
    assert (order["status"], order["version"], order["currency"]) == ("PENDING", 1, "USD")
    assert (order["customerId"], order["customerEmail"]) == (api.claims["sub"], "ada@example.com")
    assert order["metadata"] == {"source": "mobile", "promotionCode": "SPRING10"}
    assert order["shippingAddress"] == ADDRESS
    assert order["placedAt"] == order["updatedAt"]
    assert "reason" not in order


def test_the_index_attributes_match_the_state_that_results_from_the_events(api: Api, aws: Aws) -> None:
    order_id = api.place(line(aws.add_product())).body["orderId"]
    settle(api, order_id, "Inventory Reserved")
    api.call("POST", f"/orders/{order_id}/cancellation")
    item = stored(aws, order_id)
    order = domain.fold(as_stream(item).events)
    assert {name: item[name] for name in index_attributes(order)} == index_attributes(order)
    assert item["version"] == order.version == 3
    assert item["status"] == "CANCELLED"


def test_two_equal_orders_without_a_key_are_two_orders(api: Api, aws: Aws) -> None:
    product = aws.add_product()
    first, second = api.place(line(product)), api.place(line(product))
    assert first.status == second.status == HTTPStatus.CREATED
    assert first.body["orderId"] != second.body["orderId"]


def test_a_repeated_key_returns_the_first_response_whatever_the_orders_status_is_now(api: Api, aws: Aws) -> None:
    product = aws.add_product("10.00")
    first = api.place(line(product), key="key-1")
    aws.table("ProductsTableName").update_item(
        Key={"productId": product},
        UpdateExpression="SET price = :price",
        ExpressionAttributeValues={":price": Decimal("12.00")},
    )
    settle(api, first.body["orderId"], "Inventory Reserved")
    second = api.place(line(product), key="key-1")
    assert (first.status, first.body) == (second.status, second.body)
    assert len(orders_of(aws, api)) == 1


def test_a_repeated_request_returns_its_order_although_it_could_no_longer_be_placed(api: Api, aws: Aws) -> None:
    product = aws.add_product("10.00")
    first = api.place(line(product, price="10.00"), key="key-1")
    row = aws.table("ProductsTableName").get_item(Key={"productId": product})["Item"]
    aws.table("ProductsTableName").put_item(Item={**row, "price": Decimal("12.00")})  # price-changed
    assert api.place(line(product, price="10.00"), key="key-1").body == first.body
    aws.table("ProductsTableName").put_item(Item={**row, "price": Decimal("999999.99")})  # total-too-large
    big = api.place(line(product, 10_000), key="key-1")
    assert (big.status, slug(big)) == (HTTPStatus.UNPROCESSABLE_ENTITY, "idempotency-key-reused")
    aws.table("ProductsTableName").delete_item(Key={"productId": product})  # unknown-product
    second = api.place(line(product, price="10.00"), key="key-1")
    assert (second.status, second.body) == (HTTPStatus.CREATED, first.body)
    unverified = api.as_(api.claims["sub"], email_verified="false")
    assert unverified.place(line(product, price="10.00"), key="key-1").body == first.body
    other = api.place(line(product, 2), key="key-1")
    assert (other.status, slug(other)) == (HTTPStatus.UNPROCESSABLE_ENTITY, "idempotency-key-reused")
    new_key = api.place(line(product), key="key-2")
    assert (new_key.status, slug(new_key)) == (HTTPStatus.UNPROCESSABLE_ENTITY, "unknown-product")


def test_an_unverified_caller_gets_the_order_that_was_placed_with_the_key_before(api: Api, aws: Aws) -> None:
    product = aws.add_product()
    first = api.place(line(product), key="key-1")
    unverified = api.as_(api.claims["sub"], email_verified="false")
    assert unverified.place(line(product), key="key-1").body == first.body
    refused = unverified.place(line(product), key="key-2")
    assert (refused.status, slug(refused)) == (HTTPStatus.FORBIDDEN, "email-not-verified")


@pytest.mark.parametrize("key", [None, "key-1"])
def test_an_order_is_placed_with_one_read_and_one_write(api: Api, aws: Aws, key: str | None) -> None:
    product = aws.add_product()
    aws.requests.clear()
    api.place(line(product), key=key)
    assert [operation for operation, _ in aws.requests] == ["BatchGetItem", "UpdateItem"]


def test_a_repeated_request_needs_no_further_read(api: Api, aws: Aws) -> None:
    product = aws.add_product()
    api.place(line(product), key="key-1")
    aws.requests.clear()
    api.place(line(product), key="key-1")
    assert [operation for operation, _ in aws.requests] == ["BatchGetItem", "UpdateItem"]
    aws.table("ProductsTableName").delete_item(Key={"productId": product})
    aws.requests.clear()
    api.place(line(product), key="key-1")
    assert [operation for operation, _ in aws.requests] == ["BatchGetItem", "GetItem"]


def test_a_refused_request_without_a_key_does_not_read_the_orders_table(api: Api, aws: Aws) -> None:
    api.place(line("PROD-NONE"))
    assert [operation for operation, _ in aws.requests] == ["BatchGetItem"]


def test_concurrent_requests_with_one_key_all_get_the_one_order(api: Api, aws: Aws) -> None:
    """In threads at the service: API requests of one Lambda environment never run at the same time."""
    product = aws.add_product()
    request = PlaceOrderRequest.model_validate({"items": [line(product)], "shippingAddress": ADDRESS})
    caller = Caller(api.claims["sub"], "ada@example.com", is_staff=False)
    barrier = Barrier(8)

    def place(number: int) -> Order:
        barrier.wait()
        return service.place_order(
            api.module.orders, api.module.products, caller, request, "key-1", f"request-{number}", datetime.now(UTC)
        )

    with ThreadPoolExecutor(8) as threads:
        placed = list(threads.map(place, range(8)))
    assert placed == [placed[0]] * 8
    assert len(orders_of(aws, api)) == 1
    answer = api.place(line(product), key="key-1")
    assert (answer.status, answer.body["orderId"]) == (HTTPStatus.CREATED, placed[0].content["orderId"])


def test_a_key_with_another_body_is_refused(api: Api, aws: Aws) -> None:
    product = aws.add_product()
    api.place(line(product), key="key-1")
    answer = api.place(line(product, 2), key="key-1")
    assert (answer.status, slug(answer)) == (HTTPStatus.UNPROCESSABLE_ENTITY, "idempotency-key-reused")
    assert len(orders_of(aws, api)) == 1


def test_a_price_may_be_written_in_another_way_when_the_request_is_repeated(api: Api, aws: Aws) -> None:
    product = aws.add_product("24.50")
    first = api.place(line(product, price=24.5), key="key-1")
    second = api.place(line(product, price="24.50"), key="key-1")
    assert (second.status, second.body) == (HTTPStatus.CREATED, first.body)
    assert api.place(line(product, price="24.5e0"), key="key-1").body == first.body


def test_a_key_belongs_to_its_caller(api: Api, aws: Aws) -> None:
    product = aws.add_product()
    mine = api.place(line(product), key="key-1")
    theirs = api.as_(f"customer-{uuid.uuid4()}").place(line(product), key="key-1")
    assert mine.body["orderId"] != theirs.body["orderId"]


def test_a_refused_request_does_not_use_its_key(api: Api, aws: Aws) -> None:
    product = aws.add_product("10.00")
    refused = api.place(line(product, price=9.00), key="key-1")
    assert (refused.status, slug(refused)) == (HTTPStatus.CONFLICT, "price-changed")
    assert api.place(line(product, price=10.00), key="key-1").status == HTTPStatus.CREATED


@pytest.mark.parametrize("key", ["", "x" * 256, "ключ", "tab\there"])
def test_a_malformed_key_is_refused(api: Api, aws: Aws, key: str) -> None:
    answer = api.place(line(aws.add_product()), key=key)
    assert (answer.status, slug(answer)) == (HTTPStatus.BAD_REQUEST, "malformed-idempotency-key")


def test_a_request_with_a_malformed_key_and_an_invalid_body_is_refused_for_its_body(api: Api, aws: Aws) -> None:
    answer = api.place(line(aws.add_product(), 0), key="ключ")
    assert (answer.status, slug(answer)) == (HTTPStatus.UNPROCESSABLE_ENTITY, "invalid-body")
    assert [error["field"] for error in answer.body["errors"]] == ["items.0.quantity"]


def test_the_longest_key_is_accepted(api: Api, aws: Aws) -> None:
    assert api.place(line(aws.add_product()), key="x" * 255).status == HTTPStatus.CREATED


def test_a_changed_price_is_named(api: Api, aws: Aws) -> None:
    product = aws.add_product("10.00")
    answer = api.place(line(product, price=9.5))
    assert (answer.status, slug(answer)) == (HTTPStatus.CONFLICT, "price-changed")
    assert answer.body["errors"] == [{"field": "items", "message": f"{product} costs 10.00, not 9.5"}]
    assert orders_of(aws, api) == []


@pytest.mark.parametrize("key", [None, "key-1"])
def test_an_order_above_the_largest_total_is_refused_with_the_limit_and_the_total(
    api: Api, aws: Aws, key: str | None
) -> None:
    answer = api.place(line(aws.add_product("999999.99"), 10_000), key=key)
    assert (answer.status, slug(answer)) == (HTTPStatus.UNPROCESSABLE_ENTITY, "total-too-large")
    message = "the total of 9999999900.00 USD exceeds the limit of 1000000000.00 USD"
    assert answer.body["errors"] == [{"field": "items", "message": message}]
    assert orders_of(aws, api) == []


def test_unknown_and_inactive_products_are_named(api: Api, aws: Aws) -> None:
    inactive = aws.add_product(active=False)
    answer = api.place(line("PROD-NONE"), line(inactive))
    assert (answer.status, slug(answer)) == (HTTPStatus.UNPROCESSABLE_ENTITY, "unknown-product")
    assert [error["message"] for error in answer.body["errors"]] == [
        "PROD-NONE is not for sale",
        f"{inactive} is not for sale",
    ]


@pytest.mark.parametrize(
    ("body", "headers", "status", "problem"),
    [
        ("{", {}, 400, "malformed-body"),
        ("", {}, 400, "malformed-body"),
        ("[" * 100_000, {}, 400, "malformed-body"),
        ("[]", {}, 422, "invalid-body"),
        ("{}", {"content-type": "text/plain"}, 415, "unsupported-media-type"),
        ("{}", {"content-type": ""}, 415, "unsupported-media-type"),
        ('{"x": "' + "é" * 131_072 + '"}', {}, 413, "body-too-large"),
        (f'"{"x" * 262_142}"', {}, 422, "invalid-body"),  # 262,144 bytes, the limit
        (f'"{"x" * 262_143}"', {}, 413, "body-too-large"),
        ("{}", {"content-type": "application/json; charset=utf-8"}, 422, "invalid-body"),
        ("{}", {"content-type": "Application/JSON ; charset=utf-8"}, 422, "invalid-body"),
    ],
)
def test_a_body_that_cannot_be_an_order_is_refused(
    api: Api, body: str, headers: dict[str, str], status: int, problem: str
) -> None:
    answer = api.call("POST", "/orders", body, headers=headers)
    assert (answer.status, slug(answer)) == (status, problem)


def test_each_wrong_field_is_named(api: Api) -> None:
    answer = api.call("POST", "/orders", {"items": [line("P-1", 0)], "shippingAddress": ADDRESS, "colour": "red"})
    assert answer.status == HTTPStatus.UNPROCESSABLE_ENTITY
    assert {error["field"] for error in answer.body["errors"]} == {"items.0.quantity", "colour"}


@pytest.mark.parametrize("wrap", [lambda order: [order], lambda order: json.dumps(order), lambda order: None])
def test_a_body_that_is_not_an_object_is_refused(api: Api, aws: Aws, wrap: Callable[[Any], Any]) -> None:
    order = {"items": [line(aws.add_product())], "shippingAddress": ADDRESS}
    answer = api.call("POST", "/orders", json.dumps(wrap(order)))
    assert (answer.status, slug(answer)) == (HTTPStatus.UNPROCESSABLE_ENTITY, "invalid-body")
    assert answer.body["errors"] == [{"field": "body", "message": "Input should be an object"}]
    assert orders_of(aws, api) == []


def test_a_text_with_a_control_character_is_refused_by_its_field(api: Api, aws: Aws) -> None:
    answer = api.place(line(aws.add_product()), shippingAddress={**ADDRESS, "city": "Seattle\x00"})
    assert (answer.status, slug(answer)) == (HTTPStatus.UNPROCESSABLE_ENTITY, "invalid-body")
    ((field, message),) = [(error["field"], error["message"]) for error in answer.body["errors"]]
    assert field == "shippingAddress.city"
    assert "U+0000" in message
    assert orders_of(aws, api) == []


def test_a_body_that_is_not_text_is_refused(api: Api) -> None:
    event = {
        "version": "2.0",
        "rawPath": "/orders",
        "headers": {"content-type": "application/json"},
        "requestContext": {
            "http": {"method": "POST", "path": "/orders"},
            "requestId": "request-1",
            "stage": "$default",
            "authorizer": {"jwt": {"claims": api.claims}},
        },
        "body": "/w==",
        "isBase64Encoded": True,
    }
    assert api.module.handler(event, Context())["statusCode"] == HTTPStatus.BAD_REQUEST


@pytest.mark.parametrize("claims", [{}, {"sub": "customer-1", "token_use": "access"}, {"token_use": "id"}])
@pytest.mark.parametrize("call", [("POST", "/orders"), ("GET", "/orders"), ("GET", "/orders/ORD-1")])
def test_requests_without_an_id_token_are_refused(api: Api, claims: dict[str, str], call: tuple[str, str]) -> None:
    answer = api.call(*call, claims=claims)
    assert (answer.status, slug(answer)) == (HTTPStatus.UNAUTHORIZED, "unauthorized")


@pytest.mark.parametrize("verified", ["false", ""])
def test_an_unverified_address_cannot_order(api: Api, aws: Aws, verified: str) -> None:
    answer = api.as_("customer-1", email_verified=verified).place(line(aws.add_product()))
    assert (answer.status, slug(answer)) == (HTTPStatus.FORBIDDEN, "email-not-verified")


def test_staff_order_for_a_customer_who_then_sees_the_order(api: Api, aws: Aws) -> None:
    staff = api.as_("staff-1", **{"cognito:groups": "[other staff]"})
    customer = {"customerId": api.claims["sub"], "customerEmail": "bob@example.com"}
    placed = staff.place(line(aws.add_product()), **customer)
    order_id = placed.body["orderId"]
    assert (placed.body["customerId"], placed.body["customerEmail"]) == (api.claims["sub"], "bob@example.com")
    assert api.call("GET", f"/orders/{order_id}").status == HTTPStatus.OK
    assert staff.call("GET", f"/orders/{order_id}").status == HTTPStatus.OK
    cancelled = staff.call("POST", f"/orders/{order_id}/cancellation")
    assert cancelled.body["reason"] == "CANCELLED_BY_STAFF"


def test_staff_who_name_no_customer_order_for_themselves(api: Api, aws: Aws) -> None:
    staff = api.as_(f"staff-{uuid.uuid4()}", **{"cognito:groups": "[staff]"})
    placed = staff.place(line(aws.add_product())).body
    assert (placed["customerId"], placed["customerEmail"]) == (staff.claims["sub"], "ada@example.com")
    cancelled = staff.call("POST", f"/orders/{placed['orderId']}/cancellation").body
    assert cancelled["reason"] == "CANCELLED_BY_CUSTOMER"


def test_customers_cannot_name_a_customer(api: Api, aws: Aws) -> None:
    other = {"customerId": "customer-2", "customerEmail": "bob@example.com"}
    answer = api.as_("customer-1", **{"cognito:groups": "[nonstaff]"}).place(line(aws.add_product()), **other)
    assert (answer.status, slug(answer)) == (HTTPStatus.FORBIDDEN, "staff-only-fields")
    assert [error["field"] for error in answer.body["errors"]] == ["customerId", "customerEmail"]
    assert answer.body["detail"] == "only staff may send customerId and customerEmail"


def test_a_customer_who_sends_one_staff_field_is_refused_by_it(api: Api, aws: Aws) -> None:
    answer = api.place(line(aws.add_product()), customerEmail="bob@example.com")
    assert (answer.status, slug(answer)) == (HTTPStatus.FORBIDDEN, "staff-only-fields")
    assert [error["field"] for error in answer.body["errors"]] == ["customerEmail"]


@pytest.mark.parametrize("field", [{"customerId": "customer-2"}, {"customerEmail": "bob@example.com"}])
def test_staff_name_both_the_customer_and_the_address_or_neither(api: Api, aws: Aws, field: dict[str, str]) -> None:
    staff = api.as_("staff-1", **{"cognito:groups": "[staff]"})
    answer = staff.place(line(aws.add_product()), **field)
    assert (answer.status, slug(answer)) == (HTTPStatus.UNPROCESSABLE_ENTITY, "invalid-body")
    assert answer.body["errors"] == [{"field": "body", "message": "customerId and customerEmail go together"}]


def test_an_order_is_returned_in_its_current_state(api: Api, aws: Aws) -> None:
    placed = api.place(line(aws.add_product())).body
    settle(api, placed["orderId"], "Inventory Out-Of-Stock")
    order = api.call("GET", f"/orders/{placed['orderId']}").body
    assert (order["status"], order["reason"], order["version"]) == ("REJECTED", "OUT_OF_STOCK", 2)
    assert order["items"] == placed["items"]
    assert order["updatedAt"] >= order["placedAt"] == placed["placedAt"]


@pytest.mark.parametrize("path", ["", "/events", "/cancellation"])
def test_an_order_of_another_customer_is_not_found(api: Api, aws: Aws, path: str) -> None:
    order_id = api.place(line(aws.add_product())).body["orderId"]
    method = "POST" if path == "/cancellation" else "GET"
    other = api.as_("customer-2").call(method, f"/orders/{order_id}{path}")
    missing = api.call(method, f"/orders/ORD-0{path}")
    assert (other.status, slug(other)) == (missing.status, slug(missing)) == (404, "order-not-found")
    assert other.body["detail"].replace(order_id, "ORD-0") == missing.body["detail"]
    assert api.call("GET", f"/orders/{order_id}").body["version"] == 1


def test_the_events_of_an_order_are_returned_as_published(api: Api, aws: Aws) -> None:
    order_id = api.place(line(aws.add_product())).body["orderId"]
    settle(api, order_id, "Inventory Reserved")
    events = api.call("GET", f"/orders/{order_id}/events").body["items"]
    assert [event["detail-type"] for event in events] == ["Order Placed", "Order Confirmed"]
    assert [event["detail"]["metadata"]["sequence"] for event in events] == [1, 2]
    assert all(event["source"] == "orders.service" for event in events)
    assert [event["time"] for event in events] == [event["detail"]["metadata"]["timestamp"] for event in events]
    assert "requestHash" not in json.dumps(events)


def test_a_customers_orders_are_listed_newest_first_in_pages(api: Api, aws: Aws) -> None:
    product = aws.add_product()
    placed = [api.place(line(product)).body["orderId"] for _ in range(5)]
    seen: list[str] = []
    query = {"limit": "2"}
    for expected in (2, 2, 1):
        answer = api.call("GET", "/orders", query=query).body
        assert len(answer["items"]) == expected
        seen += [order["orderId"] for order in answer["items"]]
        query = {"limit": "2", "cursor": answer.get("nextCursor", "")}
    assert seen == placed[::-1]
    assert "nextCursor" not in answer
    assert set(answer["items"][0]) == {"orderId", "status", "placedAt", "totalAmount", "currency", "version"}


def test_a_status_is_searched_beyond_the_first_read(api: Api, aws: Aws, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orderflow.pagination.ITEMS_PER_FILTERED_READ", 2)
    product = aws.add_product()
    placed = [api.place(line(product)).body["orderId"] for _ in range(6)]
    for order_id in (placed[0], placed[2]):
        api.call("POST", f"/orders/{order_id}/cancellation")
    first = api.call("GET", "/orders", query={"status": "CANCELLED", "limit": "1"}).body
    assert [order["orderId"] for order in first["items"]] == [placed[2]]
    query = {"status": "CANCELLED", "limit": "1", "cursor": first["nextCursor"]}
    assert [order["orderId"] for order in api.call("GET", "/orders", query=query).body["items"]] == [placed[0]]


def test_a_search_ends_after_a_limited_number_of_reads_and_can_be_continued(
    api: Api, aws: Aws, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orderflow.pagination.ITEMS_PER_FILTERED_READ", 1)
    product = aws.add_product()
    oldest = api.place(line(product)).body["orderId"]
    api.call("POST", f"/orders/{oldest}/cancellation")
    for _ in range(READS_PER_PAGE):
        api.place(line(product))
    first = api.call("GET", "/orders", query={"status": "CANCELLED"}).body
    assert first["items"] == []
    query = {"status": "CANCELLED", "cursor": first["nextCursor"]}
    assert [order["orderId"] for order in api.call("GET", "/orders", query=query).body["items"]] == [oldest]


def test_a_cursor_is_valid_for_its_own_list_only(api: Api, aws: Aws) -> None:
    product = aws.add_product()
    for _ in range(2):
        api.place(line(product))
    cursor = api.call("GET", "/orders", query={"limit": "1"}).body["nextCursor"]
    for caller, query in (
        (api.as_("customer-2"), {"cursor": cursor}),
        (api, {"cursor": cursor, "status": "PENDING"}),
        (api, {"cursor": "nonsense"}),
    ):
        answer = caller.call("GET", "/orders", query=query)
        assert (answer.status, slug(answer)) == (HTTPStatus.BAD_REQUEST, "malformed-cursor")


@pytest.mark.parametrize(
    ("path", "of_list", "position"),
    [
        ("/orders", ("orders", "{sub}", ""), {"orderId": "ORD-1"}),
        ("/orders", ("orders", "{sub}", ""), {"orderId": "ORD-1", "placedAt": "2026", "customerId": "customer-2"}),
        ("/products", ("products",), {"orderId": "ORD-1"}),
        ("/products", ("products",), {"productId": "x" * 2049}),
    ],
)
def test_a_forged_position_is_refused(api: Api, path: str, of_list: tuple[str, ...], position: dict[str, str]) -> None:
    own_list = tuple(part.format(**api.claims) for part in of_list)
    cursor = pagination.encode_cursor(position, own_list, api.module._now()) or ""
    answer = api.call("GET", path, query={"cursor": cursor})
    assert (answer.status, slug(answer)) == (HTTPStatus.BAD_REQUEST, "malformed-cursor")


def test_an_id_that_is_too_long_for_a_key_is_not_found_without_a_read(api: Api, aws: Aws) -> None:
    answer = api.call("GET", f"/orders/{'é' * 1025}")
    assert aws.requests == []  # DynamoDB would refuse; moto does not
    assert (answer.status, slug(answer)) == (HTTPStatus.NOT_FOUND, "order-not-found")


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        ({"status": "LOST"}, "malformed-status"),
        ({"limit": "0"}, "malformed-limit"),
        ({"limit": "101"}, "malformed-limit"),
        ({"limit": "many"}, "malformed-limit"),
        ({"limit": "+5"}, "malformed-limit"),
    ],
)
def test_a_wrong_parameter_is_refused(api: Api, query: dict[str, str], problem: str) -> None:
    answer = api.call("GET", "/orders", query=query)
    assert (answer.status, slug(answer)) == (HTTPStatus.BAD_REQUEST, problem)


@pytest.mark.parametrize(("name", "values"), [("limit", "1,2"), ("status", "PENDING,CANCELLED"), ("cursor", "a,b")])
def test_a_repeated_parameter_is_refused(api: Api, name: str, values: str) -> None:
    event = {
        "version": "2.0",
        "rawPath": "/orders",
        "rawQueryString": "&".join(f"{name}={value}" for value in values.split(",")),
        "queryStringParameters": {name: values},
        "headers": {},
        "requestContext": {
            "http": {"method": "GET", "path": "/orders"},
            "requestId": "request-1",
            "stage": "$default",
            "authorizer": {"jwt": {"claims": api.claims}},
        },
        "isBase64Encoded": False,
    }
    answer = api.module.handler(event, Context())
    assert (answer["statusCode"], json.loads(answer["body"])["type"]) == (400, f"/problems/malformed-{name}")


def test_a_page_has_1_to_100_entries_and_20_by_default(api: Api, aws: Aws) -> None:
    customer, product = api.as_(f"customer-{uuid.uuid4()}"), aws.add_product(stock=None)
    for _ in range(101):
        customer.place(line(product))
    for query, size in (({"limit": "1"}, 1), ({}, 20), ({"limit": "100"}, 100)):
        page = customer.call("GET", "/orders", query=query).body
        assert len(page["items"]) == size
        assert "nextCursor" in page


def test_a_cancellation_is_accepted_once_and_repeating_it_changes_nothing(api: Api, aws: Aws) -> None:
    order_id = api.place(line(aws.add_product())).body["orderId"]
    first = api.call("POST", f"/orders/{order_id}/cancellation")
    second = api.call("POST", f"/orders/{order_id}/cancellation")
    assert first.status == second.status == HTTPStatus.ACCEPTED
    assert first.body == second.body
    assert (first.body["status"], first.body["reason"]) == ("CANCELLED", "CANCELLED_BY_CUSTOMER")


def test_a_repeated_cancellation_is_counted_and_logged_once(api: Api, aws: Aws, output: Callable[[], str]) -> None:
    order_id = api.place(line(aws.add_product())).body["orderId"]
    for _ in range(2):
        api.call("POST", f"/orders/{order_id}/cancellation")
    printed = output()
    assert measured(printed, "OrdersCancelled") == [1.0]
    assert [entry["order_id"] for entry in log_lines(printed) if entry.get("message") == "order cancelled"] == [
        order_id
    ]


def test_a_cancellation_keeps_the_orders_correlation_id_and_is_caused_by_its_own_request(api: Api, aws: Aws) -> None:
    placed = api.place(line(aws.add_product()))
    order_id = placed.body["orderId"]
    settle(api, order_id, "Inventory Reserved")
    cancelled = api.call("POST", f"/orders/{order_id}/cancellation")
    event = stored(aws, order_id)["events"][2]
    requests = (placed.headers["x-correlation-id"], cancelled.headers["x-correlation-id"])
    assert (event["correlationId"], event["causationId"]) == requests


def test_a_rejected_order_cannot_be_cancelled(api: Api, aws: Aws) -> None:
    order_id = api.place(line(aws.add_product())).body["orderId"]
    settle(api, order_id, "Inventory Out-Of-Stock")
    answer = api.call("POST", f"/orders/{order_id}/cancellation")
    assert (answer.status, slug(answer)) == (HTTPStatus.CONFLICT, "not-cancellable")


def test_a_cancellation_is_decided_again_after_a_concurrent_update(
    api: Api, aws: Aws, monkeypatch: pytest.MonkeyPatch
) -> None:
    order_id = api.place(line(aws.add_product())).body["orderId"]
    load = api.module.orders.load
    races = iter(["Inventory Reserved"])

    def raced_load(wanted: str) -> Any:
        stream = load(wanted)
        for report in races:
            monkeypatch.setattr(api.module.orders, "load", load)
            settle(api, wanted, report)
        return stream

    monkeypatch.setattr(api.module.orders, "load", raced_load)
    assert api.call("POST", f"/orders/{order_id}/cancellation").status == HTTPStatus.ACCEPTED
    types = [event["type"] for event in stored(aws, order_id)["events"]]
    assert types == ["Order Placed", "Order Confirmed", "Order Cancelled"]


def test_an_order_that_changes_at_every_attempt_is_busy(api: Api, aws: Aws, monkeypatch: pytest.MonkeyPatch) -> None:
    order_id = api.place(line(aws.add_product())).body["orderId"]
    old = api.module.orders.load(order_id)
    settle(api, order_id, "Inventory Reserved")
    monkeypatch.setattr(api.module.orders, "load", lambda _: old)
    answer = api.call("POST", f"/orders/{order_id}/cancellation")
    assert (answer.status, slug(answer)) == (HTTPStatus.CONFLICT, "busy")


def test_the_catalogue_is_public_and_lists_the_products_for_sale(api: Api, aws: Aws) -> None:
    shown, hidden, *_ = aws.add_product("79.90"), aws.add_product(active=False), *(aws.add_product() for _ in range(3))
    products: dict[str, Any] = {}
    query = {"limit": "3"}
    while True:
        page = api.call("GET", "/products", query=query, claims={}).body
        assert len(page["items"]) <= 3
        products |= {product["productId"]: product for product in page["items"]}
        if "nextCursor" not in page:
            break
        query = {"limit": "3", "cursor": page["nextCursor"]}
    assert products[shown] == {"productId": shown, "name": "Thing", "price": 79.9}
    assert hidden not in products


SPOILED = [
    ({"name": None}, "name is missing or not a text"),
    ({"name": ""}, "name is missing or not a text"),
    ({"name": "  "}, "name is missing or not a text"),
    ({"name": "Thing\u202e"}, "name contains the character U+202E"),
    ({"active": None}, "active is missing or not a boolean"),
    ({"active": "yes"}, "active is missing or not a boolean"),
    ({"price": None}, "price is missing or not a number"),
    ({"price": "10.00"}, "price is missing or not a number"),
    ({"price": Decimal("19.999")}, "price has more than two decimals"),
    ({"price": Decimal(-5)}, "price is not from 0 to 999999.99"),
    ({"price": Decimal(1_000_000)}, "price is not from 0 to 999999.99"),
]


def catalogue(api: Api) -> set[str]:
    """The ids of all products that the API shows."""
    found: set[str] = set()
    query = {"limit": "100"}
    while True:
        page = api.call("GET", "/products", query=query, claims={})
        assert page.status == HTTPStatus.OK
        found |= {product["productId"] for product in page.body["items"]}
        if "nextCursor" not in page.body:
            return found
        query = {"limit": "100", "cursor": page.body["nextCursor"]}


@pytest.mark.parametrize(("changes", "problem"), SPOILED)
def test_an_invalid_product_is_left_out_logged_and_counted(
    api: Api, aws: Aws, output: Callable[[], str], changes: dict[str, Any], problem: str
) -> None:
    sound, spoiled = aws.add_product(), aws.add_product()
    aws.spoil_product(spoiled, **changes)
    output()
    shown = catalogue(api)
    printed = output()
    aws.table("ProductsTableName").delete_item(Key={"productId": spoiled})
    assert sound in shown
    assert spoiled not in shown
    (logged,) = [entry for entry in log_lines(printed) if entry.get("message") == "invalid product left out"]
    assert (logged["level"], logged["product_id"], logged["problems"]) == ("WARNING", spoiled, [problem])
    assert measured(printed, "InvalidProducts") == [1]


def test_a_product_with_an_invalid_id_is_left_out(api: Api, aws: Aws, output: Callable[[], str]) -> None:
    product_id = f"PROD {uuid.uuid4()}"
    row = {"productId": product_id, "name": "Thing", "price": Decimal(1), "active": True}
    aws.table("ProductsTableName").put_item(Item=row)
    output()
    shown = catalogue(api)
    printed = output()
    aws.table("ProductsTableName").delete_item(Key={"productId": product_id})
    assert product_id not in shown
    (logged,) = [entry for entry in log_lines(printed) if entry.get("message") == "invalid product left out"]
    problem = "productId is not 1 to 64 letters, digits, dots, underscores or hyphens"
    assert (logged["product_id"], logged["problems"]) == (product_id, [problem])


def test_a_product_may_be_free(api: Api, aws: Aws) -> None:
    free = aws.add_product("0.00")
    answer = api.place(line(free, 2))
    assert (answer.status, answer.body["totalAmount"]) == (HTTPStatus.CREATED, 0)


@pytest.mark.parametrize("changes", [changes for changes, _ in SPOILED])
def test_an_invalid_product_cannot_be_ordered(api: Api, aws: Aws, changes: dict[str, Any]) -> None:
    spoiled = aws.add_product()
    aws.spoil_product(spoiled, **changes)
    answer = api.place(line(spoiled))
    aws.table("ProductsTableName").delete_item(Key={"productId": spoiled})
    assert (answer.status, slug(answer)) == (HTTPStatus.UNPROCESSABLE_ENTITY, "unknown-product")
    assert answer.body["errors"] == [{"field": "items", "message": f"{spoiled} is not for sale"}]


def test_an_unknown_path_is_answered_with_a_problem(api: Api) -> None:
    answer = api.call("GET", "/nothing")
    assert (answer.status, slug(answer)) == (HTTPStatus.NOT_FOUND, "no-such-route")


def test_logs_connect_the_request_with_the_event(api: Api, aws: Aws, output: Callable[[], str]) -> None:
    answer = api.place(line(aws.add_product("10.00"), 3))
    api.place(line("PROD-NONE"))
    lines = log_lines(output())
    placed = next(entry for entry in lines if entry.get("message") == "order placed")
    assert placed["correlation_id"] == answer.headers["x-correlation-id"]
    assert placed["order_id"] == answer.body["orderId"]
    event = stored(aws, answer.body["orderId"])["events"][0]
    assert (event["eventId"], event["correlationId"]) == (placed["event_id"], placed["correlation_id"])
    metrics = next(entry for entry in lines if "OrdersPlaced" in entry)
    assert (metrics["OrdersPlaced"], metrics["OrderValue"]) == ([1.0], [30.0])
    assert "service" in metrics


def test_the_log_of_a_request_does_not_name_the_order_of_an_earlier_one(
    api: Api, aws: Aws, output: Callable[[], str]
) -> None:
    order_id = api.place(line(aws.add_product())).body["orderId"]
    api.call("GET", f"/orders/{order_id}")
    output()
    api.call("GET", "/orders", query={"status": "LOST"})
    (refused,) = [entry for entry in log_lines(output()) if entry.get("message") == "request refused"]
    assert "order_id" not in refused


def test_unprocessed_keys_of_a_batch_are_read_again(api: Api, aws: Aws) -> None:
    product = aws.add_product()
    catalogue = api.module.products
    real = catalogue._client.batch_get_item

    class Partial:
        """Leaves all keys unprocessed the first `times` times."""

        def __init__(self, times: int) -> None:
            self.times = times

        def batch_get_item(self, RequestItems: Any) -> Any:  # noqa: N803 - boto3's name
            self.times -= 1
            return (
                {"Responses": {}, "UnprocessedKeys": RequestItems}
                if self.times >= 0
                else real(RequestItems=RequestItems)
            )

    from orderflow.dynamodb import IncompleteRead
    from orders.repository import Products

    partial = Products(aws.resource, catalogue._table.name)
    partial._client = Partial(1)  # type: ignore[assignment]
    assert set(partial.get([product])) == {product}
    partial._client = Partial(3)  # type: ignore[assignment]
    with pytest.raises(IncompleteRead):
        partial.get([product])
