"""Schedule expressions: the times of schedules and of scheduled rules, and invalid expressions."""

from datetime import UTC, datetime
from itertools import islice
from zoneinfo import ZoneInfo

import pytest

from localaws.schedule_expressions import read_rule_times, read_times

SATURDAY = datetime(2026, 11, 21, 18, 36, tzinfo=UTC)


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
        ("cron(0 0 1 1 ? 2027-2199)", "UTC", ["2027-01-01T00:00", "2028-01-01T00:00"]),  # the first minute of a year
        ("cron(0 0 1 1 ? 2028,2031)", "UTC", ["2028-01-01T00:00", "2031-01-01T00:00"]),
        ("cron(0 0 1 1 ? 2026/2)", "UTC", ["2028-01-01T00:00", "2030-01-01T00:00"]),
        ("cron(0 0 1 1 ? */4)", "UTC", ["2030-01-01T00:00", "2034-01-01T00:00"]),
        ("cron(0 22 31 12 ? 2026)", "Asia/Tokyo", ["2026-12-31T13:00"]),
        ("cron(0/5 5 ? JAN 1-5 2022)", "UTC", []),
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
    ("expression", "reason"),
    [
        ("cron(0 6 * * *)", "six fields"),
        ("cron(0 6 * * * *)", r"with \? for one of the days"),
        ("cron(0 6 ? * ? *)", r"with \? for one of the days"),
        ("cron(60 6 * * ? *)", "Bad minute"),
        ("cron(0 6 ? * 0 *)", "Bad day-of-week"),
        ("cron(0 6 ? * 8 *)", "Bad day-of-week"),
        ("cron(0 6 * * ? 27)", "a year or a range"),
        ("cron(0 6 * * ? ?)", "a year or a range"),
        ("cron(0 6 * * ? *-2030)", "a year or a range"),
        ("cron(0 6 * * ? 2030-2027)", "1970 to 2199"),
        ("cron(0 6 * * ? 1969)", "1970 to 2199"),
        ("cron(0 6 * * ? 2027-2200)", "1970 to 2199"),
        ("rate(0 minutes)", "a number of minutes"),
        ("rate(5 weeks)", "a number of minutes"),
        ("at(tomorrow)", "without a time zone"),
        ("at(2021-12-31)", "without a time zone"),
        ("at(2021-12-31T23:59:59Z)", "without a time zone"),
        ("at(2021-13-31T23:59:59)", "month must be in 1..12"),
        ("every day", "must be cron"),
    ],
)
def test_an_invalid_expression_is_refused_with_the_reason(expression: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        read_times(expression, UTC)


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("rate(1 hour)", ["2026-11-21T19:36", "2026-11-21T20:36"]),
        ("rate(5 minutes)", ["2026-11-21T18:41", "2026-11-21T18:46"]),
        ("cron(0 6 * * ? *)", ["2026-11-22T06:00", "2026-11-23T06:00"]),
    ],
)
def test_a_rule_runs_in_utc_and_a_rate_for_the_first_time_after_its_period(
    expression: str, expected: list[str]
) -> None:
    times = islice(read_rule_times(expression)(SATURDAY), 2)
    assert list(times) == [datetime.fromisoformat(f"{each}Z") for each in expected]


@pytest.mark.parametrize("expression", ["at(2026-11-22T06:00:00)", "rate(1 hours)", "rate(5 hour)", "rate(11 minute)"])
def test_a_rule_refuses_what_only_scheduler_accepts(expression: str) -> None:
    with pytest.raises(ValueError, match="a singular unit for 1"):
        read_rule_times(expression)
