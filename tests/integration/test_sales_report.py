"""SalesReportFunction against moto."""

import dataclasses
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from hashlib import md5
from itertools import count
from types import ModuleType

import pytest
from botocore.exceptions import ClientError

from analytics.domain import Fact, Kind, Tally
from tests.integration.support import Aws, Context, measured, module, subscribed

# Days of this file's own: analytics' tests count for the first days of months
DAYS = (date(2029, 1, 1) + timedelta(days=number) for number in count())


@pytest.fixture
def report(aws: Aws) -> ModuleType:
    return module("analytics.report_handler")


@pytest.fixture
def day() -> date:
    return next(DAYS)


@pytest.fixture
def published(aws: Aws) -> Iterator[Callable[[], list[dict[str, str]]]]:
    """Returns a function that returns what was published to the report's topic since its last call."""
    with subscribed(aws.stack.outputs["SalesReportTopicArn"]) as received:
        yield received


def count_sale(report: ModuleType, day: date, event_id: str) -> None:
    fact = Fact(f"{event_id}-{day}", day, None, Kind.CONFIRMED, Tally(1, 3, Decimal("30.30")))
    report.analytics.count([fact], datetime.now(UTC))


def scheduled_after(day: date, time: str = "06:00:00Z") -> dict[str, str]:
    """Returns the schedule's input of the morning after a day."""
    return {"scheduledTime": f"{day + timedelta(days=1)}T{time}"}


def test_the_report_is_of_the_day_before_the_scheduled_time(
    report: ModuleType, day: date, published: Callable[[], list[dict[str, str]]]
) -> None:
    for of_day, event_id in ((day - timedelta(days=1), "before"), (day, "sold"), (day + timedelta(days=1), "after")):
        count_sale(report, of_day, event_id)
    assert report.handler(scheduled_after(day), Context()) is None
    (message,) = published()
    assert message["Subject"] == f"Sales report {day}"
    assert "Confirmed: 1 orders, 3 pieces, 30.30" in message["Message"]


def test_a_day_is_reported_once(
    report: ModuleType, day: date, published: Callable[[], list[dict[str, str]]], output: Callable[[], str]
) -> None:
    for time in ("06:00:00Z", "06:00:00Z", "07:00:00Z"):
        report.handler(scheduled_after(day, time), Context())
    assert len(published()) == 1
    printed = output()
    assert printed.count('"sales reported"') == 1
    assert measured(printed, "SalesReports") == [1.0]


def test_the_idempotency_record_has_the_same_key_in_every_release(aws: Aws, report: ModuleType) -> None:
    report.handler({"scheduledTime": "2028-02-03T06:00:00Z"}, Context())
    key = "sales-report#" + md5(b'"2028-02-02"', usedforsecurity=False).hexdigest()
    assert aws.idempotency_table().get_item(Key={"id": key})["Item"]["status"] == "COMPLETED"


def test_a_report_that_could_not_be_published_is_published_by_the_retry(
    report: ModuleType,
    day: date,
    published: Callable[[], list[dict[str, str]]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as broken:
        gone = "arn:aws:sns:us-east-1:123456789012:gone"
        broken.setattr(report, "settings", dataclasses.replace(report.settings, sales_report_topic_arn=gone))
        with pytest.raises(ClientError):
            report.handler(scheduled_after(day), Context())
    assert published() == []
    report.handler(scheduled_after(day), Context())
    assert len(published()) == 1


class Killed(BaseException):
    """The process ends: no exception handler runs."""


def test_a_report_whose_process_was_killed_is_published_by_the_retry_after_the_function_timed_out(
    report: ModuleType, day: date, published: Callable[[], list[dict[str, str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: date) -> None:
        raise Killed

    with monkeypatch.context() as killed:
        killed.setattr(report.analytics, "figures", die)
        with pytest.raises(Killed):
            report.handler(scheduled_after(day), Context(remaining_milliseconds=0))
    report.handler(scheduled_after(day), Context())
    assert len(published()) == 1


def test_the_scheduled_time_is_converted_to_utc(
    report: ModuleType, day: date, published: Callable[[], list[dict[str, str]]]
) -> None:
    report.handler({"scheduledTime": f"{day + timedelta(days=2)}T01:00:00+02:00"}, Context())
    (message,) = published()
    assert message["Subject"] == f"Sales report {day}"
