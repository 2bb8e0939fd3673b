"""Reads messages that a consumer received from its queue more often than maxReceiveCount allows."""

from collections.abc import Mapping
from typing import Any

from dlq_processor.domain import Failure, FailureKind
from dlq_processor.messages.reading import Unclassified, about_event, consumer_of, parse_json, storable
from orderflow.serialization import to_json

ONLY_QUEUE = "analytics"
"""The consumer that reads from a queue. `make unpark` moves messages between queues, which removes their source: if a
second consumer gets a queue, a moved message must name its own."""


def read(message: Mapping[str, Any], queue_arn: str, stack_name: str) -> Failure:
    """Reads a message as SQS moved it, with any body.

    Args:
        queue_arn: the queue that the message comes from.
    """
    try:
        event = parse_json(message["body"])
    except Unclassified:
        event = None
    return storable(
        consumer=consumer_of(queue_arn, stack_name),
        kind=FailureKind.QUEUE,
        reason="MaxReceiveCount",
        message="the message was received more often than the maxReceiveCount of its queue",
        transient=True,  # SQS does not report why the consumer failed
        payload=as_batch(message, queue_arn),
        **about_event(event, message["messageId"]),
    )


def read_moved(message: Mapping[str, Any], stack_name: str) -> Failure:
    """Reads a message that was moved back from the parking queue: an event without attributes or a source queue."""
    return read(message, f"{message['eventSourceARN'].rpartition(':')[0]}:{stack_name}-{ONLY_QUEUE}", stack_name)


def as_batch(message: Mapping[str, Any], queue_arn: str) -> str:
    """Returns the SQS event with which Lambda would hand over the message from this queue."""
    return to_json({"Records": [{**message, "eventSourceARN": queue_arn}]})
