"""DynamoDB: requests for items, atomic as in DynamoDB, with transactions, indexes and stale reads.

Moto manages the tables and describes them. The items are kept here, because moto copies and parses too much for each
request, and accepts requests that DynamoDB refuses. Messages and limits are those of DynamoDB:
https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_Operations_Amazon_DynamoDB.html
"""

import hashlib
import json
import logging
import threading
import time
import uuid
import zlib
from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from moto.dynamodb.models import dynamodb_backends
from moto.dynamodb.models.table import Table
from moto.dynamodb.responses import DynamoHandler

from localaws.aws import ACCOUNT_ID, REGION, ServiceError
from localaws.dynamodb_expressions import Expressions, select, tree_of
from localaws.dynamodb_streams import Streams
from localaws.dynamodb_values import Item, checked_item, comparable, invalid, item_size
from localaws.faults import Answer
from localaws.moto_patch import replace_method

if TYPE_CHECKING:
    from localaws.store import Store

# How long a ClientRequestToken makes a transaction idempotent:
# https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_TransactWriteItems.html
TRANSACTION_TOKEN_SECONDS = 600
# Limits: https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Constraints.html
KB, MB = 1024, 1024 * 1024
ITEM_BYTES, TRANSACTION_BYTES, PAGE_BYTES, BATCH_GET_BYTES = 400 * KB, 4 * MB, MB, 16 * MB
KEY_BYTES = {"HASH": 2048, "RANGE": 1024}
TRANSACTION_OPERATIONS, BATCH_WRITES, BATCH_KEYS = 100, 25, 100
# Required parameters of requests and of the operations of a transaction.
_REQUIRED = {
    **dict.fromkeys(["GetItem", "DeleteItem", "UpdateItem", "Get", "Delete", "DeleteRequest"], ("TableName", "Key")),
    **dict.fromkeys(["PutItem", "Put"], ("TableName", "Item")),
    **dict.fromkeys(["Query", "Scan"], ("TableName",)),
    **dict.fromkeys(["BatchGetItem", "BatchWriteItem"], ("RequestItems",)),
    **dict.fromkeys(["TransactGetItems", "TransactWriteItems"], ("TransactItems",)),
    "Update": ("TableName", "Key", "UpdateExpression"),
    "ConditionCheck": ("TableName", "Key", "ConditionExpression"),
}
_LEGACY = (
    "AttributesToGet",
    "AttributeUpdates",
    "ConditionalOperator",
    "Expected",
    "KeyConditions",
    "QueryFilter",
    "ScanFilter",
)
# Operations of moto that would work on its own items, which do not exist here.
_NOT_SUPPORTED = (
    "CreateBackup", "RestoreTableFromBackup", "RestoreTableToPointInTime", "ExportTableToPointInTime", "ImportTable",
    "ExecuteStatement", "BatchExecuteStatement", "ExecuteTransaction",
)  # fmt: skip
_KEY_MISMATCH = "The provided key element does not match the schema"
_EMPTY_KEY = "The AttributeValue for a key attribute cannot contain an empty {} value."
_NOT_VALID = "One or more parameter values are not valid. "
_INVALID = "One or more parameter values were invalid: "
_CONDITION_FAILED = "The conditional request failed"
_UPDATE_RETURNS = ("ALL_NEW", "UPDATED_OLD", "UPDATED_NEW")
Key = tuple[Any, ...]
log = logging.getLogger(__name__)


class DynamoDBError(ServiceError):
    """An error with further members, such as the reasons of a cancelled transaction."""

    def __init__(self, code: str, message: str, **members: Any) -> None:
        super().__init__(code, message)
        self.members = members


class _Last:
    """Sorts after everything else."""

    def __lt__(self, _other: Any) -> bool:
        return False

    def __gt__(self, _other: Any) -> bool:
        return True


_LAST: Any = _Last()


