"""The runner's command line: output, files and processes when it starts, fails and stops. Local only."""

import fcntl
import json
import os
import pty
import socket
import stat
import subprocess
import termios
from pathlib import Path

import pytest

from localaws.tests.runner import ROOT, command, described_by, running
from localaws.tests.support import PATIENCE, wait_until

FUNCTION = """
Transform: AWS::Serverless-2016-10-31
Resources:
  EchoFunction:
    Type: AWS::Serverless::Function
    Properties:
      CodeUri: {code}
      Handler: {handler}
      Runtime: python3.13
      Timeout: 60
      Events:
        Get:
          Type: HttpApi
          Properties: {{Method: GET, Path: /}}
"""
ECHO = """
import os

def handler(event, context):
    if event.get("fail"):
        raise ValueError("on request")
    return {"event": event, "secret": os.environ.get("MY_SECRET")}
"""

BAD_RULE = """
Resources:
  Rule:
    Type: AWS::Events::Rule
    Properties:
      Name: bad-rule
      EventPattern: {source: [{prefix: 1}]}
"""


@pytest.fixture
def template(tmp_path: Path) -> Path:
    """A template with one function that returns its event."""
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "echo.py").write_text(ECHO)
    path = tmp_path / "template.yaml"
    path.write_text(FUNCTION.format(code="code/", handler="echo.handler"))
    return path


def run(*arguments: str | Path, text: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments), cwd=ROOT, text=True, input=text, capture_output=True, timeout=PATIENCE)


def children(pid: int) -> list[int]:
    """The processes that a process has started."""
    found = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True).stdout
    return [int(line) for line in found.split()]


def alive(pid: int) -> bool:
    """Whether a process runs. A zombie does not."""
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout.strip()
    return bool(state) and not state.startswith("Z")


def test_ctrl_c_stops_everything_and_leaves_no_process(template: Path) -> None:
    with running(template) as process:
        functions = children(process.pid)
        assert functions
        assert all(alive(pid) for pid in functions)
    assert process.returncode == 0
    assert not any(alive(pid) for pid in functions)
    assert not (template.parent / "state" / "stack.json").exists()


def test_the_functions_of_a_killed_runner_end(template: Path) -> None:
    with running(template) as process:
        functions = children(process.pid)
        process.kill()
        wait_until(lambda: not any(alive(pid) for pid in functions))


