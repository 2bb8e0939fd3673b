"""Runs the local runner as a process."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from tests.e2e.conftest import PATIENCE, eventually

ROOT = Path(__file__).parents[2]


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "local", *map(str, arguments)]


def described_by(state: Path) -> int | None:
    """The process that wrote the description, if there is one that can be read."""
    try:
        return int(json.loads((state / "stack.json").read_text())["pid"])
    except (FileNotFoundError, ValueError):
        return None


@contextmanager
def running(template: Path, *more: str, output: IO[str] | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """Starts the runner, and waits until it is ready or has ended. Its state is in the folder of the template.

    Args:
        template: the SAM template.
        more: further arguments.
        output: for its standard output; by default that of the tests.
    """
    state = template.parent / "state"
    process = subprocess.Popen(
        command("run", "--template", template, "--state", state, "--port", "0", "--stop-at-eof", *more),
        cwd=ROOT,
        env={**os.environ, "MY_SECRET": "s3cret"},  # which no function may see
        stdin=subprocess.PIPE,  # the runner does not outlive tests that are killed
        stdout=output,
        start_new_session=True,
    )
    try:
        eventually(lambda: described_by(state) == process.pid or process.poll() is not None)
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=PATIENCE)
