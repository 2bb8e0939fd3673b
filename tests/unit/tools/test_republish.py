"""Which events are published again, and how a failure of the event publisher is reported."""

import io
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from tools import republish
from tools.republish import EVER, RepublishError, Window, first_sequence, main

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
Item = dict[str, Any]


def item(*minutes: int, **key: str) -> Item:
    """An item with one event at each of these minutes after noon."""
    times = [(NOON + timedelta(minutes=minute)).isoformat().replace("+00:00", "Z") for minute in minutes]
    events = [{"M": {"eventId": {"S": f"event-{time}"}, "time": {"S": time}}} for time in times]
    return {name: {"S": value} for name, value in (key or {"orderId": "ORD-1"}).items()} | {"events": {"L": events}}


def after_noon(begin: int, end: int) -> Window:
    return Window(NOON + timedelta(minutes=begin), NOON + timedelta(minutes=end))


@pytest.mark.parametrize(
    ("window", "sequence"),
    [(EVER, 1), (after_noon(2, 3), 2), (after_noon(1, 1), 1), (after_noon(4, 9), None), (after_noon(-9, 0), None)],
)
def test_an_item_is_published_from_its_first_event_in_the_window_on(window: Window, sequence: int | None) -> None:
    assert first_sequence(item(1, 2, 3), window) == sequence


def test_an_item_without_events_is_not_published() -> None:
    assert first_sequence({"pk": {"S": "PRODUCT#PEN"}}, EVER) is None


class FakeStack:
    """The two tables, and an event publisher that answers as the test decides."""

    outputs = {  # noqa: RUF012
        "OrdersTableName": "orders",
        "InventoryTableName": "inventory",
        "EventPublisherFunctionName": "publisher",
    }

    def __init__(self, items: dict[str, list[Item]], answer: Callable[[Any], Any] = lambda _: {"published": 1}) -> None:
        self.requests: list[Any] = []
        self._items = items
        self._answer = answer

    def client(self, _service: str) -> Any:
        return self

    def describe_table(self, TableName: str) -> Any:  # noqa: N803 - boto3's name
        return {"Table": {"KeySchema": [{"AttributeName": "orderId" if TableName == "orders" else "pk"}]}}

    def get_item(self, TableName: str, Key: Any, ConsistentRead: bool) -> Any:  # noqa: N803
        assert ConsistentRead
        ((name, value),) = Key.items()
        found = [item for item in self._items.get(TableName, []) if item[name] == value]
        return {"Item": found[0]} if found else {}

    def get_paginator(self, _operation: str) -> Any:
        return SimpleNamespace(paginate=lambda TableName, **_: [{"Items": self._items.get(TableName, [])}])  # noqa: N803

    def invoke(self, FunctionName: str, Payload: str) -> Any:  # noqa: N803
        assert FunctionName == "publisher"
        request = json.loads(Payload)
        self.requests.append(request)
        result = self._answer(request)
        failed = {} if "published" in result else {"FunctionError": "Unhandled"}
        return {"Payload": io.BytesIO(json.dumps(result).encode()), **failed}


def run(stack: Any, order: str | None = None, window: Window = EVER) -> int:
    return republish.republish(stack, order, window)


def test_an_order_is_published_with_its_reservation() -> None:
    items = {
        "orders": [item(1, 2), item(1, orderId="ORD-2")],
        "inventory": [item(1, pk="RESERVATION#ORD-1"), item(1, pk="RESERVATION#ORD-2")],
    }
    stack = FakeStack(items, lambda request: {"published": 2 if request["table"] == "orders" else 1})
    assert run(stack, "ORD-1") == 3
    assert sorted(stack.requests, key=lambda request: str(request["table"])) == [
        {"table": "inventory", "key": {"pk": "RESERVATION#ORD-1"}, "fromSequence": 1},
        {"table": "orders", "key": {"orderId": "ORD-1"}, "fromSequence": 1},
    ]


def test_every_item_with_an_event_in_the_time_range_is_published() -> None:
    items = {"orders": [item(1, 2), item(9, orderId="ORD-2")], "inventory": [item(2, pk="RESERVATION#ORD-1")]}
    stack = FakeStack(items)
    assert run(stack, window=after_noon(2, 3)) == 2
    assert sorted(stack.requests, key=lambda request: str(request["table"])) == [
        {"table": "inventory", "key": {"pk": "RESERVATION#ORD-1"}, "fromSequence": 1},
        {"table": "orders", "key": {"orderId": "ORD-1"}, "fromSequence": 2},
    ]


def test_an_order_that_does_not_exist_is_reported() -> None:
    stack = FakeStack({"inventory": [item(1, pk="RESERVATION#ORD-1")]})
    with pytest.raises(RepublishError, match="there is no order ORD-1"):
        run(stack, "ORD-1")
    assert stack.requests == []


def test_a_failure_names_the_orders_and_reasons_after_all_others_were_published() -> None:
    def answer(request: Any) -> Any:
        if request["key"] == {"orderId": "ORD-1"}:
            return {"errorType": "NotPublished", "errorMessage": "0 of 1 events were published"}
        return {"published": 1}

    stack = FakeStack({"orders": [item(1), item(1, orderId="ORD-2"), item(1, orderId="ORD-3")]}, answer)
    problem = "^2 events published, but not all of ORD-1: NotPublished: 0 of 1 events were published$"
    with pytest.raises(RepublishError, match=problem):
        run(stack)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name either --order, or --from and --to"),
        (["--order", "ORD-1", "--to", "2026-11-21T12:00:00Z"], "name either --order, or --from and --to"),
        (["--from", "2026-11-21T12:00:00Z"], "--from and --to go together"),
        (["--from", "2026-11-21T12:00:01Z", "--to", "2026-11-21T12:00:00Z"], "--from is later than --to"),
        (["--from", "noon", "--to", "2026-11-21T12:00:00Z"], "'noon' is not a time like"),
        (["--from", "2026-11-21T12:00:00", "--to", "2026-11-21T12:00:00Z"], "lacks its offset from UTC"),
    ],
)
def test_bad_arguments_are_refused_in_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)

    assert stopped.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert message in line


def test_without_a_stack_one_line_says_so(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.setenv("STACK_FILE", str(tmp_path / "stack.json"))

    assert republish.main(["--order", "ORD-1"]) == 1
    assert capsys.readouterr().err.startswith("error: there is no ")
