"""What the tests of local/ share."""

import socket
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

PATIENCE = 60.0
"""Seconds after which a condition counts as never met."""


def wait_until(condition: Callable[[], Any]) -> None:
    """Wait for a condition, and fail if it is not met."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, f"waited for {PATIENCE:.0f} s in vain"
        time.sleep(0.005)


def exchange(url: str, request: bytes) -> bytes:
    """What a server answers to a request as it goes over the wire, after which the client sends no more.

    Args:
        url: of the server, without a path.
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
        url: of the server, without a path.
        request: the request line, the headers and the body.
        gone: is set once the connection is reset.
    """
    host, _, port = url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=PATIENCE) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # close by a reset
        connection.sendall(request)
        wait_until(_requests_in_work)
    gone.set()
    wait_until(lambda: not _requests_in_work())


def _requests_in_work() -> list[threading.Thread]:
    """The threads that socketserver's servers, to which werkzeug's belong, have begun for connections."""
    return [thread for thread in threading.enumerate() if "process_request_thread" in thread.name]
