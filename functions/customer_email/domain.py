"""The rules of e-mails: which one an event calls for, to whom, and its words. No input or output but the templates."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from html import escape
from pathlib import Path
from string import Template
from typing import Any

HIGH_VALUE = "high-value-order"

# What each event says, and its headline, which is the subject too. The rest is in templates/, by kind.
KINDS: Mapping[str, tuple[str, str]] = {
    "Order Placed": (HIGH_VALUE, "High-value order {order_id}: {total}"),
    "Order Confirmed": ("order-confirmed", "Your order {order_id} is confirmed"),
    "Order Rejected": ("order-rejected", "We cannot fulfil your order {order_id}"),
    "Order Cancelled": ("order-cancelled", "Your order {order_id} is cancelled"),
}

REASONS: Mapping[str, str] = {
    "OUT_OF_STOCK": "Not all of its items are in stock.",
    "CANCELLED_BY_CUSTOMER": "It was cancelled at your request.",
    "CANCELLED_BY_STAFF": "Our staff cancelled it.",
}

TEMPLATES = {path.name: Template(path.read_text()) for path in (Path(__file__).parent / "templates").iterdir()}


@dataclass(frozen=True)
class Mail:
    """An e-mail, ready to be sent.

    Args:
        kind: what it says; an event is told at most once per kind.
        to: the address, or "" if there is nobody to tell.
        subject: one line.
        text: the plain form.
        html: the other form, with the same facts.
    """

    kind: str
    to: str
    subject: str
    text: str
    html: str


@dataclass(frozen=True)
class Form:
    """One of a mail's two forms.

    Args:
        suffix: of its templates.
        quote: makes a value harmless in it.
        line_break: between the lines of an address.
    """

    suffix: str
    quote: Callable[[str], str]
    line_break: str


TEXT = Form(".txt", str, "\n")
HTML = Form(".html", escape, "<br>\n")


def mail_for(detail_type: str, detail: Mapping[str, Any], sales_address: str) -> Mail:
    """The mail that an event of an order calls for. Which orders are of high value is decided by the event's rule.

    Args:
        detail_type: the event's.
        detail: the event's, with Decimals.
        sales_address: who is told of orders of high value.
    """
    kind, headline = KINDS[detail_type]
    headline = headline.format(order_id=detail["orderId"], total=_money(detail["totalAmount"], detail["currency"]))
    return Mail(
        kind=kind,
        to=sales_address if kind == HIGH_VALUE else detail["customerEmail"],
        subject=headline,
        text=_render(kind, headline, detail, TEXT),
        html=_render(kind, headline, detail, HTML),
    )


def _render(kind: str, headline: str, detail: Mapping[str, Any], form: Form) -> str:
    currency = detail["currency"]
    content = TEMPLATES[kind + form.suffix].substitute(
        lines="".join(_line(item, currency, form) for item in detail["items"]),
        total=form.quote(_money(detail["totalAmount"], currency)),
        address=form.line_break.join(form.quote(line) for line in _address(detail["shippingAddress"])),
        # A reason that we do not know yet leaves no gap in the text, and no mail unsent
        reason=form.quote(REASONS.get(detail.get("reason", ""), "")),
    )
    return TEMPLATES["layout" + form.suffix].substitute(headline=form.quote(headline), content=content)


def _line(item: Mapping[str, Any], currency: str, form: Form) -> str:
    return TEMPLATES["line" + form.suffix].substitute(
        quantity=item["quantity"],
        name=form.quote(item["name"]),
        price=form.quote(_money(item["price"], currency)),
        amount=form.quote(_money(item["price"] * item["quantity"], currency)),
    )


def _address(address: Mapping[str, str]) -> list[str]:
    return [address["street"], f"{address['city']}, {address['state']} {address['zipCode']}", address["country"]]


def _money(amount: Decimal, currency: str) -> str:
    return f"{amount:,.2f} {currency}"
