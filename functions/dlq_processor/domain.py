"""The rules of failed events: what a record holds, how it changes, which failures are retried, what an alert says."""

import re
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any
from urllib.parse import quote

from orderflow.ids import derived_ulid
from orderflow.serialization import timestamp

KEEP_RESOLVED = timedelta(days=90)
PLAIN = re.compile(r"[A-Za-z0-9_.-]{1,100}")
"""Text that may be part of a record's id, and therefore of a URL path, without encoding."""
MAX_REASON = 100
MAX_MESSAGE = 1000
MAX_SUBJECT = 100
"""Characters, of ASCII (SNS API reference, Publish)."""

RETRY_DELAYS = (15, 60, 300)
"""Seconds before the first, second and third automatic retry; SQS takes 900 at most (SQS developer guide)."""

TRANSIENT = frozenset(
    {
        # Lambda: the function was throttled until the event expired, it timed out, or its process ended.
        # ZeroReservedConcurrency is not transient: an operator has disabled the function.
        "EventAgeExceeded",
        "Sandbox.Timedout",
        "Runtime.ExitError",
        # Errors of this application
        "ConcurrentUpdate",
        "VersionConflict",
        "Contention",
        "NotAccepted",
        "IdempotencyAlreadyInProgressError",
        "IdempotencyPersistenceLayerError",  # its text contains no error code if the connection to DynamoDB failed
        # The SDK could not connect (botocore.exceptions)
        "ConnectTimeoutError",
        "ConnectionClosedError",
        "EndpointConnectionError",
        "ReadTimeoutError",
        # Errors that the SDK retries, after its last attempt (botocore/retries/standard.py)
        "BandwidthLimitExceeded",
        "InternalError",
        "InternalException",
        "InternalFailure",
        "InternalServerError",
        "LimitExceededException",
        "PriorRequestNotComplete",
        "ProvisionedThroughputExceededException",
        "RequestLimitExceeded",
        "RequestThrottled",
        "RequestThrottledException",
        "RequestTimeout",
        "RequestTimeoutException",
        "ServiceException",
        "ServiceUnavailable",
        "ServiceUnavailableException",
        "SlowDown",
        "Throttling",
        "ThrottledException",
        "ThrottlingException",
        "TooManyRequestsException",
        "TransactionInProgressException",
        "500",
        "502",
        "503",
        "504",
        # DynamoDB: a single write conflicted with a transaction. The SDK does not retry it.
        "TransactionConflictException",
    }
)
ERROR_CODE = re.compile(r"An error occurred \(([^)]+)\) when calling")
"""The error code in the text of a ClientError, also if the text of another exception contains it."""


class FailureKind(StrEnum):
    """How a failure arrived in the DLQ."""

    UNDELIVERED = "UNDELIVERED"  # EventBridge or EventBridge Scheduler could not deliver to a target
    INVOCATION = "INVOCATION"  # Lambda gave up an asynchronous invocation
    QUEUE = "QUEUE"  # a message exceeded the maxReceiveCount of its queue
    STREAM = "STREAM"  # a batch of a stream exceeded its maximum age or retries
    NON_RETRYABLE = "NON_RETRYABLE"  # a function sent the event, because a retry cannot succeed


class FailedEventStatus(StrEnum):
    """The state of a failed event."""

    NEW = "NEW"  # waits for an operator, or for its first automatic retry
    RETRYING = "RETRYING"
    PARKED = "PARKED"  # not retried automatically any more
    RESOLVED = "RESOLVED"  # its consumer has succeeded


