"""Reads events that EventBridge, or EventBridge Scheduler, could not deliver to a target."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

from dlq_processor.domain import Failure, FailureKind, as_message, as_reason
from dlq_processor.messages import non_retryable
from dlq_processor.messages.queue_message import as_batch
from dlq_processor.messages.reading import (
    about_event,
    consumer_of,
    required_attribute,
    required_time,
    storable,
    text_at,
    to_second,
)
from orderflow.ids import derived_ulid

MAX_REPLAY_NAME = 64
"""Characters (StartReplay, EventBridge API reference)."""
NOT_RETRIED = ("NO_PERMISSIONS", "NO_RESOURCE")
"""Error codes of a target that must be fixed first."""


def read_event(message: Mapping[str, Any], attributes: Mapping[str, str], event: Any, stack_name: str) -> Failure:
    """Reads an event that a rule could not deliver. The body is the event."""
    target = required_attribute(attributes, "TARGET_ARN")
    rule = as_reason(required_attribute(attributes, "RULE_ARN").rpartition("/")[2])
    error = required_attribute(attributes, "ERROR_CODE")
    reported: dict[str, Any] = {
        "kind": FailureKind.UNDELIVERED,
        "reason": as_reason(error),
        "message": as_message(attributes.get("ERROR_MESSAGE", "")),
        **about_event(event, text_at(event, "id") or message["messageId"]),
    }
    if ":lambda:" not in target and ":sqs:" not in target:
        return Failure(consumer=rule, remediation=_remediation(rule, target, event, reported["event_id"]), **reported)
    payload = message["body"] if ":lambda:" in target else as_batch({**message, "messageAttributes": {}}, target)
    # EventBridge sets this attribute if it has retried; it does not retry errors that it considers permanent
    transient = "EXHAUSTED_RETRY_CONDITION" in attributes and error not in NOT_RETRIED
    return storable(consumer=consumer_of(target, stack_name), payload=payload, transient=transient, **reported)


def _remediation(rule: str, target: str, event: Any, event_id: str) -> str:
    """Returns the command that delivers the event to this rule's target again."""
    begin = required_time(event, "time")
    window = f"FROM={to_second(begin)} TO={to_second(begin + timedelta(seconds=1))}"  # `time` is cut to the second
    if ":logs:" in target:  # the rule of the log group excludes replays
        return f"make republish {window}"
    # A replay's name is unique in an account. The rule matches names that begin with this one, or with `redrive-`
    replay = as_reason(text_at(event, "replay-name") or "redrive")
    suffix = f"-{derived_ulid(rule, event_id)[-12:].lower()}"
    return f"make replay {window} RULE={rule} NAME={replay[: MAX_REPLAY_NAME - len(suffix)]}{suffix}"


def read_schedule(message: Mapping[str, Any], attributes: Mapping[str, str], body: Any, stack_name: str) -> Failure:
    """Reads an invocation that EventBridge Scheduler could not start. The body is the schedule's input."""
    return replace(non_retryable.read(message, attributes, body, stack_name), kind=FailureKind.UNDELIVERED)
