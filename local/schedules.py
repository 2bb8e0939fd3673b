"""EventBridge Scheduler: hands a schedule's input to its target when it is time, by the clock on the wall.

The other waits of local/ pass as fast as `--time-scale` says. A time of day does not: it is what people mean by it.
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

from local.bus import UnsupportedTarget, service_of
from local.delivery import GivenUp, RetryPolicy, Scheduler, deliver, put_aside

TARGETS = ("lambda", "sns", "sqs")
"""The services that a schedule delivers to."""
LOOK_SECONDS = 60.0
"""How often a schedule looks at the clock at least: a machine that slept, or was set right, is late by so much."""

_EXPRESSION = re.compile(r"(cron|rate|at)\((.+)\)")
_RATE = re.compile(r"([1-9]\d*) (minute|hour|day)s?")
_SCHEDULED_TIME = "<aws.scheduler.scheduled-time>"
_DAYS = "x0123456xx"
"""CronSim's number of a day of the week, at Scheduler's: 1 is Sunday, and 0, 8 and 9 are no days."""

Times = Callable[[datetime], Iterator[datetime]]
"""The times of a schedule that begins at a moment."""


@dataclass(frozen=True)
class Schedule:
    """An enabled schedule.

    Args:
        arn: the schedule's.
        times: when it is due.
        target: the target's ARN.
        input: what the target gets.
        policy: how often and how long a delivery is tried again.
        dead_letters: the ARN of the queue that gets what could not be delivered, or None.
    """

    arn: str
    times: Times
    target: str
    input: str
    policy: RetryPolicy
    dead_letters: str | None


def read_schedule(arn: str, properties: Mapping[str, Any]) -> Schedule:
    """A schedule from the resolved properties of an `AWS::Scheduler::Schedule`.

    Args:
        arn: the schedule's.
        properties: of the resource.

    Raises:
        UnsupportedTarget: saying what Scheduler would refuse, or is not done here.
    """
    target = properties["Target"]
    payload = target.get("Input", "")
    unknown = {"StartDate", "EndDate"} & properties.keys()
    if unknown or service_of(target["Arn"]) not in TARGETS or not payload:
        raise UnsupportedTarget(f"schedule {arn}: only with Input, without StartDate and EndDate, to {TARGETS}")
    if "<aws.scheduler." in payload.replace(_SCHEDULED_TIME, ""):
        raise UnsupportedTarget(f"schedule {arn}: of the context attributes only {_SCHEDULED_TIME} is known")
    try:
        zone = ZoneInfo(properties.get("ScheduleExpressionTimezone", "UTC"))
        times = read_times(properties["ScheduleExpression"], zone)
    except (ValueError, CronSimError, ZoneInfoNotFoundError) as error:
        raise UnsupportedTarget(f"schedule {arn}: {error}") from error
    policy, dead_letters = RetryPolicy.of(target.get("RetryPolicy", {})), target.get("DeadLetterConfig", {}).get("Arn")
    return Schedule(arn, times, target["Arn"], payload, policy, dead_letters)


def read_times(expression: str, zone: tzinfo) -> Times:
    """The times of `cron(…)`, `rate(…)` or `at(…)`; a rate begins at once.

    Raises:
        ValueError: it is none of these, or names years.
        CronSimError: a field of a cron expression is wrong.
    """
    match = _EXPRESSION.fullmatch(expression)
    if match is None:
        raise ValueError(f"{expression} is none of cron(…), rate(…) and at(…)")
    kind, text = match.groups()
    match kind:
        case "cron":
            fields = _cron_fields(text)
            CronSim(fields, datetime.now(zone))  # says now what is wrong
            return lambda begin: CronSim(fields, begin.astimezone(zone))
        case "rate":
            return _rate(text)
    moment = datetime.fromisoformat(text).replace(tzinfo=zone)
    return lambda begin: iter([moment] if moment >= begin else [])


def _cron_fields(text: str) -> str:
    """Scheduler's six fields as CronSim's five: without the year, and Sunday is 0."""
    match text.split():
        case [minutes, hours, day, month, weekday, "*"] if (day == "?") != (weekday == "?"):
            days = re.sub(r"(?<![#/\d])\d", lambda number: _DAYS[int(number[0])], weekday)
            return " ".join((minutes, hours, day, month, days)).replace("?", "*")
    raise ValueError(f"cron({text}): six fields, with ? for one of the days and * for the year")


def _rate(text: str) -> Times:
    match = _RATE.fullmatch(text)
    if match is None:
        raise ValueError(f"rate({text}): a number of minutes, hours or days")
    period = timedelta(**{f"{match[2]}s": int(match[1])})
    return lambda begin: (begin + number * period for number in count())


class Schedules:
    """All schedules of a template.

    Args:
        schedules: from `read_schedule`.
        scheduler: looks at the clock, and runs the retries.
        hand_over: gives a payload to a target by its ARN; raises Undelivered if the target does not take it.
        send: puts a message with text attributes into a queue, by its ARN.
        on_failure: is told, in a line, what could not be delivered, why, and where it is now.
        now: the time.
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
        """Begin to wait; it ends with the scheduler."""
        for schedule in self._schedules:
            self._wait(schedule, schedule.times(self._now()))

    def _wait(self, schedule: Schedule, times: Iterator[datetime], after: datetime | None = None) -> None:
        """Wait for the next time. What was due while the machine slept is not made up for."""
        due = next((time for time in times if after is None or time > after), None)
        if due is not None:
            self._look_at(schedule, times, due)

    def _look_at(self, schedule: Schedule, times: Iterator[datetime], due: datetime) -> None:
        def look() -> None:
            now = self._now()
            if now < due:
                self._look_at(schedule, times, due)
                return
            self._wait(schedule, times, after=now)  # first: the next time comes whatever becomes of this one
            self._run(schedule, due)

        left = max((due - self._now()).total_seconds(), 0)
        self._scheduler.after(min(left, LOOK_SECONDS) * self._scheduler.clock.scale, look)

    def _run(self, schedule: Schedule, due: datetime) -> None:
        time = due.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        payload = schedule.input.replace(_SCHEDULED_TIME, time)

        def attempt() -> None:
            self._hand_over(schedule.target, payload, None)

        deliver(self._scheduler, attempt, schedule.policy, lambda end: self._bury(schedule, time, payload, end))

    def _bury(self, schedule: Schedule, time: str, payload: str, given_up: GivenUp) -> None:
        """Send what was not delivered to the schedule's DLQ, with the attributes that say why."""
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
