"""DynamoDB: moto's tables with atomic requests, transactions, streams and stale reads.

The docstrings describe the behavior of moto and of DynamoDB.
"""

import copy
import hashlib
import itertools
import json
import logging
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from moto.core.exceptions import JsonRESTError
from moto.core.responses import ActionResult
from moto.dynamodb.comparisons import get_filter_expression
from moto.dynamodb.exceptions import (
    ConditionalCheckFailed,
    DynamodbException,
    ItemSizeTooLarge,
    ItemSizeToUpdateTooLarge,
    MultipleTransactionsException,
    TooManyTransactionsException,
    TransactionCanceledException,
    TransactWriteSingleOpException,
)
from moto.dynamodb.models import DynamoDBBackend
from moto.dynamodb.models.dynamo_type import DynamoType, Item, LimitedSizeDict
from moto.dynamodb.models.table import StreamShard, Table
from moto.dynamodb.models.utilities import dynamo_json_dump
from moto.dynamodb.responses import DynamoHandler
from moto.dynamodbstreams.models import DynamoDBStreamsBackend
from moto.dynamodbstreams.responses import DynamoDBStreamsHandler

from localaws.aws import ACCOUNT_ID, REGION, SHARD_ID
from localaws.http_server import Answer
from localaws.moto_patch import replace_method

if TYPE_CHECKING:
    from localaws.store import Store

# How long a ClientRequestToken makes a transaction idempotent:
# https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_TransactWriteItems.html
TRANSACTION_TOKEN_SECONDS = 600
# Maximum operations of a transaction, from the same page.
TRANSACTION_OPERATIONS = 100
# Maximum size of an item in bytes, including the attribute names ("400 KB"):
# https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Constraints.html
ITEM_BYTES = 400 * 1024
# Number of records kept per stream. DynamoDB keeps all records for 24 hours.
STREAM_RECORDS = 10_000
log = logging.getLogger(__name__)


def call_table(headers: Any, body: bytes) -> Answer:
    """Calls moto's DynamoDB without moto's web framework.

    Most calls of an event-driven application use DynamoDB, and the framework takes half the time of a call.
    """
    handler = DynamoHandler()
    handler.headers, handler.response_headers, handler.querystring, handler.uri_match = headers, {}, {}, {}
    handler.region, handler.current_account = REGION, ACCOUNT_ID
    request: Any = SimpleNamespace(
        method="POST", path="/", values={}, headers=headers, data=body, content_type=headers.get("Content-Type")
    )
    handler.parse_parameters(request)
    status, answer_headers, answer = handler.call_action()
    return str(status), list(answer_headers.items()), answer.encode()


# The place of an item, existing or not: table, partition key and sort key.
_Place = tuple[Table, DynamoType, DynamoType | None]


@dataclass
class _Stream:
    """The latest records of a stream with their sequence numbers, and the number of the last trimmed record.

    The records are kept as JSON, which takes a tenth of the memory of the objects.
    """

    records: deque[tuple[int, str]] = field(default_factory=deque)
    trimmed: int = 0

    def add(self, number: int, record: dict[str, Any]) -> None:
        self.records.append((number, json.dumps(record)))
        if len(self.records) > STREAM_RECORDS:
            self.trimmed, _ = self.records.popleft()

    def read(self, start: int, limit: int) -> list[tuple[int, str]]:
        """Returns the records from a sequence number on. Raises JsonRESTError if they are trimmed."""
        if start <= self.trimmed:
            raise JsonRESTError("TrimmedDataAccessException", "The requested stream record is no longer kept.")
        return list(itertools.islice((record for record in self.records if record[0] >= start), limit))


