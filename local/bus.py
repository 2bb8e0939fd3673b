"""EventBridge: takes events in, matches them against the rules, and hands them to the rules' targets."""

import json
import threading
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from queue import SimpleQueue
from typing import Any

from local.delivery import GivenUp, RetryPolicy, Scheduler, Undelivered, deliver
from local.patterns import EventPattern, InvalidEventPattern
from local.store import ServiceError

MAX_ENTRIES = 10
MAX_BYTES = 1024 * 1024
"""Limits of one PutEvents request (EventBridge quotas, since January 2026)."""


@dataclass(frozen=True)
class Target:
    """Where a rule sends its events, how often it tries, and where an event goes that it cannot deliver."""

    arn: str
    policy: RetryPolicy = field(default_factory=RetryPolicy)
    dead_letters: str | None = None


@dataclass(frozen=True)
class Rule:
    """An enabled rule with an event pattern."""

    name: str
    bus: str
    pattern: EventPattern
    targets: tuple[Target, ...]


@dataclass(frozen=True)
class Accepted:
    """An event that the bus has taken in, with the rules that it matched."""

    bus: str
    event: dict[str, Any]
    rules: tuple[Rule, ...]
    trace_header: str | None


class UnsupportedTarget(Exception):
    """A rule of the template sends to something that this runner does not deliver to."""


def read_rules(rules: Iterable[Mapping[str, Any]], delivers_to: Iterable[str]) -> list[Rule]:
    """The rules of a template that events can match.

    Args:
        rules: resolved properties of `AWS::Events::Rule` resources. Those without a pattern are schedules and left
            out, and so are disabled ones.
        delivers_to: the services whose ARNs a target may name.

    Raises:
        InvalidEventPattern: naming the rule and what EventBridge would refuse in its pattern.
        UnsupportedTarget: naming the rule and the target.
    """
    known = frozenset(delivers_to)
    return [
        _read_rule(rule, known)
        for rule in rules
        if "EventPattern" in rule and rule.get("State", "ENABLED") == "ENABLED"
    ]


def _read_rule(rule: Mapping[str, Any], known: frozenset[str]) -> Rule:
    name = rule.get("Name", "(unnamed)")
    targets = tuple(_read_target(target) for target in rule.get("Targets", []))
    for target in targets:
        if service_of(target.arn) not in known:
            raise UnsupportedTarget(f"rule {name}: no delivery to {target.arn}")
    try:
        pattern = EventPattern(rule["EventPattern"])
    except InvalidEventPattern as error:
        raise InvalidEventPattern(f"rule {name}", str(error)) from error
    return Rule(name, rule.get("EventBusName", "default"), pattern, targets)


def _read_target(target: Mapping[str, Any]) -> Target:
    policy = RetryPolicy.of(target.get("RetryPolicy", {}))
    return Target(target["Arn"], policy, target.get("DeadLetterConfig", {}).get("Arn"))


def service_of(arn: str) -> str:
    """The service in an ARN: `arn:aws:lambda:…` → `lambda`."""
    return arn.split(":")[2]


