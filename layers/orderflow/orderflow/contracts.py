"""The event contract: one pydantic model per event. Consumers ignore unknown fields; producers send none."""

from decimal import Decimal
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, PlainSerializer, WithJsonSchema
from pydantic.alias_generators import to_camel

from orderflow.serialization import json_number, timestamp

# Money is a number in JSON. The schema has no `multipleOf: 0.01`: it fails in validators that divide floats.
_MONEY = {"description": "An amount of money with at most two decimal places.", "type": "number", "minimum": 0}
# Pydantic would serialize a Decimal as a string
Money = Annotated[
    Decimal, Field(ge=0, decimal_places=2), PlainSerializer(json_number, when_used="json"), WithJsonSchema(_MONEY)
]
Timestamp = Annotated[
    AwareDatetime,
    PlainSerializer(timestamp, when_used="json"),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]
"""RFC 3339, in UTC with milliseconds."""
Count = Annotated[int, Field(ge=1)]
Text = Annotated[str, Field(min_length=1)]


class ContractModel(BaseModel):
    """The base of all models: camelCase names, and no fields beyond the contract's."""

    model_config = ConfigDict(alias_generator=to_camel, extra="forbid", frozen=True, defer_build=True)


class OrderLine(ContractModel):
    """A line of an order: a product, its quantity, and the price per piece."""

    product_id: Text
    name: Text
    quantity: Count
    price: Money


class ShippingAddress(ContractModel):
    """The address that the order is shipped to."""

    street: Text
    city: Text
    state: Text
    zip_code: Text
    country: Text


class EventMetadata(ContractModel):
    """How the order was placed, and what identifies the event. Consumers deduplicate by `eventId`."""

    source: Literal["web", "mobile", "api"]
    promotion_code: Text | None = None
    event_id: Text
    sequence: Count
    correlation_id: Text
    causation_id: Text
    timestamp: Timestamp


class OrderDetail(ContractModel):
    """The fields that every event's detail has."""

    version: Literal["1.0"]
    order_id: Annotated[str, Field(pattern=r"^ORD-[0-9A-HJKMNP-TV-Z]{26}$")]
    customer_id: Text
    customer_email: Text
    items: Annotated[tuple[OrderLine, ...], Field(min_length=1)]
    total_amount: Money
    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$")]
    shipping_address: ShippingAddress
    metadata: EventMetadata


class OrderPlacedDetail(OrderDetail):
    """The order was placed."""


class OrderConfirmedDetail(OrderDetail):
    """The order is confirmed: its stock is reserved."""


class OrderRejectedDetail(OrderDetail):
    """The order was rejected because a product is out of stock."""

    reason: Literal["OUT_OF_STOCK"]


class OrderCancelledDetail(OrderDetail):
    """The order was cancelled by the customer or by staff."""

    reason: Literal["CANCELLED_BY_CUSTOMER", "CANCELLED_BY_STAFF"]


class InventoryReservedDetail(OrderDetail):
    """The stock of all items of the order is reserved."""


class Shortage(ContractModel):
    """A product that is out of stock: the quantity that was ordered, and the quantity that is available."""

    product_id: Text
    asked: Count
    available: Annotated[int, Field(ge=0)]


class InventoryOutOfStockDetail(OrderDetail):
    """At least one product is out of stock, so nothing is reserved."""

    shortages: Annotated[tuple[Shortage, ...], Field(min_length=1)]


class ReleasedLine(ContractModel):
    """A product, and the quantity that was returned to stock."""

    product_id: Text
    quantity: Count


class InventoryReleasedDetail(OrderDetail):
    """The reserved stock is available again. `released` is empty if the cancellation arrived before the order."""

    released: tuple[ReleasedLine, ...]


DETAILS: dict[tuple[str, str], type[OrderDetail]] = {
    ("orders.service", "Order Placed"): OrderPlacedDetail,
    ("orders.service", "Order Confirmed"): OrderConfirmedDetail,
    ("orders.service", "Order Rejected"): OrderRejectedDetail,
    ("orders.service", "Order Cancelled"): OrderCancelledDetail,
    ("inventory.service", "Inventory Reserved"): InventoryReservedDetail,
    ("inventory.service", "Inventory Out-Of-Stock"): InventoryOutOfStockDetail,
    ("inventory.service", "Inventory Released"): InventoryReleasedDetail,
}
"""The models, by source and detail-type."""
