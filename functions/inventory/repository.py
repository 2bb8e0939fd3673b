"""Stock and reservations in DynamoDB. A change of both is one transaction."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from inventory.domain import ReservationStatus, Shortage
from orderflow.dynamodb import ATTEMPTS, CONDITION_FAILED, NO_ERROR, is_retryable, pause_after, read_batch, reason_codes
from orderflow.event_store import EventStore, Stream, from_error
from orderflow.events import Item, StoredEvent

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.service_resource import DynamoDBServiceResource

SHOWN_CHANGES = 10
KEYS_PER_READ = 100
"""The most keys in one request (DynamoDB API reference, BatchGetItem)."""


@dataclass(frozen=True)
class Stock:
    """What there is of a product; all numbers are 0 for one that never had any.

    Args:
        product_id: which product.
        available: how many can be reserved.
        reserved: how many are.
        version: the number of its changes, reservations and releases too.
        changes: the number of those that people made.
    """

    product_id: str
    available: int
    reserved: int
    version: int
    changes: int


@dataclass(frozen=True)
class StockChange:
    """A change of stock that somebody made, kept for ever.

    Args:
        before: how many were available.
        after: how many are.
        by: who: the subject of their token.
        note: why.
        at: when.
        version: the stock's version that it made.
    """

    before: int
    after: int
    by: str
    note: str
    at: str
    version: int


class AlreadyDecided(Exception):
    """The reservation is not (any longer) as the caller saw it; nothing was changed."""


class OutOfStock(Exception):
    """Not enough of some products; nothing was changed."""

    def __init__(self, shortages: Sequence[Shortage]) -> None:
        super().__init__(f"short of {', '.join(shortage['productId'] for shortage in shortages)}")
        self.shortages = shortages


class StockChanged(Exception):
    """The stock is at another version than the caller's; nothing was changed.

    Attributes:
        version: the one it is at.
    """

    def __init__(self, product_id: str, version: int) -> None:
        super().__init__(f"the stock of {product_id} is at version {version}")
        self.version = version


class ChangeNumberTaken(Exception):
    """The stock change of this number exists already; nothing was changed."""


class Contention(Exception):
    """Every attempt conflicted with other writers or was throttled; nothing was changed. A later retry can succeed."""


class TransactionRejected(Exception):
    """DynamoDB cancelled a transaction for a reason that no retry clears; nothing was changed.

    The text names the items that caused it, each with its reason code.
    """


class Inventory:
    """The inventory table.

    Args:
        dynamodb: the DynamoDB resource.
        table: the table's name.
        pause: waits after so many failed attempts.
    """

    def __init__(
        self,
        dynamodb: "DynamoDBServiceResource",
        table: str,
        pause: Callable[[int], None] = pause_after,
    ) -> None:
        self._client = dynamodb.meta.client
        self._table = table
        self._store = EventStore(self._client, table, "pk")
        self._pause = pause

    def load(self, order_id: str) -> Stream | None:
        """An order's reservation, or None."""
        return self._store.load(_reservation(order_id))

    def reserve(self, order_id: str, event: StoredEvent, items: Sequence[Item]) -> None:
        """Take every item from stock and store the reservation's first event; all of it or nothing.

        Raises:
            AlreadyDecided: the order has a reservation.
            OutOfStock: with every product of which there is not enough.
            Contention: every attempt conflicted with other writers or was throttled.
            TransactionRejected: a product's item is malformed, for example without `reserved`.
        """
        first = self._store.update(_reservation(order_id), [event], 0, {"status": ReservationStatus.RESERVED.value})
        moves = self._moves(items, "SET available = available - :n, reserved = reserved + :n", "available >= :n")

        def raise_if_decided(error: ClientError) -> None:
            _raise_if_reservation_changed(error)
            _raise_if_out_of_stock(error, items)

        self._transact([{"Update": write} for write in (first, *moves)], raise_if_decided)

    def release(self, order_id: str, event: StoredEvent, version: int, items: Sequence[Item]) -> None:
        """Give every item back to stock and store the release; all of it or nothing.

        Args:
            order_id: whose reservation.
            event: the release.
            version: the reservation's version that the caller decided on.
            items: what was reserved.

        Raises:
            AlreadyDecided: the reservation has changed since.
            Contention: every attempt conflicted with other writers or was throttled.
            TransactionRejected: a product's item is malformed, or has fewer pieces reserved than the reservation holds.
        """
        first = self._store.update(
            _reservation(order_id), [event], version, {"status": ReservationStatus.RELEASED.value}
        )
        moves = self._moves(items, "SET available = available + :n, reserved = reserved - :n", "reserved >= :n")
        self._transact([{"Update": write} for write in (first, *moves)], _raise_if_reservation_changed)

    def record(self, order_id: str, event: StoredEvent, status: ReservationStatus) -> None:
        """Store the first event of a reservation that holds nothing: a shortage, or a release ahead of the order.

        Raises:
            VersionConflict: the order has a reservation by now; nothing was stored.
        """
        self._store.append(_reservation(order_id), [event], 0, {"status": status.value})

    def stock(self, product_id: str) -> Stock:
        """What there is of a product.

        Raises:
            IncompleteRead: DynamoDB was too busy to answer.
        """
        item = self._read([_product(product_id)]).get(_product(product_id), {})
        numbers = {name: int(item.get(name, 0)) for name in ("available", "reserved", "version", "changes")}
        return Stock(product_id, **numbers)

    def changes(self, stock: Stock) -> list[StockChange]:
        """The last changes that people made to a product's stock, newest first.

        Raises:
            IncompleteRead: DynamoDB was too busy to answer in full.
        """
        oldest = max(stock.changes - SHOWN_CHANGES, 0)
        keys = [_change(stock.product_id, number) for number in range(stock.changes, oldest, -1)]
        found = self._read(keys) if keys else {}
        return [_stock_change(found[key]) for key in keys]

    def set_available(self, stock: Stock, available: int, by: str, note: str, at: str) -> Stock:
        """Set how many of a product are available, and store who did it; both or nothing.

        The changes of a product that was deleted and created again are kept. New ones are numbered after them.

        Args:
            stock: as the caller has seen it.
            available: the new number of available pieces.
            by: the subject of the token of the person who makes the change.
            note: the reason for the change.
            at: the time of the change, RFC 3339.

        Returns:
            The stock with the change.

        Raises:
            StockChanged: it has changed since.
            Contention: every attempt conflicted with other writers or was throttled.
            IncompleteRead: DynamoDB was too busy to answer.
        """
        try:
            return self._set_available(stock, available, by, note, at)
        except ChangeNumberTaken:
            renumbered = replace(stock, changes=self._last_change_number(stock))
            return self._set_available(renumbered, available, by, note, at)

    def _set_available(self, stock: Stock, available: int, by: str, note: str, at: str) -> Stock:
        changed = replace(stock, available=available, version=stock.version + 1, changes=stock.changes + 1)
        change = StockChange(stock.available, available, by, note, at, changed.version)
        update: dict[str, Any] = {
            "TableName": self._table,
            "Key": {"pk": _product(stock.product_id)},
            "UpdateExpression": "SET available = :available, reserved = if_not_exists(reserved, :none), "
            "changes = :changes ADD version :one",
            # Stock that was never changed, or never existed, has no version
            "ConditionExpression": "version = :version" if stock.version else "attribute_not_exists(version)",
            "ExpressionAttributeValues": {":available": available, ":none": 0, ":changes": changed.changes, ":one": 1},
            "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
        }
        if stock.version:
            update["ExpressionAttributeValues"][":version"] = stock.version
        put = {
            "TableName": self._table,
            "Item": {"pk": _change(stock.product_id, changed.changes), "productId": stock.product_id, **vars(change)},
            "ConditionExpression": "attribute_not_exists(pk)",
        }

        def raise_if_changed(error: ClientError) -> None:
            of_stock, of_change = error.response["CancellationReasons"]
            if _failed_condition(of_stock):
                raise StockChanged(stock.product_id, int(from_error(of_stock).get("version", 0))) from error
            if _failed_condition(of_change):
                raise ChangeNumberTaken from error

        self._transact([{"Update": update}, {"Put": put}], raise_if_changed)
        return changed

    def _last_change_number(self, stock: Stock) -> int:
        """The number of a product's newest stored change. Their numbers have no gaps."""
        number = stock.changes
        while True:
            keys = [_change(stock.product_id, number + step) for step in range(1, KEYS_PER_READ + 1)]
            found = len(self._read(keys))
            number += found
            if found < len(keys):
                return number

    def _moves(self, items: Sequence[Item], update: str, condition: str) -> list[dict[str, Any]]:
        """The UpdateItems that move a reservation's items between `available` and `reserved`."""
        return [
            {
                "TableName": self._table,
                "Key": {"pk": _product(item["productId"])},
                "UpdateExpression": f"{update} ADD version :one",
                "ConditionExpression": condition,
                "ExpressionAttributeValues": {":n": item["quantity"], ":one": 1},
                "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
            }
            for item in items
        ]

    def _transact(self, writes: Sequence[Any], raise_if_decided: Callable[[ClientError], None]) -> None:
        """Write all or nothing, and retry a transaction that conflicts with another one or is throttled.

        Args:
            writes: the operations of TransactWriteItems.
            raise_if_decided: raises the caller's own error if a failed condition explains the cancellation.

        Raises:
            Contention: every attempt conflicted with other writers or was throttled.
            TransactionRejected: the transaction was cancelled for any other reason.
        """
        for attempt in range(1, ATTEMPTS + 1):
            try:
                self._client.transact_write_items(TransactItems=writes)
                return
            except self._client.exceptions.TransactionCanceledException as error:
                raise_if_decided(error)
                codes = reason_codes(error)
                if not is_retryable(codes):
                    raise TransactionRejected(_described(writes, codes)) from error
                if attempt == ATTEMPTS:
                    raise Contention(f"{_described(writes, codes)}, after {ATTEMPTS} attempts") from error
                self._pause(attempt)

    def _read(self, keys: Iterable[str]) -> dict[str, dict[str, Any]]:
        """Those of the items that exist, by key, read consistently."""
        items = read_batch(self._client, self._table, [{"pk": key} for key in keys], consistent=True)
        return {str(item["pk"]): item for item in items}


