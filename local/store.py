"""What stores data: moto, served over HTTP in this process, with every correction of it in this one place.

Moto imitates the AWS APIs in memory. Where it differs from AWS in a way that matters to an event-driven application, a
function below replaces a part of it and says what moto does and what AWS does. The replaced parts are moto's internals,
so its version is asserted, and each correction has a test in tests/unit/local/test_store.py.
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
# The most operations in a transaction, from the same page.
TRANSACTION_OPERATIONS = 100
# The most bytes of an item, with the names of its attributes ("400 KB"):
# https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Constraints.html
ITEM_BYTES = 400 * 1024
# How many records of a stream can still be read. DynamoDB keeps them for 24 hours, however many there are.
STREAM_RECORDS = 10_000
# Each stream has one shard.
SHARD_ID = "shardId-00000000000000000000-00000000"

log = logging.getLogger(__name__)


class ServiceError(Exception):
    """An error that the caller of an AWS API gets as AWS would send it.

    Args:
        code: what boto3 gives as `error.response["Error"]["Code"]`.
        message: the sentence that goes with it.
        status: the HTTP status.
    """

    def __init__(self, code: str, message: str, status: int = 400) -> None:
        super().__init__(f"{code}: {message}")
        self.code, self.message, self.status = code, message, status


class Invocation(Protocol):
    """What a function answered: the payload, and the kind of error if it failed (the header X-Amz-Function-Error)."""

    @property
    def payload(self) -> bytes: ...

    @property
    def function_error(self) -> str | None: ...


def _no_bus(_entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    raise ServiceError("InternalException", "no event bus runs here", 500)


def _no_archives(_action: str, _request: dict[str, Any]) -> dict[str, Any]:
    raise ServiceError("InternalException", "no archive is here", 500)


def _no_runtime(_name: str, _payload: bytes, _invocation_type: str) -> Invocation:
    raise ServiceError("ServiceException", "no function runs here", 500)


class Store:
    """Moto as a server. One at a time in a process, because moto's state and code are the process's.

    Attributes:
        endpoint: the address for `endpoint_url`, known after `start`.
        on_stream_record: called with a stream's ARN and a record as a Lambda function gets it, once per changed item
            and in the order of the writes, after the request's writes took effect. It runs inside the lock of the
            tables, so it must only enqueue.
        on_message: called with a queue's ARN when a message came into it, or one becomes visible at another time than
            was said before. It runs inside the lock of the queues, so it must only wake somebody.
        outside: how long so many seconds of a queue's time-outs, delays and retention last outside, where
            `ReceiveMessage` waits and `SentTimestamp` is measured.
        on_put_events: takes the entries of PutEvents as they came (`Time` in seconds since the epoch) and answers with
            a result for each. It may raise ServiceError.
        on_replay: takes StartReplay, DescribeReplay, ListReplays or CancelReplay and the request as it came (times in
            seconds since the epoch), and answers it. It may raise ServiceError.
        on_call: takes each request as it came, its body, and what answers a body; answers in its place, or with None
            to hang up.
        on_invoke: takes a function's name, the payload and `RequestResponse` or `Event`. It may raise ServiceError.
        on_concurrency: told a function's name and its new reserved concurrency, None for no reservation.
        keeps_previous_images: keep what each item was before its last write, for `stale_reads`.
        on_mail: called with each mail that SES has accepted, as the recipient would get it (RFC 5322).
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
        """Empties moto, corrects it, and serves it.

        Raises:
            RuntimeError: moto has another version than the corrections were written for, or holds a store already.
        """
        require_moto(moto.__version__)
        if Store._running:
            raise RuntimeError("there is a store in this process already; stop it first")
        self._server = _Server(self._address, self)
        Store._running = True
        moto_api_backend.reset()
        self._tables = _correct_tables(self._replaced, self)
        self._queues = _correct_queues(self._replaced, self)
        _correct_services(self._replaced, self)
        _save_time(self._replaced)
        self.endpoint = f"http://{self._address[0]}:{self._server.server_port}"
        # The interval is how long stop() waits at most.
        threading.Thread(target=self._server.serve_forever, args=(0.05,), name="store", daemon=True).start()

    def stop(self) -> None:
        """Ends every connection and gives moto its own code back."""
        if self._server:
            self._server.stop()
            self._server = None
            Store._running = False
        self._replaced.close()

    def client(self, service: str) -> Any:
        """A boto3 client of this store. It does not retry, so that a test sees the first answer."""
        return self._session.client(  # type: ignore[call-overload]
            service,
            endpoint_url=self.endpoint,
            aws_access_key_id="local",
            aws_secret_access_key="local",  # noqa: S106 - made up, nobody checks it
            config=Config(retries={"total_max_attempts": 1}, account_id_endpoint_mode="disabled"),
        )

    def log(self, group: str, stream: str, message: str) -> None:
        """Writes a line to a log group, past the server: a bus that logs every event does it all the time.

        Raises:
            KeyError: there is no such group.
        """
        logs = logs_backends[self.account_id][self.region]
        if stream not in logs.groups[group].streams:
            logs.create_log_stream(group, stream)
        logs.put_log_events(group, stream, [{"timestamp": int(time.time() * 1000), "message": message}])

    def receive(self, queue: str, count: int) -> list["Received"]:
        """Receives what is visible in a queue, by its ARN; at most so many messages, and at once."""
        return self._queues.receive(queue, count)

    def delete(self, queue: str, receipt_handles: Iterable[str]) -> None:
        """Deletes received messages, unless they have moved to another queue meanwhile."""
        self._queues.delete(queue, receipt_handles)

    def next_visible(self, queue: str) -> float | None:
        """Seconds, outside, until a message of a queue is visible; None if there is none."""
        return self._queues.next_visible(queue)

    @contextmanager
    def stale_reads(self, seconds: float) -> Iterator[None]:
        """Lets reads of tables in this thread miss the last write of each item, if it is not older than that.

        Args:
            seconds: outside. Only writes since `keeps_previous_images` was set are missed.
        """
        with self._tables.stale_reads(seconds):
            yield

    def function_environment(self) -> dict[str, str]:
        """The variables by which an AWS SDK in another process finds this store."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_REGION": self.region,
            "AWS_DEFAULT_REGION": self.region,
            "AWS_ACCESS_KEY_ID": "local",
            "AWS_SECRET_ACCESS_KEY": "local",
            # Otherwise the SDK puts the account's number before the host: 123456789012.127.0.0.1
            "AWS_ACCOUNT_ID_ENDPOINT_MODE": "disabled",
        }

    def signing_keys(self) -> joserfc.jwk.KeySet:
        """The public keys of the user pools' tokens. Moto has one pair for all pools."""
        return joserfc.jwk.KeySet.import_key_set(load_resource("cognitoidp/resources/jwks-public.json"))


