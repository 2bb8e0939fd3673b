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
class Fact:
    """What one event counts for.

    Args:
        event_id: identifies the fact, which is counted once.
        day: the day of the event, in UTC.
        promotion: the promotion code of the order, if any.
        kind: what happened to the order.
        tally: one order, with its quantities and its total.
    """

    event_id: str
    day: date
    promotion: str | None
    kind: Kind
    tally: Tally

    @property
    def counter(self) -> Counter:
        """The counter that it adds to."""
        return self.day, self.promotion


@dataclass(frozen=True)
class Figures:
    """The counter of one day and promotion."""

    day: date
    promotion: str | None
    placed: Tally
    confirmed: Tally
    cancelled: Tally


def fact_of(event: Mapping[str, Any]) -> Fact | None:
    """Returns what an event counts for, or None if it is not counted.

    Not counted are other types of events, an order placed without a promotion, and an order cancelled before it was
    confirmed, because it was never a sale.

    Args:
        event: an EventBridge event, with Decimals.

    Raises:
        Exception: of any type, if the event does not follow the contract. DynamoDB would reject its values, and the
            other facts in the same transaction with them.
    """
    kind = KINDS.get(event["detail-type"])
    if kind is None:
        return None
    detail = event["detail"]
    metadata = detail["metadata"]
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


@dataclass(frozen=True)
class Sales:
    """Confirmed orders, and those of them that were cancelled."""

    confirmed: Tally
    cancelled: Tally

    @property
    def net(self) -> Tally:
        """Confirmed minus cancelled."""
        return self.confirmed - self.cancelled


def total(figures: Iterable[Figures]) -> Sales:
    """Returns the sales of all days and promotions together."""
    entries = list(figures)
    return Sales(
        sum((entry.confirmed for entry in entries), Tally()),
        sum((entry.cancelled for entry in entries), Tally()),
    )


def by_promotion(figures: Iterable[Figures]) -> dict[str, Mapping[Kind, Tally]]:
    """Returns the sums of each promotion code, by kind, sorted by code."""
    sums: dict[str, dict[Kind, Tally]] = defaultdict(lambda: dict.fromkeys(Kind, Tally()))
    for entry in figures:
        if entry.promotion is not None:
            for kind in Kind:
                sums[entry.promotion][kind] += getattr(entry, kind)
    return dict(sorted(sums.items()))


def report_subject(day: date) -> str:
    """Returns the subject of a day's report."""
    return f"Sales report {day}"


def report_text(day: date, figures: Iterable[Figures]) -> str:
    """Returns the text of a day's report. It contains no personal data."""
    entries = list(figures)
    sales = total(entries)
    promotions = [
        f"  {code}: {', '.join(f'{tally.orders} {kind}' for kind, tally in tallies.items())}, net "
        f"{_money(Sales(tallies[Kind.CONFIRMED], tallies[Kind.CANCELLED]).net)}"
        for code, tallies in by_promotion(entries).items()
    ]
    return "\n".join(
        (
            f"Sales of {day}, in UTC",
            "",
            f"Confirmed: {_line(sales.confirmed)}",
            f"Cancelled: {_line(sales.cancelled)}",
            f"Net:       {_line(sales.net)}",
            "",
            "Promotions:",
            *(promotions or ["  none"]),
        )
    )


def _line(tally: Tally) -> str:
    return f"{tally.orders} orders, {tally.items} pieces, {_money(tally)}"


def _money(tally: Tally) -> str:
    return f"{tally.revenue:,.2f}"
