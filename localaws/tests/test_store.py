"""The store: its server, its life, and the clients that it gives."""

import threading
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

from localaws.store import Store, require_moto
from localaws.tests.support import PATIENCE, code_of, exchange, hang_up


def test_another_version_of_moto_is_refused_with_the_version_to_install() -> None:
    with pytest.raises(RuntimeError, match=r"requires moto 5\.2\.5 and found moto 5\.2\.6"):
        require_moto("5.2.6")


def test_an_sdk_finds_the_store_by_the_environment_of_a_function(
    store: Store, tables: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in store.function_environment().items():
        monkeypatch.setenv(name, value)

    names = boto3.Session().client("dynamodb").list_tables()["TableNames"]

    assert names == ["stock"]


def test_an_error_inside_moto_reaches_the_caller_with_its_message(store: Store) -> None:
    with pytest.raises(ClientError, match="has not been implemented") as error:
        store.client("dynamodb").describe_contributor_insights(TableName="stock")

    assert code_of(error) == "InternalFailure"


@pytest.mark.parametrize(
    ("rest", "status"),
    [
        (b"Content-Length: many\r\n\r\n{}", b"400"),
        (b"Content-Length: -1\r\n\r\n{}", b"400"),
        (b"Content-Length: 999999999999999\r\n\r\n{}", b"413"),
        (b"Transfer-Encoding: chunked\r\n\r\nmany\r\n{}\r\n0\r\n\r\n", b"400"),
    ],
)
def test_a_body_without_a_usable_length_is_refused(
    store: Store, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture, rest: bytes, status: bytes
) -> None:
    answer = exchange(store.endpoint, b"POST / HTTP/1.1\r\nHost: localhost\r\n" + rest)

    assert answer.split()[1] == status
    assert answer.count(b"HTTP/1.1 ") == 1  # the body is not read as a second request
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []


def test_a_caller_that_closes_the_connection_early_causes_no_traceback(
    store: Store, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    gone = threading.Event()
    store.on_call = lambda _request, _execute: ("200", [], b"x" * 5_000_000 * gone.wait(PATIENCE))

    hang_up(store.endpoint, b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n", gone)

    assert capfd.readouterr() == ("", "")
    assert caplog.records == []


@pytest.mark.parametrize(
    "request_line",
    [
        b"POST /moto-api/reset",
        b"GET /moto-api/data.json",
        b"GET /moto-api/",
        b"POST //moto-api/reset",
    ],
)
def test_motos_own_api_is_not_reachable(store: Store, tables: Any, request_line: bytes) -> None:
    headers = b"Host: motoapi.amazonaws.com\r\nOrigin: https://evil.example\r\nContent-Length: 0\r\n\r\n"
    answer = exchange(store.endpoint, request_line + b" HTTP/1.1\r\n" + headers)

    assert answer.split()[1] == b"404"
    assert b"access-control-" not in answer.lower()
    assert tables.list_tables()["TableNames"] == ["stock"]


def test_after_stop_requests_fail_and_the_next_store_is_empty(store: Store, tables: Any) -> None:
    store.stop()

    with pytest.raises((EndpointConnectionError, ConnectionError)):
        tables.list_tables()
    store.start()
    assert store.client("dynamodb").list_tables()["TableNames"] == []


def test_a_second_store_in_the_process_is_refused(store: Store) -> None:
    with pytest.raises(RuntimeError, match="another store"):
        Store().start()
