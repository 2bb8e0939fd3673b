"""Schedules: their times, the input of the target, and failed deliveries."""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from localaws.delivery import Clock, Scheduler, Undelivered
from localaws.schedule_expressions import LOOK_SECONDS
from localaws.schedules import Schedules, read_schedule
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
    ("change", "said"),
    [
        ({"ScheduleExpression": "cron(0 6 * * *)"}, "six fields"),
        ({"ScheduleExpressionTimezone": "Mars/Olympus"}, "Mars/Olympus"),
        ({"EndDate": "tomorrow"}, "Invalid isoformat string: 'tomorrow'"),
        ({"Target": {"Arn": "arn:aws:ecs:::cluster/c", "Input": "{}"}}, "only lambda, sns, sqs are supported"),
        ({"Target": {"Arn": FUNCTION, "Input": "<aws.scheduler.attempt-number>"}}, "context attribute"),
    ],
)
def test_the_error_for_an_unsupported_schedule_names_it(change: dict[str, Any], said: str) -> None:
    with pytest.raises(UnsupportedTarget, match=f"schedule {ARN}: .*{said}"):
        read_schedule(ARN, properties() | change)


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("rate(1 hour)", ["2026-11-21T20:00", "2026-11-21T21:00"]),
        ("cron(30 * * * ? *)", ["2026-11-21T20:30", "2026-11-21T21:30"]),
        ("at(2026-11-21T19:00:00)", ["2026-11-21T19:00"]),  # a one-time schedule ignores both dates
    ],
)
def test_a_recurring_schedule_runs_from_its_start_date_to_its_end_date(expression: str, expected: list[str]) -> None:
    dates = {"StartDate": "2026-11-21T20:00:00Z", "EndDate": "2026-11-21T21:30:00.000Z"}
    times = read_schedule(ARN, properties(expression) | dates).times(SATURDAY)
    assert list(times) == [datetime.fromisoformat(f"{each}Z") for each in expected]


def test_a_start_date_in_the_past_changes_nothing() -> None:
    times = read_schedule(ARN, properties("rate(1 hour)") | {"StartDate": "2020-01-01T00:00:00Z"}).times(SATURDAY)
    assert next(times) == SATURDAY


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
def make_schedules() -> Iterator[Make]:
    made: list[World] = []

    def make(
        *schedules: dict[str, Any], take: Callable[[], None] = lambda: None, step: timedelta = timedelta(seconds=50)
    ) -> World:
        made.append(World(take, step, *schedules))
        return made[-1].start()

    yield make
    for each in made:
        each.scheduler.stop()


def test_the_target_gets_the_time_that_was_planned_each_time_once(make_schedules: Make) -> None:
    due = make_schedules(properties("cron(0/5 * * * ? *)"))
    wait_until(lambda: len(due.got) >= 3)
    assert due.got[:3] == [
        (FUNCTION, '{"at": "2026-11-21T18:40:00Z"}'),
        (FUNCTION, '{"at": "2026-11-21T18:45:00Z"}'),
        (FUNCTION, '{"at": "2026-11-21T18:50:00Z"}'),
    ]


def test_a_target_without_input_gets_a_scheduled_event(make_schedules: Make) -> None:
    due = make_schedules(properties("at(2026-11-21T18:38:00)", Input=None))
    wait_until(lambda: due.got)
    event = json.loads(due.got[0][1])
    assert len(event.pop("id")) == 36
    assert event == {
        "version": "0",
        "detail-type": "Scheduled Event",
        "source": "aws.scheduler",
        "account": "123456789012",
        "time": "2026-11-21T18:38:00Z",
        "region": "us-east-1",
        "resources": [ARN],
        "detail": "{}",
    }


def test_each_run_has_its_execution_id_and_the_arn_of_the_schedule(make_schedules: Make) -> None:
    attributes = '["<aws.scheduler.schedule-arn>", "<aws.scheduler.execution-id>"]'
    due = make_schedules(properties("cron(0/5 * * * ? *)", Input=attributes))
    wait_until(lambda: len(due.got) >= 2)
    (first_arn, first), (second_arn, second) = (json.loads(payload) for _, payload in due.got[:2])
    assert first_arn == second_arn == ARN
    assert len(first) == len(second) == 36
    assert first != second


def test_a_wait_lasts_in_real_time_and_checks_the_clock_regularly(make_schedules: Make) -> None:
    due = make_schedules(properties("at(2026-11-21T18:38:00)"), step=timedelta(seconds=1))
    wait_until(lambda: due.got)
    assert due.scheduler.waits[0] == LOOK_SECONDS
    assert all(wait <= LOOK_SECONDS for wait in due.scheduler.waits)
    assert due.got == [(FUNCTION, '{"at": "2026-11-21T18:38:00Z"}')]


def test_runs_missed_while_the_machine_slept_are_run_once(make_schedules: Make) -> None:
    due = make_schedules(properties("cron(0 * * * ? *)"), step=timedelta(hours=5))
    wait_until(lambda: len(due.got) >= 2)
    # The clock is read at 23:36, 04:36, 09:36, when the run of 00:00 is late, and 14:36
    assert [payload[-11:-9] for _, payload in due.got[:2]] == ["00", "10"]


def test_a_failed_run_goes_to_the_dlq_and_the_next_run_follows(make_schedules: Make) -> None:
    errors = iter([Undelivered("NO_RESOURCE", "gone", retriable=False), RuntimeError("broken")])

    def take() -> None:
        for error in errors:
            raise error

    due = make_schedules(properties("cron(0/5 * * * ? *)"), take=take)
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


def test_a_run_is_retried_as_often_as_its_policy_allows(make_schedules: Make) -> None:
    def refuse() -> None:
        raise Undelivered("THROTTLING", "later", retriable=True)

    policy = {"MaximumRetryAttempts": 1, "MaximumEventAgeInSeconds": 3600}
    due = make_schedules(properties("at(2026-11-21T18:38:00)", RetryPolicy=policy), take=refuse)
    wait_until(lambda: due.sent)
    ((_, _, attributes),) = due.sent
    assert (attributes["RETRY_ATTEMPTS"], attributes["EXHAUSTED_RETRY_CONDITION"]) == ("1", "MaximumRetryAttempts")


def test_a_lost_run_is_reported(make_schedules: Make) -> None:
    def refuse() -> None:
        raise Undelivered("NO_RESOURCE", "gone", retriable=False)

    due = make_schedules(properties("at(2026-11-21T18:38:00)", DeadLetterConfig={}), take=refuse)
    wait_until(lambda: due.failures)
    run = f"schedule {ARN} at 2026-11-21T18:38:00Z"
    assert due.failures == [f"{run}: NO_RESOURCE: gone; lost, there is no failure destination"]
