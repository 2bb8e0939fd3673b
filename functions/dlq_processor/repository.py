"""Failed events in DynamoDB: one record per consumer and event."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from boto3.dynamodb.conditions import Attr, Key
from botocore.exceptions import ClientError

from dlq_processor.domain import Failure, Kind
from orderflow.dynamodb import ConcurrentUpdate
from orderflow.pagination import Page, Position, read_limit, read_page
from orderflow.serialization import timestamp

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.service_resource import DynamoDBServiceResource, Table

INDEX = "by-status"
INDEX_KEY = ("id", "status", "lastFailedAt")
KEEP_RESOLVED = timedelta(days=90)
WRITE_ATTEMPTS = 5
"""How often a failure is counted anew because its record was changed meanwhile."""


class FailedEventStatus(StrEnum):
    """What is being done about a failed event."""

    NEW = "NEW"  # nothing was tried: it needs a person, or its first automatic retry is on its way
    RETRYING = "RETRYING"
    PARKED = "PARKED"  # given up, or put aside by a person
    RESOLVED = "RESOLVED"  # its consumer has succeeded


ORDER = tuple(FailedEventStatus)
"""In which a list of all shows them."""


def is_position(position: Mapping[str, str]) -> bool:
    """Whether a page can end there: behind a record, or where a status begins."""
    return set(position) in ({"status"}, set(INDEX_KEY)) and position["status"] in ORDER


@dataclass(frozen=True)
class FailedEvent:
    """One consumer's failure to handle one event.

    Args:
        id: made of consumer and event; it fits into a path.
        consumer: who failed.
        event_id: of the event, or of the message if that has none.
        kind: the shape in which the failure arrived last.
        reason: why, in a word.
        message: why, in a sentence. It may hold personal data, so neither logs nor alerts show it.
        status: what is being done about it.
        first_failed_at: RFC 3339, when the failure was first stored.
        last_failed_at: when it came again last, or a retry failed.
        failures: how often it came through the DLQ.
        attempts: automatic retries so far.
        version: the number of writes; 0 for a record that is not stored yet.
        order_id: the order that the event is about, if it says so.
        detail_type: of the event.
        correlation_id: of the event.
        payload: JSON text to invoke the consumer with; None if no invocation mends it.
        mend: the command that does, then.
        resolved_at: when the consumer succeeded.
        expiration: when DynamoDB forgets the record, in seconds of the epoch.
        message_ids: the DLQ's messages that were counted.
    """

    id: str
    consumer: str
    event_id: str
    kind: Kind
    reason: str
    message: str
    status: FailedEventStatus
    first_failed_at: str
    last_failed_at: str
    failures: int = 0
    attempts: int = 0
    version: int = 0
    order_id: str | None = None
    detail_type: str | None = None
    correlation_id: str | None = None
    payload: str | None = None
    mend: str | None = None
    resolved_at: str | None = None
    expiration: int | None = None
    message_ids: frozenset[str] = frozenset()

    @property
    def redrivable(self) -> bool:
        """Whether invoking the consumer may mend it."""
        return self.payload is not None

    @property
    def log(self) -> dict[str, Any]:
        """What log lines say of it."""
        return {
            "failed_event": self.id,
            "consumer": self.consumer,
            "reason": self.reason,
            "event_id": self.event_id,
            "order_id": self.order_id,
            "correlation_id": self.correlation_id,
        }

    def shown(self) -> dict[str, Any]:
        """The record as the API shows it, without what it lacks."""
        return _shown(_to_item(self))


def _attribute(field: str) -> str:
    """The attribute of a field: `event_id` → `eventId`."""
    first, *others = field.split("_")
    return first + "".join(other.capitalize() for other in others)


ATTRIBUTES = {field.name: _attribute(field.name) for field in fields(FailedEvent)}
HIDDEN = {"payload", "messageIds", "version", "expiration"}


class FailedEvents:
    """The failed-events table.

    Args:
        dynamodb: the DynamoDB resource.
        table: the table's name.
        now: the time.
    """

    def __init__(
        self,
        dynamodb: "DynamoDBServiceResource",
        table: str,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._table: Table = dynamodb.Table(table)
        self._now = now

    def get(self, id: str) -> FailedEvent | None:  # noqa: A002 - the attribute's name
        """One record, read consistently, or None."""
        item = self._table.get_item(Key={"id": id}, ConsistentRead=True).get("Item")
        return None if item is None else _from_item(item)

    def add(self, failure: Failure, message_id: str) -> tuple[FailedEvent, bool]:
        """Count a failure; a message that comes again is no second one.

        A failure that comes back although its record is known needs a person, whatever its status was.

        Args:
            failure: what failed.
            message_id: of the DLQ's message that says so.

        Returns:
            The record, and whether this message was new.

        Raises:
            ConcurrentUpdate: others kept changing the record.
        """
        for _ in range(WRITE_ATTEMPTS):
            known = self.get(failure.id)
            if known and message_id in known.message_ids:
                return known, False
            try:
                return self._save(_counted(known, failure, message_id, timestamp(self._now()))), True
            except ConcurrentUpdate:
                continue
        raise ConcurrentUpdate(failure.id)

    def claim(self, record: FailedEvent, attempt: int) -> FailedEvent:
        """Begin an automatic retry, the first or a later one.

        Raises:
            ConcurrentUpdate: see there.
        """
        return self._save(replace(record, status=FailedEventStatus.RETRYING, attempts=attempt))

    def resolve(self, record: FailedEvent) -> FailedEvent:
        """The consumer has succeeded.

        Raises:
            ConcurrentUpdate: see there. The consumer may have set the event aside again, and answered all the same.
        """
        now = self._now()
        expiration = int((now + KEEP_RESOLVED).timestamp())
        return self._save(
            replace(record, status=FailedEventStatus.RESOLVED, resolved_at=timestamp(now), expiration=expiration)
        )

    def fail(
        self, record: FailedEvent, reason: str, message: str, status: FailedEventStatus = FailedEventStatus.PARKED
    ) -> FailedEvent:
        """The consumer has failed at a redrive.

        Raises:
            ConcurrentUpdate: see there.
        """
        failed_at = timestamp(self._now())
        return self._save(replace(record, status=status, reason=reason, message=message, last_failed_at=failed_at))

    def park(self, record: FailedEvent) -> FailedEvent:
        """Give a record up.

        Raises:
            ConcurrentUpdate: see there.
        """
        return self._save(replace(record, status=FailedEventStatus.PARKED))

    def page(self, status: FailedEventStatus | None, consumer: str | None, limit: int, start: Position | None) -> Page:
        """Records, newest first within a status.

        Args:
            status: only those; None for all statuses, one after the other.
            consumer: only theirs, or None for all.
            limit: the most to return.
            start: where an earlier page ended.
        """

        def read(start: Position | None) -> tuple[list[dict[str, Any]], Position | None]:
            position = start or {"status": status or ORDER[0]}
            answer = self._table.query(**_query(consumer, limit, position))
            following = answer.get("LastEvaluatedKey") or (None if status else _next_status(position))
            return [_shown(item) for item in answer["Items"]], following

        return read_page(read, start, limit, INDEX_KEY)

    def _save(self, record: FailedEvent) -> FailedEvent:
        """Write a record whole, if nobody has written it since it was read."""
        saved = replace(record, version=record.version + 1)
        item = _to_item(saved)
        key = {"id": item.pop("id")}
        # At least one: a record has either a payload or a command
        lacking = [name for name in ATTRIBUTES.values() if name not in item and name not in key]
        try:
            self._table.update_item(
                Key=key,
                UpdateExpression=f"SET {', '.join(f'#{name} = :{name}' for name in item)}"
                f" REMOVE {', '.join(f'#{name}' for name in lacking)}",
                ConditionExpression="#version = :known" if record.version else "attribute_not_exists(#version)",
                ExpressionAttributeNames={f"#{name}": name for name in [*item, *lacking]},
                ExpressionAttributeValues={f":{name}": value for name, value in item.items()}
                | ({":known": record.version} if record.version else {}),
            )
        except ClientError as error:
            if error.response["Error"]["Code"] != "ConditionalCheckFailedException":
                raise
            raise ConcurrentUpdate(record.id) from error
        return saved


def _counted(known: FailedEvent | None, failure: Failure, message_id: str, now: str) -> FailedEvent:
    """The record of a failure, once one more message has told of it."""
    described: dict[str, Any] = {name: value for name, value in vars(failure).items() if name != "transient"}
    if known is None:
        status = FailedEventStatus.PARKED if failure.payload is None else FailedEventStatus.NEW
        return FailedEvent(
            **described,
            id=failure.id,
            status=status,
            first_failed_at=now,
            last_failed_at=now,
            failures=1,
            message_ids=frozenset({message_id}),
        )
    return replace(
        known,
        **described,
        status=FailedEventStatus.PARKED,
        last_failed_at=now,
        failures=known.failures + 1,
        message_ids=known.message_ids | {message_id},
        resolved_at=None,
        expiration=None,
    )


def _next_status(position: Position) -> dict[str, Any] | None:
    following = ORDER[ORDER.index(position["status"]) + 1 :]
    return {"status": following[0]} if following else None


def _query(consumer: str | None, limit: int, position: Position) -> dict[str, Any]:
    query: dict[str, Any] = {
        "IndexName": INDEX,
        "KeyConditionExpression": Key("status").eq(str(position["status"])),
        "ScanIndexForward": False,
        "Limit": read_limit(limit, filtered=consumer is not None),
    }
    if consumer:
        query["FilterExpression"] = Attr("consumer").eq(consumer)
    if "id" in position:  # else it is where the status begins
        query["ExclusiveStartKey"] = {name: position[name] for name in INDEX_KEY}
    return query


def _to_item(record: FailedEvent) -> dict[str, Any]:
    """The item in DynamoDB. Absent values are left out."""
    values = {attribute: getattr(record, field) for field, attribute in ATTRIBUTES.items()}
    return {name: value for name, value in values.items() if value is not None}


def _from_item(item: Mapping[str, Any]) -> FailedEvent:
    """The reverse of `_to_item`."""
    values: dict[str, Any] = {field: item[name] for field, name in ATTRIBUTES.items() if name in item}
    values |= {field: int(value) for field, value in values.items() if isinstance(value, Decimal)}
    return FailedEvent(
        **values
        | {
            "kind": Kind(values["kind"]),
            "status": FailedEventStatus(values["status"]),
            "message_ids": frozenset(values["message_ids"]),
        }
    )


def _shown(item: Mapping[str, Any]) -> dict[str, Any]:
    return {name: item[name] for name in ATTRIBUTES.values() if name in item and name not in HIDDEN}
