"""Stock and reservations in DynamoDB. A change of both is one transaction."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from inventory.domain import Reservation, Shortage, apply, fold
from orderflow import dynamodb
from orderflow.event_store import EventStore
from orderflow.events import StoredEvent

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.service_resource import DynamoDBServiceResource

SHOWN_CHANGES = 10
KEYS_PER_READ = 100
"""The most keys in one request (DynamoDB API reference, BatchGetItem)."""


@dataclass(frozen=True)
class Stock:
    """The stock of a product; all numbers are 0 if it never had any.

    Args:
        version: the number of all changes, including reservations and releases.
        changes: the number of changes made by staff.
    """

    product_id: str
    available: int
    reserved: int
    version: int
    changes: int


@dataclass(frozen=True)
class StockChange:
    """A change of the available quantity made by staff. It never expires.

    Args:
        by: the subject of the staff member's token.
        at: RFC 3339, UTC.
        version: the stock's version after the change.
    """

    before: int
    after: int
    by: str
    note: str
    at: str
    version: int


class StockChanged(Exception):
    """The stock is at another version than the caller's; nothing was changed."""

    def __init__(self, product_id: str, version: int) -> None:
        super().__init__(f"the stock of {product_id} is at version {version}")
        self.version = version


class Contention(Exception):
    """Every attempt conflicted with other writers or was throttled; nothing was changed. A later retry can succeed."""


class TransactionRejected(Exception):
    """DynamoDB cancelled a transaction for a reason that a retry cannot clear; nothing was changed.

    The text names the items that caused it, each with its reason code.

    Attributes:
        failed_conditions: by key, the stored items whose conditions failed; {} for an item that does not exist.
    """

    def __init__(self, text: str, failed_conditions: Mapping[str, Mapping[str, Any]]) -> None:
        super().__init__(text)
        self.failed_conditions = failed_conditions


