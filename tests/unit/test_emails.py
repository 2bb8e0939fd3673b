"""The rules of e-mails: what each event calls for, and what its mail says."""

import json
import re
from decimal import Decimal
from email.utils import parseaddr
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from customer_email.domain import REASONS, Mail, mail_for
from orderflow.contracts import OrderCancelledDetail, OrderRejectedDetail

FIXTURES = Path(__file__).parents[2] / "events/email"
NAMES = sorted(path.stem for path in FIXTURES.glob("*.json"))
SALES = "sales@example.com"


def event(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FIXTURES / f"{name}.json").read_text(), parse_float=Decimal)
    return found


def mail_of(name: str, **detail: Any) -> Mail:
    found = event(name)
    return mail_for(found["detail-type"], {**found["detail"], **detail}, SALES)


def words(text: str) -> list[str]:
    """What a reader sees of an HTML text, or of a plain one."""
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
def test_each_event_calls_for_its_mail(name: str, kind: str, to: str, subject: str) -> None:
    mail = mail_of(name)
    order_id = event(name)["detail"]["orderId"]
    assert (mail.kind, mail.to, mail.subject) == (kind, to, subject.format(order_id))


def test_without_a_sales_address_nobody_is_told_of_a_high_value_order() -> None:
    placed = event("high_value_order_placed")
    assert mail_for(placed["detail-type"], placed["detail"], "").to == ""


@pytest.mark.parametrize("name", NAMES)
def test_both_forms_say_the_same(name: str) -> None:
    mail = mail_of(name)
    assert words(mail.text) == words(mail.html)


@pytest.mark.parametrize("name", NAMES)
def test_a_mail_names_the_order_its_lines_and_its_total(name: str) -> None:
    detail, mail = event(name)["detail"], mail_of(name)
    assert detail["orderId"] in mail.text
    assert f"Total: {detail['totalAmount']:,.2f} USD" in mail.text
    for item in detail["items"]:
        assert f"{item['quantity']} x {item['name']}\n    at {item['price']:,.2f} USD each: " in mail.text
        assert f"each: {item['quantity'] * item['price']:,.2f} USD\n" in mail.text


@pytest.mark.parametrize("name", NAMES)
def test_only_the_customer_reads_the_postal_address(name: str) -> None:
    mail = mail_of(name)
    is_customers = mail.to == "ada@example.com"
    assert ("1 Main St\nSeattle, WA 98101\nUS" in mail.text) is is_customers
    assert "ada@example.com" not in mail.text


@pytest.mark.parametrize("name", NAMES)
def test_html_in_an_order_is_shown_and_not_obeyed(name: str) -> None:
    item = {"productId": "P", "name": "<b>Keyboard</b> & $total", "quantity": 1, "price": Decimal("79.90")}
    address = {**event(name)["detail"]["shippingAddress"], "street": "<img src=x>"}
    mail = mail_of(name, items=[item], shippingAddress=address)
    assert "<b>" not in mail.html
    assert "<img" not in mail.html
    assert "&lt;b&gt;Keyboard&lt;/b&gt; &amp; $total" in mail.html
    assert "1 x <b>Keyboard</b> & $total\n" in mail.text


@pytest.mark.parametrize("name", NAMES)
def test_a_phone_shows_a_mail_in_one_column_without_asking_anybody_for_more(name: str) -> None:
    html = mail_of(name).html
    assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in html
    assert "font: 16px" in html
    assert "max-width: 600px" in html
    assert not re.search(r"<table|<img|<link|<script|https?:|url\(", html)


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_left_to_fill_in(name: str) -> None:
    mail = mail_of(name)
    assert "$" not in mail.text + mail.html
    assert "\n" not in mail.subject
    assert parseaddr(mail.to)[1] == mail.to


@pytest.mark.parametrize("model", [OrderRejectedDetail, OrderCancelledDetail])
def test_every_reason_of_the_contract_has_its_words(model: Any) -> None:
    reasons = set(model.model_fields["reason"].annotation.__args__)
    assert reasons <= set(REASONS)


@pytest.mark.parametrize("reason", ["CANCELLED_BY_CUSTOMER", "CANCELLED_BY_STAFF"])
def test_a_cancellation_says_who_it_came_from(reason: str) -> None:
    assert REASONS[reason] in mail_of("order_cancelled", reason=reason).text


def test_a_reason_that_is_new_keeps_no_mail_back() -> None:
    assert "Nothing will be sent." in mail_of("order_cancelled", reason="CANCELLED_BY_A_MACHINE").text
