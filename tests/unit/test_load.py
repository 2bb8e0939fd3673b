"""How the rows of a file become orders, and how the results are computed. The rows are not real data."""

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from bench.load import Progression, percentile, rates
from bench.retail import BadFile, Cancellation, NewOrder, plan, read_rows

SAMPLE = Path(__file__).parents[2] / "bench/invoices.csv"


def row(invoice: str = "1", product: str = "10000", quantity: object = 2, customer: str = "7.0", **more: str) -> Any:
    return {
        "InvoiceNo": invoice,
        "StockCode": product,
        "Description": "PAPER LANTERN",
        "Quantity": str(quantity),
        "InvoiceDate": "2020-05-01 09:00:00",
        "UnitPrice": "1.25",
        "CustomerID": customer,
        "Country": "Nowhere",
        **more,
    }


def test_an_invoice_becomes_one_order_with_the_lines_of_a_product_merged() -> None:
    planned = plan([row(quantity=2), row(product="20000", quantity=1), row(quantity=3)])

    (order,) = planned.steps
    assert isinstance(order, NewOrder)
    assert (order.invoice, order.customer, order.lines) == ("1", "7", 3)
    assert order.items == {"10000": 5, "20000": 1}
    assert planned.reasons == {}


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (row(invoice=""), "no invoice number"),
        (row(customer=""), "no customer"),
        (row(product="POST"), "not a product's code"),
        (row(product="m"), "not a product's code"),
        (row(product="gift voucher"), "not a product's code"),
        (row(product="x" * 65), "not a product's code"),
        (row(quantity="two"), "unreadable quantity"),
        (row(quantity=""), "unreadable quantity"),
        (row(UnitPrice="free"), "unreadable price"),
        (row(UnitPrice="NaN"), "unreadable price"),
        (row(UnitPrice="Infinity"), "unreadable price"),
        (row(InvoiceDate="yesterday"), "unreadable date"),
        (row(UnitPrice="0.0"), "price 0 or below"),
        (row(UnitPrice="0.001"), "price 0 or below"),
        (row(UnitPrice="-5"), "price 0 or below"),
        (row(quantity=0), "quantity 0 or below, and no cancellation"),
        (row(quantity=-1), "quantity 0 or below, and no cancellation"),
        (row(invoice="C1", quantity=1), "cancellation without a negative quantity"),
        (row(invoice="C1", quantity=-1), "cancellation without an earlier order"),
        (row(quantity=10_001), "quantity over 10,000"),
        (dict.fromkeys(row()), "no invoice number"),
    ],
)
def test_a_line_that_cannot_be_ordered_is_counted_with_its_reason(bad: dict[str, str | None], reason: str) -> None:
    planned = plan([bad])

    assert planned.steps == []
    assert planned.reasons == {reason: 1}


def test_the_rest_of_an_invoice_with_a_bad_line_is_still_an_order() -> None:
    planned = plan([row(), row(product="DOT")])

    assert [step.lines for step in planned.steps] == [1]
    assert planned.reasons == {"not a product's code": 1}


def test_lines_of_a_product_that_are_too_many_only_together_are_refused_together() -> None:
    planned = plan([row(quantity=6_000), row(quantity=6_000), row(product="20000")])

    assert [step.items for step in planned.steps if isinstance(step, NewOrder)] == [{"20000": 2}]
    assert planned.reasons == {"quantity over 10,000": 2}


def test_an_invoice_of_more_than_ninety_products_is_refused_whole() -> None:
    planned = plan([row(product=str(number)) for number in range(91)] + [row(invoice="2", product="1")])

    assert [step.invoice for step in planned.steps] == ["2"]
    assert planned.reasons == {"more than 90 products on an invoice": 91}


def test_a_second_customer_on_an_invoice_is_left_out() -> None:
    planned = plan([row(), row(customer="8")])

    assert [step.lines for step in planned.steps] == [1]
    assert planned.reasons == {"another customer on the same invoice": 1}


def test_every_row_is_in_a_step_or_is_reported_with_a_reason() -> None:
    rows = [
        row(),
        row(customer=""),
        row(invoice="2", product="20000"),
        row(invoice="C3", quantity=-1),
        row(product="M"),
    ]
    rows += [row(invoice="C4", product="99999", quantity=-1)] * 2

    planned = plan(rows)

    assert sum(step.lines for step in planned.steps) + sum(planned.reasons.values()) == len(rows)


