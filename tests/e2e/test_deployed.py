"""How the end-to-end tests treat a deployed stack. These tests need none."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from localaws.tests.runner import ROOT
from tests.e2e import conftest
from tests.e2e.conftest import CLOCK_SKEW, DEPLOYED_CALLERS, Shop, callers
from tools.http import Api
from tools.stack import Stack

BEGUN = 1_800_000_000.0
LOCAL = Stack("http://127.0.0.1", {}, "us-east-1", "http://127.0.0.1:1")
DEPLOYED = Stack("https://api", {"EventLogGroupName": "events"}, "eu-west-1")


def shop(stack: Stack) -> Shop:
    return Shop(stack, Api(stack, callers(stack)), BEGUN)


@contextmanager
def api(status: int, body: bytes) -> Iterator[Stack]:
    """A deployed stack whose API has one answer to every request."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield Stack(f"http://127.0.0.1:{server.server_port}", {}, "eu-west-1", tokens={"customer": "token"})
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (429, b'{"message": "Too Many Requests"}', "status 429; usually the API throttles requests"),
        (500, b'{"message": "Internal Server Error"}', "status 500; usually the function failed"),
        (
            503,
            b"<html>Service Unavailable</html>",
            "status 503; usually API Gateway got no answer .* Unavailable</html>",
        ),
        (507, b"", "status 507; usually the API failed"),
    ],
)
def test_an_unexpected_response_is_explained(status: int, body: bytes, message: str) -> None:
    with api(status, body) as stack, pytest.raises(pytest.fail.Exception, match=f"POST /orders: {message}"):
        shop(stack).place(("PEN", 1))


@pytest.mark.parametrize("body", [b"<html>", b"[1]", b"\xff"])
def test_a_body_that_is_not_a_json_object_is_kept_as_a_message(body: bytes) -> None:
    with api(404, body) as stack:
        answer = shop(stack).place(("PEN", 1))

    assert (answer.status, answer.body) == (404, {"message": body.decode(errors="replace")})


class Clock:
    """A clock that advances only while a caller sleeps."""

    def __init__(self) -> None:
        self.now = 0.0
        self.naps: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.naps.append(seconds)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(conftest, "time", clock)
    return clock


def test_a_deployed_stack_is_polled_once_a_second_for_five_minutes(clock: Clock) -> None:
    assert shop(DEPLOYED).eventually(lambda: clock.now >= 299)
    assert set(clock.naps) == {1.0}


def test_a_local_stack_is_polled_often(clock: Clock) -> None:
    assert shop(LOCAL).eventually(lambda: clock.now >= 10)
    assert max(clock.naps) < 0.1


@pytest.mark.parametrize("stack", [LOCAL, DEPLOYED])
def test_a_condition_that_never_becomes_true_fails_the_test(clock: Clock, stack: Stack) -> None:
    with pytest.raises(AssertionError, match="not within"):
        shop(stack).eventually(lambda: False)


def test_a_deployed_stack_gets_few_requests_at_a_time() -> None:
    assert callers(DEPLOYED) == DEPLOYED_CALLERS == 3
    assert callers(LOCAL) > DEPLOYED_CALLERS


class Logged(Stack):
    """A stack whose log holds an old event and one with an address, which it masks unless asked not to."""

    def client(self, _service: str) -> Any:
        return self

    def get_paginator(self, _operation: str) -> Any:
        return self

    def paginate(self, *, startTime: int, unmask: bool = False, **_: Any) -> list[dict[str, Any]]:  # noqa: N803
        line = json.dumps({"detail": {"orderId": "ORD-1", "shippingAddress": {"street": "1 Main St", "city": "Rome"}}})
        if not unmask:
            line = line.replace('1 Main St", "city', "*" * 18)
        lines = [(int(BEGUN * 1000) + 1, line), (int((BEGUN - 2 * CLOCK_SKEW) * 1000), "long ago")]
        return [{"events": [{"message": message} for timestamp, message in lines if timestamp >= startTime]}]


def test_events_are_read_unmasked_and_only_from_the_beginning_of_the_tests() -> None:
    (event,) = shop(Logged(DEPLOYED.api_url, DEPLOYED.outputs, DEPLOYED.region)).events_on_the_bus("ORD-1")

    assert event["detail"]["shippingAddress"] == {"street": "1 Main St", "city": "Rome"}


def collected(**environment: str) -> subprocess.CompletedProcess[str]:
    """What `make test-e2e STACK=shop` starts, up to its first test, in an environment without any AWS settings."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "tests/e2e", "--stack", "shop", "--collect-only", "-q"],
        cwd=ROOT,
        env={**kept, "AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": os.devnull, **environment},
        capture_output=True,
        text=True,
    )


def test_a_missing_region_is_reported_in_one_line() -> None:
    done = collected()

    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("ERROR: no AWS region: set AWS_REGION, ")
    assert done.stdout == ""


def test_the_stack_is_found_in_the_region_and_with_the_credentials_of_a_profile(tmp_path: Path) -> None:
    configuration = tmp_path / "config"
    configuration.write_text(
        "[profile shop]\nregion = eu-west-1\naws_access_key_id = key\naws_secret_access_key = secret\n"
    )
    template = {
        "Resources": {"Topic": {"Type": "AWS::SNS::Topic"}},
        "Outputs": {"ApiUrl": {"Value": "https://api"}},
    }
    server = ThreadedMotoServer("127.0.0.1", port=0)
    server.start()
    try:
        host, port = server.get_host_and_port()
        endpoint = f"http://{host}:{port}"
        boto3.client(
            "cloudformation",
            "eu-west-1",
            endpoint_url=endpoint,
            aws_access_key_id="key",
            aws_secret_access_key="secret",
        ).create_stack(StackName="shop", TemplateBody=json.dumps(template))

        found = collected(AWS_PROFILE="shop", AWS_CONFIG_FILE=str(configuration), AWS_ENDPOINT_URL=endpoint)
    finally:
        server.stop()

    assert found.returncode == pytest.ExitCode.OK, found.stdout + found.stderr
    assert "test_orders.py::test_requests_with_one_idempotency_key_place_one_order" in found.stdout
    assert "test_own_stack.py" not in found.stdout
