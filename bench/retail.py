"""Converts a file of invoices to orders and cancellations, and counts the skipped rows by reason.

The file has the columns of the UCI "Online Retail" data set (doi:10.24432/C5BW33): InvoiceNo, StockCode, Description,
Quantity, InvoiceDate, UnitPrice, CustomerID, Country.
"""

import csv
import itertools
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from tools.errors import CommandError

COLUMNS = ("InvoiceNo", "StockCode", "Description", "Quantity", "InvoiceDate", "UnitPrice", "CustomerID", "Country")
MAX_PRODUCTS = 90
MAX_QUANTITY = 10_000
PRODUCT_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
NOT_PRODUCTS = frozenset({"POST", "DOT", "C2", "M", "D", "S", "B", "CRUK", "AMAZONFEE", "BANK CHARGES"})
"""The data set's codes for postage, carriage, discounts, samples, manual entries, debts and fees."""
SHORT_EVERY = 50
"""Every 50th product has half of the ordered quantity in stock, so that some orders are rejected."""
DATES = ("%Y-%m-%d %H:%M:%S", "%m/%d/%Y %H:%M")

Row = Mapping[str, str | None]


class BadFile(CommandError):
    """The file contains no orders. The message says why."""


class NotAnOrder(Exception):
    """A line is not part of an order or a cancellation. The message says why."""


@dataclass(frozen=True)
class Line:
    """A valid line of the file."""

    invoice: str
    customer: str
    product: str
    name: str
    quantity: int
    price: Decimal
    time: datetime


@dataclass(frozen=True)
class NewOrder:
    """An invoice as an order: quantities by product id, and the number of its lines."""

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
    """The orders and products of a file.

    Args:
        steps: the orders and cancellations, sorted by time.
        products: each with productId, name, price and stock, for `tools.seed`.
        reasons: the number of skipped lines, by reason.
    """

    steps: Sequence[Step]
    products: Sequence[dict[str, Any]]
    reasons: Mapping[str, int]


def plan(rows: Iterable[Row]) -> Plan:
    """Converts rows to a plan. Each skipped row is counted by its reason.

    Args:
        rows: the rows of the file, as dictionaries by column name.
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
    """Returns the values of a row.

    Raises:
        NotAnOrder: the row is invalid.
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
            continue  # try the other format
    raise NotAnOrder("unreadable date")


def _acceptable(lines: Sequence[Line], reasons: Counter[str]) -> list[Line]:
    """Returns the lines of an invoice that the API accepts as one order."""
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
    """Returns orders and cancellations. A cancellation is matched to the customer's latest order with its products."""
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
    """Returns the ordered products, each with its first price, and with the ordered quantity in stock or half of it."""
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
    """Returns the rows of a file.

    Args:
        path: a CSV file.
        limit: the maximum number of invoices; None for all.

    Raises:
        BadFile: the file cannot be read, or a column is missing.
    """
    try:
        # Exports of the data set have different encodings, and only descriptions contain non-ASCII characters
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
