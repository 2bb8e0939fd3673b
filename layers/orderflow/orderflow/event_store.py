"""The event store: an aggregate is one DynamoDB item that holds its events, and a change is one conditional write."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from boto3.dynamodb.types import TypeDeserializer
from botocore.exceptions import ClientError

from orderflow.dynamodb import ConcurrentUpdate
from orderflow.events import StoredEvent, numbered

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient


@dataclass(frozen=True)
class Stream:
    """An aggregate as it is stored.

    Args:
        version: the number of its events.
        events: those asked for.
        item: the whole item, with what stands beside the events.
    """

    version: int
    events: tuple[StoredEvent, ...]
    item: Mapping[str, Any]


class VersionConflict(ConcurrentUpdate):
    """Another writer came first.

    Attributes:
        stream: what is stored now.
    """

    def __init__(self, stream_id: str, stream: Stream) -> None:
        super().__init__(f"{stream_id} is at version {stream.version}")
        self.stream = stream


class EventStore:
    """The events of one table's aggregates.

    Args:
        client: a DynamoDB client that speaks Python values (`boto3.resource("dynamodb").meta.client`).
        table: the table's name.
        key: the name of its partition key.
    """

    def __init__(self, client: "DynamoDBClient", table: str, key: str) -> None:
        self._client = client
        self._table = table
        self._key = key

    def load(self, stream_id: str, from_version: int = 0) -> Stream | None:
        """One aggregate, read consistently.

        Args:
            stream_id: its key.
            from_version: only the events after this version.

        Returns:
            The stream, or None if there is none.
        """
        answer = self._client.get_item(TableName=self._table, Key={self._key: stream_id}, ConsistentRead=True)
        item = answer.get("Item")
        return None if item is None else as_stream(item, from_version)

    def append(
        self, stream_id: str, events: Sequence[StoredEvent], expected_version: int, attributes: Mapping[str, Any]
    ) -> None:
        """Store events after the ones that the caller has seen; all of them or none.

        A write whose answer was lost, and which is sent again, finds its own events stored: that is a success.

        Args:
            stream_id: the aggregate's key.
            events: at least one.
            expected_version: the version that the caller decided on; 0 for a new aggregate.
            attributes: what indexes and conditions need beside the events.

        Raises:
            VersionConflict: another writer came first; nothing was stored.
        """
        update = self.update(stream_id, events, expected_version, attributes)
        try:
            self._client.update_item(**update)
        except ClientError as error:
            if error.response["Error"]["Code"] != "ConditionalCheckFailedException":
                raise
            stream = as_stream(from_error(error.response))
            if events[0].event_id not in {event.event_id for event in stream.events}:
                raise VersionConflict(stream_id, stream) from error

    def update(
        self, stream_id: str, events: Sequence[StoredEvent], expected_version: int, attributes: Mapping[str, Any]
    ) -> dict[str, Any]:
        """The UpdateItem that `append` sends, for a transaction that has more to write. Arguments as there."""
        beside = {**attributes, "version": expected_version + len(events)}
        names = {f"#{name}": name for name in beside}
        values = {f":{name}": value for name, value in beside.items()}
        if expected_version == 0:
            condition = "attribute_not_exists(#key)"
            names["#key"] = self._key
        else:
            condition = "#version = :expected"
            values[":expected"] = expected_version
        assignments = [f"#{name} = :{name}" for name in beside]
        return {
            "TableName": self._table,
            "Key": {self._key: stream_id},
            "UpdateExpression": "SET #events = list_append(if_not_exists(#events, :none), :events), "
            + ", ".join(assignments),
            "ConditionExpression": condition,
            "ExpressionAttributeNames": {**names, "#events": "events"},
            "ExpressionAttributeValues": {**values, ":none": [], ":events": [event.to_item() for event in events]},
            "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
        }


def as_stream(item: Mapping[str, Any], from_version: int = 0) -> Stream:
    """An item as it came from DynamoDB, in Python values."""
    events = numbered(item["events"])
    return Stream(len(events), events[from_version:], item)


def from_error(failure: Mapping[str, Any]) -> dict[str, Any]:
    """The item that a failed condition returned; boto3 leaves it in DynamoDB's own notation.

    Args:
        failure: a ClientError's response, or one of a transaction's CancellationReasons.

    Returns:
        The item, or {} if there was none to return.
    """
    return from_image(failure.get("Item", {}))


def from_image(image: Mapping[str, Any]) -> dict[str, Any]:
    """An item in Python values, from DynamoDB's own notation, as streams and failures have it."""
    deserialize = TypeDeserializer().deserialize
    return {name: deserialize(value) for name, value in image.items()}
