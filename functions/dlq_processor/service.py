"""Use cases of the DLQ processor: store a failure, retry it automatically, store the outcome of a redrive."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from aws_lambda_powertools.metrics import MetricUnit

from dlq_processor import domain
from dlq_processor.domain import FailedEvent, FailedEventStatus, Failure, RedriveOutcome, RetryRequest
from dlq_processor.lambda_invoke import Redriver
from dlq_processor.repository import FailedEvents
from orderflow.observability import logger, metrics


@dataclass(frozen=True)
class DlqProcessor:
    """Stores failures and retries those that are transient."""

    records: FailedEvents
    redriver: Redriver
    send_retry_request: Callable[[RetryRequest], None]  # to the DLQ; it arrives after the delay of its attempt
    send_alert: Callable[[domain.Alert], None]  # at most one per consumer, reason and hour
    now: Callable[[], datetime] = lambda: datetime.now(UTC)

    def record_failure(self, failure: Failure, message_id: str) -> None:
        """Stores a failure, requests the first automatic retry if it is transient, and sends an alert.

        If a step fails, the message must be processed again: steps that have succeeded are not repeated, except for
        the retry request, of which a duplicate does no harm.
        """
        now = self.now()
        record, change = self.records.update(failure.id, lambda known: domain.counted(known, failure, message_id, now))
        if record is None:  # for the type checker: counted() creates a missing record
            return
        if change:
            logger.warning("event failed", status=record.status, **record.log)
            metrics.add_metric(name="FailedEvents", unit=MetricUnit.Count, value=1)
            if record.status is FailedEventStatus.PARKED:
                metrics.add_metric(name="FailedEventsParked", unit=MetricUnit.Count, value=1)
        needs_retry = failure.transient and record.status is FailedEventStatus.NEW
        if needs_retry:
            self.send_retry_request(RetryRequest(record.id, attempt=1))
        if record.status is not FailedEventStatus.RESOLVED:
            retried = needs_retry or record.status is FailedEventStatus.RETRYING
            self.send_alert(domain.alert_for(record, retried=retried))

    def retry(self, request: RetryRequest) -> None:
        """Redrives a record automatically, unless it was resolved or parked, or a later retry has begun."""
        record, claim = self.records.update(request.record_id, lambda known: domain.claimed(known, request.attempt))
        if record is None or claim is None:
            logger.info("automatic retry not needed", failed_event=request.record_id, attempt=request.attempt)
            return
        outcome = self.redriver.redrive(record)
        is_last = request.attempt == len(domain.RETRY_DELAYS)
        if is_last and not outcome.succeeded:
            # The alert precedes the status: a request that is received again does nothing for a parked record
            given_up = replace(record, status=FailedEventStatus.PARKED, reason=outcome.reason)
            self.send_alert(domain.alert_for(given_up, retried=False))
            metrics.add_metric(name="FailedEventsParked", unit=MetricUnit.Count, value=1)
        on_failure = FailedEventStatus.PARKED if is_last else FailedEventStatus.RETRYING
        settled, outcome = settle(self.records, record, outcome, self.now(), on_failure)
        logger.info(
            "event retried", attempt=request.attempt, status=settled.status, outcome=outcome.reason, **settled.log
        )
        if outcome.succeeded:
            metrics.add_metric(name="FailedEventsResolved", unit=MetricUnit.Count, value=1)
        elif settled.status is FailedEventStatus.RETRYING:
            self.send_retry_request(RetryRequest(settled.id, request.attempt + 1))


def settle(
    records: FailedEvents,
    record: FailedEvent,
    outcome: RedriveOutcome,
    now: datetime,
    on_failure: FailedEventStatus = FailedEventStatus.PARKED,
) -> tuple[FailedEvent, RedriveOutcome]:
    """Stores the outcome of a redrive, unless the record has changed since the redrive began.

    Returns:
        The record as it is stored now, and the outcome. A success becomes a failure if the record has changed: the
        consumer may have sent the event to the DLQ again and returned normally.
    """
    changed = domain.redriven(record, outcome, on_failure, now)
    current, change = records.update(
        record.id, lambda known: changed if known and known.version == record.version else None
    )
    if change is None and outcome.succeeded:
        outcome = RedriveOutcome(False, "ConcurrentUpdate", "the record has changed during the redrive")
    return current or record, outcome
