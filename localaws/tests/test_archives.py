"""Archives: which events they keep, and which events a replay sends to which rules."""

import json
import threading
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from localaws import archives
from localaws.archives import Archive, Replays, read_archive
from localaws.aws import ServiceError
from localaws.delivery import Clock, Scheduler
from localaws.event_pattern import InvalidEventPattern
from localaws.eventbridge import Bus, read_rules
from localaws.tests.support import PATIENCE, RecordingTargets, wait_until

EVENTS = "arn:aws:events:us-east-1:123456789012:"
BUS = f"{EVENTS}event-bus/shop-bus"
ARCHIVE = f"{EVENTS}archive/sales"
NOON = 1_795_262_400.0  # 2026-11-21T12:00:00Z


def archive(**properties: Any) -> Archive:
    return read_archive(ARCHIVE, {"SourceArn": BUS, "EventPattern": {"source": ["shop"]}} | properties)


def event(number: int, time: str = "2026-11-21T12:00:00Z", source: str = "shop", **more: Any) -> dict[str, Any]:
    return {"id": str(number), "source": source, "detail-type": "Sold", "time": time, "detail": {}, **more}


def kept(of: Archive) -> list[str]:
    return [each["id"] for each in of.between(0, 2 * NOON)]


@dataclass
class Sent:
    """Records the events sent to a bus. Each event waits until the test releases it."""

    events: list[tuple[str, dict[str, Any], Collection[str]]] = field(default_factory=list)
    through: threading.Event = field(default_factory=threading.Event)

    def take(self, bus: str, event: dict[str, Any], rules: Collection[str]) -> None:
        self.events.append((bus, event, rules))
        self.through.wait(PATIENCE)

    def ids(self) -> list[str]:
        return [event["id"] for _, event, _ in self.events]


@pytest.fixture
def sent() -> Sent:
    return Sent()


Ask = Callable[..., dict[str, Any]]


@pytest.fixture
def ask(sent: Sent) -> Ask:
    """Calls the replay API for an archive with four events, the first at noon."""
    full = archive()
    full.keep("shop-bus", event(1))
    full.keep("shop-bus", event(4, "2026-11-21T12:02:00Z"))
    full.keep("shop-bus", event(2, "2026-11-21T12:01:59Z"))
    full.keep("shop-bus", event(3, "2026-11-21T12:01:00Z"))
    replays = Replays([full], ["default", "shop-bus", "other-bus"], sent.take)

    def ask(action: str, name: str = "again", **more: Any) -> dict[str, Any]:
        request: dict[str, Any] = {"ReplayName": name}
        if action == "StartReplay":
            request |= {"EventSourceArn": ARCHIVE, "EventStartTime": NOON, "EventEndTime": NOON + 3600}
            request["Destination"] = {"Arn": BUS}
        elif action == "ListReplays":
            request = {}
        return replays.answer(action, request | more)

    return ask


def ended(ask: Ask, name: str = "again") -> dict[str, Any]:
    """Waits for the end of a replay and returns it."""
    wait_until(lambda: "ReplayEndTime" in ask("DescribeReplay", name))
    return ask("DescribeReplay", name)


# ------------------------------------------------------------------------------------------------- archives


def test_an_archive_keeps_the_events_of_its_bus_that_match_its_pattern() -> None:
    sales = archive()

    sales.keep("shop-bus", event(1))
    sales.keep("other-bus", event(2))
    sales.keep("shop-bus", event(3, source="office"))

    assert kept(sales) == ["1"]


def test_an_archive_keeps_no_replays() -> None:
    sales = archive()
    sales.keep("shop-bus", event(1, **{"replay-name": "again"}))
    assert kept(sales) == []


def test_an_archive_without_a_pattern_keeps_everything_but_replays() -> None:
    everything = read_archive(ARCHIVE, {"SourceArn": BUS})

    everything.keep("shop-bus", event(1, source="office"))
    everything.keep("shop-bus", event(2, **{"replay-name": "again"}))

    assert kept(everything) == ["1"]


def test_an_archive_forgets_its_oldest_events_when_it_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MAX_EVENTS", 3)
    sales = archive()

    for number in range(5):
        sales.keep("shop-bus", event(number))

    assert kept(sales) == ["2", "3", "4"]


def test_the_error_for_an_invalid_pattern_names_the_archive() -> None:
    with pytest.raises(InvalidEventPattern, match=r"archive sales.*must be an object or an array"):
        archive(EventPattern={"source": "shop"})


# -------------------------------------------------------------------------------------------------- replays


