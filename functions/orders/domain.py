"""The rules of orders: an order's state, its transitions, its prices. No input or output."""

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
MAX_TOTAL = Decimal("1000000000.00")
"""Event patterns compare numbers up to 5,000,000,000 only (EventBridge user guide, "Comparison operators for use in
event patterns"), so an order with a larger total would not match the rule for high-value orders.
"""

PLACED = "Order Placed"
CONFIRMED = "Order Confirmed"
REJECTED = "Order Rejected"
CANCELLED = "Order Cancelled"


class OrderStatus(StrEnum):
    """The states of an order."""

    PENDING = "PENDING"
    CONFIRMED = "CONFIRMED"
    REJECTED = "REJECTED"
    CANCELLED = "CANCELLED"


OUT_OF_STOCK = "OUT_OF_STOCK"
CANCELLED_BY_CUSTOMER = "CANCELLED_BY_CUSTOMER"
CANCELLED_BY_STAFF = "CANCELLED_BY_STAFF"

TRANSITIONS: Mapping[str, tuple[frozenset[OrderStatus], OrderStatus]] = {
    CONFIRMED: (frozenset({OrderStatus.PENDING}), OrderStatus.CONFIRMED),
    REJECTED: (frozenset({OrderStatus.PENDING}), OrderStatus.REJECTED),
    CANCELLED: (frozenset({OrderStatus.PENDING, OrderStatus.CONFIRMED}), OrderStatus.CANCELLED),
}
"""Event → the states in which it may happen, and the state after it. Other transitions do not exist."""

INVENTORY_OUTCOMES: Mapping[str, tuple[str, dict[str, str]]] = {
    "Inventory Reserved": (CONFIRMED, {}),
    "Inventory Out-Of-Stock": (REJECTED, {"reason": OUT_OF_STOCK}),
}
"""Inventory's event → the order's event that follows from it, and its data."""


@dataclass(frozen=True)
class Order:
    """An order, folded from its events.

    Args:
        request_hash: the fingerprint of the request that placed it.
        reason: why it was rejected or cancelled.
        placed_at: the time of its first event, RFC 3339.
        updated_at: the time of its last event, RFC 3339.
        correlation_id: the id of the HTTP request that placed it.
    """

    content: OrderContent
    request_hash: str
    status: OrderStatus
    reason: str | None
    placed_at: str
    updated_at: str
    version: int
    correlation_id: str


class OrderError(Exception):
    """A request about an order that cannot be served.

    Args:
        errors: a field of the request and what is wrong with it, for each such field.
    """

    def __init__(self, text: str, *errors: tuple[str, str]) -> None:
        super().__init__(text)
        self.errors = [{"field": field, "message": message} for field, message in errors] or None


class UnknownOrder(OrderError):
    """The table has no order of this id, or none that the caller may see."""

    def __init__(self, order_id: str) -> None:
        super().__init__(f"order {order_id} was not found")


class CannotCancel(OrderError):
    """The order's status does not allow a cancellation."""


class KeyReused(OrderError):
    """The Idempotency-Key was sent before with another body."""


class StaffOnlyFields(OrderError):
    """A customer sent fields that only staff may send."""


class IncompleteCustomer(OrderError):
    """Staff named a customer without an e-mail address, or an address without a customer."""


class OrderRefused(OrderError):
    """The rules do not allow this order now."""


class UnknownProducts(OrderRefused):
    """Products that are not in the catalogue, or not for sale."""


class PriceChanged(OrderRefused):
    """The client saw other prices than the catalogue's."""


class TotalTooLarge(OrderRefused):
    """The total of the order exceeds MAX_TOTAL."""


class EmailNotVerified(OrderRefused):
    """The customer has no verified e-mail address."""


@dataclass(frozen=True)
class Product:
    """A product of the catalogue."""

    product_id: str
    name: str
    price: Decimal
    active: bool


