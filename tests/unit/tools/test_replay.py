"""`make replay`: its rules, its time range and its messages."""

import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from localaws.archives import Replays, read_archive
from localaws.store import Store
from tools import replay
from tools.replay import ReplayError, main
from tools.stack import Stack

EVENTS = "arn:aws:events:us-east-1:123456789012:"
BUS, ARCHIVE = f"{EVENTS}event-bus/shop-bus", f"{EVENTS}archive/sales"
WINDOW = ["--from", "2026-11-21T13:00:00+01:00", "--to", "2026-11-21T12:00:02Z"]
RULES: dict[str, dict[str, Any]] = {
    "count": {"source": ["shop"]},
    "tell": {"source": ["shop"], "replay-name": [{"exists": False}]},
    "webhook": {"source": ["shop"], "replay-name": [{"exists": False}, {"prefix": "redrive-"}]},
    "repair": {"replay-name": ["repair"]},
    "any-replay": {"replay-name": [{"exists": True}]},
    "no-test": {"replay-name": [{"anything-but": "test"}]},
}


@dataclass
class Shop:
    """A bus with rules, an archive with one event per second from noon on, and the replays with their rules."""

    stack: Stack
    replayed: list[tuple[dict[str, Any], set[str]]]

    def replays(self) -> list[str]:
        return [found["ReplayName"] for found in self.stack.client("events").list_replays()["Replays"]]

    def rules(self) -> set[str]:
        """The rules that the replayed events were for."""
        (found,) = {frozenset(rules) for _, rules in self.replayed}
        return set(found)


@pytest.fixture
def shop(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Shop]:
    archive = read_archive(ARCHIVE, {"SourceArn": BUS})
    for second in range(5):
        archive.keep("shop-bus", {"id": str(second), "time": f"2026-11-21T12:00:0{second}Z"})
    replayed: list[tuple[dict[str, Any], set[str]]] = []

    def send(_bus: str, event: dict[str, Any], rules: Collection[str]) -> None:
        replayed.append((event, {rule.removeprefix(f"{EVENTS}rule/shop-bus/") for rule in rules}))

    store = Store()
    store.on_replay = Replays([archive], ["shop-bus"], send).answer
    store.start()
    events = store.client("events")
    events.create_event_bus(Name="shop-bus")
    for name, pattern in RULES.items():
        events.put_rule(Name=name, EventBusName="shop-bus", EventPattern=json.dumps(pattern))
    outputs = {"EventBusName": "shop-bus", "EventBusArn": BUS, "EventArchiveArn": ARCHIVE}
    description = {"apiUrl": "", "outputs": outputs, "region": "us-east-1", "awsEndpoint": store.endpoint}
    (tmp_path / "stack.json").write_text(json.dumps(description))
    monkeypatch.setenv("STACK_FILE", str(tmp_path / "stack.json"))
    yield Shop(Stack("", outputs, "us-east-1", store.endpoint), replayed)
    store.stop()


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The line that a command fails with."""
    assert main(arguments) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    return line


def test_the_events_of_the_time_range_are_replayed_to_the_named_rules_and_reported(
    shop: Shop, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*WINDOW, "--rule", "count,any-replay", "--name", "repair-1"]) == 0

    assert [event["id"] for event, _ in shop.replayed] == ["0", "1"]
    assert {event["replay-name"] for event, _ in shop.replayed} == {"repair-1"}
    assert shop.rules() == {"count", "any-replay"}
    assert capsys.readouterr().out.splitlines() == [
        "replay repair-1 is running",
        "done: the last event was of 2026-11-21 12:00:01+00:00",
    ]


def test_a_replay_without_a_name_gets_a_new_one_that_begins_with_the_rules(shop: Shop) -> None:
    main([*WINDOW, "--rule", "count"])
    main([*WINDOW, "--rule", "count"])

    one, other = shop.replays()
    assert one != other
    assert one.startswith("count-")
    assert other.startswith("count-")


def test_a_name_is_never_too_long_for_a_replay(shop: Shop) -> None:
    rule = "x" * 64
    pattern = json.dumps({"source": ["shop"]})
    shop.stack.client("events").put_rule(Name=rule, EventBusName="shop-bus", EventPattern=pattern)
    assert main([*WINDOW, "--rule", rule]) == 0


def test_an_archive_without_events_in_the_time_range_is_reported(
    shop: Shop, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["--from", "2026-11-20T12:00:00Z", "--to", "2026-11-21T12:00:00Z", "--rule", "count"])
    assert capsys.readouterr().out.splitlines()[1] == "done: no event was in the archive for this time"
    assert shop.replayed == []


@pytest.mark.parametrize(
    ("rule", "name"),
    [("webhook", "redrive-1"), ("repair", "repair"), ("any-replay", "any"), ("no-test", "no"), ("count", "count")],
)
def test_a_rule_receives_replays_whose_names_match_its_pattern(shop: Shop, rule: str, name: str) -> None:
    assert main([*WINDOW, "--rule", rule, "--name", name]) == 0
    assert shop.rules() == {rule}


@pytest.mark.parametrize(
    ("rule", "name"), [("tell", "redrive-1"), ("webhook", "again"), ("repair", "repair-1"), ("count,tell", "again")]
)
def test_a_replay_that_a_rule_does_not_accept_is_refused_before_it_starts(
    shop: Shop, capsys: pytest.CaptureFixture[str], rule: str, name: str
) -> None:
    line = refused([*WINDOW, "--rule", rule, "--name", name], capsys)
    assert f"does not accept the replay {name}: NAME= must match [" in line
    assert shop.replays() == []


def test_a_rule_that_does_not_exist_is_named(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    assert "Rule nobody does not exist" in refused([*WINDOW, "--rule", "count,nobody"], capsys)
    assert shop.replays() == []


def test_a_name_that_is_taken_is_refused(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    main([*WINDOW, "--rule", "count", "--name", "again"])
    assert "Replay again already exists" in refused([*WINDOW, "--rule", "count", "--name", "again"], capsys)
    assert len(shop.replayed) == 2


def test_a_replay_that_does_not_complete_is_an_error() -> None:
    class Cancelled(Stack):
        states = iter(["STARTING", "RUNNING", "CANCELLING", "CANCELLED"])

        def client(self, _service: str) -> Any:
            return self

        def describe_replay(self, ReplayName: str) -> dict[str, str]:  # noqa: N803 - boto3's name
            return {"ReplayName": ReplayName, "State": next(self.states), "StateReason": "by hand"}

    pauses: list[float] = []

    with pytest.raises(ReplayError, match="replay again is CANCELLED: by hand"):
        replay.wait(Cancelled("", {}, ""), "again", pauses.append)
    assert pauses == [0.1, 0.2, 0.4]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([*WINDOW], "required: --rule"),
        ([*WINDOW[:2], "--rule", "count"], "required: --to"),
        (["--from", "noon", *WINDOW[2:], "--rule", "count"], "'noon' is not a time like"),
        (["--from", "2026-11-21T12:00:00", *WINDOW[2:], "--rule", "count"], "lacks its offset from UTC"),
        (["--from", WINDOW[3], *WINDOW[2:], "--rule", "count"], "--from is not before --to"),
    ],
)
def test_bad_arguments_are_refused_in_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)

    assert stopped.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert message in line


def test_without_a_stack_one_line_says_so(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("STACK_FILE", str(tmp_path / "stack.json"))
    assert "there is no " in refused([*WINDOW, "--rule", "count"], capsys)
