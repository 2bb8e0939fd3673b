"""Events: how they are stored, how their details are published, and how consumers read them."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import reduce
from typing import Any, NotRequired, TypedDict, TypeVar, cast

from orderflow.ids import new_ulid
from orderflow.serialization import timestamp, with_decimals

SCHEMA_VERSION = "1.0"

State = TypeVar("State")


class Item(TypedDict):
    """A line of an order."""

    productId: str
    name: str
    quantity: int
    price: Any  # Decimal, but a float in a detail as Lambda parses it


class OrderMetadata(TypedDict):
    """How an order was placed."""

    source: str
    promotionCode: NotRequired[str]


class OrderContent(TypedDict):
    """The order as it was placed. It never changes, and every event's detail repeats it."""

    orderId: str
    customerId: str
    customerEmail: str
    items: list[Item]
    totalAmount: Any
    currency: str
    shippingAddress: dict[str, str]
    metadata: OrderMetadata


@dataclass(frozen=True)
class Cause:
    """What caused an event.

    Args:
        correlation_id: the id of the HTTP request that started the flow.
        causation_id: the eventId or request id that caused this event directly.
    """

    correlation_id: str
    causation_id: str
    trace_header: str | None = None


@dataclass(frozen=True)
class StoredEvent:
    """One event in an aggregate's list.

    Args:
        event_id: assigned once, when the event is created; consumers deduplicate by it.
        type: the detail-type, such as `Order Placed`.
        time: RFC 3339, UTC.
        sequence: its position in the list, from 1; 0 until it is stored.
    """

    event_id: str
    type: str
    time: str
    cause: Cause
    data: Mapping[str, Any]
    sequence: int = 0

    def to_item(self) -> dict[str, Any]:
        """Returns the map to store in DynamoDB, without absent values."""
        item = {
            "eventId": self.event_id,
            "type": self.type,
            "time": self.time,
            "correlationId": self.cause.correlation_id,
            "causationId": self.cause.causation_id,
            "data": dict(self.data),
        }
        if self.cause.trace_header:
            item["traceHeader"] = self.cause.trace_header
        return item

    @classmethod
    def from_item(cls, item: Mapping[str, Any], sequence: int) -> "StoredEvent":
        """Reads what `to_item` returned."""
        cause = Cause(item["correlationId"], item["causationId"], item.get("traceHeader"))
        return cls(item["eventId"], item["type"], item["time"], cause, item["data"], sequence)


def new_event(event_type: str, data: Mapping[str, Any], cause: Cause, now: datetime) -> StoredEvent:
    """Returns a new event with an id of its own."""
    return StoredEvent(new_ulid(now), event_type, timestamp(now), cause, data)


def numbered(items: Iterable[Mapping[str, Any]]) -> tuple[StoredEvent, ...]:
    """Returns the events of an aggregate's whole list, each with its sequence."""
    return tuple(StoredEvent.from_item(item, sequence) for sequence, item in enumerate(items, 1))


class CorruptStream(Exception):
    """An aggregate's events are in an order that its rules do not allow."""


def folded(
    events: Iterable[StoredEvent], start: Callable[[StoredEvent], State], apply: Callable[[State, StoredEvent], State]
) -> State:
    """Returns the state of an aggregate after all its events: `start` takes the first event, `apply` each later one."""
    following = iter(events)
    first = next(following, None)
    if first is None:
        raise CorruptStream("no events")
    return reduce(apply, following, start(first))


def compose_detail(item: Mapping[str, Any], event: StoredEvent, *own_fields: str) -> dict[str, Any]:
    """Returns the self-contained detail of a published event.

    Args:
        item: the stored aggregate, whose first event contains the order.
        event: one of its events, with its sequence.
        own_fields: the fields of the detail that only some types of event have, such as `reason`.
    """
    order: OrderContent = item["events"][0]["data"]["order"]
    metadata = {
        **order["metadata"],
        "eventId": event.event_id,
        "sequence": event.sequence,
        "correlationId": event.cause.correlation_id,
        "causationId": event.cause.causation_id,
        "timestamp": event.time,
    }
    own = {name: event.data[name] for name in own_fields if name in event.data}
    return {"version": SCHEMA_VERSION, **order, **own, "metadata": metadata}


def order_content(detail: Mapping[str, Any]) -> OrderContent:
    """Returns the order in a published detail: the inverse of `compose_detail`."""
    metadata = {name: detail["metadata"][name] for name in OrderMetadata.__annotations__ if name in detail["metadata"]}
    content = {name: detail[name] for name in OrderContent.__annotations__}
    return cast(OrderContent, {**content, "metadata": metadata})


@dataclass(frozen=True)
class OrderEvent:
    """An event about an order, as a consumer receives it from the bus.

    Args:
        event_id: unique per event and the same in each redelivery and replay; consumers deduplicate by it.
        correlation_id: the id of the HTTP request that started the flow.
        order: with money as Decimal.
        reason: why the order was rejected or cancelled.
    """

    detail_type: str
    event_id: str
    correlation_id: str
    order: OrderContent
    reason: str | None = None

    @property
    def order_id(self) -> str:
        return self.order["orderId"]

    @classmethod
    def from_envelope(cls, detail_type: str, detail: Mapping[str, Any]) -> "OrderEvent":
        """Reads an EventBridge event's `detail-type` and `detail`. Ignores unknown fields.

        Raises:
            KeyError: a required field is missing.
        """
        content = with_decimals(detail)
        event_id, correlation_id = content["metadata"]["eventId"], content["metadata"]["correlationId"]
        return cls(detail_type, event_id, correlation_id, order_content(content), content.get("reason"))