class _Index:
    """A table or a secondary index: entries in the order of a scan, with the items of a partition in theirs.

    An entry is (hash of the partition key, partition key, sort key, table's key).
    """

    def __init__(
        self, name: str | None, schema: list[dict[str, str]], table_key: list[str], projection: dict[str, Any]
    ):
        self.name = name
        self.key = [element["AttributeName"] for element in sorted(schema, key=lambda element: element["KeyType"])]
        self.all_key = list(dict.fromkeys([*self.key, *table_key]))
        self.entries: list[Key] = []
        kind = projection.get("ProjectionType", "ALL")
        included = [*self.all_key, *(projection.get("NonKeyAttributes") or [])]
        self.projection = None if kind == "ALL" else tree_of((attribute,) for attribute in included)

    def entry(self, item: Item, key: Key) -> Key | None:
        """Returns an item's entry, or None if it lacks a key of the index."""
        if any(name not in item for name in self.key):
            return None
        values = [comparable(item[name]) for name in self.key]
        return (*partition(values[0]), values[1] if len(values) > 1 else "", key)


def partition(value: Any) -> Key:
    return zlib.crc32(str(value).encode()), value


class _Items:
    """The items of a table. Stored items are never changed, but replaced."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self.types = {attribute["AttributeName"]: attribute["AttributeType"] for attribute in table.attr}
        self.rows: dict[Key, tuple[Item, int]] = {}  # with the size
        self.previous: dict[Key, tuple[float, Item | None]] = {}  # time of the last write, and the item before it
        self.indexes: dict[str | None, _Index] = {}
        self.update_indexes()

    def update_indexes(self) -> None:
        """Adds and removes secondary indexes as in the table's definition."""
        table = self.table
        if self.indexes.keys() != {None, *(index.name for index in table.all_indexes())}:
            self.types = {attribute["AttributeName"]: attribute["AttributeType"] for attribute in table.attr}
            self.indexes = {None: _Index(None, table.schema, table.table_key_attrs, {})}
            for index in table.all_indexes():
                self.indexes[index.name] = _Index(index.name, index.schema, table.table_key_attrs, index.projection)
            rows, self.rows = self.rows, {}
            for key, (item, _) in rows.items():
                self.write(key, item)

    def get(self, key: Key) -> Item | None:
        return self.rows[key][0] if key in self.rows else None

    def write(self, key: Key, item: Item | None) -> None:
        old = self.get(key)
        for index in self.indexes.values():
            before, after = (index.entry(state, key) if state else None for state in (old, item))
            if before != after:
                if before:
                    del index.entries[bisect_left(index.entries, before)]
                if after:
                    insort(index.entries, after)
        if item is None:
            self.rows.pop(key, None)
        else:
            self.rows[key] = (item, item_size(item))

    def without_writes_since(self, since: float) -> "_Items":
        """Returns a copy in which the items written after a time (monotonic clock) are as before their last write."""
        copied = _Items(self.table)
        for key, (item, _) in self.rows.items():
            copied.write(key, item)
        for key, (written, before) in self.previous.items():
            if written > since:
                copied.write(key, before)
        return copied

    def key_of(self, attributes: Any) -> Key:
        """Returns the key in a request.

        Raises:
            ServiceError: it does not match the table's schema.
        """
        names = self.indexes[None].key
        if set(attributes) != set(names) or any(self.types[name] not in attributes[name] for name in names):
            raise invalid(_KEY_MISMATCH)
        return self.checked_key(checked_item(attributes))

    def checked_key(self, item: Item) -> Key:
        """Returns the key of an item. Raises ServiceError if a part is missing, empty, too long or of another type."""
        for name, role in zip(self.indexes[None].key, KEY_BYTES, strict=False):
            if name not in item:
                raise invalid(f"{_INVALID}Missing the key {name} in the item")
            [(kind, content)] = item[name].items()
            if kind != self.types[name]:
                raise invalid(f"{_INVALID}Type mismatch for key {name} expected: {self.types[name]} actual: {kind}")
            if not content:
                raise invalid(f"{_NOT_VALID}{_EMPTY_KEY.format('binary' if kind == 'B' else 'string')} Key: {name}")
            if item_size({"": item[name]}) > KEY_BYTES[role]:
                sizes = f"size limit of {KEY_BYTES[role]} bytes"
                if role == "HASH":
                    raise invalid(f"{_INVALID}Size of hashkey has exceeded the maximum {sizes}")
                raise invalid(f"{_INVALID}Aggregated size of all range keys has exceeded the {sizes}")
        return tuple(comparable(item[name]) for name in self.indexes[None].key)

    def check(self, item: Item, is_update: bool) -> None:
        """Checks the keys of the secondary indexes and the size of an item that is written.

        Raises:
            ServiceError: a key has another type or is empty, or the item is larger than 400 KB.
        """
        for index in self.indexes.values():
            for name in index.key if index.name else ():
                [(kind, content)] = item.get(name, {self.types[name]: "-"}).items()
                if kind != self.types[name]:
                    mismatch = f"Type mismatch for Index Key {name} Expected: {self.types[name]} Actual: {kind}"
                    raise invalid(f"{_INVALID}{mismatch} IndexName: {index.name}")
                if not content:
                    message = _EMPTY_KEY.format("binary" if kind == "B" else "string")
                    rule = "A value specified for a secondary index key is not supported. "
                    raise invalid(f"{_NOT_VALID}{rule}{message} IndexName: {index.name}, IndexKey: {name}")
        if item_size(item) > ITEM_BYTES:
            raise invalid(f"Item size {'to update ' if is_update else ''}has exceeded the maximum allowed size")