def _raise_if_reservation_changed(error: ClientError) -> None:
    """Tell a reservation that is not as the caller saw it from all other reasons of a cancellation."""
    if _failed_condition(error.response["CancellationReasons"][0]):
        raise AlreadyDecided from error


def _raise_if_out_of_stock(error: ClientError, items: Sequence[Item]) -> None:
    """Tell a product's failed condition from all other reasons of a cancellation."""
    shortages: list[Shortage] = [
        {
            "productId": item["productId"],
            "asked": item["quantity"],
            "available": int(from_error(reason).get("available", 0)),
        }
        for item, reason in zip(items, error.response["CancellationReasons"][1:], strict=True)
        if _failed_condition(reason)
    ]
    if shortages:
        raise OutOfStock(shortages) from error


def _described(writes: Sequence[Any], codes: Sequence[str]) -> str:
    """The items that a transaction was cancelled for, each with its reason code."""
    operations = [next(iter(write.values())) for write in writes]
    keys = [operation.get("Key", operation.get("Item"))["pk"] for operation in operations]
    return ", ".join(f"{key}: {code}" for key, code in zip(keys, codes, strict=True) if code != NO_ERROR)


def _failed_condition(reason: Mapping[str, Any]) -> bool:
    return bool(reason.get("Code") == CONDITION_FAILED)


def _reservation(order_id: str) -> str:
    return f"RESERVATION#{order_id}"


def _product(product_id: str) -> str:
    return f"PRODUCT#{product_id}"


def _change(product_id: str, number: int) -> str:
    return f"STOCK_CHANGE#{product_id}#{number}"


def _stock_change(item: Mapping[str, Any]) -> StockChange:
    before, after, version = (int(item[name]) for name in ("before", "after", "version"))
    return StockChange(before, after, item["by"], item["note"], item["at"], version)
