"""EventBridge Scheduler: delivers a schedule's input to its target at the scheduled time, in real time.

Sources: "Schedule types" and "Configuring a dead-letter queue" (EventBridge Scheduler user guide), Schedule
(CloudFormation reference).
"""

import json
import re
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import takewhile
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from localaws.delivery import FailedDelivery, RetryPolicy, Scheduler, deliver
from localaws.schedule_expressions import Times, read_times, run_at
from localaws.targets import Targets, UnsupportedTarget, service_of

TARGETS = ("lambda", "sns", "sqs")
"""The supported target services."""

_ATTRIBUTE = re.compile("<aws[.]scheduler[.](scheduled-time|execution-id|schedule-arn)>")


@dataclass(frozen=True)
class Schedule:
    """An enabled schedule: its ARN and times, and the target's ARN, input, retry policy and dead-letter queue's ARN."""

    arn: str
    times: Times
    target: str
    input: str
    policy: RetryPolicy
    dead_letters: str | None


def read_schedule(arn: str, properties: Mapping[str, Any]) -> Schedule:
    """Returns the schedule with an ARN and the resolved properties of an `AWS::Scheduler::Schedule`.

    Raises:
        UnsupportedTarget: Scheduler would reject the schedule, or it is not supported here.
    """
    target = properties["Target"]
    payload = target.get("Input") or _default_input(arn)
    if service_of(target["Arn"]) not in TARGETS:
        raise UnsupportedTarget(f"schedule {arn}: only {', '.join(TARGETS)} are supported as targets")
    if "<aws.scheduler." in _ATTRIBUTE.sub("", payload):
        raise UnsupportedTarget(f"schedule {arn}: the context attribute attempt-number is not supported")
    try:
        zone = ZoneInfo(properties.get("ScheduleExpressionTimezone", "UTC"))
        times = _within(read_times(properties["ScheduleExpression"], zone), properties)
    except (ValueError, ZoneInfoNotFoundError) as error:
        raise UnsupportedTarget(f"schedule {arn}: {error}") from error
    policy, dead_letters = RetryPolicy.of(target.get("RetryPolicy", {})), target.get("DeadLetterConfig", {}).get("Arn")
    return Schedule(arn, times, target["Arn"], payload, policy, dead_letters)


def _default_input(arn: str) -> str:
    """Returns the event that a target without Input gets."""
    _, _, _, region, account, _ = arn.split(":", 5)
    about = {"version": "0", "id": "<aws.scheduler.execution-id>", "detail-type": "Scheduled Event"}
    about |= {"source": "aws.scheduler", "account": account, "time": "<aws.scheduler.scheduled-time>"}
    return json.dumps({**about, "region": region, "resources": [arn], "detail": "{}"}, separators=(",", ":"))


def _within(times: Times, properties: Mapping[str, Any]) -> Times:
    """Returns the times from StartDate to EndDate, in UTC. One-time schedules ignore both."""
    start, end = (
        datetime.fromisoformat(properties[name]).replace(tzinfo=UTC) if name in properties else None
        for name in ("StartDate", "EndDate")
    )
    if properties["ScheduleExpression"].startswith("at("):
        return times
    return lambda begin: takewhile(lambda time: end is None or time <= end, times(max(begin, start or begin)))


class Schedules:
    """All schedules of a template.

    Args:
        schedules: from `read_schedule`.
        scheduler: runs the waits and the retries.
        targets: deliver to the schedules' targets and dead-letter queues.
        on_failure: called with one line about each failed delivery: the schedule, the reason and the new place.
        now: returns the current time.
    """

    def __init__(
        self,
        schedules: Iterable[Schedule],
        *,
        scheduler: Scheduler,
        targets: Targets,
        on_failure: Callable[[str], None],
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._schedules = list(schedules)
        self._scheduler = scheduler
        self._targets = targets
        self._on_failure = on_failure
        self._now = now

    def start(self) -> None:
        """Start the schedules. They stop with the scheduler."""
        for schedule in self._schedules:
            run_at(schedule.times, partial(self._run, schedule), self._scheduler, self._now)

    def _run(self, schedule: Schedule, due: datetime) -> None:
        time = due.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        context = {"scheduled-time": time, "execution-id": str(uuid.uuid4()), "schedule-arn": schedule.arn}
        payload = _ATTRIBUTE.sub(lambda attribute: context[attribute[1]], schedule.input)

        def attempt() -> None:
            self._targets.deliver(schedule.target, payload)

        deliver(
            self._scheduler,
            attempt,
            schedule.policy,
            lambda end: self._send_to_dlq(schedule, time, payload, end),
            on_retry=lambda text: self._on_failure(f"schedule {schedule.arn} at {time}: {text}"),
        )

    def _send_to_dlq(self, schedule: Schedule, time: str, payload: str, failed: FailedDelivery) -> None:
        """Send an undelivered payload to the schedule's DLQ, with the reason in the message attributes."""
        what = f"schedule {schedule.arn} at {time}: {failed.error}"
        attributes = {
            "SCHEDULE_ARN": schedule.arn,
            "TARGET_ARN": schedule.target,
            "SCHEDULED_TIME": time,
            "EXECUTION_ID": str(uuid.uuid4()),
            **failed.attributes,
            "IS_PAYLOAD_TRUNCATED": "false",
        }
        self._targets.send_to_failure_destination(
            what, schedule.dead_letters, payload, attributes, report=self._on_failure
        )
