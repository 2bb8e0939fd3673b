"""SalesReportFunction: publishes a report of the previous day's sales, once a day."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

import boto3
from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.idempotency import idempotent_function
from aws_lambda_powertools.utilities.typing import LambdaContext

from analytics.domain import report_text
from analytics.repository import Analytics
from orderflow.idempotency import idempotency_config, persistence_layer
from orderflow.observability import logger, metrics, tracer
from orderflow.settings import from_environment


@dataclass(frozen=True)
class Settings:
    """SalesReportFunction's environment."""

    analytics_table: str
    idempotency_table: str
    sales_report_topic_arn: str


settings = from_environment(Settings)
analytics = Analytics(boto3.resource("dynamodb"), settings.analytics_table)
sns = boto3.client("sns")
idempotency = idempotency_config()


@idempotent_function(  # type: ignore[untyped-decorator]
    data_keyword_argument="day",
    config=idempotency,
    persistence_store=persistence_layer(settings.idempotency_table, boto3.client("dynamodb")),
    key_prefix="sales-report",
)
def report_once(*, day: date) -> None:
    """Publishes the report of a day, unless it was published before."""
    text = report_text(day, analytics.figures(day, day))
    sns.publish(TopicArn=settings.sales_report_topic_arn, Subject=f"Sales report {day}", Message=text)
    logger.info("sales reported")
    metrics.add_metric(name="SalesReports", unit=MetricUnit.Count, value=1)


@logger.inject_lambda_context(clear_state=True)
@tracer.capture_lambda_handler(capture_response=False)
@metrics.log_metrics
def handler(event: Mapping[str, str], context: LambdaContext) -> None:
    """Reports the sales of the day before the scheduled time.

    The schedule's input contains the same `scheduledTime` in a retry and in a redrive, so these report the same day.
    IdempotencyAlreadyInProgressError means that another invocation is reporting the day, or stopped while it did.
    Lambda retries this invocation.
    """
    idempotency.register_lambda_context(context)
    day = datetime.fromisoformat(event["scheduledTime"]).astimezone(UTC).date() - timedelta(days=1)
    logger.append_keys(day=day.isoformat())
    report_once(day=day)
