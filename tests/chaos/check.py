"""Checks a chaos run: responses, stored items, counters and sent e-mails must be consistent."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import md5
from typing import Any

from tools import reconcile

Item = Mapping[str, Any]

MAIL_KINDS = {
    "Order Confirmed": "order-confirmed",
    "Order Rejected": "order-rejected",
    "Order Cancelled": "order-cancelled",
}
HIGH_VALUE = "high-value-order"
HIGH_VALUE_ABOVE = 1000
SALES_ADDRESS = "sales@example.com"

FUNCTIONS = {
    "inventory": "InventoryFunction",
    "order-status": "OrderStatusFunction",
    "email": "EmailFunction",
    "analytics": "AnalyticsFunction",
    "event-publisher": "EventPublisherFunction",
}
"""The function of each consumer in failed events, by its logical id."""

LEAST_STRIKES = {"INVOCATION": 3, "QUEUE": 3}
"""The failures of a function before a message arrives in the DLQ: an invocation and its two retries, or three receives
of a message. The faults of a chaos run cause no other kind of failure."""

REASONS = {
    "FaultInjected": frozenset({"error"}),
    "Sandbox.Timedout": frozenset({"time-out", "too slow"}),
    "Runtime.ExitError": frozenset({"crash"}),
    "TooManyRequestsException": frozenset({"throttle"}),
}
"""The kinds of fault that explain a failed event's reason."""

FAILED_CALLS = frozenset(
    {
        "BatchItemFailure",
        "ClientError",
        "ConnectionClosedError",
        "IdempotencyPersistenceLayerError",
        "InternalServerError",
        "NotAccepted",
        "ProvisionedThroughputExceededException",
    }
)
"""Reasons that a failed call explains."""
ANY_FAULT = frozenset({"MaxReceiveCount", "IdempotencyAlreadyInProgressError"})
"""Reasons that any fault explains."""
NOT_RETRIED = frozenset({"FaultInjected"})
"""Reasons that the DLQ processor does not retry, because it does not know them. It retries all other reasons that the
faults of a chaos run cause."""
AUTOMATIC_RETRIES = 3
"""The retries of the DLQ processor before it parks a failed event."""


@dataclass(frozen=True)
class Placed:
    """The responses to a client's order.

    Args:
        key: the Idempotency-Key of the requests.
        answer: the last response, such as `201`.
        order_id: the order, if it was placed.
        cancellation: the last response to its cancellation; None if the client did not cancel it.
    """

    key: str
    answer: str
    order_id: str | None = None
    cancellation: str | None = None


@dataclass(frozen=True)
class Mail:
    """An e-mail that SES accepted: its recipient and its tags."""

    to: str
    kind: str
    event_id: str


@dataclass(frozen=True)
class Snapshot:
    """The state of an idle stack.

    Args:
        placed: the responses to the clients.
        initial: the stock of each product before the first order.
        orders: the items of the orders table.
        inventory: the items of the inventory table.
        analytics: the items of the analytics table.
        failed_events: the items of the failed-events table.
        remediated: the ids of the failed events whose remediation command was run, because they cannot be redriven.
        redriven: the failed events that were redriven, each in the state before its first redrive.
        bus_events: the events on the bus; an event that was published twice is in it twice.
        mails: the e-mails that SES accepted.
        faults: the strikes in faults.jsonl, with `recovered` if a retry of the same call took effect, and a fault `too
            slow` for each time-out that was not injected.
        messages: the number of messages in each queue.
    """

    placed: Sequence[Placed]
    initial: Mapping[str, int]
    orders: Sequence[Item]
    inventory: Sequence[Item]
    analytics: Sequence[Item]
    failed_events: Sequence[Item]
    remediated: frozenset[str]
    redriven: Sequence[Item]
    bus_events: Sequence[Item]
    mails: Sequence[Mail]
    faults: Sequence[Item]
    messages: Mapping[str, int]


def check(found: Snapshot) -> list[str]:
    """Returns the violations, one line each: what was lost, done twice or not done."""
    return [
        *_client_violations(found.placed, {order["orderId"]: order for order in found.orders}),
        *reconcile.check(found.orders, found.inventory, found.bus_events, found.initial),
        *_rejection_violations(found.inventory, found.initial),
        *_analytics_violations(found.orders, found.analytics),
        *_mail_violations(found),
        *_failure_violations(found.failed_events, found.remediated, found.faults),
        *_retry_violations(found.redriven),
        *(f"queue {name}: {number} messages left" for name, number in found.messages.items() if number),
    ]


