"""Reads the messages of the DLQ: one function per format."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from dlq_processor.domain import MAX_MESSAGE, RETRY_DELAYS, Failure, FailureKind, RetryRequest, as_reason, is_transient
from dlq_processor.messages import reading, stream_batch
from dlq_processor.messages.reading import Unclassified, at, consumer_of, required_text, text_at, with_payload
from orderflow.ids import derived_ulid
from orderflow.serialization import to_json

__all__ = ["Unclassified", "classify"]

ONLY_QUEUE = "analytics"
"""The consumer that reads from a queue. `make unpark` moves messages between queues, which removes their source: if a
second consumer gets a queue, a moved message must name its own."""
MAX_REPLAY_NAME = 64
"""Characters (StartReplay, EventBridge API reference)."""
NOT_RETRIED = ("NO_PERMISSIONS", "NO_RESOURCE")
"""Error codes of a target that must be fixed first."""


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
        return _received_too_often(message, source_queue, stack_name)
    body = reading.parse_json(message["body"])
    if "RULE_ARN" in attributes:
        return _undelivered(message, attributes, body, stack_name)
    if "SCHEDULE_ARN" in attributes:  # the body is the schedule's input
        return replace(_non_retryable(message, attributes, body, stack_name), kind=FailureKind.UNDELIVERED)
    if "ERROR_CODE" in attributes:
        return _non_retryable(message, attributes, body, stack_name)
    if at(body, "DDBStreamBatchInfo") is not None:
        return stream_batch.read(body, stack_name)
    if at(body, "requestContext") is not None and "requestPayload" in body:
        return _failed_invocation(body, stack_name)
    if text_at(body, "detail-type") and at(body, "detail") is not None:
        # An event without attributes or a source queue was moved back from the parking queue
        queue = f"{message['eventSourceARN'].rpartition(':')[0]}:{stack_name}-{ONLY_QUEUE}"
        return _received_too_often(message, queue, stack_name)
    raise Unclassified("the message has no known format")


def _retry_request(attributes: Mapping[str, str]) -> RetryRequest:
    attempt = attributes.get("ATTEMPT", "")
    if attempt not in map(str, range(1, len(RETRY_DELAYS) + 1)):
        raise Unclassified(f"ATTEMPT is not a number from 1 to {len(RETRY_DELAYS)}")
    return RetryRequest(attributes["RETRY_OF"], int(attempt))


def _received_too_often(message: Mapping[str, Any], queue_arn: str, stack_name: str) -> Failure:
    """Reads a message that a consumer received from its queue more often than maxReceiveCount allows."""
    try:
        event = reading.parse_json(message["body"])
    except Unclassified:
        event = None
    failure = Failure(
        consumer=consumer_of(queue_arn, stack_name),
        kind=FailureKind.QUEUE,
        reason="MaxReceiveCount",
        message="the message was received more often than the maxReceiveCount of its queue",
        transient=True,  # SQS does not report why the consumer failed
        **reading.about_event(event, message["messageId"]),
    )
    return with_payload(failure, _as_batch(message, queue_arn))


def _as_batch(message: Mapping[str, Any], queue_arn: str) -> str:
    """Returns the SQS event with which Lambda would hand over the message from this queue."""
    return to_json({"Records": [{**message, "eventSourceARN": queue_arn}]})


def _undelivered(message: Mapping[str, Any], attributes: Mapping[str, str], event: Any, stack_name: str) -> Failure:
    """Reads an event that EventBridge could not deliver to a rule's target."""
    target, error = required_text(attributes, "TARGET_ARN"), required_text(attributes, "ERROR_CODE")
    to_function = ":lambda:" in target
    has_consumer = to_function or ":sqs:" in target
    rule = as_reason(required_text(attributes, "RULE_ARN").rpartition("/")[2])
    failure = Failure(
        consumer=consumer_of(target, stack_name) if has_consumer else rule,
        kind=FailureKind.UNDELIVERED,
        reason=as_reason(error),
        message=attributes.get("ERROR_MESSAGE", "")[:MAX_MESSAGE],
        # EventBridge sets this attribute if it has retried; it does not retry errors that it considers permanent
        transient=has_consumer and "EXHAUSTED_RETRY_CONDITION" in attributes and error not in NOT_RETRIED,
        **reading.about_event(event, text_at(event, "id") or message["messageId"]),
    )
    if not has_consumer:
        return replace(failure, remediation=_remediation(rule, target, event, failure.event_id))
    return with_payload(
        failure, message["body"] if to_function else _as_batch({**message, "messageAttributes": {}}, target)
    )


def _remediation(rule: str, target: str, event: Any, event_id: str) -> str:
    """Returns the command that delivers the event to this rule's target again."""
    time = reading.required_time(event, "time")  # EventBridge cuts it to the second
    if ":logs:" in target:  # the rule of the log group excludes replays
        return f"make republish {reading.window(time, time)}"
    # A replay's name is unique in an account. The rule matches names that begin with this one, or with `redrive-`
    replay = as_reason(text_at(event, "replay-name") or "redrive")
    suffix = f"-{derived_ulid(rule, event_id)[-12:].lower()}"
    name = f"{replay[: MAX_REPLAY_NAME - len(suffix)]}{suffix}"
    return f"make replay {reading.window(time, time)} RULE={rule} NAME={name}"


def _non_retryable(message: Mapping[str, Any], attributes: Mapping[str, str], body: Any, stack_name: str) -> Failure:
    """Reads an event, or a stream record, that a function sent by itself (orderflow.dlq.send_to_dlq).

    A redrive invokes the function with the attribute REDRIVE_PAYLOAD if there is one, else with the body.
    """
    is_stream_record = at(body, "dynamodb") is not None
    failure = Failure(
        consumer=consumer_of(required_text(attributes, "TARGET_ARN"), stack_name),
        kind=FailureKind.NON_RETRYABLE,
        reason=as_reason(required_text(attributes, "ERROR_CODE")),
        message=attributes.get("ERROR_MESSAGE", "")[:MAX_MESSAGE],
        **reading.about_stream_record(body) if is_stream_record else reading.about_event(body, message["messageId"]),
    )
    return with_payload(failure, attributes.get("REDRIVE_PAYLOAD") or message["body"])


def _failed_invocation(body: Any, stack_name: str) -> Failure:
    """Reads Lambda's record of an asynchronous invocation that failed (OnFailure destination).

    An invocation that never ran has no response, only a condition.
    """
    reason = text_at(body, "responsePayload", "errorType") or required_text(body, "requestContext", "condition")
    message = text_at(body, "responsePayload", "errorMessage") or ""
    failure = Failure(
        consumer=consumer_of(required_text(body, "requestContext", "functionArn"), stack_name),
        kind=FailureKind.INVOCATION,
        reason=as_reason(reason),
        message=message[:MAX_MESSAGE],
        transient=is_transient(reason, message),
        **reading.about_event(body["requestPayload"], required_text(body, "requestContext", "requestId")),
    )
    return with_payload(failure, to_json(body["requestPayload"]))
