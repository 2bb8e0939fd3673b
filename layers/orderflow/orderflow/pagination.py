"""Pages of lists, and the cursors that connect them."""

import base64
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

READS_PER_PAGE = 10
"""The most reads for one filtered page. A page that is still short then has a cursor too."""
ITEMS_PER_FILTERED_READ = 100
CURSOR_LIFETIME = timedelta(days=1)
MAX_VALUE_BYTES = 1024
"""The longest sort key, which is shorter than the longest partition key (DynamoDB developer guide, "Constraints")."""

Position = Mapping[str, Any]
"""The key of the last item that was read."""


@dataclass(frozen=True)
class Page:
    """Part of a list as the API shows it, and the position of its end; None at the end of the list."""

    items: list[dict[str, Any]]
    last: dict[str, str] | None


class InvalidCursor(Exception):
    """A cursor of another list, or one that is too old. The text says which."""


def read_limit(limit: int, *, filtered: bool) -> int:
    """Returns the `Limit` of one read for a page of `limit` items: DynamoDB counts before it filters."""
    return ITEMS_PER_FILTERED_READ if filtered else limit


def read_page(
    read: Callable[[Position | None], tuple[Iterable[dict[str, Any]], Position | None]],
    start: Position | None,
    limit: int,
    key: Iterable[str],
) -> Page:
    """Reads until a page is full, the list ends, or READS_PER_PAGE is reached.

    Args:
        read: returns the items after a position, as they are shown, and the position of the last; None at the end.
        start: where an earlier page ended; None for the beginning.
        key: the attributes that make a position, of those that it has.
    """
    found: list[dict[str, Any]] = []
    for _ in range(READS_PER_PAGE):
        items, start = read(start)
        found += items
        if len(found) >= limit or start is None:
            break
    last = found[limit - 1] if len(found) > limit else start
    return Page(found[:limit], {name: str(last[name]) for name in key if name in last} if last else None)


def encode_cursor(position: dict[str, str] | None, of_list: tuple[str, ...], now: datetime) -> str | None:
    """Returns the cursor that continues a list, or None at its end.

    Args:
        of_list: identifies the list: its name, the caller, the filters.
    """
    if position is None:
        return None
    content = [position, _fingerprint(of_list), int(now.timestamp())]
    return base64.urlsafe_b64encode(json.dumps(content).encode()).decode().rstrip("=")


def decode_cursor(
    cursor: str | None, of_list: tuple[str, ...], is_position: Callable[[Mapping[str, str]], bool], now: datetime
) -> dict[str, str] | None:
    """Returns the position in a cursor; None without a cursor, for the beginning of the list.

    The position only says where to continue in the caller's own list. The caller never comes from the cursor, so
    a forged cursor shows no other caller's entries.

    Args:
        of_list: as given to `encode_cursor`.
        is_position: whether names and values are those of a position in the list.

    Raises:
        InvalidCursor: the cursor was not made for this list, or is older than CURSOR_LIFETIME.
    """
    if cursor is None:
        return None
    try:
        position, fingerprint, made = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        expired = now.timestamp() - int(made) > CURSOR_LIFETIME.total_seconds()
        if fingerprint != _fingerprint(of_list) or not all(map(_fits, position.values())) or not is_position(position):
            raise ValueError("another list's")
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise InvalidCursor("the cursor is not one of this list's; begin again without one") from error
    if expired:
        raise InvalidCursor("the cursor has expired; begin again without one")
    return dict(position)


def _fits(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value.encode()) <= MAX_VALUE_BYTES


def _fingerprint(of_list: tuple[str, ...]) -> str:
    return hashlib.sha256(json.dumps(of_list).encode()).hexdigest()[:16]
