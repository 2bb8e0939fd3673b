"""Pages of lists. DynamoDB filters after it has read, so a page of a filtered list may take several reads."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

READS_PER_PAGE = 10
"""A filtered list is read on until its page is full, but not for ever: then a short page has a cursor too."""
ITEMS_PER_FILTERED_READ = 100

Position = Mapping[str, Any]
"""Where a list goes on: the key of the last item that was read."""


@dataclass(frozen=True)
class Page:
    """Part of a list as the API shows it, and where it goes on; None at its end."""

    items: list[dict[str, Any]]
    last: dict[str, str] | None


def read_limit(limit: int, *, filtered: bool) -> int:
    """The `Limit` of one read for a page of `limit` items: DynamoDB counts before it filters."""
    return ITEMS_PER_FILTERED_READ if filtered else limit


def read_page(
    read: Callable[[Position | None], tuple[Iterable[dict[str, Any]], Position | None]],
    start: Position | None,
    limit: int,
    key: Iterable[str],
) -> Page:
    """Read until a page is full, its list at an end, or enough has been read.

    Args:
        read: gives the items behind a position, as they are shown, and the position behind them; None at the end.
        start: where an earlier page ended; None for the beginning.
        limit: the most items to return.
        key: the attributes that make a position, of those that it has.

    Returns:
        The page.
    """
    found: list[dict[str, Any]] = []
    for _ in range(READS_PER_PAGE):
        items, start = read(start)
        found += items
        if len(found) >= limit or start is None:
            break
    last = found[limit - 1] if len(found) > limit else start
    return Page(found[:limit], {name: str(last[name]) for name in key if name in last} if last else None)
