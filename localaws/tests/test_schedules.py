"""Schedules: their times, the input of the target, and failed deliveries."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from localaws.delivery import Clock, Scheduler, Undelivered
from localaws.schedules import LOOK_SECONDS, Schedules, read_schedule, read_times
from localaws.targets import UnsupportedTarget
from localaws.tests.support import RecordingTargets, wait_until

ARN = "arn:aws:scheduler:us-east-1:123456789012:schedule/default/daily"
FUNCTION = "arn:aws:lambda:us-east-1:123456789012:function:report"
DLQ = "arn:aws:sqs:us-east-1:123456789012:dlq"
SATURDAY = datetime(2026, 11, 21, 18, 36, tzinfo=UTC)
INPUT = '{"at": "<aws.scheduler.scheduled-time>"}'


def properties(expression: str = "rate(1 hour)", **changes: Any) -> dict[str, Any]:
    target = {"Arn": FUNCTION, "Input": INPUT, "DeadLetterConfig": {"Arn": DLQ}}
    return {"ScheduleExpression": expression, "Target": target | changes}


@pytest.mark.parametrize(
    ("expression", "zone", "expected"),
    [
        ("cron(0 6 * * ? *)", "UTC", ["2026-11-22T06:00", "2026-11-23T06:00"]),
        ("cron(0 6 * * ? *)", "Asia/Tokyo", ["2026-11-21T21:00", "2026-11-22T21:00"]),
        ("cron(0/20 * * * ? *)", "UTC", ["2026-11-21T18:40", "2026-11-21T19:00"]),
        ("cron(0 9 ? * 2-6 *)", "UTC", ["2026-11-23T09:00", "2026-11-24T09:00"]),  # Monday to Friday
        ("cron(0 9 ? * 1,SAT *)", "UTC", ["2026-11-22T09:00", "2026-11-28T09:00"]),
        ("cron(0 9 ? * 2#1 *)", "UTC", ["2026-12-07T09:00", "2027-01-04T09:00"]),  # the first Monday
        ("cron(0 9 ? * 6L *)", "UTC", ["2026-11-27T09:00", "2026-12-25T09:00"]),  # the last Friday
        ("cron(30 23 L * ? *)", "UTC", ["2026-11-30T23:30", "2026-12-31T23:30"]),
        ("rate(5 minutes)", "UTC", ["2026-11-21T18:36", "2026-11-21T18:41"]),
        ("rate(1 day)", "UTC", ["2026-11-21T18:36", "2026-11-22T18:36"]),
        ("at(2026-11-22T06:00:00)", "Asia/Tokyo", ["2026-11-21T21:00"]),
        ("at(2026-11-20T06:00:00)", "UTC", []),
    ],
)
def test_a_schedule_is_due_when_its_expression_says(expression: str, zone: str, expected: list[str]) -> None:
    times = islice(read_times(expression, ZoneInfo(zone))(SATURDAY), 2)
    assert [time.astimezone(UTC) for time in times] == [datetime.fromisoformat(f"{each}Z") for each in expected]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"ScheduleExpression": "cron(0 6 * * *)"}, "six fields"),
        ({"ScheduleExpression": "cron(0 6 * * * *)"}, r"with \? for one of the days"),
        ({"ScheduleExpression": "cron(0 6 ? * ? *)"}, r"with \? for one of the days"),
        ({"ScheduleExpression": "cron(0 6 * * ? 2027)"}, r"\* for the year"),
        ({"ScheduleExpression": "cron(60 6 * * ? *)"}, "Bad minute"),
        ({"ScheduleExpression": "cron(0 6 ? * 0 *)"}, "Bad day-of-week"),
        ({"ScheduleExpression": "cron(0 6 ? * 8 *)"}, "Bad day-of-week"),
        ({"ScheduleExpression": "rate(0 minutes)"}, "a number of minutes"),
        ({"ScheduleExpression": "rate(5 weeks)"}, "a number of minutes"),
        ({"ScheduleExpression": "at(tomorrow)"}, "Invalid isoformat"),
        ({"ScheduleExpression": "every day"}, "must be cron"),
        ({"ScheduleExpressionTimezone": "Mars/Olympus"}, "Mars/Olympus"),
        ({"StartDate": "2027-01-01T00:00:00Z"}, "without StartDate"),
        ({"Target": {"Arn": FUNCTION}}, "with Input"),
        ({"Target": {"Arn": "arn:aws:ecs:::cluster/c", "Input": "{}"}}, "only lambda"),
        ({"Target": {"Arn": FUNCTION, "Input": "<aws.scheduler.attempt-number>"}}, "context attribute"),
    ],
)
def test_the_error_for_an_unsupported_schedule_names_it(change: dict[str, Any], said: str) -> None:
    with pytest.raises(UnsupportedTarget, match=f"schedule {ARN}: .*{said}"):
        read_schedule(ARN, properties() | change)


class World:
    """Schedules with a fake clock that advances at each reading."""

    def __init__(self, take: Callable[[], None], step: timedelta, *schedules: dict[str, Any]) -> None:
        self.failures: list[str] = []
        self.targets = RecordingTargets(lambda _arn, _payload: take())
        self.got, self.sent = self.targets.delivered, self.targets.sent
        self._time = SATURDAY
        self._step = step
        # A thousand times as fast as real time, which must not affect the schedules
        self.scheduler = _Waiting(Clock(1000), self.failures.append)
        self.schedules = Schedules(
            [read_schedule(ARN, each) for each in schedules],
            scheduler=self.scheduler,
            targets=self.targets,
            on_failure=self.failures.append,
            now=self._now,
        )

    def start(self) -> "World":
        self.scheduler.start()
        self.schedules.start()
        return self

    def _now(self) -> datetime:
        self._time += self._step
        return self._time


class _Waiting(Scheduler):
    """Records the delays in real seconds, without waiting."""

    def __init__(self, clock: Clock, on_failure: Callable[[str], None]) -> None:
        super().__init__(clock, on_failure)
        self.waits: list[float] = []

    def after(self, seconds: float, action: Callable[[], None]) -> None:
        self.waits.append(self.clock.real_seconds(seconds))
        super().after(0, action)


Make = Callable[..., World]


@pytest.fixture
def world() -> Iterator[Make]:
    made: list[World] = []

    def make(
        *schedules: dict[str, Any], take: Callable[[], None] = lambda: None, step: timedelta = timedelta(seconds=50)
    ) -> World:
        made.append(World(take, step, *schedules))
        return made[-1].start()

    yield make
    for each in made:
        each.scheduler.stop()


def test_the_target_gets_the_time_that_was_planned_each_time_once(world: Make) -> None:
    due = world(properties("cron(0/5 * * * ? *)"))
    wait_until(lambda: len(due.got) >= 3)
    assert due.got[:3] == [
        (FUNCTION, '{"at": "2026-11-21T18:40:00Z"}'),
        (FUNCTION, '{"at": "2026-11-21T18:45:00Z"}'),
        (FUNCTION, '{"at": "2026-11-21T18:50:00Z"}'),
    ]


def test_a_wait_lasts_in_real_time_and_checks_the_clock_regularly(world: Make) -> None:
    due = world(properties("at(2026-11-21T18:38:00)"), step=timedelta(seconds=1))
    wait_until(lambda: due.got)
    assert due.scheduler.waits[0] == LOOK_SECONDS
    assert all(wait <= LOOK_SECONDS for wait in due.scheduler.waits)
    assert due.got == [(FUNCTION, '{"at": "2026-11-21T18:38:00Z"}')]


def test_runs_missed_while_the_machine_slept_are_run_once(world: Make) -> None:
    due = world(properties("cron(0 * * * ? *)"), step=timedelta(hours=5))
    wait_until(lambda: len(due.got) >= 2)
    hours = [payload[-11:-9] for _, payload in due.got[:2]]
    assert hours != ["19", "20"]
    assert hours[0] == "00"


def test_a_failed_run_goes_to_the_dlq_and_the_next_run_follows(world: Make) -> None:
    errors = iter([Undelivered("NO_RESOURCE", "gone", retriable=False), RuntimeError("broken")])

    def take() -> None:
        for error in errors:
            raise error

    due = world(properties("cron(0/5 * * * ? *)"), take=take)
    wait_until(lambda: due.got)
    ((arn, body, attributes),) = due.sent
    assert (arn, body) == (DLQ, '{"at": "2026-11-21T18:40:00Z"}')
    assert attributes.pop("EXECUTION_ID")
    assert attributes == {
        "SCHEDULE_ARN": ARN,
        "TARGET_ARN": FUNCTION,
        "SCHEDULED_TIME": "2026-11-21T18:40:00Z",
        "ERROR_CODE": "NO_RESOURCE",
        "ERROR_MESSAGE": "gone",
        "RETRY_ATTEMPTS": "0",
        "IS_PAYLOAD_TRUNCATED": "false",
    }
    assert due.failures == [
        f"schedule {ARN} at 2026-11-21T18:40:00Z: NO_RESOURCE: gone; sent to {DLQ}",
        "RuntimeError: broken",
    ]


def test_a_run_is_retried_as_often_as_its_policy_allows(world: Make) -> None:
    def refuse() -> None:
        raise Undelivered("THROTTLING", "later", retriable=True)

    policy = {"MaximumRetryAttempts": 1, "MaximumEventAgeInSeconds": 3600}
    due = world(properties("at(2026-11-21T18:38:00)", RetryPolicy=policy), take=refuse)
    wait_until(lambda: due.sent)
    ((_, _, attributes),) = due.sent
    assert (attributes["RETRY_ATTEMPTS"], attributes["EXHAUSTED_RETRY_CONDITION"]) == ("1", "MaximumRetryAttempts")


def test_a_lost_run_is_reported(world: Make) -> None:
    def refuse() -> None:
        raise Undelivered("NO_RESOURCE", "gone", retriable=False)

    due = world(properties("at(2026-11-21T18:38:00)", DeadLetterConfig={}), take=refuse)
    wait_until(lambda: due.failures)
    run = f"schedule {ARN} at 2026-11-21T18:38:00Z"
    assert due.failures == [f"{run}: NO_RESOURCE: gone; lost, there is no failure destination"]
