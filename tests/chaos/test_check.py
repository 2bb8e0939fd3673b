"""The check of a chaos run finds each kind of violation, and permits only what a fault explains."""

import subprocess
import sys
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from tests.chaos.check import Mail, Placed, Snapshot, check, is_given_up, record_id, struck

PLACED, CONFIRMED, REJECTED, CANCELLED = "Order Placed", "Order Confirmed", "Order Rejected", "Order Cancelled"


def order(name: str, status: str, *types: str, total: str = "10.00", promotion: str | None = None) -> dict[str, Any]:
    """An order of one pen."""
    content = {
        "orderId": name,
        "customerEmail": f"{name}@example.com",
        "items": [{"productId": "PEN", "quantity": 1}],
        "totalAmount": Decimal(total),
        "metadata": {"promotionCode": promotion} if promotion else {},
    }
    events = [
        {"eventId": f"{name}{number}", "type": kind, "time": "2026-11-21T18:36:00.123Z", "data": {}}
        for number, kind in enumerate(types, 1)
    ]
    events[0]["data"] = {"order": content}
    return {"orderId": name, "status": status, "version": len(events), "events": events}


FIRST_EVENTS = {
    "RESERVED": "Inventory Reserved",
    "RELEASED": "Inventory Released",
    "OUT_OF_STOCK": "Inventory Out-Of-Stock",
}


def reservation(of: dict[str, Any], status: str, *event_ids: str, **data: Any) -> dict[str, Any]:
    """An order's reservation. A second event is its release."""
    content = of["events"][0]["data"]["order"]
    types = [FIRST_EVENTS["RESERVED" if len(event_ids) > 1 else status], "Inventory Released"]
    events = [
        {
            "eventId": event_id,
            "type": kind,
            "time": f"2026-11-21T18:36:0{number}.000Z",
            "data": {"order": content, **data},
        }
        for number, (event_id, kind) in enumerate(zip(event_ids, types, strict=False))
    ]
    return {"pk": f"RESERVATION#{of['orderId']}", "status": status, "version": len(events), "events": events}


def shortage(asked: int, available: int, product_id: str = "PEN") -> dict[str, Any]:
    return {"productId": product_id, "asked": asked, "available": available}


def counter(promotion: str, **figures: Any) -> dict[str, Any]:
    return {"pk": "SALES#2026-11", "sk": f"2026-11-21#{promotion}", **figures}


def failed(consumer: str, reason: str, kind: str = "INVOCATION", status: str = "RESOLVED") -> dict[str, Any]:
    return {
        "id": f"{consumer}:1",
        "consumer": consumer,
        "kind": kind,
        "reason": reason,
        "status": status,
        "failures": Decimal(1),
    }


def strikes(kind: str, times: int, **what: Any) -> list[dict[str, Any]]:
    return [{"kind": kind, **what}] * times


@pytest.fixture
def found() -> Snapshot:
    """A run without violations: one high-value order was confirmed, two others cancelled, one rejected."""
    orders = [
        order("A", "CONFIRMED", PLACED, CONFIRMED, total="1000.01", promotion="MAY"),
        order("B", "CANCELLED", PLACED, CONFIRMED, CANCELLED),
        order("C", "CANCELLED", PLACED, CANCELLED),
        order("D", "REJECTED", PLACED, REJECTED),
    ]
    a, b, c, d = orders
    inventory = [
        {"pk": "PRODUCT#PEN", "available": 1, "reserved": 1},
        reservation(a, "RESERVED", "ra1"),
        reservation(b, "RELEASED", "rb1", "rb2"),
        reservation(c, "RELEASED", "rc1"),
        reservation(d, "OUT_OF_STOCK", "rd1", shortages=[shortage(asked=1, available=0)]),
    ]
    placed = [
        Placed("key A", "201", "A"),
        Placed("key B", "201", "B", "202"),
        Placed("key C", "201", "C", "202"),
        Placed("key D", "201", "D", "409 not-cancellable"),
    ]
    dear, cheap = Decimal("1000.01"), Decimal("10.00")
    sold = {"confirmedOrders": 1, "confirmedItems": 1, "confirmedRevenue": cheap}
    analytics: list[dict[str, Any]] = [
        counter("MAY", placedOrders=1, placedItems=1, placedRevenue=dear)
        | {"confirmedOrders": 1, "confirmedItems": 1, "confirmedRevenue": dear},
        counter("", cancelledOrders=1, cancelledItems=1, cancelledRevenue=cheap) | sold,
        *({"pk": f"FACT#{event_id}", "sk": "FACT"} for event_id in ("A1", "A2", "B2", "B3")),
    ]
    ids = [event["eventId"] for item in [*orders, *inventory[1:]] for event in item["events"]]
    return Snapshot(
        placed=placed,
        initial={"PEN": 2},
        orders=orders,
        inventory=inventory,
        analytics=analytics,
        failed_events=[],
        remediated=frozenset(),
        redriven=[],
        bus_events=[{"detail-type": "Event", "detail": {"metadata": {"eventId": event_id}}} for event_id in ids],
        mails=[
            Mail("sales@example.com", "high-value-order", "A1"),
            Mail("A@example.com", "order-confirmed", "A2"),
            Mail("B@example.com", "order-confirmed", "B2"),
            Mail("B@example.com", "order-cancelled", "B3"),
            Mail("C@example.com", "order-cancelled", "C2"),
            Mail("D@example.com", "order-rejected", "D2"),
        ],
        faults=[],
        messages={"dead letters": 0},
    )


