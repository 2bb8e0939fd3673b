"""The rules of the figures: what an event counts for, and what is counted together. No input, no output."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import StrEnum
from operator import index
from typing import Any, TypeAlias

MAX_FACTS = 90
"""Facts in one transaction; the other operations are for the counters of so many days and promotions."""
MAX_OPERATIONS = 100
"""Operations in one transaction (DynamoDB API reference, TransactWriteItems)."""

MAX_BYTES = 1000
"""Of an id or a code: a sort key has 1024 bytes at most (DynamoDB developer guide, "Constraints")."""
MAX_NUMBER = 10**12
"""Above the largest total of an order (`orders.domain.MAX_TOTAL`). Sums of such numbers fit DynamoDB's 38 digits."""


class Kind(StrEnum):
    """What became of an order, as far as it is counted."""

    PLACED = "placed"
    CONFIRMED = "confirmed"
    CANCELLED = "cancelled"


KINDS = {"Order Placed": Kind.PLACED, "Order Confirmed": Kind.CONFIRMED, "Order Cancelled": Kind.CANCELLED}

Counter: TypeAlias = tuple[date, str | None]
"""A counter's day and promotion."""


@dataclass(frozen=True)
class Tally:
    """So many orders, with so many pieces for so much money."""

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
        event_id: the event's; a fact is counted once.
        day: when it happened, in UTC.
        promotion: the order's promotion code, or None.
        kind: what became of the order.
        tally: one order, with its items and its total.
    """

    event_id: str
    day: date
    promotion: str | None
    kind: Kind
    tally: Tally

    @property
    def counter(self) -> Counter:
        """Where it is counted."""
        return self.day, self.promotion


@dataclass(frozen=True)
class Figures:
    """What was counted for one day and promotion; the promotion is None for orders without one."""

    day: date
    promotion: str | None
    placed: Tally
    confirmed: Tally
    cancelled: Tally


def fact_of(event: Mapping[str, Any]) -> Fact | None:
    """What an event counts for.

    Args:
        event: as the bus delivers it, with Decimals.

    Returns:
        The fact, or None if there is nothing to count: another type of event; an order placed without a promotion
        (orders are counted when they are sold); an order cancelled before it was confirmed, which never was a sale.

    Raises:
        Exception: whatever reading an event that no service of ours can have published leads to. Nothing is let
            through that DynamoDB would refuse, as it would refuse the whole transaction.
    """
    kind = KINDS.get(event["detail-type"])
    if kind is None:
        return None
    detail = event["detail"]
    metadata = detail["metadata"]
    promotion = _text(metadata["promotionCode"]) if "promotionCode" in metadata else None
    if kind is Kind.PLACED and promotion is None:
        return None
    if kind is Kind.CANCELLED and metadata["sequence"] <= 2:  # placed, cancelled; a sale was confirmed in between
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
        raise ValueError("a text of no or too many bytes")
    return value


def _number(value: int | Decimal) -> Decimal:
    number = round(Decimal(value), 2)
    if number != value or not 0 <= number < MAX_NUMBER:
        raise ValueError("a number that is negative, too large or too fine")
    return number


def totals(facts: Iterable[Fact]) -> dict[Counter, dict[Kind, Tally]]:
    """The sums of facts, by counter and kind; only those that there are."""
    sums: dict[Counter, dict[Kind, Tally]] = defaultdict(dict)
    for fact in facts:
        of_counter = sums[fact.counter]
        of_counter[fact.kind] = of_counter.get(fact.kind, Tally()) + fact.tally
    return sums


def chunks(facts: Iterable[Fact]) -> Iterator[list[Fact]]:
    """The facts in as few transactions as the limits allow, in their order."""
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
    """Every month with a day from `first` to `last`, such as `2026-11`."""
    for number in range(first.year * 12 + first.month - 1, last.year * 12 + last.month):
        yield f"{number // 12:04}-{number % 12 + 1:02}"


@dataclass(frozen=True)
class Sales:
    """What was confirmed, and what was cancelled after that."""

    confirmed: Tally
    cancelled: Tally

    @property
    def net(self) -> Tally:
        """What was confirmed less what was taken back."""
        return self.confirmed - self.cancelled


def total(figures: Iterable[Figures]) -> Sales:
    """The sales of all days and promotions together."""
    entries = list(figures)
    return Sales(
        sum((entry.confirmed for entry in entries), Tally()),
        sum((entry.cancelled for entry in entries), Tally()),
    )


def by_promotion(figures: Iterable[Figures]) -> dict[str, Mapping[Kind, Tally]]:
    """What was ordered, sold and taken back under each promotion code, sorted by code."""
    sums: dict[str, dict[Kind, Tally]] = defaultdict(lambda: dict.fromkeys(Kind, Tally()))
    for entry in figures:
        if entry.promotion is not None:
            for kind in Kind:
                sums[entry.promotion][kind] += getattr(entry, kind)
    return dict(sorted(sums.items()))


def subject(day: date) -> str:
    """A day's report in a line."""
    return f"Sales report {day}"


def text(day: date, figures: Iterable[Figures]) -> str:
    """A day's report: what was sold and taken back, and how each promotion did. Nobody's data is in it."""
    entries = list(figures)
    sold = total(entries)
    promotions = [
        f"  {code}: {', '.join(f'{tally.orders} {kind}' for kind, tally in tallies.items())}, net "
        f"{_money(Sales(tallies[Kind.CONFIRMED], tallies[Kind.CANCELLED]).net)}"
        for code, tallies in by_promotion(entries).items()
    ]
    return "\n".join(
        (
            f"Sales of {day}, in UTC",
            "",
            f"Confirmed: {_line(sold.confirmed)}",
            f"Cancelled: {_line(sold.cancelled)}",
            f"Net:       {_line(sold.net)}",
            "",
            "Promotions:",
            *(promotions or ["  none"]),
        )
    )


def _line(tally: Tally) -> str:
    return f"{tally.orders} orders, {tally.items} pieces, {_money(tally)}"


def _money(tally: Tally) -> str:
    return f"{tally.revenue:,.2f}"
