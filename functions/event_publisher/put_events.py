"""Sends entries with PutEvents: retries only those that failed, and keeps the order of each aggregate's events."""

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
    """The result for each entry.

    Args:
        failed: entries that failed at each attempt, and entries behind them.
        refused: entries that can never be published, with error code and message.
    """

    published: list[EventEntry] = field(default_factory=list)
    failed: list[EventEntry] = field(default_factory=list)
    refused: list[tuple[EventEntry, str, str]] = field(default_factory=list)


def deliver(
    events: "EventBridgeClient",
    entries: Iterable[EventEntry],
    pause: Callable[[float], None],
    jitter: Callable[[float, float], float],
) -> Outcome:
    """Puts entries on the bus.

    Args:
        entries: in the order in which their events were stored.
        pause: waits for a number of seconds.
        jitter: returns a random number between its arguments.
    """
    outcome = Outcome()
    pending: dict[str, deque[EventEntry]] = defaultdict(deque)
    for entry in entries:
        if entry.size > domain.MAX_BYTES:
            reason = f"the event has {entry.size} bytes, PutEvents accepts {domain.MAX_BYTES}"
            outcome.refused.append((entry, "EventTooLarge", reason))
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
    ready = {aggregate for aggregate, queue in pending.items() if queue}
    while ready:
        for request in domain.requests([pending[aggregate][0] for aggregate in pending if aggregate in ready]):
            for entry, (code, message) in zip(request, _put(events, request), strict=True):
                if code is None:
                    outcome.published.append(entry)
                elif code in PERMANENT:
                    outcome.refused.append((entry, code, message))
                else:
                    logger.warning("event not accepted", error=code, **entry.log)
                    ready.discard(entry.aggregate)
                    continue
                pending[entry.aggregate].popleft()
        ready = {aggregate for aggregate in ready if pending[aggregate]}


def _put(events: "EventBridgeClient", request: Sequence[EventEntry]) -> list[tuple[str | None, str]]:
    """Returns an error code and message per entry. If the whole request fails, all entries have the same."""
    try:
        answer = events.put_events(Entries=[entry.entry for entry in request])
    except ClientError as error:
        code, message = error.response["Error"]["Code"], error.response["Error"]["Message"]
        return [(f"PutEvents.{code}", message)] * len(request)
    except BotoCoreError as error:
        return [(f"PutEvents.{type(error).__name__}", str(error))] * len(request)
    return [(result.get("ErrorCode"), result.get("ErrorMessage", "")) for result in answer["Entries"]]
