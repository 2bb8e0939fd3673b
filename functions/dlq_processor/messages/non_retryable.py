"""Reads what a function sent to the DLQ by itself, because a retry cannot succeed (orderflow.dlq.send_to_dlq)."""

from collections.abc import Mapping
from typing import Any

from dlq_processor.domain import Failure, FailureKind, as_message, as_reason
from dlq_processor.messages.reading import (
    about_event,
    about_stream_record,
    at,
    consumer_of,
    required_attribute,
    storable,
)


def read(message: Mapping[str, Any], attributes: Mapping[str, str], body: Any, stack_name: str) -> Failure:
    """Reads an event, or a stream record, with the reason as attributes.

    A redrive invokes the function with the attribute REDRIVE_PAYLOAD if there is one, else with the body.
    """
    is_stream_record = at(body, "dynamodb") is not None
    return storable(
        consumer=consumer_of(required_attribute(attributes, "TARGET_ARN"), stack_name),
        kind=FailureKind.NON_RETRYABLE,
        reason=as_reason(required_attribute(attributes, "ERROR_CODE")),
        message=as_message(attributes.get("ERROR_MESSAGE", "")),
        payload=attributes.get("REDRIVE_PAYLOAD") or message["body"],
        **about_stream_record(body) if is_stream_record else about_event(body, message["messageId"]),
    )
