"""Reads the messages of the DLQ: one module per format."""

from collections.abc import Mapping
from typing import Any

from dlq_processor.domain import RETRY_DELAYS, Failure, RetryRequest
from dlq_processor.messages import (
    failed_invocation,
    non_retryable,
    queue_message,
    stream_batch,
    undelivered,
)
from dlq_processor.messages.reading import Unclassified, at, parse_json, text_at

__all__ = ["Unclassified", "classify"]


def classify(message: Mapping[str, Any], stack_name: str) -> Failure | stream_batch.StreamBatch | RetryRequest:
    """Returns what a message reports.

    Attributes are checked before the body: anybody who can publish an event controls a body.

    Args:
        message: a record of an SQS event.
        stack_name: the prefix of the names of functions and queues.

    Raises:
        Unclassified: the message has no known format, or a part of its format is missing.
    """
    attributes = {name: value.get("stringValue", "") for name, value in message["messageAttributes"].items()}
    source_queue = message["attributes"].get("DeadLetterQueueSourceArn")
    if "RETRY_OF" in attributes:
        return _retry_request(attributes)
    if source_queue:
        return queue_message.read(message, source_queue, stack_name)
    body = parse_json(message["body"])
    if "RULE_ARN" in attributes:
        return undelivered.read_event(message, attributes, body, stack_name)
    if "SCHEDULE_ARN" in attributes:
        return undelivered.read_schedule(message, attributes, body, stack_name)
    if "ERROR_CODE" in attributes:
        return non_retryable.read(message, attributes, body, stack_name)
    if at(body, "DDBStreamBatchInfo") is not None:
        return stream_batch.read(body, stack_name)
    if at(body, "requestContext") is not None and "requestPayload" in body:
        return failed_invocation.read(body, stack_name)
    if text_at(body, "detail-type") and at(body, "detail") is not None:
        return queue_message.read_moved(message, stack_name)
    raise Unclassified("the message has no known format")


def _retry_request(attributes: Mapping[str, str]) -> RetryRequest:
    attempt = attributes.get("ATTEMPT", "")
    if attempt not in map(str, range(1, len(RETRY_DELAYS) + 1)):
        raise Unclassified(f"ATTEMPT is not a number from 1 to {len(RETRY_DELAYS)}")
    return RetryRequest(attributes["RETRY_OF"], int(attempt))
