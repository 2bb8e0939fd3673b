"""The rules of sales: what a time's figures add up to, and how a day's are told. No input, no output."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date

from analytics.facts import Figures, Kind, Tally


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