class Tables:
    """The corrections of DynamoDB and their state: the lock, the changes of a request, the streams, request tokens."""

    def __init__(self, store: "Store") -> None:
        self._store = store
        self._lock = threading.RLock()
        self._changes: dict[tuple[Any, ...], tuple[Table, Item | None, Item | None]] = {}
        self._next_number = 10**20
        self._streams: dict[str, _Stream] = {}
        self._tokens: dict[str, tuple[float, str]] = {}
        # By table and key: time of the last write (monotonic clock) and the item before it
        self._previous: dict[tuple[str, DynamoType, DynamoType | None], tuple[float, Item | None]] = {}
        self._unseen_since: float | None = None  # the current read misses writes after this time
        self._call_action = DynamoHandler.call_action
        self._answer_transaction = DynamoHandler.transact_write_items
        self._query = Table.query
        self._get_item = Table.get_item
        self._make_item = Item.__init__
        self._describe_stream = DynamoDBStreamsBackend.describe_stream

    def call_action(self, handler: Any) -> Any:
        """Runs one request at a time, and reports its changes afterwards.

        In DynamoDB every request is atomic. Moto checks the condition and writes in two steps, so two threads can both
        pass the condition.
        """
        with self._lock:
            try:
                return self._call_action(handler)
            finally:
                self._report_changes()

    def add_to_stream(self, shard: StreamShard, old: Item | None, new: Item | None) -> None:
        """Collects a change until the request ends.

        DynamoDB reports an item once per request. Moto reports an update that creates its item twice, first with the
        key only. It also keeps all records forever, and uses the length of the list as the sequence number.
        """
        item = new if old is None else old
        assert item is not None  # noqa: S101 - moto never adds a change without an item
        key = (shard.table.table_arn, item.hash_key, item.range_key)
        self._changes[key] = (shard.table, old, new)

    def _report_changes(self) -> None:
        changes, self._changes = self._changes, {}
        for table, old, new in changes.values():
            # DynamoDB does not report a write without a change
            if old is None or new is None or old.attrs != new.attrs:
                arn, record = _stream_arn(table), self._stream_record(table, old, new)
                self._stream(arn).add(int(record["dynamodb"]["SequenceNumber"]), record)
                self._store.on_stream_record(arn, record | {"eventSourceARN": arn})

    def _stream_record(self, table: Table, old: Item | None, new: Item | None) -> dict[str, Any]:
        """Returns the record as in GetRecords. A Lambda function gets the stream's ARN in addition.

        https://docs.aws.amazon.com/lambda/latest/dg/with-ddb.html#events-sample-dynamodb
        """
        item = new if old is None else old
        assert item is not None and table.stream_specification  # noqa: S101, PT018 - see add_to_stream
        view = table.stream_specification["StreamViewType"]
        number, self._next_number = self._next_number, self._next_number + 1
        change: dict[str, Any] = {
            "ApproximateCreationDateTime": float(int(time.time())),
            "Keys": _plain({name: item.attrs[name] for name in table.table_key_attrs}),
            "SequenceNumber": str(number),
            "SizeBytes": sum(image.size() for image in (old, new) if image is not None),
            "StreamViewType": view,
        }
        if new is not None and view in ("NEW_IMAGE", "NEW_AND_OLD_IMAGES"):
            change["NewImage"] = _plain(new.attrs)
        if old is not None and view in ("OLD_IMAGE", "NEW_AND_OLD_IMAGES"):
            change["OldImage"] = _plain(old.attrs)
        return {
            "eventID": uuid.uuid4().hex,
            "eventName": "INSERT" if old is None else "REMOVE" if new is None else "MODIFY",
            "eventVersion": "1.1",
            "eventSource": "aws:dynamodb",
            "awsRegion": REGION,
            "dynamodb": change,
        }

    def _stream(self, arn: str) -> _Stream:
        return self._streams.setdefault(arn, _Stream())

    def describe_stream(self, backend: DynamoDBStreamsBackend, arn: str) -> dict[str, Any]:
        """Describes the single shard of a table's latest stream.

        Raises:
            JsonRESTError: the stream does not exist. Moto fails with a KeyError, or describes another stream.
        """
        if arn not in {stream["StreamArn"] for stream in backend.list_streams()}:
            raise JsonRESTError("ResourceNotFoundException", f"Requested resource not found: Stream: {arn} not found")
        with self._lock:
            records = self._stream(arn).records
            first = records[0][0] if records else self._next_number
        shard = {"ShardId": SHARD_ID, "SequenceNumberRange": {"StartingSequenceNumber": str(first)}}
        return self._describe_stream(backend, arn) | {"Shards": [shard]}

    def answer_shard_iterator(self, handler: DynamoDBStreamsHandler) -> ActionResult:
        """Answers GetShardIterator. The iterator has the stream's ARN and the sequence number of the next record.

        Raises:
            JsonRESTError: the stream or shard does not exist, or the record is trimmed.
        """
        arn, shard, kind, after = (
            handler._get_param(name) for name in ("StreamArn", "ShardId", "ShardIteratorType", "SequenceNumber")
        )
        self.describe_stream(handler.backend, arn)
        if shard != SHARD_ID:
            raise JsonRESTError("ResourceNotFoundException", f"Requested resource not found: Shard: {shard} not found")
        with self._lock:
            stream, start = self._stream(arn), self._next_number
            if kind == "TRIM_HORIZON":
                start = stream.trimmed + 1
            elif kind != "LATEST":
                stream.read(int(after), 0)
                start = int(after) + (kind == "AFTER_SEQUENCE_NUMBER")
        return ActionResult({"ShardIterator": f"{arn}|1|{start}"})

    def answer_records(self, handler: DynamoDBStreamsHandler) -> tuple[int, dict[str, str], str]:
        """Answers GetRecords with the stored JSON. Moto would encode binary values twice.

        Raises:
            JsonRESTError: the records are trimmed.
        """
        arn, version, start = handler._get_param("ShardIterator").split("|")
        with self._lock:
            records = self._stream(arn).read(int(start), handler._get_param("Limit") or 1000)
        after = json.dumps(f"{arn}|{version}|{records[-1][0] + 1 if records else start}")
        answer = f'{{"Records": [{", ".join(record for _, record in records)}], "NextShardIterator": {after}}}'
        return 200, {"Content-Type": "application/x-amz-json-1.0"}, answer

    @contextmanager
    def _undone_on_error(self, places: list[_Place]) -> Iterator[list[Item | None]]:
        """Restores the items if the writes in the context fail. Yields copies of the items before the writes."""
        before = [copy.deepcopy(table.get_item(hash_key, range_key)) for table, hash_key, range_key in places]
        try:
            yield before
        except Exception:
            self._changes.clear()
            for place, item in zip(places, before, strict=True):
                _put_back(*place, item)
            raise

    def make_item(self, item: Item, *arguments: Any, **options: Any) -> None:
        """Checks the size of a complete item.

        Moto checks each change of an attribute, and counts the old and the new value.

        Raises:
            ItemSizeTooLarge: the item is larger than 400 KB.
        """
        self._make_item(item, *arguments, **options)
        if item.size() > ITEM_BYTES:
            raise ItemSizeTooLarge

    def writing(self, write: Callable[..., Item | None]) -> Callable[..., Item | None]:
        """Makes moto's PutItem, UpdateItem or DeleteItem atomic. A failed update in moto may leave a part of it."""

        def write_one(
            backend: DynamoDBBackend, table_name: str, key: dict[str, Any], *more: Any, **options: Any
        ) -> Any:
            place = _locate(backend, table_name, key)
            with self._undone_on_error([place]) as (before,):
                item = write(backend, table_name, key, *more, **options)
                if item is not None and item.size() > ITEM_BYTES:
                    raise ItemSizeToUpdateTooLarge
            if self._store.keeps_previous_images:
                self._previous[place[0].table_arn, place[1], place[2]] = (time.monotonic(), before)
            return item

        return write_one

    @contextmanager
    def stale_reads(self, seconds: float) -> Iterator[None]:
        """Implements Store.stale_reads. Holds the lock of the tables inside the context."""
        with self._lock:
            self._unseen_since = time.monotonic() - seconds
            try:
                yield
            finally:
                self._unseen_since = None

    def _seen(self, table: Table) -> Any:
        """Returns the table, or a copy without the writes that a stale read misses."""
        if self._unseen_since is None:
            return table
        seen: Any = copy.copy(table)
        seen.items = {key: copy.copy(held) for key, held in table.items.items()}
        for (arn, hash_key, range_key), (written, before) in self._previous.items():
            if arn == table.table_arn and written > self._unseen_since:
                _put_back(seen, hash_key, range_key, before)
        return seen

    def get_item(self, table: Table, *arguments: Any) -> Any:
        """Reads an item, or its previous state in a stale read. Moto's reads are always consistent."""
        return self._get_item(self._seen(table), *arguments)

    def answer_transaction(self, handler: Any) -> Any:
        """Implements the idempotency of ClientRequestToken. Moto ignores the token and writes again.

        Raises:
            JsonRESTError: the token was used with another request.
        """
        body = handler.body
        operations = json.dumps(body["TransactItems"], sort_keys=True, default=repr)
        digest = hashlib.sha256(operations.encode()).hexdigest()
        now, token = time.monotonic(), body.get("ClientRequestToken") or uuid.uuid4().hex
        self._forget_tokens(before=now - TRANSACTION_TOKEN_SECONDS)
        if token not in self._tokens:
            answer = self._answer_transaction(handler)
            self._tokens[token] = (now, digest)  # only after success: a cancelled transaction may be retried
            return answer
        if self._tokens[token][1] != digest:
            raise JsonRESTError(
                "IdempotentParameterMismatchException",
                "The provided ClientRequestToken has been used with different request parameters",
            )
        return ActionResult({})

    def _forget_tokens(self, before: float) -> None:
        # The tokens are sorted by time, the oldest first.
        while self._tokens and next(iter(self._tokens.values()))[0] < before:
            del self._tokens[next(iter(self._tokens))]

    def transact_write_items(self, backend: DynamoDBBackend, transact_items: list[dict[str, Any]]) -> None:
        """Checks all conditions, then writes.

        Moto copies whole tables for the rollback, which takes seconds, and replaces the table by the copy, so that its
        stream no longer works. In DynamoDB a cancelled transaction changes nothing.

        Raises:
            DynamodbException: too many operations, or two operations on one item (ValidationException).
            TransactionCanceledException: has a reason for each operation, in the same order.
        """
        if len(transact_items) > TRANSACTION_OPERATIONS:
            raise TooManyTransactionsException
        if any(len(item) != 1 for item in transact_items):
            raise TransactWriteSingleOpException
        operations = [operation for item in transact_items for operation in item.items()]
        places = [_locate(backend, op["TableName"], op.get("Key") or op["Item"]) for _, op in operations]
        if len({(table.name, *keys) for table, *keys in places}) < len(places):
            raise MultipleTransactionsException

        reasons = [_failed_condition(place, op) for place, (_, op) in zip(places, operations, strict=True)]
        if any(code for code, _, _ in reasons):
            raise TransactionCanceledException(reasons)
        with self._undone_on_error(places):
            for position, (kind, op) in enumerate(operations):
                try:
                    self._apply(backend, kind, op)
                except DynamodbException as error:  # the expression is not valid for the item
                    reasons[position] = ("ValidationError", error.message, None)
                    raise TransactionCanceledException(reasons) from error

    def _apply(self, backend: DynamoDBBackend, kind: str, operation: dict[str, Any]) -> None:
        """Executes one operation of a transaction after its conditions were checked."""
        table_name = operation["TableName"]
        if kind == "Put":
            backend.put_item(table_name, operation["Item"], overwrite=True)
        elif kind == "Delete":
            backend.delete_item(table_name, operation["Key"])
        elif kind == "Update":
            backend.update_item(
                table_name,
                operation["Key"],
                update_expression=operation["UpdateExpression"],
                expression_attribute_names=operation.get("ExpressionAttributeNames", {}),
                expression_attribute_values=operation.get("ExpressionAttributeValues", {}),
            )

    def query(self, table: Table, *arguments: Any, **options: Any) -> Any:
        """Queries only the items with the partition key. Moto sorts the whole table for every query.

        The query runs on a copy of the table that has only these items.
        """
        hash_key, index_name = arguments[0], arguments[7]  # the backend passes them by position
        table = self._seen(table)
        stand_in: Any = copy.copy(table)
        if index_name:
            conditions = options["hash_key_conditions"]
            stand_in.items = {key: kept for key, held in table.items.items() if (kept := _matching(held, conditions))}
        else:
            stand_in.items = {hash_key: table.items[hash_key]} if hash_key in table.items else {}
        return self._query(stand_in, *arguments, **options)


