"""DlqProcessorFunction: stores what failed, alerts operators, and retries transient failures."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import boto3
from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType, process_partial_response
from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord
from aws_lambda_powertools.utilities.idempotency import idempotent_function
from aws_lambda_powertools.utilities.typing import LambdaContext
from botocore.exceptions import ClientError

from dlq_processor.domain import RETRY_DELAYS, Alert, Failure, RetryRequest
from dlq_processor.dynamodb_streams import read_records
from dlq_processor.lambda_invoke import CLIENT, Redriver
from dlq_processor.messages import Unclassified, classify
from dlq_processor.messages.stream_batch import StreamBatch, failures_of
from dlq_processor.repository import FailedEvents
from dlq_processor.service import DlqProcessor
from orderflow.idempotency import idempotency_config, persistence_layer
from orderflow.observability import logger, metrics, safe_traceback, tracer
from orderflow.settings import from_environment

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.batch.types import PartialItemFailureResponse


@dataclass(frozen=True)
class Settings:
    """DlqProcessorFunction's environment."""

    stack_name: str
    failed_events_table: str
    idempotency_table: str
    alert_topic_arn: str
    dlq_url: str


settings = from_environment(Settings)
queue = boto3.client("sqs")
sns = boto3.client("sns")
streams = boto3.client("dynamodbstreams")
batch_processor = BatchProcessor(EventType.SQS, raise_on_entire_batch_failure=False)
# Two hours are enough: the key contains the hour
once_per_hour = idempotency_config("[consumer, reason, hour]", retention_seconds=2 * 60 * 60)


@idempotent_function(  # type: ignore[untyped-decorator]
    data_keyword_argument="alert",
    persistence_store=persistence_layer(settings.idempotency_table, boto3.client("dynamodb")),
    config=once_per_hour,
    key_prefix="alert",
)
def send_alert(*, alert: Alert) -> None:
    """Publishes an alert, at most one per consumer, reason and hour."""
    sns.publish(TopicArn=settings.alert_topic_arn, Subject=alert.subject, Message=alert.text)


def send_retry_request(request: RetryRequest) -> None:
    """Sends a request for an automatic retry to the DLQ."""
    queue.send_message(
        QueueUrl=settings.dlq_url,
        MessageBody="automatic retry",
        DelaySeconds=RETRY_DELAYS[request.attempt - 1],
        MessageAttributes={
            "RETRY_OF": {"DataType": "String", "StringValue": request.record_id},
            "ATTEMPT": {"DataType": "Number", "StringValue": str(request.attempt)},
        },
    )


records = FailedEvents(boto3.resource("dynamodb"), settings.failed_events_table)
redriver = Redriver(boto3.client("lambda", config=CLIENT), settings.stack_name)
processor = DlqProcessor(records, redriver, send_retry_request, lambda alert: send_alert(alert=alert))


@logger.inject_lambda_context(clear_state=True)
@tracer.capture_lambda_handler(capture_response=False)
@metrics.log_metrics
def handler(event: dict[str, Any], context: LambdaContext) -> "PartialItemFailureResponse":
    """Processes a batch of messages of the DLQ.

    Returns:
        The messages that failed. SQS moves a message to the parking queue after five attempts.
    """
    once_per_hour.register_lambda_context(context)
    return process_partial_response(
        event=event, record_handler=process_message, processor=batch_processor, context=context
    )


def process_message(record: SQSRecord) -> None:
    """Processes one message. The log entry of an error contains nothing of the message."""
    try:
        match classify(record.raw_event, settings.stack_name):
            case RetryRequest() as request:
                processor.retry(request)
            case Failure() as failure:
                processor.record_failure(failure, record.message_id)
            case StreamBatch() as batch:
                for failure in failures_of(batch, read_records(streams, batch)):
                    processor.record_failure(failure, record.message_id)
    except Exception as error:
        name = type(error).__name__
        if isinstance(error, ClientError):
            name = f"{error.operation_name}: {error.response['Error']['Code']}"
        elif isinstance(error, Unclassified):
            name = f"Unclassified: {error}"
        logger.error("message not processed", message_id=record.message_id, error=name, stack=safe_traceback(error))
        raise
