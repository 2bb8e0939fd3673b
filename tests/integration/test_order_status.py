"""OrderStatusFunction against moto."""

from collections.abc import Callable
from datetime import datetime
from types import ModuleType

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orderflow.dynamodb import ConcurrentUpdate
from orderflow.event_store import as_stream
from orders.domain import UnknownOrder, fold
from orders.repository import index_attributes
from tests.integration.support import Api, Aws, Context, line, log_lines, measured, module, order_event

RESERVED, OUT_OF_STOCK = "Inventory Reserved", "Inventory Out-Of-Stock"


@pytest.fixture
def status(aws: Aws) -> ModuleType:
    return module("orders.status_handler")


@pytest.fixture
def order_id(api: Api, aws: Aws) -> str:
    return str(api.place(line(aws.add_product())).body["orderId"])


def tell(status: ModuleType, detail_type: str, order_id: str) -> str:
    event = order_event(detail_type, order_id, [("PROD-1", 1)])
    status.handler(event, Context())
    return str(event["detail"]["metadata"]["eventId"])


def types(api: Api, order_id: str) -> list[str]:
    return [event["detail-type"] for event in api.call("GET", f"/orders/{order_id}/events").body["items"]]


@pytest.mark.parametrize(
    ("report", "state", "event"),
    [(RESERVED, "CONFIRMED", "Order Confirmed"), (OUT_OF_STOCK, "REJECTED", "Order Rejected")],
)
def test_an_order_moves_on_when_inventory_reports(
    api: Api, status: ModuleType, order_id: str, report: str, state: str, event: str
) -> None:
    cause = tell(status, report, order_id)
    assert api.call("GET", f"/orders/{order_id}").body["status"] == state
    last = api.call("GET", f"/orders/{order_id}/events").body["items"][-1]
    assert last["detail-type"] == event
    assert last["detail"]["metadata"]["causationId"] == cause
    assert last["detail"]["metadata"]["correlationId"] == "correlation-1"


@pytest.mark.parametrize("reports", [[RESERVED, RESERVED], [RESERVED, OUT_OF_STOCK], [OUT_OF_STOCK, RESERVED]])
def test_a_repeated_or_late_report_changes_nothing(
    api: Api, status: ModuleType, order_id: str, reports: list[str]
) -> None:
    for report in reports:
        tell(status, report, order_id)
    first = {RESERVED: "Order Confirmed", OUT_OF_STOCK: "Order Rejected"}[reports[0]]
    assert types(api, order_id) == ["Order Placed", first]


@pytest.mark.parametrize(("report", "metric"), [(RESERVED, "OrdersConfirmed"), (OUT_OF_STOCK, "OrdersRejected")])
def test_a_repeated_report_is_counted_once(
    status: ModuleType, order_id: str, output: Callable[[], str], report: str, metric: str
) -> None:
    for _ in range(2):
        tell(status, report, order_id)
    printed = output()
    assert measured(printed, metric) == [1.0]
    assert len(measured(printed, "OrderProcessingSeconds")) == 1


@pytest.mark.parametrize("report", [RESERVED, OUT_OF_STOCK])
def test_a_cancelled_order_stays_cancelled(api: Api, status: ModuleType, order_id: str, report: str) -> None:
    api.call("POST", f"/orders/{order_id}/cancellation")
    tell(status, report, order_id)
    assert types(api, order_id) == ["Order Placed", "Order Cancelled"]


@settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(commands=st.lists(st.sampled_from([RESERVED, OUT_OF_STOCK, "cancel"]), max_size=5))
def test_the_index_attributes_match_the_events_after_every_sequence_of_updates(
    api: Api, aws: Aws, status: ModuleType, commands: list[str]
) -> None:
    order_id = str(api.place(line(aws.add_product())).body["orderId"])
    for command in commands:
        if command == "cancel":
            api.call("POST", f"/orders/{order_id}/cancellation")
        else:
            tell(status, command, order_id)
    item = aws.table("OrdersTableName").get_item(Key={"orderId": order_id})["Item"]
    order = fold(as_stream(item).events)
    assert {name: item[name] for name in index_attributes(order)} == index_attributes(order)
    assert item["version"] == order.version


def test_an_unknown_order_is_an_error(status: ModuleType) -> None:
    with pytest.raises(UnknownOrder, match="ORD-NONE"):
        tell(status, RESERVED, "ORD-NONE")


def test_a_report_is_decided_again_after_a_concurrent_cancellation(
    api: Api, status: ModuleType, order_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stale = status.orders.load(order_id)
    load = status.orders.load
    api.call("POST", f"/orders/{order_id}/cancellation")

    def stale_load(wanted: str) -> object:
        monkeypatch.setattr(status.orders, "load", load)
        return stale

    monkeypatch.setattr(status.orders, "load", stale_load)
    tell(status, RESERVED, order_id)
    assert types(api, order_id) == ["Order Placed", "Order Cancelled"]


def test_an_order_that_changes_at_every_attempt_raises_so_that_lambda_retries(
    api: Api, status: ModuleType, order_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stale = status.orders.load(order_id)
    api.call("POST", f"/orders/{order_id}/cancellation")
    monkeypatch.setattr(status.orders, "load", lambda _: stale)
    with pytest.raises(ConcurrentUpdate):
        tell(status, RESERVED, order_id)


def test_a_settled_order_is_counted_by_its_outcome_and_how_long_it_took(
    api: Api, status: ModuleType, order_id: str, output: Callable[[], str]
) -> None:
    tell(status, RESERVED, order_id)
    lines = log_lines(output())
    assert [entry["OrdersConfirmed"] for entry in lines if "OrdersConfirmed" in entry] == [[1.0]]
    order = api.call("GET", f"/orders/{order_id}").body
    took = datetime.fromisoformat(order["updatedAt"]) - datetime.fromisoformat(order["placedAt"])
    seconds = [entry["OrderProcessingSeconds"] for entry in lines if "OrderProcessingSeconds" in entry]
    assert seconds == [[took.total_seconds()]]
    settled = next(entry for entry in lines if entry.get("message") == "order settled")
    assert (settled["order_id"], settled["correlation_id"]) == (order_id, "correlation-1")
