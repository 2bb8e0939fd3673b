"""What the commands' arguments have in common."""

import argparse
from datetime import datetime
from typing import NoReturn


class Parser(argparse.ArgumentParser):
    """Says in one line what is wrong."""

    def error(self, message: str) -> NoReturn:
        self.exit(1, f"error: {message}\n")


def moment(text: str) -> datetime:
    """A time of RFC 3339, which says its offset from UTC.

    Raises:
        ArgumentTypeError: it is none.
    """
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time like 2026-11-21T18:36:00Z") from error
    if found.tzinfo is None:
        raise argparse.ArgumentTypeError(f"{text!r} lacks its offset from UTC, such as the Z in 2026-11-21T18:36:00Z")
    return found
