"""Under make, a message about a bad argument names the variable of the Makefile."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bench import load
from tools import events, replay, republish, switch, token

ROOT = Path(__file__).parents[3]
WINDOW = ["--from", "2026-11-21T12:00:00Z", "--to", "2026-11-21T12:00:00Z"]


@pytest.mark.parametrize(
    ("main", "arguments", "message"),
    [
        (replay.main, [], "the following arguments are required: FROM=, TO=, RULE="),
        (replay.main, [*WINDOW, "--rule", "x"], "FROM= is not before TO="),
        (republish.main, [], "name either ORDER=, or FROM= and TO="),
        (events.main, [], "the following arguments are required: ORDER="),
        (switch.main, ["off"], "the following arguments are required: FUNCTION="),
        (token.main, ["--as", "x"], "argument AS=: invalid choice: 'x'"),
        (load.main, ["a.csv", "--speed", "0"], "argument SPEED=: 0 is not greater than 0"),
    ],
)
def test_under_make_a_message_names_the_variable(
    main: Callable[[list[str]], int],
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MAKELEVEL", "1")

    with pytest.raises(SystemExit):
        main(arguments)

    assert capsys.readouterr().err.startswith(f"error: {message}")


def test_a_command_that_make_starts_names_the_variables_of_the_makefile() -> None:
    makefile = f"all:\n\t@{sys.executable} -m tools.replay --from noon --to noon --rule x\n"

    done = subprocess.run(
        ["make", "--file", "-"],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"]},  # without the flags of a `make` that runs the tests
        input=makefile,
        capture_output=True,
        text=True,
    )

    assert done.stderr.startswith("error: argument FROM=: 'noon' is not a time like ")
