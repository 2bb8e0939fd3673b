"""What a stream record has to say: its new events as entries for PutEvents. No input, no output."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from orderflow.event_store import from_image
from orderflow.events import StoredEvent, numbered
from orderflow.serialization import to_json

if TYPE_CHECKING:
    from mypy_boto3_events.type_defs import PutEventsRequestEntryTypeDef

MAX_ENTRIES = 10
"""Entries per PutEvents request (EventBridge API reference)."""
MAX_BYTES = 1024 * 1024
"""Bytes per PutEvents request, all entries together (EventBridge user guide, since January 2026; before, 256 KB)."""
TIME_BYTES = 14
"""What an entry's Time counts for (EventBridge user guide, "Calculating PutEvents event entry size")."""


@dataclass(frozen=True)
class Publisher:
    """How one table's events are published.

    Args:
        source: the events' source.
        compose: makes the detail from the stored item and the event.
    """

    source: str
    compose: Callable[[Mapping[str, Any], StoredEvent], dict[str, Any]]


@dataclass(frozen=True)
class Outgoing:
    """An event on its way out.

    Args:
        record: the stream record's sequence number.
        stream: the aggregate that it belongs to; its events go out in their order.
        log: what log lines say of it.
        entry: for PutEvents.
    """

    record: str
    stream: str
    log: Mapping[str, Any]
    entry: "PutEventsRequestEntryTypeDef"

    @property
    def size(self) -> int:
        """What the entry counts for, in bytes of UTF-8."""
        parts = (self.entry["Source"], self.entry["DetailType"], self.entry["Detail"])
        return TIME_BYTES + sum(len(part.encode()) for part in parts)


def outgoing(record: Mapping[str, Any], publisher: Publisher, bus: str) -> list[Outgoing]:
    """The events that the record's new image has and its old one has not.

    Args:
        record: a record of a DynamoDB stream with both images.
        publisher: of the record's table.
        bus: the bus's name.

    Raises:
        Exception: whatever reading an item that no service of ours can have written leads to.
    """
    change = record["dynamodb"]
    item = from_image(change.get("NewImage", {}))
    known = len(from_image(change.get("OldImage", {})).get("events", []))
    stream = f"{record['eventSourceARN']} {to_json(from_image(change['Keys']))}"
    events = numbered(item.get("events", []))[known:]
    return [_outgoing(change["SequenceNumber"], stream, item, event, publisher, bus) for event in events]


def _outgoing(
    record: str, stream: str, item: Mapping[str, Any], event: StoredEvent, publisher: Publisher, bus: str
) -> Outgoing:
    detail = publisher.compose(item, event)
    entry: PutEventsRequestEntryTypeDef = {
        "EventBusName": bus,
        "Source": publisher.source,
        "DetailType": event.type,
        "Time": datetime.fromisoformat(event.time),
        "Detail": to_json(detail),
    }
    if event.cause.trace_header:
        entry["TraceHeader"] = event.cause.trace_header
    log = {
        "event_id": event.event_id,
        "order_id": detail["orderId"],
        "correlation_id": event.cause.correlation_id,
        "detail_type": event.type,
    }
    return Outgoing(record, stream, log, entry)


def requests(entries: Iterable[Outgoing]) -> Iterator[list[Outgoing]]:
    """The entries in as few requests as the limits allow, in their order. Each fits a request by itself."""
    request: list[Outgoing] = []
    size = 0
    for entry in entries:
        if request and (len(request) == MAX_ENTRIES or size + entry.size > MAX_BYTES):
            yield request
            request, size = [], 0
        request.append(entry)
        size += entry.size
    if request:
        yield request