class _Write:
    """One write, or check, of one item. It is prepared without effect, and then applied.

    Args:
        kind: Put, Update, Delete or ConditionCheck.
        request: the request, or the operation of a transaction.

    Raises:
        ServiceError: the request is not valid, whatever the item is.
    """

    def __init__(self, items: _Items, kind: str, request: dict[str, Any]) -> None:
        self.items, self.kind, self.request = items, kind, request
        kinds = ("UpdateExpression", "ConditionExpression") if kind == "Update" else ("ConditionExpression",)
        self.expressions = Expressions(request, *kinds)
        if kind == "Put":
            self.new: Item | None = checked_item(request["Item"])
            self.key = items.checked_key(self.new)
            items.check(self.new, is_update=False)
        else:
            self.key, self.new = items.key_of(request["Key"]), None
        for name in self.expressions.attributes("UpdateExpression") & set(items.indexes[None].key):
            raise invalid(f"{_INVALID}Cannot update attribute {name}. This attribute is part of the key")
        self.old = items.get(self.key)
        self.holds = self.expressions.holds("ConditionExpression", self.old or {})

    def prepare(self) -> None:
        """Computes the new item. Raises ServiceError if an update does not fit the item."""
        if self.kind == "ConditionCheck":
            self.new = self.old
        elif self.kind == "Update":
            key = checked_item(self.request["Key"])
            self.new = self.expressions.changed(self.old if self.old is not None else key)
            self.items.check(self.new, is_update=True)

    def units(self) -> float:
        """Returns the consumed write capacity units."""
        return _units(max(item_size(self.old or {}), item_size(self.new or {})), KB)

    def old_for_failure(self) -> dict[str, Any]:
        """Returns the item for the response of a failed condition, if the request wants it."""
        wanted = self.request.get("ReturnValuesOnConditionCheckFailure") == "ALL_OLD"
        return {"Item": self.old} if wanted and self.old is not None else {}