def require_moto(version: str) -> None:
    """Refuses a moto that the corrections were not written for.

    Raises:
        RuntimeError: the version is not MOTO_VERSION.
    """
    if version != MOTO_VERSION:
        message = f"local/store.py corrects moto {MOTO_VERSION} and found moto {version}: install {MOTO_VERSION}"
        raise RuntimeError(message)


# ---------------------------------------------------------------------------------------------------- HTTP


def _create_app(service: Any) -> Any:
    """A service's WSGI application, but for moto's own API, which could empty the store on any web page's request."""
    return NotFound() if service == "moto_api" else create_backend_app(service)


class _Server(ThreadingHTTPServer):
    """Serves moto's application, a thread per connection, and ends the connections when it stops."""

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
            with suppress(OSError):  # the caller has closed it meanwhile
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Leaves an error to the logger: the base class prints what the request said as it came."""
        log.exception("A request to the store failed")


class _Handler(BaseHTTPRequestHandler):
    """One connection, kept alive: moto's own server closes it after each call, which costs a connection and a thread.

    The answer is buffered and leaves in one piece: in two, Nagle's algorithm and delayed acknowledgements hold the
    second back for 40 ms.
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
        with suppress(ConnectionError):  # a caller has hung up before its whole answer was sent
            super().finish()

    def handle(self) -> None:
        with suppress(ConnectionError):  # a caller that is killed leaves without a word
            super().handle()

    def handle_call(self) -> None:
        length = self.headers.get("Content-Length", "0")
        if "Transfer-Encoding" in self.headers or not re.fullmatch("[0-9]{1,8}", length):
            self.send_error(400, explain="The body needs a Content-Length, of at most 99999999 bytes.")
            return
        body = self.rfile.read(int(length))
        # A caller that was killed while it sent leaves half a request, which AWS would not carry out either
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

    do_DELETE = do_GET = do_POST = do_PUT = handle_call  # noqa: N815 - http.server asks for these names

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
        except Exception as error:  # the border of the server: an error in moto is the caller's to see
            log.exception("moto failed")
            answer = json.dumps({"__type": "InternalFailure", "message": f"moto: {error!r}"}).encode()
        return status, headers, answer

    def _environment(self, body: bytes) -> dict[str, Any]:
        """The request as a WSGI application takes it (PEP 3333)."""
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
        """Nothing: a line per call would bury the application's own log."""


