"""The e-mails about orders, as the local stack writes them to its folder."""

import email
import email.policy
from collections.abc import Callable
from email.message import EmailMessage

import pytest

from tests.e2e.conftest import Shop, eventually
from tools import republish

Mails = Callable[[str], list[EmailMessage]]


@pytest.fixture
def mails(shop: Shop) -> Mails:
    """Gives the mails about an order, in the order in which they were sent."""
    folder = shop.stack.mails
    if folder is None:
        pytest.skip("mails of a deployed stack are in its customers' mailboxes")

    def about(order_id: str) -> list[EmailMessage]:
        files = sorted(folder.glob(f"*{order_id.lower()}*.eml"))
        return [email.message_from_bytes(file.read_bytes(), policy=email.policy.default) for file in files]

    return about


def order(shop: Shop, price: str) -> str:
    """A confirmed order of one thing."""
    order_id = str(shop.place((shop.product(stock=5, price=price), 1)).body["orderId"])
    assert shop.outcome(order_id)["status"] == "CONFIRMED"
    return order_id


def test_the_customer_of_a_confirmed_order_receives_one_mail_even_if_its_events_are_republished(
    shop: Shop, mails: Mails
) -> None:
    order_id = order(shop, price="79.90")
    eventually(lambda: mails(order_id))
    republish.republish(shop.stack, order_id, republish.EVER)
    follow_up = order(shop, price="10.00")  # its mail comes behind the repeated events
    eventually(lambda: mails(follow_up))
    (mail,) = mails(order_id)
    assert (mail["To"], mail["Subject"]) == ("ada@example.com", f"Your order {order_id} is confirmed")
    body = mail.get_body(("plain",))
    assert body is not None
    assert "Total: 79.90 USD" in body.get_content()


def test_an_order_over_1000_is_sent_to_the_sales_address_too(shop: Shop, mails: Mails) -> None:
    high, low = order(shop, price="1000.01"), order(shop, price="1000.00")
    eventually(lambda: len(mails(high)) == 2 and mails(low))
    assert {mail["To"] for mail in mails(high)} == {"sales@example.com", "ada@example.com"}
    assert [mail["To"] for mail in mails(low)] == ["ada@example.com"]


def test_the_customer_receives_a_mail_about_a_rejected_and_a_cancelled_order(shop: Shop, mails: Mails) -> None:
    rejected = str(shop.place((shop.product(stock=0), 1)).body["orderId"])
    assert shop.outcome(rejected)["status"] == "REJECTED"
    cancelled = order(shop, price="10.00")
    shop.call("POST", f"/orders/{cancelled}/cancellation")
    (refusal,) = eventually(lambda: mails(rejected))
    assert refusal["Subject"] == f"We cannot fulfil your order {rejected}"
    subjects = {f"Your order {cancelled} is {outcome}" for outcome in ("confirmed", "cancelled")}
    eventually(lambda: {mail["Subject"] for mail in mails(cancelled)} == subjects)
