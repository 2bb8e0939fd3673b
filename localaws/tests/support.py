"""Helpers of the tests of localaws/."""

import socket
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from botocore.exceptions import ClientError

from localaws.api_destinations import HttpTargets
from localaws.targets import NO_ATTRIBUTES, Attributes, Targets

PATIENCE = 180.0
"""Timeout of `wait_until`, in seconds; long enough for a busy machine."""


def wait_until(condition: Callable[[], Any]) -> Any:
    """Waits until a condition is true, and returns its value. Fails if it is not met within PATIENCE."""
    end = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert time.monotonic() < end, f"the condition was not met within {PATIENCE:.0f} s"
        time.sleep(0.005)
    return found


class RecordingTargets(Targets):
    """Records what is delivered and sent.

    Attributes:
        delivered: ARN and payload of each delivery.
        sent: ARN, body and attributes of each message for a destination.
        destination_is_gone: whether sending a message fails.
        delayed: the deliveries to API destinations, which the test runs.
    """

    def __init__(self, handle: Callable[[str, str], None] = lambda _arn, _payload: None) -> None:
        """`handle` is called before each delivery is recorded. Its exception is that of the delivery."""
        self.delivered: list[tuple[str, str]] = []
        self.sent: list[tuple[str, str, dict[str, str | int]]] = []
        self.destination_is_gone = False
        self.handle = handle
        self.http = self.delayed = DelayedDeliveries()

    def deliver(self, arn: str, payload: str, trace_header: str | None = None) -> None:
        self.handle(arn, payload)
        self.delivered.append((arn, payload))

    def send(
        self, arn: str, body: str, attributes: Attributes = NO_ATTRIBUTES, *, trace_header: str | None = None
    ) -> None:
        if self.destination_is_gone:
            raise LookupError("no such queue")
        self.sent.append((arn, body, dict(attributes)))


class DelayedDeliveries(HttpTargets):
    """Collects the deliveries to API destinations."""

    def __init__(self) -> None:
        self.waiting: list[Callable[[], None]] = []

    def run(self, delivery: Callable[[], None]) -> None:
        self.waiting.append(delivery)


def exchange(url: str, request: bytes) -> bytes:
    """Sends a raw HTTP request, closes the sending side, and returns the raw response.

    Args:
        url: URL of the server, without a path.
        request: the request line, the headers and the body.
    """
    host, _, port = url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=PATIENCE) as connection:
        connection.sendall(request)
        answer = b""
        with suppress(OSError):  # the server has answered and closed the connection without reading the rest
            connection.shutdown(socket.SHUT_WR)
            while received := connection.recv(65536):
                answer += received
        return answer


def hang_up(url: str, request: bytes, gone: threading.Event) -> None:
    """Send a request, reset the connection, and wait until the server has ended the request.

    Args:
        url: URL of the server, without a path.
        request: the request line, the headers and the body.
        gone: set after the connection is reset.
    """
    host, _, port = url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=PATIENCE) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # close by a reset
        connection.sendall(request)
        wait_until(_requests_in_work)
    gone.set()
    wait_until(lambda: not _requests_in_work())


def _requests_in_work() -> list[threading.Thread]:
    """Returns the threads of open connections of all servers."""
    return [thread for thread in threading.enumerate() if thread.name == "connection"]


def code_of(error: pytest.ExceptionInfo[ClientError]) -> str:
    """Returns the error code of an AWS API."""
    return str(error.value.response["Error"]["Code"])