class Tables:
    """All tables: executes one request at a time, so that every request is atomic, and reports changes to streams."""

    def __init__(self, store: "Store", replaced: ExitStack) -> None:
        self._store = store
        self._lock = threading.RLock()
        self._streams = Streams(self._lock, lambda arn, record: store.on_stream_record(arn, record), replaced)
        self._items: WeakKeyDictionary[Table, _Items] = WeakKeyDictionary()
        self._tokens: dict[str, tuple[float, str]] = {}
        self._unseen_since: float | None = None  # the current read misses writes after this time
        self._operations: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
            "GetItem": self._get_item,
            "PutItem": lambda request: self._write_item("Put", request),
            "UpdateItem": lambda request: self._write_item("Update", request),
            "DeleteItem": lambda request: self._write_item("Delete", request),
            "Query": self._query,
            "Scan": self._scan,
            "BatchGetItem": self._batch_get,
            "BatchWriteItem": self._batch_write,
            "TransactGetItems": self._transact_get,
            "TransactWriteItems": self._transact_write,
        }
        replace_method(replaced, Table, "__len__", lambda table: len(self._items_of(table).rows))

    def call(self, headers: Any, body: bytes) -> Answer:
        """Answers a request of the DynamoDB API."""
        name = headers["X-Amz-Target"].partition(".")[2]
        operation = self._operations.get(name)
        try:
            if name in _NOT_SUPPORTED:
                raise ServiceError("UnknownOperationException", f"localaws does not support {name} of DynamoDB")
            if operation is None:
                with self._lock:
                    return _call_moto(headers, body)
            request = json.loads(body)
            _require(name, request)
            with self._lock:
                result = operation(request)
        except ServiceError as error:
            space = (
                "com.amazon.coral.validate"
                if error.code == "ValidationException"
                else "com.amazonaws.dynamodb.v20120810"
            )
            result = {"__type": f"{space}#{error.code}", "message": error.message}
            if isinstance(error, DynamoDBError):
                result |= {"Message": error.message, **error.members}
            return _answer(error.status, result)
        return _answer(200, result)

    @contextmanager
    def stale_reads(self, seconds: float) -> Iterator[None]:
        """Implements Store.stale_reads. Holds the lock of the tables inside the context."""
        with self._lock:
            self._unseen_since = time.monotonic() - seconds
            try:
                yield
            finally:
                self._unseen_since = None

    def _items_of(self, table: Table) -> _Items:
        if table not in self._items:
            self._items[table] = _Items(table)
        items = self._items[table]
        items.update_indexes()
        return items

    def _table(self, name: str, is_read: bool = False) -> _Items:
        """Returns a table by its name or ARN.

        Raises:
            ServiceError: it does not exist.
        """
        table = dynamodb_backends[ACCOUNT_ID][REGION].tables.get(name.rpartition("/")[2])
        if table is None:
            raise ServiceError("ResourceNotFoundException", "Requested resource not found")
        items = self._items_of(table)
        stale = is_read and self._unseen_since is not None
        return items.without_writes_since(self._unseen_since or 0) if stale else items

    # ------------------------------------------------------------------------------------------------ writes

    def _apply(self, writes: list[_Write]) -> None:
        for write in writes:
            if write.new is write.old:
                continue
            write.items.write(write.key, write.new)
            if self._store.keeps_previous_images:
                write.items.previous[write.key] = (time.monotonic(), write.old)
        for write in writes:
            self._streams.add(write.items.table, write.old, write.new)

    def _write_item(self, kind: str, request: dict[str, Any]) -> dict[str, Any]:
        returned = request.get("ReturnValues", "NONE")
        if returned not in ("NONE", "ALL_OLD") and not (kind == "Update" and returned in _UPDATE_RETURNS):
            raise invalid("Return values set to invalid value")
        write = _Write(self._table(request["TableName"]), kind, request)
        if not write.holds:
            raise DynamoDBError("ConditionalCheckFailedException", _CONDITION_FAILED, **write.old_for_failure())
        write.prepare()
        self._apply([write])
        attributes = (write.old if returned.endswith("OLD") else write.new) if returned != "NONE" else None
        if attributes and returned.startswith("UPDATED"):
            attributes = write.expressions.updated_attributes(attributes)
        return ({"Attributes": attributes} if attributes else {}) | _capacity(request, write.units())

    def _batch_write(self, request: dict[str, Any]) -> dict[str, Any]:
        operations = [(name, op) for name, listed in request["RequestItems"].items() for op in listed]
        if not 0 < len(operations) <= BATCH_WRITES:
            rule = (
                "Too many items requested for the BatchWriteItem call"
                if operations
                else "The batch write request list for a table cannot be null or empty"
            )
            raise invalid(rule)
        writes = []
        for name, operation in operations:
            kind, wanted = _one(operation, ("PutRequest", "DeleteRequest"))
            wanted = {"TableName": name, **wanted}
            _require(kind.removesuffix("Request"), wanted)
            writes.append(_Write(self._table(name), kind.removesuffix("Request"), wanted))
        _refuse_duplicates(
            [(write.items.table.name, write.key) for write in writes], "Provided list of item keys contains duplicates"
        )
        self._apply(writes)
        used = [(write.items.table.name, write.units()) for write in writes]
        return {"UnprocessedItems": {}} | _capacities(request, used)

    def _transact_write(self, request: dict[str, Any]) -> dict[str, Any]:
        """Checks all conditions, then writes. A ClientRequestToken makes it idempotent for ten minutes.

        Raises:
            DynamoDBError: the transaction is cancelled; it has a reason for each operation, in the same order.
            ServiceError: the request is not valid, or its token was used with another request.
        """
        now, token = time.monotonic(), request.get("ClientRequestToken")
        digest = hashlib.sha256(json.dumps(request["TransactItems"], sort_keys=True).encode()).hexdigest()
        while self._tokens and next(iter(self._tokens.values()))[0] < now - TRANSACTION_TOKEN_SECONDS:
            del self._tokens[next(iter(self._tokens))]  # the oldest is the first
        if token in self._tokens:
            if self._tokens[token][1] != digest:
                rule = "The provided ClientRequestToken has been used with different request parameters"
                raise ServiceError("IdempotentParameterMismatchException", rule)
            return {}
        writes = []
        for kind, operation in _transact_items(request, ("Put", "Update", "Delete", "ConditionCheck")):
            writes.append(_Write(self._table(operation["TableName"]), kind, operation))
        _refuse_duplicates(
            [(write.items.table.name, write.key) for write in writes],
            "Transaction request cannot include multiple operations on one item",
        )
        reasons: list[dict[str, Any]] = []
        for write in writes:
            reason: dict[str, Any] = {"Code": "None"}
            if not write.holds:
                reason = {"Code": "ConditionalCheckFailed", "Message": _CONDITION_FAILED} | write.old_for_failure()
            else:
                try:
                    write.prepare()
                except ServiceError as error:
                    reason = {"Code": "ValidationError", "Message": error.message}
            reasons.append(reason)
        codes = [reason["Code"] for reason in reasons]
        if any(code != "None" for code in codes):
            message = "Transaction cancelled, please refer cancellation reasons for specific reasons"
            raise DynamoDBError(
                "TransactionCanceledException", f"{message} [{', '.join(codes)}]", CancellationReasons=reasons
            )
        if sum(item_size(write.new or {}) for write in writes) > TRANSACTION_BYTES:
            raise invalid("The aggregate size of the items in the transaction exceeds 4 MB")
        self._apply(writes)
        if token:
            self._tokens[token] = (now, digest)  # only after success: a cancelled transaction may be retried
        return _capacities(request, [(write.items.table.name, 2 * write.units()) for write in writes])

    # ------------------------------------------------------------------------------------------------- reads

    def _read(self, request: dict[str, Any]) -> tuple[dict[str, Any], int]:
        """Returns {"Item": …}, or {} if there is none, and the item's size."""
        items = self._table(request["TableName"], is_read=True)
        expressions = Expressions(request, "ProjectionExpression")
        item = items.get(items.key_of(request["Key"]))
        return ({}, 0) if item is None else ({"Item": expressions.projected(item)}, item_size(item))

    def _get_item(self, request: dict[str, Any]) -> dict[str, Any]:
        found, size = self._read(request)
        return found | _capacity(request, _units(size, 4 * KB) * (1 if request.get("ConsistentRead") else 0.5))

    def _transact_get(self, request: dict[str, Any]) -> dict[str, Any]:
        operations = [operation for _, operation in _transact_items(request, ("Get",))]
        reads = [self._read(operation) for operation in operations]
        used = [(op["TableName"], 2 * _units(size, 4 * KB)) for op, (_, size) in zip(operations, reads, strict=True)]
        return {"Responses": [found for found, _ in reads]} | _capacities(request, used)

    def _batch_get(self, request: dict[str, Any]) -> dict[str, Any]:
        responses: dict[str, list[Item]] = {}
        unprocessed: dict[str, Any] = {}
        total, used = 0, []
        if not 0 < sum(len(wanted["Keys"]) for wanted in request["RequestItems"].values()) <= BATCH_KEYS:
            raise invalid("Too many items requested for the BatchGetItem call")
        for name, wanted in request["RequestItems"].items():
            items = self._table(name, is_read=True)
            _refuse_duplicates(
                [items.key_of(key) for key in wanted["Keys"]], "Provided list of item keys contains duplicates"
            )
            responses[name] = []
            for key in wanted["Keys"]:
                found, size = self._read(wanted | {"TableName": name, "Key": key})
                total += size
                used.append((name, _units(size, 4 * KB) * (1 if wanted.get("ConsistentRead") else 0.5)))
                if total > BATCH_GET_BYTES:
                    unprocessed.setdefault(name, {**wanted, "Keys": []})["Keys"].append(key)
                elif found:
                    responses[name].append(found["Item"])
        return {"Responses": responses, "UnprocessedKeys": unprocessed} | _capacities(request, used)

    def _query(self, request: dict[str, Any]) -> dict[str, Any]:
        items, index = self._index(request)
        expressions = Expressions(request, "KeyConditionExpression", "FilterExpression", "ProjectionExpression")
        bounds = _key_bounds(items, index, expressions)
        if keys := expressions.attributes("FilterExpression") & set(index.key):
            rule = "Filter Expression can only contain non-primary key attributes: Primary key attribute"
            raise invalid(f"{rule}: {min(map(str, keys))}")
        return self._page(request, items, index, expressions, bounds)

    def _scan(self, request: dict[str, Any]) -> dict[str, Any]:
        items, index = self._index(request)
        return self._page(
            request, items, index, Expressions(request, "FilterExpression", "ProjectionExpression"), ((), (_LAST,))
        )

    def _index(self, request: dict[str, Any]) -> tuple[_Items, _Index]:
        items = self._table(request["TableName"], is_read=True)
        name = request.get("IndexName")
        index = items.indexes.get(name)
        if index is None:
            raise invalid(f"The table does not have the specified index: {name}")
        if request.get("Limit", 1) < 1:
            raise invalid(
                "1 validation error detected: Value at 'limit' failed to satisfy constraint: Member must have value greater than or equal to 1"
            )
        if name in {index.name for index in items.table.global_indexes}:
            if request.get("ConsistentRead"):
                raise invalid("Consistent reads are not supported on global secondary indexes")
            if index.projection and request.get("Select") == "ALL_ATTRIBUTES":
                rule = f"Select type ALL_ATTRIBUTES is not supported for global secondary index {name} because its projection type is not ALL"
                raise invalid(_INVALID + rule)
        return items, index

    def _page(
        self, request: dict[str, Any], items: _Items, index: _Index, expressions: Expressions, bounds: tuple[Key, Key]
    ) -> dict[str, Any]:
        """Returns the items between two entries, after ExclusiveStartKey, up to Limit and 1 MB."""
        entries, forward = index.entries, request.get("ScanIndexForward", True)
        start, end = (bisect_left(entries, bound) for bound in bounds)
        if after := request.get("ExclusiveStartKey"):
            position = _start_entry(items, index, after)
            if position < bounds[0] or not position < bounds[1]:
                raise invalid("The provided starting key is outside query boundaries based on provided conditions")
            start, end = (bisect_right(entries, position), end) if forward else (start, bisect_left(entries, position))
        found: list[Item] = []
        scanned = size = 0
        last: dict[str, Any] = {}
        segment, segments = request.get("Segment", 0), request.get("TotalSegments", 1)
        for place in range(start, end) if forward else range(end - 1, start - 1, -1):
            crc, *_, key = entries[place]
            if crc % segments != segment:
                continue
            item, bytes_ = items.rows[key]
            shown = item if index.projection is None else select(item, index.projection)
            scanned, size = scanned + 1, size + (bytes_ if shown is item else item_size(shown))
            if expressions.holds("FilterExpression", shown):
                found.append(expressions.projected(shown))
            if scanned == request.get("Limit") or size > PAGE_BYTES:
                last = {"LastEvaluatedKey": {name: item[name] for name in index.all_key}}
                break
        listed = {} if request.get("Select") == "COUNT" else {"Items": found}
        units = _units(size, 4 * KB) * (1 if request.get("ConsistentRead") else 0.5)
        return listed | {"Count": len(found), "ScannedCount": scanned} | last | _capacity(request, units)


