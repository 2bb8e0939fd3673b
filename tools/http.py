"""Calls a stack's HTTP API over connections that stay open."""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import urllib3

from tools.stack import Stack

TIMEOUT = 35.0
"""Seconds; API Gateway itself answers after 30 at the latest."""


@dataclass(frozen=True)
class Answer:
    """What the API answered.

    Args:
        status: the HTTP status.
        body: the parsed JSON; if it is not a JSON object, `message` with the beginning of the text.
        sent_at: when the request was sent, in seconds since the epoch.
        seconds: how long the answer took.
    """

    status: int
    body: dict[str, Any]
    sent_at: float
    seconds: float


class Api:
    """A stack's API. Threads may share it.

    Args:
        stack: whose API, with the tokens of its users.
        connections: how many calls may run at a time; more wait for their turn.
    """

    def __init__(self, stack: Stack, connections: int = 1) -> None:
        self._stack = stack
        # No retries: a call that failed is counted, and a repeated one would not be measured as what it is
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
        """One call.

        Args:
            method: the HTTP method.
            path: with its query.
            user: whose token goes with it; None for no token.
            headers: further headers.
            body: as it goes over the wire.

        Raises:
            urllib3.exceptions.HTTPError: there was no answer.
        """
        token = {"authorization": f"Bearer {self._stack.tokens[user]}"} if user else {}
        sent_at, begun = time.time(), time.perf_counter()
        response = self._http.request(
            method, self._stack.api_url + path, body=body, headers={**token, **(headers or {})}
        )
        seconds = time.perf_counter() - begun
        return Answer(response.status, _body_in(response.data or b"{}"), sent_at, seconds)


def _body_in(data: bytes) -> dict[str, Any]:
    """Read a body. Only this application always answers with JSON; a proxy in front of it need not."""
    try:
        body = json.loads(data)
    except ValueError:
        body = None
    return body if isinstance(body, dict) else {"message": data[:200].decode(errors="replace")}
