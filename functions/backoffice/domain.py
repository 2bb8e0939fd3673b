"""The rules of the figures: which days are asked for, and how they are shown. No input, no output."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from typing import Any

from analytics.domain import Figures, by_promotion, total

MAX_DAYS = 366
DEFAULT_DAYS = 7


class MalformedRange(Exception):
    """Days that cannot be asked for; the text says why."""


@dataclass(frozen=True)
class Range:
    """Days from the first to the last, both included."""

    first: date
    last: date


def range_of(first: str | None, last: str | None, today: date) -> Range:
    """The days that are asked for.

    Args:
        first: the first day as `2026-11-21`; without it, the last one is the seventh.
        last: the last day; without it, today.
        today: in UTC.

    Raises:
        MalformedRange: saying what is wrong with them.
    """
    end = today if last is None else _day("to", last)
    # There is no day before the first of year 1
    begin = date.fromordinal(max(end.toordinal() - DEFAULT_DAYS + 1, 1)) if first is None else _day("from", first)
    if begin > end:
        raise MalformedRange(f"from {begin} comes after to {end}")
    if (end - begin).days >= MAX_DAYS:
        raise MalformedRange(f"from {begin} to {end} are more than {MAX_DAYS} days")
    return Range(begin, end)


def _day(name: str, text: str) -> date:
    try:
        day = date.fromisoformat(text)
    except ValueError as error:
        raise MalformedRange(f"{name} is no day: write it as 2026-11-21") from error
    if day.isoformat() != text:
        raise MalformedRange(f"{name} is not written as 2026-11-21")
    return day


def sales(figures: Iterable[Figures]) -> dict[str, Any]:
    """What was sold and taken back, per day and promotion and in all."""
    sold = [entry for entry in figures if entry.confirmed.orders or entry.cancelled.orders]
    totals = total(sold)
    return {
        "totals": {name: vars(getattr(totals, name)) for name in ("confirmed", "cancelled", "net")},
        "items": [_sale(entry) for entry in sold],
    }


def _sale(entry: Figures) -> dict[str, Any]:
    promotion = {} if entry.promotion is None else {"promotionCode": entry.promotion}
    return {
        "day": entry.day.isoformat(),
        **promotion,
        "confirmed": vars(entry.confirmed),
        "cancelled": vars(entry.cancelled),
    }


def promotions(figures: Iterable[Figures]) -> list[dict[str, Any]]:
    """What was ordered, sold and taken back under each promotion code, sorted by code."""
    return [
        {"promotionCode": code, **{kind: vars(tally) for kind, tally in tallies.items()}}
        for code, tallies in by_promotion(figures).items()
    ]
