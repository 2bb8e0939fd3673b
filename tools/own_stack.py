"""Starts a stack on this machine that belongs to one command alone, and stops it whatever happens."""

import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NoReturn

from tools.stack import Stack, local_stack

PREPARE = f"{shlex.quote(sys.executable)} -m tools.prepare > {os.devnull}"
"""The runner's `--prepare` for a stack of a program's own: without the text for those who use one by hand."""
START_SECONDS = 300
STOP_SECONDS = 120
STDERR = 2


class StackDidNotStart(Exception):
    """The runner ended or took too long; its own message is on stderr."""


@contextmanager
def local_stack_of_own(*more: str | Path, output: int | IO[str] = STDERR) -> Iterator[Stack]:
    """A seeded stack on free ports, with tokens for both users.

    Args:
        more: further arguments of the runner.
        output: where what the runner has to say goes; why it did not start goes to stderr in any case.

    Raises:
        StackDidNotStart: nothing is left running then.
    """
    with tempfile.TemporaryDirectory(prefix="orderflow-") as folder, _runner(Path(folder), more, output) as process:
        description = Path(folder) / "stack.json"
        _wait_for(description, process)
        yield local_stack(description)


@contextmanager
def _runner(state: Path, more: Iterable[str | Path], output: int | IO[str]) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "local", "run", "--port", "0", "--quiet", "--stop-at-eof"]
    command += ["--parameter", "SenderEmail=shop@example.com", "--parameter", "SalesEmail=sales@example.com"]
    command += map(str, more)
    # Not SIGHUP under nohup, which ignores it on purpose
    caught = [number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, _leave) for number in caught}
    process = subprocess.Popen(
        [*command, "--state", str(state), "--prepare", PREPARE],
        stdin=subprocess.PIPE,  # however this process ends, the kernel closes the pipe, and the runner stops
        stdout=output,
        start_new_session=True,  # Ctrl-C reaches this process alone, which then stops the runner in order
    )
    try:
        yield process
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _stop(process)


def _leave(number: int, _frame: object) -> NoReturn:
    raise SystemExit(128 + number)


def _stop(process: subprocess.Popen[bytes]) -> None:
    try:
        process.communicate(timeout=STOP_SECONDS)  # closes its standard input, on which the runner stops
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _wait_for(description: Path, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not description.exists():
        if process.poll() is not None:
            raise StackDidNotStart(f"the stack ended with code {process.returncode} before it was ready")
        if time.monotonic() > deadline:
            raise StackDidNotStart(f"the stack was not ready after {START_SECONDS} s")
        time.sleep(0.05)