# ------------------------------------------------------------------------------------------------ DynamoDB


def _call_table(headers: Any, body: bytes) -> Answer:
    """Calls moto's DynamoDB without the web framework that it shares with the other services.

    Most calls of an event-driven application are these, and routes, forms, cookies and CORS are half the time of one.

    Returns:
        Status, headers and body, as the server sends them.
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


# Where an item is, or would be: its table, partition key and sort key.
_Place = tuple[Table, DynamoType, DynamoType | None]


@dataclass
class _Stream:
    """The last records of a stream by their numbers, as JSON, and the number of the last one that is no longer kept.

    JSON takes a tenth of the memory of the objects it describes.
    """

    records: deque[tuple[int, str]] = field(default_factory=deque)
    trimmed: int = 0

    def add(self, number: int, record: dict[str, Any]) -> None:
        self.records.append((number, json.dumps(record)))
        if len(self.records) > STREAM_RECORDS:
            self.trimmed, _ = self.records.popleft()

    def read(self, start: int, limit: int) -> list[tuple[int, str]]:
        """The records from a sequence number on. Raises: JsonRESTError if they are no longer kept."""
        if start <= self.trimmed:
            raise JsonRESTError("TrimmedDataAccessException", "The requested stream record is no longer kept.")
        return list(itertools.islice((record for record in self.records if record[0] >= start), limit))


class _Tables:
    """The corrections of DynamoDB, with their state: one lock, a request's changes, the streams, the known tokens."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.RLock()
        self._changes: dict[tuple[Any, ...], tuple[Table, Item | None, Item | None]] = {}
        self._next_number = 10**20
        self._streams: dict[str, _Stream] = {}
        self._tokens: dict[str, tuple[float, str]] = {}
        # By table and key: when the item was last written, by the monotonic clock, and what it was before
        self._previous: dict[tuple[str, DynamoType, DynamoType | None], tuple[float, Item | None]] = {}
        self._unseen_since: float | None = None  # a read that is served now misses the writes after this moment
        self._call_action = DynamoHandler.call_action
        self._answer_transaction = DynamoHandler.transact_write_items
        self._query = Table.query
        self._get_item = Table.get_item
        self._make_item = Item.__init__
        self._describe_stream = DynamoDBStreamsBackend.describe_stream

    def call_action(self, handler: Any) -> Any:
        """Runs one request at a time, and reports its changes once it is through.

        Moto checks a condition and writes in two steps that threads interleave, and so sells the last item twice; in
        DynamoDB every request is atomic.
        """
        with self._lock:
            try:
                return self._call_action(handler)
            finally:
                self._report_changes()

    def add_to_stream(self, shard: StreamShard, old: Item | None, new: Item | None) -> None:
        """Notes a change until the request ends.

        Moto keeps each record for ever and numbers them by the length of that list. It also notes an update that
        creates its item twice, first with the key alone; DynamoDB reports an item once per request.
        """
        item = new if old is None else old
        assert item is not None  # noqa: S101 - moto never adds a change from nothing to nothing
        key = (shard.table.table_arn, item.hash_key, item.range_key)
        self._changes[key] = (shard.table, old, new)

    def _report_changes(self) -> None:
        changes, self._changes = self._changes, {}
        for table, old, new in changes.values():
            if old is None or new is None or old.attrs != new.attrs:  # DynamoDB reports no write that changed nothing
                arn, record = _stream_arn(table), self._stream_record(table, old, new)
                self._stream(arn).add(int(record["dynamodb"]["SequenceNumber"]), record)
                self._store.on_stream_record(arn, record | {"eventSourceARN": arn})

    def _stream_record(self, table: Table, old: Item | None, new: Item | None) -> dict[str, Any]:
        """The record as GetRecords answers it; a Lambda function gets the stream's ARN with it.

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
        """Describes the shard that records are kept of here, and no stream but a table's latest.

        Raises:
            JsonRESTError: there is no such stream; moto fails with a KeyError, or describes another.
        """
        if arn not in {stream["StreamArn"] for stream in backend.list_streams()}:
            raise JsonRESTError("ResourceNotFoundException", f"Requested resource not found: Stream: {arn} not found")
        with self._lock:
            records = self._stream(arn).records
            first = records[0][0] if records else self._next_number
        shard = {"ShardId": SHARD_ID, "SequenceNumberRange": {"StartingSequenceNumber": str(first)}}
        return self._describe_stream(backend, arn) | {"Shards": [shard]}

    def answer_shard_iterator(self, handler: DynamoDBStreamsHandler) -> ActionResult:
        """Answers with a place in the records that are kept here: the stream and the number of the next record.

        Raises:
            JsonRESTError: there is no such stream or shard, or the record is no longer kept.
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
        """Answers with the records as they are kept, in the wire's JSON; moto would encode binary values twice.

        Raises:
            JsonRESTError: the records are no longer kept.
        """
        arn, version, start = handler._get_param("ShardIterator").split("|")
        with self._lock:
            records = self._stream(arn).read(int(start), handler._get_param("Limit") or 1000)
        after = json.dumps(f"{arn}|{version}|{records[-1][0] + 1 if records else start}")
        answer = f'{{"Records": [{", ".join(record for _, record in records)}], "NextShardIterator": {after}}}'
        return 200, {"Content-Type": "application/x-amz-json-1.0"}, answer

    @contextmanager
    def _undone_on_error(self, places: list[_Place]) -> Iterator[list[Item | None]]:
        """Puts the items back when the writes in between fail. Gives copies of what they were."""
        before = [copy.deepcopy(table.get_item(hash_key, range_key)) for table, hash_key, range_key in places]
        try:
            yield before
        except Exception:
            self._changes.clear()
            for place, item in zip(places, before, strict=True):
                _put_back(*place, item)
            raise

    def make_item(self, item: Item, *arguments: Any, **options: Any) -> None:
        """Checks the size of an item once it is whole.

        Moto adds the value that an attribute gets to what the item has, the attribute's old value included.

        Raises:
            ItemSizeTooLarge: it has more than 400 KB.
        """
        self._make_item(item, *arguments, **options)
        if item.size() > ITEM_BYTES:
            raise ItemSizeTooLarge

    def writing(self, write: Callable[..., Item | None]) -> Callable[..., Item | None]:
        """PutItem, UpdateItem or DeleteItem of moto, made atomic: moto leaves half of an update that fails behind."""

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
        """What Store.stale_reads says. Holds the lock of the tables meanwhile."""
        with self._lock:
            self._unseen_since = time.monotonic() - seconds
            try:
                yield
            finally:
                self._unseen_since = None

    def _seen(self, table: Table) -> Any:
        """The table as it is, or a copy without the writes that a stale read misses."""
        if self._unseen_since is None:
            return table
        seen: Any = copy.copy(table)
        seen.items = {key: copy.copy(held) for key, held in table.items.items()}
        for (arn, hash_key, range_key), (written, before) in self._previous.items():
            if arn == table.table_arn and written > self._unseen_since:
                _put_back(seen, hash_key, range_key, before)
        return seen

    def get_item(self, table: Table, *arguments: Any) -> Any:
        """Reads an item, or what it was if the read is to be stale. Moto knows no eventual consistency."""
        return self._get_item(self._seen(table), *arguments)

    def answer_transaction(self, handler: Any) -> Any:
        """Makes ClientRequestToken idempotent: moto ignores it and writes again.

        Raises:
            JsonRESTError: the token came before with another request.
        """
        body = handler.body
        operations = json.dumps(body["TransactItems"], sort_keys=True, default=repr)
        digest = hashlib.sha256(operations.encode()).hexdigest()
        now, token = time.monotonic(), body.get("ClientRequestToken") or uuid.uuid4().hex
        self._forget_tokens(before=now - TRANSACTION_TOKEN_SECONDS)
        if token not in self._tokens:
            answer = self._answer_transaction(handler)
            self._tokens[token] = (now, digest)  # after it succeeded: a cancelled one may be tried again
            return answer
        if self._tokens[token][1] != digest:
            raise JsonRESTError(
                "IdempotentParameterMismatchException",
                "The provided ClientRequestToken has been used with different request parameters",
            )
        return ActionResult({})

    def _forget_tokens(self, before: float) -> None:
        # They are in the order of time, so the old ones are in front.
        while self._tokens and next(iter(self._tokens.values()))[0] < before:
            del self._tokens[next(iter(self._tokens))]

    def transact_write_items(self, backend: DynamoDBBackend, transact_items: list[dict[str, Any]]) -> None:
        """Checks every condition and then writes.

        Moto copies whole tables to roll back, which takes seconds and puts the copy in the place of the table; open
        streams then belong to a table that is gone. DynamoDB leaves alone what a cancelled transaction names.

        Raises:
            DynamodbException: too many operations, or two on one item (ValidationException).
            TransactionCanceledException: with a reason for each operation, in their order.
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
                except DynamodbException as error:  # an expression that does not fit the item
                    reasons[position] = ("ValidationError", error.message, None)
                    raise TransactionCanceledException(reasons) from error

    def _apply(self, backend: DynamoDBBackend, kind: str, operation: dict[str, Any]) -> None:
        """Writes one operation of a transaction whose conditions hold."""
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
        """Looks at the items with the right partition key only; moto first sorts the whole table for every query.

        The query runs on a stand-in for the table that holds these items and nothing else.
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
    """What moto holds below one partition key (an item, or items by sort key), as far as it meets the conditions."""
    if isinstance(held, dict):
        return {key: item for key, item in held.items() if _matching(item, conditions)}
    for name, wanted in conditions:
        value = held.attrs.get(name)
        # Strings, which most keys are, need none of the conversions of moto's comparison.
        if value is None or (value.value != wanted.value and (wanted.type == "S" or value != wanted)):
            return None
    return held


