"""What the order API answers, for its documentation and the tests: the functions themselves never import this."""

from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, Field, WithJsonSchema

from orderflow.contracts import (
    ContractModel,
    Money,
    OrderCancelledDetail,
    OrderConfirmedDetail,
    OrderDetail,
    OrderLine,
    OrderPlacedDetail,
    OrderRejectedDetail,
    ShippingAddress,
    Text,
)
from orders.domain import OrderStatus as Status

OrderId = Annotated[str, Field(pattern=r"^ORD-[0-9A-HJKMNP-TV-Z]{26}$")]
# Written out where it is used: the back office has a Status too.
OrderStatus = Annotated[str, WithJsonSchema({"type": "string", "enum": list(Status)})]
Currency = Annotated[str, Field(pattern=r"^[A-Z]{3}$", description="ISO 4217")]
Version = Annotated[int, Field(ge=1, description="The number of the order's events.")]
NextCursor = Annotated[str, Field(description="`cursor` of the next page; absent at the end of the list.")]


class OrderMetadata(ContractModel):
    """Where an order came from."""

    source: Literal["web", "mobile", "api"]
    promotion_code: Text | None = None


class Order(ContractModel):
    """An order as it stands."""

    order_id: OrderId
    status: OrderStatus
    customer_id: Text
    customer_email: Text
    items: Annotated[tuple[OrderLine, ...], Field(min_length=1)]
    total_amount: Money
    currency: Currency
    shipping_address: ShippingAddress
    metadata: OrderMetadata
    placed_at: AwareDatetime
    updated_at: AwareDatetime
    version: Version
    reason: Literal["OUT_OF_STOCK", "CANCELLED_BY_CUSTOMER", "CANCELLED_BY_STAFF"] | None = None


class OrderSummary(ContractModel):
    """An order as a list shows it."""

    order_id: OrderId
    status: OrderStatus
    placed_at: AwareDatetime
    total_amount: Money
    currency: Currency
    version: Version


class OrderPage(ContractModel):
    """Some of the caller's orders, newest first. With `status` a page may be short, even empty, and not the last."""

    items: tuple[OrderSummary, ...]
    next_cursor: NextCursor | None = None


class PublishedEvent(ContractModel):
    """An event of an order as it was published."""

    source: Literal["orders.service"]
    detail_type: Annotated[str, Field(alias="detail-type")]
    time: AwareDatetime
    detail: OrderDetail


class OrderPlacedEvent(PublishedEvent):
    """A POST was accepted."""

    detail_type: Annotated[Literal["Order Placed"], Field(alias="detail-type")]
    detail: OrderPlacedDetail


class OrderConfirmedEvent(PublishedEvent):
    """The stock is reserved."""

    detail_type: Annotated[Literal["Order Confirmed"], Field(alias="detail-type")]
    detail: OrderConfirmedDetail


class OrderRejectedEvent(PublishedEvent):
    """The order cannot be fulfilled."""

    detail_type: Annotated[Literal["Order Rejected"], Field(alias="detail-type")]
    detail: OrderRejectedDetail


class OrderCancelledEvent(PublishedEvent):
    """The order was taken back."""

    detail_type: Annotated[Literal["Order Cancelled"], Field(alias="detail-type")]
    detail: OrderCancelledDetail


class OrderEvents(ContractModel):
    """What happened to an order, oldest first."""

    items: Annotated[
        tuple[OrderPlacedEvent | OrderConfirmedEvent | OrderRejectedEvent | OrderCancelledEvent, ...],
        Field(min_length=1),
    ]


class Product(ContractModel):
    """A product for sale."""

    product_id: Text
    name: Text
    price: Money


class ProductPage(ContractModel):
    """Some of the products. A page may be short, even empty, and not the last."""

    items: tuple[Product, ...]
    next_cursor: NextCursor | None = None


ANSWERS: dict[str, type[BaseModel]] = {
    "place_order": Order,
    "list_orders": OrderPage,
    "get_order": Order,
    "get_order_events": OrderEvents,
    "cancel_order": Order,
    "list_products": ProductPage,
}
"""By the function that gives them when all is well."""
