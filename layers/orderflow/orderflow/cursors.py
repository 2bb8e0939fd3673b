"""Cursors of paged lists: opaque, bound to one caller's list, and good for a day."""

import base64
import binascii
import hashlib
import json
from datetime import datetime, timedelta
from typing import Any

LIFETIME = timedelta(days=1)


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


def decode(cursor: str, of_list: tuple[str, ...], now: datetime) -> dict[str, str]:
    """The position in a cursor.

    The position says only where to go on within the caller's own list; the caller never comes from the cursor, so
    a forged one shows nobody else's entries.

    Raises:
        BadCursor: saying what is wrong with it.
    """
    try:
        position, fingerprint, made = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        age = now.timestamp() - int(made)
    except (binascii.Error, ValueError, TypeError) as error:
        raise BadCursor("the cursor is not one that this API gave out") from error
    if not _is_position(position):
        raise BadCursor("the cursor is not one that this API gave out")
    if fingerprint != _fingerprint(of_list):
        raise BadCursor("the cursor belongs to another list; begin again without one")
    if age > LIFETIME.total_seconds():
        raise BadCursor("the cursor has expired; begin again without one")
    return {str(name): str(value) for name, value in position.items()}


def _is_position(position: Any) -> bool:
    return isinstance(position, dict) and all(isinstance(value, str) and value for value in position.values())


def _fingerprint(of_list: tuple[str, ...]) -> str:
    return hashlib.sha256(json.dumps(of_list).encode()).hexdigest()[:16]
