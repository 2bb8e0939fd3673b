"""DynamoDB: requests for items, atomic as in DynamoDB, with transactions, indexes and stale reads.

Moto creates and describes the tables. The items are kept here, because moto copies and parses too much for each
request, and accepts requests that DynamoDB refuses. Rules, limits and messages are those of DynamoDB:
https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_Operations_Amazon_DynamoDB.html
"""

import hashlib
import json
import threading
import time
import uuid
import zlib
from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from moto.dynamodb.models import dynamodb_backends
from moto.dynamodb.models.table import Table
from moto.dynamodb.responses import DynamoHandler

from localaws.aws import ACCOUNT_ID, REGION, ServiceError
from localaws.dynamodb_expressions import Expressions, select, tree_of
from localaws.dynamodb_streams import Streams
from localaws.dynamodb_values import Item, checked_item, comparable, invalid, item_size
from localaws.http_server import Answer
from localaws.moto_patch import replace_method

if TYPE_CHECKING:
    from localaws.store import Store

# How long a ClientRequestToken makes a transaction idempotent:
# https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_TransactWriteItems.html
TRANSACTION_TOKEN_SECONDS = 600
# Limits: https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Constraints.html
KB, MB = 1024, 1024 * 1024
ITEM_BYTES, TRANSACTION_BYTES, PAGE_BYTES, BATCH_GET_BYTES = 400 * KB, 4 * MB, MB, 16 * MB
KEY_BYTES = (2048, 1024)
OPERATIONS = {"TransactGetItems": 100, "TransactWriteItems": 100, "BatchWriteItem": 25, "BatchGetItem": 100}
# Parameters that a request, or an operation of a batch or transaction, must have.
_REQUIRED = {
    **dict.fromkeys(["GetItem", "DeleteItem", "UpdateItem", "Get", "Delete"], ("TableName", "Key")),
    **dict.fromkeys(["PutItem", "Put"], ("TableName", "Item")),
    **dict.fromkeys(["Query", "Scan"], ("TableName",)),
    **dict.fromkeys(["BatchGetItem", "BatchWriteItem"], ("RequestItems",)),
    **dict.fromkeys(["TransactGetItems", "TransactWriteItems"], ("TransactItems",)),
    "Update": ("TableName", "Key", "UpdateExpression"),
    "ConditionCheck": ("TableName", "Key", "ConditionExpression"),
}
_LEGACY = (
    *("AttributesToGet", "AttributeUpdates", "ConditionalOperator", "Expected"),
    *("KeyConditions", "QueryFilter", "ScanFilter"),
)
# Operations of moto that would use its own items.
_NOT_SUPPORTED = (
    *("CreateBackup", "RestoreTableFromBackup", "RestoreTableToPointInTime", "ExportTableToPointInTime", "ImportTable"),
    *("ExecuteStatement", "BatchExecuteStatement", "ExecuteTransaction"),
)
_INVALID = "One or more parameter values were invalid: "
_EMPTY_KEY = "The AttributeValue for a key attribute cannot contain an empty {} value."
_CONDITION_FAILED = "The conditional request failed"
_DUPLICATES = "Provided list of item keys contains duplicates"
_CANCELLED = "Transaction cancelled, please refer cancellation reasons for specific reasons"
Key = tuple[Any, ...]


class DynamoDBError(ServiceError):
    """An error with further members, such as the reasons of a cancelled transaction."""

    def __init__(self, code: str, message: str, **members: Any) -> None:
        super().__init__(code, message)
        self.members = {"Message": message, **members}


class _Last:
    """Sorts after everything else."""

    def __lt__(self, _other: Any) -> bool:
        return False

    def __gt__(self, _other: Any) -> bool:
        return True


_LAST: Any = _Last()


class _Index:
    """The order of a table's items, or of a secondary index (with a name).

    An entry is (hash of the partition key, partition key, sort key or "", key of the item).
    """

    def __init__(self, table: Table, definition: Any = None) -> None:
        self.name: str | None = definition and definition.name
        schema = sorted((definition or table).schema, key=lambda element: str(element["KeyType"]))
        self.key: list[str] = [element["AttributeName"] for element in schema]
        self.all_key = list(dict.fromkeys([*self.key, *table.table_key_attrs]))
        self.is_global = definition in table.global_indexes
        projection = definition.projection if definition else {}
        projected = [*self.all_key, *(projection.get("NonKeyAttributes") or [])]
        is_partial = projection.get("ProjectionType", "ALL") != "ALL"
        self.projection = tree_of((name,) for name in projected) if is_partial else None
        self.entries: list[Key] = []

    def entry(self, item: Item | None, key: Key) -> Key | None:
        """Returns an item's entry, or None if the item does not exist or lacks a key of the index."""
        if item is None or any(name not in item for name in self.key):
            return None
        value, *sort = (comparable(item[name]) for name in self.key)
        return (*_partition(value), sort[0] if sort else "", key)


