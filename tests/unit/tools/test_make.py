"""make passes on the values of its command line, but no predefined values and none of the environment."""

import fcntl
import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
VARIABLES = (
    *(
        "AS",
        "DATA",
        "DEBUG",
        "FROM",
        "FUNCTION",
        "NAME",
        "ORDER",
        "ORDERS",
        "PORT",
        "RULE",
        "SEED",
        "SPEED",
        "STACK",
        "STAGE",
        "TO",
    ),
    *("BIN", "INSTALL", "PERSISTENT", "PROTECT", "SAM"),
)
ENVIRONMENT = {**dict.fromkeys(VARIABLES, "hostile"), "CONFIRM": "yes"}
PARAMETERS = "--stack-name orderflow --parameter SenderEmail=shop@example.com --parameter SalesEmail=sales@example.com"
COMMANDS = {
    "run": 'exec .venv/bin/python -m localaws run --port "3000" --prepare ".venv/bin/python -m tools.prepare" '
    f"--highlight orderId {PARAMETERS}",
    "load": '.venv/bin/python -m bench.load "bench/invoices.csv"',
    "chaos": ".venv/bin/python -m tests.chaos.run",
    "seed": ".venv/bin/python -m tools.seed",
    "events": ".venv/bin/python -m tools.events",
    "alerts": ".venv/bin/python -m tools.alerts",
    "switch-off": ".venv/bin/python -m tools.switch off",
    "switch-on": ".venv/bin/python -m tools.switch on",
    "republish": ".venv/bin/python -m tools.republish",
    "replay": ".venv/bin/python -m tools.replay",
    "reconcile": ".venv/bin/python -m tools.reconcile",
    "unpark": ".venv/bin/python -m tools.unpark",
    "token": ".venv/bin/python -m tools.token",
    "test-e2e": '.venv/bin/python -m pytest tests/e2e --stack ""',
    "deploy": '.venv/bin/python -m tools.deploy --stage "sandbox"',
    "destroy": '.venv/bin/python -m tools.destroy --stack ""',
}
"""What runs without a value on the command line. Commands that need one then refuse to start."""


def make(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `make` with this Makefile in a folder."""
    return subprocess.run(
        ["make", "--no-print-directory", "--file", ROOT / "Makefile", *arguments],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
    )


def commands(*arguments: str, **environment: str) -> list[str]:
    """The commands that `make` would run, with single spaces."""
    done = subprocess.run(
        ["make", "--dry-run", "--no-print-directory", *arguments],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return [" ".join(line.split()) for line in done.stdout.replace("\\\n", " ").splitlines()]


@pytest.mark.parametrize("target", COMMANDS)
def test_no_value_comes_from_the_environment_or_from_make_itself(target: str) -> None:
    assert COMMANDS[target] in commands(target)
    assert COMMANDS[target] in commands(target, **ENVIRONMENT)


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        (["run", "DEBUG=OrderApiFunction"], f"--debug OrderApiFunction {PARAMETERS}"),
        (["token", "AS=staff", "STACK=shop"], "tools.token --as staff --stack shop"),
        (["seed", "STACK=shop"], "tools.seed --stack shop"),
        (["events", "ORDER=ORD-1", "STACK=shop"], "tools.events --order ORD-1 --stack shop"),
        (["alerts", "STACK=shop"], "tools.alerts --stack shop"),
        (["switch-off", "FUNCTION=F", "STACK=shop"], "tools.switch off --function F --stack shop"),
        (["switch-on", "FUNCTION=F", "STACK=shop"], "tools.switch on --function F --stack shop"),
        (["republish", "ORDER=ORD-1", "STACK=shop"], "tools.republish --order ORD-1 --stack shop"),
        (["republish", "FROM=a", "TO=b"], "tools.republish --from a --to b"),
        (
            ["replay", "FROM=a", "TO=b", "RULE=c,d", "NAME=redrive-1", "STACK=shop"],
            "tools.replay --from a --to b --rule c,d --name redrive-1 --stack shop",
        ),
        (["load", "DATA=invoices.csv", "SPEED=60"], "bench.load invoices.csv --speed 60"),
        (["chaos", "SEED=7", "ORDERS=500"], "tests.chaos.run --seed 7 --orders 500"),
        (["chaos", "PERSISTENT=yes"], "tests.chaos.run --persistent"),
        (["test-e2e", "STACK=shop"], "pytest tests/e2e --stack shop"),
        (["deploy", "STAGE=prod", "CONFIRM=yes"], "tools.deploy --stage prod --confirmed"),
        (["deploy", "STAGE=prod", "PROTECT=no"], "tools.deploy --stage prod --unprotected"),
        (["destroy", "STACK=shop", "CONFIRM=yes"], "tools.destroy --stack shop --confirmed"),
    ],
)
def test_values_of_the_command_line_are_passed_on(arguments: list[str], command: str) -> None:
    found = [line.replace('"', "") for line in commands(*arguments, **ENVIRONMENT)]

    assert any(line.endswith(command) for line in found), found


def test_the_python_of_the_environment_makes_the_virtual_environment() -> None:
    found = commands("--what-if", "requirements/uv.txt", ".venv/uv", PYTHON="python3.12")

    assert "python3.12 -m venv .venv" in found


def test_the_help_lists_every_command_in_80_columns() -> None:
    found = make(ROOT, "help").stdout.splitlines()

    assert {f"make {target} " for target in COMMANDS} <= {" ".join(line.split()[:2]) + " " for line in found}
    assert max(map(len, found)) <= 80


@pytest.mark.parametrize("target", ["destroy", "test-e2e"])
def test_a_command_that_needs_a_stack_installs_nothing_without_one(target: str, tmp_path: Path) -> None:
    done = make(tmp_path, target)

    assert done.stderr.splitlines()[0] == f"error: name a stack: make {target} STACK=name"
    assert not list(tmp_path.iterdir())


def test_clean_removes_nothing_while_a_stack_is_running(tmp_path: Path) -> None:
    state = tmp_path / ".local"
    state.mkdir()
    (state / "stack.json").write_text('{"pid": 4711}')
    with (state / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)

        refused = make(tmp_path, "clean")
        kept = (state / "stack.json").exists()
    done = make(tmp_path, "clean")

    assert refused.stderr.splitlines()[0] == (
        "error: a stack is running in .local: stop it with Ctrl-C in its terminal, or with `kill 4711`, then try again"
    )
    assert refused.returncode != 0
    assert kept
    assert done.returncode == 0
    assert not state.exists()


def test_clean_needs_neither_the_virtual_environment_nor_a_stack(tmp_path: Path) -> None:
    (tmp_path / ".coverage").touch()

    done = make(tmp_path, "clean")

    assert (done.returncode, done.stderr, list(tmp_path.iterdir())) == (0, "", [])
