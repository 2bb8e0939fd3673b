"""Places the invoices of a file as orders on a temporary local stack, measures latencies, and checks the outcome."""

import argparse
import json
import math
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import urllib3
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from bench.retail import BadFile, Cancellation, NewOrder, Plan, Step, plan, read_rows
from tools import reconcile
from tools.arguments import Parser
from tools.errors import one_line_errors
from tools.http import Answer, Api
from tools.own_stack import local_stack_of_own
from tools.seed import read_seed, seed
from tools.stack import Stack

ADDRESS = {"street": "1 High Street", "city": "London", "state": "London", "zipCode": "N1 1AA", "country": "GB"}


@dataclass(frozen=True)
class Sent:
    """A request and its response.

    Args:
        answer: the HTTP status and problem type, or the reason why there was no response.
        order_id: the order that was placed or cancelled; None if the request failed.
        at: when the request was sent, in seconds since the epoch.
        seconds: the latency.
    """

    answer: str
    order_id: str | None
    at: float
    seconds: float


def replay(
    api: Api, steps: Sequence[Step], concurrency: int, speed: float | None, on_answer: Callable[[], None]
) -> dict[str, Sent]:
    """Sends the orders and cancellations, and returns their requests by invoice.

    Args:
        api: the API.
        steps: sorted by time.
        concurrency: the maximum number of concurrent requests.
        speed: how many times faster than in the file; None for maximum speed.
        on_answer: called after each response.
    """
    requests: dict[str, Future[Sent]] = {}
    begun = time.monotonic()
    pool = ThreadPoolExecutor(concurrency)
    try:
        for step in steps:
            if speed is not None:
                due = begun + (step.time - steps[0].time).total_seconds() / speed
                time.sleep(max(0.0, due - time.monotonic()))
            if isinstance(step, NewOrder):
                requests[step.invoice] = pool.submit(_place, api, step)
            else:
                requests[step.invoice] = pool.submit(_cancel, api, requests[step.cancels])
            requests[step.invoice].add_done_callback(lambda _: on_answer())
        return {invoice: request.result() for invoice, request in requests.items()}
    finally:
        pool.shutdown(cancel_futures=True)


def _place(api: Api, order: NewOrder) -> Sent:
    customer = f"customer-{order.customer}"
    body = {
        "items": [{"productId": product, "quantity": quantity} for product, quantity in order.items.items()],
        "shippingAddress": ADDRESS,
        "source": "api",
        "customerId": customer,
        "customerEmail": f"{customer}@example.com",
    }
    headers = {"content-type": "application/json", "idempotency-key": order.invoice}
    return _send(api, "/orders", 201, headers, json.dumps(body))


def _cancel(api: Api, placing: Future[Sent]) -> Sent:
    """Cancels an order once it is placed. Its request was queued first, so it does not need this thread to complete."""
    order_id = placing.result().order_id
    if order_id is None:
        return Sent("not sent: the order was not placed", None, 0, 0)
    return _send(api, f"/orders/{order_id}/cancellation", 202)


def _send(api: Api, path: str, success: int, headers: Mapping[str, str] | None = None, body: str | None = None) -> Sent:
    try:
        answer = api.call("POST", path, user="staff", headers=headers, body=body)
    except urllib3.exceptions.HTTPError as error:
        return Sent(f"no answer: {type(error).__name__}", None, 0, 0)
    order_id = answer.body["orderId"] if answer.status == success else None
    return Sent(_name_of(answer), order_id, answer.sent_at, answer.seconds)


def _name_of(answer: Answer) -> str:
    """Returns the status and the problem type, such as `201` or `409 not-cancellable`."""
    return f"{answer.status} {str(answer.body.get('type', '')).rpartition('/')[2]}".strip()


# ------------------------------------------------------------------------------------- the events of the orders

QUIET_SECONDS = 30
"""Without any event for so long, orders that are not settled count as lost."""
SETTLED = frozenset({"Order Confirmed", "Order Rejected", "Order Cancelled"})


