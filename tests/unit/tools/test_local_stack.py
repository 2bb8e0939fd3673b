"""The tools find the stack on this machine, or say in one line why they cannot."""

import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tools import alerts, reconcile, seed, stack, token, unpark

DESCRIPTION = {"apiUrl": "http://127.0.0.1:1", "outputs": {}, "region": "us-east-1", "tokens": {"staff": "t"}}


@pytest.fixture
def free_port() -> int:
    """A port that is not in use."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def refusal(path: Path, text: str) -> str:
    path.write_text(text)
    with pytest.raises(stack.StackNotFound) as error:
        stack.local_stack(path)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        '{"apiUrl": "http',
        "[]",
        "null",
        "{}",
        json.dumps(DESCRIPTION | {"awsEndpoint": None}),
        json.dumps(DESCRIPTION | {"awsEndpoint": "http://127.0.0.1:port"}),
    ],
)
def test_a_description_that_cannot_be_read_is_named(tmp_path: Path, text: str) -> None:
    message = refusal(tmp_path / "stack.json", text)

    assert message == f"{tmp_path}/stack.json does not describe a stack: start the stack anew with `make run`"


def test_a_stack_that_does_not_answer_is_named(tmp_path: Path, free_port: int) -> None:
    text = json.dumps(DESCRIPTION | {"awsEndpoint": f"http://127.0.0.1:{free_port}"})

    assert refusal(tmp_path / "stack.json", text).startswith(f"the stack of {tmp_path}/stack.json does not answer (")


def test_a_stack_that_answers_is_found(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        endpoint = f"http://127.0.0.1:{server.getsockname()[1]}"
        (tmp_path / "stack.json").write_text(json.dumps(DESCRIPTION | {"awsEndpoint": endpoint}))

        found = stack.local_stack(tmp_path / "stack.json")

    assert (found.aws_endpoint, found.tokens, found.mails) == (endpoint, {"staff": "t"}, tmp_path / "mail")


@pytest.mark.parametrize("command", [alerts.main, reconcile.main, seed.main, token.main, unpark.main])
def test_a_command_says_in_one_line_that_the_description_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: Callable[[], Any]
) -> None:
    (tmp_path / "stack.json").write_text("{")
    monkeypatch.setenv("STACK_FILE", str(tmp_path / "stack.json"))
    monkeypatch.setattr("sys.argv", ["command"])

    assert command() == 1
    assert capsys.readouterr() == (
        "",
        f"error: {tmp_path}/stack.json does not describe a stack: start the stack anew with `make run`\n",
    )
