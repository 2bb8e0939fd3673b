"""BackofficeApiFunction against moto."""

import json
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from http import HTTPStatus
from typing import Any

import pytest

from dlq_processor.messages.reading import MAX_PAYLOAD
from inventory import repository
from localaws.aws import ServiceError
from orderflow import dynamodb, pagination
from orderflow.dynamodb import ATTEMPTS
from tests.integration.support import Answer, Api, Aws, Context, answering, log_lines, measured, module, order_event

ROUTES = [
    ("GET", "/admin/sales"),
    ("GET", "/admin/promotions"),
    ("GET", "/admin/failed-events"),
    ("POST", "/admin/failed-events/redrive"),
    ("POST", "/admin/failed-events/{id}/redrive"),
    ("POST", "/admin/failed-events/{id}/park"),
    ("GET", "/admin/products/{productId}/stock"),
    ("PUT", "/admin/products/{productId}/stock"),
]


@pytest.fixture
def office(aws: Aws) -> Api:
    """The back office, called by staff."""
    claims = {"sub": "staff-1", "token_use": "id", "email": "staff@example.com", "cognito:groups": "[staff]"}
    return Api(module("backoffice.handler"), claims)


def slug(answer: Answer) -> str:
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.body["status"] == answer.status
    return str(answer.body["type"]).removeprefix("/problems/")


# ---------------------------------------------------------------------------------------------- access


def test_every_deployed_admin_route_is_tested(aws: Aws) -> None:
    paths = aws.stack.resources["OrdersApi"].properties["Body"]["paths"]
    admin = {(method.upper(), path) for path in paths if path.startswith("/admin/") for method in paths[path]}
    assert admin == set(ROUTES)


@pytest.mark.parametrize("call", ROUTES)
def test_only_staff_have_access(office: Api, call: tuple[str, str]) -> None:
    customer = {"sub": "customer-1", "token_use": "id", "cognito:groups": "[nonstaff]"}
    unknown, known = office.call(*call, claims={}), office.call(*call, claims=customer)
    assert (unknown.status, slug(unknown)) == (HTTPStatus.UNAUTHORIZED, "unauthorized")
    assert (known.status, slug(known)) == (HTTPStatus.FORBIDDEN, "staff-only")


# ---------------------------------------------------------------------------------------------- figures


def tally(orders: int, items: int, revenue: float) -> dict[str, float]:
    return {"orders": orders, "items": items, "revenue": revenue}


def counted(aws: Aws, day: str, promotion: str = "", **numbers: Any) -> None:
    """Stores a counter as the analytics service does."""
    aws.table("AnalyticsTableName").put_item(Item={"pk": f"SALES#{day[:7]}", "sk": f"{day}#{promotion}", **numbers})


def test_sales_are_returned_per_day_and_promotion_with_totals(office: Api, aws: Aws) -> None:
    confirmed: dict[str, Any] = {"confirmedOrders": 2, "confirmedItems": 5, "confirmedRevenue": Decimal("100.50")}
    cancelled: dict[str, Any] = {"cancelledOrders": 1, "cancelledItems": 2, "cancelledRevenue": Decimal("40.25")}
    counted(aws, "2011-01-30", **confirmed)
    counted(aws, "2011-01-31", **confirmed)
    counted(aws, "2011-02-01", "SPRING10", **confirmed, **cancelled)
    counted(aws, "2011-02-02", "SPRING10", placedOrders=1, placedItems=1, placedRevenue=Decimal(1))
    counted(aws, "2011-02-03", **cancelled)
    counted(aws, "2011-02-04", **cancelled)
    answer = office.call("GET", "/admin/sales", query={"from": "2011-01-31", "to": "2011-02-03"})
    assert answer.status == HTTPStatus.OK
    none = tally(0, 0, 0)
    assert answer.body == {
        "from": "2011-01-31",
        "to": "2011-02-03",
        "totals": {
            "confirmed": tally(4, 10, 201),
            "cancelled": tally(2, 4, 80.5),
            "net": tally(2, 6, 120.5),
        },
        "items": [
            {"day": "2011-01-31", "confirmed": tally(2, 5, 100.5), "cancelled": none},
            {
                "day": "2011-02-01",
                "promotionCode": "SPRING10",
                "confirmed": tally(2, 5, 100.5),
                "cancelled": tally(1, 2, 40.25),
            },
            {"day": "2011-02-03", "confirmed": none, "cancelled": tally(1, 2, 40.25)},
        ],
    }


