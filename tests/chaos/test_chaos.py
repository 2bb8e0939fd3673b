"""Random faults lose nothing and do nothing twice; and without what prevents it, they would."""

import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.changed_copy import ROOT, Change, changed_copy

SEED, ORDERS = "466", "25"
"""A seed whose faults strike early."""


class Mutant(NamedTuple):
    """The code without one of the things that keep it from losing or repeating something.

    Args:
        change: how it is taken out.
        violation: a pattern of what must be found.
    """

    change: Change
    violation: str


MUTANTS = {
    "no condition on the reservation": Mutant(
        Change(
            "functions/inventory/repository.py",
            'first = self._store.update(_reservation(order_id), [event], 0, {"status": Status.RESERVED.value})',
            'first = self._store.update(_reservation(order_id), [event], 0, {"status": Status.RESERVED.value})\n'
            '        first["ConditionExpression"] = "attribute_not_exists(#key) OR attribute_exists(#key)"',
        ),
        r"product CHAOS-\w+: \d+ reserved, but the reservations hold \d+",
    ),
    "no idempotency on e-mail": Mutant(
        Change(
            "functions/customer_email/handler.py",
            'once(told={"event_id": event_id, "kind": mail.kind})',
            'once.__wrapped__(told={"event_id": event_id, "kind": mail.kind})',
        ),
        r"mail [a-z-]+ of event \w+: sent \d+ times, and \d+ at most can be",
    ),
    "a publisher that ignores FailedEntryCount": Mutant(
        Change(
            "functions/event_publisher/put_events.py",
            'return [(result.get("ErrorCode"), result.get("ErrorMessage", "")) for result in answer["Entries"]]',
            'return [(None, "") for _ in answer["Entries"]]',
        ),
        r"event \w+: stored, but never on the bus",
    ),
    "a counter that drops the events it could not count": Mutant(
        Change(
            "functions/analytics/counting_handler.py",
            "    failed += [message_id for message_id, fact in readable if fact.event_id in not_counted]\n",
            "",
        ),
        r"analytics: event \w+ was never counted",
    ),
}


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
    command = [sys.executable, "-m", "tools.chaos", "--seed", SEED, "--orders", ORDERS]
    command += ["--template", str(template), "--evidence", str(evidence)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=600)


def test_nothing_is_lost_under_random_faults(tmp_path: Path) -> None:
    run = chaos(ROOT / "template.yaml", tmp_path / "evidence")

    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.parametrize("names", RUNS, ids=" and ".join)
def test_code_without_its_safeguards_fails_the_same_run(names: list[str], tmp_path: Path) -> None:
    mutants = [MUTANTS[name] for name in names]

    run = chaos(changed_copy(tmp_path, [mutant.change for mutant in mutants]), tmp_path / "evidence")

    assert run.returncode == 1, run.stdout + run.stderr
    survivors = [
        name for name, mutant in zip(names, mutants, strict=True) if not re.search(mutant.violation, run.stdout)
    ]
    assert survivors == [], run.stdout + run.stderr
    assert f"seed {SEED}: " in run.stdout