def _stream_arn(table: Table) -> str:
    return f"{table.table_arn}/stream/{table.latest_stream_label}"


def _plain(attributes: dict[str, DynamoType]) -> dict[str, Any]:
    """Attributes as JSON has them, binary ones in base64."""
    plain: dict[str, Any] = json.loads(dynamo_json_dump(attributes))
    return plain


def _locate(backend: DynamoDBBackend, table_name: str, attributes: dict[str, Any]) -> _Place:
    """The table and key that a request means."""
    table = backend.get_table(table_name)
    return table, *backend.get_keys_value(table, attributes)


def _put_back(table: Any, hash_key: DynamoType, range_key: DynamoType | None, item: Item | None) -> None:
    items, key = (table.items, hash_key) if range_key is None else (table.items.setdefault(hash_key, {}), range_key)
    if item is None:
        items.pop(key, None)
    else:
        items[key] = item


def _failed_condition(place: _Place, operation: dict[str, Any]) -> tuple[str | None, str | None, dict[str, Any] | None]:
    """An operation's cancellation reason: code, message and item, or three times nothing where its condition holds."""
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
    # Where moto checks the size of an item, one attribute after the other
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
    """Puts a correction in the place of a method until `replaced` is closed."""

    def method(*args: Any, **kwargs: Any) -> Any:  # a plain function: a bound method would not get the instance
        return correction(*args, **kwargs)

    replaced.enter_context(patch.object(owner, name, method))


