"""The text of the daily sales report."""

from datetime import date
from decimal import Decimal

from analytics.domain import Figures, Tally, report_text

DAY = date(2026, 11, 21)
NONE = Tally()


def tally(orders: int, items: int, revenue: str) -> Tally:
    return Tally(orders, items, Decimal(revenue))


def figures(promotion: str | None, placed: Tally, confirmed: Tally, cancelled: Tally) -> Figures:
    return Figures(placed, confirmed, cancelled, day=DAY, promotion=promotion)


def test_a_report_contains_confirmed_cancelled_and_net_sales_and_each_promotion() -> None:
    report = report_text(
        DAY,
        [
            figures(None, NONE, tally(10, 25, "1234.56"), tally(1, 2, "20.00")),
            figures("SPRING10", tally(5, 9, "90.00"), tally(4, 8, "80.5"), tally(1, 1, "10.25")),
            figures("AUTUMN5", tally(1, 1, "9.99"), NONE, NONE),
        ],
    )
    assert report.splitlines() == [
        "Sales of 2026-11-21, in UTC",
        "",
        "Confirmed: 14 orders, 33 pieces, 1,315.06",
        "Cancelled: 2 orders, 3 pieces, 30.25",
        "Net:       12 orders, 30 pieces, 1,284.81",
        "",
        "Promotions:",
        "  AUTUMN5: 1 placed, 0 confirmed, 0 cancelled, net 0.00",
        "  SPRING10: 5 placed, 4 confirmed, 1 cancelled, net 70.25",
    ]


def test_a_day_with_more_cancelled_than_confirmed_sales_has_a_negative_net() -> None:
    report = report_text(DAY, [figures(None, NONE, NONE, tally(1, 2, "20.00"))])
    assert "Net:       -1 orders, -2 pieces, -20.00" in report.splitlines()


def test_a_day_without_sales_is_reported() -> None:
    report = report_text(DAY, []).splitlines()
    assert report[2] == "Confirmed: 0 orders, 0 pieces, 0.00"
    assert report[-2:] == ["Promotions:", "  none"]