def product_problems(row: Mapping[str, Any]) -> Iterator[str]:
    """Returns why a row of the products table does not describe a product, without the values of its attributes."""
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
    """A requested product, its quantity, and the price that the client saw, if the request names one."""

    product_id: str
    quantity: int
    seen_price: Decimal | None = None


def fold(events: Iterable[StoredEvent]) -> Order:
    """Returns the order that results from its events.

    Raises:
        CorruptStream: they do not begin with Order Placed, or contain a transition that does not exist.
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
        correlation_id=event.cause.correlation_id,
    )


def advance(order: Order, event: StoredEvent) -> Order:
    """Returns the order after one more event.

    Raises:
        CorruptStream: the order's status does not allow the event.
    """
    if not allows(order, event.type):
        raise CorruptStream(f"{event.type} in state {order.status}")
    status = TRANSITIONS[event.type][1]
    return replace(
        order, status=status, reason=event.data.get("reason"), updated_at=event.time, version=order.version + 1
    )


def allows(order: Order, event_type: str) -> bool:
    """Whether the order's status allows the event."""
    return event_type in TRANSITIONS and order.status in TRANSITIONS[event_type][0]


def new_order_id(now: datetime) -> str:
    """Returns a unique id for an order."""
    return f"ORD-{new_ulid(now)}"


def order_id_for_key(caller: str, idempotency_key: str) -> str:
    """Returns the id of the only order that a caller can place with a key."""
    return f"ORD-{derived_ulid(caller, idempotency_key)}"


def price_items(lines: Sequence[Line], catalogue: Mapping[str, Product]) -> list[Item]:
    """Returns the order's items at the catalogue's prices.

    Raises:
        OrderRefused: UnknownProducts, PriceChanged, or TotalTooLarge.
    """
    for_sale = {product.product_id: product for product in catalogue.values() if product.active}
    if unknown := [line.product_id for line in lines if line.product_id not in for_sale]:
        errors = [("items", f"{product_id} is not for sale") for product_id in unknown]
        raise UnknownProducts(f"not in the catalogue: {', '.join(unknown)}", *errors)
    priced = [(line, for_sale[line.product_id]) for line in lines]
    if changed := [(line, product) for line, product in priced if line.seen_price not in (None, product.price)]:
        errors = [
            ("items", f"{line.product_id} costs {product.price:.2f}, not {line.seen_price}")
            for line, product in changed
        ]
        raise PriceChanged(f"prices changed: {', '.join(line.product_id for line, _ in changed)}", *errors)
    items = [
        Item(productId=line.product_id, name=product.name, quantity=line.quantity, price=product.price)
        for line, product in priced
    ]
    if (amount := total(items)) > MAX_TOTAL:
        text = f"the total of {amount:.2f} {CURRENCY} exceeds the limit of {MAX_TOTAL:.2f} {CURRENCY}"
        raise TotalTooLarge(text, ("items", text))
    return items


def total(items: Iterable[Item]) -> Decimal:
    """Returns the exact total of the items."""
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
    """Returns a new order's first event."""
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
    """Returns the event of a cancellation, or None if the order's status does not allow it or it is cancelled."""
    return new_event(CANCELLED, {"reason": reason}, cause, now) if allows(order, CANCELLED) else None


def settle(order: Order, inventory_event: str, cause: Cause, now: datetime) -> StoredEvent | None:
    """Returns the order's event that follows from an event of the inventory, or None if its status does not allow it.

    Args:
        inventory_event: the detail-type, such as `Inventory Reserved`.
    """
    event_type, data = INVENTORY_OUTCOMES[inventory_event]
    return new_event(event_type, data, cause, now) if allows(order, event_type) else None


def seconds_to_settle(order: Order) -> float:
    """Returns the seconds from an order's first event to its last."""
    return (datetime.fromisoformat(order.updated_at) - datetime.fromisoformat(order.placed_at)).total_seconds()


def compose(item: Mapping[str, Any], event: StoredEvent) -> dict[str, Any]:
    """Returns the self-contained detail of one of an order's events, as it is published."""
    return compose_detail(item, event, "reason")
