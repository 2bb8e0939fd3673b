"""The rules of the back office: which days may be asked for, and what is added up."""

from datetime import date
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from analytics.domain import Figures, Tally
from backoffice.domain import MAX_DAYS, MalformedRange, Range, promotions, range_of, sales
from backoffice.models import MAX_AVAILABLE, RedriveRequest, SetStockRequest

TODAY = date(2026, 11, 21)
NONE = Tally()


def tally(orders: int, items: int, revenue: str) -> Tally:
    return Tally(orders, items, Decimal(revenue))


tallies = st.builds(Tally, st.integers(0, 50), st.integers(0, 500), st.decimals(0, 10_000, places=2))
many_figures = st.lists(
    st.builds(
        Figures,
        st.dates(date(2026, 11, 1), date(2026, 11, 5)),
        st.sampled_from([None, "SPRING10", "AUTUMN5"]),
        tallies,
        tallies,
        tallies,
    ),
    max_size=10,
)


@pytest.mark.parametrize(
    ("first", "last", "expected"),
    [
        (None, None, Range(date(2026, 11, 15), TODAY)),
        (None, "2026-03-03", Range(date(2026, 2, 25), date(2026, 3, 3))),
        ("2026-11-20", None, Range(date(2026, 11, 20), TODAY)),
        ("2026-11-21", "2026-11-21", Range(TODAY, TODAY)),
        ("2024-01-01", "2024-12-31", Range(date(2024, 1, 1), date(2024, 12, 31))),
        (None, "0001-01-02", Range(date(1, 1, 1), date(1, 1, 2))),
    ],
)
def test_the_days_asked_for_are_those_named_or_the_last_seven(
    first: str | None, last: str | None, expected: Range
) -> None:
    assert range_of(first, last, TODAY) == expected


@pytest.mark.parametrize(
    ("first", "last", "said"),
    [
        ("2026-11-22", None, "comes after"),
        ("2026-11-21", "2026-11-20", "comes after"),
        ("2024-01-01", "2025-01-01", f"more than {MAX_DAYS} days"),
        ("yesterday", None, "from is no day"),
        ("2026-02-30", None, "from is no day"),
        (None, "", "to is no day"),
        (None, "20261121", "to is not written as"),
        ("2026-W47-6", None, "from is not written as"),
    ],
)
def test_days_that_cannot_be_asked_for_are_refused_with_the_reason(
    first: str | None, last: str | None, said: str
) -> None:
    with pytest.raises(MalformedRange, match=said):
        range_of(first, last, TODAY)


def test_sales_are_what_was_confirmed_less_what_was_taken_back() -> None:
    shown = sales(
        [
            Figures(date(2026, 11, 1), "SPRING10", tally(2, 9, "90.00"), tally(2, 5, "50.50"), tally(1, 2, "20.25")),
            Figures(date(2026, 11, 2), "SPRING10", tally(4, 4, "40.00"), NONE, NONE),
            Figures(date(2026, 11, 3), None, NONE, NONE, tally(1, 1, "9.99")),
        ]
    )
    assert shown == {
        "totals": {
            "confirmed": {"orders": 2, "items": 5, "revenue": Decimal("50.50")},
            "cancelled": {"orders": 2, "items": 3, "revenue": Decimal("30.24")},
            "net": {"orders": 0, "items": 2, "revenue": Decimal("20.26")},
        },
        "items": [
            {
                "day": "2026-11-01",
                "promotionCode": "SPRING10",
                "confirmed": {"orders": 2, "items": 5, "revenue": Decimal("50.50")},
                "cancelled": {"orders": 1, "items": 2, "revenue": Decimal("20.25")},
            },
            {
                "day": "2026-11-03",
                "confirmed": {"orders": 0, "items": 0, "revenue": Decimal(0)},
                "cancelled": {"orders": 1, "items": 1, "revenue": Decimal("9.99")},
            },
        ],
    }


@given(many_figures)
def test_promotions_are_sorted_and_hold_every_order_with_a_code_once(figures: list[Figures]) -> None:
    shown = promotions(figures)
    codes = [entry["promotionCode"] for entry in shown]
    assert codes == sorted({entry.promotion for entry in figures if entry.promotion})
    for kind in ("placed", "confirmed", "cancelled"):
        expected = sum((getattr(entry, kind) for entry in figures if entry.promotion), NONE)
        for name, value in vars(expected).items():
            assert sum(entry[kind][name] for entry in shown) == value


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
        {"note": "counted\r\nby nobody"},
        {"note": "\u202edetnuoc"},
        {"reserved": 1},
    ],
)
def test_a_stock_that_cannot_be_is_refused(body: dict[str, object]) -> None:
    right = {"available": 1, "version": 0, "note": "counted"}
    SetStockRequest.model_validate(right)
    with pytest.raises(ValidationError):
        SetStockRequest.model_validate({**right, **body})


@pytest.mark.parametrize(
    "body", [{}, {"status": "RESOLVED"}, {"status": None}, {"consumer": ""}, {"consumer": "a\x00"}]
)
def test_what_to_redrive_must_be_named(body: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        RedriveRequest.model_validate(body)
