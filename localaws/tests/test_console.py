"""The runner's output: escaped control characters, values of the highlighted key, JSON."""

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from localaws.console import Console, LogLines, values_of
from localaws.eventbridge import Accepted
from localaws.http_api import RequestLine

ATTACK = "/\x1b[2J\x1b]0;owned\x07\r\n\x9b31m[red]\u202e"
HARMLESS = r"/\x1b[2J\x1b]0;owned\x07\r\n\x9b31m[red]\u202e"


def printed(capsys: pytest.CaptureFixture[str]) -> str:
    """Returns the only printed line, without its time."""
    (line,) = capsys.readouterr().out.split("\n")[:-1]
    return line.partition(" ")[2]


def test_a_request_is_printed_with_its_control_characters_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    Console().request(RequestLine("G\x1bT", ATTACK, 404, 0.0123))

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


def test_a_request_is_printed_with_the_reason_of_its_refusal(capsys: pytest.CaptureFixture[str]) -> None:
    Console().request(RequestLine("GET", "/orders", 401, 0.001, reason="the token has expired"))

    assert printed(capsys) == "request  GET /orders 401 (the token has expired) 1 ms"


@pytest.mark.parametrize(
    "payload",
    [
        b'{"detail": {"orderId": "ORD-1"}}',
        b'{"Records": [{"body": "{\\"detail\\": {\\"orderId\\": \\"ORD-1\\"}}"}]}',
        b'{"Records": [{"body": "{\\"Message\\": \\"{\\\\\\"orderId\\\\\\": \\\\\\"ORD-1\\\\\\"}\\"}"}]}',
        b'{"Records": [{"dynamodb": {"Keys": {"orderId": {"S": "ORD-1"}}, "NewImage": {"orderId": {"S": "ORD-1"}}}}]}',
        {"detail": {"orderId": "ORD-1"}, "id": "orderId"},
        b'{"reorderId": "no", "orderIds": ["no"], "x": "orderId", "orderId":"ORD-1", "parent": {"orderId": null}}',
    ],
)
def test_the_values_of_a_key_are_found_anywhere_in_a_payload(payload: bytes | dict[str, object]) -> None:
    assert values_of("orderId", payload) == ["ORD-1"]


def test_numbers_are_values_too() -> None:
    assert values_of("n", b'[{"n": 7}, {"n": -1.5}, {"n": {"N": "3"}}]') == ["7", "-1.5", "3"]


def test_a_line_ends_with_at_most_three_values_of_the_highlighted_key(capsys: pytest.CaptureFixture[str]) -> None:
    payload = json.dumps([{"orderId": f"ORD-{number}"} for number in (1, 2, 2, 3, 4, 5)]).encode()

    Console(highlight="orderId").invocation("EmailFunction", 0.004, payload)

    assert printed(capsys) == "invoke   EmailFunction 4 ms  ORD-1 ORD-2 ORD-3 +2"


def test_with_json_each_line_is_an_object_with_stable_fields(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console(highlight="orderId", as_json=True)
    console.request(RequestLine("GET", "/orders", 200, 0.0123, b'{"orderId": "ORD-1"}'))
    console.event(Accepted("bus", {"id": "e", "source": "s", "detail-type": "Placed"}, (), None, "", forwarded=False))
    console.invocation("EmailFunction", 0.004)
    console.failure("EmailFunction: no")
    console.notice("hello")

    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert all(line.pop("time") for line in lines)
    assert lines == [
        {
            "kind": "request",
            "method": "GET",
            "path": "/orders",
            "status": 200,
            "durationMs": 12.3,
            "reason": None,
            "highlight": ["ORD-1"],
        },
        {
            "kind": "event",
            "bus": "bus",
            "id": "e",
            "source": "s",
            "detailType": "Placed",
            "rules": [],
            "highlight": [],
        },
        {"kind": "invoke", "function": "EmailFunction", "durationMs": 4.0, "highlight": []},
        {"kind": "failure", "text": "EmailFunction: no", "highlight": []},
        {"kind": "notice", "text": "hello", "highlight": []},
    ]


def test_the_facts_about_a_running_stack_leave_room_for_an_example_on_the_first_screen(
    capsys: pytest.CaptureFixture[str],
) -> None:
    stack = {"apiUrl": "http://127.0.0.1:3000", "awsEndpoint": "http://127.0.0.1:45491", "region": "us-east-1"}

    Console().ready(stack, Path(".local"), 2.9, "curl http://127.0.0.1:3000\n")

    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 12
    assert max(map(len, lines)) <= 80
    assert lines[-1] == "curl http://127.0.0.1:3000"
    for fact in (*stack.values(), ".local/logs/", ".local/mail/", ".local/stack.json", "lost", "Ctrl-C"):
        assert any(fact in line for line in lines)


def test_nothing_is_printed_while_the_stack_stops(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console()
    console.muted = True

    console.failure("the function was killed")

    assert capsys.readouterr().out == ""
