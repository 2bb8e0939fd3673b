"""Reads Lambda's record of an asynchronous invocation that failed (OnFailure destination)."""

from typing import Any

from dlq_processor.domain import Failure, FailureKind, as_message, as_reason, is_transient
from dlq_processor.messages.reading import about_event, consumer_of, required_text, storable, text_at
from orderflow.serialization import to_json


def read(body: Any, stack_name: str) -> Failure:
    """Reads an invocation record. An invocation that never ran has no response, only a condition."""
    reason = text_at(body, "responsePayload", "errorType") or required_text(body, "requestContext", "condition")
    message = text_at(body, "responsePayload", "errorMessage") or ""
    return storable(
        consumer=consumer_of(required_text(body, "requestContext", "functionArn"), stack_name),
        kind=FailureKind.INVOCATION,
        reason=as_reason(reason),
        message=as_message(message),
        transient=is_transient(reason, message),
        payload=to_json(body["requestPayload"]),
        **about_event(body["requestPayload"], required_text(body, "requestContext", "requestId")),
    )
