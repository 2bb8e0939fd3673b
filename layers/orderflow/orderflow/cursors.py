"""Cursors of paged lists: opaque, bound to one caller's list, and good for a day."""

import base64
import hashlib
import json
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

LIFETIME = timedelta(days=1)
MAX_VALUE_BYTES = 1024
"""Of a sort key, the smaller of the two (DynamoDB developer guide, "Constraints")."""


class BadCursor(Exception):
    """A cursor that is not one of this list's, or is too old."""


def encode(position: dict[str, str], of_list: tuple[str, ...], now: datetime) -> str:
    """A cursor that continues a list.

    Args:
        position: the key of the last entry shown.
        of_list: what makes the list this one: the caller, the filters.
        now: when the page was made.
    """
    content = [position, _fingerprint(of_list), int(now.timestamp())]
    return base64.urlsafe_b64encode(json.dumps(content).encode()).decode().rstrip("=")


def decode(
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
        BadCursor: saying what is wrong with it.
    """
    try:
        position, fingerprint, made = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        age = now.timestamp() - int(made)
        known = fingerprint == _fingerprint(of_list) and all(map(_fits, position.values())) and is_position(position)
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise BadCursor("the cursor is not one of this list's; begin again without one") from error
    if not known:
        raise BadCursor("the cursor is not one of this list's; begin again without one")
    if age > LIFETIME.total_seconds():
        raise BadCursor("the cursor has expired; begin again without one")
    return dict(position)


def _fits(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value.encode()) <= MAX_VALUE_BYTES


def _fingerprint(of_list: tuple[str, ...]) -> str:
    return hashlib.sha256(json.dumps(of_list).encode()).hexdigest()[:16]
