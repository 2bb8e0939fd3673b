"""Which events of an item to publish, as entries for PutEvents. No input or output."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from orderflow.dynamodb import deserialize
from orderflow.events import StoredEvent, numbered
from orderflow.serialization import to_json

if TYPE_CHECKING:
    from mypy_boto3_events.type_defs import PutEventsRequestEntryTypeDef

MAX_ENTRIES = 10
"""Entries per PutEvents request (EventBridge API reference)."""
MAX_BYTES = 1024 * 1024
"""Bytes per PutEvents request, all entries together (EventBridge user guide, since January 2026; before, 256 KB)."""
TIME_BYTES = 14
"""Size of an entry's Time (EventBridge user guide, "Calculating PutEvents event entry size")."""


@dataclass(frozen=True)
class EventSource:
    """The `source` of one table's events, and the function that composes an event's detail from the stored item."""

    name: str
    compose: Callable[[Mapping[str, Any], StoredEvent], dict[str, Any]]


class InvalidRequest(Exception):
    """An explicit request that cannot be read; the text says why."""


@dataclass(frozen=True)
class PublishRequest:
    """Which events to publish: those of the item with this key, such as `{"orderId": "ORD-…"}`, from a sequence on."""

    table: str
    key: Mapping[str, str]
    from_sequence: int

    @classmethod
    def from_payload(cls, payload: Mapping[str, Any], tables: Collection[str]) -> "PublishRequest":
        """Reads an explicit request for the events in one of the tables. Raises InvalidRequest if a field is wrong."""
        table, key, sequence = (payload.get(name) for name in ("table", "key", "fromSequence"))
        if not isinstance(table, str) or table not in tables:
            raise InvalidRequest(f"table is not one of {', '.join(sorted(tables))}")
        if not isinstance(key, dict) or len(key) != 1 or not all(isinstance(value, str) for value in key.values()):
            raise InvalidRequest('key is not an object with one string, such as {"orderId": "ORD-…"}')
        if type(sequence) is not int or sequence < 1:
            raise InvalidRequest("fromSequence is not an integer from 1")
        return cls(table, key, sequence)

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> "PublishRequest":
        """Returns the request for the events that a stream record has added to its item."""
        known = record["dynamodb"].get("OldImage", {}).get("events", {}).get("L", [])
        return cls(record["eventSourceARN"].split("/")[1], deserialize(record["dynamodb"]["Keys"]), len(known) + 1)

    def to_payload(self) -> str:
        """Returns the request as JSON, to invoke the publisher with."""
        return to_json({"table": self.table, "key": self.key, "fromSequence": self.from_sequence})


@dataclass(frozen=True)
class EventEntry:
    """An event and its entry for PutEvents."""

    request: PublishRequest  # publishes the aggregate's events from this one on
    record: str  # sequence number of the stream record that added the event; empty for an explicit request
    event: Mapping[str, Any]  # as consumers receive it, without the fields that EventBridge adds
    entry: "PutEventsRequestEntryTypeDef"

    @property
    def aggregate(self) -> str:
        """The item that the event belongs to."""
        return f"{self.request.table} {to_json(self.request.key)}"

    @property
    def size(self) -> int:
        """The size that EventBridge counts, in bytes of UTF-8."""
        parts = (self.entry["Source"], self.entry["DetailType"], self.entry["Detail"])
        return TIME_BYTES + sum(len(part.encode()) for part in parts)

    @property
    def log(self) -> dict[str, Any]:
        """Fields for log entries."""
        detail, detail_type = self.event["detail"], self.event["detail-type"]
        ids = {"event_id": detail["metadata"]["eventId"], "correlation_id": detail["metadata"]["correlationId"]}
        return {**ids, "order_id": detail["orderId"], "detail_type": detail_type}


def build_entries(
    request: PublishRequest, item: Mapping[str, Any], source: EventSource, bus: str, record: str = ""
) -> list[EventEntry]:
    """Returns the entries of the requested events. Any error can occur if none of the services has written the item."""
    entries = []
    for stored in numbered(item.get("events", []))[request.from_sequence - 1 :]:
        detail = source.compose(item, stored)
        event = {"source": source.name, "detail-type": stored.type, "time": stored.time, "detail": detail}
        entry: PutEventsRequestEntryTypeDef = {
            "EventBusName": bus,
            "Source": source.name,
            "DetailType": stored.type,
            "Time": datetime.fromisoformat(stored.time),
            "Detail": to_json(detail),
        }
        if stored.cause.trace_header:
            entry["TraceHeader"] = stored.cause.trace_header
        entries.append(EventEntry(replace(request, from_sequence=stored.sequence), record, event, entry))
    return entries


def requests(entries: Iterable[EventEntry]) -> Iterator[list[EventEntry]]:
    """Returns the entries in as few PutEvents requests as the limits allow, in their order."""
    request: list[EventEntry] = []
    total = 0
    for entry in entries:
        size = entry.size
        if request and (len(request) == MAX_ENTRIES or total + size > MAX_BYTES):
            yield request
            request, total = [], 0
        request.append(entry)
        total += size
    if request:
        yield request
