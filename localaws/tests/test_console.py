"""The runner's output escapes control characters in untrusted data."""

import logging
import os
import subprocess
import sys

import pytest

from localaws.console import Console, LogLines
from localaws.eventbridge import Accepted

ATTACK = "/\x1b[2J\x1b]0;owned\x07\r\n\x9b31m[red]\u202e"
HARMLESS = r"/\x1b[2J\x1b]0;owned\x07\r\n\x9b31m[red]\u202e"


def printed(capsys: pytest.CaptureFixture[str]) -> str:
    """Returns the only printed line, without its time."""
    (line,) = capsys.readouterr().out.split("\n")[:-1]
    return line.partition(" ")[2]


def test_a_request_is_printed_with_its_control_characters_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    Console().request("G\x1bT", ATTACK, 404, 0.0123)

    assert printed(capsys) == rf"request  G\x1bT {HARMLESS} 404 12 ms"


def test_an_event_is_printed_with_its_control_characters_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    Console().event(Accepted("bus", {"detail-type": ATTACK}, (), None, "", forwarded=False))

    assert printed(capsys) == f"event    {HARMLESS} → no rule"


def test_a_failure_is_printed_with_its_control_characters_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    Console(quiet=True).failure(ATTACK)

    assert printed(capsys) == f"failure  {HARMLESS}"


def test_a_logged_traceback_is_printed_line_by_line_with_its_control_characters_escaped(
    capsys: pytest.CaptureFixture[str],
) -> None:
    logger = logging.Logger("test")
    logger.addHandler(LogLines(Console()))
    try:
        raise ValueError("\x1b[2J")
    except ValueError:
        logger.exception("failed for %s", "\x1b")

    lines = capsys.readouterr().out.split("\n")
    assert lines[0].endswith(r"failure  failed for \x1b")
    assert lines[-2].endswith(r"failure  ValueError: \x1b[2J")
    assert "\x1b" not in "".join(lines)


def test_the_runner_continues_after_its_output_is_closed() -> None:
    program = (
        "import sys; from localaws.console import Console\n"
        "console = Console()\n"
        "sys.stdin.read()\n"
        "for _ in range(3): console.notice('x')\n"
        "print('went on', file=sys.stderr)\n"
    )
    reader, writer = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=writer, stderr=subprocess.PIPE, text=True
    )
    os.close(writer)
    os.close(reader)

    _, errors = process.communicate("", timeout=60)

    assert (process.returncode, errors) == (0, "went on\n")
