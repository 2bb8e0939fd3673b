"""The AWS services that store data: moto, served over HTTP in this process, with all corrections of moto.

Moto implements the AWS APIs in memory. Where it differs from AWS in a way that matters to an event-driven application,
this file replaces a part of moto; the docstrings describe the behavior of moto and of AWS. The replaced parts are
internals of moto, so its version is checked, and each correction has a test in tests/unit/local/test_store.py.
"""

import base64
import copy
import functools
import hashlib
import importlib
import io
import itertools
import json
import logging
import re
import secrets
import socket
import sys
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any, Protocol
from unittest.mock import Mock, patch

import boto3
import joserfc.jwk
import moto
import moto.backends
import moto.core.responses
import moto.sqs.models
import moto.utilities.utils
from botocore.config import Config
from moto.awslambda.models import LambdaBackend, LambdaFunction
from moto.cognitoidp.models import CognitoIdpUserPool
from moto.core.common_models import BaseModel
from moto.core.exceptions import JsonRESTError
from moto.core.responses import ActionResult
from moto.core.utils import camelcase_to_underscores, method_names_from_class
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
from moto.dynamodb.parsing.expressions import UpdateExpressionParser  # type: ignore[attr-defined]
from moto.dynamodb.responses import DynamoHandler
from moto.dynamodbstreams.models import DynamoDBStreamsBackend
from moto.dynamodbstreams.responses import DynamoDBStreamsHandler
from moto.events.models import EventsBackend
from moto.events.responses import EventsHandler
from moto.logs.models import logs_backends
from moto.moto_api._internal.models import moto_api_backend
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from moto.sesv2.responses import SESV2Response
from moto.sqs.exceptions import ReceiptHandleIsInvalid
from moto.sqs.models import Message, Queue, SQSBackend, _filter_message_attributes, sqs_backends
from moto.sqs.responses import SQSResponse
from moto.utilities.utils import load_resource
from werkzeug.exceptions import NotFound

from local.faults import Answer

MOTO_VERSION = "5.2.5"
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
# Each stream has one shard.
SHARD_ID = "shardId-00000000000000000000-00000000"

log = logging.getLogger(__name__)


class ServiceError(Exception):
    """An error response of an AWS API.

    Args:
        code: error code, `error.response["Error"]["Code"]` in boto3.
        message: error message.
        status: HTTP status.
    """

    def __init__(self, code: str, message: str, status: int = 400) -> None:
        super().__init__(f"{code}: {message}")
        self.code, self.message, self.status = code, message, status


class Invocation(Protocol):
    """A function's response: the payload, and the value of the header X-Amz-Function-Error if it failed."""

    @property
    def payload(self) -> bytes: ...

    @property
    def function_error(self) -> str | None: ...


