"""The runner's command line: output, files and processes when it starts, fails and stops. Local only."""

import fcntl
import json
import os
import pty
import signal
import socket
import stat
import subprocess
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from localaws.tests.runner import ROOT, command, described_by, read_stack, running
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
import os, time

def handler(event, context):
    if event.get("seconds"):
        print("it waits")
        time.sleep(event["seconds"])
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


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


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
    wait_until(lambda: not any(alive(pid) for pid in functions))
    assert not (template.parent / "state" / "stack.json").exists()


STOP_LIMIT = 2.0
"""Seconds from Ctrl-C to the end of the runner."""


@contextmanager
def starting(template: Path, *more: str | Path) -> Iterator[subprocess.Popen[str]]:
    """Starts the runner without waiting until it is ready. Kills it at the end."""
    state = template.parent / "state"
    process = subprocess.Popen(
        command("run", "--template", template, "--state", state, "--port", "0", *more),
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def interrupted(process: subprocess.Popen[str]) -> tuple[float, list[str], str]:
    """Presses Ctrl-C. Returns the seconds until the end, the lines on stdout and the text on stderr."""
    begun = time.monotonic()
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=PATIENCE)
    return time.monotonic() - begun, output.splitlines(), errors


@pytest.mark.parametrize("processes", [0, 1])
def test_ctrl_c_during_the_start_stops_at_once_with_one_line(template: Path, processes: int) -> None:
    with starting(template) as process:
        # The lock is taken after the signal handlers are installed; the processes of functions start seconds later
        wait_until((template.parent / "state" / "lock").exists)
        wait_until(lambda: len(children(process.pid)) >= processes)
        functions = children(process.pid)

        seconds, lines, errors = interrupted(process)

        assert (lines[-1], errors, process.returncode) == ("stopped", "", 0)
        assert seconds < STOP_LIMIT
        wait_until(lambda: not any(alive(pid) for pid in functions))
        assert not (template.parent / "state" / "stack.json").exists()


def test_ctrl_c_during_the_preparation_ends_the_preparation_too(template: Path) -> None:
    number = template.parent / "number"
    with starting(template, "--prepare", f"echo $$ > {number}; sleep 600 & wait") as process:
        wait_until(lambda: number.exists() and number.read_text())
        preparation = children(int(number.read_text()))

        seconds, lines, errors = interrupted(process)

        assert (lines[-1], errors, process.returncode) == ("stopped", "", 0)
        assert seconds < STOP_LIMIT
        wait_until(lambda: not any(alive(pid) for pid in (int(number.read_text()), *preparation)))


