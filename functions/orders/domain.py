"""The rules of orders: what an order is, how its events fold to it, what may happen to it next. No input or output."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any

from orderflow.events import (
    Cause,
    CorruptStream,
    Item,
    OrderContent,
    OrderMetadata,
    StoredEvent,
    compose_detail,
    folded,
    new_event,
)
from orderflow.ids import derived_ulid, new_ulid
from orderflow.plain_text import unsafe_character

SOURCE = "orders.service"
CURRENCY = "USD"
PRODUCT_ID = r"^[A-Za-z0-9._-]{1,64}$"
"""The pattern of a product's id, in requests and in the catalogue."""
MAX_PRICE = Decimal("999999.99")
"""The largest price of one piece in the catalogue."""
MAX_TOTAL = Decimal("1000000000.00")
"""The largest total of an order.

Event patterns compare numbers up to 5,000,000,000 only (EventBridge user guide, "Comparison operators for use in event
patterns"), so an order with a larger total would not match the rule for high-value orders. This limit is well below.
"""

PLACED = "Order Placed"
CONFIRMED = "Order Confirmed"
REJECTED = "Order Rejected"
CANCELLED = "Order Cancelled"


class OrderStatus(StrEnum):
    """Where an order stands."""

    PENDING = "PENDING"
    CONFIRMED = "CONFIRMED"
    REJECTED = "REJECTED"
    CANCELLED = "CANCELLED"


OUT_OF_STOCK = "OUT_OF_STOCK"
CANCELLED_BY_CUSTOMER = "CANCELLED_BY_CUSTOMER"
CANCELLED_BY_STAFF = "CANCELLED_BY_STAFF"

# An order's life, and nothing else: event → the states it may happen in, and the state it leads to.
TRANSITIONS: Mapping[str, tuple[frozenset[OrderStatus], OrderStatus]] = {
    CONFIRMED: (frozenset({OrderStatus.PENDING}), OrderStatus.CONFIRMED),
    REJECTED: (frozenset({OrderStatus.PENDING}), OrderStatus.REJECTED),
    CANCELLED: (frozenset({OrderStatus.PENDING, OrderStatus.CONFIRMED}), OrderStatus.CANCELLED),
}

# What inventory reports, as it concerns an order: the order's own event, and the reason it gives.
INVENTORY_OUTCOMES: Mapping[str, tuple[str, dict[str, str]]] = {
    "Inventory Reserved": (CONFIRMED, {}),
    "Inventory Out-Of-Stock": (REJECTED, {"reason": OUT_OF_STOCK}),
}


@dataclass(frozen=True)
class Order:
    """An order, folded from its events.

    Args:
        content: what was ordered, by whom, for how much.
        request_hash: tells two requests with one idempotency key apart.
        status: where it stands.
        reason: why it was rejected or cancelled.
        placed_at: the time of its first event, RFC 3339.
        updated_at: the time of its last one.
        version: the number of its events.
    """

    content: OrderContent
    request_hash: str
    status: OrderStatus
    reason: str | None
    placed_at: str
    updated_at: str
    version: int


class CannotCancel(Exception):
    """The order's status no longer allows a cancellation."""


class UnknownProducts(Exception):
    """Products that are not in the catalogue, or not for sale."""

    def __init__(self, product_ids: Sequence[str]) -> None:
        super().__init__(f"not in the catalogue: {', '.join(product_ids)}")
        self.product_ids = product_ids


class InvalidProduct(Exception):
    """A row of the products table that does not describe a product.

    Attributes:
        product_id: the row's key.
        problems: what is wrong, one entry per attribute. They do not quote the row.
    """

    def __init__(self, product_id: str, problems: Sequence[str]) -> None:
        super().__init__(f"{product_id}: {', '.join(problems)}")
        self.product_id = product_id
        self.problems = problems


class TotalTooLarge(Exception):
    """The total of the order exceeds MAX_TOTAL."""

    def __init__(self, total: Decimal) -> None:
        super().__init__(f"the total of {total:.2f} {CURRENCY} exceeds the limit of {MAX_TOTAL:.2f} {CURRENCY}")


class PriceChanged(Exception):
    """The client saw other prices than the catalogue's."""

    def __init__(self, changes: Sequence[dict[str, Any]]) -> None:
        super().__init__(f"prices changed: {', '.join(change['productId'] for change in changes)}")
        self.changes = changes


@dataclass(frozen=True)
class Product:
    """What the catalogue says of a product."""

    product_id: str
    name: str
    price: Decimal
    active: bool


def product_of(row: Mapping[str, Any]) -> Product:
    """The product that a row of the products table describes.

    Args:
        row: the item, in Python values.

    Raises:
        InvalidProduct: an attribute is missing or has a value that no product can have.
    """
    problems = list(_problems(row))
    if problems:
        raise InvalidProduct(row["productId"], problems)
    return Product(row["productId"], row["name"], row["price"], row["active"])


def _problems(row: Mapping[str, Any]) -> Iterator[str]:
    if not re.fullmatch(PRODUCT_ID, row["productId"]):
        yield "productId is not 1 to 64 letters, digits, dots, underscores or hyphens"
    name = row.get("name")
    if not isinstance(name, str) or not name.strip():
        yield "name is missing or not a text"
    elif unsafe := unsafe_character(name):
        yield f"name contains the character {unsafe}"
    price = row.get("price")
    if not isinstance(price, Decimal):
        yield "price is missing or not a number"
    elif not 0 <= price <= MAX_PRICE:
        yield f"price is not from 0 to {MAX_PRICE}"
    elif price != round(price, 2):
        yield "price has more than two decimals"
    if not isinstance(row.get("active"), bool):
        yield "active is missing or not a boolean"