def _key_bounds(items: _Items, index: _Index, expressions: Expressions) -> tuple[Key, Key]:
    """Returns the first entry that KeyConditionExpression selects, and the first after those.

    Raises:
        ServiceError: it is not a condition on the index's keys.
    """
    tree = expressions.tree("KeyConditionExpression")
    if tree is None:
        raise invalid("Either the KeyConditions or KeyConditionExpression parameter must be specified in the request.")
    conditions: dict[str, tuple[str, list[Any]]] = {}
    for kind, operand, *others in tree[1:] if tree[0] == "AND" else [tree]:
        is_key = operand[0] == "path" and len(operand[1]) == 1
        if kind not in _SORT_BOUNDS or not is_key or any(other[0] != "value" for other in others):
            raise invalid(f"Invalid operator used in KeyConditionExpression: {kind}")
        name, values = operand[1][0], [expressions.value(other, {}) or {} for other in others]
        if name in conditions:
            raise invalid("KeyConditionExpressions must only contain one condition per key")
        if name in index.key and any(items.types[name] not in value for value in values):
            raise invalid(f"{_INVALID}Condition parameter type does not match schema type")
        conditions[name] = (kind, [comparable(value) for value in values])
    for name in index.key[: len(conditions)]:
        if name not in conditions:
            raise invalid(f"Query condition missed key schema element: {name}")
    hash_kind, [value] = conditions[index.key[0]]
    if hash_kind != "=" or len(conditions) > len(index.key):
        raise invalid("Query key condition not supported")
    if value in ("", b""):
        raise invalid(f"{_NOT_VALID}{_EMPTY_KEY.format('string' if value == '' else 'binary')} Key: {index.key[0]}")
    start: Key = partition(value)
    if len(conditions) == 1:
        return start, (*start, _LAST)
    kind, values = conditions[index.key[1]]
    low, high = _SORT_BOUNDS[kind](*values)
    return (*start, *low), (*start, *high)


