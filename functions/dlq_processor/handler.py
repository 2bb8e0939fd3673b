"""DlqProcessorFunction: stores what failed, tells people of it, and tries again what may pass by itself."""

from dataclasses import dataclass, replace
from typing import Any

import boto3
from aws_lambda_powertools.utilities.typing import LambdaContext
from botocore.exceptions import ClientError

from dlq_processor.consumers import Consumers
from dlq_processor.domain import Batch, Failure, RetryRequest, Unclassified, classify, failures_in
from dlq_processor.dynamodb_streams import read
from dlq_processor.redrive import CLIENT, Redriver, settle
from dlq_processor.repository import FailedEvent, FailedEvents, FailedEventStatus
from dlq_processor.retries import DELAYS
from dlq_processor.sns import Alerts
from orderflow import idempotency
from orderflow.observability import count, logger, metrics, stack, tracer
from orderflow.settings import from_environment


@dataclass(frozen=True)
class Settings:
    """DlqProcessorFunction's environment, but for the consumers."""

    failed_events_table: str
    idempotency_table: str
    alert_topic_arn: str
    retry_queue_url: str


settings = from_environment(Settings)
consumers = from_environment(Consumers)
dynamodb = boto3.client("dynamodb")
streams = boto3.client("dynamodbstreams")
queue = boto3.client("sqs")
records = FailedEvents(boto3.resource("dynamodb"), settings.failed_events_table)
redriver = Redriver(boto3.client("lambda", config=CLIENT), dynamodb, consumers)
alerts = Alerts(
    boto3.client("sns"), settings.alert_topic_arn, idempotency.persistence(settings.idempotency_table, dynamodb)
)


@logger.inject_lambda_context(clear_state=True)
@tracer.capture_lambda_handler(capture_response=False)
@metrics.log_metrics
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, list[dict[str, str]]]:
    """Process a batch of the DLQ's messages, each for itself.

    Returns:
        The messages that could not be processed; after five times SQS moves them to the parking queue.
    """
    failed = [message["messageId"] for message in event["Records"] if not _processed(message, context)]
    return {"batchItemFailures": [{"itemIdentifier": message_id} for message_id in failed]}


def _processed(message: dict[str, Any], context: LambdaContext) -> bool:
    """Process a message; whatever is wrong with it, the others of its batch go on."""
    try:
        found = classify(message, consumers)
        if isinstance(found, RetryRequest):
            _retry(found, context)
            return True
        failures = failures_in(found, read(streams, found)) if isinstance(found, Batch) else [found]
        for failure in failures:
            _take(failure, message["messageId"], context)
    except Exception as error:
        name = _name_of(error)
        logger.error("message not processed", message_id=message["messageId"], error=name, stack=stack(error))
        return False
    return True


def _name_of(error: Exception) -> str:
    if isinstance(error, ClientError):
        return f"{error.operation_name}: {error.response['Error']['Code']}"
    return f"Unclassified: {error}" if isinstance(error, Unclassified) else type(error).__name__


def _take(failure: Failure, message_id: str, context: LambdaContext) -> None:
    """Store a failure, then do what follows from it. Whatever fails in between is done when the message comes again."""
    record, is_new = records.add(failure, message_id)
    if is_new:
        logger.warning("event failed", status=record.status, **record.log)
        count("FailedEvents")
        if record.status is FailedEventStatus.PARKED:
            count("FailedEventsParked")
    begins = failure.transient and record.status is FailedEventStatus.NEW
    if begins:
        _ask_for_retry(record, 1)
    if record.status is not FailedEventStatus.RESOLVED:
        alerts.send(record, retried=begins or record.status is FailedEventStatus.RETRYING, context=context)


def _ask_for_retry(record: FailedEvent, attempt: int) -> None:
    queue.send_message(
        QueueUrl=settings.retry_queue_url,
        MessageBody="automatic retry",
        DelaySeconds=DELAYS[attempt - 1],
        MessageAttributes={
            "RETRY_OF": {"DataType": "String", "StringValue": record.id},
            "ATTEMPT": {"DataType": "Number", "StringValue": str(attempt)},
        },
    )


def _retry(request: RetryRequest, context: LambdaContext) -> None:
    """Try again, unless somebody has resolved or parked the record, or a later retry has begun."""
    record, attempt = records.get(request.record_id), request.attempt
    if (
        record is None
        or record.status not in (FailedEventStatus.NEW, FailedEventStatus.RETRYING)
        or record.attempts > attempt
    ):
        logger.info("retry not needed any more", failed_event=request.record_id, attempt=attempt)
        return
    claimed = records.claim(record, attempt)
    outcome = redriver.redrive(claimed)
    otherwise = FailedEventStatus.PARKED if attempt == len(DELAYS) else FailedEventStatus.RETRYING
    if otherwise is FailedEventStatus.PARKED and not outcome.succeeded:
        # Before it is parked: once it is, this message does nothing when it comes again because the alert failed
        given_up = replace(claimed, status=FailedEventStatus.PARKED, reason=outcome.reason or "")
        alerts.send(given_up, retried=False, context=context)
        count("FailedEventsParked")
    settled, outcome = settle(records, claimed, outcome, otherwise)
    logger.info("event retried", attempt=attempt, status=settled.status, outcome=outcome.reason, **settled.log)
    if outcome.succeeded:
        count("FailedEventsResolved")
    elif settled.status is FailedEventStatus.RETRYING:
        _ask_for_retry(settled, attempt + 1)
