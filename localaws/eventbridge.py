"""EventBridge: accepts events, matches them against the rules, and delivers them to the rules' targets."""

import json
import threading
import uuid
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from queue import SimpleQueue
from typing import Any

from localaws.archives import Archive
from localaws.aws import ACCOUNT_ID, REGION, ServiceError
from localaws.delivery import FailedDelivery, RetryPolicy, Scheduler, Undelivered, deliver, run_at_once
from localaws.event_pattern import EventPattern, InvalidEventPattern
from localaws.faults import NO_FAULTS, Faults
from localaws.input_transformer import Input, Match, read_input, whole_event
from localaws.schedule_expressions import Times, read_rule_times, run_at
from localaws.targets import Targets, UnsupportedTarget, is_bus, is_http, service_of

MAX_ENTRIES = 10
MAX_BYTES = 1024 * 1024
"""Limits of one PutEvents request (EventBridge quotas, since January 2026)."""
MAX_DETAIL_TYPE = 128
MAX_RESOURCE = 2048
MAX_TRACE_HEADER = 500
"""Limits of an entry's fields, in characters (PutEventsRequestEntry, EventBridge API reference)."""

ENABLED = {"ENABLED", "ENABLED_WITH_ALL_CLOUDTRAIL_MANAGEMENT_EVENTS"}


@dataclass(frozen=True)
class Target:
    """A rule's target: its ARN, its input, its retry policy and the ARN of its dead-letter queue."""

    arn: str
    payload: Input = whole_event
    policy: RetryPolicy = field(default_factory=RetryPolicy)
    dead_letters: str | None = None


@dataclass(frozen=True)
class Rule:
    """An enabled rule with an event pattern, a schedule, or both."""

    name: str
    bus: str
    pattern: EventPattern | None
    targets: tuple[Target, ...]
    times: Times | None = None


@dataclass(frozen=True)
class Accepted:
    """An event that a bus has accepted, with the matching rules. `forwarded` is true if another bus sent it."""

    bus: str
    event: dict[str, Any]
    rules: tuple[Rule, ...]
    trace_header: str | None
    ingestion_time: str
    forwarded: bool


def read_rules(rules: Iterable[Mapping[str, Any]], delivers_to: Iterable[str]) -> list[Rule]:
    """Returns the enabled rules.

    Args:
        rules: resolved properties of `AWS::Events::Rule` resources. Disabled rules are left out.
        delivers_to: supported services of a target, as in its ARN.

    Raises:
        InvalidEventPattern: EventBridge would reject the pattern. The message names the rule.
        UnsupportedTarget: the target or its input is not supported, or EventBridge would reject the schedule. The
            message names the rule.
    """
    known = frozenset(delivers_to)
    return [_read_rule(rule, known) for rule in rules if rule.get("State", "ENABLED") in ENABLED]


def _read_rule(rule: Mapping[str, Any], known: frozenset[str]) -> Rule:
    name = rule.get("Name", "(unnamed)")
    bus = rule.get("EventBusName", "default").rpartition("event-bus/")[2]  # may be an ARN
    try:
        targets = tuple(_read_target(target, known) for target in rule.get("Targets", []))
        times = read_rule_times(rule["ScheduleExpression"]) if rule.get("ScheduleExpression") else None
        if times and bus != "default":
            raise UnsupportedTarget("ScheduleExpression is supported only on the default event bus")
    except (ValueError, UnsupportedTarget) as error:
        raise UnsupportedTarget(f"rule {name}: {error}") from error
    try:
        pattern = EventPattern(rule["EventPattern"]) if "EventPattern" in rule else None
    except InvalidEventPattern as error:
        raise InvalidEventPattern(f"rule {name}", str(error)) from error
    return Rule(name, bus, pattern, targets, times)


def _read_target(target: Mapping[str, Any], known: frozenset[str]) -> Target:
    arn, payload = target["Arn"], read_input(target)
    if service_of(arn) not in known or (service_of(arn) == "events" and not is_bus(arn) and not is_http(arn)):
        raise UnsupportedTarget(f"delivery to {arn} is not supported")
    if (is_bus(arn) or service_of(arn) == "logs") and payload is not whole_event:
        # a bus accepts whole events only; a log group accepts a template of two fixed fields, not implemented here
        raise UnsupportedTarget(f"modifying the input for {arn} is not supported")
    if "SqsParameters" in target:
        raise UnsupportedTarget(f"message groups are not supported: {arn}")
    if "HttpParameters" in target:
        raise UnsupportedTarget(f"path, header and query parameters are not supported: {arn}")
    policy = RetryPolicy.of(target.get("RetryPolicy", {}))
    return Target(arn, payload, policy, target.get("DeadLetterConfig", {}).get("Arn"))