class Inventory:
    """The inventory table."""

    def __init__(self, resource: "DynamoDBServiceResource", table: str) -> None:
        self._client = resource.meta.client
        self._table = table
        self._store = EventStore(self._client, table, "pk")
        self._pause = dynamodb.pause_after

    def load(self, order_id: str) -> Reservation | None:
        """Returns an order's reservation, or None, read strongly consistent."""
        stream = self._store.load(_reservation(order_id))
        return fold(stream.events) if stream else None

    def reserve(self, event: StoredEvent) -> list[Shortage]:
        """Takes all items of an order from stock and stores the reservation's first event, or changes nothing.

        Returns:
            The products that are out of stock; if there are any, nothing was changed.

        Raises:
            ConcurrentUpdate: the order has a reservation.
            TransactionRejected: a product's item is malformed, for example without `reserved`.
        """
        reservation = fold([event])
        take = "SET available = available - :n, reserved = reserved + :n"
        try:
            self._store_and_move(reservation, event, take, "available >= :n")
        except TransactionRejected as error:
            shortages: list[Shortage] = [
                {"productId": item["productId"], "asked": item["quantity"], "available": int(found.get("available", 0))}
                for item in reservation.order["items"]
                if (found := error.failed_conditions.get(_product(item["productId"]))) is not None
            ]
            if not shortages:
                raise
            return shortages
        return []

    def create(self, event: StoredEvent) -> Reservation:
        """Stores the first event of a reservation that holds no stock: a shortage, or a release before the order.

        Raises:
            VersionConflict: the order has a reservation; nothing was stored.
        """
        reservation = fold([event])
        self._store.append(_reservation(reservation.order["orderId"]), [event], 0, {"status": reservation.status.value})
        return reservation

    def update(
        self, order_id: str, decide: Callable[[Reservation | None], StoredEvent | None]
    ) -> tuple[Reservation | None, StoredEvent | None]:
        """Stores the release of a reservation and returns its items to stock, in one transaction.

        Args:
            decide: returns the release, or None to change nothing. It gets None if the order has no reservation.

        Returns:
            The reservation afterwards, and the event that was stored, if any.

        Raises:
            TransactionRejected: a product's item is malformed, or has fewer pieces reserved than the reservation holds.
        """

        def save(reservation: Reservation | None, event: StoredEvent) -> Reservation:
            if reservation is None:
                return self.create(event)
            released = apply(reservation, event)
            give_back = "SET available = available + :n, reserved = reserved - :n"
            self._store_and_move(released, event, give_back, "reserved >= :n")
            return released

        return dynamodb.load_decide_save(lambda: self.load(order_id), decide, save)

    def _store_and_move(self, reservation: Reservation, event: StoredEvent, update: str, condition: str) -> None:
        """Stores a reservation's event and moves its items between `available` and `reserved`, in one transaction.

        Args:
            reservation: the reservation after the event.
            update: the update expression for each product; `:n` is the quantity.
            condition: the condition for each product.
        """
        key, status = _reservation(reservation.order["orderId"]), reservation.status.value
        store = self._store.update_request(key, [event], reservation.version - 1, {"status": status})
        moves = [
            {
                "TableName": self._table,
                "Key": {"pk": _product(item["productId"])},
                "UpdateExpression": f"{update} ADD version :one",
                "ConditionExpression": condition,
                "ExpressionAttributeValues": {":n": item["quantity"], ":one": 1},
                "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
            }
            for item in reservation.order["items"]
        ]
        try:
            self._transact([{"Update": request} for request in (store, *moves)])
        except TransactionRejected as error:
            if key in error.failed_conditions:
                raise dynamodb.ConcurrentUpdate(f"{key} has changed") from error
            raise

    def stock(self, product_id: str) -> Stock:
        """Returns the stock of a product, read strongly consistent."""
        item = self._read([_product(product_id)]).get(_product(product_id), {})
        numbers = {name: int(item.get(name, 0)) for name in ("available", "reserved", "version", "changes")}
        return Stock(product_id, **numbers)

    def changes(self, stock: Stock) -> list[StockChange]:
        """Returns the last SHOWN_CHANGES changes that staff made to a product's stock, newest first."""
        oldest = max(stock.changes - SHOWN_CHANGES, 0)
        keys = [_change(stock.product_id, number) for number in range(stock.changes, oldest, -1)]
        found = self._read(keys) if keys else {}
        return [
            StockChange(int(row["before"]), int(row["after"]), row["by"], row["note"], row["at"], int(row["version"]))
            for row in (found[key] for key in keys)
        ]

    def set_available(self, stock: Stock, available: int, by: str, note: str, at: str) -> Stock:
        """Sets the available quantity of a product and stores who changed it, in one transaction.

        The changes of a product that was deleted and created again are kept. New ones are numbered after them.

        Args:
            stock: the stock as the caller read it.
            by: the subject of the staff member's token.
            at: RFC 3339, UTC.

        Returns:
            The stock after the change.

        Raises:
            StockChanged: the stock has changed since the caller read it.
            Contention: every attempt conflicted with other writers or was throttled.
        """
        changed = replace(stock, available=available, version=stock.version + 1, changes=stock.changes + 1)
        change = StockChange(stock.available, available, by, note, at, changed.version)
        stock_key, change_key = _product(stock.product_id), _change(stock.product_id, changed.changes)
        update: dict[str, Any] = {
            "TableName": self._table,
            "Key": {"pk": stock_key},
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
            "Item": {"pk": change_key, "productId": stock.product_id, **vars(change)},
            "ConditionExpression": "attribute_not_exists(pk)",
        }
        try:
            self._transact([{"Update": update}, {"Put": put}])
        except TransactionRejected as error:
            if stock_key in error.failed_conditions:
                version = int(error.failed_conditions[stock_key].get("version", 0))
                raise StockChanged(stock.product_id, version) from error
            if change_key in error.failed_conditions:
                renumbered = replace(stock, changes=self._last_change_number(stock))
                return self.set_available(renumbered, available, by, note, at)
            raise
        return changed

    def _last_change_number(self, stock: Stock) -> int:
        """Returns the number of a product's newest stored change. The numbers have no gaps."""
        number = stock.changes
        while True:
            keys = [_change(stock.product_id, number + step) for step in range(1, KEYS_PER_READ + 1)]
            found = len(self._read(keys))
            number += found
            if found < len(keys):
                return number

    def _transact(self, writes: Sequence[Any]) -> None:
        """Writes all or nothing, and retries a transaction that conflicts with another one or is throttled.

        Raises:
            Contention: every attempt conflicted with other writers or was throttled.
            TransactionRejected: the transaction was cancelled for any other reason, such as a failed condition.
        """
        keys = [(request.get("Key") or request["Item"])["pk"] for write in writes for request in write.values()]
        for attempt in range(1, dynamodb.ATTEMPTS + 1):
            try:
                self._client.transact_write_items(TransactItems=writes)
                return
            except self._client.exceptions.TransactionCanceledException as error:
                codes = dict(zip(keys, dynamodb.reason_codes(error), strict=True))
                causes = ", ".join(f"{key}: {code}" for key, code in codes.items() if code != dynamodb.NO_ERROR)
                if not dynamodb.is_retryable(codes.values()):
                    failed = {
                        key: dynamodb.deserialize(reason.get("Item", {}))
                        for key, reason in zip(keys, error.response["CancellationReasons"], strict=True)
                        if codes[key] == dynamodb.CONDITION_FAILED
                    }
                    raise TransactionRejected(causes, failed) from error
                if attempt == dynamodb.ATTEMPTS:
                    raise Contention(f"{causes}, after {dynamodb.ATTEMPTS} attempts") from error
                self._pause(attempt)

    def _read(self, keys: Iterable[str]) -> dict[str, dict[str, Any]]:
        """Returns the items that exist, by key, read strongly consistent."""
        items = dynamodb.read_batch(self._client, self._table, [{"pk": key} for key in keys], consistent=True)
        return {str(item["pk"]): item for item in items}


def _reservation(order_id: str) -> str:
    return f"RESERVATION#{order_id}"


def _product(product_id: str) -> str:
    return f"PRODUCT#{product_id}"


def _change(product_id: str, number: int) -> str:
    return f"STOCK_CHANGE#{product_id}#{number}"
