"""The runner as a program: what it prints and leaves behind when it starts, fails and stops. Local only."""

import json
import socket
import subprocess
from pathlib import Path

import pytest

from tests.e2e.conftest import PATIENCE, eventually
from tests.e2e.runner import ROOT, command, running

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
        raise ValueError("told to")
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
    """A template with one function that answers what it is sent."""
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "echo.py").write_text(ECHO)
    path = tmp_path / "template.yaml"
    path.write_text(FUNCTION.format(code="code/", handler="echo.handler"))
    return path


def run(*arguments: str | Path, text: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments), cwd=ROOT, text=True, input=text, capture_output=True, timeout=PATIENCE)


def children(process: subprocess.Popen[bytes]) -> list[int]:
    found = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True).stdout
    return [int(line) for line in found.split()]


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and that nobody has asked about does not."""
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout.strip()
    return bool(state) and not state.startswith("Z")


def test_ctrl_c_stops_everything_and_leaves_no_process(template: Path) -> None:
    with running(template) as process:
        functions = children(process)
        assert functions
        assert all(alive(pid) for pid in functions)
    assert process.returncode == 0
    assert not any(alive(pid) for pid in functions)
    assert not (template.parent / "state" / "stack.json").exists()


def test_functions_of_a_killed_runner_end_too(template: Path) -> None:
    with running(template) as process:
        functions = children(process)
        process.kill()
        eventually(lambda: not any(alive(pid) for pid in functions))


def test_one_function_is_run_with_one_event(template: Path) -> None:
    state = template.parent / "state"
    event = template.parent / "event.json"
    event.write_text('{"answer": 42}')
    with running(template):
        told = run("invoke", "EchoFunction", "-e", event, "--state", state)
        assert (told.returncode, json.loads(told.stdout)) == (0, {"event": {"answer": 42}, "secret": None})
        failed = run("invoke", "EchoFunction", "-e", "-", "--state", state, text='{"fail": true}')
        assert failed.returncode == 1
        assert json.loads(failed.stdout)["errorMessage"] == "told to"
        unknown = run("invoke", "OtherFunction", "-e", event, "--state", state)
        assert unknown.returncode == 1
        assert unknown.stderr == "error: the template has no function OtherFunction; it has EchoFunction\n"


def test_invoke_says_that_nothing_is_running(tmp_path: Path) -> None:
    told = run("invoke", "EchoFunction", "-e", "-", "--state", tmp_path, text="{}")
    assert told.returncode == 1
    assert told.stderr.startswith("error: no running stack")


def refusal(template: Path, *more: str) -> str:
    """The one line of a start that fails."""
    state = template.parent / "state"
    told = run("run", "--template", template, "--state", state, *more)
    assert told.returncode == 1
    lines = told.stderr.strip().splitlines()
    assert len(lines) == 1, told.stderr
    assert not (state / "stack.json").exists()
    return lines[0]


def test_a_taken_port_is_named(template: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        assert f"port {port} is taken" in refusal(template, "--port", port)


def test_a_second_stack_in_the_same_folder_is_refused_and_the_first_goes_on(template: Path) -> None:
    state = template.parent / "state"
    with running(template):
        told = run("run", "--template", template, "--state", state, "--port", "0")
        assert told.returncode == 1
        assert "a stack runs in" in told.stderr
        again = run("invoke", "EchoFunction", "-e", "-", "--state", state, text="{}")
        assert again.returncode == 0


def test_the_description_of_a_killed_stack_does_not_stand_in_the_way(template: Path) -> None:
    with running(template) as killed:
        killed.kill()
        killed.wait()
    with running(template) as process:
        assert process.poll() is None


def test_a_handler_that_cannot_be_imported_is_named(template: Path) -> None:
    template.write_text(FUNCTION.format(code="code/", handler="missing.handler"))
    line = refusal(template, "--port", "0")
    assert "EchoFunction" in line
    assert "missing" in line


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("Resources: [", "template.yaml"),
        ("Resources:\n  Thing:\n    Type: AWS::No::Such\n", "AWS::No::Such"),
        (FUNCTION.format(code="nowhere/", handler="echo.handler"), "nowhere"),
        ("Resources:\n  Q:\n    Type: AWS::SQS::Queue\n    Properties: {QueueName: !Ref Missing}\n", "Missing"),
        (BAD_RULE, "bad-rule"),
    ],
)
def test_what_is_wrong_with_a_template_is_named(template: Path, text: str, named: str) -> None:
    template.write_text(text)
    assert named in refusal(template, "--port", "0")


def test_a_missing_template_is_named(tmp_path: Path) -> None:
    assert "nothing.yaml" in refusal(tmp_path / "nothing.yaml", "--port", "0")


def test_a_preparation_that_fails_ends_the_run(template: Path) -> None:
    assert "`false` ended with code 1" in refusal(template, "--port", "0", "--prepare", "false")
