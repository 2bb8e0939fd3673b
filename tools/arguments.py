"""Parses the arguments of the commands."""

import argparse
import os
import re
from datetime import datetime
from typing import NoReturn


class Parser(argparse.ArgumentParser):
    """Reports an invalid argument in one line.

    Under `make`, which sets MAKELEVEL, the line names the variable of the Makefile (`FROM=`) instead of the option
    (`--from`). Each option has the name of its variable in lower case.
    """

    def error(self, message: str) -> NoReturn:
        if "MAKELEVEL" in os.environ:
            message = re.sub(r"--([a-z]+)", lambda option: f"{option[1].upper()}=", message)
        self.exit(1, f"error: {message}\n")

    def add_stack(self) -> None:
        """Adds `--stack`, the argument of `tools.stack.find`."""
        self.add_argument("--stack", help="name of a deployed stack; default: the local stack")


def moment(text: str) -> datetime:
    """Parses an RFC 3339 time with an offset from UTC.

    Raises:
        ArgumentTypeError: the text is not such a time.
    """
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time like 2026-11-21T18:36:00Z") from error
    if found.tzinfo is None:
        raise argparse.ArgumentTypeError(f"{text!r} lacks its offset from UTC, such as the Z in 2026-11-21T18:36:00Z")
    return found