@dataclass(frozen=True)
class Line:
    """What a client asks for: a product, how many, and the price it saw, if it says so."""

    product_id: str
    quantity: int
    seen_price: Decimal | None = None


def fold(events: Iterable[StoredEvent]) -> Order:
    """The order that these events make.

    Raises:
        CorruptStream: they do not begin with Order Placed, or hold a transition that an order's life does not have.
    """
    return folded(events, _placed, advance)


def _placed(event: StoredEvent) -> Order:
    if event.type != PLACED:
        raise CorruptStream(f"begins with {event.type}")
    return Order(
        content=event.data["order"],
        request_hash=event.data["requestHash"],
        status=OrderStatus.PENDING,
        reason=None,
        placed_at=event.time,
        updated_at=event.time,
        version=1,
    )


def advance(order: Order, event: StoredEvent) -> Order:
    """The order after one more event.

    Raises:
        CorruptStream: the event may not happen to it now.
    """
    if not allows(order, event.type):
        raise CorruptStream(f"{event.type} in state {order.status}")
    status = TRANSITIONS[event.type][1]
    return replace(
        order, status=status, reason=event.data.get("reason"), updated_at=event.time, version=order.version + 1
    )


def allows(order: Order, event_type: str) -> bool:
    """Whether the event may happen to the order now."""
    return event_type in TRANSITIONS and order.status in TRANSITIONS[event_type][0]


def new_order_id(now: datetime) -> str:
    """An order's id; no two are alike."""
    return f"ORD-{new_ulid(now)}"


def order_id_for_key(caller: str, idempotency_key: str) -> str:
    """The id of the one order that a caller can place with a key."""
    return f"ORD-{derived_ulid(caller, idempotency_key)}"


def price_items(lines: Sequence[Line], catalogue: Mapping[str, Product]) -> list[Item]:
    """The order's items at the catalogue's prices.

    Raises:
        UnknownProducts: some are not for sale.
        PriceChanged: the client saw other prices.
        TotalTooLarge: together they cost more than an order may.
    """
    unknown = [line.product_id for line in lines if not _for_sale(catalogue.get(line.product_id))]
    if unknown:
        raise UnknownProducts(unknown)
    changes = [
        {"productId": line.product_id, "seen": line.seen_price, "price": catalogue[line.product_id].price}
        for line in lines
        if line.seen_price not in (None, catalogue[line.product_id].price)
    ]
    if changes:
        raise PriceChanged(changes)
    items = [_item(line, catalogue[line.product_id]) for line in lines]
    if total(items) > MAX_TOTAL:
        raise TotalTooLarge(total(items))
    return items


def _for_sale(product: Product | None) -> bool:
    return product is not None and product.active


def _item(line: Line, product: Product) -> Item:
    return {
        "productId": line.product_id,
        "name": product.name,
        "quantity": line.quantity,
        "price": product.price,
    }


def total(items: Iterable[Item]) -> Decimal:
    """The exact sum."""
    return sum((item["price"] * item["quantity"] for item in items), Decimal(0))


def place(
    *,
    order_id: str,
    customer_id: str,
    customer_email: str,
    items: list[Item],
    shipping_address: dict[str, str],
    metadata: OrderMetadata,
    request_hash: str,
    cause: Cause,
    now: datetime,
) -> StoredEvent:
    """A new order's first event."""
    content: OrderContent = {
        "orderId": order_id,
        "customerId": customer_id,
        "customerEmail": customer_email,
        "items": items,
        "totalAmount": total(items),
        "currency": CURRENCY,
        "shippingAddress": shipping_address,
        "metadata": metadata,
    }
    return new_event(PLACED, {"order": content, "requestHash": request_hash}, cause, now)


def cancel(order: Order, reason: str, cause: Cause, now: datetime) -> StoredEvent | None:
    """The event of a cancellation, or None if the order is cancelled already.

    Raises:
        CannotCancel: its status does not allow it.
    """
    if order.status is OrderStatus.CANCELLED:
        return None
    if not allows(order, CANCELLED):
        raise CannotCancel(f"the order is {order.status} and can no longer be cancelled")
    return new_event(CANCELLED, {"reason": reason}, cause, now)


def settle(order: Order, inventory_event: str, cause: Cause, now: datetime) -> StoredEvent | None:
    """What an event of the inventory means for an order; None if the order has moved on already.

    Args:
        order: as it stands.
        inventory_event: the detail-type that inventory published.
        cause: that event.
        now: the time.
    """
    event_type, data = INVENTORY_OUTCOMES[inventory_event]
    return new_event(event_type, data, cause, now) if allows(order, event_type) else None


def compose(item: Mapping[str, Any], event: StoredEvent) -> dict[str, Any]:
    """The self-contained detail of one of an order's events.

    Args:
        item: the order as it is stored.
        event: one of its events, with its sequence.
    """
    more = {"reason": event.data["reason"]} if "reason" in event.data else {}
    return compose_detail(item["events"][0]["data"]["order"], event, **more)
