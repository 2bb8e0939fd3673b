"""Redrives many failed events at one request, as long as there is time."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from operator import itemgetter
from typing import Any

from dlq_processor.redrive import Redriver, settle
from dlq_processor.repository import FailedEvents, FailedEventStatus

MAX_CANDIDATES = 1000
"""More could not be redriven anyway before an answer is due."""
ENTRIES_PER_PAGE = 100


@dataclass
class Redriven:
    """What became of the failed events that matched.

    Args:
        resolved: how many consumers have succeeded.
        failed: how many have failed once more.
        not_redrivable: how many events no invocation can mend.
        remaining: whether there was no time for some others.
    """

    resolved: int = 0
    failed: int = 0
    not_redrivable: int = 0
    remaining: bool = False


def redrive_all(
    records: FailedEvents,
    redriver: Redriver,
    statuses: Iterable[FailedEventStatus],
    consumer: str | None,
    has_time: Callable[[], bool],
) -> Redriven:
    """Redrive the failed events that match, each once.

    The one that has waited longest comes first: what fails becomes the youngest, so that the next request begins with
    those that this one did not reach.

    Args:
        records: where they are.
        redriver: invokes the consumers.
        statuses: which of them.
        consumer: whose, or None for all.
        has_time: whether there is enough for one more.
    """
    matching = (entry for status in statuses for entry in _matching(records, status, consumer, has_time))
    candidates = sorted(islice(matching, MAX_CANDIDATES + 1), key=itemgetter("lastFailedAt"))
    redriven = Redriven(remaining=len(candidates) > MAX_CANDIDATES or not has_time())
    for entry in candidates[:MAX_CANDIDATES]:
        if not has_time():
            redriven.remaining = True
            break
        record = records.get(entry["id"])
        if record is None or record.status != entry["status"]:
            continue  # somebody else was quicker
        if not record.redrivable:
            redriven.not_redrivable += 1
        elif settle(records, record, redriver.redrive(record))[1].succeeded:
            redriven.resolved += 1
        else:
            redriven.failed += 1
    return redriven


def _matching(
    records: FailedEvents, status: FailedEventStatus, consumer: str | None, has_time: Callable[[], bool]
) -> Iterator[dict[str, Any]]:
    start: dict[str, str] | None = None
    while has_time():
        page = records.page(status, consumer, ENTRIES_PER_PAGE, start)
        yield from page.items
        start = page.last
        if start is None:
            return
