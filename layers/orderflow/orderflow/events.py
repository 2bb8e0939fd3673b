"""Events as they are stored, and the parts that every published detail has."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import reduce
from typing import Any, NotRequired, TypedDict, TypeVar, cast

from orderflow.ids import new_ulid
from orderflow.serialization import timestamp, with_decimals

SCHEMA_VERSION = "1.0"

StateT = TypeVar("StateT")


class Item(TypedDict):
    """A line of an order."""

    productId: str
    name: str
    quantity: int
    price: Any  # Decimal inside, float in an event as Lambda parses it


class OrderMetadata(TypedDict):
    """How an order came in."""

    source: str
    promotionCode: NotRequired[str]


class OrderContent(TypedDict):
    """What an order is, whatever becomes of it: the part that every event's detail repeats."""

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
    """What led to an event.

    Args:
        correlation_id: the id of the HTTP request at the beginning of it all.
        causation_id: the eventId or request id that led to this event directly.
        trace_header: the X-Ray header of the invocation, or None.
    """

    correlation_id: str
    causation_id: str
    trace_header: str | None = None


@dataclass(frozen=True)
class StoredEvent:
    """One event in an aggregate's list.

    Args:
        event_id: given once, when the event is made; consumers deduplicate by it.
        type: the detail-type, such as `Order Placed`.
        time: RFC 3339, UTC.
        cause: what led to it.
        data: what changed.
        sequence: its place in the list, from 1; 0 until it is stored.
    """

    event_id: str
    type: str
    time: str
    cause: Cause
    data: Mapping[str, Any]
    sequence: int = 0

    def to_item(self) -> dict[str, Any]:
        """The map in DynamoDB. Absent values are left out."""
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
        """The reverse of `to_item`."""
        cause = Cause(item["correlationId"], item["causationId"], item.get("traceHeader"))
        return cls(item["eventId"], item["type"], item["time"], cause, item["data"], sequence)


class CorruptStream(Exception):
    """Events that no aggregate of their kind can have had."""


def folded(
    events: Iterable[StoredEvent],
    begin: Callable[[StoredEvent], StateT],
    advance: Callable[[StateT, StoredEvent], StateT],
) -> StateT:
    """The state that events make, one after the other.

    Args:
        events: an aggregate's, in their order.
        begin: the state after the first one.
        advance: the state after one more.

    Raises:
        CorruptStream: there are none.
    """
    following = iter(events)
    first = next(following, None)
    if first is None:
        raise CorruptStream("no events")
    return reduce(advance, following, begin(first))


def new_event(event_type: str, data: Mapping[str, Any], cause: Cause, now: datetime) -> StoredEvent:
    """An event that has just happened, with an id of its own."""
    return StoredEvent(new_ulid(now), event_type, timestamp(now), cause, data)


def numbered(items: Iterable[Mapping[str, Any]], first: int = 1) -> tuple[StoredEvent, ...]:
    """The events of an aggregate's list, each with its sequence."""
    return tuple(StoredEvent.from_item(item, sequence) for sequence, item in enumerate(items, first))


def compose_detail(order: OrderContent, event: StoredEvent, **more: Any) -> dict[str, Any]:
    """The self-contained detail of a published event.

    Args:
        order: the order that the event is about.
        event: the event, with its sequence.
        more: fields of this type of event alone.
    """
    return {
        "version": SCHEMA_VERSION,
        **order,
        **more,
        "metadata": {
            **order["metadata"],
            "eventId": event.event_id,
            "sequence": event.sequence,
            "correlationId": event.cause.correlation_id,
            "causationId": event.cause.causation_id,
            "timestamp": event.time,
        },
    }


def order_content(detail: Mapping[str, Any]) -> OrderContent:
    """The order in a published detail: the inverse of `compose_detail`.

    Raises:
        KeyError: a required field is missing.
    """
    metadata = {name: detail["metadata"][name] for name in OrderMetadata.__annotations__ if name in detail["metadata"]}
    content = {name: detail[name] for name in OrderContent.__annotations__}
    return cast(OrderContent, {**content, "metadata": metadata})


@dataclass(frozen=True)
class OrderEvent:
    """An event about an order, as a consumer receives it from the bus.

    Args:
        detail_type: such as `Order Placed`.
        event_id: unique per event and the same in each redelivery and replay; consumers deduplicate by it.
        sequence: the event's number within its aggregate, from 1.
        correlation_id: the id of the HTTP request that started the flow.
        timestamp: RFC 3339, UTC.
        order: the order, with money as Decimal.
        reason: why the order was rejected or cancelled.
    """

    detail_type: str
    event_id: str
    sequence: int
    correlation_id: str
    timestamp: str
    order: OrderContent
    reason: str | None = None

    @property
    def order_id(self) -> str:
        """The id of the order."""
        return self.order["orderId"]

    @classmethod
    def from_envelope(cls, detail_type: str, detail: Mapping[str, Any]) -> "OrderEvent":
        """Read an EventBridge event.

        Args:
            detail_type: the envelope's `detail-type`.
            detail: the envelope's `detail`, as JSON was parsed; unknown fields are ignored.

        Raises:
            KeyError: a required field is missing.
        """
        content = with_decimals(detail)
        metadata = content["metadata"]
        return cls(
            detail_type,
            metadata["eventId"],
            metadata["sequence"],
            metadata["correlationId"],
            metadata["timestamp"],
            order_content(content),
            content.get("reason"),
        )
