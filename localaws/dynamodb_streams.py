"""DynamoDB Streams: the records of changed items, for pollers and for the API of the streams."""

import itertools
import json
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from moto.core.exceptions import JsonRESTError
from moto.core.responses import ActionResult
from moto.dynamodb.models.table import Table
from moto.dynamodbstreams.models import DynamoDBStreamsBackend
from moto.dynamodbstreams.responses import DynamoDBStreamsHandler

from localaws.aws import REGION, SHARD_ID
from localaws.dynamodb_values import Item, item_size
from localaws.moto_patch import replace_method

# Number of records kept per stream. DynamoDB keeps all records for 24 hours.
STREAM_RECORDS = 10_000


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


class Streams:
    """The streams of all tables. Each has one shard.

    Args:
        lock: lock of the tables. It is held when a change is added.
        on_record: called with a stream's ARN and a record in Lambda's format.
        replaced: undoes the corrections of moto's API of the streams when it is closed.
    """

    def __init__(
        self, lock: threading.RLock, on_record: Callable[[str, dict[str, Any]], None], replaced: ExitStack
    ) -> None:
        self._lock, self._on_record = lock, on_record
        self._streams: dict[str, _Stream] = {}
        self._next_number = 10**20
        self._describe_stream = DynamoDBStreamsBackend.describe_stream
        replace_method(replaced, DynamoDBStreamsBackend, "describe_stream", self.describe_stream)
        replace_method(replaced, DynamoDBStreamsHandler, "get_shard_iterator", self.answer_shard_iterator)
        replace_method(replaced, DynamoDBStreamsHandler, "get_records", self.answer_records)

    def add(self, table: Table, old: Item | None, new: Item | None, old_size: int, new_size: int) -> None:
        """Adds the record of a change to the table's stream, if it has one. A write without a change has no record.

        Args:
            old_size: bytes of the old item.
            new_size: bytes of the new item.
        """
        view = (table.stream_specification or {}).get("StreamViewType")
        if view is None or old == new:
            return
        number, self._next_number = self._next_number, self._next_number + 1
        keys = {name: (new or old or {})[name] for name in table.table_key_attrs}
        change: dict[str, Any] = {
            "ApproximateCreationDateTime": float(int(time.time())),
            "Keys": keys,
            "SequenceNumber": str(number),
            "SizeBytes": item_size(keys),
            "StreamViewType": view,
        }
        for image, item, size in (("NewImage", new, new_size), ("OldImage", old, old_size)):
            if item is not None and view in (image.replace("Image", "_IMAGE").upper(), "NEW_AND_OLD_IMAGES"):
                change[image] = item
                change["SizeBytes"] += size
        record = {
            "eventID": uuid.uuid4().hex,
            "eventName": "INSERT" if old is None else "REMOVE" if new is None else "MODIFY",
            "eventVersion": "1.1",
            "eventSource": "aws:dynamodb",
            "awsRegion": REGION,
            "dynamodb": change,
        }
        arn = f"{table.table_arn}/stream/{table.latest_stream_label}"
        self._stream(arn).add(number, record)
        # A function gets the ARN in addition: https://docs.aws.amazon.com/lambda/latest/dg/with-ddb.html
        self._on_record(arn, record | {"eventSourceARN": arn})

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