# ----------------------------------------------------------------------------------------------- the clients


def _client_violations(placed: Iterable[Placed], orders: Mapping[str, Item]) -> Iterator[str]:
    known: dict[str, str] = {}
    for told in placed:
        if told.order_id is None:
            yield f"request {told.key}: no order, the last answer was {told.answer}"
            continue
        if told.order_id in known:
            yield f"order {told.order_id}: the answer to two requests, {known[told.order_id]} and {told.key}"
        known[told.order_id] = told.key
        if told.order_id not in orders:
            yield f"order {told.order_id}: accepted, but not stored"
            continue
        yield from _cancellation_violations(told, [event["type"] for event in orders[told.order_id]["events"]])
    yield from (f"order {order_id}: stored, but no client received it" for order_id in sorted(orders.keys() - known))


def _cancellation_violations(told: Placed, events: Sequence[str]) -> Iterator[str]:
    cancelled = "Order Cancelled" in events
    match told.cancellation:
        case "202" if not cancelled:
            yield f"order {told.order_id}: its cancellation was accepted, but is not stored"
        case "409 not-cancellable" if "Order Rejected" not in events:
            yield f"order {told.order_id}: its cancellation was refused, but it was not rejected"
        case None if cancelled:
            yield f"order {told.order_id}: cancelled, but no client cancelled it"
        case "202" | "409 not-cancellable" | None:
            pass
        case answer:
            yield f"order {told.order_id}: the last answer to its cancellation was {answer}"


# -------------------------------------------------------------------------------------------- the rejections


def _rejection_violations(inventory: Sequence[Item], initial: Mapping[str, int]) -> Iterator[str]:
    """Finds orders that were rejected although enough was in stock.

    A shortage contains the requested and the available quantity at the moment when the condition of the reservation
    failed. Its event has a later time than that moment, and the event of a reservation an earlier time than its commit.
    So the available quantity was at least the initial stock minus the reservations with an earlier time, even if none
    of these was released.
    """
    first_events = [item["events"][0] for item in inventory if item["pk"].startswith(reconcile.RESERVATION)]
    reserved = [event for event in first_events if event["type"] == "Inventory Reserved"]
    for event in first_events:
        if event["type"] != "Inventory Out-Of-Stock":
            continue
        before = [earlier for earlier in reserved if earlier["time"] <= event["time"]]
        place, wanted = f"order {event['data']['order']['orderId']}: rejected", _quantities(event)
        if not event["data"]["shortages"]:
            yield f"{place}, but without a shortage"
        for shortage in event["data"]["shortages"]:
            product_id, asked, available = (shortage[name] for name in ("productId", "asked", "available"))
            least = initial.get(product_id, 0) - sum(_quantities(earlier)[product_id] for earlier in before)
            if asked != wanted[product_id]:
                yield f"{place} for {asked} of {product_id}, but it asked for {wanted[product_id]}"
            if available >= asked:
                yield f"{place} for {asked} of {product_id}, but {available} were available"
            if available < least:
                yield f"{place} with {available} of {product_id} available, but by the reservations {least} were left"


def _quantities(event: Item) -> Counter[str]:
    return Counter({line["productId"]: int(line["quantity"]) for line in event["data"]["order"]["items"]})


# --------------------------------------------------------------------------------------------- the analytics

Figures = Counter[tuple[str, str, str]]
"""By day, promotion and counter, such as `confirmedRevenue`."""


def _analytics_violations(orders: Iterable[Item], analytics: Sequence[Item]) -> Iterator[str]:
    """Compares the counters with a recount of the orders' events."""
    facts, recounted = _recount(orders)
    counted: Figures = Counter()
    for item in analytics:
        if item["pk"].startswith("SALES#"):
            day, _, promotion = item["sk"].partition("#")
            if item["pk"] != f"SALES#{day[:7]}":
                yield f"analytics {day} {promotion}: stored under {item['pk']}"
            counted.update({(day, promotion, name): item[name] for name in item.keys() - {"pk", "sk"}})
    for key in sorted(counted.keys() | recounted.keys()):
        if counted[key] != recounted[key]:
            yield f"analytics {' '.join(key)}: {counted[key]} counted, {recounted[key]} by the orders' events"
    stored = {item["pk"].removeprefix("FACT#") for item in analytics if item["pk"].startswith("FACT#")}
    yield from (f"analytics: event {event_id} was never counted" for event_id in sorted(facts - stored))
    yield from (f"analytics: event {event_id} was counted, but is not stored" for event_id in stored - facts)