def test_a_replay_sends_the_original_events_with_its_name_to_the_named_rules(ask: Ask, sent: Sent) -> None:
    sent.through.set()
    destination = {"Arn": BUS, "FilterArns": [f"{EVENTS}rule/shop-bus/one"]}

    ask("StartReplay", EventEndTime=NOON + 1, Destination=destination)

    assert ended(ask)["State"] == "COMPLETED"
    assert sent.events == [(BUS, event(1, **{"replay-name": "again"}), destination["FilterArns"])]


@pytest.mark.parametrize(
    ("begin", "end", "ids"),
    [
        (NOON, NOON + 0.5, ["1"]),
        (NOON + 0.5, NOON + 60, []),
        (NOON - 60, NOON, []),
        (NOON + 60, NOON + 120, ["2", "3"]),
        (NOON, NOON + 121, ["1", "2", "3", "4"]),
    ],
)
def test_a_replay_sends_the_events_of_its_time_range_minute_by_minute(
    ask: Ask, sent: Sent, begin: float, end: float, ids: list[str]
) -> None:
    sent.through.set()
    ask("StartReplay", EventStartTime=begin, EventEndTime=end)
    ended(ask)
    assert sent.ids() == ids


def test_a_replay_shows_its_progress(ask: Ask, sent: Sent) -> None:
    started = ask("StartReplay")
    wait_until(lambda: ask("DescribeReplay")["State"] == "RUNNING")
    underway = ask("DescribeReplay")
    sent.through.set()
    done = ended(ask)

    assert (started["State"], started["ReplayArn"]) == ("STARTING", f"{EVENTS}replay/again")
    assert underway["EventLastReplayedTime"] == NOON
    assert "ReplayEndTime" not in underway
    assert (done["State"], done["EventLastReplayedTime"]) == ("COMPLETED", NOON + 120)
    assert done["ReplayEndTime"] >= done["ReplayStartTime"]


def test_a_replay_without_events_completes(ask: Ask) -> None:
    ask("StartReplay", EventStartTime=NOON + 1000)
    done = ended(ask)
    assert done["State"] == "COMPLETED"
    assert "EventLastReplayedTime" not in done


def test_a_cancelled_replay_sends_no_more(ask: Ask, sent: Sent) -> None:
    ask("StartReplay")
    wait_until(sent.ids)
    assert ask("CancelReplay")["State"] == "CANCELLING"
    sent.through.set()
    assert ended(ask)["State"] == "CANCELLED"
    assert sent.ids() == ["1"]


def test_replays_are_listed_by_name_state_and_archive(ask: Ask, sent: Sent) -> None:
    ask("StartReplay", "redrive-1")
    wait_until(sent.ids)
    sent.through.set()
    ended(ask, "redrive-1")
    ask("StartReplay", "repair-1")
    ended(ask, "repair-1")

    def names(**more: str) -> list[str]:
        return [replay["ReplayName"] for replay in ask("ListReplays", **more)["Replays"]]

    assert names() == ["redrive-1", "repair-1"]
    assert names(NamePrefix="red") == ["redrive-1"]
    assert names(State="RUNNING") == []
    assert names(EventSourceArn=ARCHIVE, State="COMPLETED") == ["redrive-1", "repair-1"]
    assert names(EventSourceArn=f"{ARCHIVE}2") == []


def test_replays_are_listed_in_parts(ask: Ask, sent: Sent) -> None:
    sent.through.set()
    for name in ("one", "two", "three"):
        ask("StartReplay", name)

    first = ask("ListReplays", Limit=2)
    rest = ask("ListReplays", Limit=2, NextToken=first["NextToken"])

    assert [replay["ReplayName"] for replay in first["Replays"]] == ["one", "two"]
    assert [replay["ReplayName"] for replay in rest["Replays"]] == ["three"]
    assert "NextToken" not in rest


def test_a_replay_to_a_missing_bus_is_not_found(ask: Ask) -> None:
    with pytest.raises(ServiceError, match="Event bus none does not exist") as refused:
        ask("StartReplay", Destination={"Arn": f"{EVENTS}event-bus/none"})
    assert refused.value.code == "ResourceNotFoundException"


