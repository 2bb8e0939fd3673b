"""Replays a file of real invoices as orders on a stack of its own, measures it, and checks the books.

The file has the columns of the UCI "Online Retail" data set (doi:10.24432/C5BW33): InvoiceNo, StockCode, Description,
Quantity, InvoiceDate, UnitPrice, CustomerID, Country.
"""

import argparse
import csv
import itertools
import json
import math
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation
from pathlib import Path
from typing import Any

import urllib3
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from tools import books
from tools.http import Answer, Api
from tools.own_stack import StackDidNotStart, local_stack_of_own
from tools.seed import read_seed, seed
from tools.stack import Stack

# ------------------------------------------------------------------------------------ from rows to orders

COLUMNS = ("InvoiceNo", "StockCode", "Description", "Quantity", "InvoiceDate", "UnitPrice", "CustomerID", "Country")
MAX_PRODUCTS = 90
MAX_QUANTITY = 10_000
PRODUCT_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
NOT_PRODUCTS = frozenset({"POST", "DOT", "C2", "M", "D", "S", "B", "CRUK", "AMAZONFEE", "BANK CHARGES"})
"""The data set's codes for postage, carriage, discounts, samples, manual entries, debts and fees."""
SHORT_EVERY = 50
"""Each so-manieth product has half of what is asked for, so that some orders find it out of stock."""
DATES = ("%Y-%m-%d %H:%M:%S", "%m/%d/%Y %H:%M")

Row = Mapping[str, str | None]


class BadFile(Exception):
    """There is nothing to replay; the message says why."""


class NotAnOrder(Exception):
    """What keeps a line from being part of an order or of a cancellation."""


@dataclass(frozen=True)
class Line:
    """A line of the file that makes sense by itself."""

    invoice: str
    customer: str
    product: str
    name: str
    quantity: int
    price: Decimal
    time: datetime


@dataclass(frozen=True)
class NewOrder:
    """An invoice as an order: how many of which product, from so many lines."""

    invoice: str
    customer: str
    time: datetime
    items: Mapping[str, int]
    lines: int


@dataclass(frozen=True)
class Cancellation:
    """An invoice that cancels the order of an earlier one."""

    invoice: str
    cancels: str
    time: datetime
    lines: int


Step = NewOrder | Cancellation


@dataclass(frozen=True)
class Plan:
    """What becomes of a file.

    Args:
        steps: the orders and cancellations, in the order of their times.
        products: each with productId, name, price and stock, for `tools.seed`.
        reasons: why lines are in no step, and how many for each reason.
    """

    steps: Sequence[Step]
    products: Sequence[dict[str, Any]]
    reasons: Mapping[str, int]


def plan(rows: Iterable[Row]) -> Plan:
    """Decide what becomes of each row; none is dropped without a reason.

    Args:
        rows: the file's, by the names of the columns.
    """
    reasons: Counter[str] = Counter()
    invoices: dict[str, list[Line]] = {}
    for row in rows:
        try:
            line = read_line(row)
        except NotAnOrder as reason:
            reasons[str(reason)] += 1
        else:
            invoices.setdefault(line.invoice, []).append(line)
    kept = [lines for all_lines in invoices.values() if (lines := _acceptable(all_lines, reasons))]
    steps = _steps(sorted(kept, key=lambda lines: lines[0].time), reasons)
    lines = [line for lines in kept for line in lines]
    return Plan(steps, _products(lines, steps), reasons)


def read_line(row: Row) -> Line:
    """One row's values.

    Raises:
        NotAnOrder: with the reason.
    """
    text = {name: (row.get(name) or "").strip() for name in COLUMNS}
    invoice, customer, product = text["InvoiceNo"], text["CustomerID"].removesuffix(".0"), text["StockCode"]
    if not invoice:
        raise NotAnOrder("no invoice number")
    if not customer:
        raise NotAnOrder("no customer")
    if product.upper() in NOT_PRODUCTS or not PRODUCT_ID.fullmatch(product):
        raise NotAnOrder("not a product's code")
    quantity, price, moment = _quantity(text["Quantity"]), _price(text["UnitPrice"]), _time(text["InvoiceDate"])
    if _cancels(invoice):
        if quantity >= 0:
            raise NotAnOrder("cancellation without a negative quantity")
    elif quantity <= 0:
        raise NotAnOrder("quantity 0 or below, and no cancellation")
    if price <= 0:
        raise NotAnOrder("price 0 or below")
    return Line(invoice, customer, product, text["Description"] or product, quantity, price, moment)


def _cancels(invoice: str) -> bool:
    return invoice.upper().startswith("C")


