"""A chaos run: its clients, its operators and its end."""

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import urllib3

from localaws.faults import read_faults
from tests.chaos import run as chaos
from tests.chaos.check import Mail, Placed, Snapshot
from tools.http import Answer
from tools.republish import Window
from tools.stack import Stack

EMPTY = Snapshot([], {}, [], [], [], [], frozenset(), [], [], [], [], {})
ORDER = chaos.Order("key", {"PEN": 2}, "MAY", None)


class FakeApi:
    """Returns the given responses one after the other, a status and a body each, or raises the given exceptions."""

    def __init__(self, *answers: tuple[int, dict[str, Any]] | Exception) -> None:
        self._answers = iter(answers)
        self.calls: list[tuple[str, str, dict[str, Any]]] = []

    def call(self, method: str, path: str, **more: Any) -> Answer:
        self.calls.append((method, path, more))
        answer = next(self._answers)
        if isinstance(answer, Exception):
            raise answer
        return Answer(*answer, sent_at=0, seconds=0)


def clients(*answers: tuple[int, dict[str, Any]] | Exception) -> tuple[chaos.Clients, FakeApi]:
    api = FakeApi(*answers)
    return chaos.Clients(api), api  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)


# ------------------------------------------------------------------------------------------------ the faults


@pytest.mark.parametrize("persistent", [False, True])
@pytest.mark.parametrize("orders", [10, 40, 500])
def test_the_runner_accepts_the_faults(orders: int, persistent: bool, tmp_path: Path) -> None:
    (tmp_path / "faults.json").write_text(json.dumps(chaos.faults(1, orders, persistent=persistent)))

    names: dict[str, dict[str, str]] = {selector: {} for selector in ("rule", "queue", "stream")}
    names["function"] = {"orderflow-AnalyticsFunction-1": "AnalyticsFunction"}

    read_faults(tmp_path / "faults.json", names, tmp_path / "log")


def test_rare_faults_are_more_probable_in_a_run_of_few_orders() -> None:
    def probability(orders: int, kind: str, **selector: str) -> Any:
        return next(
            fault["probability"]
            for fault in chaos.faults(1, orders)["faults"]
            if fault["kind"] == kind and selector.items() <= fault.items()
        )

    assert probability(500, "duplicate", rule="*") == 0.05
    assert probability(40, "duplicate", rule="*") == 0.2
    assert probability(1, "crash", call="sesv2.SendEmail") == 0.5
    assert probability(40, "error", function="*") == probability(500, "error", function="*") == 0.1


def test_a_persistent_run_makes_all_faults_of_calls_outlast_the_sdks_retries() -> None:
    def persistent(*, outlasting: bool) -> set[tuple[str, str]]:
        faults = chaos.faults(1, 500, persistent=outlasting)["faults"]
        return {(fault["call"], fault["kind"]) for fault in faults if fault.get("persistent")}

    some, all_ = persistent(outlasting=False), persistent(outlasting=True)

    assert some < all_
    assert {("dynamodb.*", "error"), ("dynamodb.TransactWriteItems", "error")} <= some
    assert {("dynamodb.*", "throttle"), ("dynamodb.UpdateItem", "lost-answer"), ("sqs.SendMessage", "error")} <= all_
    assert not {("events.PutEvents", "error"), ("dynamodb.UpdateItem", "crash")} & all_


def test_a_kind_of_fault_that_never_occurred_is_reported_unless_it_is_rare() -> None:
    file = {
        "faults": [
            {"function": "*", "kind": "error"},
            {"rule": "*", "kind": "delay"},
            {"call": "sqs.SendMessage", "kind": "crash"},
        ]
    }
    found = replace(EMPTY, faults=[{"function": "InventoryFunction", "kind": "error"}])

    assert chaos.missing(file, found) == ["fault rule delay: never struck"]


