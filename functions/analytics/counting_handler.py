"""AnalyticsFunction: counts the events of the analytics queue, each once."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import boto3
from aws_lambda_powertools.utilities.typing import LambdaContext

from analytics.domain import Fact, chunks, fact_of
from analytics.repository import Analytics, NotCounted
from orderflow.observability import count, logger, metrics, tracer
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
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, list[dict[str, str]]]:
    """Count a batch of messages, each with an event.

    Returns:
        The messages that could not be read, and those whose event could not be counted now. They come again, and end
        in the DLQ after the queue's last attempt.
    """
    readable, failed = _read(event["Records"])
    counted, not_counted = _count({fact.event_id: fact for _, fact in readable})
    failed += [message_id for message_id, fact in readable if fact.event_id in not_counted]
    duplicates = sum(fact.event_id not in not_counted for _, fact in readable) - counted
    logger.info("batch counted", counted=counted, duplicates=duplicates, failed=len(failed))
    count("EventsCounted", counted)
    count("DuplicatesSkipped", duplicates)
    return {"batchItemFailures": [{"itemIdentifier": message_id} for message_id in failed]}


def _read(records: Iterable[dict[str, Any]]) -> tuple[list[tuple[str, Fact]], list[str]]:
    """The messages' ids, each with its fact, and the ids of those that cannot be read."""
    readable: list[tuple[str, Fact]] = []
    unreadable: list[str] = []
    for record in records:
        message_id = record["messageId"]
        try:
            event = json.loads(record["body"], parse_float=Decimal)
            fact = fact_of(event)
        except Exception as error:  # whatever an unreadable message leads to; it must not hold up the others
            # Neither text nor traceback: they tell what could not be read
            logger.error("message cannot be read", message_id=message_id, error=type(error).__name__)
            unreadable.append(message_id)
            continue
        if fact is None:
            logger.info("nothing to count", message_id=message_id, detail_type=event["detail-type"])
        else:
            readable.append((message_id, fact))
    return readable, unreadable


def _count(facts: Mapping[str, Fact]) -> tuple[int, set[str]]:
    """Count facts by their events' ids: how many are new, and which could not be counted now."""
    counted = 0
    not_counted: set[str] = set()
    for chunk in chunks(facts.values()):
        try:
            counted += analytics.count(chunk, datetime.now(UTC))
        except NotCounted as error:
            event_ids = [fact.event_id for fact in chunk]
            logger.error("events not counted", error=str(error), event_ids=event_ids)
            not_counted.update(event_ids)
    return counted, not_counted
