"""The runner's readable lines: one per request, event, invocation and failure. Safe for threads."""

import sys
from datetime import datetime

from rich.console import Console as RichConsole
from rich.markup import escape

from local.bus import Accepted


class Console:
    """Prints to the terminal; colours only where it is one.

    Args:
        quiet: leave out everything but notices and failures.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self._out = RichConsole(highlight=False, soft_wrap=True)
        self._quiet = quiet

    def request(self, method: str, path: str, status: int, duration: float) -> None:
        """One HTTP request; `duration` in seconds."""
        colour = "green" if status < 400 else "yellow" if status < 500 else "red"
        self._line("request", f"{method} {escape(path)} [{colour}]{status}[/] {_milliseconds(duration)}")

    def event(self, accepted: Accepted) -> None:
        """One event on a bus, with the rules that took it."""
        rules = ", ".join(rule.name for rule in accepted.rules) or "no rule"
        self._line("event", f"[cyan]{escape(accepted.event['detail-type'])}[/] → {escape(rules)}")

    def invocation(self, function: str, duration: float) -> None:
        """One successful invocation; `duration` in seconds."""
        self._line("invoke", f"{function} {_milliseconds(duration)}")

    def failure(self, text: str) -> None:
        """Something that went wrong, with its reason."""
        self._write(f"[red]failure[/]  {escape(text)}")

    def notice(self, text: str) -> None:
        """Something to know at the start."""
        self._write(escape(text))

    def _line(self, kind: str, text: str) -> None:
        if not self._quiet:
            self._write(f"{kind:8} {text}")

    def _write(self, text: str) -> None:
        moment = datetime.now().astimezone().strftime("%H:%M:%S.%f")[:-3]
        self._out.print(f"[dim]{moment}[/] {text}")
        sys.stdout.flush()


def _milliseconds(duration: float) -> str:
    return f"[dim]{duration * 1000:.0f} ms[/]"
