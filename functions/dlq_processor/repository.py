"""The failed-events table: one record per consumer and event."""

import re
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from boto3.dynamodb.conditions import Attr, Key

from dlq_processor.domain import FailedEvent, FailedEventStatus, FailureKind
from orderflow.dynamodb import ConcurrentUpdate, load_decide_save
from orderflow.pagination import Page, Position, read_limit, read_page

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.service_resource import DynamoDBServiceResource, Table

INDEX = "by-status"
INDEX_KEY = ("id", "status", "lastFailedAt")
STATUSES = tuple(FailedEventStatus)
"""The order of the statuses in a list of all records."""

ATTRIBUTES = {field.name: re.sub("_(.)", lambda letter: letter[1].upper(), field.name) for field in fields(FailedEvent)}
"""The attribute of each field: `event_id` → `eventId`."""


def is_position(position: Mapping[str, str]) -> bool:
    """Returns whether a page of a list can start there: after a record, or at the first record of a status."""
    return set(position) in ({"status"}, set(INDEX_KEY)) and position["status"] in STATUSES


class FailedEvents:
    """The failed-events table."""

    def __init__(self, dynamodb: "DynamoDBServiceResource", table: str) -> None:
        self._table: Table = dynamodb.Table(table)

    def get(self, failure_id: str) -> FailedEvent | None:
        """Returns a record by a strongly consistent read, or None."""
        item = self._table.get_item(Key={"id": failure_id}, ConsistentRead=True).get("Item")
        return None if item is None else _from_item(item)

    def update(
        self, failure_id: str, decide: Callable[[FailedEvent | None], FailedEvent | None]
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
        return load_decide_save(lambda: self.get(failure_id), decide, lambda _, changed: self._save(changed))

    def page(self, status: FailedEventStatus | None, consumer: str | None, limit: int, start: Position | None) -> Page:
        """Returns a page of items with the attributes of the index, newest first within a status.

        Args:
            status: None lists all statuses, one after the other.
            consumer: None lists all consumers.
            start: the `last` of an earlier page; None for the first page.
        """

        def read(start: Position | None) -> tuple[list[dict[str, Any]], Position | None]:
            position = start or {"status": status or STATUSES[0]}
            query: dict[str, Any] = {"KeyConditionExpression": Key("status").eq(str(position["status"]))}
            if consumer:
                query["FilterExpression"] = Attr("consumer").eq(consumer)
            if "id" in position:  # without it, the page starts at the first record of the status
                query["ExclusiveStartKey"] = {name: position[name] for name in INDEX_KEY}
            size = read_limit(limit, filtered=consumer is not None)
            answer = self._table.query(IndexName=INDEX, ScanIndexForward=False, Limit=size, **query)
            later = () if status else STATUSES[STATUSES.index(position["status"]) + 1 :]
            following = answer.get("LastEvaluatedKey") or ({"status": later[0]} if later else None)
            return answer["Items"], following

        return read_page(read, start, limit, INDEX_KEY)

    def _save(self, record: FailedEvent) -> FailedEvent:
        saved = replace(record, version=record.version + 1)
        values = {attribute: getattr(saved, field) for field, attribute in ATTRIBUTES.items()}
        version = Attr("version")
        try:
            self._table.put_item(
                Item={name: value for name, value in values.items() if value is not None},
                ConditionExpression=version.eq(record.version) if record.version else version.not_exists(),
            )
        except self._table.meta.client.exceptions.ConditionalCheckFailedException as error:
            raise ConcurrentUpdate(record.id) from error
        return saved


def _from_item(item: Mapping[str, Any]) -> FailedEvent:
    values: dict[str, Any] = {field: item[name] for field, name in ATTRIBUTES.items() if name in item}
    values |= {field: int(value) for field, value in values.items() if isinstance(value, Decimal)}
    kind, status = FailureKind(values.pop("kind")), FailedEventStatus(values.pop("status"))
    return FailedEvent(**values | {"message_ids": frozenset(values["message_ids"])}, kind=kind, status=status)
