"""Stock and reservations in DynamoDB. A change of both is one transaction."""

import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from inventory.reservations import Shortage, Status
from orderflow.event_store import EventStore, Stream, from_error
from orderflow.events import Item, StoredEvent

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.service_resource import DynamoDBServiceResource

CONFLICT_ATTEMPTS = 8
CONFLICT_PAUSE = 0.05
"""Seconds; the longest pause before attempt n is n times as long, so all of them together stay below two seconds."""


class AlreadyDecided(Exception):
    """The reservation is not (any longer) as the caller saw it; nothing was changed."""


class OutOfStock(Exception):
    """Not enough of some products; nothing was changed."""

    def __init__(self, shortages: Sequence[Shortage]) -> None:
        super().__init__(f"short of {', '.join(shortage['productId'] for shortage in shortages)}")
        self.shortages = shortages


class Contention(Exception):
    """Other writers of the same items kept coming first; nothing was changed, and a retry is worth while."""


class Inventory:
    """The inventory table.

    Args:
        dynamodb: the DynamoDB resource.
        table: the table's name.
        pause: waits for so many seconds.
        jitter: a random number between its arguments.
    """

    def __init__(
        self,
        dynamodb: "DynamoDBServiceResource",
        table: str,
        pause: Callable[[float], None] = time.sleep,
        jitter: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._client = dynamodb.meta.client
        self._table = table
        self._store = EventStore(self._client, table, "pk")
        self._pause = pause
        self._jitter = jitter

    def load(self, order_id: str) -> Stream | None:
        """An order's reservation, or None."""
        return self._store.load(_reservation(order_id))

    def reserve(self, order_id: str, event: StoredEvent, items: Sequence[Item]) -> None:
        """Take every item from stock and store the reservation's first event; all of it or nothing.

        Raises:
            AlreadyDecided: the order has a reservation.
            OutOfStock: with every product of which there is not enough.
            Contention: see there.
        """
        first = self._store.update(_reservation(order_id), [event], 0, {"status": Status.RESERVED.value})
        self._transact(first, items, "SET available = available - :n, reserved = reserved + :n", "available >= :n")

    def release(self, order_id: str, event: StoredEvent, version: int, items: Sequence[Item]) -> None:
        """Give every item back to stock and store the release; all of it or nothing.

        Args:
            order_id: whose reservation.
            event: the release.
            version: the reservation's version that the caller decided on.
            items: what was reserved.

        Raises:
            AlreadyDecided: the reservation has changed since.
            Contention: see there.
        """
        first = self._store.update(_reservation(order_id), [event], version, {"status": Status.RELEASED.value})
        self._transact(first, items, "SET available = available + :n, reserved = reserved - :n", "reserved >= :n")

    def record(self, order_id: str, event: StoredEvent, status: Status) -> None:
        """Store the first event of a reservation that holds nothing: a shortage, or a release ahead of the order.

        Raises:
            VersionConflict: the order has a reservation by now; nothing was stored.
        """
        self._store.append(_reservation(order_id), [event], 0, {"status": status.value})

    def _transact(self, first: dict[str, Any], items: Sequence[Item], update: str, condition: str) -> None:
        writes = [
            {
                "TableName": self._table,
                "Key": {"pk": f"PRODUCT#{item['productId']}"},
                "UpdateExpression": update,
                "ConditionExpression": condition,
                "ExpressionAttributeValues": {":n": item["quantity"]},
                "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
            }
            for item in items
        ]
        for attempt in range(1, CONFLICT_ATTEMPTS + 1):
            try:
                self._client.transact_write_items(TransactItems=[{"Update": write} for write in [first, *writes]])  # type: ignore[typeddict-item]
            except self._client.exceptions.TransactionCanceledException as error:
                _raise_if_decided(error, items)
                self._pause(self._jitter(0, CONFLICT_PAUSE * attempt))
            else:
                return
        raise Contention(f"{first['Key']['pk']}: {CONFLICT_ATTEMPTS} transactions in conflict")


def _raise_if_decided(error: ClientError, items: Sequence[Item]) -> None:
    """Tell a failed condition, which decides, from a conflict with another transaction, which says nothing."""
    first, *products = error.response["CancellationReasons"]
    if _failed_condition(first):
        raise AlreadyDecided from error
    shortages: list[Shortage] = [
        {
            "productId": item["productId"],
            "asked": item["quantity"],
            "available": int(from_error(reason).get("available", 0)),
        }
        for item, reason in zip(items, products, strict=True)
        if _failed_condition(reason)
    ]
    if shortages:
        raise OutOfStock(shortages) from error


def _failed_condition(reason: Mapping[str, Any]) -> bool:
    return bool(reason.get("Code") == "ConditionalCheckFailed")


def _reservation(order_id: str) -> str:
    return f"RESERVATION#{order_id}"