def test_a_run_without_violations_has_none(found: Snapshot) -> None:
    assert check(found) == []


# ----------------------------------------------------------------------------------------------- the clients


@pytest.mark.parametrize(
    ("placed", "violation"),
    [
        (Placed("key E", "503"), "request key E: no order, the last answer was 503"),
        (Placed("key E", "201", "E"), "order E: accepted, but not stored"),
        (Placed("key E", "201", "A"), "order A: the answer to two requests, key A and key E"),
    ],
)
def test_a_request_without_an_order_of_its_own_is_found(found: Snapshot, placed: Placed, violation: str) -> None:
    assert check(replace(found, placed=[*found.placed, placed])) == [violation]


def test_an_order_that_no_client_placed_is_found(found: Snapshot) -> None:
    assert check(replace(found, placed=found.placed[1:])) == ["order A: stored, but no client received it"]


@pytest.mark.parametrize(
    ("number", "answer", "violation"),
    [
        (0, "202", "order A: its cancellation was accepted, but is not stored"),
        (0, "409 not-cancellable", "order A: its cancellation was refused, but it was not rejected"),
        (1, None, "order B: cancelled, but no client cancelled it"),
        (1, "503", "order B: the last answer to its cancellation was 503"),
    ],
)
def test_a_cancellation_whose_response_contradicts_its_outcome_is_found(
    found: Snapshot, number: int, answer: str | None, violation: str
) -> None:
    placed = list(found.placed)
    placed[number] = replace(placed[number], cancellation=answer)

    assert check(replace(found, placed=placed)) == [violation]


# --------------------------------------------------------------------------------------------- reconciliation


def test_an_order_that_is_not_settled_is_found(found: Snapshot) -> None:
    waiting = order("E", "PENDING", PLACED)
    on_bus = {"detail-type": PLACED, "detail": {"metadata": {"eventId": "E1"}}}
    run = replace(
        found,
        orders=[*found.orders, waiting],
        placed=[*found.placed, Placed("key E", "201", "E")],
        bus_events=[*found.bus_events, on_bus],
    )

    assert check(run) == ["order E: not settled, PENDING"]


def test_stock_that_was_reserved_twice_is_found(found: Snapshot) -> None:
    product = {"pk": "PRODUCT#PEN", "available": 0, "reserved": 2}

    assert check(replace(found, inventory=[product, *found.inventory[1:]])) == [
        "product PEN: 2 reserved, but the reservations hold 1"
    ]


def test_an_event_that_was_never_published_is_found(found: Snapshot) -> None:
    assert check(replace(found, bus_events=found.bus_events[1:])) == ["event A1: stored, but never on the bus"]


# -------------------------------------------------------------------------------------------- the rejections


@pytest.mark.parametrize(
    ("shortages", "violation"),
    [
        ([], "order D: rejected, but without a shortage"),
        ([shortage(1, 1)], "order D: rejected for 1 of PEN, but 1 were available"),
        ([shortage(2, 0)], "order D: rejected for 2 of PEN, but it asked for 1"),
        ([shortage(1, 0, "INK")], "order D: rejected for 1 of INK, but it asked for 0"),
    ],
)
def test_a_rejection_without_a_shortage_is_found(found: Snapshot, shortages: Any, violation: str) -> None:
    rejected = reservation(order("D", "REJECTED", PLACED), "OUT_OF_STOCK", "rd1", shortages=shortages)

    assert check(replace(found, inventory=[*found.inventory[:-1], rejected])) == [violation]


