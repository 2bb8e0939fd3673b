"""`make reconcile` finds each kind of inconsistency."""

import copy
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import boto3
import pytest
from moto import mock_aws

from orderflow.contracts import DETAILS
from tools import reconcile as command
from tools.reconcile import SOURCES, check

INITIAL = {"PEN": 10, "BOOK": 5}


def stored(name: str, *event_ids: str, items: dict[str, int] | None = None) -> list[dict[str, Any]]:
    """The events of an item; the first contains the order."""
    lines = [{"productId": product, "quantity": quantity} for product, quantity in (items or {}).items()]
    data: dict[str, Any] = {"order": {"orderId": name, "items": lines}}
    return [{"eventId": event_id, "data": data if number == 0 else {}} for number, event_id in enumerate(event_ids)]


def order(name: str, status: str, *event_ids: str) -> dict[str, Any]:
    return {"orderId": name, "status": status, "version": len(event_ids), "events": stored(name, *event_ids)}


def reservation(name: str, status: str, *event_ids: str, items: dict[str, int]) -> dict[str, Any]:
    events = stored(name, *event_ids, items=items)
    return {"pk": f"RESERVATION#{name}", "status": status, "version": len(events), "events": events}


class Tables:
    """Consistent tables: one order confirmed, one rejected, one cancelled."""

    def __init__(self) -> None:
        self.orders = [
            order("A", "CONFIRMED", "a1", "a2"),
            order("B", "REJECTED", "b1", "b2"),
            order("C", "CANCELLED", "c1", "c2", "c3"),
        ]
        self.pen_stock: dict[str, Any] = {"pk": "PRODUCT#PEN", "available": 7, "reserved": 3}
        self.book_stock: dict[str, Any] = {"pk": "PRODUCT#BOOK", "available": 5, "reserved": 0}
        self.reservations = [
            reservation("A", "RESERVED", "ra", items={"PEN": 3}),
            reservation("B", "OUT_OF_STOCK", "rb", items={"BOOK": 6}),
            reservation("C", "RELEASED", "rc1", "rc2", items={"PEN": 1}),
        ]
        ids = ("a1", "ra", "a2", "b1", "rb", "b2", "c1", "rc1", "c2", "c3", "rc2")
        self.bus = [{"detail-type": "Some Event", "detail": {"metadata": {"eventId": event_id}}} for event_id in ids]

    def differences(self, initial: dict[str, int] | None = INITIAL) -> list[str]:
        return check(self.orders, [self.pen_stock, self.book_stock, *self.reservations], self.bus, initial)


@pytest.fixture
def tables() -> Tables:
    return Tables()


def test_consistent_tables_have_no_differences(tables: Tables) -> None:
    assert tables.differences() == []


def test_an_event_that_was_published_twice_is_not_a_difference(tables: Tables) -> None:
    tables.bus.append(copy.deepcopy(tables.bus[0]))

    assert tables.differences() == []


def test_a_manual_change_of_stock_is_not_a_difference(tables: Tables) -> None:
    tables.book_stock.update(version=3, changes=1)
    change = {"pk": "STOCK_CHANGE#BOOK#1", "productId": "BOOK", "before": 1, "after": 5, "version": 3}
    tables.reservations.append(change)

    assert tables.differences() == []


def test_stock_above_the_initial_stock_is_found(tables: Tables) -> None:
    tables.book_stock["available"] = 6

    assert tables.differences() == ["product BOOK: 6 available and reserved together, 5 at the beginning"]
    assert tables.differences(initial=None) == []


def test_a_missing_product_is_found(tables: Tables) -> None:
    tables.reservations[0] = reservation("A", "RESERVED", "ra", items={})
    tables.pen_stock["pk"] = "PRODUCT#PENCIL"
    tables.pen_stock["reserved"], tables.pen_stock["available"] = 0, 10

    assert tables.differences() == [
        "product PEN: 0 available and reserved together, 10 at the beginning",
        "product PENCIL: 10 available and reserved together, 0 at the beginning",
    ]


def test_reserved_stock_without_a_reservation_is_found(tables: Tables) -> None:
    tables.pen_stock.update(available=6, reserved=4)

    assert tables.differences() == ["product PEN: 4 reserved, but the reservations hold 3"]


def test_a_reservation_of_a_product_without_stock_is_found(tables: Tables) -> None:
    tables.reservations[0] = reservation("A", "RESERVED", "ra", items={"PEN": 3, "INK": 1})

    assert tables.differences() == ["product INK: the reservations hold 1, but it has no stock"]


