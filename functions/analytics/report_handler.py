"""SalesReportFunction: tells of yesterday's sales, once a day."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

import boto3
from aws_lambda_powertools.utilities.idempotency import idempotent_function
from aws_lambda_powertools.utilities.typing import LambdaContext

from analytics.domain import subject, text
from analytics.repository import Analytics
from orderflow import idempotency
from orderflow.observability import count, logger, metrics, tracer
from orderflow.settings import from_environment


@dataclass(frozen=True)
class Settings:
    """SalesReportFunction's environment."""

    analytics_table: str
    idempotency_table: str
    sales_report_topic_arn: str


settings = from_environment(Settings)
analytics = Analytics(boto3.resource("dynamodb"), settings.analytics_table)
topic = boto3.client("sns")
persistence = idempotency.persistence(settings.idempotency_table, boto3.client("dynamodb"))


@logger.inject_lambda_context(clear_state=True)
@tracer.capture_lambda_handler(capture_response=False)
@metrics.log_metrics
def handler(event: Mapping[str, str], context: LambdaContext) -> None:
    """Report the day before the one for which the schedule has planned this.

    Args:
        event: the schedule's input. Its time, and not the clock's, says which day it is: a retry or a redrive of
            days later reports the same day.
        context: the invocation's.

    Raises:
        IdempotencyAlreadyInProgressError: another invocation is reporting the day, or died while it did.
    """
    planned = datetime.fromisoformat(event["scheduledTime"]).astimezone(UTC)
    day = planned.date() - timedelta(days=1)
    logger.append_keys(day=day.isoformat())

    @idempotent_function(  # type: ignore[untyped-decorator]
        data_keyword_argument="report",
        persistence_store=persistence,
        config=idempotency.configuration("day", "", idempotency.KEEP_SECONDS, context),
        key_prefix="sales-report",
    )
    def once(*, report: dict[str, str]) -> None:
        _publish(date.fromisoformat(report["day"]))

    once(report={"day": day.isoformat()})


def _publish(day: date) -> None:
    figures = analytics.figures(day, day)
    topic.publish(TopicArn=settings.sales_report_topic_arn, Subject=subject(day), Message=text(day, figures))
    logger.info("sales reported")
    count("SalesReports")