def _matching(held: Any, conditions: list[tuple[str, DynamoType]]) -> Any:
    """Returns the matching part of what moto stores for a partition key: an item, or items by sort key."""
    if isinstance(held, dict):
        return {key: item for key, item in held.items() if _matching(item, conditions)}
    for name, wanted in conditions:
        value = held.attrs.get(name)
        # Most keys are strings, which do not need the slow conversions of moto's comparison.
        if value is None or (value.value != wanted.value and (wanted.type == "S" or value != wanted)):
            return None
    return held


def _stream_arn(table: Table) -> str:
    return f"{table.table_arn}/stream/{table.latest_stream_label}"


def _plain(attributes: dict[str, DynamoType]) -> dict[str, Any]:
    """Returns the attributes as DynamoDB JSON, with binary values in base64."""
    plain: dict[str, Any] = json.loads(dynamo_json_dump(attributes))
    return plain


def _locate(backend: DynamoDBBackend, table_name: str, attributes: dict[str, Any]) -> _Place:
    """Returns the table and the key of a request."""
    table = backend.get_table(table_name)
    return table, *backend.get_keys_value(table, attributes)


def _put_back(table: Any, hash_key: DynamoType, range_key: DynamoType | None, item: Item | None) -> None:
    items, key = (table.items, hash_key) if range_key is None else (table.items.setdefault(hash_key, {}), range_key)
    if item is None:
        items.pop(key, None)
    else:
        items[key] = item


