"""AnalyticsFunction: counts the events of the analytics queue, each once."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal

import boto3
from aws_lambda_powertools.utilities.data_classes import SQSEvent, event_source
from aws_lambda_powertools.utilities.typing import LambdaContext

from analytics.domain import Fact, fact_of
from analytics.repository import Analytics
from analytics.service import count_facts
from orderflow.observability import logger, metrics, tracer
from orderflow.settings import from_environment


@dataclass(frozen=True)
class Settings:
    """AnalyticsFunction's environment."""

    analytics_table: str


settings = from_environment(Settings)
analytics = Analytics(boto3.resource("dynamodb"), settings.analytics_table)


@logger.inject_lambda_context(clear_state=True)
@tracer.capture_lambda_handler(capture_response=False)
@metrics.log_metrics
@event_source(data_class=SQSEvent)
def handler(event: SQSEvent, context: LambdaContext) -> dict[str, list[dict[str, str]]]:
    """Counts the events of a batch of messages.

    BatchProcessor is not used, because it handles one message at a time: here up to 90 events share a transaction.

    Returns:
        The messages that cannot be read, and those whose event could not be counted. SQS delivers them again, and moves
        them to the DLQ after the last attempt.
    """
    facts: dict[str, Fact] = {}  # by message id
    failed: list[str] = []
    for message in event.records:
        try:
            sales_event = json.loads(message.body, parse_float=Decimal)
            fact = fact_of(sales_event)
        except Exception as error:  # any error: one unreadable message must not fail the others
            # The text and the traceback are not logged, because they can quote the message
            logger.error("message cannot be read", message_id=message.message_id, error=type(error).__name__)
            failed.append(message.message_id)
            continue
        if fact:
            facts[message.message_id] = fact
        else:
            logger.info("nothing to count", message_id=message.message_id, detail_type=sales_event["detail-type"])
    not_counted = count_facts(facts.values(), analytics, datetime.now(UTC))
    failed += [message_id for message_id, fact in facts.items() if fact.event_id in not_counted]
    return {"batchItemFailures": [{"itemIdentifier": message_id} for message_id in failed]}
