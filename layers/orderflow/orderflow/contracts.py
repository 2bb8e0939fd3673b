"""The event contract as pydantic models: one per event. Consumers tolerate additions; producers are held to these."""

from decimal import Decimal
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, WithJsonSchema
from pydantic.alias_generators import to_camel

# In a schema money is what it is in JSON: a number. `multipleOf: 0.01` would fail in validators that divide by floats.
_MONEY = {"description": "Money, with two decimals at most.", "type": "number", "minimum": 0}
Money = Annotated[Decimal, Field(ge=0, decimal_places=2), WithJsonSchema(_MONEY)]
Count = Annotated[int, Field(ge=1)]
Text = Annotated[str, Field(min_length=1)]


class ContractModel(BaseModel):
    """Fields in camelCase, none beyond the contract's."""

    model_config = ConfigDict(alias_generator=to_camel, extra="forbid", frozen=True, defer_build=True)


class OrderLine(ContractModel):
    """A product of an order at the price it was sold for."""

    product_id: Text
    name: Text
    quantity: Count
    price: Money


class ShippingAddress(ContractModel):
    """Where the order goes."""

    street: Text
    city: Text
    state: Text
    zip_code: Text
    country: Text


class EventMetadata(ContractModel):
    """Where an event came from. Consumers deduplicate by `eventId`."""

    source: Literal["web", "mobile", "api"]
    promotion_code: Text | None = None
    event_id: Text
    sequence: Count
    correlation_id: Text
    causation_id: Text
    timestamp: AwareDatetime


class OrderDetail(ContractModel):
    """What every event's detail has."""

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
    """A POST was accepted."""


class OrderConfirmedDetail(OrderDetail):
    """The stock is reserved."""


class OrderRejectedDetail(OrderDetail):
    """The order cannot be fulfilled."""

    reason: Literal["OUT_OF_STOCK"]


class OrderCancelledDetail(OrderDetail):
    """The order was taken back."""

    reason: Literal["CANCELLED_BY_CUSTOMER", "CANCELLED_BY_STAFF"]


class InventoryReservedDetail(OrderDetail):
    """All items of the order are reserved."""


class Shortage(ContractModel):
    """A product that lacked."""

    product_id: Text
    asked: Count
    available: Annotated[int, Field(ge=0)]


class InventoryOutOfStockDetail(OrderDetail):
    """At least one item lacked; nothing is reserved."""

    shortages: Annotated[tuple[Shortage, ...], Field(min_length=1)]


class ReleasedLine(ContractModel):
    """A product and how much of it went back to stock."""

    product_id: Text
    quantity: Count


class InventoryReleasedDetail(OrderDetail):
    """A reservation was given back. `released` is empty if the cancellation came before the reservation."""

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
"""The models by source and detail-type."""