@pytest.mark.parametrize(("available", "reserved"), [(-1, 3), (13, -3)])
def test_negative_stock_is_found(tables: Tables, available: int, reserved: int) -> None:
    tables.pen_stock.update(available=available, reserved=reserved)

    found = tables.differences(initial=None)

    assert f"product PEN: {available} available and {reserved} reserved, below 0" in found


def test_an_order_that_is_not_settled_is_found(tables: Tables) -> None:
    tables.orders[0]["status"] = "PENDING"

    assert tables.differences() == ["order A: not settled, PENDING"]


def test_an_order_without_a_reservation_is_found(tables: Tables) -> None:
    tables.orders.append(order("D", "REJECTED"))

    assert tables.differences() == ["order D: REJECTED without a reservation"]


@pytest.mark.parametrize(
    ("status", "reserved"), [("CONFIRMED", "RELEASED"), ("REJECTED", "RELEASED"), ("CANCELLED", "RESERVED")]
)
def test_an_order_that_contradicts_its_reservation_is_found(tables: Tables, status: str, reserved: str) -> None:
    tables.orders.append(order("D", status))
    tables.reservations.append(reservation("D", reserved, "rd", items={}))
    tables.bus.append({"detail-type": "Some Event", "detail": {"metadata": {"eventId": "rd"}}})

    assert tables.differences() == [f"order D: {status}, but its reservation is {reserved}"]


def test_a_cancelled_order_can_be_out_of_stock(tables: Tables) -> None:
    tables.orders[1]["status"] = "CANCELLED"

    assert tables.differences() == []


def test_a_reservation_without_an_order_is_found(tables: Tables) -> None:
    tables.reservations.append(
        {"pk": "RESERVATION#E", "status": "RELEASED", "version": 0, "events": []},
    )

    assert tables.differences() == ["reservation E: of an order that does not exist"]


def test_a_version_that_differs_from_the_number_of_events_is_found(tables: Tables) -> None:
    tables.orders[0]["version"] = 3
    tables.reservations[2]["version"] = 1

    assert tables.differences() == ["order A: version 3 with 2 events", "reservation C: version 1 with 2 events"]


def test_an_event_stored_twice_is_found(tables: Tables) -> None:
    tables.orders[0]["events"].append(tables.orders[0]["events"][1])
    tables.orders[0]["version"] = 3

    assert tables.differences() == ["event a2: stored 2 times"]


def test_a_stored_event_that_was_never_published_is_found(tables: Tables) -> None:
    del tables.bus[0]

    assert tables.differences() == ["event a1: stored, but never on the bus"]


def test_a_published_event_that_is_not_stored_is_found(tables: Tables) -> None:
    tables.bus.append({"detail-type": "Order Placed", "detail": {"metadata": {"eventId": "x1"}}})

    assert tables.differences() == ["event x1: Order Placed was on the bus, but is not stored"]


# ------------------------------------------------------------------------------- the command, against an account

LOG = "/aws/events/shop"
RETENTION_DAYS = 14


@dataclass
class Account:
    """A deployed stack in moto, with one settled order."""

    logged: int = 0

    def log(self, *messages: str) -> None:
        """Add lines to the log of all events."""
        self.logged += 1
        stream, logs = f"stream-{self.logged}", boto3.client("logs")
        logs.create_log_stream(logGroupName=LOG, logStreamName=stream)
        now = int(time.time() * 1000)
        logs.put_log_events(
            logGroupName=LOG,
            logStreamName=stream,
            logEvents=[{"timestamp": now, "message": message} for message in messages],
        )

    def store(self, stored_at: datetime) -> list[str]:
        """Store an order and its reservation at a time. Returns the log lines of their events."""
        made = order("A", "CONFIRMED", "a1", "a2"), reservation("A", "RESERVED", "ra", items={"PEN": 3})
        items = json.loads(json.dumps(made), parse_float=Decimal)
        for table, item in zip(("orders", "inventory"), items, strict=True):
            for event in item["events"]:
                event["time"] = stored_at.isoformat()
            boto3.resource("dynamodb").Table(table).put_item(Item=item)
        pens: dict[str, str | int] = {"pk": "PRODUCT#PEN", "available": 7, "reserved": 3}
        boto3.resource("dynamodb").Table("inventory").put_item(Item=pens)
        return [
            published("orders.service", "a1"),
            published("orders.service", "a2"),
            published("inventory.service", "ra"),
        ]


