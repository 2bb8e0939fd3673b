"""EventBridge Scheduler: delivers a schedule's input to its target at the scheduled time, in real time.

Unlike the other waits in localaws/, schedules are not shortened by `--time-scale`: they refer to the real time of day.
Sources: "Schedule types" and "Configuring a dead-letter queue" (EventBridge Scheduler user guide), Schedule
(CloudFormation reference).
"""

import re
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from itertools import count
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from localaws.delivery import GivenUp, RetryPolicy, Scheduler, deliver, put_aside
from localaws.eventbridge import UnsupportedTarget, service_of

TARGETS = ("lambda", "sns", "sqs")
"""The supported target services."""
LOOK_SECONDS = 60.0
"""A waiting schedule reads the clock at least this often: its maximum delay after the machine slept."""

_EXPRESSION = re.compile(r"(cron|rate|at)\((.+)\)")
_RATE = re.compile(r"([1-9]\d*) (minute|hour|day)s?")
_SCHEDULED_TIME = "<aws.scheduler.scheduled-time>"
_DAYS = "x0123456xx"
"""CronSim's number of a weekday, indexed by Scheduler's number: 1 is Sunday, and 0, 8 and 9 are not valid."""

Times = Callable[[datetime], Iterator[datetime]]
"""Returns the times of a schedule from a start time on."""


@dataclass(frozen=True)
class Schedule:
    """An enabled schedule.

    Args:
        arn: ARN of the schedule.
        times: returns the scheduled times.
        target: ARN of the target.
        input: input of the target.
        policy: retry policy.
        dead_letters: ARN of the dead-letter queue, or None.
    """

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
    payload = target.get("Input", "")
    unknown = {"StartDate", "EndDate"} & properties.keys()
    if unknown or service_of(target["Arn"]) not in TARGETS or not payload:
        raise UnsupportedTarget(f"schedule {arn}: only {', '.join(TARGETS)} with Input, without StartDate and EndDate")
    if "<aws.scheduler." in payload.replace(_SCHEDULED_TIME, ""):
        raise UnsupportedTarget(f"schedule {arn}: {_SCHEDULED_TIME} is the only supported context attribute")
    try:
        zone = ZoneInfo(properties.get("ScheduleExpressionTimezone", "UTC"))
        times = read_times(properties["ScheduleExpression"], zone)
    except (ValueError, CronSimError, ZoneInfoNotFoundError) as error:
        raise UnsupportedTarget(f"schedule {arn}: {error}") from error
    policy, dead_letters = RetryPolicy.of(target.get("RetryPolicy", {})), target.get("DeadLetterConfig", {}).get("Arn")
    return Schedule(arn, times, target["Arn"], payload, policy, dead_letters)


def read_times(expression: str, zone: tzinfo) -> Times:
    """Returns the times of `cron(…)`, `rate(…)` or `at(…)`. The first time of a rate is the start time.

    Raises:
        ValueError: the expression has another form, or names years.
        CronSimError: a field of a cron expression is not valid.
    """
    match = _EXPRESSION.fullmatch(expression)
    if match is None:
        raise ValueError(f"{expression} must be cron(…), rate(…) or at(…)")
    kind, text = match.groups()
    match kind:
        case "cron":
            fields = _cron_fields(text)
            CronSim(fields, datetime.now(zone))  # raises CronSimError if a field is not valid
            return lambda begin: CronSim(fields, begin.astimezone(zone))
        case "rate":
            return _rate(text)
    moment = datetime.fromisoformat(text).replace(tzinfo=zone)
    return lambda begin: iter([moment] if moment >= begin else [])


def _cron_fields(text: str) -> str:
    """Converts Scheduler's six fields to CronSim's five: without the year, and Sunday is 0."""
    match text.split():
        case [minutes, hours, day, month, weekday, "*"] if (day == "?") != (weekday == "?"):
            days = re.sub(r"(?<![#/\d])\d", lambda number: _DAYS[int(number[0])], weekday)
            return " ".join((minutes, hours, day, month, days)).replace("?", "*")
    raise ValueError(f"cron({text}): must have six fields, with ? for one of the days and * for the year")


def _rate(text: str) -> Times:
    match = _RATE.fullmatch(text)
    if match is None:
        raise ValueError(f"rate({text}): must be a number of minutes, hours or days")
    period = timedelta(**{f"{match[2]}s": int(match[1])})
    return lambda begin: (begin + number * period for number in count())


class Schedules:
    """All schedules of a template.

    Args:
        schedules: from `read_schedule`.
        scheduler: runs the waits and the retries.
        hand_over: delivers a payload to a target, given by its ARN; raises Undelivered if the delivery fails.
        send: sends a message with text attributes to a queue, given by its ARN.
        on_failure: called with one line about each failed delivery: the schedule, the reason and the new place.
        now: returns the current time.
    """

    def __init__(
        self,
        schedules: Iterable[Schedule],
        *,
        scheduler: Scheduler,
        hand_over: Callable[[str, str, str | None], None],
        send: Callable[[str, str, Mapping[str, str]], None],
        on_failure: Callable[[str], None],
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._schedules = list(schedules)
        self._scheduler = scheduler
        self._hand_over = hand_over
        self._send = send
        self._on_failure = on_failure
        self._now = now

    def start(self) -> None:
        """Start the schedules. They stop with the scheduler."""
        for schedule in self._schedules:
            self._wait(schedule, schedule.times(self._now()))

    def _wait(self, schedule: Schedule, times: Iterator[datetime], after: datetime | None = None) -> None:
        """Wait for the next time. Times that passed while the machine slept are skipped."""
        due = next((time for time in times if after is None or time > after), None)
        if due is not None:
            self._look_at(schedule, times, due)

    def _look_at(self, schedule: Schedule, times: Iterator[datetime], due: datetime) -> None:
        def look() -> None:
            now = self._now()
            if now < due:
                self._look_at(schedule, times, due)
                return
            self._wait(schedule, times, after=now)  # first, so that a failed run does not stop the schedule
            self._run(schedule, due)

        left = max((due - self._now()).total_seconds(), 0)
        self._scheduler.after(min(left, LOOK_SECONDS) * self._scheduler.clock.scale, look)

    def _run(self, schedule: Schedule, due: datetime) -> None:
        time = due.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        payload = schedule.input.replace(_SCHEDULED_TIME, time)

        def attempt() -> None:
            self._hand_over(schedule.target, payload, None)

        deliver(
            self._scheduler,
            attempt,
            schedule.policy,
            lambda end: self._bury(schedule, time, payload, end),
            on_retry=lambda text: self._on_failure(f"schedule {schedule.arn} at {time}: {text}"),
        )

    def _bury(self, schedule: Schedule, time: str, payload: str, given_up: GivenUp) -> None:
        """Send an undelivered payload to the schedule's DLQ, with the reason in the message attributes."""
        what = f"schedule {schedule.arn} at {time}: {given_up.error}"
        attributes = {
            "SCHEDULE_ARN": schedule.arn,
            "TARGET_ARN": schedule.target,
            "SCHEDULED_TIME": time,
            "EXECUTION_ID": str(uuid.uuid4()),
            **given_up.attributes,
            "IS_PAYLOAD_TRUNCATED": "false",
        }
        put_aside(what, schedule.dead_letters, lambda queue: self._send(queue, payload, attributes), self._on_failure)
