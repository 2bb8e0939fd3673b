"""Sends entries with PutEvents: only those that failed again, and no event of an aggregate before an earlier one."""

from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError

from event_publisher.domain import Outgoing, requests
from orderflow.observability import logger

if TYPE_CHECKING:
    from mypy_boto3_events.client import EventBridgeClient

ATTEMPTS = 4
PAUSE = 0.1
"""Seconds; the longest pause before retry n is 2^n times as long, 1.4 s for all of them."""

PERMANENT = frozenset({"InvalidArgument", "MalformedDetail"})
"""Error codes of an entry that no retry mends (EventBridge API reference, PutEventsResultEntry)."""


@dataclass
class Outcome:
    """What became of the entries."""

    published: list[Outgoing] = field(default_factory=list)
    failed: list[Outgoing] = field(default_factory=list)
    refused: list[tuple[Outgoing, str, str]] = field(default_factory=list)
    """Never to be published: the entry, the error's code and message."""


def deliver(
    events: "EventBridgeClient",
    entries: Iterable[Outgoing],
    pause: Callable[[float], None],
    jitter: Callable[[float, float], float],
) -> Outcome:
    """Put entries on the bus.

    Args:
        events: the EventBridge client.
        entries: in the order of the stream.
        pause: waits for so many seconds.
        jitter: a random number between its arguments.

    Returns:
        What became of each. What failed has failed at every attempt, or stands behind one that has.
    """
    outcome = Outcome()
    lanes: dict[str, deque[Outgoing]] = defaultdict(deque)
    for entry in entries:
        lanes[entry.stream].append(entry)
    for attempt in range(ATTEMPTS):
        if attempt:
            pause(jitter(0, PAUSE * 2**attempt))
        _attempt(events, lanes, outcome)
        if not any(lanes.values()):
            break
    outcome.failed = [entry for lane in lanes.values() for entry in lane]
    return outcome


def _attempt(events: "EventBridgeClient", lanes: dict[str, deque[Outgoing]], outcome: Outcome) -> None:
    """Send each lane's first entry, then its next, until the lane is empty or an entry of it has failed."""
    open_lanes = {stream for stream, lane in lanes.items() if lane}
    while open_lanes:
        for request in requests([lanes[stream][0] for stream in lanes if stream in open_lanes]):
            for entry, (code, message) in zip(request, _put(events, request), strict=True):
                if code is None:
                    outcome.published.append(entry)
                elif code in PERMANENT:
                    outcome.refused.append((entry, code, message))
                else:
                    logger.warning("event not accepted", error=code, **entry.log)
                    open_lanes.discard(entry.stream)
                    continue
                lanes[entry.stream].popleft()
        open_lanes = {stream for stream in open_lanes if lanes[stream]}


def _put(events: "EventBridgeClient", request: Sequence[Outgoing]) -> list[tuple[str | None, str]]:
    """One PutEvents: an error code and message per entry; if the call fails, the same ones for all."""
    try:
        answer = events.put_events(Entries=[entry.entry for entry in request])
    except ClientError as error:
        code, message = error.response["Error"]["Code"], error.response["Error"]["Message"]
        return [(f"PutEvents.{code}", message)] * len(request)
    except BotoCoreError as error:
        return [(f"PutEvents.{type(error).__name__}", str(error))] * len(request)
    return [(result.get("ErrorCode"), result.get("ErrorMessage", "")) for result in answer["Entries"]]
