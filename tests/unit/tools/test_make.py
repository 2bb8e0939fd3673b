"""make passes on the values of its command line, but no predefined values and none of the environment."""

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
PARAMETERS = "--parameter SenderEmail=shop@example.com --parameter SalesEmail=sales@example.com"
COMMANDS = {
    "run": 'exec .venv/bin/python -m localaws run --port "3000" --prepare ".venv/bin/python -m tools.prepare" '
    f"--highlight orderId {PARAMETERS}",
    "load": '.venv/bin/python -m bench.load ""',
    "chaos": ".venv/bin/python -m tests.chaos.run",
    "seed": ".venv/bin/python -m tools.seed",
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
