"""The HTTP server follows RFC 9112: framing of requests and responses, persistent connections, limits."""

import http.client
import socket
from collections.abc import Callable, Iterator

import pytest

from localaws.http_server import Answer, Request, Server
from localaws.tests.support import PATIENCE, exchange

Handle = Callable[[Request], Answer | None]
Serve = Callable[[Handle], str]

HEAD = b"POST /a%20b?c=1 HTTP/1.1\r\nHost: localhost\r\n"


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts servers for bodies of at most 100 bytes and heads of at most 1,000. They refuse with a text."""
    servers: list[Server] = []

    def start(handle: Handle) -> str:
        def refuse(request: Request, status: int) -> Answer:
            return str(status), [("X-Path", request.path)], b"refused"

        servers.append(Server("127.0.0.1", 0, handle, refuse, max_body=100, max_head=1000))
        servers[-1].start()
        return servers[-1].url

    yield start
    for server in servers:
        server.stop()


def echo(request: Request) -> Answer:
    return "200 OK", [("Content-Type", "text/plain"), ("Content-Length", "99")], request.body


def connect(url: str) -> socket.socket:
    host, _, port = url.removeprefix("http://").partition(":")
    return socket.create_connection((host, int(port)), timeout=PATIENCE)


def test_a_request_reaches_the_handler_as_sent(serve: Serve) -> None:
    seen: list[Request] = []

    def handle(request: Request) -> Answer:
        seen.append(request)
        return echo(request)

    answer = exchange(serve(handle), HEAD + b"X-Name:  \xe9 \r\nx-name: 2\r\nCOOKIE: a=1\r\nCookie: b=2\r\n\r\n")

    (request,) = seen
    assert (request.method, request.target, request.path) == ("POST", "/a%20b?c=1", "/a%20b")
    assert (request.protocol, request.client, request.body) == ("HTTP/1.1", "127.0.0.1", b"")
    assert request.headers["X-NAME"] == "\xe9,2"
    assert request.headers["cookie"] == "a=1; b=2"
    assert request.wsgi_environment()["PATH_INFO"] == "/a b"
    assert answer == b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 0\r\n\r\n"


@pytest.mark.parametrize(
    "rest",
    [
        b"Content-Length: 5\r\n\r\nhello",
        b"Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n003;name=value\r\nllo\r\n0\r\nTrailer: x\r\n\r\n",
    ],
)
def test_requests_in_one_packet_are_answered_one_after_the_other(serve: Serve, rest: bytes) -> None:
    answer = exchange(serve(echo), 3 * (HEAD + rest))

    assert answer == 3 * b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello"


def test_a_request_in_many_packets_is_answered_once(serve: Serve) -> None:
    with connect(serve(echo)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in HEAD + b"Content-Length: 3\r\n\r\nabc":
            connection.sendall(bytes([byte]))

        assert connection.recv(1000).endswith(b"\r\n\r\nabc")


@pytest.mark.parametrize(
    ("request_head", "closes"),
    [
        (b"GET / HTTP/1.1\r\n", False),
        (b"GET / HTTP/1.1\r\nConnection: Close\r\n", True),
        (b"GET / HTTP/1.0\r\n", True),
    ],
)
def test_a_connection_stays_open_unless_the_client_wants_it_closed(
    serve: Serve, request_head: bytes, closes: bool
) -> None:
    answer = exchange(serve(echo), 2 * (request_head + b"\r\n"))

    assert answer.count(b"HTTP/1.1 200 OK") == (1 if closes else 2)
    assert (b"Connection: close" in answer) == closes


def test_a_response_to_head_has_the_length_without_the_body(serve: Serve) -> None:
    answer = exchange(serve(lambda _: ("200", [], b"hello")), b"HEAD / HTTP/1.1\r\n\r\n")

    assert answer == b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"


def test_a_response_without_content_has_no_length(serve: Serve) -> None:
    answer = exchange(serve(lambda _: ("204", [], b"")), b"OPTIONS / HTTP/1.1\r\n\r\n")

    assert answer == b"HTTP/1.1 204 No Content\r\n\r\n"


def test_a_client_that_expects_100_continue_is_asked_for_the_body(serve: Serve) -> None:
    with connect(serve(echo)) as connection:
        connection.sendall(HEAD + b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\n")
        asked = connection.recv(1000)
        connection.sendall(b"ok")

        assert asked == b"HTTP/1.1 100 Continue\r\n\r\n"
        assert connection.recv(1000).endswith(b"\r\n\r\nok")


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"\x16\x03\x01\x02\r\n\r\n", b"400"),  # the beginning of TLS
        (b"GET /\r\n\r\n", b"400"),
        (b"GET / HTTP/2.0\r\n\r\n", b"400"),
        (b"GET /a b HTTP/1.1\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nName : value\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nName: value\r\n folded\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nName: a\nOther: b\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: loc", b"400"),
        (b"GET / HTTP/1.1\r\nName: " + b"x" * 1000 + b"\r\n\r\n", b"431"),
        (b"GET /" + b"x" * 20_000, b"431"),
    ],
)
def test_a_malformed_head_is_refused_and_the_connection_closed(serve: Serve, request_: bytes, status: bytes) -> None:
    answer = exchange(serve(echo), request_)

    assert answer.startswith(b"HTTP/1.1 " + status)
    assert answer.endswith(b"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")


@pytest.mark.parametrize(
    ("rest", "status"),
    [
        (b"Content-Length: 1, 1\r\n\r\na", b"400"),
        (b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab", b"400"),
        (b"Content-Length: +1\r\n\r\na", b"400"),
        (b"Content-Length: 5\r\n\r\na", b"400"),
        (b"Content-Length: 101\r\n\r\n" + b"a" * 101, b"413"),
        (b"Content-Length: 101\r\nExpect: 100-continue\r\n\r\n", b"413"),
        (b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n", b"400"),
        (b"Transfer-Encoding: gzip, chunked\r\n\r\n1\r\na\r\n0\r\n\r\n", b"400"),
        (b"Transfer-Encoding: chunked\r\n\r\n0x1\r\na\r\n0\r\n\r\n", b"400"),
        (b"Transfer-Encoding: chunked\r\n\r\n40\r\n" + 2 * (b"a" * 64 + b"\r\n40\r\n"), b"413"),
    ],
)
def test_a_body_that_cannot_be_read_is_refused_with_its_request(serve: Serve, rest: bytes, status: bytes) -> None:
    answer = exchange(serve(echo), HEAD + rest)

    assert answer.startswith(b"HTTP/1.1 " + status)
    assert b"\r\nX-Path: /a%20b\r\n" in answer
    assert answer.endswith(b"\r\nConnection: close\r\n\r\nrefused")
    assert answer.count(b"HTTP/1.1 ") == 1


def test_a_client_that_still_sends_a_large_body_gets_the_refusal(serve: Serve) -> None:
    connection = http.client.HTTPConnection(serve(echo).removeprefix("http://"), timeout=PATIENCE)

    connection.request("POST", "/", b"x" * 5_000_000)

    assert connection.getresponse().status == 413


def test_a_handler_can_close_the_connection_without_a_response(serve: Serve) -> None:
    assert exchange(serve(lambda _: None), b"GET / HTTP/1.1\r\n\r\n") == b""


@pytest.mark.parametrize("answer", [("200", [("Name", "a\r\nOther: b")], b""), ("many", [], b"")])
def test_a_response_that_is_not_valid_is_not_sent(serve: Serve, answer: Answer) -> None:
    received = exchange(serve(lambda _: answer), b"GET / HTTP/1.1\r\n\r\n")

    assert received == b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n"


def test_an_error_of_the_handler_is_logged_and_answered_with_500(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_request: Request) -> Answer:
        raise KeyError("defect")

    answer = exchange(serve(fail), 2 * b"GET /path?key=secret HTTP/1.1\r\n\r\n")

    assert answer == 2 * b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n"
    assert [record.getMessage() for record in caplog.records] == 2 * ["GET /path failed"]


def test_stop_closes_the_port_and_the_open_connections(serve: Serve) -> None:
    server = Server("127.0.0.1", 0, echo, max_body=0)
    server.start()
    with connect(server.url) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
        connection.recv(1000)

        server.stop()
        server.stop()

        assert connection.recv(1000) == b""
        with pytest.raises(ConnectionError):
            connect(server.url)