def _after_prefix(prefix: Any) -> Any:
    """Returns a value after all sort keys with a prefix, which have at most 1,024 bytes."""
    return prefix + ("\U0010ffff" * 256 if isinstance(prefix, str) else b"\xff" * 1024)


_SORT_BOUNDS: dict[str, Callable[..., tuple[Key, Key]]] = {
    "=": lambda value: ((value,), (value, _LAST)),
    "<": lambda value: ((), (value,)),
    "<=": lambda value: ((), (value, _LAST)),
    ">": lambda value: ((value, _LAST), (_LAST,)),
    ">=": lambda value: ((value,), (_LAST,)),
    "BETWEEN": lambda low, high: ((low,), (high, _LAST)),
    "begins_with": lambda prefix: ((prefix,), (_after_prefix(prefix), _LAST)),
}


def _start_entry(items: _Items, index: _Index, start_key: Any) -> Key:
    """Returns the entry of ExclusiveStartKey, whose item may be deleted. Raises ServiceError if it is not valid."""
    if set(start_key) == set(index.all_key) and all(items.types[name] in value for name, value in start_key.items()):
        item = checked_item(start_key)
        if entry := index.entry(item, items.checked_key(item)):
            return entry
    raise invalid("The provided starting key is invalid")


def _require(kind: str, request: dict[str, Any]) -> None:
    """Checks that a request, or an operation in it, has its required parameters and no legacy ones."""
    for name in _REQUIRED[kind]:
        if request.get(name) is None:
            member = f"Value null at '{name[0].lower()}{name[1:]}'"
            raise invalid(
                f"1 validation error detected: {member} failed to satisfy constraint: Member must not be null"
            )
    for name in _LEGACY:
        if name in request:
            raise invalid(f"localaws does not support the legacy parameter {name} of DynamoDB; use an expression")