def published(source: str, event_id: str) -> str:
    """A line of the log, as EventBridge writes it."""
    address = {"street": "1 Main St", "city": "Seattle", "state": "WA", "zipCode": "98101", "country": "US"}
    metadata = {"source": "web", "eventId": event_id}
    detail = {"orderId": "A", "customerEmail": "ada@example.com", "shippingAddress": address, "metadata": metadata}
    return json.dumps({"version": "0", "detail-type": "Some Event", "source": source, "detail": detail})


def masked(line: str, first: str, last: str) -> str:
    """A log line whose text from one word to another is masked by asterisks, as by data protection."""
    begin, end = line.index(first), line.index(last) + len(last)
    return line[:begin] + "*" * (end - begin) + line[end:]


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch) -> Iterator[Account]:
    with mock_aws():
        monkeypatch.setenv("AWS_REGION", "eu-west-1")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
        monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
        logs, dynamodb = boto3.client("logs"), boto3.client("dynamodb")
        logs.create_log_group(logGroupName=LOG)
        logs.create_log_group(logGroupName=f"{LOG}-staging")
        logs.put_retention_policy(logGroupName=LOG, retentionInDays=RETENTION_DAYS)
        for table, key in (("orders", "orderId"), ("inventory", "pk")):
            dynamodb.create_table(
                TableName=table,
                BillingMode="PAY_PER_REQUEST",
                AttributeDefinitions=[{"AttributeName": key, "AttributeType": "S"}],
                KeySchema=[{"AttributeName": key, "KeyType": "HASH"}],
            )
        outputs = {
            "ApiUrl": "https://api",
            "OrdersTableName": "orders",
            "InventoryTableName": "inventory",
            "EventLogGroupName": LOG,
        }
        template = {
            "Resources": {"Topic": {"Type": "AWS::SNS::Topic"}},
            "Outputs": {name: {"Value": value} for name, value in outputs.items()},
        }
        boto3.client("cloudformation").create_stack(StackName="shop", TemplateBody=json.dumps(template))
        yield Account()


def run(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The lines that `make reconcile STACK=shop` prints."""
    command.main(["--stack", "shop"])
    return capsys.readouterr().out.splitlines()


CONSISTENT = ["Consistent: 1 orders, 3 events on the bus"]


def test_events_are_identified_if_masks_span_fields(account: Account, capsys: pytest.CaptureFixture[str]) -> None:
    placed, confirmed, reserved = account.store(datetime.now(UTC))
    account.log(
        masked(placed, "ada@example", "1 Main"),  # begins and ends within strings: valid JSON without shippingAddress
        masked(confirmed, '"1 Main', "98101"),  # an odd number of quotes: not valid JSON
        reserved,
    )

    assert run(capsys) == CONSISTENT


def test_events_with_a_masked_id_are_reported(account: Account, capsys: pytest.CaptureFixture[str]) -> None:
    placed, confirmed, reserved = account.store(datetime.now(UTC))
    account.log(placed, masked(confirmed, '"1 Main', '"a2'), reserved)

    assert run(capsys) == [
        "note: masking hides the source or eventId of 1 events in the log; they count as not published",
        "difference event a2: stored, but never on the bus",
        "Not consistent: 1 differences",
    ]


def test_events_of_other_sources_are_skipped(account: Account, capsys: pytest.CaptureFixture[str]) -> None:
    account.log(*account.store(datetime.now(UTC)))
    account.log(json.dumps({"source": "partner.shop", "detail-type": "Sold", "detail": {"n": 1}}))
    account.log(published("partner.shop", "p1"))

    assert run(capsys) == CONSISTENT


def test_events_older_than_the_logs_retention_are_not_expected_in_the_log(
    account: Account, capsys: pytest.CaptureFixture[str]
) -> None:
    account.store(datetime.now(UTC) - timedelta(days=RETENTION_DAYS, minutes=1))

    assert run(capsys) == ["Consistent: 1 orders, 0 events on the bus"]


def test_events_within_the_logs_retention_are_expected_in_the_log(
    account: Account, capsys: pytest.CaptureFixture[str]
) -> None:
    account.store(datetime.now(UTC) - timedelta(days=RETENTION_DAYS - 1))

    assert run(capsys)[-1] == "Not consistent: 3 differences"


def test_a_log_without_retention_has_every_event(account: Account, capsys: pytest.CaptureFixture[str]) -> None:
    account.store(datetime.now(UTC) - timedelta(days=5000))
    boto3.client("logs").delete_retention_policy(logGroupName=LOG)

    assert run(capsys)[-1] == "Not consistent: 3 differences"


def test_every_source_of_our_events_is_known() -> None:
    assert {source for source, _ in DETAILS} == SOURCES
