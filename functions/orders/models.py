"""Requests and responses of the order API."""

import hashlib
import json
from decimal import Decimal
from typing import Annotated, Literal

from pydantic import Field, PlainSerializer, field_validator
from pydantic.json_schema import SkipJsonSchema

from orderflow import contracts
from orderflow.contracts import ContractModel, Money, Text, Timestamp
from orderflow.http_api import NextCursor, PlainText, RequestModel
from orderflow.plain_text import UNSAFE
from orders.domain import PRODUCT_ID, Line, Order, OrderStatus

MAX_PRODUCTS = 90
"""A reservation is one transaction of at most 100 writes: one per product and one for the reservation."""
MAX_QUANTITY = 10_000

RequestText = Annotated[PlainText, Field(max_length=200)]
# The form name@domain.top, with the characters that PlainText allows
Email = Annotated[str, Field(pattern=rf"^[^@\s{UNSAFE}]+@[^@\s{UNSAFE}]+\.[^@\s{UNSAFE}]+$", max_length=254)]
# Serialized without trailing zeros or an exponent: the fingerprint of 24.5 is that of "24.50"
Price = Annotated[
    Decimal,
    Field(ge=0, max_digits=8, decimal_places=2),
    PlainSerializer(lambda price: f"{price.normalize() + 0:f}", return_type=str, when_used="json"),
]


class OrderLineRequest(RequestModel):
    """A product, its quantity, and optionally the price that the client saw."""

    product_id: Annotated[str, Field(pattern=PRODUCT_ID)]
    quantity: Annotated[int, Field(ge=1, le=MAX_QUANTITY)]
    price: Annotated[Price, Field(strict=False)] | None = None


class AddressRequest(RequestModel):
    """A shipping address."""

    street: RequestText
    city: RequestText
    state: RequestText
    zip_code: Annotated[PlainText, Field(max_length=20)]
    country: Annotated[str, Field(pattern=r"^[A-Z]{2}$", description="ISO 3166-1 alpha-2")]


class PlaceOrderRequest(RequestModel):
    """The body of `POST /orders`. The total of an order is limited to 1,000,000,000.00.

    Only staff may send `customerId` and `customerEmail`, and only together.
    """

    items: Annotated[list[OrderLineRequest], Field(min_length=1, max_length=1000)]
    shipping_address: AddressRequest
    source: Literal["web", "mobile", "api"] = "web"
    promotion_code: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,40}$")] | None = None
    customer_id: Annotated[PlainText, Field(max_length=128)] | None = None
    customer_email: Email | None = None

    @field_validator("items", mode="after")
    @classmethod
    def _merge(cls, items: list[OrderLineRequest]) -> list[OrderLineRequest]:
        """Returns one line per product, in the order of their first occurrence."""
        merged: dict[str, OrderLineRequest] = {}
        for item in items:
            first = merged.get(item.product_id)
            if first is None:
                merged[item.product_id] = item
                continue
            if first.price != item.price:
                raise ValueError(f"the lines of {item.product_id} name different prices")
            quantity = first.quantity + item.quantity
            if quantity > MAX_QUANTITY:
                raise ValueError(f"{quantity} of {item.product_id} in all, where {MAX_QUANTITY} is the most")
            merged[item.product_id] = first.model_copy(update={"quantity": quantity})
        if len(merged) > MAX_PRODUCTS:
            raise ValueError(f"an order has at most {MAX_PRODUCTS} distinct products, not {len(merged)}")
        return list(merged.values())

    def lines(self) -> list[Line]:
        """Returns the lines, one per product."""
        return [Line(item.product_id, item.quantity, item.price) for item in self.items]

    def fingerprint(self) -> str:
        """Returns a hash of the request's values. A price written as 24.5, "24.50" or 24.5e0 gives the same hash."""
        content = self.model_dump(mode="json", exclude_none=True)
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


class OrderSummary(ContractModel):
    """An order in a list."""

    order_id: Annotated[str, Field(pattern=r"^ORD-[0-9A-HJKMNP-TV-Z]{26}$")]
    status: OrderStatus
    placed_at: Timestamp
    total_amount: Money
    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$", description="ISO 4217")]
    version: Annotated[int, Field(ge=1, description="The number of the order's events.")]


class OrderPage(ContractModel):
    """A page of the caller's orders, newest first. With `status`, a page may be short or empty before the last one."""

    items: tuple[OrderSummary, ...]
    next_cursor: NextCursor = None


class MetadataResponse(ContractModel):
    """Where an order came from."""

    source: Literal["web", "mobile", "api"]
    promotion_code: Text | SkipJsonSchema[None] = None


class OrderResponse(OrderSummary):
    """An order in its current state."""

    customer_id: Text
    customer_email: Text
    items: Annotated[tuple[contracts.OrderLine, ...], Field(min_length=1)]
    shipping_address: contracts.ShippingAddress
    metadata: MetadataResponse
    updated_at: Timestamp
    reason: Literal["OUT_OF_STOCK", "CANCELLED_BY_CUSTOMER", "CANCELLED_BY_STAFF"] | SkipJsonSchema[None] = None


def to_response(order: Order) -> OrderResponse:
    """Returns an order as the API shows it."""
    state = {"status": order.status, "placedAt": order.placed_at, "updatedAt": order.updated_at}
    return OrderResponse.model_validate({**order.content, **state, "version": order.version, "reason": order.reason})


class PublishedEvent(ContractModel):
    """An event of an order as it was published."""

    source: Literal["orders.service"]
    detail_type: Annotated[
        Literal["Order Placed", "Order Confirmed", "Order Rejected", "Order Cancelled"], Field(alias="detail-type")
    ]
    time: Timestamp
    detail: (
        contracts.OrderPlacedDetail
        | contracts.OrderConfirmedDetail
        | contracts.OrderRejectedDetail
        | contracts.OrderCancelledDetail
    )


class OrderEvents(ContractModel):
    """The events of an order, oldest first."""

    items: Annotated[tuple[PublishedEvent, ...], Field(min_length=1)]


class ProductResponse(ContractModel):
    """A product for sale."""

    product_id: Text
    name: Text
    price: Money


class ProductPage(ContractModel):
    """A page of products. It may be short or empty before the last one."""

    items: tuple[ProductResponse, ...]
    next_cursor: NextCursor = None
