"""EventBridge archives and replays: archives store the events of a bus, replays send those of a time range again.

Sources: "Archiving and replaying events in Amazon EventBridge" (user guide), StartReplay and Replay (API reference).
"""

import json
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from localaws.aws import ACCOUNT_ID, REGION, ServiceError
from localaws.event_pattern import EventPattern, InvalidEventPattern

MAX_EVENTS = 50_000
"""An archive keeps this many of the newest events. With Orderflow's events this takes about 80 MB."""

_NAME = re.compile(r"[.\-_A-Za-z0-9]{1,64}")
_RUNNING = ("STARTING", "RUNNING")

Request = dict[str, Any]


@dataclass(frozen=True)
class Archive:
    """The events of a bus that match the archive's pattern, as JSON with the time in seconds since the epoch.

    Args:
        arn: ARN of the archive.
        source: ARN of the event bus.
        pattern: selects the events to keep.
        pattern_text: JSON of the template's EventPattern.
    """

    arn: str
    source: str
    pattern: EventPattern
    pattern_text: str
    _events: deque[tuple[float, str]] = field(default_factory=lambda: deque(maxlen=MAX_EVENTS))
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def keep(self, bus: str, event: dict[str, Any]) -> None:
        """Store an event if it is from the archive's bus and matches its pattern. `bus` is the name of the bus."""
        if self.source.endswith(f":event-bus/{bus}") and self.pattern.matches(event):
            with self._lock:
                self._events.append((_time(event), json.dumps(event)))

    def count(self) -> int:
        """Returns the number of stored events."""
        return len(self._events)

    def between(self, begin: float, end: float) -> list[dict[str, Any]]:
        """Returns the events from `begin` (inclusive) to `end` (exclusive), sorted by minute.

        The field `time` of the event decides: "prior to the EventEndTime" (API reference, Replay).
        """
        with self._lock:
            inside = [(moment, event) for moment, event in self._events if begin <= moment < end]
        return [json.loads(event) for _, event in sorted(inside, key=lambda kept: kept[0] // 60)]


def read_archive(arn: str, properties: Mapping[str, Any]) -> Archive:
    """Returns the archive with an ARN and the resolved properties of an `AWS::Events::Archive`.

    Raises:
        InvalidEventPattern: EventBridge would reject the pattern. The message names the archive and the reason.
    """
    no_replays = {"replay-name": [{"exists": False}]}  # EventBridge adds this to the pattern
    try:
        pattern = EventPattern(properties.get("EventPattern", {}) | no_replays)
    except InvalidEventPattern as error:
        raise InvalidEventPattern(f"archive {arn.rpartition('/')[2]}", str(error)) from error
    return Archive(arn, properties["SourceArn"], pattern, json.dumps(properties.get("EventPattern", {})))


@dataclass(eq=False)
class Replays:
    """The archives of a template and their replays, which are kept until the process ends.

    Args:
        buses: names of the event buses.
        send: sends an event to a bus, given by its ARN, for the rules with these ARNs; for all rules if there are none.
    """

    archives: Sequence[Archive]
    buses: Collection[str]
    send: Callable[[str, dict[str, Any], Collection[str]], None]

    def __post_init__(self) -> None:
        self._archives = {archive.arn: archive for archive in self.archives}
        self._replays: dict[str, dict[str, Any]] = {}
        self._lock = threading.Lock()

    def answer(self, action: str, request: Request) -> dict[str, Any]:
        """Answers DescribeArchive, StartReplay, DescribeReplay, ListReplays or CancelReplay.

        Times are in seconds since the epoch.

        Raises:
            ServiceError: the request is rejected.
        """
        with self._lock:
            match action:
                case "StartReplay":
                    return self._start(request)
                case "ListReplays":
                    return self._list(request)
                case "DescribeArchive":
                    return self._describe(request["ArchiveName"])
                case "CancelReplay":
                    return self._cancel(self._find(request["ReplayName"]))
                case _:
                    return dict(self._find(request["ReplayName"]))

    def _list(self, request: Request) -> dict[str, Any]:
        begin = int(request.get("NextToken", 0))
        end = begin + int(request.get("Limit", 100))
        found = [dict(replay) for replay in self._replays.values() if _wanted(replay, request)]
        return {"Replays": found[begin:end]} | ({"NextToken": str(end)} if end < len(found) else {})

    def _describe(self, name: str) -> dict[str, Any]:
        archive = self._archives.get(f"arn:aws:events:{REGION}:{ACCOUNT_ID}:archive/{name}")
        if archive is None:
            raise ServiceError("ResourceNotFoundException", f"Archive {name} does not exist.")
        about = {"ArchiveArn": archive.arn, "ArchiveName": name, "EventSourceArn": archive.source, "State": "ENABLED"}
        return about | {"EventPattern": archive.pattern_text, "EventCount": archive.count()}

    def _find(self, name: str) -> dict[str, Any]:
        if name not in self._replays:
            raise ServiceError("ResourceNotFoundException", f"Replay {name} does not exist.")
        return self._replays[name]

    def _start(self, request: Request) -> dict[str, Any]:
        name = request["ReplayName"]
        if not _NAME.fullmatch(name):
            raise _invalid("ReplayName", f"{name} must be 1 to 64 letters, digits, dots, hyphens or underscores")
        archive = self._archives.get(request["EventSourceArn"])
        if archive is None:
            raise _invalid("EventSourceArn", f"Archive {request['EventSourceArn']} does not exist.")
        bus = request["Destination"]["Arn"].rpartition("event-bus/")[2]
        if bus not in self.buses:
            raise ServiceError("ResourceNotFoundException", f"Event bus {bus} does not exist.")
        if request["Destination"]["Arn"] != archive.source:
            raise _invalid("Destination.Arn", "Cross event bus replay is not permitted.")
        if request["EventStartTime"] >= request["EventEndTime"]:
            raise _invalid("EventEndTime", "EventStartTime must be before EventEndTime.")
        if name in self._replays:
            raise ServiceError("ResourceAlreadyExistsException", f"Replay {name} already exists.")
        arn = f"{archive.arn.rpartition(':')[0]}:replay/{name}"
        replay = self._replays[name] = {
            **request,
            "ReplayArn": arn,
            "State": "STARTING",
            "ReplayStartTime": time.time(),
        }
        threading.Thread(target=self._run, args=(archive, replay), name=arn, daemon=True).start()
        return dict(replay)

    def _cancel(self, replay: dict[str, Any]) -> dict[str, Any]:
        if replay["State"] not in _RUNNING:
            message = f"Replay {replay['ReplayName']} is not in a valid state for this operation."
            raise ServiceError("IllegalStatusException", message)
        replay["State"] = "CANCELLING"
        return dict(replay)

    def _run(self, archive: Archive, replay: dict[str, Any]) -> None:
        destination, name = replay["Destination"], replay["ReplayName"]
        for event in archive.between(replay["EventStartTime"], replay["EventEndTime"]):
            with self._lock:
                if replay["State"] not in _RUNNING:
                    break
                replay |= {"State": "RUNNING", "EventLastReplayedTime": _time(event)}
            self.send(destination["Arn"], {**event, "replay-name": name}, destination.get("FilterArns", ()))
        with self._lock:
            ended = "COMPLETED" if replay["State"] in _RUNNING else "CANCELLED"
            replay |= {"State": ended, "ReplayEndTime": time.time()}


def _time(event: Mapping[str, Any]) -> float:
    return datetime.fromisoformat(event["time"]).timestamp()


def _wanted(replay: Mapping[str, Any], request: Request) -> bool:
    """Returns whether a replay matches the filters of ListReplays."""
    equal = (request.get(key, replay[key]) == replay[key] for key in ("State", "EventSourceArn"))
    return all(equal) and replay["ReplayName"].startswith(request.get("NamePrefix", ""))


def _invalid(parameter: str, reason: str) -> ServiceError:
    return ServiceError("ValidationException", f"Parameter {parameter} is not valid. Reason: {reason}")