def _one(operation: dict[str, Any], kinds: tuple[str, ...]) -> tuple[str, dict[str, Any]]:
    """Returns the only member of an operation of a batch or transaction."""
    if len(operation) != 1 or not operation.keys() <= {*kinds}:
        raise invalid(f"Supplied operation must contain exactly one of {', '.join(kinds)}")
    [(kind, wanted)] = operation.items()
    return kind, wanted


def _transact_items(request: dict[str, Any], kinds: tuple[str, ...]) -> list[tuple[str, dict[str, Any]]]:
    operations = [_one(operation, kinds) for operation in request["TransactItems"]]
    if not 0 < len(operations) <= TRANSACTION_OPERATIONS:
        bound = f"less than or equal to {TRANSACTION_OPERATIONS}" if operations else "greater than or equal to 1"
        rule = f"failed to satisfy constraint: Member must have length {bound}"
        raise invalid(f"1 validation error detected: Value at 'transactItems' {rule}")
    for kind, operation in operations:
        _require(kind, operation)
    return operations


def _refuse_duplicates(keys: list[Any], message: str) -> None:
    if len(set(keys)) < len(keys):
        raise invalid(message)


def _units(size: int, unit: int) -> float:
    """Returns the capacity units of a read or write of some bytes; one that finds nothing consumes one as well."""
    return float(max(-(-size // unit), 1))


def _capacity(request: dict[str, Any], units: float) -> dict[str, Any]:
    [used] = _capacities(request, [(request["TableName"], units)]).get("ConsumedCapacity", [None])
    return {"ConsumedCapacity": used} if used else {}


def _capacities(request: dict[str, Any], used: list[tuple[str, float]]) -> dict[str, Any]:
    """Returns the consumed capacity by table, if the request wants it."""
    wanted = request.get("ReturnConsumedCapacity", "NONE")
    totals: dict[str, float] = {}
    for name, units in used if wanted != "NONE" else ():
        totals[name] = totals.get(name, 0) + units
    details = {
        name: {"Table": {"CapacityUnits": units}} if wanted == "INDEXES" else {} for name, units in totals.items()
    }
    listed = [{"TableName": name, "CapacityUnits": units, **details[name]} for name, units in totals.items()]
    return {"ConsumedCapacity": listed} if listed else {}


def _answer(status: int, result: dict[str, Any]) -> Answer:
    headers = [("Content-Type", "application/x-amz-json-1.0"), ("x-amzn-RequestId", uuid.uuid4().hex)]
    return str(status), headers, json.dumps(result).encode()


def _call_moto(headers: Any, body: bytes) -> Answer:
    """Calls moto's DynamoDB, which manages the tables, without moto's web framework."""
    handler = DynamoHandler()
    handler.headers, handler.response_headers, handler.querystring, handler.uri_match = headers, {}, {}, {}
    handler.region, handler.current_account = REGION, ACCOUNT_ID
    request: Any = SimpleNamespace(
        method="POST", path="/", values={}, headers=headers, data=body, content_type=headers.get("Content-Type")
    )
    handler.parse_parameters(request)
    status, answer_headers, answer = handler.call_action()
    return str(status), list(answer_headers.items()), answer.encode()


_running: list[Tables] = []  # at most one: a process has only one store


def call_table(headers: Any, body: bytes) -> Answer:
    """Answers a request of the DynamoDB API with the tables of the running store."""
    return _running[0].call(headers, body)


def correct_tables(replaced: ExitStack, store: "Store") -> Tables:
    """Returns the tables of a store. They answer requests until `replaced` is closed."""
    tables = Tables(store, replaced)
    _running.append(tables)
    replaced.callback(_running.clear)
    return tables