def test_a_shortage_that_contradicts_the_reservations_is_found(found: Snapshot) -> None:
    product = {"pk": "PRODUCT#PEN", "available": 2, "reserved": 1}

    assert check(replace(found, initial={"PEN": 3}, inventory=[product, *found.inventory[1:]])) == [
        "order D: rejected with 0 of PEN available, but by the reservations 1 were left"
    ]


def test_a_reservation_that_began_after_the_rejection_does_not_justify_it(found: Snapshot) -> None:
    product, first, *others = found.inventory
    later = {**first, "events": [{**first["events"][0], "time": "2026-11-21T18:36:00.001Z"}]}

    assert check(replace(found, inventory=[product, later, *others])) == [
        "order D: rejected with 0 of PEN available, but by the reservations 1 were left"
    ]


# --------------------------------------------------------------------------------------------- the analytics


def test_a_figure_that_differs_from_the_recount_is_found(found: Snapshot) -> None:
    may, *rest = found.analytics

    assert check(replace(found, analytics=[{**may, "placedRevenue": Decimal("1000.02")}, *rest])) == [
        "analytics 2026-11-21 MAY placedRevenue: 1000.02 counted, 1000.01 by the orders' events"
    ]


def test_an_event_that_was_not_counted_is_found(found: Snapshot) -> None:
    assert check(replace(found, analytics=found.analytics[:-1])) == ["analytics: event B3 was never counted"]


def test_a_fact_without_an_event_is_found(found: Snapshot) -> None:
    fact = {"pk": "FACT#C2", "sk": "FACT"}  # a cancellation of what was never sold

    assert check(replace(found, analytics=[*found.analytics, fact])) == [
        "analytics: event C2 was counted, but is not stored"
    ]


def test_figures_under_another_month_are_found(found: Snapshot) -> None:
    may, *rest = found.analytics

    assert check(replace(found, analytics=[{**may, "pk": "SALES#2026-10"}, *rest])) == [
        "analytics 2026-11-21 MAY: stored under SALES#2026-10"
    ]


# ------------------------------------------------------------------------------------------------- the mails


def test_a_mail_that_was_not_sent_is_found(found: Snapshot) -> None:
    assert check(replace(found, mails=found.mails[1:])) == [
        "mail high-value-order of event A1: sent 0 times, and 1 at most can be"
    ]


@pytest.mark.parametrize("mail", [Mail("E@example.com", "order-rejected", "D2"), Mail("A@example.com", "hello", "A2")])
def test_an_unexpected_mail_is_found(found: Snapshot, mail: Mail) -> None:
    assert check(replace(found, mails=[*found.mails, mail])) == [
        f"mail {mail.kind} of event {mail.event_id}: sent, but no event requires it, or not to this recipient"
    ]


@pytest.mark.parametrize("kind", ["crash", "lost-answer"])
def test_a_mail_may_come_twice_only_if_its_own_acceptance_was_not_recorded(found: Snapshot, kind: str) -> None:
    twice = replace(found, mails=[found.mails[1], *found.mails])
    call = {"call": "sesv2.SendEmail", "by": "EmailFunction"}
    tags = {"kind": "order-confirmed", "event_id": "A2"}
    violation = "mail order-confirmed of event A2: sent 2 times, and 1 at most can be"

    assert check(twice) == [violation]
    assert check(replace(twice, faults=strikes(kind, 1, **call, tags={**tags, "event_id": "B2"}, effect=True))) == [
        violation
    ]
    assert check(replace(twice, faults=strikes(kind, 1, **call, tags=tags, effect=False))) == [violation]
    assert check(replace(twice, faults=strikes("throttle", 1, **call, tags=tags, effect=False))) == [violation]
    assert check(replace(twice, faults=strikes(kind, 1, **call, tags=tags, effect=True))) == []


def struck_record(call_id: str, event_id: str = "A2", **more: Any) -> dict[str, Any]:
    """A fault in an attempt to complete the idempotency record of an order's confirmation."""
    return {
        "kind": "throttle",
        "call": "dynamodb.UpdateItem",
        "by": "EmailFunction",
        "key": {"id": record_id("order-confirmed", event_id)},
        "call_id": call_id,
        "effect": False,
        "recovered": False,
        **more,
    }


