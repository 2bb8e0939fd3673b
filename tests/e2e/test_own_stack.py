"""A stack that a command starts for itself ends with the command. Local only."""

import os
import signal
import subprocess
import sys
from contextlib import suppress

import pytest

from localaws.tests.runner import ROOT
from localaws.tests.test_commands import alive, children
from tests.e2e.conftest import eventually

OWN_STACK = """
import time
from tools.own_stack import local_stack_of_own
with local_stack_of_own():
    print("ready", flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGHUP, signal.SIGTERM])
def test_the_stack_of_a_program_ends_with_the_program(end: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", OWN_STACK], cwd=ROOT, stdout=subprocess.PIPE, start_new_session=True
    ) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == b"ready\n"
        (runner,) = children(program.pid)
        functions = children(runner)
        assert functions
        try:
            program.send_signal(end)

            program.wait(60)
            eventually(lambda: not any(alive(pid) for pid in (runner, *functions)))
        finally:
            with suppress(ProcessLookupError):
                os.kill(runner, signal.SIGKILL)
