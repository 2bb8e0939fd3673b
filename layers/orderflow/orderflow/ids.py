"""ULIDs: identifiers that sort by their time of creation."""

import hashlib
import secrets
from datetime import datetime

from ulid import ULID


def new_ulid(now: datetime) -> str:
    """Returns a ULID of this millisecond and 80 random bits.

    The operating system provides the bits each time: a generator with state in the process would repeat itself in
    every environment that SnapStart restores from the same snapshot.
    """
    milliseconds = int(now.timestamp() * 1000)
    return str(ULID.from_bytes(milliseconds.to_bytes(6, "big") + secrets.token_bytes(10)))


def derived_ulid(*parts: str) -> str:
    """Returns a ULID that depends on nothing but its parts. It contains no time.

    Args:
        parts: the boundaries count; ("a", "bc") and ("ab", "c") give different ULIDs.
    """
    digest = hashlib.sha256()
    for part in parts:
        encoded = part.encode()
        digest.update(len(encoded).to_bytes(8, "big") + encoded)
    return str(ULID.from_bytes(digest.digest()[:16]))
