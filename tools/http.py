"""Calls a stack's HTTP API over persistent connections."""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import urllib3

from tools.stack import Stack

TIMEOUT = 35.0
"""Seconds. API Gateway responds after at most 30."""


@dataclass(frozen=True)
class Answer:
    """A response of the API.

    Args:
        status: the HTTP status.
        body: the parsed JSON; if it is not a JSON object, `message` with the beginning of the text.
        sent_at: when the request was sent, in seconds since the epoch.
        seconds: the latency.
    """

    status: int
    body: dict[str, Any]
    sent_at: float
    seconds: float


class Api:
    """A stack's API. It is thread-safe.

    Args:
        stack: the stack, with the tokens of its users.
        connections: the maximum number of concurrent calls.
    """

    def __init__(self, stack: Stack, connections: int = 1) -> None:
        self._stack = stack
        # No retries: failed calls are counted, and a retry would distort the measured latency
        self._http = urllib3.PoolManager(maxsize=connections, block=True, retries=False, timeout=TIMEOUT)

    def call(
        self,
        method: str,
        path: str,
        *,
        user: str | None = None,
        headers: Mapping[str, str] | None = None,
        body: str | bytes | None = None,
    ) -> Answer:
        """Calls the API.

        Args:
            method: the HTTP method.
            path: the path, with its query string.
            user: the test user whose token is sent; None for no token.
            headers: additional headers.
            body: the encoded body.

        Raises:
            urllib3.exceptions.HTTPError: there was no response.
        """
        token = {"authorization": f"Bearer {self._stack.tokens[user]}"} if user else {}
        sent_at, begun = time.time(), time.perf_counter()
        response = self._http.request(
            method, self._stack.api_url + path, body=body, headers={**token, **(headers or {})}
        )
        seconds = time.perf_counter() - begun
        return Answer(response.status, _body_in(response.data or b"{}"), sent_at, seconds)


def _body_in(data: bytes) -> dict[str, Any]:
    """Parses a body. A proxy in front of the API can respond with something other than JSON."""
    try:
        body = json.loads(data)
    except ValueError:
        body = None
    return body if isinstance(body, dict) else {"message": data[:200].decode(errors="replace")}