def test_only_timeouts_are_extended(tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    template = tmp_path / "code" / "template.yaml"
    template.write_text("Globals:\n  Timeout: 10\nFunction:\n    Timeout: 30 # s\n    VisibilityTimeout: 180\n")

    copy = chaos.stretched(template, tmp_path)

    assert copy.read_text() == (
        "Globals:\n  Timeout: 60\nFunction:\n    Timeout: 180 # s\n    VisibilityTimeout: 180\n"
    )
    assert (tmp_path / "functions").readlink() == tmp_path / "code" / "functions"


# ----------------------------------------------------------------------------------------------- the clients


def test_a_seed_always_makes_the_same_plan_with_every_kind_of_step() -> None:
    orders = chaos.plan(1, 200)

    assert orders == chaos.plan(1, 200)
    assert orders != chaos.plan(2, 200)
    assert len({order.key for order in orders}) == 200
    assert {order.cancel for order in orders} == {"at once", "later", None}
    assert {order.promotion for order in orders} == {None, "SPRING10", "MAY-5"}
    assert {product for order in orders for product in order.items} == {
        product["productId"] for product in chaos.products(200)
    }


def test_a_client_repeats_its_request_until_there_is_a_response() -> None:
    customers, api = clients(
        urllib3.exceptions.ProtocolError("gone"),
        (503, {}),
        (429, {}),
        (409, {"type": "/problems/request-in-progress"}),
        (201, {"orderId": "A"}),
    )

    assert customers.place(ORDER) == Placed("key", "201", "A")
    assert len(api.calls) == 5
    assert all(call == api.calls[0] for call in api.calls)
    assert api.calls[0][2]["headers"]["idempotency-key"] == "key"
    assert json.loads(api.calls[0][2]["body"])["promotionCode"] == "MAY"


def test_a_refused_request_is_not_repeated() -> None:
    customers, api = clients((422, {"type": "/problems/unknown-product"}))

    assert customers.place(ORDER) == Placed("key", "422 unknown-product")
    assert len(api.calls) == 1


def test_a_client_gives_up_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chaos, "ANSWER_SECONDS", -1)
    customers, _ = clients((503, {}))

    assert customers.place(ORDER) == Placed("key", "503")


def test_an_order_is_cancelled_at_once() -> None:
    customers, api = clients((201, {"orderId": "A"}), (409, {"type": "/problems/busy"}), (202, {}))

    assert customers.place(replace(ORDER, cancel="at once")) == Placed("key", "201", "A", "202")
    assert [path for _, path, _ in api.calls] == ["/orders", "/orders/A/cancellation", "/orders/A/cancellation"]


def test_an_order_is_cancelled_once_it_is_settled() -> None:
    refused = (409, {"type": "/problems/not-cancellable"})
    customers, api = clients(
        (503, {"status": 503}),
        urllib3.exceptions.ProtocolError("gone"),
        (200, {"status": "PENDING"}),
        (200, {"status": "REJECTED"}),
        refused,
    )

    assert customers.cancel_later(Placed("key", "201", "A")).cancellation == "409 not-cancellable"
    assert [method for method, _, _ in api.calls] == ["GET", "GET", "GET", "GET", "POST"]


# --------------------------------------------------------------------------------------------- the operators


@pytest.fixture
def stack() -> Stack:
    return Stack("http://api", {}, "us-east-1")


def operators(stack: Stack, answers: int) -> tuple[chaos.Operators, FakeApi]:
    api = FakeApi(*[(200, {})] * answers)
    return chaos.Operators(stack, api), api  # type: ignore[arg-type]


def failed(status: str, **more: Any) -> dict[str, Any]:
    return {"id": "email:1/2", "status": status, "reason": "FaultInjected", **more}


def test_open_failed_events_are_redriven_a_limited_number_of_times(stack: Stack) -> None:
    people, api = operators(stack, answers=chaos.REDRIVES)

    for _ in range(chaos.REDRIVES + 1):
        people.redrive([failed("PARKED", payload="{}"), {**failed("RESOLVED", payload="{}"), "id": "done"}])

    assert [path for _, path, _ in api.calls] == ["/admin/failed-events/email%3A1%2F2/redrive"] * chaos.REDRIVES


def test_failed_events_with_automatic_retries_are_not_redriven(stack: Stack) -> None:
    people, api = operators(stack, answers=0)

    people.redrive([failed("RETRYING", payload="{}"), failed("NEW", payload="{}", reason="NotAccepted")])

    assert api.calls == []


def test_an_event_is_kept_as_it_was_before_its_first_redrive(stack: Stack) -> None:
    people, _ = operators(stack, answers=2)

    people.redrive([failed("PARKED", payload="{}", attempts=1)])
    people.redrive([failed("PARKED", payload="{}", attempts=3)])

    assert [item["attempts"] for item in people.redriven] == [1]