def _quantity(text: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise NotAnOrder("unreadable quantity") from error


def _price(text: str) -> Decimal:
    try:
        price = Decimal(text).quantize(Decimal("0.01"), ROUND_HALF_UP)
    except InvalidOperation as error:
        raise NotAnOrder("unreadable price") from error
    if price.is_nan():
        raise NotAnOrder("unreadable price")
    return price


def _time(text: str) -> datetime:
    for form in DATES:
        try:
            return datetime.strptime(text, form).replace(tzinfo=UTC)
        except ValueError:
            continue  # perhaps the other form
    raise NotAnOrder("unreadable date")


def _acceptable(lines: Sequence[Line], reasons: Counter[str]) -> list[Line]:
    """The lines of an invoice that the API takes together."""
    own = [line for line in lines if line.customer == lines[0].customer]
    _refuse(len(lines) - len(own), "another customer on the same invoice", reasons)
    asked = _items(own)
    few = [line for line in own if abs(asked[line.product]) <= MAX_QUANTITY]
    _refuse(len(own) - len(few), f"quantity over {MAX_QUANTITY:,}", reasons)
    if len(_items(few)) > MAX_PRODUCTS:
        _refuse(len(few), f"more than {MAX_PRODUCTS} products on an invoice", reasons)
        return []
    return few


def _refuse(lines: int, reason: str, reasons: Counter[str]) -> None:
    if lines:
        reasons[reason] += lines


def _items(lines: Iterable[Line]) -> dict[str, int]:
    items: Counter[str] = Counter()
    for line in lines:
        items[line.product] += line.quantity
    return dict(items)


def _steps(invoices: Iterable[Sequence[Line]], reasons: Counter[str]) -> list[Step]:
    """Orders and cancellations. A cancellation names no order, so it is of the customer's latest that fits."""
    steps: list[Step] = []
    open_orders: dict[str, list[NewOrder]] = {}
    for lines in invoices:
        first, items = lines[0], _items(lines)
        of_customer = open_orders.setdefault(first.customer, [])
        if not _cancels(first.invoice):
            order = NewOrder(first.invoice, first.customer, first.time, items, len(lines))
            of_customer.append(order)
            steps.append(order)
            continue
        fitting = next((order for order in reversed(of_customer) if items.keys() <= order.items.keys()), None)
        if fitting is None:
            _refuse(len(lines), "cancellation without an earlier order", reasons)
            continue
        of_customer.remove(fitting)
        steps.append(Cancellation(first.invoice, fitting.invoice, first.time, len(lines)))
    return steps


def _products(lines: Iterable[Line], steps: Iterable[Step]) -> list[dict[str, Any]]:
    """The products that are ordered, each at its first price and with as much stock as is asked for, or half of it."""
    demand: Counter[str] = Counter()
    for step in steps:
        if isinstance(step, NewOrder):
            demand.update(step.items)
    first: dict[str, Line] = {}
    for line in lines:
        first.setdefault(line.product, line)
    return [
        {
            "productId": product,
            "name": first[product].name,
            "price": first[product].price,
            "stock": demand[product] // 2 if number % SHORT_EVERY == 0 else demand[product],
        }
        for number, product in enumerate(sorted(demand), 1)
    ]


def read_rows(path: Path, limit: int | None) -> Iterator[Row]:
    """The file's rows; with a limit, those of its first so many invoices.

    Raises:
        BadFile: it cannot be read, or lacks a column.
    """
    try:
        # Exports of the data set differ in their encoding, and only descriptions have letters beyond ASCII
        with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
            reader = csv.DictReader(file)
            missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
            if missing:
                raise BadFile(f"{path} lacks the columns {', '.join(missing)}")
            invoices = itertools.groupby(reader, key=lambda row: row["InvoiceNo"])
            for _, rows in itertools.islice(invoices, limit):
                yield from rows
    except OSError as error:
        raise BadFile(f"{path}: {error.strerror}") from error


# ----------------------------------------------------------------------------------------------- the replay

ADDRESS = {"street": "1 High Street", "city": "London", "state": "London", "zipCode": "N1 1AA", "country": "GB"}


@dataclass(frozen=True)
class Sent:
    """What became of a request.

    Args:
        answer: the status, or what kept it from being answered.
        order_id: the order that was placed or cancelled; None if it was not.
        at: when it was sent, in seconds since the epoch.
        seconds: how long the answer took.
    """

    answer: str
    order_id: str | None
    at: float
    seconds: float


def replay(
    api: Api, steps: Sequence[Step], concurrency: int, speed: float | None, on_answer: Callable[[], None]
) -> dict[str, Sent]:
    """Send the orders and cancellations.

    Args:
        api: where to.
        steps: in the order of their times.
        concurrency: the most requests at a time.
        speed: how many times faster than in the file; None for as fast as it goes.
        on_answer: called after each.

    Returns:
        What became of each, by invoice.
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
    """Cancel an order once it is placed: its request was queued before this one, so it ends without this thread."""
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
    """`201`, or `409 not-cancellable`."""
    return f"{answer.status} {str(answer.body.get('type', '')).rpartition('/')[2]}".strip()


# ------------------------------------------------------------------------------------------ the events after it

QUIET_SECONDS = 30
"""Orders that have not come to an end after so long without any event never will."""
SETTLED = frozenset({"Order Confirmed", "Order Rejected", "Order Cancelled"})


class Progression:
    """How far orders have come, by the events on the bus.

    Args:
        orders: those that were placed.
        cancelled: those of them whose cancellation was accepted.
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
        """Take in what was on the bus."""
        for event in events:
            self.events.append(event)
            self._seen.setdefault(event["detail"]["orderId"], set()).add(event["detail-type"])

    @property
    def ended(self) -> int:
        """How many orders have had their last event."""
        return sum(any(last <= self._seen[order] for last in ends) for order, ends in self._last.items())

    def settled_at(self) -> dict[str, tuple[str, float]]:
        """By order: the first event that settled it, and when that was made, in seconds since the epoch."""
        settled: dict[str, tuple[str, float]] = {}
        for event in self.events:
            if event["detail-type"] in SETTLED:
                moment = datetime.fromisoformat(event["detail"]["metadata"]["timestamp"]).timestamp()
                found = settled.get(event["detail"]["orderId"])
                if found is None or moment < found[1]:
                    settled[event["detail"]["orderId"]] = (event["detail-type"], moment)
        return settled


def follow(record: books.BusRecord, progression: Progression, orders: int, on_ended: Callable[[int], None]) -> None:
    """Read the bus's record until every order has had its last event, or nothing happens any more."""
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
    """The nearest-rank percentile.

    Args:
        values: at least one.
        share: above 0, at most 1.
    """
    return sorted(values)[math.ceil(share * len(values)) - 1]


def rates(begun: float, moments: Iterable[float]) -> tuple[float, float, float]:
    """How many per second there were.

    Args:
        begun: when it all began.
        moments: when each came; two at least.

    Returns:
        The rate of all, of the first half and of the second half of them.
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
    table = Table("what", "which", "how many", title="Counts")
    table.columns[2].justify = "right"
    counts: dict[str, Mapping[str, int]] = {
        "lines of the file": {"in orders and cancellations": sum(step.lines for step in plan_.steps)},
        "lines left out": plan_.reasons,
        "orders by answer": Counter(places),
        "cancellations by answer": Counter(cancels),
        "orders by outcome": Counter(str(order["status"]) for order in orders),
    }
    for what, by_which in counts.items():
        for which, number in sorted(by_which.items()):
            table.add_row(what, which, f"{number:,}")
    Console().print(table)


# ----------------------------------------------------------------------------------------------- the command


def run(plan_: Plan, stack: Stack, concurrency: int, speed: float | None) -> int:
    """Replay a plan on a fresh stack, and print what came of it.

    Returns:
        The exit code: 0, or 1 if the books don't balance.
    """
    seed(stack, plan_.products)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns) as progress:
        sending = progress.add_task("requests sent", total=len(plan_.steps))
        sent = replay(Api(stack, concurrency), plan_.steps, concurrency, speed, lambda: progress.advance(sending))
        placed = {sent[step.invoice].order_id for step in plan_.steps if isinstance(step, NewOrder)} - {None}
        cancelled = {sent[step.invoice].order_id for step in plan_.steps if isinstance(step, Cancellation)} - {None}
        progression = Progression(map(str, placed), map(str, cancelled))
        settling = progress.add_task("orders at their end", total=len(placed))
        follow(books.BusRecord(stack), progression, len(placed), lambda done: progress.update(settling, completed=done))
    orders, inventory = books.read_tables(stack)
    _print_results(plan_, sent, progression.settled_at())
    _print_counts(plan_, sent, orders)
    stored = {order["orderId"] for order in orders}
    lost = [f"order {order_id}: accepted, but not stored" for order_id in sorted(map(str, placed - stored))]
    initial = {product["productId"]: product["stock"] for product in [*plan_.products, *read_seed()]}
    differences = books.check(orders, inventory, progression.events, initial)
    return books.report([*lost, *differences], len(orders), len(progression.events))


def _positive(kind: Callable[[str], Any]) -> Callable[[str], Any]:
    def number(text: str) -> Any:
        value = kind(text)
        if not 0 < value < math.inf:
            raise argparse.ArgumentTypeError(f"{text} is not above 0")
        return value

    return number


def main(arguments: list[str] | None = None) -> int:
    """`python -m tools.load FILE.csv [--speed N] [--limit N] [--concurrency N]`."""
    parser = argparse.ArgumentParser(prog="python -m tools.load", description=__doc__)
    parser.add_argument("file", type=Path, help="a CSV file")
    parser.add_argument("--speed", type=_positive(float), help="times faster than in the file; default: at full speed")
    parser.add_argument("--limit", type=_positive(int), help="only so many invoices")
    parser.add_argument("--concurrency", type=_positive(int), default=8, help="requests at a time; default: 8")
    options = parser.parse_args(arguments)
    try:
        planned = plan(read_rows(options.file, options.limit))
        if not planned.steps:
            raise BadFile(f"{options.file} has no order: {dict(planned.reasons)}")
        with local_stack_of_own() as stack:
            return run(planned, stack, options.concurrency, options.speed)
    except (BadFile, StackDidNotStart) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130  # as a shell counts a command that Ctrl-C has ended


if __name__ == "__main__":
    sys.exit(main())