class Progression:
    """The progress of orders, by the events on the bus.

    Args:
        orders: the ids of the placed orders.
        cancelled: the ids of those whose cancellation was accepted.
    """

    def __init__(self, orders: Iterable[str], cancelled: Iterable[str]) -> None:
        self._last = {order: {frozenset({"Order Confirmed"}), frozenset({"Order Rejected"})} for order in orders}
        for order in cancelled:
            self._last[order] = {
                frozenset({"Order Cancelled", released})
                for released in ("Inventory Released", "Inventory Out-Of-Stock")
            }
        self._seen: dict[str, set[str]] = {order: set() for order in self._last}
        self.events: list[dict[str, Any]] = []

    def add(self, events: Iterable[dict[str, Any]]) -> None:
        """Adds events that were on the bus."""
        for event in events:
            self.events.append(event)
            self._seen.setdefault(event["detail"]["orderId"], set()).add(event["detail-type"])

    @property
    def ended(self) -> int:
        """The number of orders whose last event was on the bus."""
        return sum(any(last <= self._seen[order] for last in ends) for order, ends in self._last.items())

    def settled_at(self) -> dict[str, tuple[str, float]]:
        """Returns the first settling event of each order, and its time in seconds since the epoch."""
        settled: dict[str, tuple[str, float]] = {}
        for event in self.events:
            if event["detail-type"] in SETTLED:
                moment = datetime.fromisoformat(event["detail"]["metadata"]["timestamp"]).timestamp()
                found = settled.get(event["detail"]["orderId"])
                if found is None or moment < found[1]:
                    settled[event["detail"]["orderId"]] = (event["detail-type"], moment)
        return settled


def follow(record: reconcile.BusRecord, progression: Progression, orders: int, on_ended: Callable[[int], None]) -> None:
    """Reads the events on the bus until each order has had its last event, or no event comes for QUIET_SECONDS."""
    deadline = time.monotonic() + QUIET_SECONDS
    while (ended := progression.ended) < orders and time.monotonic() < deadline:
        on_ended(ended)
        time.sleep(0.25)
        if new := record.new():
            progression.add(new)
            deadline = time.monotonic() + QUIET_SECONDS
    on_ended(ended)


# ----------------------------------------------------------------------------------------------- the results


def percentile(values: Sequence[float], share: float) -> float:
    """Returns the nearest-rank percentile.

    Args:
        values: at least one.
        share: greater than 0, at most 1.
    """
    return sorted(values)[math.ceil(share * len(values)) - 1]


def rates(begun: float, moments: Iterable[float]) -> tuple[float, float, float]:
    """Returns rates per second: of all moments, of the first half and of the second half.

    Args:
        begun: the start, in seconds.
        moments: at least two, in seconds.
    """
    ordered = sorted(moments)
    half = len(ordered) // 2
    middle, end = ordered[half - 1], ordered[-1]
    return len(ordered) / (end - begun), half / (middle - begun), (len(ordered) - half) / (end - middle)


def _print_results(plan_: Plan, sent: Mapping[str, Sent], settled: Mapping[str, tuple[str, float]]) -> None:
    orders = [sent[step.invoice] for step in plan_.steps if isinstance(step, NewOrder)]
    placed = {order.order_id: order for order in orders if order.order_id}
    table = Table("measure", "value", title="Load")
    table.columns[1].justify = "right"
    moments = [moment for order_id, (_, moment) in settled.items() if order_id in placed]
    if len(moments) > 1:
        overall, first, second = rates(min(order.at for order in placed.values()), moments)
        table.add_row("orders/s, from the first POST to the last outcome", f"{overall:.1f}")
        table.add_row("orders/s of the first half", f"{first:.1f}")
        table.add_row("orders/s of the second half", f"{second:.1f} ({second / first - 1:+.0%})")
    _add_latencies(table, "POST", [order.seconds for order in placed.values()])
    outcomes = [
        moment - placed[order_id].at
        for order_id, (event, moment) in settled.items()
        if order_id in placed and event != "Order Cancelled"
    ]
    _add_latencies(table, "POST to outcome", outcomes)
    Console().print(table)