def test_promotions_are_summed_over_the_days(office: Api, aws: Aws) -> None:
    placed: dict[str, Any] = {"placedOrders": 2, "placedItems": 3, "placedRevenue": Decimal("30.10")}
    counted(aws, "2012-05-01", "SUMMER", **placed)
    counted(aws, "2012-05-01", confirmedOrders=7, confirmedItems=7, confirmedRevenue=Decimal(7))
    counted(aws, "2012-05-02", "SUMMER", **placed, confirmedOrders=1, confirmedItems=2, confirmedRevenue=Decimal("20"))
    counted(aws, "2012-05-02", "EARLY", cancelledOrders=1, cancelledItems=1, cancelledRevenue=Decimal("9.99"))
    answer = office.call("GET", "/admin/promotions", query={"from": "2012-05-01", "to": "2012-05-02"})
    none = tally(0, 0, 0)
    assert answer.body == {
        "from": "2012-05-01",
        "to": "2012-05-02",
        "items": [
            {"promotionCode": "EARLY", "placed": none, "confirmed": none, "cancelled": tally(1, 1, 9.99)},
            {"promotionCode": "SUMMER", "placed": tally(4, 6, 60.2), "confirmed": tally(1, 2, 20), "cancelled": none},
        ],
    }


@pytest.mark.parametrize("path", ["/admin/sales", "/admin/promotions"])
def test_the_default_range_is_the_last_seven_days(office: Api, path: str) -> None:
    answer = office.call("GET", path).body
    first, last = date.fromisoformat(answer["from"]), date.fromisoformat(answer["to"])
    assert (last - first).days == 6
    assert abs((datetime.now(UTC).date() - last).days) <= 1  # midnight may pass in between
    backwards = office.call("GET", path, query={"from": "2026-11-02", "to": "2026-11-01"})
    assert (backwards.status, slug(backwards)) == (HTTPStatus.BAD_REQUEST, "malformed-range")
    assert "is after" in backwards.body["detail"]


def test_the_first_and_last_days_of_the_calendar_are_accepted(office: Api) -> None:
    assert office.call("GET", "/admin/sales", query={"to": "0001-01-01"}).body["items"] == []
    assert office.call("GET", "/admin/sales", query={"from": "9999-12-31", "to": "9999-12-31"}).body["items"] == []


# ---------------------------------------------------------------------------------------- failed events


@dataclass
class Answered:
    """The result of Invoke."""

    payload: bytes = b"null"
    function_error: str | None = None


@dataclass
class Functions:
    """The consumers, and their invocations."""

    answer: Callable[[str, bytes], Answered] = lambda _name, _payload: Answered()
    invoked: list[tuple[str, Any]] = field(default_factory=list)

    def invoke(self, name: str, payload: bytes) -> Answered:
        self.invoked.append((name, json.loads(payload)))
        return self.answer(name, payload)


