"""API destinations of EventBridge: the HTTP endpoints that a rule may have as its target.

Sources: "API destinations as targets in Amazon EventBridge" (user guide), and messages recorded from dead-letter queues
in AWS for the codes of what failed.
"""

import socket
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import Any
from urllib.parse import urlsplit

from local.bus import UnsupportedTarget
from local.delivery import Clock, Undelivered

TIMEOUT = 5.0
"""Seconds within which an endpoint must answer."""
RATE = 300
"""Calls per second of a destination that sets no limit (EventBridge quotas)."""
CALLS_AT_ONCE = 16
"""To all destinations together. EventBridge names no limit."""
RETRIED = {401, 407, 409, 429}
"""Statuses of errors after which EventBridge tries again, beside those from 500."""

_FAILED = "Unable to invoke ApiDestination endpoint: "


@dataclass(frozen=True)
class ApiDestination:
    """How an endpoint is called.

    Args:
        url, method: what is called.
        headers: those of its connection, which tell it who calls.
        rate: how often per second at most.
    """

    url: str
    method: str
    headers: Mapping[str, str]
    rate: float


def read_destinations(
    destinations: Mapping[str, Mapping[str, Any]], connections: Mapping[str, Mapping[str, Any]]
) -> dict[str, ApiDestination]:
    """The destinations by their names.

    Args:
        destinations: resolved properties of `AWS::Events::ApiDestination` resources by name.
        connections: the same of `AWS::Events::Connection`.

    Raises:
        UnsupportedTarget: naming the destination, and what its connection asks for beside an API key.
    """
    return {name: _read(name, properties, connections) for name, properties in destinations.items()}


def _read(name: str, properties: Mapping[str, Any], connections: Mapping[str, Mapping[str, Any]]) -> ApiDestination:
    match connections.get(_name(properties["ConnectionArn"])):
        case {"AuthParameters": {"ApiKeyAuthParameters": key, **others}} if not others:
            return ApiDestination(
                url=properties["InvocationEndpoint"],
                method=properties["HttpMethod"],
                headers={key["ApiKeyName"]: key["ApiKeyValue"]},
                rate=float(properties.get("InvocationRateLimitPerSecond", RATE)),
            )
    raise UnsupportedTarget(f"API destination {name}: only connections of the template with an API key are supported")


def _name(arn: str) -> str:
    """The name in an ARN: `…:connection/warehouse/0b1c…` → `warehouse`."""
    return arn.split("/")[1]


class HttpTargets:
    """Calls API destinations, on threads of its own: an endpoint may take its time.

    Args:
        destinations: by name.
        clock: of the time-out and the limit of calls per second.
    """

    def __init__(self, destinations: Mapping[str, ApiDestination], clock: Clock) -> None:
        self._destinations = destinations
        self._clock = clock
        self._pool = ThreadPoolExecutor(CALLS_AT_ONCE, "http-target")
        self._next = dict.fromkeys(destinations, 0.0)
        self._lock = threading.Lock()
        self._stopped = threading.Event()

    def stop(self) -> None:
        """End the calls that are under way, and give up the others."""
        self._stopped.set()
        self._pool.shutdown(cancel_futures=True)

    def run(self, delivery: Callable[[], None]) -> None:
        """Run a delivery that is to `call`, when there is a thread for it."""
        if not self._stopped.is_set():
            self._pool.submit(delivery)

    def call(self, arn: str, payload: str) -> None:
        """Call a destination by its ARN, in its turn.

        Raises:
            Undelivered: it is not here, cannot be reached, or has not answered with a success.
        """
        destination = self._destinations.get(_name(arn))
        if destination is None:
            raise Undelivered("NO_RESOURCE", f"there is no {arn}", retriable=False)
        self._wait_for_turn(_name(arn), destination.rate)
        try:
            response = _send(destination, payload, self._clock.outside(TIMEOUT))
        except TimeoutError as error:
            raise Undelivered("UNKNOWN", f"{_FAILED}Timeout calling endpoint", retriable=True) from error
        except (OSError, HTTPException) as error:
            # "An invalid address or DNS lookup failure" is not tried again (user guide, "Using dead-letter queues")
            found = not isinstance(error, socket.gaierror)
            raise Undelivered(
                "SDK_CLIENT_ERROR", f"{_FAILED}it cannot be reached ({error})", retriable=found
            ) from error
        if not 200 <= response.status < 300:
            retriable, pause = response.status in RETRIED or response.status >= 500, _retry_after(response)
            message = f"{_FAILED}it answered {response.status} {response.reason}"
            raise Undelivered("SDK_CLIENT_ERROR", message, retriable=retriable and pause >= 0, pause=pause)

    def _wait_for_turn(self, name: str, rate: float) -> None:
        with self._lock:
            now = time.monotonic()
            turn = max(now, self._next[name])
            self._next[name] = turn + self._clock.outside(1 / rate)
        self._stopped.wait(turn - now)


def _send(destination: ApiDestination, payload: str, timeout: float) -> HTTPResponse:
    """What the endpoint answers. EventBridge follows no redirection."""
    url = urlsplit(destination.url)
    connection = (HTTPSConnection if url.scheme == "https" else HTTPConnection)(url.netloc, timeout=timeout)
    headers = {"Content-Type": "application/json; charset=utf-8", "User-Agent": "Amazon/EventBridge/ApiDestinations"}
    try:
        path = url._replace(scheme="", netloc="", fragment="", path=url.path or "/").geturl()
        connection.request(destination.method, path, payload.encode(), headers | dict(destination.headers))
        return connection.getresponse()
    finally:
        connection.close()


def _retry_after(response: HTTPResponse) -> float:
    """The seconds in Retry-After; a negative number asks for no more attempts. A date is passed over."""
    try:
        return float(response.headers.get("Retry-After", "0"))
    except ValueError:
        return 0.0