def test_an_archive_is_described(ask: Ask) -> None:
    assert ask("DescribeArchive", ArchiveName="sales") == {
        "ArchiveArn": ARCHIVE,
        "ArchiveName": "sales",
        "EventSourceArn": BUS,
        "EventPattern": '{"source": ["shop"]}',
        "State": "ENABLED",
        "EventCount": 4,
    }
    with pytest.raises(ServiceError, match="Archive none does not exist") as refused:
        ask("DescribeArchive", ArchiveName="none")
    assert refused.value.code == "ResourceNotFoundException"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"EventSourceArn": f"{EVENTS}archive/none"}, "archive/none does not exist"),
        ({"Destination": {"Arn": f"{EVENTS}event-bus/other-bus"}}, "Cross event bus replay is not permitted"),
        ({"EventEndTime": NOON}, "EventStartTime must be before EventEndTime"),
        ({"ReplayName": "two words"}, "two words must be 1 to 64 letters"),
        ({"ReplayName": "x" * 65}, "must be 1 to 64 letters"),
    ],
)
def test_an_invalid_replay_is_rejected(ask: Ask, wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ServiceError, match=message) as refused:
        ask("StartReplay", **wrong)
    assert refused.value.code == "ValidationException"
    assert ask("ListReplays") == {"Replays": []}


def test_the_name_of_a_finished_replay_cannot_be_used_again(ask: Ask, sent: Sent) -> None:
    sent.through.set()
    ask("StartReplay")
    ended(ask)
    with pytest.raises(ServiceError) as refused:
        ask("StartReplay")
    assert refused.value.code == "ResourceAlreadyExistsException"


def test_a_replay_that_has_ended_cannot_be_cancelled(ask: Ask, sent: Sent) -> None:
    sent.through.set()
    ask("StartReplay")
    ended(ask)
    with pytest.raises(ServiceError) as refused:
        ask("CancelReplay")
    assert refused.value.code == "IllegalStatusException"


@pytest.mark.parametrize("action", ["DescribeReplay", "CancelReplay"])
def test_an_unknown_replay_is_not_found(ask: Ask, action: str) -> None:
    with pytest.raises(ServiceError) as refused:
        ask(action)
    assert refused.value.code == "ResourceNotFoundException"


# ------------------------------------------------------------------------------------------ on a running bus


@dataclass
class ArchivedBus:
    """A bus with an archive, and rules with the names of their targets."""

    bus: Bus
    archive: Archive
    targets: RecordingTargets

    def replay(self, *rules: str) -> None:
        """Replay the archived events to the rules with these names."""
        arns = [f"{EVENTS}rule/shop-bus/{rule}" for rule in rules]
        for archived in self.archive.between(0, 2 * NOON):
            self.bus.replay(BUS, archived | {"replay-name": "again"}, arns)

    def delivered(self) -> list[tuple[str, dict[str, Any]]]:
        return [(arn.rpartition(":")[2], json.loads(payload)) for arn, payload in self.targets.delivered]


@pytest.fixture
def archived() -> Iterator[ArchivedBus]:
    def rule(name: str, pattern: dict[str, Any]) -> dict[str, Any]:
        target = f"arn:aws:lambda:us-east-1:123456789012:function:{name}"
        return {"Name": name, "EventBusName": "shop-bus", "EventPattern": pattern, "Targets": [{"Arn": target}]}

    rules = [
        rule("first", {"source": ["shop"]}),
        rule("second", {"source": ["shop"]}),
        rule("live", {"source": ["shop"], "replay-name": [{"exists": False}]}),
    ]
    failures: list[str] = []
    targets = RecordingTargets()
    scheduler, sales = Scheduler(Clock(), failures.append), archive()
    bus = Bus(
        names=["default", "shop-bus"],
        rules=read_rules(rules, ["lambda"]),
        scheduler=scheduler,
        targets=targets,
        on_event=lambda _accepted: None,
        on_failure=failures.append,
        archives=[sales],
    )
    bus.start()
    entry = {"EventBusName": "shop-bus", "Source": "shop", "DetailType": "Sold", "Detail": '{"n": 1}', "Time": NOON}
    bus.put_events([entry])
    wait_until(lambda: len(targets.delivered) == 3)
    yield ArchivedBus(bus, sales, targets)
    bus.stop()
    assert failures == []


def test_a_replay_reaches_every_rule_that_matches_replayed_events(archived: ArchivedBus) -> None:
    live = archived.delivered()[-1][1]
    archived.targets.delivered.clear()
    archived.replay()
    archived.bus.stop()
    assert archived.delivered() == [(rule, live | {"replay-name": "again"}) for rule in ("first", "second")]
    assert kept(archived.archive) == [live["id"]]


@pytest.mark.parametrize(("rules", "targets"), [(["second"], ["second"]), (["live"], []), (["none"], [])])
def test_a_replay_for_certain_rules_reaches_no_others(
    archived: ArchivedBus, rules: list[str], targets: list[str]
) -> None:
    archived.targets.delivered.clear()
    archived.replay(*rules)
    archived.bus.stop()
    assert [target for target, _ in archived.delivered()] == targets