def _partition(value: Any) -> Key:
    return zlib.crc32(str(value).encode()), value


class _Items:
    """The items of a table by key, with their sizes. Stored items are never changed, only replaced."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self.rows: dict[Key, tuple[Item, int]] = {}
        self.previous: dict[Key, tuple[float, Item | None]] = {}  # time of the last write, and the item before it
        self.indexes: dict[str | None, _Index] = {}
        self._definitions: list[Any] = []
        self.update_indexes()

    def update_indexes(self) -> None:
        """Adds and removes secondary indexes as in the table's definition."""
        definitions = [None, *self.table.all_indexes()]
        if definitions != self._definitions:
            self._definitions = definitions
            self.types = {attribute["AttributeName"]: attribute["AttributeType"] for attribute in self.table.attr}
            indexes = (_Index(self.table, definition) for definition in definitions)
            self.indexes = {index.name: index for index in indexes}
            self.key = self.indexes[None].key
            self.index_rows()

    def index_rows(self) -> None:
        for index in self.indexes.values():
            entries = (index.entry(item, key) for key, (item, _) in self.rows.items())
            index.entries = sorted(entry for entry in entries if entry)

    def get(self, key: Key) -> Item | None:
        return self.rows[key][0] if key in self.rows else None

    def size(self, key: Key) -> int:
        return self.rows[key][1] if key in self.rows else 0

    def write(self, key: Key, item: Item | None, size: int) -> None:
        old = self.get(key)
        for index in self.indexes.values():
            before, after = index.entry(old, key), index.entry(item, key)
            if before and before != after:
                del index.entries[bisect_left(index.entries, before)]
            if after and before != after:
                insort(index.entries, after)
        if item is None:
            self.rows.pop(key, None)
        else:
            self.rows[key] = (item, size)

    def without_writes_since(self, since: float) -> "_Items":
        """Returns a copy in which the items written after a time (monotonic clock) are as before their last write."""
        copied = _Items(self.table)
        before = {key: item for key, (written, item) in self.previous.items() if written > since}
        copied.rows = {key: row for key, row in self.rows.items() if key not in before}
        copied.rows |= {key: (item, item_size(item)) for key, item in before.items() if item is not None}
        copied.index_rows()
        return copied

    def key_of(self, attributes: Mapping[str, Any]) -> Key:
        """Returns the key in a request. Raises ServiceError if it does not match the table's schema."""
        if attributes.keys() != set(self.key) or any(self.types[name] not in attributes[name] for name in self.key):
            raise invalid("The provided key element does not match the schema")
        return self.key_of_item(checked_item(attributes))

    def key_of_item(self, item: Item) -> Key:
        """Returns the key of an item. Raises ServiceError if a part is missing, empty, too long or of another type."""
        for name, limit in zip(self.key, KEY_BYTES, strict=False):
            if name not in item:
                raise invalid(f"{_INVALID}Missing the key {name} in the item")
            if problem := self._problem(name, item[name], f"key {name} expected: {{}} actual: {{}}", f"Key: {name}"):
                raise invalid(problem)
            if item_size({"": item[name]}) > limit:
                part = "Size of hashkey" if name == self.key[0] else "Aggregated size of all range keys"
                raise invalid(f"{_INVALID}{part} has exceeded the size limit of {limit} bytes")
        return tuple(comparable(item[name]) for name in self.key)

    def check(self, item: Item, problem: str = "Item size") -> int:
        """Checks the keys of the secondary indexes of an item that is written, and returns its size.

        Raises:
            ServiceError: a key has another type or is empty, or the item is larger than 400 KB.
        """
        for index in self.indexes.values():
            for name in (set(index.key) & item.keys()) if index.name else ():
                types = f"Index Key {name} Expected: {{}} Actual: {{}} IndexName: {index.name}"
                if mistake := self._problem(name, item[name], types, f"IndexName: {index.name}, IndexKey: {name}"):
                    raise invalid(mistake)
        if (size := item_size(item)) > ITEM_BYTES:
            raise invalid(f"{problem} has exceeded the maximum allowed size")
        return size

    def _problem(self, name: str, value: dict[str, Any], types: str, where: str) -> str:
        """Returns the message for a key of a wrong type or for an empty key, otherwise ''."""
        [(kind, content)] = value.items()
        if kind != self.types[name]:
            return f"{_INVALID}Type mismatch for {types.format(self.types[name], kind)}"
        return "" if content else f"{_not_empty(kind)} {where}"


