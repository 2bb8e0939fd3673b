"""Rules: which e-mail an order event requires, its recipient and its text."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from html import escape
from pathlib import Path
from string import Template
from typing import NamedTuple

from orderflow.events import Item, OrderEvent

HIGH_VALUE = "high-value-order"

KINDS: Mapping[str, tuple[str, str]] = {
    "Order Placed": (HIGH_VALUE, "High-value order {order_id}: {total}"),
    "Order Confirmed": ("order-confirmed", "Your order {order_id} is confirmed"),
    "Order Rejected": ("order-rejected", "We cannot fulfil your order {order_id}"),
    "Order Cancelled": ("order-cancelled", "Your order {order_id} is cancelled"),
}
"""The kind of e-mail and its subject, by detail-type. The kind is the name of the e-mail's templates."""

REASONS: Mapping[str, str] = {
    "OUT_OF_STOCK": "Not all of its items are in stock.",
    "CANCELLED_BY_CUSTOMER": "It was cancelled at your request.",
    "CANCELLED_BY_STAFF": "Our staff cancelled it.",
}

TEMPLATES = {path.name: Template(path.read_text()) for path in (Path(__file__).parent / "templates").iterdir()}


@dataclass(frozen=True)
class Mail:
    """An e-mail, with the same content as plain text and as HTML. `to` is "" if there is no recipient."""

    event_id: str
    kind: str
    to: str
    subject: str
    text: str
    html: str


class Format(NamedTuple):
    """A format of an e-mail's body: the suffix of its templates, how values are escaped, and how lines end."""

    suffix: str
    escape: Callable[[str], str]
    line_break: str


TEXT = Format(".txt", str, "\n")
HTML = Format(".html", escape, "<br>\n")


def mail_for(event: OrderEvent, sales_email: str) -> Mail:
    """Returns the e-mail that an order event requires.

    Args:
        event: an event with a detail-type of KINDS. The event's rule decides which orders are of high value.
        sales_email: the recipient of e-mails about high-value orders.
    """
    order = event.order
    kind, subject = KINDS[event.detail_type]
    subject = subject.format(order_id=event.order_id, total=_money(order["totalAmount"], order["currency"]))
    to = sales_email if kind == HIGH_VALUE else order["customerEmail"]
    text, html = (_render(kind, subject, event, form) for form in (TEXT, HTML))
    return Mail(event.event_id, kind, to, subject, text=text, html=html)


def _render(kind: str, headline: str, event: OrderEvent, form: Format) -> str:
    order, address = event.order, event.order["shippingAddress"]
    city = f"{address['city']}, {address['state']} {address['zipCode']}"
    content = TEMPLATES[kind + form.suffix].substitute(
        lines="".join(_line(item, order["currency"], form) for item in order["items"]),
        total=form.escape(_money(order["totalAmount"], order["currency"])),
        address=form.line_break.join(form.escape(line) for line in (address["street"], city, address["country"])),
        # An unknown reason is left out: the e-mail is sent all the same
        reason=form.escape(REASONS.get(event.reason or "", "")),
    )
    return TEMPLATES["layout" + form.suffix].substitute(headline=form.escape(headline), content=content)


def _line(item: Item, currency: str, form: Format) -> str:
    price, amount = _money(item["price"], currency), _money(item["price"] * item["quantity"], currency)
    values = {"name": item["name"], "quantity": str(item["quantity"]), "price": price, "amount": amount}
    escaped = {name: form.escape(value) for name, value in values.items()}
    return TEMPLATES["line" + form.suffix].substitute(escaped)


def _money(amount: Decimal, currency: str) -> str:
    return f"{amount:,.2f} {currency}"