# ----------------------------------------------------------------------------------------------------- SQS


@dataclass(frozen=True)
class Received:
    """A message that was received, and is invisible for a while.

    Attributes:
        record: the message as a Lambda function gets it.
        dead_letters: the ARN of the queue that it moves to afterwards, if it was received for the last time.
    """

    record: dict[str, Any]
    dead_letters: str | None
    message: Message

    @property
    def visible_in(self) -> float:
        """Seconds, outside, until it is visible again."""
        return max(_due(self.message) / 1000 - time.time(), 0.0)


class _Queues:
    """The corrections of SQS, with the lock that they share.

    Moto's queues are not safe under threads: two receivers may get the same message, or one an error.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self.changed = threading.Condition()
        self._add = Queue.add_message
        self._receive_from_fifo = SQSBackend.receive_message
        self._change_visibility = SQSBackend.change_message_visibility
        self._answer_receive = SQSResponse.receive_message

    def add_message(self, queue: Queue, message: Message) -> None:
        """Tells on_message, so that nobody has to poll."""
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
        """Waits for messages, and receives them one caller at a time. FIFO queues stay as moto has them."""
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

        Moto looks at every message of the queue, and counts all of them for each, so the time grows with the square of
        their number. It keeps what is too old. What it moves to a dead-letter queue doesn't name its source, and moves
        on at once where that queue has one too: SQS counts ApproximateReceiveCount across all queues, but redrives by
        the receives of one.
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
                message.visible_at = first.visible_at  # what was received together is visible together
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
        """Looks no further than the message; moto compares the handles of all, twice.

        Raises:
            ReceiptHandleIsInvalid: no message of this queue had it.
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
        """Tells those who wait for a message that one becomes visible at another time."""
        with self.changed:
            self._change_visibility(backend, queue_name, receipt_handle, visibility_timeout)
            self.changed.notify_all()
            self._store.on_message(backend.get_queue(queue_name).queue_arn)

    def answer_receive(self, handler: Any) -> Any:
        """Adds DeadLetterQueueSourceArn, which moto doesn't know."""
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
    """How many messages of a queue pass a test, counted when it is written into an answer.

    Moto counts three times at each SendMessage, for nothing, and asks anew for the time of each message.
    """

    queue: Queue
    test: Callable[[Message, float], bool]

    def __str__(self) -> str:
        now = time.time() * 1000
        return str(sum(self.test(message, now) for message in list(self.queue._messages)))


