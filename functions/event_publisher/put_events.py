"""Sends entries with PutEvents: retries only those that failed, and keeps the order of each aggregate's events."""

import random
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError

from event_publisher import domain
from event_publisher.domain import EventEntry
from orderflow.observability import logger

if TYPE_CHECKING:
    from mypy_boto3_events.client import EventBridgeClient

ATTEMPTS = 4
PAUSE = 0.1
"""Seconds. The longest pause before retry n is PAUSE * 2^n, 1.4 s in total."""

PERMANENT = frozenset({"InvalidArgument", "MalformedDetail"})
"""Error codes of entries that a retry cannot publish (EventBridge API reference, PutEventsResultEntry)."""


@dataclass
class Outcome:
    """The result for each entry."""

    published: list[EventEntry] = field(default_factory=list)
    failed: list[EventEntry] = field(default_factory=list)  # at each attempt, and the later entries of their aggregates
    refused: list[tuple[EventEntry, str, str]] = field(default_factory=list)  # for good, with error code and message


def deliver(
    events: "EventBridgeClient",
    entries: Iterable[EventEntry],
    pause: Callable[[float], None] = time.sleep,
    jitter: Callable[[float, float], float] = random.uniform,
) -> Outcome:
    """Puts entries on the bus, those of an aggregate in the order in which they are given."""
    outcome = Outcome()
    pending: dict[str, deque[EventEntry]] = defaultdict(deque)
    for entry in entries:
        if entry.size > domain.MAX_BYTES:
            message = f"the event has {entry.size} bytes, PutEvents accepts {domain.MAX_BYTES}"
            outcome.refused.append((entry, "EventTooLarge", message))
        else:
            pending[entry.aggregate].append(entry)
    for attempt in range(ATTEMPTS):
        if attempt:
            pause(jitter(0, PAUSE * 2**attempt))
        _attempt(events, pending, outcome)
        if not any(pending.values()):
            break
    outcome.failed = [entry for queue in pending.values() for entry in queue]
    return outcome


def _attempt(events: "EventBridgeClient", pending: dict[str, deque[EventEntry]], outcome: Outcome) -> None:
    """Sends the first entry of each aggregate, then the second, and so on. An aggregate stops at a failed entry."""
    stopped: set[str] = set()
    while first := [queue[0] for aggregate, queue in pending.items() if queue and aggregate not in stopped]:
        for request in domain.requests(first):
            for entry, (code, message) in zip(request, _put(events, request), strict=True):
                if code and code not in PERMANENT:
                    logger.warning("event not accepted", error=code, **entry.log)
                    stopped.add(entry.aggregate)
                    continue
                pending[entry.aggregate].popleft()
                if code:
                    outcome.refused.append((entry, code, message))
                else:
                    outcome.published.append(entry)


def _put(events: "EventBridgeClient", request: Sequence[EventEntry]) -> list[tuple[str | None, str]]:
    """Returns an error code and message per entry. If the whole request fails, all entries have the same."""
    try:
        answer = events.put_events(Entries=[entry.entry for entry in request])
    except (ClientError, BotoCoreError) as error:
        code = error.response["Error"]["Code"] if isinstance(error, ClientError) else type(error).__name__
        return [(f"PutEvents.{code}", str(error))] * len(request)
    return [(result.get("ErrorCode"), result.get("ErrorMessage", "")) for result in answer["Entries"]]
