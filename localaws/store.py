"""The AWS services that store data: moto, served over HTTP in this process, with all corrections of moto.

Moto implements the AWS APIs in memory. Where it differs from AWS in a way that matters to an event-driven application,
this file replaces a part of moto; the docstrings describe the behavior of moto and of AWS. The replaced parts are
internals of moto, so its version is checked, and each correction has a test in localaws/tests.
"""

import json
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from types import MappingProxyType
from typing import Any

import boto3
import joserfc.jwk
import moto
from botocore.config import Config
from moto.events.responses import EventsHandler
from moto.logs.models import logs_backends
from moto.logs.responses import LogsResponse
from moto.moto_api._internal.models import moto_api_backend
from moto.moto_server.werkzeug_app import BackendRequest, DomainDispatcherApplication, create_backend_app
from moto.sesv2.responses import SESV2Response
from moto.sns.models import sns_backends
from moto.sqs.models import sqs_backends
from moto.sqs.responses import SQSResponse
from moto.utilities.utils import load_resource
from werkzeug.exceptions import NotFound

from localaws.aws import ACCOUNT_ID, REGION, ServiceError
from localaws.dynamodb import Tables
from localaws.faults import OnCall
from localaws.http_server import Answer, Request, Server
from localaws.moto_speed import save_time
from localaws.other_services import correct_services
from localaws.sqs import Received, correct_queues

MOTO_VERSION = "5.2.5"
MAX_BODY = 100_000_000  # bytes of a request

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
        on_call: called with each request and a function that executes a request. Returns the response, or None to
            close the connection.
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
        self.on_call: OnCall = lambda request, execute: execute(request)
        self.keeps_previous_images = False
        self._address = (host, port)
        self._server: Server | None = None
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
        self._server = Server(*self._address, lambda request: self.on_call(request, answer), max_body=MAX_BODY)
        Store._running = True
        moto_api_backend.reset()
        self._tables = Tables(self, self._replaced)
        answer = _Moto(self._tables).answer
        self._queues = correct_queues(self._replaced, self)
        correct_services(self._replaced, self)
        save_time(self._replaced)
        self.endpoint = self._server.url
        self._server.start()

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

    def send_message(self, queue: str, body: str, attributes: Mapping[str, Any]) -> None:
        """Sends a message to a queue, given by its ARN, without an HTTP call. The attributes have SQS's format.

        Raises:
            QueueDoesNotExist: there is no such queue.
            ServiceException: the message is not valid.
        """
        queues = sqs_backends[self.account_id][self.region]
        queues.send_message(queue.rpartition(":")[2], body, message_attributes=dict(attributes))

    def publish(self, topic: str, message: str, attributes: Mapping[str, Any]) -> None:
        """Publishes a message to a topic, given by its ARN, without an HTTP call. The attributes have SNS's format.

        Raises:
            SNSNotFoundError: there is no such topic.
            ServiceException: the message is not valid.
        """
        typed = {name: {"Type": each["DataType"], "Value": each["StringValue"]} for name, each in attributes.items()}
        sns_backends[self.account_id][self.region].publish(message, arn=topic, message_attributes=typed)

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


class _Moto:
    """Calls moto, without its web framework for some services. The framework takes half the time of a call."""

    handlers = MappingProxyType(
        {
            "AWSEvents": EventsHandler,
            "AmazonSQS": SQSResponse,
            "Logs_20140328": LogsResponse,
            "/v2/email/outbound-emails": SESV2Response,
        }
    )
    """By the prefix of the header X-Amz-Target, or by path."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._application = DomainDispatcherApplication(_create_app)

    def answer(self, request: Request) -> Answer:
        """Executes a request. An exception of moto becomes an InternalFailure."""
        status, headers = "500", [("Content-Type", "application/json")]

        def start_response(new_status: str, new_headers: list[tuple[str, str]], _error: Any = None) -> None:
            nonlocal status, headers
            status, headers = new_status, new_headers

        request.target = f"/{request.target.lstrip('/')}"  # the framework takes `//moto-api` for a bucket
        service = request.headers.get("x-amz-target", request.path).partition(".")[0]
        try:
            if service == "DynamoDB_20120810":
                return self._tables.call(request.headers, request.body)
            if service in self.handlers:
                code, found, text = self.handlers[service].dispatch(BackendRequest(request.wsgi_environment()))
                return str(code), [(name, str(value)) for name, value in found.items()], str(text).encode()
            answer = b"".join(self._application(request.wsgi_environment(), start_response))
        except Exception as error:  # return errors of moto to the caller
            log.exception("moto failed")
            answer = json.dumps({"__type": "InternalFailure", "message": f"moto: {error!r}"}).encode()
        return status, headers, answer