@dataclass(eq=False, kw_only=True)
class Bus:
    """The event buses of one account and region.

    Args:
        names: names of the buses, with `default`.
        targets: deliver to all targets but buses. Deliveries to API destinations run on their threads, because an
            endpoint may be slow.
        on_event: called with every accepted event.
        on_failure: called with one line about each failed delivery: the event, the reason and its new place.
        now: returns the current time, for scheduled rules.
    """

    names: Collection[str]
    rules: Sequence[Rule]
    scheduler: Scheduler
    targets: Targets
    on_event: Callable[[Accepted], None]
    on_failure: Callable[[str], None]
    archives: Sequence[Archive] = ()
    faults: Faults = NO_FAULTS
    now: Callable[[], datetime] = lambda: datetime.now(UTC)

    def __post_init__(self) -> None:
        self._queue: SimpleQueue[Accepted | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="bus", daemon=True)

    def start(self) -> None:
        """Start the deliveries and the schedules."""
        self._thread.start()
        for rule in self.rules:
            if rule.times:
                run_at(rule.times, partial(self._run_scheduled, rule), self.scheduler, self.now)

    def stop(self) -> None:
        """Deliver the accepted events, then stop."""
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join()

    def put_events(self, entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Answers PutEvents. Each entry is accepted or rejected separately.

        Raises:
            ServiceError: the whole request is rejected.
        """
        _check_request(entries)
        return [self._take(entry) for entry in entries]

    def replay(self, arn: str, event: dict[str, Any], rules: Collection[str]) -> None:
        """Send an event to a bus, given by its ARN, for the rules with these ARNs; for all rules if there are none."""
        bus = arn.removeprefix(self._arn("event-bus/"))
        self._queue.put(self._accept(bus, event, None, forwarded=False, only=rules))

    def _run_scheduled(self, rule: Rule, due: datetime) -> None:
        """Sends a scheduled event to the targets of its rule, and to no other rule."""
        about = {"DetailType": "Scheduled Event", "Source": "aws.events", "Time": due.timestamp(), "Detail": "{}"}
        event = self._envelope({**about, "Resources": [self._rule_arn(rule)]})
        accepted = Accepted(rule.bus, event, (rule,), None, _seconds(datetime.now(UTC)), forwarded=False)
        self.on_event(accepted)
        self._queue.put(accepted)

    def _take(self, entry: dict[str, Any]) -> dict[str, Any]:
        refusal = self._refusal(entry)
        if refusal:
            return {"ErrorCode": refusal[0], "ErrorMessage": refusal[1]}
        event = self._envelope(entry)
        self._queue.put(self._accept(self._bus_name(entry), event, entry.get("TraceHeader"), forwarded=False))
        return {"EventId": event["id"]}

    def _accept(
        self, bus: str, event: dict[str, Any], trace_header: str | None, *, forwarded: bool, only: Collection[str] = ()
    ) -> Accepted:
        asked = (rule for rule in self.rules if rule.bus == bus and (not only or self._rule_arn(rule) in only))
        matched = tuple(rule for rule in asked if rule.pattern and rule.pattern.matches(event))
        accepted = Accepted(bus, event, matched, trace_header, _seconds(datetime.now(UTC)), forwarded)
        for archive in self.archives:
            archive.keep(bus, event)
        self.on_event(accepted)
        return accepted

    def _refusal(self, entry: dict[str, Any]) -> tuple[str, str] | None:
        for name in ("Source", "DetailType", "Detail"):
            if not entry.get(name):
                return "InvalidArgument", f"Parameter {name} is not valid. Reason: {name} is a required argument."
        if len(entry["DetailType"]) > MAX_DETAIL_TYPE:
            return "InvalidArgument", f"Parameter DetailType is not valid. Reason: longer than {MAX_DETAIL_TYPE}."
        if entry["Source"].startswith("aws."):
            return "NotAuthorizedForSourceException", "Not authorized for the source."
        if self._bus_name(entry) not in self.names:
            # EventBridge accepts the entry and drops the event. Here it is rejected, because it is always a mistake
            return "InvalidArgument", f"Event bus {self._bus_name(entry)} does not exist."
        return None if _is_object(entry["Detail"]) else ("MalformedDetail", "Detail is malformed.")

    def _bus_name(self, entry: dict[str, Any]) -> str:
        """Returns the name in EventBusName, which may be an ARN. An ARN of another account or region is unchanged."""
        return str(entry.get("EventBusName", "default")).removeprefix(self._arn("event-bus/"))

    def _arn(self, resource: str) -> str:
        return f"arn:aws:events:{REGION}:{ACCOUNT_ID}:{resource}"

    def _envelope(self, entry: dict[str, Any]) -> dict[str, Any]:
        time = datetime.fromtimestamp(entry["Time"], UTC) if "Time" in entry else datetime.now(UTC)
        return {
            "version": "0",
            "id": str(uuid.uuid4()),
            "detail-type": entry["DetailType"],
            "source": entry["Source"],
            "account": ACCOUNT_ID,
            "time": _seconds(time),
            "region": REGION,
            "resources": entry.get("Resources", []),
            "detail": json.loads(entry["Detail"]),
        }

    def _run(self) -> None:
        while accepted := self._queue.get():
            self._deliver_all(accepted)

    def _deliver_all(self, accepted: Accepted) -> None:
        for rule in accepted.rules:
            for target in rule.targets:
                self._deliver(rule, target, accepted)

    def _deliver(self, rule: Rule, target: Target, accepted: Accepted) -> None:
        def attempt() -> None:
            if self.faults.inject("rule", rule.name, ("error",), target=target.arn, event=accepted.event["id"]):
                raise Undelivered("INTERNAL_ERROR", "injected fault", retriable=True)
            try:
                if is_bus(target.arn):
                    self._forward(target.arn, accepted)
                else:
                    match = Match(accepted.event, rule.name, self._rule_arn(rule), accepted.ingestion_time)
                    self.targets.deliver(target.arn, target.payload(match), accepted.trace_header)
            except Undelivered:
                raise
            except Exception as error:  # no error of a target may lose the event
                raise Undelivered("INTERNAL_ERROR", f"{type(error).__name__}: {error}", retriable=True) from error

        def begin() -> None:
            run = self.targets.http.run if is_http(target.arn) else run_at_once
            on_failed = partial(self._send_to_dlq, rule, target, accepted)
            name = f"{accepted.event['detail-type']} {accepted.event['id']} by rule {rule.name}"
            deliver(
                self.scheduler, attempt, target.policy, on_failed, run, lambda text: self.on_failure(f"{name}: {text}")
            )

        what = {"target": target.arn, "event": accepted.event["id"]}
        fault = self.faults.inject("rule", rule.name, ("duplicate", "delay"), **what)
        if fault and fault.kind == "delay":
            self.scheduler.after(fault.seconds, begin)
            return
        begin()
        if fault:
            begin()

    def _forward(self, arn: str, accepted: Accepted) -> None:
        """Send an event unchanged to another bus.

        Raises:
            Undelivered: the bus does not exist here, or the event already came from another bus ("EventBridge can't
                route events received from a sender event bus to a third event bus", user guide).
        """
        name = arn.removeprefix(self._arn("event-bus/"))
        if name not in self.names:
            raise Undelivered("NO_RESOURCE", f"{arn} does not exist", retriable=False)
        if accepted.forwarded:
            reason = "an event from another bus cannot be sent to a third bus"
            raise Undelivered("THIRD_ACCOUNT_HOP_DETECTED", reason, retriable=False)
        self._deliver_all(self._accept(name, accepted.event, accepted.trace_header, forwarded=True))

    def _send_to_dlq(self, rule: Rule, target: Target, accepted: Accepted, failed: FailedDelivery) -> None:
        """Sends an undelivered event to its target's DLQ, with the reason in the message attributes."""
        what = f"{accepted.event['detail-type']} {accepted.event['id']} by rule {rule.name}: {failed.error}"
        body = json.dumps(accepted.event, separators=(",", ":"))
        attributes = {"RULE_ARN": self._rule_arn(rule), "TARGET_ARN": target.arn, **failed.attributes}
        self.targets.send_to_failure_destination(what, target.dead_letters, body, attributes, report=self.on_failure)

    def _rule_arn(self, rule: Rule) -> str:
        return self._arn(f"rule/{rule.name if rule.bus == 'default' else f'{rule.bus}/{rule.name}'}")


def _check_request(entries: list[dict[str, Any]]) -> None:
    """Checks the limits of a request.

    Raises:
        ServiceError: there are too many entries, or an entry is too long.
    """
    if not 1 <= len(entries) <= MAX_ENTRIES:
        limit = f"less than or equal to {MAX_ENTRIES}" if entries else "greater than or equal to 1"
        message = f"1 validation error detected: Value with {len(entries)} members at 'entries' failed to satisfy"
        raise ServiceError("ValidationException", f"{message} constraint: Member must have length {limit}")
    for entry in entries:
        if len(entry.get("TraceHeader", "")) > MAX_TRACE_HEADER:
            raise ServiceError("ValidationException", f"TraceHeader has more than {MAX_TRACE_HEADER} characters")
        if any(len(resource) > MAX_RESOURCE for resource in entry.get("Resources", [])):
            raise ServiceError("ValidationException", f"one of Resources has more than {MAX_RESOURCE} characters")
    if sum(_size(entry) for entry in entries) > MAX_BYTES:
        raise ServiceError("ValidationException", "Total size of the entries in the request is over the limit.")


def _is_object(detail: str) -> bool:
    try:
        return isinstance(json.loads(detail, parse_constant=_refuse), dict)
    except (ValueError, RecursionError):  # Python's limit is close to EventBridge's, 1,100 levels
        return False


def _refuse(constant: str) -> None:
    """Rejects NaN and Infinity: Python accepts them, JSON does not have them."""
    raise ValueError(constant)


def _seconds(time: datetime) -> str:
    """Returns a time in the format of events: EventBridge keeps whole seconds."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ")


def _size(entry: dict[str, Any]) -> int:
    """Returns the size of an entry in bytes (EventBridge user guide, "Calculating PutEvents event entry size")."""
    texts = [entry.get("Source", ""), entry.get("DetailType", ""), entry.get("Detail", ""), *entry.get("Resources", [])]
    return sum(len(text.encode()) for text in texts) + (14 if "Time" in entry else 0)
