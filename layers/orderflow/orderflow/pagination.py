"""Pages of lists, and the cursors that connect them."""

import base64
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
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


CURSOR_LIFETIME = timedelta(days=1)
MAX_VALUE_BYTES = 1024
"""Of a sort key, the smaller of the two (DynamoDB developer guide, "Constraints")."""


class InvalidCursor(Exception):
    """A cursor that is not one of this list's, or is too old."""


def encode_cursor(position: dict[str, str], of_list: tuple[str, ...], now: datetime) -> str:
    """A cursor that continues a list.

    Args:
        position: the key of the last entry shown.
        of_list: what makes the list this one: the caller, the filters.
        now: when the page was made.
    """
    content = [position, _fingerprint(of_list), int(now.timestamp())]
    return base64.urlsafe_b64encode(json.dumps(content).encode()).decode().rstrip("=")


def decode_cursor(
    cursor: str, of_list: tuple[str, ...], is_position: Callable[[Mapping[str, str]], bool], now: datetime
) -> dict[str, str]:
    """The position in a cursor.

    The position says only where to go on within the caller's own list; the caller never comes from the cursor, so
    a forged one shows nobody else's entries.

    Args:
        cursor: what the caller sent.
        of_list: as it was encoded with.
        is_position: whether names and values are those of a position in the list.
        now: when it was sent.

    Raises:
        InvalidCursor: saying what is wrong with it.
    """
    try:
        position, fingerprint, made = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        age = now.timestamp() - int(made)
        known = fingerprint == _fingerprint(of_list) and all(map(_fits, position.values())) and is_position(position)
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise InvalidCursor("the cursor is not one of this list's; begin again without one") from error
    if not known:
        raise InvalidCursor("the cursor is not one of this list's; begin again without one")
    if age > CURSOR_LIFETIME.total_seconds():
        raise InvalidCursor("the cursor has expired; begin again without one")
    return dict(position)


def _fits(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value.encode()) <= MAX_VALUE_BYTES


def _fingerprint(of_list: tuple[str, ...]) -> str:
    return hashlib.sha256(json.dumps(of_list).encode()).hexdigest()[:16]
