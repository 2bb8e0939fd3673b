"""The runner's output: one readable line per request, event, invocation and failure. Thread-safe."""

import logging
import os
import sys
from datetime import datetime

from rich.console import Console as RichConsole
from rich.text import Text

from localaws.eventbridge import Accepted

Part = str | tuple[str, str]
"""A part of a line: a text, or a text and its style."""


class Console:
    """Prints lines, with colours if the output is a terminal.

    Control characters are escaped: a request's path, an event's detail-type or an error message is untrusted and could
    otherwise move the cursor, rename the window or overwrite earlier lines.

    Args:
        quiet: print notices and failures only.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self._out = _Terminal(highlight=False, soft_wrap=True)
        self._quiet = quiet

    def request(self, method: str, path: str, status: int, duration: float) -> None:
        """Print an HTTP request; `duration` in seconds."""
        colour = "green" if status < 400 else "yellow" if status < 500 else "red"
        self._line("request", f"{method} {path} ", (str(status), colour), " ", _milliseconds(duration))

    def event(self, accepted: Accepted) -> None:
        """Print an event on a bus, with the rules that it matched."""
        rules = ", ".join(rule.name for rule in accepted.rules) or "no rule"
        self._line("event", (accepted.event["detail-type"], "cyan"), f" → {rules}")

    def invocation(self, function: str, duration: float) -> None:
        """Print a successful invocation; `duration` in seconds."""
        self._line("invoke", f"{function} ", _milliseconds(duration))

    def failure(self, text: str) -> None:
        """Print a failure with its reason."""
        self._write(("failure", "red"), f"  {text}")

    def notice(self, text: str) -> None:
        """Print a note, for example at the start."""
        self._write(text)

    def _line(self, kind: str, *parts: Part) -> None:
        if not self._quiet:
            self._write(f"{kind:8} ", *parts)

    def _write(self, *parts: Part) -> None:
        moment = datetime.now().astimezone().strftime("%H:%M:%S.%f")[:-3]
        # Text, because rich would read a `[red]` in untrusted data as markup
        line = Text.assemble((moment, "dim"), " ", *map(_escaped, parts))
        try:
            self._out.print(line)
            sys.stdout.flush()
        except OSError:
            self._out.on_broken_pipe()


class LogLines(logging.Handler):
    """Prints warnings and errors of Python's loggers. A traceback is printed line by line."""

    def __init__(self, console: Console) -> None:
        super().__init__(logging.WARNING)
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record."""
        for line in self.format(record).splitlines():
            self._console.failure(line)


class _Terminal(RichConsole):
    def on_broken_pipe(self) -> None:
        """Continues without output after the terminal is closed. Rich would end the thread that printed."""
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _escaped(part: Part) -> Part:
    if isinstance(part, tuple):
        return _escape(part[0]), part[1]
    return _escape(part)


def _escape(text: str) -> str:
    """Returns the text with each non-printable character as a backslash escape, such as `\\x1b`."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def _milliseconds(duration: float) -> Part:
    return f"{duration * 1000:.0f} ms", "dim"