def _no_bus(_entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    raise ServiceError("InternalException", "there is no event bus", 500)


def _no_archives(_action: str, _request: dict[str, Any]) -> dict[str, Any]:
    raise ServiceError("InternalException", "there is no archive", 500)


def _no_runtime(_name: str, _payload: bytes, _invocation_type: str) -> Invocation:
    raise ServiceError("ServiceException", "there is no function", 500)


class Store:
    """Moto as a server. A process can have only one store at a time, because moto's state and code are global.

    Attributes:
        endpoint: value for `endpoint_url`, set by `start`.
        on_stream_record: called with a stream's ARN and a record in Lambda's format, once per changed item, in the
            order of the writes, after the writes of the request took effect. It is called with the lock of the tables,
            so it must only enqueue.
        on_message: called with a queue's ARN when a message arrives or the visibility time of a message changes. It is
            called with the lock of the queues, so it must only wake a thread.
        outside: converts seconds of a queue's timeouts, delays and retention to real seconds. `WaitTimeSeconds` and
            `SentTimestamp` are real time.
        on_put_events: called with the entries of PutEvents (`Time` in seconds since the epoch). Returns a result for
            each entry. It may raise ServiceError.
        on_replay: called with StartReplay, DescribeReplay, ListReplays or CancelReplay and the request (times in
            seconds since the epoch). Returns the response. It may raise ServiceError.
        on_call: called with each request, its body, and a function that answers a body. Returns the response, or None
            to close the connection.
        on_invoke: called with a function's name, the payload and `RequestResponse` or `Event`. It may raise
            ServiceError.
        on_concurrency: called with a function's name and its new reserved concurrency; None for no reservation.
        keeps_previous_images: whether to keep the state of each item before its last write, for `stale_reads`.
        on_mail: called with each e-mail that SES accepted, as the recipient gets it (RFC 5322).
    """

    region = "us-east-1"
    account_id = "123456789012"
    _running = False

    def __init__(self, host: str = "127.0.0.1", port: int = 0) -> None:
        self.endpoint = ""
        self.on_stream_record: Callable[[str, dict[str, Any]], None] = lambda _arn, _record: None
        self.on_message: Callable[[str], None] = lambda _arn: None
        self.outside: Callable[[float], float] = lambda seconds: seconds
        self.on_put_events: Callable[[list[dict[str, Any]]], list[dict[str, Any]]] = _no_bus
        self.on_replay: Callable[[str, dict[str, Any]], dict[str, Any]] = _no_archives
        self.on_invoke: Callable[[str, bytes, str], Invocation] = _no_runtime
        self.on_concurrency: Callable[[str, int | None], None] = lambda _name, _reserved: None
        self.on_mail: Callable[[bytes], None] = lambda _message: None
        self.on_call: Callable[[BaseHTTPRequestHandler, bytes, Callable[[bytes], Answer]], Answer | None] = (
            lambda _request, body, answer: answer(body)
        )
        self.keeps_previous_images = False
        self._address = (host, port)
        self._server: _Server | None = None
        self._replaced = ExitStack()
        self._session = boto3.Session(region_name=self.region)

    def start(self) -> None:
        """Resets moto, applies the corrections, and starts the server.

        Raises:
            RuntimeError: the version of moto is not supported, or another store runs in this process.
        """
        require_moto(moto.__version__)
        if Store._running:
            raise RuntimeError("another store runs in this process; stop it first")
        self._server = _Server(self._address, self)
        Store._running = True
        moto_api_backend.reset()
        self._tables = _correct_tables(self._replaced, self)
        self._queues = _correct_queues(self._replaced, self)
        _correct_services(self._replaced, self)
        _save_time(self._replaced)
        self.endpoint = f"http://{self._address[0]}:{self._server.server_port}"
        # The poll interval is the longest wait of stop().
        threading.Thread(target=self._server.serve_forever, args=(0.05,), name="store", daemon=True).start()

    def stop(self) -> None:
        """Closes all connections and removes the corrections from moto."""
        if self._server:
            self._server.stop()
            self._server = None
            Store._running = False
        self._replaced.close()

    def client(self, service: str) -> Any:
        """Returns a boto3 client of this store. It does not retry, so that a test sees the first response."""
        return self._session.client(  # type: ignore[call-overload]
            service,
            endpoint_url=self.endpoint,
            aws_access_key_id="local",
            aws_secret_access_key="local",  # noqa: S106 - a placeholder; signatures are not checked
            config=Config(retries={"total_max_attempts": 1}, account_id_endpoint_mode="disabled"),
        )

    def log(self, group: str, stream: str, message: str) -> None:
        """Writes a line to a log group without an HTTP call, because an event bus may log every event.

        Raises:
            KeyError: the log group does not exist.
        """
        logs = logs_backends[self.account_id][self.region]
        if stream not in logs.groups[group].streams:
            logs.create_log_stream(group, stream)
        logs.put_log_events(group, stream, [{"timestamp": int(time.time() * 1000), "message": message}])

    def receive(self, queue: str, count: int) -> list["Received"]:
        """Receives up to `count` visible messages of a queue, given by its ARN, without waiting."""
        return self._queues.receive(queue, count)

    def delete(self, queue: str, receipt_handles: Iterable[str]) -> None:
        """Deletes received messages. Ignores those that have moved to another queue."""
        self._queues.delete(queue, receipt_handles)

    def next_visible(self, queue: str) -> float | None:
        """Returns the real seconds until a message of a queue is visible, or None if the queue is empty."""
        return self._queues.next_visible(queue)

    @contextmanager
    def stale_reads(self, seconds: float) -> Iterator[None]:
        """Makes reads of tables in this thread miss the last write of each item, if it is recent.

        Args:
            seconds: maximum age of a missed write, in real time. Writes before `keeps_previous_images` was set are not
                missed.
        """
        with self._tables.stale_reads(seconds):
            yield

    def function_environment(self) -> dict[str, str]:
        """Returns the environment variables that make an AWS SDK in another process use this store."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_REGION": self.region,
            "AWS_DEFAULT_REGION": self.region,
            "AWS_ACCESS_KEY_ID": "local",
            "AWS_SECRET_ACCESS_KEY": "local",
            # Otherwise the SDK adds the account ID to the host: 123456789012.127.0.0.1
            "AWS_ACCOUNT_ID_ENDPOINT_MODE": "disabled",
        }

    def signing_keys(self) -> joserfc.jwk.KeySet:
        """Returns the public keys for tokens of the user pools. Moto has one key pair for all pools."""
        return joserfc.jwk.KeySet.import_key_set(load_resource("cognitoidp/resources/jwks-public.json"))


def require_moto(version: str) -> None:
    """Checks that the corrections were written for this version of moto.

    Raises:
        RuntimeError: the version is not MOTO_VERSION.
    """
    if version != MOTO_VERSION:
        message = f"local/store.py requires moto {MOTO_VERSION} and found moto {version}: install {MOTO_VERSION}"
        raise RuntimeError(message)


# ---------------------------------------------------------------------------------------------------- HTTP


def _create_app(service: Any) -> Any:
    """Returns a service's WSGI application. Moto's own API is blocked: any web page could reset the store with it."""
    return NotFound() if service == "moto_api" else create_backend_app(service)


class _Server(ThreadingHTTPServer):
    """Serves moto's application with one thread per connection, and closes the connections when it stops."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], store: Store) -> None:
        self.store = store
        self.application = DomainDispatcherApplication(_create_app)
        self.connections: set[socket.socket] = set()
        super().__init__(address, _Handler)

    def stop(self) -> None:
        self.shutdown()
        self.server_close()
        for connection in list(self.connections):
            with suppress(OSError):  # the caller has already closed it
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Logs an error. The base class would print unescaped data of the request."""
        log.exception("A request to the store failed")


class _Handler(BaseHTTPRequestHandler):
    """One keep-alive connection. Moto's own server closes it, so that each call needs a new connection and thread.

    The response is buffered and sent in one piece: Nagle's algorithm and delayed acknowledgements would delay a second
    piece by 40 ms.
    """

    server: _Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

    def setup(self) -> None:
        super().setup()
        self.server.connections.add(self.connection)

    def finish(self) -> None:
        self.server.connections.discard(self.connection)
        with suppress(ConnectionError):  # the caller has closed the connection before the end of the response
            super().finish()

    def handle(self) -> None:
        with suppress(ConnectionError):  # the caller was killed
            super().handle()

    def handle_call(self) -> None:
        length = self.headers.get("Content-Length", "0")
        if "Transfer-Encoding" in self.headers or not re.fullmatch("[0-9]{1,8}", length):
            self.send_error(400, explain="Content-Length is required, with at most 99999999 bytes.")
            return
        body = self.rfile.read(int(length))
        # An incomplete request, of a caller that was killed, is not executed, as in AWS
        answer = self.server.store.on_call(self, body, self._answer) if len(body) == int(length) else None
        if answer is None:
            self.close_connection = True
            return
        status, headers, content = answer
        self.send_response(int(status.split()[0]))
        for name, value in headers:
            if name.lower() != "content-length":
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_DELETE = do_GET = do_POST = do_PUT = handle_call  # noqa: N815 - names required by http.server

    def _answer(self, body: bytes) -> Answer:
        status, headers = "500", [("Content-Type", "application/json")]

        def start_response(new_status: str, new_headers: list[tuple[str, str]], _error: Any = None) -> None:
            nonlocal status, headers
            status, headers = new_status, new_headers

        try:
            if self.headers.get("X-Amz-Target", "").startswith("DynamoDB_20120810."):
                status, headers, answer = _call_table(self.headers, body)
            else:
                answer = b"".join(self.server.application(self._environment(body), start_response))
        except Exception as error:  # return errors of moto to the caller
            log.exception("moto failed")
            answer = json.dumps({"__type": "InternalFailure", "message": f"moto: {error!r}"}).encode()
        return status, headers, answer

    def _environment(self, body: bytes) -> dict[str, Any]:
        """Returns the request as a WSGI environment (PEP 3333)."""
        path, _, query = self.path.partition("?")
        environment = {
            "REQUEST_METHOD": self.command,
            "SCRIPT_NAME": "",
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "RAW_URI": self.path,
            "SERVER_NAME": self.server.server_name,
            "SERVER_PORT": str(self.server.server_port),
            "SERVER_PROTOCOL": self.request_version,
            "wsgi.url_scheme": "http",
            "wsgi.input": io.BytesIO(body),
        }
        for name, value in self.headers.items():
            key = name.upper().replace("-", "_")
            environment[key if key == "CONTENT_TYPE" else f"HTTP_{key}"] = value
        return environment | {"CONTENT_LENGTH": str(len(body))}

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - http.server's name
        """Logs nothing: one line per call would hide the application's log."""


# ------------------------------------------------------------------------------------------------ DynamoDB


def _call_table(headers: Any, body: bytes) -> Answer:
    """Calls moto's DynamoDB without moto's web framework.

    Most calls of an event-driven application use DynamoDB, and the framework takes half the time of a call.
    """
    handler = DynamoHandler()
    handler.headers, handler.response_headers, handler.querystring, handler.uri_match = headers, {}, {}, {}
    handler.region, handler.current_account = Store.region, Store.account_id
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


class _Tables:
    """The corrections of DynamoDB and their state: the lock, the changes of a request, the streams, request tokens."""

    def __init__(self, store: Store) -> None:
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
            "awsRegion": self._store.region,
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


def _correct_tables(replaced: ExitStack, store: Store) -> _Tables:
    tables = _Tables(store)
    # Disables moto's check of the item size for each attribute; make_item checks the size
    replaced.enter_context(patch.object(LimitedSizeDict, "__setitem__", dict.__setitem__))
    for name in ("put_item", "update_item", "delete_item"):
        _replace(replaced, DynamoDBBackend, name, tables.writing(getattr(DynamoDBBackend, name)))
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
        _replace(replaced, owner, name, correction)
    return tables


def _replace(replaced: ExitStack, owner: Any, name: str, correction: Callable[..., Any]) -> None:
    """Replaces a method by a correction until `replaced` is closed."""

    def method(*args: Any, **kwargs: Any) -> Any:  # a plain function: a bound method would not get the instance
        return correction(*args, **kwargs)

    replaced.enter_context(patch.object(owner, name, method))


# ----------------------------------------------------------------------------------------------------- SQS


@dataclass(frozen=True)
class Received:
    """A received message, which is invisible until its visibility timeout.

    Attributes:
        record: the message in Lambda's format.
        dead_letters: ARN of the dead-letter queue if the message was received `maxReceiveCount` times, else None.
    """

    record: dict[str, Any]
    dead_letters: str | None
    message: Message

    @property
    def visible_in(self) -> float:
        """Real seconds until the message is visible again."""
        return max(_due(self.message) / 1000 - time.time(), 0.0)


class _Queues:
    """The corrections of SQS and their lock.

    Moto's queues are not thread-safe: two receivers may get the same message, or an error.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self.changed = threading.Condition()
        self._add = Queue.add_message
        self._receive_from_fifo = SQSBackend.receive_message
        self._change_visibility = SQSBackend.change_message_visibility
        self._answer_receive = SQSResponse.receive_message

    def add_message(self, queue: Queue, message: Message) -> None:
        """Adds a message and calls on_message, so that no polling is needed."""
        with self.changed:
            self._add(queue, message)
            self._store.on_message(queue.queue_arn)

    def receive_message(
        self,
        backend: SQSBackend,
        queue_name: str,
        count: int,
        wait: int,
        visibility_timeout: int,
        attribute_names: list[str] | None = None,
    ) -> list[Message]:
        """Waits for messages and receives them, one caller at a time. FIFO queues use moto's implementation."""
        end = time.monotonic() + wait
        with self.changed:
            while True:
                queue = backend.get_queue(queue_name)
                if queue.fifo_queue:
                    return self._receive_from_fifo(
                        backend, queue_name, count, wait, visibility_timeout, attribute_names
                    )
                received = [copy.copy(message) for message in self._take(queue, count, visibility_timeout)]
                left = end - time.monotonic()
                if received or left <= 0:
                    break
                due = _next_visible(queue)
                self.changed.wait(left if due is None else min(left, due))
        for message in received:
            _filter_message_attributes(message, attribute_names or [])
        return received

    def _take(self, queue: Any, count: int, visibility_timeout: int) -> Iterator[Any]:
        """Marks visible messages as received.

        Differences from moto:
        - Moto counts all messages for each message, so its time grows with the square of their number.
        - Moto keeps messages beyond the retention period.
        - Moto does not store the source queue of a message in a dead-letter queue.
        - If the dead-letter queue has one itself, moto moves the message on immediately. SQS counts
          ApproximateReceiveCount across all queues, but applies maxReceiveCount to the receives from one queue.
        """
        retention = self._store.outside(queue.message_retention_period) * 1000
        now, first = time.time() * 1000, None
        for message in list(queue._messages):
            if _due(message) > now:
                continue
            if message.sent_timestamp + retention <= now:
                queue._messages.remove(message)
            elif _spent(queue, message):
                queue._messages.remove(message)
                message.source, message.received_before = queue.queue_arn, message.approximate_receive_count
                queue.dead_letter_queue.add_message(message)
            else:
                message.mark_received(visibility_timeout)
                first = first or message
                message.visible_at = first.visible_at  # messages received together become visible together
                yield message
                count -= 1
                if not count:
                    return

    def receive(self, arn: str, count: int) -> list[Received]:
        with self.changed:
            if (queue := _queue(arn)) is None:
                return []
            return [
                Received(
                    _queue_record(queue, message),
                    queue.dead_letter_queue.queue_arn if _spent(queue, message) else None,
                    message,
                )
                for message in self._take(queue, count, queue.visibility_timeout)
            ]

    def delete(self, arn: str, receipt_handles: Iterable[str]) -> None:
        if (queue := _queue(arn)) is not None:
            for handle in receipt_handles:
                with suppress(ReceiptHandleIsInvalid):
                    queue.delete_message(handle)

    def next_visible(self, arn: str) -> float | None:
        with self.changed:
            return None if (queue := _queue(arn)) is None else _next_visible(queue)

    def delete_message(self, queue: Queue, receipt_handle: str) -> None:
        """Deletes a message. Stops at the first match; moto compares the handles of all messages twice.

        Raises:
            ReceiptHandleIsInvalid: the handle is not of a message of this queue.
        """
        with self.changed:
            if receipt_handle in queue.deleted_messages:
                return
            message = next((message for message in queue._messages if message.had_receipt_handle(receipt_handle)), None)
            if message is None:
                raise ReceiptHandleIsInvalid
            queue._messages.remove(message)
            queue._pending_messages.discard(message)
            queue.deleted_messages.update(filter(None, message.all_receipt_handles))

    def change_visibility(
        self, backend: SQSBackend, queue_name: str, receipt_handle: str, visibility_timeout: int
    ) -> None:
        """Changes the visibility timeout, wakes the waiting receivers and calls on_message."""
        with self.changed:
            self._change_visibility(backend, queue_name, receipt_handle, visibility_timeout)
            self.changed.notify_all()
            self._store.on_message(backend.get_queue(queue_name).queue_arn)

    def answer_receive(self, handler: Any) -> Any:
        """Adds the attribute DeadLetterQueueSourceArn, which moto does not have."""
        answer: Any = self._answer_receive(handler)
        asked = {*handler._get_param("AttributeNames", []), *handler._get_param("MessageSystemAttributeNames", [])}
        if asked & {"All", "DeadLetterQueueSourceArn"}:
            queue = handler.sqs_backend.get_queue(handler._get_queue_name())
            with self.changed:
                sources = {message.id: _source(message) for message in queue._messages}
            for message in answer.result.get("Messages", []):
                message.setdefault("Attributes", {}).update(sources.get(message["MessageId"], {}))
        return answer


@dataclass(frozen=True)
class _Count:
    """The number of messages that pass a test. It is counted only when it is written into a response.

    Moto counts three times at each SendMessage without using the result.
    """

    queue: Queue
    test: Callable[[Message, float], bool]

    def __str__(self) -> str:
        now = time.time() * 1000
        return str(sum(self.test(message, now) for message in list(self.queue._messages)))


def _counting(test: Callable[[Message, float], bool]) -> property:
    return property(lambda queue: _Count(queue, test))


def _queue(arn: str) -> Any:
    """Returns the queue, or None if it does not exist."""
    return sqs_backends[Store.account_id][Store.region].queues.get(arn.rpartition(":")[2])


def _due(message: Message) -> float:
    """Returns the time when a message becomes visible, in milliseconds since the epoch."""
    return max(message.visible_at, message.delayed_until)


def _next_visible(queue: Queue) -> float | None:
    due = min(map(_due, queue._messages), default=None)
    return None if due is None else max(due / 1000 - time.time(), 0.0)


def _spent(queue: Any, message: Any) -> bool:
    """Returns whether a message was received from a queue as often as its redrive policy allows."""
    if queue.dead_letter_queue is None or not queue.redrive_policy:
        return False
    received = message.approximate_receive_count - getattr(message, "received_before", 0)
    return bool(received >= queue.redrive_policy["maxReceiveCount"])


def _source(message: Message) -> dict[str, str]:
    """Returns the system attribute of a message in a dead-letter queue."""
    source = getattr(message, "source", None)
    return {} if source is None else {"DeadLetterQueueSourceArn": source}


def _queue_record(queue: Queue, message: Message) -> dict[str, Any]:
    """Returns the record of a message in Lambda's format.

    https://docs.aws.amazon.com/lambda/latest/dg/with-sqs.html#example-standard-queue-message-event
    """
    return {
        "messageId": message.id,
        "receiptHandle": message.receipt_handle,
        "body": message.body,
        "attributes": {
            "ApproximateReceiveCount": str(message.approximate_receive_count),
            "SentTimestamp": str(message.sent_timestamp),
            "SenderId": message.sender_id,
            "ApproximateFirstReceiveTimestamp": str(message.approximate_first_receive_timestamp),
            **_source(message),
        },
        "messageAttributes": {name: _attribute(value) for name, value in message.message_attributes.items()},
        "md5OfBody": message.body_md5,
        "eventSource": "aws:sqs",
        "eventSourceARN": queue.queue_arn,
        "awsRegion": queue.region,
    }


def _attribute(value: dict[str, Any]) -> dict[str, Any]:
    """Returns a message attribute of a record: binary values in base64, and the list values, unused by SQS, empty."""
    attribute: dict[str, Any] = {"stringListValues": [], "binaryListValues": [], "dataType": value["DataType"]}
    if value.get("BinaryValue") is not None:
        return attribute | {"binaryValue": base64.b64encode(value["BinaryValue"]).decode()}
    return attribute | {"stringValue": value["StringValue"]}


def _correct_queues(replaced: ExitStack, store: Store) -> _Queues:
    queues = _Queues(store)

    # Moto uses real seconds.
    def hide(message: Message, visibility_timeout: int) -> None:
        message.visible_at = (time.time() + store.outside(int(visibility_timeout))) * 1000

    def delay(message: Message, delay_seconds: int) -> None:
        message.delayed_until = (time.time() + store.outside(int(delay_seconds))) * 1000

    for owner, name, correction in (
        (Queue, "add_message", queues.add_message),
        (Queue, "delete_message", queues.delete_message),
        (SQSBackend, "receive_message", queues.receive_message),
        (SQSBackend, "change_message_visibility", queues.change_visibility),
        (SQSResponse, "receive_message", queues.answer_receive),
        (Message, "change_visibility", hide),
        (Message, "delay", delay),
    ):
        _replace(replaced, owner, name, correction)
    for name, value in (
        ("_messages_lock", property(lambda _queue: queues.changed, lambda _queue, _lock: None)),
        ("approximate_number_of_messages", _counting(lambda message, now: _due(message) <= now)),
        ("approximate_number_of_messages_delayed", _counting(lambda message, now: message.delayed_until > now)),
        ("approximate_number_of_messages_not_visible", _counting(lambda message, now: message.visible_at > now)),
        # Moto invokes the function of an event source mapping inside SendMessage, once per message, and deletes the
        # messages even if the function fails. In AWS a poller invokes it (local/queues.py).
        ("lambda_event_source_mappings", property(lambda _queue: {}, lambda _queue, _mappings: None)),
    ):
        replaced.enter_context(patch.object(Queue, name, value, create=True))
    return queues


# ------------------------------------------------------------------------------------------ other services


def _correct_services(replaced: ExitStack, store: Store) -> None:
    def put_events(_backend: EventsBackend, events: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Calls on_put_events. Moto raises an error for a function as target, and has no retries or DLQs."""
        with _as_aws_error():
            return store.on_put_events(events)

    def replay(handler: EventsHandler) -> tuple[str, dict[str, Any]]:
        """Calls on_replay. Moto ignores the time range and FilterArns, and does not get the events."""
        with _as_aws_error():
            answer = store.on_replay(handler._get_action(), json.loads(handler.body))
        return json.dumps(answer), handler.response_headers

    def invoke(function: LambdaFunction, body: Any, headers: Any, answer_headers: dict[str, str]) -> bytes:
        """Calls on_invoke. Moto would need Docker."""
        # Calls by SNS and InvokeAsync have no headers. Both invoke asynchronously.
        invocation_type = headers.get("X-Amz-Invocation-Type", "RequestResponse") if headers else "Event"
        payload = body if isinstance(body, bytes) else (body or "").encode()
        with _as_aws_error():
            invocation = store.on_invoke(function.function_name, payload, invocation_type)
        if invocation.function_error:
            answer_headers["x-amz-function-error"] = invocation.function_error
        return invocation.payload

    put_concurrency, delete_concurrency = (
        LambdaBackend.put_function_concurrency,
        LambdaBackend.delete_function_concurrency,
    )

    def reserve(backend: LambdaBackend, name: str, reserved: Any) -> Any:
        """Calls on_concurrency. Moto only stores the value."""
        answer = put_concurrency(backend, name, reserved)
        store.on_concurrency(name, int(reserved))
        return answer

    def free(backend: LambdaBackend, name: str) -> Any:
        """Calls on_concurrency with None."""
        answer = delete_concurrency(backend, name)
        store.on_concurrency(name, None)
        return answer

    send_email = SESV2Response.send_email

    def send_and_show(handler: SESV2Response) -> str:
        """Calls on_mail. Moto keeps only the HTML part."""
        answer = send_email(handler)
        request = json.loads(handler.body)
        if "Simple" in request["Content"]:
            store.on_mail(_message(request, json.loads(answer)["MessageId"]))
        return answer

    _replace(replaced, EventsBackend, "put_events", put_events)
    for action in ("start_replay", "describe_replay", "list_replays", "cancel_replay"):
        _replace(replaced, EventsHandler, action, replay)
    _replace(replaced, SESV2Response, "send_email", send_and_show)
    _replace(replaced, LambdaFunction, "invoke", invoke)
    _replace(replaced, LambdaBackend, "put_function_concurrency", reserve)
    _replace(replaced, LambdaBackend, "delete_function_concurrency", free)
    _replace(replaced, CognitoIdpUserPool, "get_user_extra_data_by_client_id", _user_claims)


@contextmanager
def _as_aws_error() -> Iterator[None]:
    try:
        yield
    except ServiceError as error:
        answer = JsonRESTError(error.code, error.message)
        answer.code = error.status
        raise answer from error


def _message(request: dict[str, Any], message_id: str) -> bytes:
    """Returns the message that SES makes from SendEmail's simple content. The tags are in a header, for checks."""
    content = request["Content"]["Simple"]
    message = EmailMessage(SMTP.clone(max_line_length=998))  # RFC 5322's limit; folded headers are hard to search
    message["From"] = request["FromEmailAddress"]
    message["To"] = ", ".join(request["Destination"]["ToAddresses"])
    message["Subject"] = content["Subject"]["Data"]
    message["Date"] = format_datetime(datetime.now(UTC))
    message["MIME-Version"] = "1.0"
    message["Message-ID"] = f"<{message_id}@email.amazonses.com>"
    tags = (f"{tag['Name']}={tag['Value']}" for tag in request.get("EmailTags", []))
    message["X-SES-MESSAGE-TAGS"] = ", ".join(tags)
    for form, subtype in (("Text", "plain"), ("Html", "html")):
        if form in content["Body"]:
            message.add_alternative(content["Body"][form]["Data"], subtype=subtype)
    return message.as_bytes()


def _user_claims(pool: CognitoIdpUserPool, client_id: str, username: str) -> dict[str, Any]:
    """Returns a user's attributes as claims of the ID token.

    Moto omits all attributes that are not in ReadAttributes, and makes every claim a string. In Cognito, a client
    without ReadAttributes can read all attributes, and `email_verified` and `phone_number_verified` are booleans:
    https://docs.aws.amazon.com/cognito/latest/developerguide/amazon-cognito-user-pools-using-the-id-token.html
    """
    readable = pool.clients[client_id].get_readable_fields()
    claims: dict[str, Any] = {
        attribute["Name"]: attribute["Value"]
        for attribute in pool._get_user(username).attributes
        if not readable or attribute["Name"] in readable
    }
    for name in {"email_verified", "phone_number_verified"} & claims.keys():
        claims[name] = claims[name] == "true"
    return claims | {"event_id": str(uuid.uuid4())}


# -------------------------------------------------------------------------------------------- time and memory


def _save_time(replaced: ExitStack) -> None:
    """Removes repeated work and memory leaks of moto. Each comment describes what moto does."""
    # Reads a megabyte of JSON for the regions of each service. Only one region is used here.
    replaced.enter_context(patch.object(boto3.Session, "get_available_regions", lambda *_, **__: [Store.region]))
    # Lists the folders of its package on disk.
    modules = tuple(moto.backends.list_of_moto_modules())
    replaced.enter_context(patch.object(moto.backends, "list_of_moto_modules", lambda: modules))
    # Collects the method names of a service's class by introspection.
    names = functools.cache(method_names_from_class)
    replaced.enter_context(patch.object(moto.core.responses, "method_names_from_class", names))
    # Converts the names of a queue's attributes for each message, and generates receipt handles letter by letter.
    replaced.enter_context(
        patch.object(moto.sqs.models, "camelcase_to_underscores", functools.cache(camelcase_to_underscores))
    )
    replaced.enter_context(patch.object(moto.sqs.models, "generate_receipt_handle", lambda: secrets.token_urlsafe(138)))
    # Applies the API model to a DynamoDB response that already has the format of the API.
    serialized = DynamoHandler.serialized

    def dump(handler: DynamoHandler, result: ActionResult) -> Any:
        if not isinstance(result.result, dict):
            return serialized(handler, result)
        headers = {"Content-Type": "application/x-amz-json-1.0"}
        return 200, headers | handler.response_headers, dynamo_json_dump(result.result)

    _replace(replaced, DynamoHandler, "serialized", dump)
    # Parses the same update expressions repeatedly. The cached result is safe: moto works on copies of it.
    parse = functools.lru_cache(UpdateExpressionParser.make)
    replaced.enter_context(patch.object(UpdateExpressionParser, "make", parse))
    # Keeps every object forever, for its dashboard.
    replaced.enter_context(patch.object(BaseModel, "__new__", lambda cls, *_args, **_kwargs: object.__new__(cls)))


def _import_unused_services() -> None:
    """Imports services that moto's CloudFormation needs but does not use here, without their slow data.

    This saves two seconds: EC2 reads the instance types and regions of all partitions, and API Gateway imports a
    validator of OpenAPI documents.
    """
    load = moto.utilities.utils.load_resource

    def load_other(path: str) -> Any:
        return {} if path.startswith("ec2") else load(path)

    with (
        patch.object(boto3.Session, "get_available_regions", lambda *_, **__: []),
        patch.object(moto.utilities.utils, "load_resource", load_other),
    ):
        importlib.import_module("moto.ec2.models")
    validator = "openapi_spec_validator"
    modules = (validator, f"{validator}.validation", f"{validator}.validation.exceptions")
    if validator not in sys.modules:
        sys.modules.update(dict.fromkeys(modules, Mock()))
        importlib.import_module("moto.apigateway.models")
        for name in modules:
            del sys.modules[name]


_import_unused_services()