def _failed_condition(place: _Place, operation: dict[str, Any]) -> tuple[str | None, str | None, dict[str, Any] | None]:
    """Returns an operation's cancellation reason (code, message, item), or three times None if the condition is met."""
    table, hash_key, range_key = place
    item = table.get_item(hash_key, range_key)
    condition = get_filter_expression(
        operation.get("ConditionExpression"),
        operation.get("ExpressionAttributeNames"),
        operation.get("ExpressionAttributeValues"),
    )
    if condition.expr(item):
        return None, None, None
    wanted = operation.get("ReturnValuesOnConditionCheckFailure") == "ALL_OLD"
    old = item.to_json()["Attributes"] if wanted and item is not None else None
    return "ConditionalCheckFailed", ConditionalCheckFailed().message, old


def correct_tables(replaced: ExitStack, store: "Store") -> Tables:
    tables = Tables(store)
    # Disables moto's check of the item size for each attribute; make_item checks the size
    replaced.enter_context(patch.object(LimitedSizeDict, "__setitem__", dict.__setitem__))
    for name in ("put_item", "update_item", "delete_item"):
        replace_method(replaced, DynamoDBBackend, name, tables.writing(getattr(DynamoDBBackend, name)))
    for owner, name, correction in (
        (DynamoHandler, "call_action", tables.call_action),
        (DynamoHandler, "transact_write_items", tables.answer_transaction),
        (DynamoDBBackend, "transact_write_items", tables.transact_write_items),
        (StreamShard, "add", tables.add_to_stream),
        (Item, "__init__", tables.make_item),
        (Table, "get_item", tables.get_item),
        (Table, "query", tables.query),
        (DynamoDBStreamsBackend, "describe_stream", tables.describe_stream),
        (DynamoDBStreamsHandler, "get_shard_iterator", tables.answer_shard_iterator),
        (DynamoDBStreamsHandler, "get_records", tables.answer_records),
    ):
        replace_method(replaced, owner, name, correction)
    return tables
