"""Starts a temporary local stack for one command, and stops it when the command ends for any reason."""

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

from tools.errors import CommandError
from tools.stack import Stack, local_stack

PREPARE = f"{shlex.quote(sys.executable)} -m tools.prepare > {os.devnull}"
"""The runner's `--prepare` for a temporary stack, without the printed instructions."""
START_SECONDS = 300
STOP_SECONDS = 120
STDERR = 2


class StackDidNotStart(CommandError):
    """The runner ended or took too long. Its message is on stderr."""


@contextmanager
def local_stack_of_own(*more: str | Path, output: int | IO[str] = STDERR) -> Iterator[Stack]:
    """Provides a seeded stack on free ports, with tokens for both test users.

    Args:
        more: additional arguments of the runner.
        output: receives the runner's output; the reason of a failed start always goes to stderr.

    Raises:
        StackDidNotStart: no process is left running.
    """
    with tempfile.TemporaryDirectory(prefix="orderflow-") as folder, _runner(Path(folder), more, output) as process:
        description = Path(folder) / "stack.json"
        _wait_for(description, process)
        yield local_stack(description)


@contextmanager
def _runner(state: Path, more: Iterable[str | Path], output: int | IO[str]) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "localaws", "run", "--port", "0", "--quiet", "--stop-at-eof"]
    command += ["--stack-name", "orderflow"]
    command += ["--parameter", "SenderEmail=shop@example.com", "--parameter", "SalesEmail=sales@example.com"]
    command += map(str, more)
    # nohup ignores SIGHUP on purpose, so it stays ignored
    caught = [number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, _leave) for number in caught}
    process = subprocess.Popen(
        [*command, "--state", str(state), "--prepare", PREPARE],
        stdin=subprocess.PIPE,  # the kernel closes the pipe when this process ends, and the runner stops
        stdout=output,
        start_new_session=True,  # Ctrl-C reaches only this process, which then stops the runner
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
        process.communicate(timeout=STOP_SECONDS)  # closes the standard input, so the runner stops
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