def _recount(orders: Iterable[Item]) -> tuple[set[str], Figures]:
    facts: set[str] = set()
    figures: Figures = Counter()
    for order in orders:
        content = order["events"][0]["data"]["order"]
        promotion = content["metadata"].get("promotionCode", "")
        for event, kind in _counted(order["events"], promotion):
            facts.add(event["eventId"])
            amounts: dict[str, Any] = {
                "Orders": 1,
                "Items": sum(line["quantity"] for line in content["items"]),
                "Revenue": content["totalAmount"],
            }
            figures.update({(event["time"][:10], promotion, kind + name): amount for name, amount in amounts.items()})
    return facts, figures


def _counted(events: Sequence[Item], promotion: str) -> Iterator[tuple[Item, str]]:
    """Returns the counted events of an order and their kinds. A cancellation counts only after a confirmation."""
    confirmed = False
    for event in events:
        if event["type"] == "Order Placed" and promotion:
            yield event, "placed"
        elif event["type"] == "Order Confirmed":
            confirmed = True
            yield event, "confirmed"
        elif event["type"] == "Order Cancelled" and confirmed:
            yield event, "cancelled"


# ------------------------------------------------------------------------------------------------- the mails


def _mail_violations(found: Snapshot) -> Iterator[str]:
    """Compares the e-mails with those that the orders' events require.

    An e-mail can be sent again each time that SES accepted it and the function could not record that: it crashed in
    SendEmail, the response was lost, or the write of the record failed permanently. The faults of functions do not
    count, because they strike before or after an invocation. For an invocation that timed out without a fault, the
    e-mail is unknown, so each of them permits one more e-mail.
    """
    sent = Counter(found.mails)
    most = Counter(
        (fault["tags"]["kind"], fault["tags"]["event_id"])
        for fault in found.faults
        if fault.get("call") == "sesv2.SendEmail" and fault["kind"] in {"crash", "lost-answer"} and fault["effect"]
    )
    required = sorted(set(_required(found.orders)), key=lambda mail: mail.event_id)
    unrecorded = _failed_records(found.faults)
    for mail in required:
        most[mail.kind, mail.event_id] += 1 + unrecorded[record_id(mail.kind, mail.event_id)]
    too_many = {mail: over for mail in required if (over := sent[mail] - most[mail.kind, mail.event_id]) > 0}
    slow = sum(fault["kind"] == "too slow" and fault["function"] == FUNCTIONS["email"] for fault in found.faults)
    for mail in required:
        if not sent[mail] or (mail in too_many and sum(too_many.values()) > slow):
            at_most = most[mail.kind, mail.event_id]
            yield f"mail {mail.kind} of event {mail.event_id}: sent {sent[mail]} times, and {at_most} at most can be"
    for mail in sent.keys() - set(required):
        yield f"mail {mail.kind} of event {mail.event_id}: sent, but no event requires it, or not to this recipient"


def record_id(kind: str, event_id: str) -> str:
    """Returns the id of an e-mail's idempotency record, as Powertools derives it for EmailFunction."""
    return f"email#{md5(json.dumps([event_id, kind]).encode(), usedforsecurity=False).hexdigest()}"


def _failed_records(faults: Iterable[Item]) -> Counter[str]:
    """Returns how often EmailFunction failed to complete an idempotency record, by record id.

    EmailFunction completes it after SES accepted the e-mail. A call failed if it was struck, and neither a struck
    attempt nor a retry took effect.
    """
    effects: dict[tuple[str, str], bool] = {}
    for fault in faults:
        if (fault.get("call"), fault.get("by")) == ("dynamodb.UpdateItem", FUNCTIONS["email"]):
            call = (fault["key"]["id"], fault["call_id"])
            effects[call] = effects.get(call, False) or fault["effect"] or fault["recovered"]
    return Counter(record for (record, _), effect in effects.items() if not effect)