@dataclass(frozen=True)
class Failure:
    """A failure of one consumer to handle one event, as a message of the DLQ reports it.

    Args:
        consumer: the consumer's function name without the stack's name, such as `inventory`; for other targets the
            name of their rule.
        event_id: `metadata.eventId` of the event, or the id of the message or request if the event has none.
        reason: an error code or type.
        message: the error message. It may contain personal data: never log it, never send it.
        transient: whether an automatic retry may succeed.
        payload: JSON to invoke the consumer with; None if an invocation cannot help.
        remediation: the command to run if there is no payload.
    """

    consumer: str
    event_id: str
    kind: FailureKind
    reason: str
    message: str
    transient: bool = False
    payload: str | None = None
    remediation: str | None = None
    order_id: str | None = None
    detail_type: str | None = None
    correlation_id: str | None = None

    @property
    def id(self) -> str:
        """The record's id: the same for the same consumer and event, and always one segment of a URL path."""
        if PLAIN.fullmatch(self.consumer) and PLAIN.fullmatch(self.event_id):
            return f"{self.consumer}:{self.event_id}"
        return derived_ulid(self.consumer, self.event_id)


@dataclass(frozen=True)
class FailedEvent:
    """The record of one consumer's failure to handle one event. Fields that Failure has too have the same meaning.

    Args:
        id: see Failure.id.
        kind: of the latest failure, as are reason and message.
        first_failed_at: RFC 3339, when the record was created.
        last_failed_at: RFC 3339, time of the latest message in the DLQ or failed retry.
        failures: messages in the DLQ that reported it.
        attempts: automatic retries so far.
        version: number of writes; 0 for a record that is not stored yet.
        resolved_at: RFC 3339, when the consumer succeeded.
        expiration: when DynamoDB deletes the record, in seconds since the epoch.
        message_ids: ids of the DLQ messages that were counted.
    """

    id: str
    consumer: str
    event_id: str
    kind: FailureKind
    reason: str
    message: str
    status: FailedEventStatus
    first_failed_at: str
    last_failed_at: str
    failures: int = 0
    attempts: int = 0
    version: int = 0
    order_id: str | None = None
    detail_type: str | None = None
    correlation_id: str | None = None
    payload: str | None = None
    remediation: str | None = None
    resolved_at: str | None = None
    expiration: int | None = None
    message_ids: frozenset[str] = frozenset()

    @property
    def redrivable(self) -> bool:
        """Whether the record has a payload to invoke its consumer with."""
        return self.payload is not None

    @property
    def log(self) -> dict[str, Any]:
        """Fields for log entries. None of them is personal data."""
        return {
            "failed_event": self.id,
            "consumer": self.consumer,
            "reason": self.reason,
            "event_id": self.event_id,
            "order_id": self.order_id,
            "correlation_id": self.correlation_id,
        }


@dataclass(frozen=True)
class RetryRequest:
    """A message that the DLQ processor sends to its own queue: an automatic retry is due."""

    record_id: str
    attempt: int


@dataclass(frozen=True)
class RedriveOutcome:
    """The result of a redrive, with the reason and message of a failure."""

    succeeded: bool
    reason: str = ""
    message: str = ""


def as_reason(text: str) -> str:
    """Returns an error code or a name reduced to characters that are safe in logs, alerts and shell commands."""
    return re.sub(r"[^A-Za-z0-9_.:-]+", "_", text)[:MAX_REASON] or "Unknown"


def as_message(text: str) -> str:
    """Returns an error message cut to MAX_MESSAGE."""
    return text[:MAX_MESSAGE]


def is_transient(reason: str, message: str) -> bool:
    """Returns whether a failed invocation may succeed later without a change. Unknown errors are not transient.

    Args:
        reason: the error's type, or Lambda's condition if the function did not run.
        message: the error's text.
    """
    return not TRANSIENT.isdisjoint({reason, *ERROR_CODE.findall(message)})


# ------------------------------------------------------------------------------------------ transitions