@pytest.fixture
def functions(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> Functions:
    functions = Functions()
    monkeypatch.setattr(aws.store, "on_invoke", answering(functions.invoke))
    return functions


def refusing(_name: str, _payload: bytes) -> Answered:
    return Answered(b'{"errorType": "ValueError", "errorMessage": "ada@example.com has no order"}', "Unhandled")


def add_failed_event(aws: Aws, consumer: str, status: str = "NEW", *, minute: int = 0, **more: Any) -> str:
    """Stores a record as the DLQ processor does, and returns its id."""
    event_id = uuid.uuid4().hex
    record = {
        "id": f"{consumer}:{event_id}",
        "consumer": consumer,
        "eventId": event_id,
        "orderId": "ORD-1",
        "kind": "INVOCATION",
        "reason": "RuntimeError",
        "message": "broken",
        "failures": 1,
        "attempts": 0,
        "status": status,
        "firstFailedAt": "2026-11-21T18:00:00.000Z",
        "lastFailedAt": f"2026-11-21T18:{minute:02}:00.000Z",
        "payload": json.dumps({"detail": {"number": minute}}),
        "messageIds": {f"message-{event_id}"},
        "version": 1,
        **more,
    }
    aws.table("FailedEventsTableName").put_item(
        Item={name: value for name, value in record.items() if value is not None}
    )
    return str(record["id"])


def failed_event(aws: Aws, failure_id: str) -> dict[str, Any]:
    item: dict[str, Any] = aws.table("FailedEventsTableName").get_item(Key={"id": failure_id})["Item"]
    return item


def change(aws: Aws, failure_id: str, status: str) -> None:
    """Changes a record as another writer would: the DLQ processor or other staff."""
    record = failed_event(aws, failure_id)
    item = {**record, "status": status, "version": record["version"] + 1}
    aws.table("FailedEventsTableName").put_item(Item=item)


@pytest.fixture
def consumer(aws: Aws) -> str:
    """A consumer without failed events."""
    table = aws.table("FailedEventsTableName")
    for item in table.scan()["Items"]:
        table.delete_item(Key={"id": item["id"]})
    return "email"


def listed(office: Api, **query: str) -> list[str]:
    return [entry["id"] for entry in office.call("GET", "/admin/failed-events", query=query).body["items"]]


def test_the_list_of_failed_events_omits_payload_and_message_ids(office: Api, aws: Aws, consumer: str) -> None:
    failure_id = add_failed_event(aws, consumer)
    (entry,) = office.call("GET", "/admin/failed-events", query={"consumer": consumer}).body["items"]
    assert (entry["id"], entry["status"], entry["reason"]) == (failure_id, "NEW", "RuntimeError")
    assert entry["message"] == "broken"
    assert not {"payload", "messageIds"} & set(entry)


def test_a_failed_event_without_payload_is_listed_with_the_command_to_run(office: Api, aws: Aws, consumer: str) -> None:
    add_failed_event(aws, consumer, "PARKED", kind="NON_RETRYABLE", payload=None, remediation="make replay NAME=r-1")
    (entry,) = office.call("GET", "/admin/failed-events", query={"consumer": consumer}).body["items"]
    assert (entry["kind"], entry["remediation"]) == ("NON_RETRYABLE", "make replay NAME=r-1")


def test_failed_events_are_listed_by_status_and_consumer_in_pages(office: Api, aws: Aws, consumer: str) -> None:
    parked = [add_failed_event(aws, consumer, "PARKED", minute=minute) for minute in range(3)]
    new = add_failed_event(aws, consumer)
    assert listed(office, consumer=consumer) == [new, *reversed(parked)]
    query = {"consumer": consumer, "status": "PARKED", "limit": "2"}
    first = office.call("GET", "/admin/failed-events", query=query).body
    assert [entry["id"] for entry in first["items"]] == [parked[2], parked[1]]
    assert listed(office, **query, cursor=first["nextCursor"]) == [parked[0]]
    other = office.call("GET", "/admin/failed-events", query={"status": "NEW", "cursor": first["nextCursor"]})
    assert (other.status, slug(other)) == (HTTPStatus.BAD_REQUEST, "malformed-cursor")


@pytest.mark.parametrize(
    "position",
    [
        {"status": "LOST"},
        {"status": "NEW", "id": "email:1"},
        {"status": "LOST", "id": "email:1", "lastFailedAt": "2026"},
        {"id": "email:1", "lastFailedAt": "2026"},
    ],
)
def test_a_forged_cursor_is_refused(office: Api, position: dict[str, str]) -> None:
    cursor = pagination.encode_cursor(position, ("failed-events", "", ""), datetime.now(UTC))
    assert cursor
    answer = office.call("GET", "/admin/failed-events", query={"cursor": cursor})
    assert (answer.status, slug(answer)) == (HTTPStatus.BAD_REQUEST, "malformed-cursor")


@pytest.mark.parametrize("call", [("GET", "/admin/products/{}/stock"), ("POST", "/admin/failed-events/{}/park")])
def test_an_id_that_is_too_long_for_a_key_is_not_found(
    office: Api, monkeypatch: pytest.MonkeyPatch, call: tuple[str, str]
) -> None:
    for storage_of in (office.module.products, office.module.failed_events):
        monkeypatch.setattr(storage_of, "get", None)  # DynamoDB would refuse; moto does not
    method, path = call
    assert office.call(method, path.format("é" * 512 + "x")).status == HTTPStatus.NOT_FOUND  # 1025 bytes


@pytest.mark.parametrize(
    ("query", "problem"), [({"status": "LOST"}, "malformed-status"), ({"limit": "0"}, "malformed-limit")]
)
def test_an_invalid_query_parameter_is_refused(office: Api, query: dict[str, str], problem: str) -> None:
    answer = office.call("GET", "/admin/failed-events", query=query)
    assert (answer.status, slug(answer)) == (HTTPStatus.BAD_REQUEST, problem)


@pytest.mark.parametrize("status", ["NEW", "RETRYING", "PARKED"])
def test_a_redrive_invokes_the_consumer_and_resolves_the_record(
    office: Api, aws: Aws, functions: Functions, status: str
) -> None:
    failure_id = add_failed_event(aws, "email", status)
    answer = office.call("POST", f"/admin/failed-events/{failure_id}/redrive")
    assert answer.status == HTTPStatus.OK
    assert (answer.body["id"], answer.body["status"], answer.body["outcome"]) == (failure_id, "RESOLVED", "RESOLVED")
    assert functions.invoked == [(aws.stack.resources["EmailFunction"].physical_id, {"detail": {"number": 0}})]
    assert failed_event(aws, failure_id)["status"] == "RESOLVED"


def test_an_id_can_be_percent_encoded(office: Api, aws: Aws, functions: Functions) -> None:
    failure_id = add_failed_event(aws, "email")
    answer = office.call("POST", f"/admin/failed-events/{failure_id.replace(':', '%3A')}/redrive")
    assert (answer.status, answer.body["id"]) == (HTTPStatus.OK, failure_id)


def test_a_redrive_that_fails_parks_the_record_with_the_new_reason(office: Api, aws: Aws, functions: Functions) -> None:
    failure_id = add_failed_event(aws, "email")
    functions.answer = refusing
    answer = office.call("POST", f"/admin/failed-events/{failure_id}/redrive")
    assert (answer.status, answer.body["outcome"]) == (HTTPStatus.OK, "FAILED")
    assert (answer.body["status"], answer.body["reason"]) == ("PARKED", "ValueError")
    stored = failed_event(aws, failure_id)
    assert (stored["status"], stored["reason"]) == ("PARKED", "ValueError")
    assert stored["lastFailedAt"] > stored["firstFailedAt"]


def test_a_redrive_fails_if_the_consumer_cannot_be_invoked(office: Api, aws: Aws, functions: Functions) -> None:
    def throttled(_name: str, _payload: bytes) -> Answered:
        raise ServiceError("TooManyRequestsException", "Rate Exceeded.", 429)

    functions.answer = throttled
    answer = office.call("POST", f"/admin/failed-events/{add_failed_event(aws, 'email')}/redrive")
    assert (answer.body["outcome"], answer.body["reason"]) == ("FAILED", "TooManyRequestsException")


def test_a_redrive_fails_if_the_event_failed_again_meanwhile(office: Api, aws: Aws, functions: Functions) -> None:
    failure_id = add_failed_event(aws, "email")

    def fail_again(_name: str, _payload: bytes) -> Answered:
        change(aws, failure_id, "PARKED")
        return Answered()

    functions.answer = fail_again
    answer = office.call("POST", f"/admin/failed-events/{failure_id}/redrive")
    assert (answer.status, answer.body["outcome"], answer.body["status"]) == (HTTPStatus.OK, "FAILED", "PARKED")
    assert failed_event(aws, failure_id)["status"] == "PARKED"


@pytest.mark.parametrize("action", ["redrive", "park"])
def test_unknown_and_resolved_failed_events_are_refused(
    office: Api, aws: Aws, functions: Functions, action: str
) -> None:
    unknown = office.call("POST", f"/admin/failed-events/email:nothing/{action}")
    assert (unknown.status, slug(unknown)) == (HTTPStatus.NOT_FOUND, "failed-event-not-found")
    resolved = office.call("POST", f"/admin/failed-events/{add_failed_event(aws, 'email', 'RESOLVED')}/{action}")
    assert (resolved.status, slug(resolved)) == (HTTPStatus.CONFLICT, "already-resolved")
    assert functions.invoked == []


def test_a_failed_event_that_is_not_redrivable_is_refused_with_the_command_to_run(
    office: Api, aws: Aws, functions: Functions
) -> None:
    failure_id = add_failed_event(aws, "partner", "PARKED", payload=None, remediation="make replay NAME=redrive-1")
    answer = office.call("POST", f"/admin/failed-events/{failure_id}/redrive")
    assert (answer.status, slug(answer)) == (HTTPStatus.CONFLICT, "not-redrivable")
    assert "make replay NAME=redrive-1" in answer.body["detail"]
    assert functions.invoked == []


def redrive_all(office: Api, **body: str) -> Any:
    answer = office.call("POST", "/admin/failed-events/redrive", body)
    assert answer.status == HTTPStatus.OK
    return answer.body


def test_all_failed_events_of_a_consumer_are_redriven_once_each(
    office: Api, aws: Aws, functions: Functions, consumer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backoffice.service.ENTRIES_PER_PAGE", 1)
    open_ones = [add_failed_event(aws, consumer, status, minute=1) for status in ("NEW", "RETRYING", "PARKED")]
    broken = [add_failed_event(aws, consumer, status, minute=2) for status in ("NEW", "RETRYING", "PARKED")]
    add_failed_event(aws, consumer, "PARKED", payload=None, remediation="make replay")
    resolved = add_failed_event(aws, consumer, "RESOLVED", minute=3)
    functions.answer = lambda name, payload: refusing(name, payload) if b"2" in payload else Answered()
    answer = redrive_all(office, consumer=consumer)
    assert answer == {"resolved": 3, "failed": 3, "notRedrivable": 1, "remaining": False}
    assert len(functions.invoked) == 6
    assert {failed_event(aws, failure_id)["status"] for failure_id in [*open_ones, resolved]} == {"RESOLVED"}
    assert {failed_event(aws, failure_id)["status"] for failure_id in broken} == {"PARKED"}


def test_redrive_all_selects_by_status(office: Api, aws: Aws, functions: Functions, consumer: str) -> None:
    new, parked = add_failed_event(aws, consumer), add_failed_event(aws, consumer, "PARKED")
    assert redrive_all(office, consumer=consumer, status="NEW")["resolved"] == 1
    assert failed_event(aws, new)["status"] == "RESOLVED"
    assert failed_event(aws, parked)["status"] == "PARKED"


def test_redrive_all_stops_in_time_and_the_next_request_continues(
    office: Api, aws: Aws, functions: Functions, consumer: str
) -> None:
    for minute in range(3):
        add_failed_event(aws, consumer, "PARKED", minute=minute)
    needed = office.module.REDRIVE_MILLISECONDS

    def one_second_later(name: str, payload: bytes) -> Answered:
        office.context.remaining_milliseconds -= 1000
        return refusing(name, payload)

    functions.answer = one_second_later
    office.context.remaining_milliseconds = needed + 1000
    assert redrive_all(office, consumer=consumer) == {
        "resolved": 0,
        "failed": 2,
        "notRedrivable": 0,
        "remaining": True,
    }
    office.context.remaining_milliseconds = needed
    assert redrive_all(office, consumer=consumer)["failed"] == 1
    assert [payload["detail"]["number"] for _, payload in functions.invoked] == [0, 1, 2]


def test_redrive_all_without_time_redrives_nothing(office: Api, aws: Aws, functions: Functions, consumer: str) -> None:
    add_failed_event(aws, consumer)
    office.context.remaining_milliseconds = office.module.REDRIVE_MILLISECONDS - 1
    answer = redrive_all(office, consumer=consumer)
    assert answer == {"resolved": 0, "failed": 0, "notRedrivable": 0, "remaining": True}
    assert functions.invoked == []
    assert [operation for operation, _ in aws.requests if operation == "Query"] == []


def test_redrive_all_reports_that_events_above_its_limit_remain(
    office: Api, aws: Aws, functions: Functions, consumer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backoffice.service.MAX_CANDIDATES", 2)
    for minute in range(3):
        add_failed_event(aws, consumer, minute=minute)
    answer = redrive_all(office, consumer=consumer)
    assert (answer["resolved"], answer["remaining"]) == (2, True)
    answer = redrive_all(office, consumer=consumer)
    assert (answer["resolved"], answer["remaining"]) == (1, False)


def test_an_event_that_is_parked_meanwhile_is_not_redriven(
    office: Api, aws: Aws, functions: Functions, consumer: str
) -> None:
    first, second = (add_failed_event(aws, consumer, minute=minute) for minute in (1, 2))

    def park_the_other(_name: str, _payload: bytes) -> Answered:
        change(aws, second, "PARKED")
        return Answered()

    functions.answer = park_the_other
    answer = redrive_all(office, consumer=consumer, status="NEW")
    assert (answer["resolved"], answer["failed"]) == (1, 0)
    assert failed_event(aws, first)["status"] == "RESOLVED"
    assert failed_event(aws, second)["status"] == "PARKED"


def test_an_event_that_is_deleted_meanwhile_is_not_redriven(
    office: Api, aws: Aws, functions: Functions, consumer: str
) -> None:
    first, second = (add_failed_event(aws, consumer, minute=minute) for minute in (1, 2))

    def delete_the_other(_name: str, _payload: bytes) -> Answered:
        aws.table("FailedEventsTableName").delete_item(Key={"id": second})
        return Answered()

    functions.answer = delete_the_other
    answer = redrive_all(office, consumer=consumer, status="NEW")
    assert answer == {"resolved": 1, "failed": 0, "notRedrivable": 0, "remaining": False}
    assert failed_event(aws, first)["status"] == "RESOLVED"


def test_resolved_failed_events_are_counted(
    office: Api, aws: Aws, functions: Functions, consumer: str, output: Callable[[], str]
) -> None:
    functions.answer = lambda name, payload: refusing(name, payload) if b"2" in payload else Answered()
    for minute in (1, 2):
        failure_id = add_failed_event(aws, consumer, minute=minute)
        office.call("POST", f"/admin/failed-events/{failure_id}/redrive")
    assert sum(measured(output(), "FailedEventsResolved")) == 1
    for minute in (1, 1, 2):
        add_failed_event(aws, consumer, minute=minute)
    redrive_all(office, consumer=consumer, status="NEW")
    assert sum(measured(output(), "FailedEventsResolved")) == 2


def test_a_redrive_with_a_lost_response_is_not_repeated(office: Api, aws: Aws, functions: Functions) -> None:
    failure_id = add_failed_event(aws, "email")
    with aws.lost_answers("/2015-03-31/functions/"):
        answer = office.call("POST", f"/admin/failed-events/{failure_id}/redrive")
    assert (answer.status, answer.body["outcome"]) == (HTTPStatus.OK, "FAILED")
    assert len(functions.invoked) == 1


def test_a_redrive_times_out_before_the_function_does(office: Api, aws: Aws) -> None:
    longest = office.module.REDRIVE_MILLISECONDS / 1000
    assert office.module.lambda_client.meta.config.read_timeout < longest
    assert longest < aws.stack.resources["BackofficeApiFunction"].properties["Timeout"]


def test_redrive_all_needs_a_filter(office: Api) -> None:
    answer = office.call("POST", "/admin/failed-events/redrive", {})
    assert (answer.status, slug(answer)) == (HTTPStatus.UNPROCESSABLE_ENTITY, "invalid-body")


def test_a_failed_event_is_parked_and_parking_it_again_changes_nothing(office: Api, aws: Aws) -> None:
    failure_id = add_failed_event(aws, "email")
    first = office.call("POST", f"/admin/failed-events/{failure_id}/park")
    stored = failed_event(aws, failure_id)
    second = office.call("POST", f"/admin/failed-events/{failure_id}/park")
    assert (first.status, first.body["status"]) == (HTTPStatus.OK, "PARKED")
    assert (second.status, second.body) == (first.status, first.body)
    assert failed_event(aws, failure_id) == stored
    assert (stored["status"], stored["payload"]) == ("PARKED", json.dumps({"detail": {"number": 0}}))


def test_a_failed_event_with_the_largest_payload_is_parked(office: Api, aws: Aws) -> None:
    large = add_failed_event(aws, "inventory", payload=json.dumps("x" * (MAX_PAYLOAD - 2)))

    answer = office.call("POST", f"/admin/failed-events/{large}/park")

    assert (answer.status, failed_event(aws, large)["status"]) == (200, "PARKED")


def changing_at_each_read(office: Api, aws: Aws, monkeypatch: pytest.MonkeyPatch, *statuses: str) -> None:
    """Makes another writer change the record after each of the next reads."""
    get, races = office.module.failed_events.get, iter(statuses)

    def raced_get(failure_id: str) -> Any:
        record = get(failure_id)
        for status in races:
            change(aws, failure_id, status)
            break
        return record

    monkeypatch.setattr(office.module.failed_events, "get", raced_get)


def test_parking_is_decided_again_if_the_record_changes_meanwhile(
    office: Api, aws: Aws, monkeypatch: pytest.MonkeyPatch
) -> None:
    retried, resolved = add_failed_event(aws, "email"), add_failed_event(aws, "email")
    changing_at_each_read(office, aws, monkeypatch, "RETRYING")
    assert office.call("POST", f"/admin/failed-events/{retried}/park").status == HTTPStatus.OK
    changing_at_each_read(office, aws, monkeypatch, "RESOLVED")
    answer = office.call("POST", f"/admin/failed-events/{resolved}/park")
    assert (answer.status, slug(answer)) == (HTTPStatus.CONFLICT, "already-resolved")
    assert failed_event(aws, retried)["status"] == "PARKED"


def test_parking_a_record_that_changes_at_every_attempt_is_refused_as_busy(
    office: Api, aws: Aws, monkeypatch: pytest.MonkeyPatch
) -> None:
    failure_id = add_failed_event(aws, "email")
    changing_at_each_read(office, aws, monkeypatch, *["NEW"] * dynamodb.UPDATE_ATTEMPTS)
    answer = office.call("POST", f"/admin/failed-events/{failure_id}/park")
    assert (answer.status, slug(answer)) == (HTTPStatus.CONFLICT, "busy")


# ------------------------------------------------------------------------------------------------ stock


def stock_of(office: Api, product: str) -> Answer:
    return office.call("GET", f"/admin/products/{product}/stock")


def set_stock(office: Api, product: str, available: int, version: int, note: str = "counted") -> Answer:
    body = {"available": available, "version": version, "note": note}
    return office.call("PUT", f"/admin/products/{product}/stock", body)


def place(product: str, quantity: int, detail_type: str = "Order Placed", order_id: str = "") -> str:
    """Sends an order event to the inventory function, and returns the order's id."""
    order_id = order_id or f"ORD-{uuid.uuid4()}"
    module("inventory.handler").handler(order_event(detail_type, order_id, [(product, quantity)]), Context())
    return order_id


@pytest.mark.parametrize("stock", [5, None])
def test_setting_the_stock_stores_the_change_with_its_author(office: Api, aws: Aws, stock: int | None) -> None:
    product = aws.add_product(stock=stock)
    before = stock_of(office, product)
    assert (before.status, before.body) == (
        HTTPStatus.OK,
        {"productId": product, "available": stock or 0, "reserved": 0, "version": 0, "changes": []},
    )
    answer = set_stock(office, product, 40, version=0, note="A delivery")
    assert answer.status == HTTPStatus.OK
    assert answer.body == stock_of(office, product).body
    assert (answer.body["available"], answer.body["reserved"], answer.body["version"]) == (40, 0, 1)
    (change,) = answer.body["changes"]
    assert datetime.fromisoformat(change.pop("at")).tzinfo is not None
    expected = {"available": {"from": stock or 0, "to": 40}, "by": "staff-1", "note": "A delivery", "version": 1}
    assert change == expected
    assert aws.stock(product) == (40, 0)


def test_a_count_from_before_a_reservation_or_a_release_does_not_overwrite_it(office: Api, aws: Aws) -> None:
    product = aws.add_product(stock=5)
    order_id = place(product, 2)
    early = set_stock(office, product, 6, version=0)
    assert (early.status, slug(early)) == (HTTPStatus.CONFLICT, "stock-changed")
    assert "version 1" in early.body["detail"]
    assert aws.stock(product) == (3, 2)
    place(product, 2, "Order Cancelled", order_id)
    late = set_stock(office, product, 6, version=1)
    assert (late.status, slug(late)) == (HTTPStatus.CONFLICT, "stock-changed")
    assert set_stock(office, product, 6, version=2).status == HTTPStatus.OK
    assert aws.stock(product) == (6, 0)


@pytest.mark.parametrize("counts", [0, 1])
def test_a_reservation_between_reading_and_writing_is_not_overwritten(
    office: Api, aws: Aws, monkeypatch: pytest.MonkeyPatch, counts: int
) -> None:
    product = aws.add_product(stock=5)
    for version in range(counts):
        set_stock(office, product, 5, version)
    read = office.module.inventory.stock

    def raced_read(wanted: str) -> repository.Stock:
        stock: repository.Stock = read(wanted)
        place(product, 2)
        return stock

    monkeypatch.setattr(office.module.inventory, "stock", raced_read)
    answer = set_stock(office, product, 9, version=counts)
    assert (answer.status, slug(answer)) == (HTTPStatus.CONFLICT, "stock-changed")
    assert f"version {counts + 1}" in answer.body["detail"]
    assert aws.stock(product) == (3, 2)
    assert len(stock_of(office, product).body["changes"]) == counts


def test_of_concurrent_stock_counts_one_succeeds_and_the_others_are_refused(office: Api, aws: Aws) -> None:
    product = aws.add_product(stock=5)
    inventory = repository.Inventory(aws.resource, aws.stack.outputs["InventoryTableName"])
    seen, barrier = inventory.stock(product), threading.Barrier(4)
    outcomes: list[str] = []

    def count(available: int) -> None:
        own = repository.Inventory(aws.resource, aws.stack.outputs["InventoryTableName"])
        barrier.wait()
        try:
            own.set_available(seen, available, "staff-1", "counted", "2026-11-21T18:36:00.123Z")
            outcomes.append("set")
        except repository.StockChanged:
            outcomes.append("refused")

    threads = [threading.Thread(target=count, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["refused", "refused", "refused", "set"]
    assert len(inventory.changes(inventory.stock(product))) == 1


def test_setting_the_stock_keeps_reservations(office: Api, aws: Aws) -> None:
    product = aws.add_product(stock=5)
    order_id = place(product, 2)
    assert set_stock(office, product, 0, version=1).body["reserved"] == 2
    place(product, 2, "Order Cancelled", order_id)
    assert aws.stock(product) == (2, 0)


def test_the_last_ten_changes_are_returned_newest_first(office: Api, aws: Aws) -> None:
    product = aws.add_product(stock=0)
    for number in range(12):
        assert set_stock(office, product, number + 1, number).status == HTTPStatus.OK
    changes = stock_of(office, product).body["changes"]
    assert [change["version"] for change in changes] == list(range(12, 2, -1))
    assert changes[0]["available"] == {"from": 11, "to": 12}
    everything = aws.table("InventoryTableName").scan()["Items"]
    kept = {item["pk"] for item in everything if item["pk"].startswith(f"STOCK_CHANGE#{product}#")}
    assert kept == {f"STOCK_CHANGE#{product}#{number}" for number in range(1, 13)}


@pytest.mark.parametrize(("earlier", "keys_per_read"), [(1, 2), (3, 2), (1, None)])
def test_stock_of_a_product_that_was_deleted_and_seeded_again_can_be_set_and_its_trail_continues(
    office: Api, aws: Aws, monkeypatch: pytest.MonkeyPatch, earlier: int, keys_per_read: int | None
) -> None:
    if keys_per_read:
        monkeypatch.setattr("inventory.repository.KEYS_PER_READ", keys_per_read)
    product = aws.add_product(stock=5)
    for number in range(earlier):
        assert set_stock(office, product, 10 + number, number, note=f"earlier {number}").status == HTTPStatus.OK
    table = aws.table("InventoryTableName")
    table.put_item(Item={"pk": f"PRODUCT#{product}", "available": 5, "reserved": 0})
    for version, note in enumerate(("first", "second")):
        assert set_stock(office, product, 40 + version, version, note).status == HTTPStatus.OK
    answer = stock_of(office, product)
    notes = [change["note"] for change in answer.body["changes"]]
    assert notes == ["second", "first", *(f"earlier {number}" for number in reversed(range(earlier)))]
    assert (answer.body["available"], answer.body["version"]) == (41, 2)


def test_a_stale_count_of_a_product_that_was_seeded_again_is_refused(office: Api, aws: Aws) -> None:
    product = aws.add_product(stock=5)
    assert set_stock(office, product, 10, version=0).status == HTTPStatus.OK
    aws.table("InventoryTableName").put_item(Item={"pk": f"PRODUCT#{product}", "available": 5, "reserved": 0})
    answer = set_stock(office, product, 11, version=1)
    assert (answer.status, slug(answer)) == (HTTPStatus.CONFLICT, "stock-changed")
    assert aws.stock(product) == (5, 0)


def test_a_count_of_a_product_that_is_seeded_again_meanwhile_is_refused(
    office: Api, aws: Aws, monkeypatch: pytest.MonkeyPatch
) -> None:
    product = aws.add_product(stock=5)
    assert set_stock(office, product, 10, version=0).status == HTTPStatus.OK
    read = office.module.inventory.stock

    def raced_read(wanted: str) -> repository.Stock:
        stock: repository.Stock = read(wanted)
        aws.table("InventoryTableName").put_item(Item={"pk": f"PRODUCT#{product}", "available": 5, "reserved": 0})
        return stock

    monkeypatch.setattr(office.module.inventory, "stock", raced_read)
    answer = set_stock(office, product, 11, version=1)
    assert (answer.status, slug(answer)) == (HTTPStatus.CONFLICT, "stock-changed")
    assert "version 0" in answer.body["detail"]
    assert aws.stock(product) == (5, 0)


def test_an_unknown_product_is_not_found(office: Api) -> None:
    for answer in (stock_of(office, "PROD-NONE"), set_stock(office, "PROD-NONE", 1, 0)):
        assert (answer.status, slug(answer)) == (HTTPStatus.NOT_FOUND, "product-not-found")


def test_an_invalid_item_of_the_catalogue_is_not_found_and_is_logged(
    office: Api, aws: Aws, output: Callable[[], str]
) -> None:
    product = aws.add_product(stock=5)
    aws.spoil_product(product, price="10.00")
    output()
    for answer in (stock_of(office, product), set_stock(office, product, 1, 0)):
        assert (answer.status, slug(answer)) == (HTTPStatus.NOT_FOUND, "product-not-found")
    printed = output()
    aws.table("ProductsTableName").delete_item(Key={"productId": product})
    logged = [entry for entry in log_lines(printed) if entry.get("message") == "invalid product left out"]
    assert [(entry["product_id"], entry["problems"]) for entry in logged] == [
        (product, ["price is missing or not a number"])
    ] * 2
    assert measured(printed, "InvalidProducts") == [1, 1]
    assert aws.stock(product) == (5, 0)


def test_an_invalid_stock_count_is_refused_with_an_error_per_field(office: Api, aws: Aws) -> None:
    product = aws.add_product()
    body = {"available": 1_000_001, "version": -1, "note": " "}
    answer = office.call("PUT", f"/admin/products/{product}/stock", body)
    assert answer.status == HTTPStatus.UNPROCESSABLE_ENTITY
    assert {error["field"] for error in answer.body["errors"]} == {"available", "version", "note"}


class ContendedClient:
    """A DynamoDB client with a number of transaction conflicts and of unprocessed batch reads."""

    def __init__(self, client: Any, conflicts: int = 0, short_reads: int = 0) -> None:
        self._client = client
        self.conflicts, self.short_reads = conflicts, short_reads

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def transact_write_items(self, **request: Any) -> Any:
        if self.conflicts:
            self.conflicts -= 1
            error = {"Code": "TransactionCanceledException", "Message": ""}
            reasons = [{"Code": "TransactionConflict"}, {"Code": "None"}]
            raise self._client.exceptions.TransactionCanceledException(
                {"Error": error, "CancellationReasons": reasons}, "TransactWriteItems"
            )
        return self._client.transact_write_items(**request)

    def batch_get_item(self, RequestItems: Any) -> Any:  # noqa: N803 - boto3's name
        if self.short_reads:
            self.short_reads -= 1
            return {"Responses": {}, "UnprocessedKeys": RequestItems}
        return self._client.batch_get_item(RequestItems=RequestItems)


@pytest.fixture
def contended(office: Api, monkeypatch: pytest.MonkeyPatch) -> ContendedClient:
    inventory = office.module.inventory
    client = ContendedClient(inventory._client)
    monkeypatch.setattr(inventory, "_client", client)
    monkeypatch.setattr(inventory, "_pause", lambda _: None)
    return client


def test_transaction_conflicts_are_retried_up_to_a_limit(office: Api, aws: Aws, contended: ContendedClient) -> None:
    product = aws.add_product(stock=5)
    contended.conflicts = ATTEMPTS - 1
    assert set_stock(office, product, 6, version=0).status == HTTPStatus.OK
    contended.conflicts = ATTEMPTS
    answer = set_stock(office, product, 7, version=1)
    assert (answer.status, slug(answer)) == (HTTPStatus.CONFLICT, "busy")
    assert aws.stock(product) == (6, 0)


def test_unprocessed_keys_are_read_again_up_to_a_limit(office: Api, aws: Aws, contended: ContendedClient) -> None:
    product = aws.add_product(stock=5)
    contended.short_reads = dynamodb.BATCH_ATTEMPTS - 1
    assert stock_of(office, product).body["available"] == 5
    contended.short_reads = dynamodb.BATCH_ATTEMPTS
    with pytest.raises(dynamodb.IncompleteRead):
        stock_of(office, product)


# ------------------------------------------------------------------------------------------------- logs


def test_logs_contain_the_staff_id_and_no_personal_data(
    office: Api, aws: Aws, functions: Functions, output: Callable[[], str]
) -> None:
    functions.answer = refusing
    failure_id, product = add_failed_event(aws, "email"), aws.add_product(stock=5)
    office.call("POST", f"/admin/failed-events/{failure_id}/redrive")
    office.call("POST", f"/admin/failed-events/{add_failed_event(aws, 'email')}/park")
    office.call("POST", "/admin/failed-events/redrive", {"consumer": "email", "status": "RETRYING"})
    set_stock(office, product, 6, version=0)
    printed = output()
    lines = {entry["message"]: entry for entry in log_lines(printed) if "message" in entry}
    done = ("failed event redriven", "failed event parked", "failed events redriven", "stock set")
    assert {lines[message]["staff_id"] for message in done} == {"staff-1"}
    assert (lines[done[0]]["failed_event"], lines[done[3]]["product_id"]) == (failure_id, product)
    assert "@example.com" not in printed
