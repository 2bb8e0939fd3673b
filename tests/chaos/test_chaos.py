"""Under random faults nothing is lost or done twice. A run without one of the safeguards fails."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.contract.source import ROOT
from tests.variants import add_bugs, variant

SEED, ORDERS = "466", "25"
"""A seed whose faults occur early."""
VIOLATIONS = {
    "no condition on the reservation": r"product CHAOS-\w+: \d+ reserved, but the reservations hold \d+",
    "no idempotency on e-mail": r"mail [a-z-]+ of event \w+: sent \d+ times, and \d+ at most can be",
    "a publisher that ignores FailedEntryCount": r"event \w+: stored, but never on the bus",
    "a counter that drops the events it could not count": r"analytics: event \w+ was never counted",
}
"""A pattern of the expected violation, by the name of the mutant in tests/layer/bugs/mutants.py."""
RUNS = [
    [
        "no condition on the reservation",
        "no idempotency on e-mail",
        "a counter that drops the events it could not count",
    ],
    ["a publisher that ignores FailedEntryCount"],
]
"""Mutants that share a run, to save time: their violations differ. The publisher runs alone, because the
events that it loses leave the other services less to do."""


def chaos(template: Path, evidence: Path) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "tests.chaos.run", "--seed", SEED, "--orders", ORDERS]
    command += ["--template", str(template), "--evidence", str(evidence)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=600)


def test_nothing_is_lost_under_random_faults(tmp_path: Path) -> None:
    run = chaos(ROOT / "template.yaml", tmp_path / "evidence")

    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.parametrize("mutants", RUNS, ids=" and ".join)
def test_a_run_without_a_safeguard_fails_the_check(mutants: list[str], tmp_path: Path) -> None:
    template = variant(tmp_path, lambda template: add_bugs(template, "bugs.mutants", MUTANTS=", ".join(mutants)))

    run = chaos(template, tmp_path / "evidence")

    assert run.returncode == 1, run.stdout + run.stderr
    survivors = [name for name in mutants if not re.search(VIOLATIONS[name], run.stdout)]
    assert survivors == [], run.stdout + run.stderr
    assert f"seed {SEED}: " in run.stdout
