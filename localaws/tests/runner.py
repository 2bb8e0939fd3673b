"""Runs the local runner as a process."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import boto3
from botocore.config import Config

from localaws.tests.support import PATIENCE, wait_until

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class RunningStack:
    """A running stack, as stack.json describes it."""

    api_url: str
    outputs: dict[str, str]
    functions: dict[str, str]
    endpoint: str

    def client(self, service: str) -> Any:
        """Returns a boto3 client of the stack. It does not retry."""
        return boto3.client(  # type: ignore[call-overload]
            service,
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id="local",
            aws_secret_access_key="local",
            config=Config(retries={"total_max_attempts": 1}, account_id_endpoint_mode="disabled"),
        )


def read_stack(state: Path) -> RunningStack:
    """Returns the stack that runs with a state folder."""
    found = json.loads((state / "stack.json").read_text())
    return RunningStack(found["apiUrl"], found["outputs"], found["functions"], found["awsEndpoint"])


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "localaws", *map(str, arguments)]


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
        wait_until(lambda: described_by(state) == process.pid or process.poll() is not None)
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=PATIENCE)
