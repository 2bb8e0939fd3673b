"""Orders, placed through the API of the running application."""

import json
import uuid
from concurrent.futures import ThreadPoolExecutor

from tests.e2e.conftest import Shop
from tools import republish


def test_an_order_in_stock_is_confirmed_and_its_items_are_reserved(shop: Shop) -> None:
    product = shop.product(stock=5, price="79.90")
    placed = shop.place((product, 2))
    assert placed.status == 201
    assert (placed.body["status"], placed.body["totalAmount"]) == ("PENDING", 159.8)
    order = shop.outcome(placed.body["orderId"])
    assert (order["status"], order["version"]) == ("CONFIRMED", 2)
    assert shop.stock(product) == (3, 2)


def test_an_order_out_of_stock_is_rejected_and_nothing_is_reserved(shop: Shop) -> None:
    enough, lacking = shop.product(stock=5), shop.product(stock=1)
    order = shop.outcome(shop.place((enough, 1), (lacking, 2)).body["orderId"])
    assert (order["status"], order["reason"]) == ("REJECTED", "OUT_OF_STOCK")
    assert (shop.stock(enough), shop.stock(lacking)) == ((5, 0), (1, 0))


def test_requests_with_one_idempotency_key_place_one_order(shop: Shop) -> None:
    product, key = shop.product(stock=5), str(uuid.uuid4())
    first = shop.place((product, 1), key=key)
    shop.outcome(first.body["orderId"])
    second = shop.place((product, 1), key=key)
    assert (first.status, first.body) == (second.status, second.body)
    shop.outcome(shop.place((product, 1)).body["orderId"])
    assert shop.stock(product) == (3, 2)


def test_a_cancelled_order_gives_its_items_back(shop: Shop) -> None:
    product = shop.product(stock=5)
    order_id = shop.place((product, 2)).body["orderId"]
    shop.outcome(order_id)
    cancelled = shop.call("POST", f"/orders/{order_id}/cancellation")
    assert (cancelled.status, cancelled.body["status"]) == (202, "CANCELLED")
    shop.eventually(lambda: shop.stock(product) == (5, 0))


def test_concurrent_orders_never_sell_more_than_the_stock(shop: Shop) -> None:
    product = shop.product(stock=5)
    with ThreadPoolExecutor(8) as pool:
        placed = list(pool.map(lambda _: shop.place((product, 1)).body["orderId"], range(12)))
    statuses = [shop.outcome(order_id)["status"] for order_id in placed]
    assert (statuses.count("CONFIRMED"), statuses.count("REJECTED")) == (5, 7)
    assert shop.stock(product) == (0, 5)


def test_every_event_of_an_order_reaches_the_bus_with_its_correlation(shop: Shop) -> None:
    order_id = shop.place((shop.product(stock=5), 1)).body["orderId"]
    shop.outcome(order_id)
    shop.eventually(lambda: len(shop.events_on_the_bus(order_id)) == 3)
    events = {event["detail-type"]: event["detail"]["metadata"] for event in shop.events_on_the_bus(order_id)}
    placed, reserved, confirmed = (events[name] for name in ("Order Placed", "Inventory Reserved", "Order Confirmed"))
    assert placed["correlationId"] == reserved["correlationId"] == confirmed["correlationId"]
    assert (reserved["causationId"], confirmed["causationId"]) == (placed["eventId"], reserved["eventId"])


def test_the_audit_trail_shows_what_was_published(shop: Shop) -> None:
    order_id = shop.place((shop.product(stock=5), 1)).body["orderId"]
    shop.outcome(order_id)
    trail = shop.call("GET", f"/orders/{order_id}/events").body["items"]
    assert [event["detail-type"] for event in trail] == ["Order Placed", "Order Confirmed"]
    shop.eventually(lambda: len(shop.events_on_the_bus(order_id)) == 3)
    published = {event["detail-type"]: event["detail"] for event in shop.events_on_the_bus(order_id)}
    assert all(published[event["detail-type"]] == event["detail"] for event in trail)


def test_republished_events_change_nothing(shop: Shop) -> None:
    product = shop.product(stock=5)
    order_id = shop.place((product, 2)).body["orderId"]
    order = shop.outcome(order_id)
    shop.eventually(lambda: len(shop.events_on_the_bus(order_id)) == 3)
    assert republish.republish(shop.stack, order_id, republish.EVER) == 3
    shop.eventually(lambda: len(shop.events_on_the_bus(order_id)) == 6)
    follow_up = shop.place((product, 1)).body["orderId"]  # comes to inventory behind the repeated events
    shop.outcome(follow_up)
    assert shop.call("GET", f"/orders/{order_id}").body == order
    assert shop.stock(product) == (2, 3)


def test_a_customer_cannot_read_the_order_of_another(shop: Shop) -> None:
    order_id = shop.place((shop.product(stock=5), 1), user="staff").body["orderId"]
    assert shop.call("GET", f"/orders/{order_id}").status == 404
    assert shop.call("GET", f"/orders/{order_id}", user="staff").status == 200


def test_orders_need_a_token_and_the_catalogue_does_not(shop: Shop) -> None:
    assert shop.call("GET", "/orders", user=None).status == 401
    assert shop.call("POST", "/orders", user=None, body="{}").status == 401
    assert shop.call("GET", "/products", user=None).status == 200


def test_a_forged_token_is_refused(shop: Shop) -> None:
    header, claims, signature = shop.stack.tokens["customer"].split(".")
    forged = f"{header}.{claims}.{signature[::-1]}"
    answer = shop.api.call("GET", "/orders", headers={"authorization": f"Bearer {forged}"})
    assert answer.status == 401


def test_the_problem_for_an_invalid_order_names_the_fields(shop: Shop) -> None:
    body = json.dumps({"items": [{"productId": "PROD-MOUSE", "quantity": 0}]})
    answer = shop.call("POST", "/orders", headers={"content-type": "application/json"}, body=body)
    assert answer.status == 422
    assert {error["field"] for error in answer.body["errors"]} == {"items.0.quantity", "shippingAddress"}