def _not_empty(kind: str) -> str:
    return "One or more parameter values are not valid. " + _EMPTY_KEY.format("binary" if kind == "B" else "string")


class _Write:
    """A write or check of one item, which takes effect when it is applied.

    Args:
        kind: Put, Update, Delete or ConditionCheck.
        request: the request, or the operation of a batch or transaction.

    Raises:
        ServiceError: the request is not valid, whatever the item is.
    """

    def __init__(self, items: _Items, kind: str, request: dict[str, Any]) -> None:
        self.items, self.kind, self.request = items, kind, request
        parameters = ("UpdateExpression", "ConditionExpression") if kind == "Update" else ("ConditionExpression",)
        self.expressions = Expressions(request, *parameters)
        self.new: Item | None = None
        self.new_size = 0
        if kind == "Put":
            self.new = checked_item(request["Item"])
            self.new_size = items.check(self.new)
        self.key = items.key_of(request["Key"]) if self.new is None else items.key_of_item(self.new)
        for name in self.expressions.attributes("UpdateExpression") & set(items.key):
            raise invalid(f"{_INVALID}Cannot update attribute {name}. This attribute is part of the key")
        self.old, self.old_size = items.get(self.key), items.size(self.key)

    def failure(self) -> dict[str, Any]:
        """Prepares the new item, or returns the code and message of the reason why the write is not possible."""
        if not self.expressions.holds("ConditionExpression", self.old or {}):
            wanted = self.request.get("ReturnValuesOnConditionCheckFailure") == "ALL_OLD" and self.old is not None
            failed = {"Code": "ConditionalCheckFailed", "Message": _CONDITION_FAILED}
            return failed | ({"Item": self.old} if wanted else {})
        if self.kind == "ConditionCheck":
            self.new, self.new_size = self.old, self.old_size
        try:
            if self.kind == "Update":
                self.new = self.expressions.changed(self.old or checked_item(self.request["Key"]))
                self.new_size = self.items.check(self.new, "Item size to update")
        except ServiceError as error:
            return {"Code": "ValidationError", "Message": error.message}
        return {}


