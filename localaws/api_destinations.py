"""EventBridge API destinations: HTTP endpoints as targets of rules.

Sources: "API destinations as targets in Amazon EventBridge" (user guide). The error codes are taken from messages in
dead-letter queues in AWS.
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

from localaws.delivery import Clock, Undelivered
from localaws.targets import UnsupportedTarget

TIMEOUT = 5.0
"""Timeout of a call, in seconds."""
RATE = 300
"""Default limit of a destination, in calls per second (EventBridge quotas)."""
CALLS_AT_ONCE = 16
"""Concurrent calls of all destinations together. EventBridge documents no limit."""
RETRIED = {401, 407, 409, 429}
"""Client error statuses that EventBridge retries. It retries all statuses from 500 as well."""

_FAILED = "Unable to invoke ApiDestination endpoint: "


@dataclass(frozen=True)
class ApiDestination:
    """An HTTP endpoint.

    Args:
        headers: the API key header of the connection.
        rate: maximum calls per second.
    """

    url: str
    method: str
    headers: Mapping[str, str]
    rate: float


def read_destinations(
    destinations: Mapping[str, Mapping[str, Any]], connections: Mapping[str, Mapping[str, Any]]
) -> dict[str, ApiDestination]:
    """Returns the API destinations by name.

    Args:
        destinations: resolved properties of `AWS::Events::ApiDestination` resources by name.
        connections: resolved properties of `AWS::Events::Connection` resources by name.

    Raises:
        UnsupportedTarget: the connection has more than an API key. The message names the destination.
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
    """Returns the name in an ARN: `…:connection/warehouse/0b1c…` → `warehouse`."""
    return arn.split("/")[1]


class HttpTargets:
    """Calls API destinations, given by name, on its own threads, because an endpoint may be slow."""

    def __init__(self, destinations: Mapping[str, ApiDestination], clock: Clock) -> None:
        self._destinations = destinations
        self._clock = clock
        self._pool = ThreadPoolExecutor(CALLS_AT_ONCE, "http-target")
        self._next = dict.fromkeys(destinations, 0.0)
        self._lock = threading.Lock()
        self._stopped = threading.Event()

    def stop(self) -> None:
        """Wait for the running calls to end, and drop the waiting ones."""
        self._stopped.set()
        self._pool.shutdown(cancel_futures=True)

    def run(self, delivery: Callable[[], None]) -> None:
        """Run a delivery, which uses `call`, as soon as a thread is free."""
        if not self._stopped.is_set():
            self._pool.submit(delivery)

    def call(self, arn: str, payload: str) -> None:
        """Call a destination, given by its ARN, within its rate limit.

        Raises:
            Undelivered: the destination does not exist, is not reachable, or returned an error status.
        """
        destination = self._destinations.get(_name(arn))
        if destination is None:
            raise Undelivered("NO_RESOURCE", f"{arn} does not exist", retriable=False)
        self._wait_for_turn(_name(arn), destination.rate)
        try:
            response = _send(destination, payload, self._clock.real_seconds(TIMEOUT))
        except TimeoutError as error:
            raise Undelivered("UNKNOWN", f"{_FAILED}Timeout calling endpoint", retriable=True) from error
        except (OSError, HTTPException) as error:
            # "An invalid address or DNS lookup failure" is not retried (user guide, "Using dead-letter queues")
            found = not isinstance(error, socket.gaierror)
            raise Undelivered("SDK_CLIENT_ERROR", f"{_FAILED}not reachable ({error})", retriable=found) from error
        if not 200 <= response.status < 300:
            retriable, pause = response.status in RETRIED or response.status >= 500, _retry_after(response)
            message = f"{_FAILED}status {response.status} {response.reason}"
            raise Undelivered("SDK_CLIENT_ERROR", message, retriable=retriable and pause >= 0, pause=pause)

    def _wait_for_turn(self, name: str, rate: float) -> None:
        with self._lock:
            now = time.monotonic()
            turn = max(now, self._next[name])
            self._next[name] = turn + self._clock.real_seconds(1 / rate)
        self._stopped.wait(turn - now)


def _send(destination: ApiDestination, payload: str, timeout: float) -> HTTPResponse:
    """Returns the response of the endpoint. EventBridge does not follow redirects."""
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
    """Returns the seconds in Retry-After. A negative number means no more attempts. A date is ignored."""
    try:
        return float(response.headers.get("Retry-After", "0"))
    except ValueError:
        return 0.0