def _counting(test: Callable[[Message, float], bool]) -> property:
    return property(lambda queue: _Count(queue, test))


def _queue(arn: str) -> Any:
    """The queue, or None once it is gone."""
    return sqs_backends[Store.account_id][Store.region].queues.get(arn.rpartition(":")[2])


def _due(message: Message) -> float:
    """When a message is visible, in milliseconds of the epoch."""
    return max(message.visible_at, message.delayed_until)


def _next_visible(queue: Queue) -> float | None:
    due = min(map(_due, queue._messages), default=None)
    return None if due is None else max(due / 1000 - time.time(), 0.0)


def _spent(queue: Any, message: Any) -> bool:
    """Whether a message was received from a queue as often as its redrive policy allows."""
    if queue.dead_letter_queue is None or not queue.redrive_policy:
        return False
    received = message.approximate_receive_count - getattr(message, "received_before", 0)
    return bool(received >= queue.redrive_policy["maxReceiveCount"])


def _source(message: Message) -> dict[str, str]:
    """The system attribute of a message in a dead-letter queue."""
    source = getattr(message, "source", None)
    return {} if source is None else {"DeadLetterQueueSourceArn": source}


def _queue_record(queue: Queue, message: Message) -> dict[str, Any]:
    """The record as a Lambda function gets it.

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
    """A message attribute in a record: binary values in base64, and empty the lists that SQS never implemented."""
    attribute: dict[str, Any] = {"stringListValues": [], "binaryListValues": [], "dataType": value["DataType"]}
    if value.get("BinaryValue") is not None:
        return attribute | {"binaryValue": base64.b64encode(value["BinaryValue"]).decode()}
    return attribute | {"stringValue": value["StringValue"]}


def _correct_queues(replaced: ExitStack, store: Store) -> _Queues:
    queues = _Queues(store)

    # Moto's seconds pass as they do outside.
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
        # Moto invokes an event source mapping's function inside SendMessage, one call per message, and empties the
        # queue whatever the function answers. In AWS a poller does it (local/queues.py).
        ("lambda_event_source_mappings", property(lambda _queue: {}, lambda _queue, _mappings: None)),
    ):
        replaced.enter_context(patch.object(Queue, name, value, create=True))
    return queues


# ------------------------------------------------------------------------------------------ other services


def _correct_services(replaced: ExitStack, store: Store) -> None:
    def put_events(_backend: EventsBackend, events: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Leaves the bus to on_put_events: moto raises for a function as target, and knows neither retries nor DLQs."""
        with _as_aws_error():
            return store.on_put_events(events)

    def replay(handler: EventsHandler) -> tuple[str, dict[str, Any]]:
        """Leaves replays to on_replay: moto knows neither their window nor FilterArns, and has no events anyway."""
        with _as_aws_error():
            answer = store.on_replay(handler._get_action(), json.loads(handler.body))
        return json.dumps(answer), handler.response_headers

    def invoke(function: LambdaFunction, body: Any, headers: Any, answer_headers: dict[str, str]) -> bytes:
        """Leaves functions to on_invoke: moto wants Docker for them."""
        # SNS and InvokeAsync come without headers, and both invoke asynchronously.
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
        """Tells on_concurrency: moto takes a note of it, and that is all."""
        answer = put_concurrency(backend, name, reserved)
        store.on_concurrency(name, int(reserved))
        return answer

    def free(backend: LambdaBackend, name: str) -> Any:
        """As `reserve`."""
        answer = delete_concurrency(backend, name)
        store.on_concurrency(name, None)
        return answer

    send_email = SESV2Response.send_email

    def send_and_show(handler: SESV2Response) -> str:
        """Hands the mail to on_mail: moto keeps the HTML form alone."""
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
    """The message that SES composes of SendEmail's simple content. Its tags stay in a header, for whoever checks."""
    content = request["Content"]["Simple"]
    message = EmailMessage(SMTP.clone(max_line_length=998))  # RFC 5322's longest: a folded header is hard to search
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
    """A user's attributes as claims of the ID token.

    Moto leaves all out that ReadAttributes does not list, and makes every claim a string. In Cognito a client without
    ReadAttributes reads all of them, and `email_verified` and `phone_number_verified` are booleans:
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
    """Takes out what moto does anew for each call, or keeps for ever."""
    # Reads a megabyte of JSON for the regions of each service, of which there is one here.
    replaced.enter_context(patch.object(boto3.Session, "get_available_regions", lambda *_, **__: [Store.region]))
    # Lists the folders of its package on disk.
    modules = tuple(moto.backends.list_of_moto_modules())
    replaced.enter_context(patch.object(moto.backends, "list_of_moto_modules", lambda: modules))
    # Inspects a service's class for the names of its methods.
    names = functools.cache(method_names_from_class)
    replaced.enter_context(patch.object(moto.core.responses, "method_names_from_class", names))
    # Works out the Python names of a queue's attributes for each message, and draws receipt handles by the letter.
    replaced.enter_context(
        patch.object(moto.sqs.models, "camelcase_to_underscores", functools.cache(camelcase_to_underscores))
    )
    replaced.enter_context(patch.object(moto.sqs.models, "generate_receipt_handle", lambda: secrets.token_urlsafe(138)))
    # Walks the model of the API through an answer of DynamoDB that is in the form of the wire already.
    serialized = DynamoHandler.serialized

    def dump(handler: DynamoHandler, result: ActionResult) -> Any:
        if not isinstance(result.result, dict):
            return serialized(handler, result)
        headers = {"Content-Type": "application/x-amz-json-1.0"}
        return 200, headers | handler.response_headers, dynamo_json_dump(result.result)

    _replace(replaced, DynamoHandler, "serialized", dump)
    # Parses the same update expressions again and again. It works on copies of what the parser gives.
    parse = functools.lru_cache(UpdateExpressionParser.make)
    replaced.enter_context(patch.object(UpdateExpressionParser, "make", parse))
    # Keeps every object it ever made, for its dashboard.
    replaced.enter_context(patch.object(BaseModel, "__new__", lambda cls, *_args, **_kwargs: object.__new__(cls)))


def _import_unused_services() -> None:
    """Imports what moto's CloudFormation imports for nothing, without what takes it two seconds to read.

    EC2 reads the instance types and regions of all partitions, API Gateway a validator of OpenAPI documents.
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
