"""Identifiers: ULIDs, which sort by the time they were made."""

import hashlib
import secrets
from datetime import datetime

from ulid import ULID


def new_ulid(now: datetime) -> str:
    """A ULID of this millisecond and 80 random bits.

    The bits are the operating system's each time: a generator that keeps state in the process would repeat itself
    in every copy of a restored snapshot.

    Args:
        now: an aware time.
    """
    milliseconds = int(now.timestamp() * 1000)
    return str(ULID.from_bytes(milliseconds.to_bytes(6, "big") + secrets.token_bytes(10)))


def derived_ulid(*parts: str) -> str:
    """The same ULID for the same parts, always. It carries no time.

    Args:
        parts: what the identifier stands for; ("a", "bc") and ("ab", "c") give different ones.
    """
    digest = hashlib.sha256()
    for part in parts:
        encoded = part.encode()
        digest.update(len(encoded).to_bytes(8, "big") + encoded)
    return str(ULID.from_bytes(digest.digest()[:16]))