def test_a_record_that_names_a_command_is_remediated_by_it_once(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    windows: list[Window] = []
    monkeypatch.setattr(chaos, "republish", lambda _stack, _order, window: windows.append(window))
    people, api = operators(stack, answers=0)
    record = failed("NEW", remediation="make republish FROM=2026-11-21T18:36:00Z TO=2026-11-21T18:37:00Z")

    people.redrive([record])
    people.redrive([record])

    begin, end = (datetime(2026, 11, 21, 18, minute, tzinfo=UTC) for minute in (36, 37))
    assert windows == [Window(begin, end)]
    assert people.remediated == {"email:1/2"}
    assert api.calls == []


def test_a_command_that_the_run_does_not_know_leaves_the_record_open(stack: Stack) -> None:
    people, _ = operators(stack, answers=0)

    people.redrive([failed("NEW", remediation="make replay FROM=2026-11-21T18:36:00Z")])

    assert people.remediated == set()


def test_parked_messages_are_put_back(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chaos, "unpark", lambda _stack: 3)
    people, _ = operators(stack, answers=0)

    people.unpark(replace(EMPTY, messages={"parking": 0}))
    people.unpark(replace(EMPTY, messages={"parking": 3}))

    assert people.unparked == 3


# ------------------------------------------------------------------------------------------- what is observed


def test_mails_are_read_with_their_tags(tmp_path: Path) -> None:
    (tmp_path / "1.eml").write_bytes(
        b"To: ada@example.com\r\nX-SES-MESSAGE-TAGS: kind=order-confirmed, event_id=E1\r\n\r\nHello\r\n"
    )

    assert chaos.read_mails(tmp_path) == [Mail("ada@example.com", "order-confirmed", "E1")]


def test_a_fault_is_distinguished_from_one_whose_call_was_retried_successfully(tmp_path: Path) -> None:
    log = tmp_path / "faults.jsonl"
    struck = [{"kind": "error", "call_id": "one"}, {"kind": "error", "call_id": "two"}, {"kind": "crash"}]
    lines = [*struck, {"kind": "recovered", "call_id": "two"}]
    log.write_text("".join(json.dumps(line) + "\n" for line in lines))

    strikes = chaos.read_strikes(log)

    assert [(strike.get("call_id"), strike["recovered"]) for strike in strikes] == [
        ("one", False),
        ("two", True),
        (None, False),
    ]


def test_a_log_with_personal_data_is_found(tmp_path: Path) -> None:
    lines = ["mail sent", "to CHAOS-1@mailbox-of-chaos.example", "to 77 Quillfeather Lane"]
    (tmp_path / "EmailFunction.log").write_text("\n".join(lines))
    (tmp_path / "InventoryFunction.log").write_text("stock reserved")

    assert chaos.leaks(tmp_path) == [f"log EmailFunction: 2 lines with personal data, first {lines[1]}"]


def test_the_data_that_no_log_may_contain_is_what_the_clients_send() -> None:
    customers, api = clients((201, {"orderId": "A"}))

    customers.place(ORDER)

    body = api.calls[0][2]["body"]
    assert [text for text in chaos.PERSONAL if text not in body] == []


def test_a_timeout_without_an_injected_fault_is_distinguished_from_others() -> None:
    runner_log = "\n".join(
        f"12:00 failure  EmailFunction: Sandbox.Timedout: 2026-11-21T18:36:00.000Z {request} Task timed out after 1 s"
        for request in ("slow", "struck")
    )

    assert chaos.too_slow(runner_log, [{"kind": "time-out", "function": "EmailFunction", "request": "struck"}]) == [
        {"kind": "too slow", "function": "EmailFunction"}
    ]


def test_a_run_with_violations_keeps_its_logs(tmp_path: Path) -> None:
    state, kept = tmp_path / "state", tmp_path / "kept"
    (state / "logs").mkdir(parents=True)
    (kept / "of an earlier run").mkdir(parents=True)
    (tmp_path / "runner.log").write_text("started")

    chaos.keep(state, tmp_path / "runner.log", kept)

    assert sorted(path.name for path in kept.iterdir()) == ["logs", "runner.log"]


# ------------------------------------------------------------------------------------------------ the end


class Idle:
    """Operators with nothing to do."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def unpark(self, _found: Snapshot) -> None:
        pass

    def redrive(self, failed: Any) -> None:
        self.seen.append(failed)


def looks(*found: Snapshot) -> Iterator[Snapshot]:
    """Returns one after the other, and then the last one again and again."""
    yield from found
    while True:
        yield found[-1]


def test_a_run_ends_when_nothing_changes_any_more() -> None:
    one, two = (replace(EMPTY, mails=[Mail("ada@example.com", "hello", "E1")] * number) for number in (1, 2))
    view, people = looks(EMPTY, one, two), Idle()

    assert chaos.settle(lambda: next(view), people, time_scale=1e5) is two  # type: ignore[arg-type]
    assert len(people.seen) > 2


def test_a_run_waits_longer_while_a_queue_holds_a_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chaos, "QUIET_SECONDS", -1.0)
    held, empty = replace(EMPTY, messages={"analytics": 1}), replace(EMPTY, messages={"analytics": 0})
    view = looks(*[held] * 5, empty)

    assert chaos.settle(lambda: next(view), Idle(), time_scale=1.0) is empty  # type: ignore[arg-type]


def test_a_run_ends_even_if_something_changes_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chaos, "SETTLE_SECONDS", 0.05)
    number = iter(range(10**9))

    chaos.settle(lambda: replace(EMPTY, messages={"analytics": next(number)}), Idle(), time_scale=1.0)  # type: ignore[arg-type]
