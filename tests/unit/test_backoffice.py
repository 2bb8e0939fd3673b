"""The back office's report ranges, sums and request models."""

from collections.abc import Iterator
from datetime import date
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from analytics.domain import Figures, Tally
from analytics.repository import Analytics
from backoffice.domain import MAX_DAYS, MalformedRange, date_range
from backoffice.models import MAX_AVAILABLE, RedriveRequest, SetStockRequest
from backoffice.service import sales_by_day, sales_by_promotion

TODAY = date(2026, 11, 21)
NONE = Tally()


def tally(orders: int, items: int, revenue: str) -> Tally:
    return Tally(orders, items, Decimal(revenue))


tallies = st.builds(Tally, st.integers(0, 50), st.integers(0, 500), st.decimals(0, 10_000, places=2))
many_figures = st.lists(
    st.builds(
        Figures,
        tallies,
        tallies,
        tallies,
        day=st.dates(date(2026, 11, 1), date(2026, 11, 5)),
        promotion=st.sampled_from([None, "SPRING10", "AUTUMN5"]),
    ),
    max_size=10,
)


@pytest.mark.parametrize(
    ("first", "last", "expected"),
    [
        (None, None, (date(2026, 11, 15), TODAY)),
        (None, "2026-03-03", (date(2026, 2, 25), date(2026, 3, 3))),
        ("2026-11-20", None, (date(2026, 11, 20), TODAY)),
        ("2026-11-21", "2026-11-21", (TODAY, TODAY)),
        ("2024-01-01", "2024-12-31", (date(2024, 1, 1), date(2024, 12, 31))),
        (None, "0001-01-02", (date(1, 1, 1), date(1, 1, 2))),
    ],
)
def test_a_range_is_the_given_days_or_the_last_seven(
    first: str | None, last: str | None, expected: tuple[date, date]
) -> None:
    assert date_range(first, last, TODAY) == expected


@pytest.mark.parametrize(
    ("first", "last", "reason"),
    [
        ("2026-11-22", None, "is after"),
        ("2026-11-21", "2026-11-20", "is after"),
        ("2024-01-01", "2025-01-01", f"more than {MAX_DAYS} days"),
        ("yesterday", None, "from is not a date"),
        ("2026-02-30", None, "from is not a date"),
        (None, "", "to is not a date"),
        (None, "20261121", "to is not written as"),
        ("2026-W47-6", None, "from is not written as"),
    ],
)
def test_an_invalid_range_is_refused_with_the_reason(first: str | None, last: str | None, reason: str) -> None:
    with pytest.raises(MalformedRange, match=reason):
        date_range(first, last, TODAY)


class FakeAnalytics(Analytics):
    """An analytics table with given figures."""

    def __init__(self, figures: list[Figures]) -> None:
        self._figures = figures

    def figures(self, first: date, last: date) -> Iterator[Figures]:
        return iter(self._figures)


def test_only_days_with_confirmed_or_cancelled_orders_have_sales() -> None:
    confirmed = Figures(confirmed=tally(2, 5, "50.50"), day=date(2026, 11, 1), promotion="SPRING10")
    placed = Figures(placed=tally(4, 4, "40.00"), day=date(2026, 11, 2), promotion="SPRING10")
    cancelled = Figures(cancelled=tally(1, 1, "9.99"), day=date(2026, 11, 3), promotion=None)

    report = sales_by_day(FakeAnalytics([confirmed, placed, cancelled]), TODAY, TODAY)

    assert [entry.day for entry in report.items] == [confirmed.day, cancelled.day]


@given(many_figures)
def test_promotions_are_sorted_and_count_every_order_with_a_code_once(figures: list[Figures]) -> None:
    report = sales_by_promotion(FakeAnalytics(figures), TODAY, TODAY)

    codes = [entry.promotion_code for entry in report.items]
    assert codes == sorted({entry.promotion for entry in figures if entry.promotion})
    for kind in ("placed", "confirmed", "cancelled"):
        expected = sum((getattr(entry, kind) for entry in figures if entry.promotion), NONE)
        for name, value in vars(expected).items():
            assert sum(getattr(getattr(entry, kind), name) for entry in report.items) == value


@pytest.mark.parametrize(
    "body",
    [
        {"available": -1},
        {"available": MAX_AVAILABLE + 1},
        {"available": 1.5},
        {"available": "1"},
        {"version": -1},
        {"note": ""},
        {"note": "   "},
        {"note": "x" * 201},
        {"note": "counted\r\nagain"},
        {"note": "\u202edetnuoc"},
        {"reserved": 1},
    ],
)
def test_an_invalid_stock_count_is_refused(body: dict[str, object]) -> None:
    right = {"available": 1, "version": 0, "note": "counted"}
    SetStockRequest.model_validate(right)
    with pytest.raises(ValidationError):
        SetStockRequest.model_validate({**right, **body})


@pytest.mark.parametrize(
    "body", [{}, {"status": "RESOLVED"}, {"status": None}, {"consumer": ""}, {"consumer": "a\x00"}]
)
def test_an_invalid_redrive_request_is_refused(body: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        RedriveRequest.model_validate(body)