def counted(record: FailedEvent | None, failure: Failure, message_id: str, now: datetime) -> FailedEvent | None:
    """Returns the record with one more failure, or None if this message was counted before.

    A failure of an event that already has a record is parked, whatever the record's status: a retry or a redrive did
    not help.

    Args:
        record: the stored record, if there is one.
        message_id: of the DLQ message that reports the failure.
    """
    if record and message_id in record.message_ids:
        return None
    reported: dict[str, Any] = {name: value for name, value in vars(failure).items() if name != "transient"}
    if record is None:
        return FailedEvent(
            **reported,
            id=failure.id,
            status=FailedEventStatus.PARKED if failure.payload is None else FailedEventStatus.NEW,
            first_failed_at=timestamp(now),
            last_failed_at=timestamp(now),
            failures=1,
            message_ids=frozenset({message_id}),
        )
    return replace(
        record,
        **reported,
        status=FailedEventStatus.PARKED,
        last_failed_at=timestamp(now),
        failures=record.failures + 1,
        message_ids=record.message_ids | {message_id},
        resolved_at=None,
        expiration=None,
    )


def claimed(record: FailedEvent | None, attempt: int) -> FailedEvent | None:
    """Returns the record at the start of an automatic retry, or None if the retry is no longer needed.

    A retry that was interrupted has the same attempt as its record and runs again.

    Args:
        attempt: number of the automatic retry, from 1.
    """
    if record is None or record.attempts > attempt:
        return None
    if record.status not in (FailedEventStatus.NEW, FailedEventStatus.RETRYING):
        return None
    return replace(record, status=FailedEventStatus.RETRYING, attempts=attempt)


def parked(record: FailedEvent | None) -> FailedEvent | None:
    """Returns the record parked, or None if there is none, or it is parked or resolved already."""
    if record is None or record.status in (FailedEventStatus.PARKED, FailedEventStatus.RESOLVED):
        return None
    return replace(record, status=FailedEventStatus.PARKED)


def redriven(record: FailedEvent, outcome: RedriveOutcome, on_failure: FailedEventStatus, now: datetime) -> FailedEvent:
    """Returns the record after a redrive.

    Args:
        on_failure: the status of the record if the redrive failed.
    """
    if outcome.succeeded:
        return replace(
            record,
            status=FailedEventStatus.RESOLVED,
            resolved_at=timestamp(now),
            expiration=int((now + KEEP_RESOLVED).timestamp()),
        )
    return replace(
        record, status=on_failure, reason=outcome.reason, message=outcome.message, last_failed_at=timestamp(now)
    )


# ------------------------------------------------------------------------------------------ alerts


@dataclass(frozen=True)
class Alert:
    """An alert, which is sent once per consumer, reason and hour.

    Args:
        hour: UTC, such as `2026-11-21T18`.
    """

    consumer: str
    reason: str
    hour: str
    subject: str
    text: str


def alert_for(record: FailedEvent, *, retried: bool) -> Alert:
    """Returns the alert for a failed event, without any content of the event.

    Args:
        retried: whether an automatic retry follows.
    """
    if retried:
        next_step = "Wait: automatic retries are running. If all of them fail, the record is PARKED within ten minutes."
    elif record.remediation:
        next_step = f"Fix the cause, then run: {record.remediation}"
    else:
        next_step = f"Fix the cause, then call: POST /admin/failed-events/{quote(record.id)}/redrive"
    lines = (
        f"Consumer: {record.consumer}",
        f"Reason:   {record.reason}",
        f"Record:   {record.id}",
        f"Order:    {record.order_id or 'unknown'}",
        f"Status:   {record.status}, failures: {record.failures}, automatic retries: {record.attempts}",
        "",
        next_step,
        "",
        f"List all failed events of this consumer: GET /admin/failed-events?consumer={quote(record.consumer)}",
        "Reasons and what to do about them: docs/operations.md",
        "More failures of this consumer with this reason are stored without an alert until the end of this hour (UTC).",
    )
    subject = f"Failed event: {record.consumer}, {record.reason}"[:MAX_SUBJECT]
    return Alert(
        record.consumer, record.reason, record.last_failed_at[: len("2026-11-21T18")], subject, "\n".join(lines)
    )