def test_closing_the_terminal_stops_everything(template: Path) -> None:
    state = template.parent / "state"
    terminal, end = pty.openpty()
    process = subprocess.Popen(
        command("run", "--template", template, "--state", state, "--port", "0"),
        cwd=ROOT,
        stdin=end,
        stdout=end,
        stderr=end,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    os.close(end)
    try:
        wait_until(lambda: described_by(state) == process.pid)
        functions = children(process.pid)
        assert functions

        os.close(terminal)

        assert process.wait(60) == 0
        assert not any(alive(pid) for pid in functions)
        assert not (state / "stack.json").exists()
    finally:
        process.kill()
        process.wait()


def test_invoke_runs_a_function_with_an_event(template: Path) -> None:
    state = template.parent / "state"
    event = template.parent / "event.json"
    event.write_text('{"answer": 42}')
    with running(template):
        result = run("invoke", "EchoFunction", "-e", event, "--state", state)
        assert (result.returncode, json.loads(result.stdout)) == (0, {"event": {"answer": 42}, "secret": None})
        failed = run("invoke", "EchoFunction", "-e", "-", "--state", state, text='{"fail": true}')
        assert failed.returncode == 1
        assert json.loads(failed.stdout)["errorMessage"] == "on request"
        unknown = run("invoke", "OtherFunction", "-e", event, "--state", state)
        assert unknown.returncode == 1
        assert unknown.stderr == "error: the template has no function OtherFunction; it has EchoFunction\n"


def test_invoke_reports_that_no_stack_is_running(tmp_path: Path) -> None:
    result = run("invoke", "EchoFunction", "-e", "-", "--state", tmp_path, text="{}")
    assert result.returncode == 1
    assert result.stderr.startswith("error: no running stack")


def refusal(template: Path, *more: str) -> str:
    """The error message of a start that fails, one line."""
    state = template.parent / "state"
    result = run("run", "--template", template, "--state", state, *more)
    assert result.returncode == 1
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    assert not (state / "stack.json").exists()
    return lines[0]


def test_the_error_for_a_port_in_use_names_it(template: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        assert f"port {port} is in use" in refusal(template, "--port", port)


def test_a_second_stack_in_the_same_folder_is_refused_and_the_first_keeps_running(template: Path) -> None:
    state = template.parent / "state"
    with running(template):
        result = run("run", "--template", template, "--state", state, "--port", "0")
        assert result.returncode == 1
        assert "a stack runs in" in result.stderr
        again = run("invoke", "EchoFunction", "-e", "-", "--state", state, text="{}")
        assert again.returncode == 0


@pytest.mark.parametrize("left", ['{{"pid": {pid}, "apiUrl": "http://127.0.0.1:3000"}}', '{{"pid": {pid}', ""])
def test_an_old_description_is_replaced_even_if_its_process_id_is_in_use_again(template: Path, left: str) -> None:
    state = template.parent / "state"
    state.mkdir()
    (state / "stack.json").write_text(left.format(pid=os.getpid()))
    output = template.parent / "output"

    with output.open("w") as lines, running(template, output=lines) as process:
        assert described_by(state) == process.pid

    result = [line for line in output.read_text().splitlines() if "stack.json" in line]
    assert [line.partition(" ")[2] for line in result] == [
        f"{state}/stack.json is left over from a run that did not stop normally; it is replaced"
    ]


def test_a_killed_stack_does_not_keep_the_next_one_from_starting(template: Path) -> None:
    with running(template) as killed:
        killed.kill()
        killed.wait()
    with running(template) as process:
        assert process.poll() is None


@pytest.mark.parametrize(
    ("text", "reason"), [("{", "is not valid JSON"), ("[]", "does not describe a stack"), ("{}", "does not describe")]
)
def test_the_error_for_an_unreadable_description_names_it(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "stack.json").write_text(text)
    result = run("invoke", "EchoFunction", "-e", "-", "--state", tmp_path, text="{}")
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"error: {tmp_path}/stack.json {reason}")


def test_the_files_of_a_run_are_readable_by_its_user_only(template: Path) -> None:
    state = template.parent / "state"
    before = os.umask(0)
    try:
        with running(template, "--prepare", "touch $STACK_FILE"):
            modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (state, *state.rglob("*"))}
    finally:
        os.umask(before)
    assert modes.keys() >= {"state", "stack.json", "mail", "EchoFunction.log"}
    assert not {name for name, mode in modes.items() if mode & 0o077}
    assert modes["stack.json"] == 0o600


def test_the_error_for_a_state_folder_that_cannot_be_created_names_it(template: Path) -> None:
    result = run("run", "--template", template, "--state", template, "--port", "0")
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"error: --state {template}: ")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("Resources: [", "template.yaml"),
        ("Resources:\n  Thing:\n    Type: [AWS::No::Such]\n", "Thing"),
        ("Resources:\n  Q:\n    Type: AWS::SQS::Queue\n    Properties: {QueueName: !Ref Missing}\n", "Missing"),
        (BAD_RULE, "bad-rule"),
    ],
)
def test_the_error_for_an_invalid_template_names_the_cause(template: Path, text: str, named: str) -> None:
    template.write_text(text)
    assert named in refusal(template, "--port", "0")


def test_the_error_for_a_missing_template_names_it(tmp_path: Path) -> None:
    assert "nothing.yaml" in refusal(tmp_path / "nothing.yaml", "--port", "0")


def test_a_preparation_that_fails_ends_the_run(template: Path) -> None:
    assert "`false` ended with exit code 1" in refusal(template, "--port", "0", "--prepare", "false")
