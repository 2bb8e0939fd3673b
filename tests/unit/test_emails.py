"""The rules of e-mails: which e-mail each event requires, and what it says."""

import json
import re
from email.utils import parseaddr
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from customer_email.domain import REASONS, Mail, mail_for
from orderflow.contracts import OrderCancelledDetail, OrderRejectedDetail
from orderflow.events import OrderEvent
from orderflow.serialization import with_decimals

FIXTURES = Path(__file__).parents[2] / "events/email"
NAMES = sorted(path.stem for path in FIXTURES.glob("*.json"))
SALES = "sales@example.com"


def event(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FIXTURES / f"{name}.json").read_text())
    return found


def mail_of(name: str, sales: str = SALES, **detail: Any) -> Mail:
    found = event(name)
    return mail_for(OrderEvent.from_envelope(found["detail-type"], {**found["detail"], **detail}), sales)


def words(text: str) -> list[str]:
    """Returns the words that a reader of an HTML or plain text sees."""
    visible = re.sub(r"<head>.*</head>|<[^>]+>", " ", text, flags=re.DOTALL)
    return unescape(visible).split()


@pytest.mark.parametrize(
    ("name", "kind", "to", "subject"),
    [
        ("high_value_order_placed", "high-value-order", SALES, "High-value order {}: 2,077.00 USD"),
        ("order_confirmed", "order-confirmed", "ada@example.com", "Your order {} is confirmed"),
        ("order_rejected", "order-rejected", "ada@example.com", "We cannot fulfil your order {}"),
        ("order_cancelled", "order-cancelled", "ada@example.com", "Your order {} is cancelled"),
    ],
)
def test_each_event_requires_its_own_mail(name: str, kind: str, to: str, subject: str) -> None:
    mail = mail_of(name)
    detail = event(name)["detail"]
    assert (mail.event_id, mail.kind, mail.to) == (detail["metadata"]["eventId"], kind, to)
    assert mail.subject == subject.format(detail["orderId"])


def test_without_a_sales_address_the_mail_about_a_high_value_order_has_no_recipient() -> None:
    assert mail_of("high_value_order_placed", sales="").to == ""


@pytest.mark.parametrize("name", NAMES)
def test_the_text_and_the_html_body_have_the_same_content(name: str) -> None:
    mail = mail_of(name)
    assert words(mail.text) == words(mail.html)


@pytest.mark.parametrize("name", NAMES)
def test_a_mail_contains_the_order_id_the_items_and_the_total(name: str) -> None:
    detail, mail = with_decimals(event(name)["detail"]), mail_of(name)
    assert detail["orderId"] in mail.text
    assert f"Total: {detail['totalAmount']:,.2f} USD" in mail.text
    for item in detail["items"]:
        assert f"{item['quantity']} x {item['name']}\n    at {item['price']:,.2f} USD each: " in mail.text
        assert f"each: {item['quantity'] * item['price']:,.2f} USD\n" in mail.text


@pytest.mark.parametrize("name", NAMES)
def test_only_mails_to_the_customer_contain_the_postal_address(name: str) -> None:
    mail = mail_of(name)
    to_customer = mail.to == "ada@example.com"
    assert ("1 Main St\nSeattle, WA 98101\nUS" in mail.text) is to_customer
    assert "ada@example.com" not in mail.text


@pytest.mark.parametrize("name", NAMES)
def test_html_in_an_order_is_escaped(name: str) -> None:
    item = {"productId": "P", "name": "<b>Keyboard</b> & $total", "quantity": 1, "price": 79.9}
    address = {**event(name)["detail"]["shippingAddress"], "street": "<img src=x>"}
    mail = mail_of(name, items=[item], shippingAddress=address)
    assert "<b>" not in mail.html
    assert "<img" not in mail.html
    assert "&lt;b&gt;Keyboard&lt;/b&gt; &amp; $total" in mail.html
    assert "1 x <b>Keyboard</b> & $total\n" in mail.text


@pytest.mark.parametrize("name", NAMES)
def test_the_html_fits_a_phone_and_loads_nothing_from_the_network(name: str) -> None:
    html = mail_of(name).html
    assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in html
    assert "font: 16px" in html
    assert "max-width: 600px" in html
    assert not re.search(r"<table|<img|<link|<script|https?:|url\(", html)


@pytest.mark.parametrize("name", NAMES)
def test_a_mail_has_no_placeholders_left(name: str) -> None:
    mail = mail_of(name)
    assert "$" not in mail.text + mail.html
    assert "\n" not in mail.subject
    assert parseaddr(mail.to)[1] == mail.to


@pytest.mark.parametrize("model", [OrderRejectedDetail, OrderCancelledDetail])
def test_every_reason_of_the_contract_has_a_text(model: Any) -> None:
    reasons = set(model.model_fields["reason"].annotation.__args__)
    assert reasons <= set(REASONS)


@pytest.mark.parametrize("reason", ["CANCELLED_BY_CUSTOMER", "CANCELLED_BY_STAFF"])
def test_a_cancellation_says_who_cancelled_the_order(reason: str) -> None:
    assert REASONS[reason] in mail_of("order_cancelled", reason=reason).text


def test_a_mail_with_an_unknown_reason_is_sent_without_the_reason() -> None:
    assert "Nothing will be sent." in mail_of("order_cancelled", reason="CANCELLED_BY_A_MACHINE").text
