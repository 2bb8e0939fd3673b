"""The runner's output: one line per request, event, invocation and failure, for a reader or as JSON. Thread-safe."""

import json
import logging
import os
import re
import sys
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from localaws.eventbridge import Accepted
    from localaws.http_api import RequestLine

Part = str | tuple[str, str]
"""A part of a line: a text, or a text and its style."""
STYLES = {"dim": "2", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}
"""Parameters of the terminal's control sequence Select Graphic Rendition (ECMA-48)."""
SHOWN_VALUES = 3


class Console:
    """Prints lines, with colours if the output is a terminal and NO_COLOR is not set (https://no-color.org).

    Control characters are escaped: a request's path, an event's detail-type or an error message is untrusted and could
    otherwise move the cursor, rename the window or overwrite earlier lines.

    Args:
        quiet: print notices and failures only.
        highlight: name of a key. A line ends with the values of this key in the payload, such as order IDs.
        as_json: print JSON objects, with the fields `time` (RFC 3339), `kind` (ready, notice, request, event, invoke or
            failure), the fields of the kind, and `highlight` with all values of the key.
    """

    def __init__(self, *, quiet: bool = False, highlight: str | None = None, as_json: bool = False) -> None:
        self.muted = False
        """Whether to print nothing, because the stack is stopping."""
        self._quiet = quiet
        self._highlight = highlight
        self._as_json = as_json
        self._colours = sys.stdout.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"

    def request(self, line: "RequestLine") -> None:
        """Print an HTTP request."""
        colour = "green" if line.status < 400 else "yellow" if line.status < 500 else "red"
        why = f" ({line.reason})" if line.reason else ""
        self._print(
            {"kind": "request", "method": line.method, "path": line.path, "status": line.status}
            | {"durationMs": _milliseconds(line.duration), "reason": line.reason},
            f"request  {line.method} {line.path} ",
            (str(line.status), colour),
            why,
            (f" {_milliseconds(line.duration):.0f} ms", "dim"),
            payload=line.body,
        )

    def event(self, accepted: "Accepted") -> None:
        """Print an event on a bus, with the rules that it matched."""
        event, rules = accepted.event, [rule.name for rule in accepted.rules]
        self._print(
            {"kind": "event", "bus": accepted.bus, "id": event.get("id"), "source": event.get("source")}
            | {"detailType": event["detail-type"], "rules": rules},
            "event    ",
            (event["detail-type"], "cyan"),
            f" → {', '.join(rules) or 'no rule'}",
            payload=event,
        )

    def invocation(self, function: str, duration: float, payload: bytes = b"") -> None:
        """Print a successful invocation; `duration` in seconds, `payload` of the request."""
        self._print(
            {"kind": "invoke", "function": function, "durationMs": _milliseconds(duration)},
            f"invoke   {function} ",
            (f"{_milliseconds(duration):.0f} ms", "dim"),
            payload=payload,
        )

    def failure(self, text: str, payload: bytes = b"") -> None:
        """Print a failure with its reason; `payload` of the invocation that failed, if any."""
        self._print({"kind": "failure", "text": text}, ("failure", "red"), f"  {text}", payload=payload)

    def notice(self, text: str) -> None:
        """Print a note, for example at the start."""
        self._print({"kind": "notice", "text": text}, text)

    def ready(self, stack: Mapping[str, Any], state: Path, seconds: float, prepared: str) -> None:
        """Print what a user of the running stack has to know.

        Args:
            stack: description of the stack.
            state: folder of the logs and the e-mails.
            seconds: duration of the start.
            prepared: what the preparation has printed, such as an example of a request.
        """
        if self._as_json:
            names = ("apiUrl", "awsEndpoint", "region")
            facts = {"state": str(state), "seconds": round(seconds, 1), "prepared": prepared}
            self._print({"kind": "ready", **{name: stack[name] for name in names}, **facts})
            return
        self.notice(f"started in {seconds:.1f} s")
        lines = {
            "HTTP API": stack["apiUrl"],
            "AWS": f"{stack['awsEndpoint']} ({stack['region']}, any credentials)",
            "stack": f"{state / 'stack.json'}: outputs, and names of functions and tables",
            "logs": f"{state / 'logs'}/, a file per function",
            "e-mails": f"{state / 'mail'}/",
            "code": "a saved file is loaded before the next invocation",
            "data": "in memory: lost when the stack stops",
            "stop": "Ctrl-C",
        }
        shown = [] if self._quiet else ["", *(f"  {name:9} {text}" for name, text in lines.items() if text), ""]
        for line in (*shown, *prepared.rstrip().splitlines()):
            self._write(line)

    def _print(self, record: dict[str, Any], *parts: Part, payload: "bytes | dict[str, Any]" = b"") -> None:
        if self.muted or (self._quiet and record["kind"] in ("request", "event", "invoke")):
            return
        values = values_of(self._highlight, payload) if self._highlight and payload else []
        now = datetime.now().astimezone()
        if self._as_json:
            record |= {"highlight": values} if self._highlight else {}
            self._write(json.dumps({"time": now.isoformat(timespec="milliseconds"), **record}))
            return
        if values:
            more = f" +{len(values) - SHOWN_VALUES}" if len(values) > SHOWN_VALUES else ""
            parts = (*parts, (f"  {' '.join(values[:SHOWN_VALUES])}{more}", "dim"))
        moment = now.strftime("%H:%M:%S.%f")[:-3]
        self._write("".join(map(self._styled, ((moment, "dim"), " ", *parts))))

    def _styled(self, part: Part) -> str:
        text, style = part if isinstance(part, tuple) else (part, None)
        return f"\x1b[{STYLES[style]}m{_escape(text)}\x1b[0m" if style and self._colours else _escape(text)

    def _write(self, line: str) -> None:
        try:
            sys.stdout.write(line + "\n")
            sys.stdout.flush()
        except OSError:  # the terminal is closed: continue without output
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class LogLines(logging.Handler):
    """Prints warnings and errors of Python's loggers. A traceback is printed line by line."""

    def __init__(self, console: Console) -> None:
        super().__init__(logging.WARNING)
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record."""
        for line in self.format(record).splitlines():
            self._console.failure(line)


def values_of(key: str, payload: "bytes | dict[str, Any]") -> list[str]:
    """Returns the different values of a key anywhere in a payload, in their order.

    Finds strings and numbers, plain or as DynamoDB attributes (`{"S": "…"}`), also in JSON texts inside the payload,
    such as the body of an SQS record. The text is searched and not parsed, because this happens for every line.

    Args:
        key: name of the key.
        payload: JSON.
    """
    text = json.dumps(payload) if isinstance(payload, dict) else payload.decode(errors="replace")
    found: Iterable[tuple[str, str]] = re.findall(
        rf'"{re.escape(key)}\\*"\s*:\s*(?:\{{\s*\\*"[SN]\\*"\s*:\s*)?(?:\\*"([^"\\]+)|(-?[0-9][0-9.eE+-]*))', text
    )
    return list(dict.fromkeys(quoted or number for quoted, number in found))


def _escape(text: str) -> str:
    """Returns the text with each non-printable character as a backslash escape, such as `\\x1b`."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def _milliseconds(duration: float) -> float:
    return round(duration * 1000, 1)
