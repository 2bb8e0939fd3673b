"""The rules of failed events: what a record holds, how it changes, which failures are retried, what an alert says."""

import re
from dataclasses import dataclass, fields, replace
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
    (
        # Lambda: the function was throttled until the event expired, it timed out, or its process ended.
        # ZeroReservedConcurrency is not transient: an operator has disabled the function.
        *("EventAgeExceeded", "Sandbox.Timedout", "Runtime.ExitError"),
        # Errors of this application
        *("ConcurrentUpdate", "VersionConflict", "Contention", "NotAccepted", "IdempotencyAlreadyInProgressError"),
        "IdempotencyPersistenceLayerError",  # its text contains no error code if the connection to DynamoDB failed
        # The SDK could not connect (botocore.exceptions)
        *("ConnectTimeoutError", "ConnectionClosedError", "EndpointConnectionError", "ReadTimeoutError"),
        # Errors that the SDK retries, after its last attempt (botocore/retries/standard.py)
        *("InternalError", "InternalException", "InternalFailure", "InternalServerError", "RequestTimeout"),
        *("RequestTimeoutException", "ServiceException", "ServiceUnavailable", "ServiceUnavailableException"),
        *("500", "502", "503", "504"),
        *("BandwidthLimitExceeded", "LimitExceededException", "PriorRequestNotComplete", "RequestLimitExceeded"),
        *("ProvisionedThroughputExceededException", "RequestThrottled", "RequestThrottledException", "SlowDown"),
        *("Throttling", "ThrottledException", "ThrottlingException", "TooManyRequestsException"),
        "TransactionInProgressException",
        # DynamoDB: a single write conflicted with a transaction. The SDK does not retry it.
        "TransactionConflictException",
    )
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


NOT_RETRIED = (FailedEventStatus.PARKED, FailedEventStatus.RESOLVED)


@dataclass(frozen=True)
class FailureDetails:
    """What a message of the DLQ says about the failure of one consumer to process one event."""

    consumer: str  # the function's name without the stack's name, such as `inventory`, or the rule of another target
    event_id: str  # `metadata.eventId` of the event, or the id of the message or request if the event has none
    kind: FailureKind
    reason: str  # an error code or type
    message: str  # the error message. It may contain personal data: never log it, never send it
    payload: str | None = None  # JSON to invoke the consumer with; None if an invocation cannot help
    remediation: str | None = None  # the command to run if there is no payload
    order_id: str | None = None
    detail_type: str | None = None
    correlation_id: str | None = None


@dataclass(frozen=True)
class Failure(FailureDetails):
    """One failure of one consumer to process one event."""

    transient: bool = False  # whether an automatic retry may succeed

    @property
    def id(self) -> str:
        """The record's id: the same for the same consumer and event, and always one segment of a URL path."""
        if PLAIN.fullmatch(self.consumer) and PLAIN.fullmatch(self.event_id):
            return f"{self.consumer}:{self.event_id}"
        return derived_ulid(self.consumer, self.event_id)


@dataclass(frozen=True, kw_only=True)
class FailedEvent(FailureDetails):
    """The record of all failures of one consumer to process one event, with the details of the latest."""

    id: str
    status: FailedEventStatus
    first_failed_at: str  # RFC 3339
    last_failed_at: str  # RFC 3339, time of the latest message in the DLQ or failed retry
    failures: int  # messages in the DLQ that reported it
    attempts: int = 0  # automatic retries so far
    version: int = 0  # number of writes; 0 for a record that is not stored yet
    resolved_at: str | None = None  # RFC 3339, when the consumer succeeded
    expiration: int | None = None  # when DynamoDB deletes the record, in seconds since the epoch
    message_ids: frozenset[str]  # ids of the DLQ messages that were counted

    @property
    def redrivable(self) -> bool:
        """Whether the record has a payload to invoke its consumer with."""
        return self.payload is not None

    @property
    def log(self) -> dict[str, Any]:
        """Fields for log entries. None of them is personal data."""
        names = ("consumer", "reason", "event_id", "order_id", "correlation_id")
        return {"failed_event": self.id, **{name: getattr(self, name) for name in names}}


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


def is_transient(reason: str, message: str) -> bool:
    """Returns whether a failed invocation may succeed later without a change. Unknown errors are not transient."""
    return not TRANSIENT.isdisjoint({reason, *ERROR_CODE.findall(message)})


def counted(record: FailedEvent | None, failure: Failure, message_id: str, now: datetime) -> FailedEvent | None:
    """Returns the record with one more failure, or None if this message was counted before.

    A failure of an event that already has a record is parked, whatever the record's status: a retry or a redrive did
    not help.
    """
    if record and message_id in record.message_ids:
        return None
    details: dict[str, Any] = {field.name: getattr(failure, field.name) for field in fields(FailureDetails)}
    failed_at = timestamp(now)
    if record is None:
        return FailedEvent(
            **details,
            id=failure.id,
            status=FailedEventStatus.PARKED if failure.payload is None else FailedEventStatus.NEW,
            first_failed_at=failed_at,
            last_failed_at=failed_at,
            failures=1,
            message_ids=frozenset({message_id}),
        )
    return replace(
        record,
        **details,
        status=FailedEventStatus.PARKED,
        last_failed_at=failed_at,
        failures=record.failures + 1,
        message_ids=record.message_ids | {message_id},
        resolved_at=None,
        expiration=None,
    )


def claimed(record: FailedEvent | None, attempt: int) -> FailedEvent | None:
    """Returns the record at the start of an automatic retry, or None if the retry is no longer needed.

    A retry that was interrupted has the same attempt as its record and runs again.
    """
    if record is None or record.status in NOT_RETRIED or record.attempts > attempt:
        return None
    return replace(record, status=FailedEventStatus.RETRYING, attempts=attempt)


def parked(record: FailedEvent | None) -> FailedEvent | None:
    """Returns the record parked, or None if there is none, or it is parked or resolved already."""
    if record is None or record.status in NOT_RETRIED:
        return None
    return replace(record, status=FailedEventStatus.PARKED)


def redriven(record: FailedEvent, outcome: RedriveOutcome, on_failure: FailedEventStatus, now: datetime) -> FailedEvent:
    """Returns the record after a redrive. `on_failure` is its status if the redrive failed."""
    at = timestamp(now)
    if outcome.succeeded:
        expiration = int((now + KEEP_RESOLVED).timestamp())
        return replace(record, status=FailedEventStatus.RESOLVED, resolved_at=at, expiration=expiration)
    return replace(record, status=on_failure, reason=outcome.reason, message=outcome.message, last_failed_at=at)


@dataclass(frozen=True)
class Alert:
    """An alert, which is sent once per consumer, reason and hour. The hour is in UTC, such as `2026-11-21T18`."""

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
    text = f"""\
Consumer: {record.consumer}
Reason:   {record.reason}
Record:   {record.id}
Order:    {record.order_id or "unknown"}
Status:   {record.status}, failures: {record.failures}, automatic retries: {record.attempts}

{next_step}

List all failed events of this consumer: GET /admin/failed-events?consumer={quote(record.consumer)}
Reasons and what to do about them: docs/operations.md
More failures of this consumer with this reason are stored without an alert until the end of this hour (UTC)."""
    hour = record.last_failed_at[: len("2026-11-21T18")]
    subject = f"Failed event: {record.consumer}, {record.reason}"[:MAX_SUBJECT]
    return Alert(record.consumer, record.reason, hour, subject, text)
