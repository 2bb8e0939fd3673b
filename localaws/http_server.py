"""An HTTP/1.1 server (RFC 9112) for the HTTP API, the AWS endpoint and the Lambda Runtime API."""

import io
import logging
import re
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote_to_bytes

Answer = tuple[str, list[tuple[str, str]], bytes]
"""A response: a text that starts with the status code, the headers without Content-Length, and the body."""

HEAD_LIMIT = 64 * 1024  # bytes of the request line and the headers, where AWS has no lower limit
LINGER_SECONDS = 2.0  # for the rest of a rejected request: to close at once would discard the response

_REQUEST_LINE = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+) ([!-~]+) (HTTP/1\.[01])")
_FIELD = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\x00\r\n]*?)[ \t]*")
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,8})[ \t]*(?:;.*)?")
_PHRASES = {int(status): status.phrase for status in HTTPStatus}

log = logging.getLogger(__name__)


class Headers(dict[str, str]):
    """The header fields of a request by lowercase name. Reading ignores the case of a name."""

    def get(self, name: str, default: Any = None) -> Any:
        """Returns the value of a header, or the default."""
        return super().get(name.lower(), default)

    def __getitem__(self, name: str) -> str:
        return super().__getitem__(name.lower())

    def __contains__(self, name: object) -> bool:
        return super().__contains__(str(name).lower())


@dataclass(slots=True)
class Request:
    """A request; `target` is the path with the query string as sent, `client` the IP address of the client."""

    method: str
    target: str
    protocol: str
    headers: Headers
    client: str
    body: bytes = b""

    @property
    def path(self) -> str:
        """The target without the query string."""
        return self.target.partition("?")[0]

    def wsgi_environment(self) -> dict[str, Any]:
        """Returns the request as a WSGI environment (PEP 3333), for werkzeug and moto."""
        host, _, port = self.headers.get("host", "localhost").partition(":")
        headers = {f"HTTP_{name.upper().replace('-', '_')}": value for name, value in self.headers.items()}
        return headers | {
            "REQUEST_METHOD": self.method,
            "SCRIPT_NAME": "",
            "PATH_INFO": unquote_to_bytes(self.path).decode("latin-1"),
            "QUERY_STRING": self.target.partition("?")[2],
            "RAW_URI": self.target,
            "REMOTE_ADDR": self.client,
            "SERVER_NAME": host,
            "SERVER_PORT": port or "80",
            "SERVER_PROTOCOL": self.protocol,
            "CONTENT_TYPE": self.headers.get("content-type", ""),
            "CONTENT_LENGTH": str(len(self.body)),
            "wsgi.url_scheme": "http",
            "wsgi.input": io.BytesIO(self.body),
        }


class BadRequest(Exception):
    """A request is malformed, incomplete or too large.

    Args:
        status: HTTP status for the client.
    """

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status
        self.request: Request | None = None  # without its body; None if its head cannot be read


class Connection:
    """Reads the requests of one connection.

    Args:
        connection: the socket. The caller closes it.
        max_body: maximum bytes of a request body.
        max_head: maximum bytes of the request line and the headers.
        client: IP address of the client.
    """

    def __init__(self, connection: socket.socket, max_body: int, max_head: int = HEAD_LIMIT, client: str = "") -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = connection
        self._max_body, self._max_head, self._client = max_body, max_head, client
        self.received = b""
        """The beginning of the next request, if it was sent with the last one."""

    def read(self) -> Request:
        """Waits for the next request.

        Raises:
            BadRequest: the rest of the connection cannot be read.
            OSError: the client has closed the connection, or a timeout of the socket.
        """
        self.received = self.received.lstrip(b"\r\n")
        first, *lines = self._read_until(b"\r\n\r\n").decode("latin-1").split("\r\n")
        match, fields = _REQUEST_LINE.fullmatch(first), [_FIELD.fullmatch(line) for line in lines]
        headers = Headers()
        for field in fields:
            if field is not None:
                name, value = field[1].lower(), field[2]
                separator = "; " if name == "cookie" else ","
                headers[name] = f"{headers[name]}{separator}{value}" if name in headers else value
        if match is None or None in fields:
            raise BadRequest(400)
        request = Request(match[1], match[2], match[3], headers, self._client)
        try:
            request.body = self._read_body(headers)
        except BadRequest as error:
            error.request = request
            raise
        return request

    def _read_body(self, headers: Headers) -> bytes:
        length, coding = headers.get("content-length", "0"), headers.get("transfer-encoding")
        ambiguous = coding is not None and (coding.lower() != "chunked" or "content-length" in headers)
        if ambiguous or not re.fullmatch("[0-9]{1,18}", length):
            raise BadRequest(400)
        if headers.get("expect", "").lower() == "100-continue" and int(length) <= self._max_body:
            self._socket.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        if coding is None:
            return self._read_bytes(int(length))
        body = bytearray()
        while size := _CHUNK.fullmatch(self._read_until(b"\r\n")):
            if int(size[1], 16) == 0:
                while self._read_until(b"\r\n"):  # trailer fields
                    pass
                del headers["transfer-encoding"]
                return bytes(body)
            body += self._read_bytes(int(size[1], 16), len(body))
            if self._read_until(b"\r\n"):
                break
        raise BadRequest(400)

    def _read_until(self, mark: bytes) -> bytes:
        while (end := self.received.find(mark)) < 0 and len(self.received) <= self._max_head:
            # A larger buffer would be mapped into memory at each call
            if not (more := self._socket.recv(1 << 14)):
                if mark == b"\r\n\r\n" and not self.received:
                    raise ConnectionResetError
                raise BadRequest(400)
            self.received += more
        if not 0 <= end <= self._max_head:
            raise BadRequest(431)
        found, self.received = self.received[:end], self.received[end + len(mark) :]
        return found

    def _read_bytes(self, count: int, before: int = 0) -> bytes:
        """Reads a part of the body, `before` bytes of which were read already."""
        if before + count > self._max_body:
            raise BadRequest(413)
        parts, missing = [self.received[:count]], count - len(self.received)
        self.received = self.received[count:]
        while missing > 0:
            if not (more := self._socket.recv(min(missing, 1 << 20))):
                raise BadRequest(400)  # of a client that was killed: an incomplete request is not executed
            parts.append(more)
            missing -= len(more)
        return b"".join(parts)


