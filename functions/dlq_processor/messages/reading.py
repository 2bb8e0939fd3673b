"""Helpers that read untrusted messages: missing or wrong values become None or Unclassified."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from dlq_processor.domain import PLAIN, Failure, as_reason

MAX_PAYLOAD = 350_000
"""Bytes. The whole record must fit into a DynamoDB item (400 KB)."""


class Unclassified(Exception):
    """A message that cannot be read. The text says why, and quotes nothing of the message."""


def consumer_of(arn: str, stack_name: str) -> str:
    """Returns the consumer behind the ARN of a function, with or without a qualifier, or of a queue.

    Both are named `<stack name>-<consumer>`: the function that reads a queue and the queue have the same name.
    """
    name = arn.partition(":function:")[2].partition(":")[0] or arn.rpartition(":")[2]
    return as_reason(name.removeprefix(f"{stack_name}-"))


def with_payload(failure: Failure, payload: str) -> Failure:
    """Returns a failure with its payload, or with a remediation if the payload is larger than MAX_PAYLOAD.

    Raises:
        Unclassified: the payload is too large, and no order is known whose events could be republished.
    """
    size = len(payload.encode())
    if size <= MAX_PAYLOAD:
        return replace(failure, payload=payload)
    if not PLAIN.fullmatch(failure.order_id or ""):
        raise Unclassified(f"the payload of {size} bytes is too large to store, and it names no order to republish")
    return replace(failure, transient=False, remediation=f"make republish ORDER={failure.order_id}")


def about_event(event: Any, default_id: str) -> dict[str, Any]:
    """Returns the fields of a failure that describe an event.

    Args:
        event: an event as a consumer receives it, or any other JSON value.
        default_id: the id of an event without `metadata.eventId`.
    """
    return {
        "event_id": text_at(event, "detail", "metadata", "eventId") or default_id,
        "order_id": text_at(event, "detail", "orderId"),
        "detail_type": text_at(event, "detail-type"),
        "correlation_id": text_at(event, "detail", "metadata", "correlationId"),
    }


def about_stream_record(record: Any) -> dict[str, Any]:
    """Returns the fields of a failure that describe the newest event in a stream record's new image."""
    events = at(record, "dynamodb", "NewImage", "events", "L")
    return {
        "event_id": text_at(events, -1, "M", "eventId", "S") or required_text(record, "eventID"),
        "order_id": text_at(events, 0, "M", "data", "M", "order", "M", "orderId", "S"),
        "detail_type": text_at(events, -1, "M", "type", "S"),
        "correlation_id": text_at(events, -1, "M", "correlationId", "S"),
    }


def window(first: datetime, last: datetime) -> str:
    """Returns the parameters of `make replay` and `make republish` for the events between two times in UTC."""
    return f"FROM={first:%Y-%m-%dT%H:%M:%SZ} TO={last + timedelta(seconds=1):%Y-%m-%dT%H:%M:%SZ}"


def parse_json(body: str) -> Any:
    """Returns the parsed body of a message."""
    try:
        return json.loads(body)
    except ValueError:
        raise Unclassified("the body is not valid JSON") from None


def at(value: Any, *path: str | int) -> Any:
    """Returns the value at a path, or None."""
    for step in path:
        try:
            value = value[step]
        except (KeyError, IndexError, TypeError):
            return None
    return value


def text_at(value: Any, *path: str | int) -> str | None:
    """Returns the string at a path, or None if there is none or it is empty."""
    found = at(value, *path)
    return found if isinstance(found, str) and found else None


def required_text(value: Any, *path: str | int) -> str:
    """Returns the string at a path."""
    found = text_at(value, *path)
    if found is None:
        raise Unclassified(f"{path[-1]} is missing or is not a string")
    return found


def required_time(value: Any, name: str) -> datetime:
    """Returns a time in RFC 3339 format."""
    try:
        return datetime.fromisoformat(required_text(value, name)).astimezone(UTC)
    except ValueError:
        raise Unclassified(f"{name} is not a time in RFC 3339 format") from None
