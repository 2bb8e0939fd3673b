"""The failed-events table: one record per consumer and event."""

from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from boto3.dynamodb.conditions import Attr, Key
from botocore.exceptions import ClientError

from dlq_processor.domain import FailedEvent, FailedEventStatus, FailureKind
from orderflow.dynamodb import ConcurrentUpdate, load_decide_save
from orderflow.pagination import Page, Position, read_limit, read_page

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.service_resource import DynamoDBServiceResource, Table

INDEX = "by-status"
INDEX_KEY = ("id", "status", "lastFailedAt")
STATUSES = tuple(FailedEventStatus)
"""The order of the statuses in a list of all records."""


def is_position(position: Mapping[str, str]) -> bool:
    """Returns whether a page of a list can start there: after a record, or at the first record of a status."""
    return set(position) in ({"status"}, set(INDEX_KEY)) and position["status"] in STATUSES


def _attribute(field: str) -> str:
    """Returns the attribute of a field: `event_id` → `eventId`."""
    first, *others = field.split("_")
    return first + "".join(other.capitalize() for other in others)


ATTRIBUTES = {field.name: _attribute(field.name) for field in fields(FailedEvent)}
HIDDEN = {"payload", "messageIds", "version", "expiration"}


class FailedEvents:
    """The failed-events table.

    Args:
        table: the table's name.
    """

    def __init__(self, dynamodb: "DynamoDBServiceResource", table: str) -> None:
        self._table: Table = dynamodb.Table(table)

    def get(self, id: str) -> FailedEvent | None:  # noqa: A002 - the attribute's name
        """Returns a record by a strongly consistent read, or None."""
        item = self._table.get_item(Key={"id": id}, ConsistentRead=True).get("Item")
        return None if item is None else _from_item(item)

    def update(
        self,
        id: str,  # noqa: A002 - the attribute's name
        decide: Callable[[FailedEvent | None], FailedEvent | None],
    ) -> tuple[FailedEvent | None, FailedEvent | None]:
        """Changes or creates a record.

        Args:
            decide: returns the changed record, or None to change nothing. It is called again with the newer record
                if another writer was first.

        Returns:
            The record as it is stored afterwards, and the change that was made, if any.

        Raises:
            ConcurrentUpdate: other writers were first at each attempt.
        """
        return load_decide_save(lambda: self.get(id), decide, lambda _, changed: self._save(changed))

    def page(self, status: FailedEventStatus | None, consumer: str | None, limit: int, start: Position | None) -> Page:
        """Returns a page of records as the API shows them, newest first within a status.

        Args:
            status: None lists all statuses, one after the other.
            consumer: None lists all consumers.
            limit: the maximum number of records.
            start: the `last` of an earlier page; None for the first page.
        """

        def read(start: Position | None) -> tuple[list[dict[str, Any]], Position | None]:
            position = start or {"status": status or STATUSES[0]}
            answer = self._table.query(**_query(consumer, limit, position))
            following = answer.get("LastEvaluatedKey") or (None if status else _next_status(position))
            return [_visible(item) for item in answer["Items"]], following

        return read_page(read, start, limit, INDEX_KEY)

    def _save(self, record: FailedEvent) -> FailedEvent:
        """Writes a whole record.

        Raises:
            ConcurrentUpdate: the stored record has another version.
        """
        saved = replace(record, version=record.version + 1)
        item = _to_item(saved)
        key = {"id": item.pop("id")}
        # Never empty: a record has either a payload or a remediation
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


def _next_status(position: Position) -> dict[str, Any] | None:
    following = STATUSES[STATUSES.index(position["status"]) + 1 :]
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
    if "id" in position:  # without it, the page starts at the first record of the status
        query["ExclusiveStartKey"] = {name: position[name] for name in INDEX_KEY}
    return query


def _to_item(record: FailedEvent) -> dict[str, Any]:
    """Returns the item in DynamoDB. Absent values are left out."""
    values = {attribute: getattr(record, field) for field, attribute in ATTRIBUTES.items()}
    return {name: value for name, value in values.items() if value is not None}


def _from_item(item: Mapping[str, Any]) -> FailedEvent:
    """Returns the record of an item."""
    values: dict[str, Any] = {field: item[name] for field, name in ATTRIBUTES.items() if name in item}
    values |= {field: int(value) for field, value in values.items() if isinstance(value, Decimal)}
    return FailedEvent(
        **values
        | {
            "kind": FailureKind(values["kind"]),
            "status": FailedEventStatus(values["status"]),
            "message_ids": frozenset(values["message_ids"]),
        }
    )


def _visible(item: Mapping[str, Any]) -> dict[str, Any]:
    return {name: item[name] for name in ATTRIBUTES.values() if name in item and name not in HIDDEN}
