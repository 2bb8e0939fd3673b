"""The AWS services that store data: moto, served over HTTP in this process, with all corrections of moto.

Moto implements the AWS APIs in memory. Where it differs from AWS in a way that matters to an event-driven application,
this file replaces a part of moto; the docstrings describe the behavior of moto and of AWS. The replaced parts are
internals of moto, so its version is checked, and each correction has a test in localaws/tests.
"""

import io
import json
import logging
import re
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import boto3
import joserfc.jwk
import moto
import moto.backends
import moto.core.responses
import moto.sqs.models
import moto.utilities.utils
from botocore.config import Config
from moto.logs.models import logs_backends
from moto.moto_api._internal.models import moto_api_backend
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from moto.utilities.utils import load_resource
from werkzeug.exceptions import NotFound

from localaws.aws import ACCOUNT_ID, REGION, ServiceError
from localaws.dynamodb import call_table, correct_tables
from localaws.faults import Answer
from localaws.moto_speed import save_time
from localaws.other_services import correct_services
from localaws.sqs import Received, correct_queues

MOTO_VERSION = "5.2.5"

log = logging.getLogger(__name__)


def _no_bus(_entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    raise ServiceError("InternalException", "there is no event bus", 500)


def _no_archives(_action: str, _request: dict[str, Any]) -> dict[str, Any]:
    raise ServiceError("InternalException", "there is no archive", 500)


InvokeAnswer = tuple[int, dict[str, str], bytes]
"""Status, headers and body of an answer to Invoke."""


def _no_runtime(*_: Any) -> InvokeAnswer:
    return 404, {"x-amzn-errortype": "ResourceNotFoundException"}, b'{"message": "there is no function"}'


class Store:
    """Moto as a server. A process can have only one store at a time, because moto's state and code are global.

    Attributes:
        endpoint: value for `endpoint_url`, set by `start`.
        on_stream_record: called with a stream's ARN and a record in Lambda's format, once per changed item, in the
            order of the writes, after the writes of the request took effect. It is called with the lock of the tables,
            so it must only enqueue.
        on_message: called with a queue's ARN when a message arrives or the visibility time of a message changes. It is
            called with the lock of the queues, so it must only wake a thread.
        real_seconds: converts seconds of a queue's timeouts, delays and retention to real ones. `WaitTimeSeconds` and
            `SentTimestamp` are real time.
        on_put_events: called with the entries of PutEvents (`Time` in seconds since the epoch). Returns a result for
            each entry. It may raise ServiceError.
        on_replay: called with DescribeArchive, StartReplay, DescribeReplay, ListReplays or CancelReplay and the request
            (times in seconds since the epoch). Returns the response. It may raise ServiceError.
        on_call: called with each request, its body, and a function that answers a body. Returns the response, or None
            to close the connection.
        on_invoke: called with a function's name or ARN, the qualifier or None, the headers and the body of an Invoke
            request. Returns the response.
        on_concurrency: called with a function's name and its new reserved concurrency; None for no reservation.
        keeps_previous_images: whether to keep the state of each item before its last write, for `stale_reads`.
        on_mail: called with each e-mail that SES accepted, as the recipient gets it (RFC 5322).
    """

    region = REGION
    account_id = ACCOUNT_ID
    _running = False

    def __init__(self, host: str = "127.0.0.1", port: int = 0) -> None:
        self.endpoint = ""
        self.on_stream_record: Callable[[str, dict[str, Any]], None] = lambda _arn, _record: None
        self.on_message: Callable[[str], None] = lambda _arn: None
        self.real_seconds: Callable[[float], float] = lambda seconds: seconds
        self.on_put_events: Callable[[list[dict[str, Any]]], list[dict[str, Any]]] = _no_bus
        self.on_replay: Callable[[str, dict[str, Any]], dict[str, Any]] = _no_archives
        self.on_invoke: Callable[[str, str | None, Mapping[str, str], bytes], InvokeAnswer] = _no_runtime
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
        self._tables = correct_tables(self._replaced, self)
        self._queues = correct_queues(self._replaced, self)
        correct_services(self._replaced, self)
        save_time(self._replaced)
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

    def receive(self, queue: str, count: int) -> list[Received]:
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
        message = f"localaws/store.py requires moto {MOTO_VERSION} and found moto {version}: install {MOTO_VERSION}"
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
                status, headers, answer = call_table(self.headers, body)
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