def test_a_mail_may_be_repeated_for_each_write_of_its_record_that_finally_failed(found: Snapshot) -> None:
    twice = replace(found, mails=[found.mails[1], *found.mails])
    thrice = replace(twice, mails=[found.mails[1], *twice.mails])
    attempts = [struck_record("one")] * 4

    assert check(replace(twice, faults=attempts)) == []
    assert check(replace(thrice, faults=attempts)) == [
        "mail order-confirmed of event A2: sent 3 times, and 2 at most can be"
    ]
    assert check(replace(thrice, faults=[*attempts, struck_record("two")])) == []


@pytest.mark.parametrize(
    "faults",
    [
        [struck_record("one", recovered=True)],
        [struck_record("one"), struck_record("one", kind="lost-answer", effect=True)],
        [struck_record("one", event_id="B2")],
        [struck_record("one", call="dynamodb.PutItem")],
        [struck_record("one", by="DlqProcessorFunction")],
    ],
    ids=["retried with success", "written, answer lost", "another mail", "another call", "another function"],
)
def test_a_write_that_did_not_finally_fail_excuses_no_mail(found: Snapshot, faults: list[dict[str, Any]]) -> None:
    assert check(replace(found, mails=[found.mails[1], *found.mails], faults=faults)) == [
        "mail order-confirmed of event A2: sent 2 times, and 1 at most can be"
    ]


def test_a_sender_that_was_too_slow_excuses_one_mail(found: Snapshot) -> None:
    slow = strikes("too slow", 1, function="EmailFunction")
    others = strikes("too slow", 9, function="InventoryFunction")

    assert check(replace(found, mails=[found.mails[1], *found.mails], faults=slow)) == []
    assert check(replace(found, mails=[found.mails[1], *found.mails], faults=others)) == [
        "mail order-confirmed of event A2: sent 2 times, and 1 at most can be"
    ]
    assert check(replace(found, mails=[*found.mails[1:3], *found.mails], faults=slow)) == [
        "mail order-confirmed of event A2: sent 2 times, and 1 at most can be",
        "mail order-confirmed of event B2: sent 2 times, and 1 at most can be",
    ]
    assert check(replace(found, mails=found.mails[1:], faults=slow)) == [
        "mail high-value-order of event A1: sent 0 times, and 1 at most can be"
    ]


# ----------------------------------------------------------------------------------------- the failed events


@pytest.mark.parametrize("status", ["NEW", "RETRYING", "PARKED"])
def test_a_failed_event_that_is_open_is_found_unless_it_was_remediated(found: Snapshot, status: str) -> None:
    run = replace(
        found,
        failed_events=[failed("inventory", "FaultInjected", status=status)],
        faults=strikes("error", 3, function="InventoryFunction"),
    )

    assert check(run) == [f"failed event inventory:1: {status}, because of FaultInjected"]
    assert check(replace(run, remediated=frozenset({"inventory:1"}))) == []


@pytest.mark.parametrize(
    ("reason", "fault"),
    [
        ("FaultInjected", strikes("error", 3, function="InventoryFunction")),
        ("Sandbox.Timedout", strikes("time-out", 3, function="InventoryFunction")),
        ("Sandbox.Timedout", strikes("too slow", 3, function="InventoryFunction")),
        ("Runtime.ExitError", strikes("crash", 3, call="dynamodb.UpdateItem", by="InventoryFunction")),
        ("ClientError", strikes("throttle", 3, call="dynamodb.UpdateItem", by="InventoryFunction")),
    ],
)
def test_a_failed_event_is_explained_by_the_faults_that_match_its_reason(
    found: Snapshot, reason: str, fault: list[dict[str, Any]]
) -> None:
    run = replace(found, failed_events=[failed("inventory", reason)], faults=fault)

    assert check(run) == []
    assert check(replace(run, failed_events=[failed("inventory", "KeyError")])) == [
        "failed event inventory:1: no fault explains INVOCATION because of KeyError"
    ]
    assert check(replace(run, failed_events=[failed("order-status", reason)])) == [
        f"failed event order-status:1: no fault explains INVOCATION because of {reason}",
        "failed events of order-status: they take 3 faults, but OrderStatusFunction was struck 0 times",
    ]


