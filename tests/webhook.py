"""A local HTTP endpoint that replaces an external webhook."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple


class Call(NamedTuple):
    """A received request. The names of the headers are in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class Answer(NamedTuple):
    """The response of the endpoint."""

    status: int = 200
    headers: dict[str, str] = {}  # noqa: RUF012 - never changed


@dataclass
class Webhook:
    """The endpoint.

    Args:
        calls: all received requests.
        answer: returns the response to a request.
    """

    url: str
    calls: list[Call] = field(default_factory=list)
    answer: Callable[[Call], Answer] = lambda _call: Answer()


@contextmanager
def webhook() -> Iterator[Webhook]:
    """Starts an endpoint, and stops it at the end of the context."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            call = Call(self.command, self.path, headers, self.rfile.read(int(headers["content-length"])))
            hook.calls.append(call)
            answer = hook.answer(call)
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.end_headers()

        do_PUT = do_POST  # noqa: N815 - name required by http.server

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hook = Webhook(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield hook
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
