"""The event store: an aggregate is one DynamoDB item that holds its events, and a change is one conditional write."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orderflow.dynamodb import ConcurrentUpdate, deserialize
from orderflow.events import StoredEvent, numbered

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient


@dataclass(frozen=True)
class Stream:
    """An aggregate as it is stored. Its version is the number of its events.

    Args:
        item: the whole item, with the attributes stored next to the events.
    """

    version: int
    events: tuple[StoredEvent, ...]
    item: Mapping[str, Any]


class VersionConflict(ConcurrentUpdate):
    """Another writer changed the aggregate first; nothing was stored. `stream` is the aggregate as it is stored now."""

    def __init__(self, stream_id: str, stream: Stream) -> None:
        super().__init__(f"{stream_id} is at version {stream.version}")
        self.stream = stream


class EventStore:
    """The events of one table's aggregates.

    Args:
        client: the client of a DynamoDB resource, which converts Python values (`dynamodb.meta.client`).
        key: the name of the table's partition key.
    """

    def __init__(self, client: "DynamoDBClient", table: str, key: str) -> None:
        self._client = client
        self._table = table
        self._key = key

    def load(self, stream_id: str) -> Stream | None:
        """Returns an aggregate by its key, or None if it does not exist. The read is strongly consistent."""
        response = self._client.get_item(TableName=self._table, Key={self._key: stream_id}, ConsistentRead=True)
        return as_stream(response["Item"]) if "Item" in response else None

    def append(
        self, stream_id: str, events: Sequence[StoredEvent], expected_version: int, attributes: Mapping[str, Any]
    ) -> None:
        """Appends events to an aggregate, all of them or none.

        If the response to an earlier attempt was lost, the repeated write finds its own events stored and succeeds.

        Args:
            events: at least one.
            expected_version: the version that the caller decided on; 0 creates the aggregate.
            attributes: stored next to the events, for indexes and conditions.

        Raises:
            VersionConflict: the aggregate is at another version.
        """
        try:
            self._client.update_item(**self.update_request(stream_id, events, expected_version, attributes))
        except self._client.exceptions.ConditionalCheckFailedException as error:
            stored: Any = error.response.get("Item", {})
            stream = as_stream(deserialize(stored))
            if events[0].event_id not in {event.event_id for event in stream.events}:
                raise VersionConflict(stream_id, stream) from error

    def update_request(
        self, stream_id: str, events: Sequence[StoredEvent], expected_version: int, attributes: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Returns the UpdateItem request of `append`, to be one write of a transaction."""
        stored = {**attributes, "version": expected_version + len(events)}
        values = {f":{name}": value for name, value in stored.items()}
        if expected_version:
            values[":expected"] = expected_version
        return {
            "TableName": self._table,
            "Key": {self._key: stream_id},
            "UpdateExpression": "SET #events = list_append(if_not_exists(#events, :none), :events), "
            + ", ".join(f"#{name} = :{name}" for name in stored),
            "ConditionExpression": "#version = :expected" if expected_version else f"attribute_not_exists({self._key})",
            "ExpressionAttributeNames": {f"#{name}": name for name in ("events", *stored)},
            "ExpressionAttributeValues": {**values, ":none": [], ":events": [event.to_item() for event in events]},
            "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
        }


def as_stream(item: Mapping[str, Any]) -> Stream:
    """Returns the stream that an item, in Python values, holds."""
    events = numbered(item["events"])
    return Stream(len(events), events, item)