def test_ctrl_c_during_an_invocation_does_not_wait_for_it(template: Path) -> None:
    state = template.parent / "state"
    with starting(template) as process:
        wait_until(lambda: described_by(state) == process.pid)
        functions = children(process.pid)
        caller = subprocess.Popen(
            command("invoke", "EchoFunction", "-e", "-", "--state", state),
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            assert caller.stdin
            caller.stdin.write(b'{"seconds": 600}')
            caller.stdin.close()
            wait_until(lambda: "it waits" in (state / "logs" / "EchoFunction.log").read_text())

            seconds, lines, errors = interrupted(process)

            assert (lines[-1], errors, process.returncode) == ("stopped", "", 0)
            assert seconds < STOP_LIMIT
            wait_until(lambda: not any(alive(pid) for pid in functions))
        finally:
            caller.kill()
            caller.wait()


STUBBORN = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\ndef handler(event, context): pass\n"


@pytest.mark.parametrize("times", [1, 2])
def test_a_function_that_ignores_its_end_does_not_keep_the_runner_and_a_second_ctrl_c_ends_it_at_once(
    template: Path, times: int
) -> None:
    (template.parent / "code" / "echo.py").write_text(STUBBORN)
    with starting(template) as process:
        wait_until(lambda: described_by(template.parent / "state") == process.pid)
        functions = children(process.pid)
        if times == 2:
            process.send_signal(signal.SIGINT)
            wait_until(lambda: not (template.parent / "state" / "stack.json").exists())

        seconds, lines, errors = interrupted(process)

        assert (lines[-1] == "stopped", errors, process.returncode) == ((times == 1), "", 0 if times == 1 else 130)
        assert seconds < (STOP_LIMIT if times == 1 else 1)
        wait_until(lambda: not any(alive(pid) for pid in functions))


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


def test_the_error_for_a_port_in_use_names_it_before_the_slow_start(template: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        assert f"port {port} is in use; choose another one with PORT=…" in refusal(template, "--port", port)
        assert f"port {port} is in use; choose another one with DEBUG=EchoFunction:…" in refusal(
            template, "--port", "0", "--debug", f"EchoFunction:{port}"
        )
    assert not (template.parent / "state" / "logs").exists()


@pytest.mark.parametrize("port", ["99999", "-1", "http"])
def test_the_error_for_a_port_that_does_not_exist_is_one_line(template: Path, port: str) -> None:
    result = run("run", "--template", template, f"--port={port}")
    assert result.returncode == 2
    assert result.stderr == f"error: argument --port: {port} is not a port (0 to 65535); choose one with PORT=…\n"


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

    result = [line for line in output.read_text().splitlines() if "is replaced" in line]
    assert [line.partition(" ")[2] for line in result] == [
        f"{state}/stack.json of a run that did not stop normally is replaced"
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


def test_the_error_for_a_template_that_cannot_be_read_names_it(tmp_path: Path) -> None:
    assert "nothing.yaml: No such file or directory" in refusal(tmp_path / "nothing.yaml", "--port", "0")
    (tmp_path / "folder.yaml").mkdir()
    assert "folder.yaml: Is a directory" in refusal(tmp_path / "folder.yaml", "--port", "0")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe")
    assert "binary.yaml: 'utf-8' codec" in refusal(tmp_path / "binary.yaml", "--port", "0")


def test_a_saved_file_is_loaded_before_the_next_invocation_and_an_error_in_it_is_named(template: Path) -> None:
    state, code = template.parent / "state", template.parent / "code" / "echo.py"
    output = template.parent / "output"

    def answer() -> str:
        return run("invoke", "EchoFunction", "-e", "-", "--state", state, text="{}").stdout

    def saved(text: str, line: str) -> bool:
        if not code.exists() or code.read_text() != text or int(time.monotonic() * 10) % 20 == 0:
            code.write_text(text)  # again from time to time: the folder is watched soon after the start
        return line in output.read_text()

    with output.open("w") as lines, running(template, output=lines):
        wait_until(lambda: saved("def handler(event, context): return 'second'\n", "reloaded: EchoFunction ("))
        assert answer() == '"second"\n'
        wait_until(lambda: saved("def handler(event, context) return\n", "not reloaded: EchoFunction ("))
        assert "SyntaxError" in answer()
        before = output.read_text().count(" reloaded:")
        code.write_text("def handler(event, context): return 'repaired'\n")
        wait_until(lambda: output.read_text().count(" reloaded:") > before)
        assert answer() == '"repaired"\n'
        template.write_text(template.read_text() + "\n")
        wait_until(lambda: f"{template} changed: restart to apply the change" in output.read_text())


def test_with_json_every_line_is_an_object(template: Path) -> None:
    output = template.parent / "output"
    with output.open("w") as lines, running(template, "--json", "--prepare", "echo prepared", output=lines):
        run("invoke", "EchoFunction", "-e", "-", "--state", template.parent / "state", text="{}")
    found = [json.loads(line) for line in output.read_text().splitlines()]
    ready, invoked = (line for line in found if line["kind"] != "notice")
    stopped = found[-1]
    assert (ready["kind"], invoked["kind"], stopped["kind"]) == ("ready", "invoke", "notice")
    assert ready["apiUrl"].startswith("http://127.0.0.1:")
    assert ready["prepared"] == "prepared\n"
    assert invoked["function"] == "EchoFunction"
    assert stopped["text"] == "stopped"


TABLE = """
  OrdersTable:
    Type: AWS::DynamoDB::Table
    Properties:
      BillingMode: PAY_PER_REQUEST
      KeySchema: [{AttributeName: orderId, KeyType: HASH}]
      AttributeDefinitions: [{AttributeName: orderId, AttributeType: S}]
"""


def test_invoke_says_that_an_item_of_the_highlighted_key_does_not_exist(template: Path) -> None:
    state = template.parent / "state"
    template.write_text(template.read_text() + TABLE)
    event = json.dumps({"detail": [{"orderId": "ORD-1"}, {"orderId": "ORD-2"}]})
    with running(template, "--highlight", "orderId"):
        description = json.loads((state / "stack.json").read_text())
        read_stack(state).client("dynamodb").put_item(
            TableName=description["tables"]["OrdersTable"], Item={"orderId": {"S": "ORD-1"}}
        )
        result = run("invoke", "EchoFunction", "-e", "-", "--state", state, text=event)
    assert result.returncode == 0
    assert result.stderr == (
        "note: OrdersTable has no item with orderId ORD-2; "
        "what this invocation stores or publishes refers to an item that does not exist\n"
    )


def test_the_error_for_a_debugged_function_that_does_not_exist_lists_the_functions(template: Path) -> None:
    line = refusal(template, "--port", "0", "--debug", "OtherFunction:0")
    assert line == "error: --debug OtherFunction: the template has no such function; it has EchoFunction"


class Debugger:
    """A client of the Debug Adapter Protocol: https://microsoft.github.io/debug-adapter-protocol/specification."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), PATIENCE)
        self._file = self._socket.makefile("rwb")
        self._number = 0

    def close(self) -> None:
        self._file.close()
        self._socket.close()

    def send(self, command: str, **arguments: Any) -> int:
        """Sends a request. Returns its number."""
        self._number += 1
        request = {"seq": self._number, "type": "request", "command": command, "arguments": arguments}
        body = json.dumps(request).encode()
        self._file.write(b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
        self._file.flush()
        return self._number

    def call(self, command: str, **arguments: Any) -> Any:
        """Sends a request. Returns the body of its response."""
        number = self.send(command, **arguments)
        return self._next(lambda message: message["type"] == "response" and message["request_seq"] == number)

    def event(self, name: str) -> Any:
        """Waits for an event. Returns its body."""
        return self._next(lambda message: message.get("event") == name)

    def _next(self, wanted: Callable[[Any], bool]) -> Any:
        while True:
            length = 0
            while line := self._file.readline().strip():
                length = int(line.rpartition(b":")[2])
            message = json.loads(self._file.read(length))
            if wanted(message):
                return message.get("body")


def with_breakpoint(port: int, path: Path, line: int) -> Debugger:
    """Returns an attached debugger with one breakpoint."""
    debugger = Debugger(port)
    debugger.call("initialize", adapterID="test", pathFormat="path")
    debugger.send("attach")
    debugger.event("initialized")
    debugger.call("setBreakpoints", source={"path": str(path)}, breakpoints=[{"line": line}])
    debugger.call("configurationDone")
    return debugger


def test_a_debugged_function_stops_at_breakpoints_and_has_no_time_out(template: Path) -> None:
    state, code = template.parent / "state", template.parent / "code" / "echo.py"
    code.write_text("def handler(event, context):\n    return context.get_remaining_time_in_millis()\n")
    output = template.parent / "output"
    port = free_port()
    shorter = ("--time-scale", "100000")  # a time-out of 0.6 ms
    with (
        output.open("w") as lines,
        running(template, "--debug", f"EchoFunction:{port}", *shorter, output=lines) as process,
    ):
        for client in ("first", "second", "after a reload"):
            if client == "after a reload":
                code.write_text(code.read_text() + "# saved\n")
                wait_until(lambda: "reloaded: EchoFunction" in output.read_text())
            debugger = with_breakpoint(port, code, 2)
            caller = subprocess.Popen(
                command("invoke", "EchoFunction", "-e", "-", "--state", state),
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            assert caller.stdin
            caller.stdin.write("{}")
            caller.stdin.close()
            thread = debugger.event("stopped")["threadId"]
            (frame, *_) = debugger.call("stackTrace", threadId=thread)["stackFrames"]
            assert (frame["name"], frame["line"]) == ("handler", 2)
            debugger.call("continue", threadId=thread)
            assert caller.stdout
            assert int(caller.stdout.read()) > 60_000
            assert caller.wait(PATIENCE) == 0
            debugger.call("disconnect", terminateDebuggee=False)
            debugger.close()
        assert len(children(process.pid)) == 1


def test_a_preparation_that_fails_ends_the_run(template: Path) -> None:
    assert "`false` ended with exit code 1" in refusal(template, "--port", "0", "--prepare", "false")