class Bus:
    """The buses of one account and region.

    Args:
        names: the buses that exist, besides `default`.
        rules: from `read_rules`.
        scheduler: runs the retries.
        hand_over: gives an event to a target; raises Undelivered if the target does not take it.
        send: puts a message with text attributes into a queue, by its ARN; it may raise.
        on_event: is shown every event taken in.
        on_failure: is told, in a line, what could not be delivered, why, and where it is now.
        region, account_id: for the events' envelopes.
    """

    def __init__(
        self,
        *,
        names: Iterable[str],
        rules: Iterable[Rule],
        scheduler: Scheduler,
        hand_over: Callable[[Target, Accepted], None],
        send: Callable[[str, str, Mapping[str, str]], None],
        on_event: Callable[[Accepted], None],
        on_failure: Callable[[str], None],
        region: str,
        account_id: str,
    ) -> None:
        self._names = {"default", *names}
        self._rules = list(rules)
        self._scheduler = scheduler
        self._give = hand_over
        self._send = send
        self._on_event = on_event
        self._on_failure = on_failure
        self._region = region
        self._account_id = account_id
        self._queue: SimpleQueue[Accepted | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="bus", daemon=True)

    def start(self) -> None:
        """Begin to deliver."""
        self._thread.start()

    def stop(self) -> None:
        """Deliver what was taken in, then end."""
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join()

    def put_events(self, entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """PutEvents: each entry is taken in or refused for itself.

        Raises:
            ServiceError: the request as a whole is refused.
        """
        if not 1 <= len(entries) <= MAX_ENTRIES:
            raise ServiceError(
                "ValidationException", f"Entries must hold 1 to {MAX_ENTRIES} entries, not {len(entries)}"
            )
        size = sum(_size(entry) for entry in entries)
        if size > MAX_BYTES:
            raise ServiceError(
                "ValidationException", f"Total size of the entries is {size} bytes, the limit {MAX_BYTES}"
            )
        return [self._take(entry) for entry in entries]

    def _take(self, entry: dict[str, Any]) -> dict[str, Any]:
        refusal = self._refusal(entry)
        if refusal:
            return {"ErrorCode": refusal[0], "ErrorMessage": refusal[1]}
        bus = _bus_name(entry)
        event = self._envelope(entry)
        matched = tuple(rule for rule in self._rules if rule.bus == bus and rule.pattern.matches(event))
        accepted = Accepted(bus, event, matched, entry.get("TraceHeader"))
        self._on_event(accepted)
        self._queue.put(accepted)
        return {"EventId": event["id"]}

    def _refusal(self, entry: dict[str, Any]) -> tuple[str, str] | None:
        for name in ("Source", "DetailType", "Detail"):
            if not entry.get(name):
                return "InvalidArgument", f"Parameter {name} is not valid. Reason: {name} is a required argument."
        if entry["Source"].startswith("aws."):
            return "NotAuthorizedForSourceException", "Not authorized for the source."
        if _bus_name(entry) not in self._names:
            # EventBridge answers so and drops the event; here it is refused, because it is always a mistake
            return "InvalidArgument", f"Event bus {_bus_name(entry)} does not exist."
        try:
            detail = json.loads(entry["Detail"])
        except ValueError:
            return "MalformedDetail", "Detail is malformed."
        return None if isinstance(detail, dict) else ("MalformedDetail", "Detail is not a JSON object.")

    def _envelope(self, entry: dict[str, Any]) -> dict[str, Any]:
        time = datetime.fromtimestamp(entry["Time"], UTC) if "Time" in entry else datetime.now(UTC)
        return {
            "version": "0",
            "id": str(uuid.uuid4()),
            "detail-type": entry["DetailType"],
            "source": entry["Source"],
            "account": self._account_id,
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ"),  # EventBridge keeps whole seconds
            "region": self._region,
            "resources": entry.get("Resources", []),
            "detail": json.loads(entry["Detail"]),
        }

    def _run(self) -> None:
        while accepted := self._queue.get():
            for rule in accepted.rules:
                for target in rule.targets:
                    self._deliver(rule, target, accepted)

    def _deliver(self, rule: Rule, target: Target, accepted: Accepted) -> None:
        def attempt() -> None:
            try:
                self._give(target, accepted)
            except Undelivered:
                raise
            except Exception as error:  # whatever it is, the event must not be lost with it
                raise Undelivered("INTERNAL_ERROR", f"{type(error).__name__}: {error}", retriable=True) from error

        deliver(self._scheduler, attempt, target.policy, lambda given_up: self._bury(rule, target, accepted, given_up))

    def _bury(self, rule: Rule, target: Target, accepted: Accepted, given_up: GivenUp) -> None:
        """Send an event that was not delivered to its target's DLQ, with the attributes that say why."""
        what = f"{accepted.event['detail-type']} {accepted.event['id']} by rule {rule.name}: {given_up.error}"
        if target.dead_letters is None:
            self._on_failure(f"{what}; lost, the target has no DLQ")
            return
        attributes = {
            "RULE_ARN": self._rule_arn(rule),
            "TARGET_ARN": target.arn,
            "ERROR_CODE": given_up.error.code,
            "ERROR_MESSAGE": given_up.error.message,
            "RETRY_ATTEMPTS": str(given_up.retries),
        }
        if given_up.condition is not None:
            attributes["EXHAUSTED_RETRY_CONDITION"] = given_up.condition
        try:
            self._send(target.dead_letters, json.dumps(accepted.event), attributes)
        except Exception as error:  # in AWS too the event is lost then; here somebody is told
            self._on_failure(f"{what}; lost, not sent to {target.dead_letters}: {error}")
        else:
            self._on_failure(f"{what}; sent to {target.dead_letters}")

    def _rule_arn(self, rule: Rule) -> str:
        path = rule.name if rule.bus == "default" else f"{rule.bus}/{rule.name}"
        return f"arn:aws:events:{self._region}:{self._account_id}:rule/{path}"


def _bus_name(entry: dict[str, Any]) -> str:
    """The name in EventBusName, which may be a name or an ARN."""
    return str(entry.get("EventBusName", "default")).rpartition("event-bus/")[2]


def _size(entry: dict[str, Any]) -> int:
    """What an entry counts for (EventBridge user guide, "Calculating PutEvents event entry size")."""
    texts = [entry.get("Source", ""), entry.get("DetailType", ""), entry.get("Detail", ""), *entry.get("Resources", [])]
    return sum(len(text.encode()) for text in texts) + (14 if "Time" in entry else 0)
