"""API destinations: calls of an endpoint, and the handling of its responses."""

import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from localaws.api_destinations import HttpTargets, read_destinations
from localaws.delivery import Clock, Undelivered
from localaws.targets import UnsupportedTarget
from localaws.tests.support import PATIENCE, wait_until
from tests.webhook import Answer, Webhook, webhook

ARN = "arn:aws:events:us-east-1:123456789012:api-destination/warehouse/0b1c"
CONNECTION: dict[str, Any] = {
    "AuthorizationType": "API_KEY",
    "AuthParameters": {"ApiKeyAuthParameters": {"ApiKeyName": "x-api-key", "ApiKeyValue": "k3y"}},
}


def targets_of(url: str, *, scale: float = 1, **changes: Any) -> HttpTargets:
    arn = "arn:aws:events:us-east-1:123456789012:connection/key/77aa"
    properties = {"ConnectionArn": arn, "InvocationEndpoint": url, "HttpMethod": "POST", **changes}
    return HttpTargets(read_destinations({"warehouse": properties}, {"key": CONNECTION}), Clock(scale))


@pytest.fixture
def hook() -> Iterator[Webhook]:
    with webhook() as listening:
        yield listening


def refused(targets: HttpTargets, arn: str = ARN) -> Undelivered:
    with pytest.raises(Undelivered) as raised:
        targets.call(arn, "{}")
    return raised.value


def test_an_endpoint_gets_the_payload_and_the_connections_key(hook: Webhook) -> None:
    targets_of(f"{hook.url}/orders?from=us", HttpMethod="PUT").call(ARN, '{"name": "Zoë"}')

    ((method, path, headers, body),) = hook.calls
    assert (method, path, body) == ("PUT", "/orders?from=us", '{"name": "Zoë"}'.encode())
    assert headers["x-api-key"] == "k3y"
    assert headers["content-type"] == "application/json; charset=utf-8"
    assert headers["user-agent"] == "Amazon/EventBridge/ApiDestinations"


def test_an_endpoint_without_a_path_is_called_at_its_root(hook: Webhook) -> None:
    targets_of(hook.url).call(ARN, "{}")
    assert [call.path for call in hook.calls] == ["/"]


@pytest.mark.parametrize(
    ("status", "again"),
    [
        *((status, False) for status in (302, 400, 403, 404)),
        *((status, True) for status in (401, 407, 409, 429, 500, 503)),
    ],
)
def test_the_status_decides_whether_another_attempt_is_made(hook: Webhook, status: int, again: bool) -> None:
    hook.answer = lambda _call: Answer(status, {"Location": hook.url})

    error = refused(targets_of(hook.url))

    assert (error.code, error.retriable, error.pause) == ("SDK_CLIENT_ERROR", again, 0)
    assert f"status {status}" in error.message
    assert len(hook.calls) == 1


@pytest.mark.parametrize(
    ("value", "pause", "again"),
    [("120", 120, True), ("-1", -1, False), ("Sun, 22 Nov 2026 06:00:00 GMT", 0, True)],
)
def test_retry_after_delays_or_ends_the_retries(hook: Webhook, value: str, pause: float, again: bool) -> None:
    hook.answer = lambda _call: Answer(503, {"Retry-After": value})
    error = refused(targets_of(hook.url))
    assert (error.pause, error.retriable) == (pause, again)


def test_an_endpoint_has_a_timeout_of_five_seconds_of_the_clock(hook: Webhook) -> None:
    late = threading.Event()
    hook.answer = lambda _call: Answer(200 if late.wait(PATIENCE) else 500)

    error = refused(targets_of(hook.url, scale=100))

    late.set()
    assert (error.code, error.retriable) == ("UNKNOWN", True)


def test_an_endpoint_that_is_down_is_retried_and_a_failed_dns_lookup_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with webhook() as gone:
        pass
    error = refused(targets_of(gone.url))
    assert (error.code, error.retriable) == ("SDK_CLIENT_ERROR", True)

    def no_address(*_: object, **__: object) -> None:
        raise socket.gaierror("Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", no_address)
    error = refused(targets_of("https://warehouse.example.com/"))
    assert (error.code, error.retriable) == ("SDK_CLIENT_ERROR", False)


def test_a_missing_destination_is_not_retried() -> None:
    error = refused(targets_of("http://127.0.0.1/"), ARN.replace("warehouse", "nobody"))
    assert (error.code, error.retriable) == ("NO_RESOURCE", False)


def test_calls_keep_to_the_limit_per_second(hook: Webhook) -> None:
    targets = targets_of(hook.url, InvocationRateLimitPerSecond=2, scale=10)
    begun = time.monotonic()
    for _ in range(3):
        targets.call(ARN, "{}")
    assert time.monotonic() - begun >= 0.1  # two pauses of half a second, ten times as fast


def test_deliveries_run_concurrently_until_stop() -> None:
    targets = targets_of("http://127.0.0.1/")
    first, second = threading.Event(), threading.Event()
    ran: list[str] = []

    def wait_for_second() -> None:
        ran.append("first" if second.wait(PATIENCE) else "alone")
        first.set()

    targets.run(wait_for_second)
    targets.run(second.set)
    wait_until(first.is_set)
    targets.stop()
    targets.run(lambda: ran.append("too late"))
    assert ran == ["first"]


@pytest.mark.parametrize(
    "connections",
    [
        {},
        {"key": {"AuthParameters": {"BasicAuthParameters": {"Username": "us", "Password": "k3y"}}}},
        {"key": {"AuthParameters": {**CONNECTION["AuthParameters"], "InvocationHttpParameters": {}}}},
    ],
)
def test_a_connection_without_an_api_key_is_rejected(connections: dict[str, Any]) -> None:
    arn = "arn:aws:events:us-east-1:123456789012:connection/key/77aa"
    with pytest.raises(UnsupportedTarget, match="API destination warehouse"):
        read_destinations({"warehouse": {"ConnectionArn": arn}}, connections)