def _add_latencies(table: Table, name: str, seconds: Sequence[float]) -> None:
    if seconds:
        values = " / ".join(f"{percentile(seconds, share) * 1000:.0f}" for share in (0.5, 0.95, 0.99))
        table.add_row(f"{name}, ms (p50 / p95 / p99)", values)


def _print_counts(plan_: Plan, sent: Mapping[str, Sent], orders: Iterable[Mapping[str, Any]]) -> None:
    places = [sent[step.invoice].answer for step in plan_.steps if isinstance(step, NewOrder)]
    cancels = [sent[step.invoice].answer for step in plan_.steps if isinstance(step, Cancellation)]
    table = Table("what", "which", "number", title="Counts")
    table.columns[2].justify = "right"
    counts: dict[str, Mapping[str, int]] = {
        "lines of the file": {"in orders and cancellations": sum(step.lines for step in plan_.steps)},
        "lines skipped": plan_.reasons,
        "orders by response": Counter(places),
        "cancellations by response": Counter(cancels),
        "orders by outcome": Counter(str(order["status"]) for order in orders),
    }
    for what, by_which in counts.items():
        for which, number in sorted(by_which.items()):
            table.add_row(what, which, f"{number:,}")
    Console().print(table)


# ----------------------------------------------------------------------------------------------- the command


def run(plan_: Plan, stack: Stack, concurrency: int, speed: float | None) -> int:
    """Places the orders of a plan on a new stack, and prints the results.

    Returns:
        The exit code: 0, or 1 if an order was lost or the stack is not consistent.
    """
    seed(stack, plan_.products)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns) as progress:
        sending = progress.add_task("requests sent", total=len(plan_.steps))
        sent = replay(Api(stack, concurrency), plan_.steps, concurrency, speed, lambda: progress.advance(sending))
        placed = {sent[step.invoice].order_id for step in plan_.steps if isinstance(step, NewOrder)} - {None}
        cancelled = {sent[step.invoice].order_id for step in plan_.steps if isinstance(step, Cancellation)} - {None}
        progression = Progression(map(str, placed), map(str, cancelled))
        settling = progress.add_task("orders settled", total=len(placed))
        follow(
            reconcile.BusRecord(stack), progression, len(placed), lambda done: progress.update(settling, completed=done)
        )
    orders, inventory = reconcile.read_tables(stack)
    _print_results(plan_, sent, progression.settled_at())
    _print_counts(plan_, sent, orders)
    stored = {order["orderId"] for order in orders}
    lost = [f"order {order_id}: accepted, but not stored" for order_id in sorted(map(str, placed - stored))]
    initial = {product["productId"]: product["stock"] for product in [*plan_.products, *read_seed()]}
    differences = reconcile.check(orders, inventory, progression.events, initial)
    return reconcile.report([*lost, *differences], len(orders), len(progression.events))


def _positive(kind: Callable[[str], Any]) -> Callable[[str], Any]:
    def number(text: str) -> Any:
        value = kind(text)
        if not 0 < value < math.inf:
            raise argparse.ArgumentTypeError(f"{text} is not greater than 0")
        return value

    return number


@one_line_errors
def main(arguments: list[str] | None = None) -> int:
    """`python -m bench.load FILE.csv [--speed N] [--limit N] [--concurrency N]`."""
    parser = Parser(prog="python -m bench.load", description=__doc__)
    parser.add_argument("file", type=Path, help="a CSV file")
    parser.add_argument("--speed", type=_positive(float), help="times faster than in the file; default: maximum speed")
    parser.add_argument("--limit", type=_positive(int), help="maximum number of invoices; default: all")
    parser.add_argument("--concurrency", type=_positive(int), default=8, help="concurrent requests; default: 8")
    options = parser.parse_args(arguments)
    planned = plan(read_rows(options.file, options.limit))
    if not planned.steps:
        raise BadFile(f"{options.file} has no order: {dict(planned.reasons)}")
    with local_stack_of_own() as stack:
        return run(planned, stack, options.concurrency, options.speed)


if __name__ == "__main__":
    sys.exit(main())