def encode(method: str, answer: Answer, *, close: bool = False) -> bytes:
    """Returns a response, in one piece: Nagle's algorithm and delayed acknowledgements would delay a second by 40 ms.

    Args:
        method: method of the request.
        answer: the response; its headers Content-Length and Connection are replaced.
        close: whether the server closes the connection.

    Raises:
        ValueError: a header contains a line break.
    """
    code, headers, body = int(answer[0][:3]), answer[1], answer[2]
    lines = [f"HTTP/1.1 {code} {_PHRASES.get(code, '')}"]
    lines += [f"{name}: {value}" for name, value in headers if name.lower() not in ("content-length", "connection")]
    lines += [f"Content-Length: {len(body)}"] * (code not in (204, 304)) + ["Connection: close"] * close
    if re.search("[\r\n]", "".join(lines)):
        raise ValueError("a header of the response contains a line break")
    content = b"" if method == "HEAD" or code in (204, 304) else body
    return "\r\n".join([*lines, "\r\n"]).encode("latin-1", "replace") + content


class Server:
    """Serves requests with one thread per connection.

    Args:
        host: address to listen on.
        port: port to listen on; 0 selects a free port.
        handle: returns the response, or None to close the connection without one.
        refuse: returns the response to a request whose body is not valid, from the request and an HTTP status.
        max_body: maximum bytes of a request body.
        max_head: maximum bytes of the request line and the headers.

    Raises:
        OSError: the port is in use.
    """

    def __init__(
        self,
        host: str,
        port: int,
        handle: Callable[[Request], Answer | None],
        refuse: Callable[[Request, int], Answer] = lambda _request, status: (str(status), [], b""),
        *,
        max_body: int,
        max_head: int = HEAD_LIMIT,
    ) -> None:
        self._listener = socket.create_server((host, port), backlog=128)
        self.url = f"http://{host}:{self._listener.getsockname()[1]}"
        self._handle, self._refuse, self._limits = handle, refuse, (max_body, max_head)
        self._connections: set[socket.socket] = set()
        self._stopped = False
        self._thread = threading.Thread(target=self._accept, name=self.url, daemon=True)

    def start(self) -> None:
        """Starts to answer requests."""
        self._thread.start()

    def stop(self) -> None:
        """Closes the port and all connections. May be called twice."""
        self._stopped = True
        if self._thread.is_alive():
            with suppress(OSError):  # wakes the thread, which waits for a connection
                socket.create_connection(self._listener.getsockname()).close()
            self._thread.join()
        self._listener.close()
        for connection in list(self._connections):
            with suppress(OSError):  # the client has already closed it
                connection.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while not self._stopped:
            with suppress(OSError):  # the client has gone
                connection, (client, *_) = self._listener.accept()
                self._connections.add(connection)
                threading.Thread(target=self._serve, args=(connection, client), name="connection", daemon=True).start()

    def _serve(self, connection: socket.socket, client: str) -> None:
        requests = Connection(connection, *self._limits, client)
        try:
            with connection, suppress(OSError):  # the client has closed the connection
                while self._respond(connection, requests):
                    pass
        finally:
            self._connections.discard(connection)

    def _respond(self, connection: socket.socket, requests: Connection) -> bool:
        """Waits for a request and answers it. Returns whether the connection stays open."""
        try:
            request = requests.read()
        except BadRequest as bad:
            answer = self._refuse(bad.request, bad.status) if bad.request else (str(bad.status), [], b"")
            connection.sendall(encode("", answer, close=True))
            connection.shutdown(socket.SHUT_WR)
            connection.settimeout(LINGER_SECONDS)
            while connection.recv(1 << 20):
                pass
            return False
        close = request.headers.get("connection", "").lower() == "close" or request.protocol == "HTTP/1.0"
        try:
            found = self._handle(request)
            response = found and encode(request.method, found, close=close)
        except Exception:  # a defect of this package; the client must not wait
            log.exception("%s %s failed", request.method, request.path)
            response = encode(request.method, ("500", [], b""), close=close)
        if response:
            connection.sendall(response)
        return bool(response) and not close