def test_a_cancellation_is_of_the_customers_latest_open_order_with_its_products() -> None:
    planned = plan(
        [
            row("1", "10000"),
            row("2", "10000"),
            row("2", "20000"),
            row("3", "30000"),
            row("4", "10000", customer="8"),
            row("C5", "10000", -1),
            row("C6", "10000", -1),
            row("C7", "10000", -1),
        ]
    )

    cancelled = [(step.invoice, step.cancels) for step in planned.steps if isinstance(step, Cancellation)]
    assert cancelled == [("C5", "2"), ("C6", "1")]
    assert planned.reasons == {"cancellation without an earlier order": 1}


def test_steps_are_in_the_order_of_their_times_and_nothing_is_cancelled_before_it_was_ordered() -> None:
    planned = plan(
        [
            row("C3", quantity=-1, InvoiceDate="2020-05-01 08:00:00"),
            row("2", InvoiceDate="5/1/2020 10:00"),
            row("1", InvoiceDate="5/1/2020 9:00"),
        ]
    )

    assert [step.invoice for step in planned.steps] == ["1", "2"]
    assert planned.reasons == {"cancellation without an earlier order": 1}


def test_a_product_has_its_first_price_and_as_much_stock_as_is_ordered() -> None:
    planned = plan([row(quantity=2), row("2", quantity=3, UnitPrice="9.99", Description="OTHER")])

    assert planned.products == [{"productId": "10000", "name": "PAPER LANTERN", "price": Decimal("1.25"), "stock": 5}]


def test_every_fiftieth_product_has_half_of_the_ordered_quantity_in_stock() -> None:
    planned = plan([row(str(number), f"P{number:03}", 11) for number in range(1, 101)])

    assert {product["productId"] for product in planned.products if product["stock"] == 5} == {"P050", "P100"}
    assert {product["stock"] for product in planned.products} == {5, 11}


def test_the_limit_counts_invoices(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    lines = [",".join(row()), *(",".join(row(invoice).values()) for invoice in ("1", "1", "2", "3"))]
    file.write_text("\n".join(lines))

    assert [found["InvoiceNo"] for found in read_rows(file, 2)] == ["1", "1", "2"]
    assert len(list(read_rows(file, None))) == 4


def test_a_missing_file_and_a_file_without_the_columns_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_text("InvoiceNo,StockCode\n1,2\n")

    with pytest.raises(BadFile, match="lacks the columns Description, Quantity"):
        list(read_rows(file, None))
    with pytest.raises(BadFile, match="No such file"):
        list(read_rows(tmp_path / "none.csv", None))


def test_the_sample_file_has_orders_cancellations_and_lines_of_several_kinds_to_skip() -> None:
    planned = plan(read_rows(SAMPLE, None))

    assert len([step for step in planned.steps if isinstance(step, NewOrder)]) == 37
    assert len([step for step in planned.steps if isinstance(step, Cancellation)]) == 3
    assert planned.reasons == {
        "no customer": 1,
        "not a product's code": 2,
        "quantity 0 or below, and no cancellation": 1,
    }


def test_percentiles_are_values_that_occurred() -> None:
    values = [float(value) for value in range(100, 0, -1)]

    assert [percentile(values, share) for share in (0.5, 0.95, 0.99, 1)] == [50, 95, 99, 100]
    assert percentile([3.0], 0.5) == 3


def test_rates_are_computed_for_each_half() -> None:
    assert rates(0, [1, 2, 4, 6]) == (4 / 6, 1, 0.5)


def event(order: str, name: str, second: int = 0) -> dict[str, Any]:
    moment = f"2020-05-01T09:00:{second:02}.500Z"
    return {"detail-type": name, "detail": {"orderId": order, "metadata": {"timestamp": moment}}}


def test_a_cancelled_order_has_ended_only_when_its_stock_is_back() -> None:
    progression = Progression(["A", "B"], cancelled=["B"])

    progression.add([event("A", "Order Placed"), event("B", "Order Placed"), event("B", "Order Confirmed")])
    assert progression.ended == 0
    progression.add([event("A", "Order Rejected"), event("B", "Order Cancelled")])
    assert progression.ended == 1
    progression.add([event("B", "Inventory Released")])
    assert progression.ended == 2


def test_an_order_is_settled_by_the_first_event_that_settles_it() -> None:
    progression = Progression(["A"], cancelled=["A"])

    progression.add([event("A", "Order Placed", 1), event("A", "Order Cancelled", 9), event("A", "Order Confirmed", 3)])

    name, moment = progression.settled_at()["A"]
    assert name == "Order Confirmed"
    assert moment % 60 == 3.5