class Tables:
    """All tables: executes one request at a time, so that every request is atomic, and reports changes to streams."""

    def __init__(self, store: "Store", replaced: ExitStack) -> None:
        self._store = store
        self._lock = threading.RLock()
        self._streams = Streams(self._lock, lambda arn, record: store.on_stream_record(arn, record), replaced)
        self._items: dict[str, _Items] = {}  # by name of the table
        self._tokens: dict[str, tuple[float, str]] = {}
        self._unseen_since: float | None = None  # the current read misses writes after this time
        self._used: dict[str, float] = {}  # capacity units of the current request by table
        self._operations: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
            "GetItem": lambda request: self._read(request, 1),
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
        status = 200
        try:
            if name in _NOT_SUPPORTED:
                raise ServiceError("UnknownOperationException", f"localaws does not support {name} of DynamoDB")
            if name not in self._operations:
                with self._lock:
                    return _call_moto(headers, body)
            request = json.loads(body)
            _require(name, request)
            with self._lock:
                self._used = {}
                result = self._operations[name](request) | self._capacity(request)
        except ServiceError as error:
            status = error.status
            result = {"__type": f"com.amazonaws.dynamodb.v20120810#{error.code}", "message": error.message}
            result |= error.members if isinstance(error, DynamoDBError) else {}
        answer_headers = [("Content-Type", "application/x-amz-json-1.0"), ("x-amzn-RequestId", uuid.uuid4().hex)]
        return str(status), answer_headers, json.dumps(result).encode()

    def _capacity(self, request: dict[str, Any]) -> dict[str, Any]:
        """Returns the consumed capacity if the request wants it."""
        wanted = request.get("ReturnConsumedCapacity", "NONE")
        used: list[dict[str, Any]] = [{"TableName": name, "CapacityUnits": units} for name, units in self._used.items()]
        for entry in used if wanted == "INDEXES" else ():
            entry["Table"] = {"CapacityUnits": entry["CapacityUnits"]}
        return {} if wanted == "NONE" else {"ConsumedCapacity": used[0] if "TableName" in request else used}

    def _use(self, table: str, bytes_: int, unit: int, factor: float) -> None:
        """Counts the capacity units of a read or write; one that finds nothing consumes a unit as well."""
        self._used[table] = self._used.get(table, 0.0) + max(-(-bytes_ // unit), 1) * factor

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
        items = self._items.get(table.name)
        if items is None or items.table is not table:  # a new table may have the name of a deleted one
            items = self._items[table.name] = _Items(table)
        items.update_indexes()
        return items

    def _table(self, name: str) -> _Items:
        """Returns a table by its name or ARN. Raises ServiceError if it does not exist."""
        table = dynamodb_backends[ACCOUNT_ID][REGION].tables.get(name.rpartition("/")[2])
        if table is None:
            raise ServiceError("ResourceNotFoundException", "Requested resource not found")
        items = self._items_of(table)
        return items if self._unseen_since is None else items.without_writes_since(self._unseen_since)

    def _apply(self, writes: list[_Write], factor: float = 1) -> None:
        for write in writes:
            if write.new is not write.old:
                write.items.write(write.key, write.new, write.new_size)
                if self._store.keeps_previous_images:
                    write.items.previous[write.key] = (time.monotonic(), write.old)
            self._use(write.items.table.name, max(write.old_size, write.new_size), KB, factor)
        for write in writes:
            self._streams.add(write.items.table, write.old, write.new, write.old_size, write.new_size)

    def _write_item(self, kind: str, request: dict[str, Any]) -> dict[str, Any]:
        returned = request.get("ReturnValues", "NONE")
        of_updates = ("ALL_NEW", "UPDATED_OLD", "UPDATED_NEW") if kind == "Update" else ()
        if returned not in ("NONE", "ALL_OLD", *of_updates):
            raise invalid("Return values set to invalid value")
        write = _Write(self._table(request["TableName"]), kind, request)
        if reason := write.failure():
            code = (
                "ConditionalCheckFailedException" if reason.pop("Code") != "ValidationError" else "ValidationException"
            )
            raise DynamoDBError(code, **{"message": reason.pop("Message"), **reason})
        self._apply([write])
        attributes = {"NONE": None, "OLD": write.old, "NEW": write.new}[returned.rpartition("_")[2]]
        if attributes and returned.startswith("UPDATED"):
            attributes = write.expressions.updated_attributes(attributes)
        return {"Attributes": attributes} if attributes else {}

    def _batch_write(self, request: dict[str, Any]) -> dict[str, Any]:
        writes = []
        for name, wanted in request["RequestItems"].items():
            for kind, operation in _operations(wanted, ("PutRequest", "DeleteRequest"), {"TableName": name}):
                writes.append(_Write(self._table(name), kind.removesuffix("Request"), operation))
        _check_list("BatchWriteItem", [(write.items.table.name, write.key) for write in writes], _DUPLICATES)
        self._apply(writes)
        return {"UnprocessedItems": {}}

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
            if self._tokens[token][1] == digest:
                return {}
            message = "The provided ClientRequestToken has been used with different request parameters"
            raise ServiceError("IdempotentParameterMismatchException", message)
        operations = _operations(request["TransactItems"], ("Put", "Update", "Delete", "ConditionCheck"))
        writes = [_Write(self._table(operation["TableName"]), kind, operation) for kind, operation in operations]
        rule = "Transaction request cannot include multiple operations on one item"
        _check_list("TransactWriteItems", [(write.items.table.name, write.key) for write in writes], rule)
        reasons = [write.failure() or {"Code": "None"} for write in writes]
        codes = ", ".join(reason["Code"] for reason in reasons)
        if any(reason["Code"] != "None" for reason in reasons):
            raise DynamoDBError("TransactionCanceledException", f"{_CANCELLED} [{codes}]", CancellationReasons=reasons)
        if sum(write.new_size for write in writes) > TRANSACTION_BYTES:
            raise invalid("The aggregate size of the items in the transaction exceeds 4 MB")
        self._apply(writes, 2)
        if token:
            self._tokens[token] = (now, digest)  # only after success: a cancelled transaction may be retried
        return {}

    def _read(self, request: dict[str, Any], factor: float) -> dict[str, Any]:
        """Returns {"Item": ...}, or {} if the item does not exist."""
        items, expressions = self._table(request["TableName"]), Expressions(request, "ProjectionExpression")
        key = items.key_of(request["Key"])
        item = items.get(key)
        self._use(items.table.name, items.size(key), 4 * KB, factor if request.get("ConsistentRead") else factor / 2)
        return {} if item is None else {"Item": expressions.projected(item)}

    def _transact_get(self, request: dict[str, Any]) -> dict[str, Any]:
        operations = [operation for _, operation in _operations(request["TransactItems"], ("Get",))]
        _check_list("TransactGetItems", operations)
        return {"Responses": [self._read(operation, 4) for operation in operations]}

    def _batch_get(self, request: dict[str, Any]) -> dict[str, Any]:
        responses: dict[str, list[Item]] = {}
        unprocessed: dict[str, Any] = {}
        size, keys = 0, []
        for name, wanted in request["RequestItems"].items():
            items, responses[name] = self._table(name), []
            for key in wanted["Keys"]:
                keys.append((name, items.key_of(key)))
                size += items.size(keys[-1][1])
                if size > BATCH_GET_BYTES:
                    unprocessed.setdefault(name, {**wanted, "Keys": []})["Keys"].append(key)
                else:
                    responses[name].extend(self._read({**wanted, "TableName": name, "Key": key}, 1).values())
        _check_list("BatchGetItem", keys, _DUPLICATES)
        return {"Responses": responses, "UnprocessedKeys": unprocessed}

    def _query(self, request: dict[str, Any]) -> dict[str, Any]:
        items, index = self._index(request)
        expressions = Expressions(request, "KeyConditionExpression", "FilterExpression", "ProjectionExpression")
        bounds = _key_bounds(items, index, expressions)
        for name in expressions.attributes("FilterExpression") & set(index.key):
            rule = "Filter Expression can only contain non-primary key attributes: Primary key attribute"
            raise invalid(f"{rule}: {name}")
        return self._page(request, items, index, expressions, bounds)

    def _scan(self, request: dict[str, Any]) -> dict[str, Any]:
        expressions = Expressions(request, "FilterExpression", "ProjectionExpression")
        return self._page(request, *self._index(request), expressions, ((), (_LAST,)))

    def _index(self, request: dict[str, Any]) -> tuple[_Items, _Index]:
        items, name = self._table(request["TableName"]), request.get("IndexName")
        index = items.indexes.get(name)
        if index is None:
            raise invalid(f"The table does not have the specified index: {name}")
        if request.get("Limit", 1) < 1:
            raise invalid("Limit must be greater than or equal to 1")
        if index.is_global and request.get("ConsistentRead"):
            raise invalid("Consistent reads are not supported on global secondary indexes")
        if index.projection and request.get("Select") == "ALL_ATTRIBUTES":
            rule = f"Select type ALL_ATTRIBUTES is not supported for secondary index {name}"
            raise invalid(f"{_INVALID}{rule} because its projection type is not ALL")
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
        for place in range(start, end) if forward else range(end - 1, start - 1, -1):
            if entries[place][0] % request.get("TotalSegments", 1) != request.get("Segment", 0):
                continue
            item, item_bytes = items.rows[entries[place][-1]]
            shown = select(item, index.projection) if index.projection else item
            scanned, size = scanned + 1, size + (item_size(shown) if index.projection else item_bytes)
            if expressions.holds("FilterExpression", shown):
                found.append(expressions.projected(shown))
            if scanned == request.get("Limit") or size > PAGE_BYTES:
                last = {"LastEvaluatedKey": {name: item[name] for name in index.all_key}}
                break
        self._use(items.table.name, size, 4 * KB, 1 if request.get("ConsistentRead") else 0.5)
        listed = {} if request.get("Select") == "COUNT" else {"Items": found}
        return listed | {"Count": len(found), "ScannedCount": scanned} | last


def _key_bounds(items: _Items, index: _Index, expressions: Expressions) -> tuple[Key, Key]:
    """Returns the bounds of the entries that KeyConditionExpression selects.

    Raises:
        ServiceError: it is not a condition on the index's keys.
    """
    tree = expressions.tree("KeyConditionExpression")
    if tree is None:
        raise invalid("Either the KeyConditions or KeyConditionExpression parameter must be specified in the request.")
    conditions: dict[str, tuple[Any, ...]] = {}
    for kind, operand, *others in tree[1:] if tree[0] == "AND" else [tree]:
        is_key = operand[0] == "path" and len(operand[1]) == 1 and all(other[0] == "value" for other in others)
        if kind not in _SORT_BOUNDS or not is_key:
            raise invalid(f"Invalid operator used in KeyConditionExpression: {kind}")
        name, values = operand[1][0], [expressions.value(other, {}) or {} for other in others]
        if name in conditions:
            raise invalid("KeyConditionExpressions must only contain one condition per key")
        if name in index.key and any(items.types[name] not in value for value in values):
            raise invalid(f"{_INVALID}Condition parameter type does not match schema type")
        conditions[name] = (kind, *(comparable(value) for value in values))
    for name in index.key[: len(conditions)]:
        if name not in conditions:
            raise invalid(f"Query condition missed key schema element: {name}")
    hash_kind, value, *_ = conditions[index.key[0]]
    if hash_kind != "=" or len(conditions) > len(index.key):
        raise invalid("Query key condition not supported")
    if value in ("", b""):
        raise invalid(f"{_not_empty(items.types[index.key[0]])} Key: {index.key[0]}")
    kind, *values = conditions.get(index.key[-1] if len(conditions) > 1 else "", ("", None))
    low, high = _SORT_BOUNDS[kind](*values)
    return (*_partition(value), *low), (*_partition(value), *high)


def _after_prefix(prefix: Any) -> Any:
    """Returns a value after all sort keys with a prefix, which have at most 1,024 bytes."""
    return prefix + ("\U0010ffff" * 256 if isinstance(prefix, str) else b"\xff" * 1024)


_SORT_BOUNDS: dict[str, Callable[..., tuple[Key, Key]]] = {
    "": lambda _: ((), (_LAST,)),
    "=": lambda value: ((value,), (value, _LAST)),
    "<": lambda value: ((), (value,)),
    "<=": lambda value: ((), (value, _LAST)),
    ">": lambda value: ((value, _LAST), (_LAST,)),
    ">=": lambda value: ((value,), (_LAST,)),
    "BETWEEN": lambda low, high: ((low,), (high, _LAST)),
    "begins_with": lambda prefix: ((prefix,), (_after_prefix(prefix), _LAST)),
}


def _start_entry(items: _Items, index: _Index, start_key: dict[str, Any]) -> Key:
    """Returns the entry of ExclusiveStartKey, whose item may be deleted. Raises ServiceError if it is not valid."""
    if start_key.keys() == set(index.all_key) and all(items.types[name] in start_key[name] for name in start_key):
        item = checked_item(start_key)
        if entry := index.entry(item, items.key_of_item(item)):
            return entry
    raise invalid("The provided starting key is invalid")


def _require(kind: str, request: dict[str, Any]) -> None:
    """Checks that a request, or an operation in it, has its required parameters and no legacy ones."""
    for name in _REQUIRED[kind]:
        if request.get(name) is None:
            value = f"Value null at '{name[0].lower()}{name[1:]}'"
            raise invalid(f"1 validation error detected: {value} failed to satisfy constraint: Member must not be null")
    for name in request.keys() & set(_LEGACY):
        raise invalid(f"localaws does not support the legacy parameter {name} of DynamoDB; use an expression")


def _operations(
    listed: list[dict[str, Any]], kinds: tuple[str, ...], more: Mapping[str, Any] | None = None
) -> list[tuple[str, dict[str, Any]]]:
    """Returns the kinds and the parameters of the operations of a batch or transaction."""
    operations = []
    for entry in listed:
        if len(entry) != 1 or not entry.keys() <= set(kinds):
            raise invalid(f"{_INVALID}An operation must contain exactly one of {', '.join(kinds)}")
        [(kind, operation)] = entry.items()
        operations.append((kind, {**operation, **(more or {})}))
        _require(kind.removesuffix("Request"), operations[-1][1])
    return operations


def _check_list(name: str, members: list[Any], duplicates: str = "") -> None:
    """Checks the number of operations of a batch or transaction, and, with a message, that no two have the same key."""
    if not 0 < len(members) <= OPERATIONS[name]:
        bound = f"less than or equal to {OPERATIONS[name]}" if members else "greater than or equal to 1"
        raise invalid(f"Too many items requested for the {name} call: Member must have length {bound}")
    if duplicates and len(set(members)) < len(members):
        raise invalid(duplicates)


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
