"""An HTTP/1.1 server (RFC 9112) for the HTTP API, the AWS endpoint and the Lambda Runtime API.

A response is sent in one piece: Nagle's algorithm and delayed acknowledgements would delay a second piece by 40 ms.
"""

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

HEAD_LIMIT = 64 * 1024
"""Maximum bytes of the request line and the headers, where AWS has no lower limit."""
LINGER_SECONDS = 2.0
"""How long a client may go on sending after its request was rejected. A reset would discard the response."""

_REQUEST_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+) ([!-~]+) (HTTP/1\.[01])")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\x00\r\n]*?)[ \t]*")
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,8})[ \t]*(?:;[^\r\n]*)?")
_PHRASES = {int(status): status.phrase for status in HTTPStatus}
_WITHOUT_BODY = (204, 304)

log = logging.getLogger(__name__)


class Headers(dict[str, str]):
    """The header fields of a request by lowercase name. `get`, `[]` and `in` ignore the case of a name."""

    def get(self, name: str, default: Any = None) -> Any:
        """Returns the value of a header, or the default."""
        return super().get(name.lower(), default)

    def __getitem__(self, name: str) -> str:
        return super().__getitem__(name.lower())

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and super().__contains__(name.lower())


@dataclass(slots=True)
class Request:
    """A request; `target` is the path with the query string as sent, `client` the IP address of the client."""

    method: str
    target: str
    protocol: str
    headers: Headers
    client: str = ""
    body: bytes = b""

    @property
    def path(self) -> str:
        """The target without the query string."""
        return self.target.partition("?")[0]

    def wsgi_environment(self) -> dict[str, Any]:
        """Returns the request as a WSGI environment (PEP 3333), for werkzeug and moto."""
        path, _, query = self.target.partition("?")
        host, _, port = self.headers.get("host", "localhost").partition(":")
        environment = {
            "REQUEST_METHOD": self.method,
            "SCRIPT_NAME": "",
            "PATH_INFO": unquote_to_bytes(path).decode("latin-1"),
            "QUERY_STRING": query,
            "RAW_URI": self.target,
            "REMOTE_ADDR": self.client,
            "SERVER_NAME": host,
            "SERVER_PORT": port or "80",
            "SERVER_PROTOCOL": self.protocol,
            "wsgi.url_scheme": "http",
            "wsgi.input": io.BytesIO(self.body),
        }
        for name, value in self.headers.items():
            key = name.upper().replace("-", "_")
            environment[key if key == "CONTENT_TYPE" else f"HTTP_{key}"] = value
        return environment | {"CONTENT_LENGTH": str(len(self.body))}


class BadRequest(Exception):
    """A request is malformed, incomplete or too large.

    Args:
        status: HTTP status for the client.
        request: the request without its body; None if its head cannot be read.
    """

    def __init__(self, status: int, request: Request | None = None) -> None:
        super().__init__(status)
        self.status, self.request = status, request


class Connection:
    """The server's side of one connection.

    Args:
        connection: the socket. The caller closes it.
        max_body: maximum bytes of a request body.
        max_head: maximum bytes of the request line and the headers.
        client: IP address of the client.
    """

    def __init__(self, connection: socket.socket, max_body: int, max_head: int = HEAD_LIMIT, client: str = "") -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = connection
        self._max_body, self._max_head = max_body, max_head
        self._client = client
        self._buffer = b""

    def read(self) -> Request | None:
        """Waits for the next request. Returns None if the client closes the connection before it.

        Raises:
            BadRequest: the rest of the connection cannot be read.
            OSError: the connection is broken, or a timeout of the socket.
        """
        while (end := self._buffer.find(b"\r\n\r\n")) < 0:
            if len(self._buffer) > self._max_head:
                raise BadRequest(431)
            if not self._receive():
                if self._buffer.strip():
                    raise BadRequest(400)
                return None
        if end > self._max_head:
            raise BadRequest(431)
        head, self._buffer = self._buffer[:end].lstrip(b"\r\n"), self._buffer[end + 4 :]
        request = _read_head(head, self._client)
        request.body = self._read_body(request)
        return request

    @property
    def has_received(self) -> bool:
        """Whether a part of the next request was received with the last one."""
        return bool(self._buffer)

    def send(self, request: Request, answer: Answer, *, close: bool = False) -> None:
        """Sends the response to a request, with the header `Connection: close` if `close` is true."""
        self._socket.sendall(encode(request, answer, close=close))

    def linger(self) -> None:
        """Ends the response, and waits for the client's end of the connection."""
        self._socket.settimeout(LINGER_SECONDS)
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)
            while self._socket.recv(1 << 20):
                pass

    def _receive(self) -> bool:
        received = self._socket.recv(1 << 14)  # a larger buffer would be mapped into memory for each call
        self._buffer += received
        return bool(received)

    def _read_body(self, request: Request) -> bytes:
        length, coding = request.headers.get("content-length"), request.headers.get("transfer-encoding")
        if coding is None and length is None:
            return b""
        invalid = coding is not None and (length is not None or coding.lower() != "chunked")
        if invalid or (length is not None and re.fullmatch("[0-9]{1,18}", length) is None):
            raise BadRequest(400, request)
        if length is not None and int(length) > self._max_body:
            raise BadRequest(413, request)
        if request.headers.get("expect", "").lower() == "100-continue":
            self._socket.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        return self._take(int(length), request) if length is not None else self._read_chunks(request)

    def _read_chunks(self, request: Request) -> bytes:
        chunks: list[bytes] = []
        while True:
            size = _CHUNK.fullmatch(self._take_line(request))
            if size is None:
                raise BadRequest(400, request)
            count = int(size[1], 16)
            if count == 0:
                break
            if sum(map(len, chunks)) + count > self._max_body:
                raise BadRequest(413, request)
            chunks.append(self._take(count, request))
            if self._take_line(request):
                raise BadRequest(400, request)
        while self._take_line(request):  # trailer fields
            pass
        del request.headers["transfer-encoding"]
        request.headers["content-length"] = str(sum(map(len, chunks)))
        return b"".join(chunks)

    def _take_line(self, request: Request) -> bytes:
        while b"\r\n" not in self._buffer:
            if len(self._buffer) > HEAD_LIMIT or not self._receive():
                raise BadRequest(400, request)
        line, _, self._buffer = self._buffer.partition(b"\r\n")
        return line

    def _take(self, count: int, request: Request) -> bytes:
        parts, missing = [self._buffer[:count]], count - len(self._buffer)
        self._buffer = self._buffer[count:]
        while missing > 0:
            received = self._socket.recv(min(missing, 1 << 20))
            if not received:  # the client was killed: an incomplete request is not executed
                raise BadRequest(400, request)
            parts.append(received)
            missing -= len(received)
        return b"".join(parts)