def _required(orders: Iterable[Item]) -> Iterator[Mail]:
    for order in orders:
        content = order["events"][0]["data"]["order"]
        for event in order["events"]:
            if event["type"] in MAIL_KINDS:
                yield Mail(content["customerEmail"], MAIL_KINDS[event["type"]], event["eventId"])
            elif content["totalAmount"] > HIGH_VALUE_ABOVE:
                yield Mail(SALES_ADDRESS, HIGH_VALUE, event["eventId"])


# ----------------------------------------------------------------------------------------- the failed events


def _failure_violations(failed: Sequence[Item], remediated: frozenset[str], faults: Sequence[Item]) -> Iterator[str]:
    """Finds failed events that are still open, and those that no fault explains.

    A fault explains a failed event if it struck the consumer's function and fits the reason. In addition, the function
    must have been struck often enough for all of its failures.
    """
    for item in failed:
        if item["status"] != "RESOLVED" and item["id"] not in remediated:
            yield f"failed event {item['id']}: {item['status']}, because of {item['reason']}"
        if item["kind"] not in LEAST_STRIKES or not any(
            _explains(item["reason"], fault) for fault in _strikes(FUNCTIONS.get(item["consumer"]), faults)
        ):
            yield f"failed event {item['id']}: no fault explains {item['kind']} because of {item['reason']}"
    for consumer, function in FUNCTIONS.items():
        needed = _needed(consumer, [item for item in failed if item["consumer"] == consumer])
        if (struck := _calls_struck(_strikes(function, faults))) < needed:
            yield f"failed events of {consumer}: they take {needed} faults, but {function} was struck {struck} times"


def is_given_up(item: Item) -> bool:
    """Returns whether a failed event is not, or no longer, retried automatically."""
    return item["status"] == "PARKED" or (item["status"] == "NEW" and item["reason"] in NOT_RETRIED)


def _retry_violations(redriven: Iterable[Item]) -> Iterator[str]:
    """Finds failed events that were parked before all of their automatic retries.

    An event that failed again after it was recorded, or that cannot be redriven, is not retried.
    """
    for item in redriven:
        is_due = item["status"] == "PARKED" and "payload" in item and item["failures"] == 1
        if is_due and item["attempts"] < AUTOMATIC_RETRIES:
            yield f"failed event {item['id']}: parked after {item['attempts']} of {AUTOMATIC_RETRIES} automatic retries"


def _needed(consumer: str, failed: Iterable[Item]) -> int:
    """Returns the minimum number of faults that explain these failures.

    One fault can fail a batch of messages, but not two invocations.
    EmailFunction is an exception: a concurrent copy of an event fails while another invocation holds its lock.
    """
    kinds: Counter[str] = Counter()
    for item in failed:
        kinds[item["kind"]] += int(item["failures"])
    each = 1 if consumer == "email" else LEAST_STRIKES["INVOCATION"]
    return kinds["INVOCATION"] * each + (LEAST_STRIKES["QUEUE"] if kinds["QUEUE"] else 0)


def _strikes(function: str | None, faults: Iterable[Item]) -> list[Item]:
    """Returns the faults that struck a function or one of its calls."""
    return [fault for fault in faults if function is not None and function in (fault.get("function"), fault.get("by"))]


def _calls_struck(strikes: Sequence[Item]) -> int:
    """Returns the number of struck invocations and calls; all attempts of a call count as one."""
    return len({strike.get("call_id", number) for number, strike in enumerate(strikes)})


def _explains(reason: str, fault: Item) -> bool:
    if reason in REASONS:
        return fault["kind"] in REASONS[reason]
    return reason in ANY_FAULT or (reason in FAILED_CALLS and "call" in fault)


# ------------------------------------------------------------------------------------------------ the faults


def struck(faults: Iterable[Item]) -> Counter[tuple[str, str]]:
    """Returns the number of strikes by target (`function`, `rule`, … or the called service) and kind of fault."""
    return Counter((_struck_thing(fault), _kind(fault)) for fault in faults)


def _kind(fault: Item) -> str:
    return f"persistent {fault['kind']}" if fault.get("persistent") else str(fault["kind"])


def _struck_thing(fault: Item) -> str:
    if "call" in fault:
        return str(fault["call"]).partition(".")[0]
    return next(name for name in ("function", "rule", "queue", "stream") if name in fault)
