"""Rules of the sales figures: what an event counts for, how facts are summed, and the text of the daily report."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import StrEnum
from operator import index
from typing import Any, TypeAlias

MAX_FACTS = 90
"""Facts per transaction. The remaining operations update the counters, one per day and promotion."""
MAX_OPERATIONS = 100
"""Operations per transaction (DynamoDB API reference, TransactWriteItems)."""

MAX_BYTES = 1000
"""Of an event id or a promotion code: a sort key has at most 1024 bytes (DynamoDB developer guide, "Constraints")."""
MAX_NUMBER = 10**12
"""Exceeds the largest total of an order (`orders.domain.MAX_TOTAL`). Sums of such numbers fit DynamoDB's 38 digits."""


class Kind(StrEnum):
    """What happened to an order."""

    PLACED = "placed"
    CONFIRMED = "confirmed"
    CANCELLED = "cancelled"


KINDS = {"Order Placed": Kind.PLACED, "Order Confirmed": Kind.CONFIRMED, "Order Cancelled": Kind.CANCELLED}

Counter: TypeAlias = tuple[date, str | None]
"""The key of a counter: a day and a promotion code, or None for orders without one."""


@dataclass(frozen=True)
class Tally:
    """A number of orders, and the sums of their quantities and totals."""

    orders: int = 0
    items: int = 0
    revenue: Decimal = Decimal(0)

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(self.orders + other.orders, self.items + other.items, self.revenue + other.revenue)

    def __sub__(self, other: "Tally") -> "Tally":
        return Tally(self.orders - other.orders, self.items - other.items, self.revenue - other.revenue)


@dataclass(frozen=True)
class Sales:
    """Orders by what happened to them. Only orders that had been confirmed before count as cancelled."""

    placed: Tally = Tally()
    confirmed: Tally = Tally()
    cancelled: Tally = Tally()

    @property
    def net(self) -> Tally:
        """Confirmed minus cancelled."""
        return self.confirmed - self.cancelled

    def __add__(self, other: "Sales") -> "Sales":
        return Sales(self.placed + other.placed, self.confirmed + other.confirmed, self.cancelled + other.cancelled)


@dataclass(frozen=True, kw_only=True)
class Figures(Sales):
    """The sales of one day and promotion code, or of the orders without a code."""

    day: date
    promotion: str | None


@dataclass(frozen=True)
class Fact:
    """What one event counts for: one order, on a day in UTC, under the order's promotion code, if any."""

    event_id: str
    day: date
    promotion: str | None
    kind: Kind
    tally: Tally

    @property
    def counter(self) -> Counter:
        """The counter that the fact adds to."""
        return self.day, self.promotion


def fact_of(event: Mapping[str, Any]) -> Fact | None:
    """Returns what an event counts for, or None if it is not counted.

    Not counted are other types of events, an order placed without a promotion, and an order cancelled before it was
    confirmed, because it was never a sale.

    Args:
        event: an EventBridge event, with Decimals. If it does not follow the contract, any exception can be raised:
            DynamoDB would reject its values, and the other facts in the same transaction with them.
    """
    kind = KINDS.get(event["detail-type"])
    if kind is None:
        return None
    detail, metadata = event["detail"], event["detail"]["metadata"]
    promotion = _text(metadata["promotionCode"]) if "promotionCode" in metadata else None
    if kind is Kind.PLACED and promotion is None:
        return None
    if kind is Kind.CANCELLED and metadata["sequence"] <= 2:  # a confirmation comes between 1, placed, and 3
        return None
    items = sum(index(item["quantity"]) for item in detail["items"])
    return Fact(
        event_id=_text(metadata["eventId"]),
        day=datetime.fromisoformat(metadata["timestamp"]).astimezone(UTC).date(),
        promotion=promotion,
        kind=kind,
        tally=Tally(1, int(_number(items)), _number(detail["totalAmount"])),
    )


def _text(value: str) -> str:
    if not 0 < len(value.encode()) <= MAX_BYTES:
        raise ValueError(f"the text is empty or has more than {MAX_BYTES} bytes")
    return value


def _number(value: int | Decimal) -> Decimal:
    number = round(Decimal(value), 2)
    if number != value or not 0 <= number < MAX_NUMBER:
        raise ValueError("the number is negative, too large or has more than two decimals")
    return number


def sum_by_counter(facts: Iterable[Fact]) -> dict[Counter, dict[Kind, Tally]]:
    """Returns the sums of facts, by counter and kind. A kind without facts is left out."""
    sums: dict[Counter, dict[Kind, Tally]] = defaultdict(dict)
    for fact in facts:
        by_kind = sums[fact.counter]
        by_kind[fact.kind] = by_kind.get(fact.kind, Tally()) + fact.tally
    return sums


def chunks(facts: Iterable[Fact]) -> Iterator[list[Fact]]:
    """Splits facts, in their order, into chunks that each fit into one transaction."""
    chunk: list[Fact] = []
    counters: set[Counter] = set()
    for fact in facts:
        operations = len(chunk) + 1 + len(counters | {fact.counter})
        if len(chunk) == MAX_FACTS or operations > MAX_OPERATIONS:
            yield chunk
            chunk, counters = [], set()
        chunk.append(fact)
        counters.add(fact.counter)
    if chunk:
        yield chunk


def months(first: date, last: date) -> Iterator[str]:
    """Returns the months from the first to the last day, such as `2026-11`."""
    for number in range(first.year * 12 + first.month - 1, last.year * 12 + last.month):
        yield f"{number // 12:04}-{number % 12 + 1:02}"


def by_promotion(figures: Iterable[Figures]) -> dict[str, Sales]:
    """Returns the sums of each promotion code, sorted by code."""
    sums: dict[str, Sales] = defaultdict(Sales)
    for entry in figures:
        if entry.promotion is not None:
            sums[entry.promotion] += entry
    return dict(sorted(sums.items()))


def report_text(day: date, figures: Iterable[Figures]) -> str:
    """Returns the text of a day's report. It contains no personal data."""
    entries = list(figures)
    total = sum(entries, Sales())
    promotions = "\n".join(f"  {code}: {_by_kind(sales)}" for code, sales in by_promotion(entries).items())
    return f"""\
Sales of {day}, in UTC

Confirmed: {_line(total.confirmed)}
Cancelled: {_line(total.cancelled)}
Net:       {_line(total.net)}

Promotions:
{promotions or "  none"}"""


def _by_kind(sales: Sales) -> str:
    numbers = f"{sales.placed.orders} placed, {sales.confirmed.orders} confirmed, {sales.cancelled.orders} cancelled"
    return f"{numbers}, net {sales.net.revenue:,.2f}"


def _line(tally: Tally) -> str:
    return f"{tally.orders} orders, {tally.items} pieces, {tally.revenue:,.2f}"