def _read_head(head: bytes, client: str) -> Request:
    first, *lines = head.split(b"\r\n")
    match = _REQUEST_LINE.fullmatch(first)
    if match is None:
        raise BadRequest(400)
    headers = Headers()
    for line in lines:
        field = _FIELD.fullmatch(line)
        if field is None:
            raise BadRequest(400)
        name, value = field[1].decode().lower(), field[2].decode("latin-1")
        if name in headers:
            value = f"{headers[name]}{'; ' if name == 'cookie' else ','}{value}"
        headers[name] = value
    method, target, protocol = match.groups()
    return Request(method.decode(), target.decode(), protocol.decode(), headers, client)


def encode(request: Request, answer: Answer, *, close: bool = False) -> bytes:
    """Returns the response to a request, with the header `Connection: close` if `close` is true.

    Raises:
        ValueError: a header contains a line break.
    """
    status, headers, body = answer
    code = int(status[:3])
    lines = [f"HTTP/1.1 {code} {_PHRASES.get(code, '')}"]
    lines += [f"{name}: {value}" for name, value in headers if name.lower() not in ("content-length", "connection")]
    if code not in _WITHOUT_BODY:
        lines.append(f"Content-Length: {len(body)}")
    if close:
        lines.append("Connection: close")
    if code in _WITHOUT_BODY or request.method == "HEAD":
        body = b""
    head = "\r\n".join([*lines, "\r\n"])
    if head.count("\n") != len(lines) + 1 or head.count("\r") != len(lines) + 1:
        raise ValueError("a header of the response contains a line break")
    return head.encode("latin-1", "replace") + body


class Server:
    """Serves requests with one thread per connection.

    Args:
        host: address to listen on.
        port: port to listen on; 0 selects a free port.
        handle: returns the response, or None to close the connection without one.
        refuse: returns the response to a malformed request, of which only the head was read.
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
        self.port: int = self._listener.getsockname()[1]
        self.url = f"http://{host}:{self.port}"
        self._handle, self._refuse, self._limits = handle, refuse, (max_body, max_head)
        self._connections: set[socket.socket] = set()
        self._stopped = False
        self._thread = threading.Thread(target=self._accept, name=f"port {self.port}", daemon=True)

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
        while True:
            try:
                connection, (client, *_) = self._listener.accept()
            except OSError:  # the client has gone, or this process has too many open files
                continue
            if self._stopped:
                connection.close()
                return
            self._connections.add(connection)
            threading.Thread(target=self._serve, args=(connection, client), name="connection", daemon=True).start()

    def _serve(self, connection: socket.socket, client: str) -> None:
        try:
            with connection, suppress(OSError):  # the client has closed the connection
                served = Connection(connection, *self._limits, client)
                try:
                    while self._answer(served, served.read()):
                        pass
                except BadRequest as bad:
                    request = bad.request or Request("", "", "", Headers())
                    answer = self._refuse(request, bad.status) if bad.request else (str(bad.status), [], b"")
                    served.send(request, answer, close=True)
                    served.linger()
        finally:
            self._connections.discard(connection)

    def _answer(self, served: Connection, request: Request | None) -> bool:
        """Answers a request. Returns whether the connection stays open."""
        if request is None:
            return False
        try:
            answer = self._handle(request)
        except Exception:  # a defect of this package; the client must not wait
            log.exception("%s %s failed", request.method, request.path)
            answer = ("500", [], b"")
        if answer is None:
            return False
        close = request.headers.get("connection", "").lower() == "close" or request.protocol == "HTTP/1.0"
        served.send(request, answer, close=close)
        return not close