@pytest.mark.parametrize(
    ("status", "reason", "given_up"),
    [
        ("NEW", "FaultInjected", True),
        ("NEW", "NotAccepted", False),
        ("RETRYING", "FaultInjected", False),
        ("PARKED", "NotAccepted", True),
        ("RESOLVED", "FaultInjected", False),
    ],
)
def test_a_failed_event_needs_an_operator_once_it_is_not_retried(status: str, reason: str, given_up: bool) -> None:
    assert is_given_up(failed("email", reason, status=status)) == given_up


def test_an_event_that_was_parked_before_its_last_automatic_retry_is_found(found: Snapshot) -> None:
    def violations(**more: Any) -> list[str]:
        parked = {**failed("email", "NotAccepted", status="PARKED"), "payload": "{}", "attempts": 2, **more}
        return check(replace(found, redriven=[parked]))

    assert violations() == ["failed event email:1: parked after 2 of 3 automatic retries"]
    assert violations(attempts=3) == []
    assert violations(failures=2) == []  # it came into the DLQ again, which no retry is due to
    assert violations(status="NEW", reason="FaultInjected", attempts=0) == []


def test_the_attempts_of_one_call_are_one_fault(found: Snapshot) -> None:
    attempts = strikes("error", 4, call="dynamodb.GetItem", by="InventoryFunction", call_id="one")
    run = replace(found, failed_events=[failed("inventory", "InternalServerError")], faults=attempts)

    assert check(run) == ["failed events of inventory: they take 3 faults, but InventoryFunction was struck 1 times"]
    more = [{**attempts[0], "call_id": call_id} for call_id in ("two", "three")]
    assert check(replace(run, faults=[*attempts, *more])) == []


def test_fewer_faults_than_failures_do_not_explain_them(found: Snapshot) -> None:
    run = replace(
        found,
        failed_events=[failed("inventory", "FaultInjected")],
        faults=strikes("error", 2, function="InventoryFunction"),
    )

    assert check(run) == ["failed events of inventory: they take 3 faults, but InventoryFunction was struck 2 times"]


def test_a_kind_of_failure_that_no_fault_leads_to_is_found(found: Snapshot) -> None:
    run = replace(
        found,
        failed_events=[failed("email", "MessageRejected", kind="NON_RETRYABLE")],
        faults=strikes("error", 9, call="sesv2.SendEmail", by="EmailFunction", tags={}, effect=False),
    )

    assert check(run) == ["failed event email:1: no fault explains NON_RETRYABLE because of MessageRejected"]


def test_messages_that_were_received_too_often_take_three_faults_whatever_their_number(found: Snapshot) -> None:
    messages = [failed("analytics", "MaxReceiveCount", kind="QUEUE") for _ in range(9)]
    run = replace(found, failed_events=messages, faults=strikes("throttle", 3, function="AnalyticsFunction"))

    assert check(run) == []
    assert check(replace(run, faults=run.faults[1:])) == [
        "failed events of analytics: they take 3 faults, but AnalyticsFunction was struck 2 times"
    ]


def test_a_message_that_is_left_in_a_queue_is_found(found: Snapshot) -> None:
    assert check(replace(found, messages={"parking": 1, "dead letters": 0})) == ["queue parking: 1 messages left"]


# ------------------------------------------------------------------------------------------------ the faults


def test_faults_are_counted_by_target_and_kind() -> None:
    faults = [
        *strikes("throttle", 2, function="InventoryFunction"),
        *strikes("throttle", 1, call="dynamodb.GetItem", by="InventoryFunction"),
        *strikes("throttle", 1, call="dynamodb.GetItem", by="InventoryFunction", persistent=True),
        *strikes("duplicate", 3, rule="order-to-inventory"),
    ]

    assert struck(faults) == {
        ("function", "throttle"): 2,
        ("dynamodb", "throttle"): 1,
        ("dynamodb", "persistent throttle"): 1,
        ("rule", "duplicate"): 3,
    }


def test_the_check_shares_no_code_with_the_application() -> None:
    program = (
        "import sys, tests.chaos.check, tests.chaos;"
        "print([name for name, module in sys.modules.items() if 'functions/' in (getattr(module, '__file__', 0) or '')"
        " or '/layers/' in (getattr(module, '__file__', 0) or '')])"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert run.stdout.strip() == "[]"
