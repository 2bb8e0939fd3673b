"""What people may send to the order API, checked field by field."""

import hashlib
import json
from decimal import Decimal
from typing import Annotated, Literal

from pydantic import Field, PlainSerializer, field_validator, model_validator

from orderflow.http_api import PlainText, RequestModel
from orderflow.plain_text import UNSAFE
from orders.domain import PRODUCT_ID, Line

MAX_PRODUCTS = 90
"""A reservation is one transaction, of at most 100 writes: the products, the reservation, and room to grow."""
MAX_QUANTITY = 10_000

Text = Annotated[PlainText, Field(max_length=200)]
# Of the form name@domain.top, and of the characters that PlainText allows
Email = Annotated[str, Field(pattern=rf"^[^@\s{UNSAFE}]+@[^@\s{UNSAFE}]+\.[^@\s{UNSAFE}]+$", max_length=254)]
# Serialized without trailing zeros or an exponent: the fingerprint of 24.5 is that of "24.50".
Price = Annotated[
    Decimal,
    Field(ge=0, max_digits=8, decimal_places=2),
    PlainSerializer(lambda price: f"{price.normalize() + 0:f}", return_type=str, when_used="json"),
]


class OrderLineRequest(RequestModel):
    """A product, how many, and the price that the client saw, if it wants to be sure of it."""

    product_id: Annotated[str, Field(pattern=PRODUCT_ID)]
    quantity: Annotated[int, Field(ge=1, le=MAX_QUANTITY)]
    price: Annotated[Price, Field(strict=False)] | None = None


class AddressRequest(RequestModel):
    """Where the order goes."""

    street: Text
    city: Text
    state: Text
    zip_code: Annotated[PlainText, Field(max_length=20)]
    country: Annotated[str, Field(pattern=r"^[A-Z]{2}$", description="ISO 3166-1 alpha-2")]


class PlaceOrderRequest(RequestModel):
    """The body of `POST /orders`. The total of an order is limited to 1,000,000,000.00."""

    items: Annotated[list[OrderLineRequest], Field(min_length=1, max_length=1000)]
    shipping_address: AddressRequest
    source: Literal["web", "mobile", "api"] = "web"
    promotion_code: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,40}$")] | None = None

    @field_validator("items", mode="after")
    @classmethod
    def _merge(cls, items: list[OrderLineRequest]) -> list[OrderLineRequest]:
        merged = merge_lines(items)
        if len(merged) > MAX_PRODUCTS:
            raise ValueError(f"an order has at most {MAX_PRODUCTS} distinct products, not {len(merged)}")
        return merged

    def lines(self) -> list[Line]:
        """The lines, one per product."""
        return [Line(item.product_id, item.quantity, item.price) for item in self.items]

    def fingerprint(self) -> str:
        """A hash of the request's values: a price written as 24.5, "24.50" or 24.5e0 gives the same one."""
        content = self.model_dump(mode="json", exclude_none=True)
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


class StaffPlaceOrderRequest(PlaceOrderRequest):
    """The body of `POST /orders` from staff, who may order for a customer."""

    customer_id: Annotated[PlainText, Field(max_length=128)] | None = None
    customer_email: Email | None = None

    @model_validator(mode="after")
    def _both_or_neither(self) -> "StaffPlaceOrderRequest":
        if (self.customer_id is None) != (self.customer_email is None):
            raise ValueError("customerId and customerEmail go together")
        return self


def merge_lines(items: list[OrderLineRequest]) -> list[OrderLineRequest]:
    """One line per product, in the order of their first mention.

    Raises:
        ValueError: the lines of a product disagree about its price, or ask for too many together.
    """
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
    return list(merged.values())
