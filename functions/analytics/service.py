"""Counts facts in as few transactions as possible, each event once."""

from collections.abc import Collection
from datetime import datetime

from aws_lambda_powertools.metrics import MetricUnit

from analytics.domain import Fact, chunks
from analytics.repository import Analytics, NotCounted
from orderflow.observability import logger, metrics


def count_facts(facts: Collection[Fact], analytics: Analytics, now: datetime) -> set[str]:
    """Counts facts, several of which can be of one event, and returns the ids of the events that were not counted."""
    counted = 0
    failed: set[str] = set()
    for chunk in chunks({fact.event_id: fact for fact in facts}.values()):
        try:
            counted += analytics.count(chunk, now)
        except NotCounted as error:
            event_ids = [fact.event_id for fact in chunk]
            logger.error("events not counted", error=str(error), event_ids=event_ids)
            failed.update(event_ids)
    duplicates = sum(fact.event_id not in failed for fact in facts) - counted
    logger.info("batch counted", counted=counted, duplicates=duplicates, failed=len(failed))
    metrics.add_metric(name="EventsCounted", unit=MetricUnit.Count, value=counted)
    metrics.add_metric(name="DuplicatesSkipped", unit=MetricUnit.Count, value=duplicates)
    return failed
