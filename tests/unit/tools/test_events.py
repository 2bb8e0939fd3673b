"""`make events` lists the events of one order, in the order in which they were on the bus."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from moto import mock_aws

from tools import events
from tools.stack import Stack

GROUP = "/aws/events/bus"
NOON = 1_795_262_400_000
"""2026-11-21T12:00:00Z, in milliseconds."""


def event(name: str, event_id: str, sequence: int, order: str = "ORD-1") -> dict[str, Any]:
    return {"detail-type": name, "detail": {"orderId": order, "metadata": {"eventId": event_id, "sequence": sequence}}}


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Writes a line into a log stream of its own, as EventBridge does."""
    for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY"):
        monkeypatch.setenv(f"AWS_{name}", "test")
    with mock_aws():
        stack = Stack("http://api", {"EventLogGroupName": GROUP}, "us-east-1")
        monkeypatch.setattr(events, "find", lambda _: stack)
        logs = stack.client("logs")
        logs.create_log_group(logGroupName=GROUP)

        def put(milliseconds: int, message: str) -> None:
            stream = f"stream-{milliseconds}"
            logs.create_log_stream(logGroupName=GROUP, logStreamName=stream)
            line = {"timestamp": NOON + milliseconds, "message": message}
            logs.put_log_events(logGroupName=GROUP, logStreamName=stream, logEvents=[line])

        yield put


def test_the_events_of_the_order_are_listed_in_the_order_of_the_log(
    log: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    log(20, json.dumps(event("Inventory Reserved", "01B", 1)))
    log(10, json.dumps(event("Order Placed", "01A", 1)))
    log(15, json.dumps(event("Order Placed", "01X", 1, order="ORD-2")))

    code = events.main(["--order", "ORD-1"])

    assert code == 0
    assert capsys.readouterr().out.splitlines() == [
        "logged at                 event                   eventId                     no.",
        "2026-11-21T12:00:00.010Z  Order Placed            01A                         1",
        "2026-11-21T12:00:00.020Z  Inventory Reserved      01B                         1",
    ]


def test_values_that_are_masked_are_shown_as_unknown(log: Any, capsys: pytest.CaptureFixture[str]) -> None:
    log(10, '{"detail-type": "Order Placed", "detail": {"orderId": "ORD-1", ****"eventId": "01A"****}')

    events.main(["--order", "ORD-1"])

    line = capsys.readouterr().out.splitlines()[1]
    assert line == "2026-11-21T12:00:00.010Z  Order Placed            01A                         ?"


def test_an_order_without_events_is_an_error(log: Any, capsys: pytest.CaptureFixture[str]) -> None:
    log(10, json.dumps(event("Order Placed", "01A", 1)))

    assert events.main(["--order", "ORD-9"]) == 1
    assert capsys.readouterr().err == f"error: no event of ORD-9 is in the log {GROUP}\n"
