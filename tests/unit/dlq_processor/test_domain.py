"""The rules of failed events: ids, transitions, which failures are retried, and the text of alerts."""

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlq_processor.domain import (
    RETRY_DELAYS,
    FailedEvent,
    FailedEventStatus,
    Failure,
    FailureKind,
    RedriveOutcome,
    alert_for,
    claimed,
    counted,
    is_transient,
    parked,
    redriven,
)

NEW, RETRYING, PARKED, RESOLVED = FailedEventStatus
NOW = datetime(2026, 11, 21, 18, 36, tzinfo=UTC)


def a_failure(**fields: Any) -> Failure:
    described: dict[str, Any] = {
        "consumer": "email",
        "event_id": "1",
        "kind": FailureKind.NON_RETRYABLE,
        "reason": "MessageRejected",
        "message": "no mail for ada@example.com",
        "order_id": "ORD-1",
        "payload": '{"detail":{"customerEmail":"ada@example.com"}}',
    }
    return Failure(**described | fields)


def a_record(**fields: Any) -> FailedEvent:
    record = counted(None, a_failure(), "message-1", NOW)
    assert record is not None
    return replace(record, **fields)


@given(st.text(min_size=1), st.text(min_size=1))
def test_an_id_is_one_segment_of_a_path_and_differs_between_events(consumer: str, event_id: str) -> None:
    def record_id(consumer: str, event_id: str) -> str:
        return Failure(consumer, event_id, FailureKind.QUEUE, "reason", "").id

    assert re.fullmatch("[A-Za-z0-9_.:-]{1,201}", record_id(consumer, event_id))
    assert record_id(consumer, event_id) == record_id(consumer, event_id)
    assert record_id(consumer, event_id) != record_id(consumer, f"{event_id}x")


# ------------------------------------------------------------------------------------------ transitions


@pytest.mark.parametrize(("payload", "status"), [("{}", NEW), (None, PARKED)])
def test_a_first_failure_is_new_or_parked_if_it_cannot_be_redriven(
    payload: str | None, status: FailedEventStatus
) -> None:
    record = counted(None, a_failure(payload=payload), "message-1", NOW)
    assert record is not None
    assert (record.status, record.failures, record.version) == (status, 1, 0)
    assert record.first_failed_at == record.last_failed_at == "2026-11-21T18:36:00.000Z"


@pytest.mark.parametrize("status", FailedEventStatus)
def test_a_message_is_counted_once_and_another_one_parks_the_record(status: FailedEventStatus) -> None:
    record = a_record(status=status, resolved_at="2026-11-21T18:36:00.000Z", expiration=1)
    assert counted(record, a_failure(), "message-1", NOW) is None
    again = counted(record, a_failure(reason="KeyError"), "message-2", NOW + timedelta(minutes=1))
    assert again is not None
    assert (again.status, again.reason, again.failures) == (PARKED, "KeyError", 2)
    assert (again.first_failed_at, again.last_failed_at) == (record.first_failed_at, "2026-11-21T18:37:00.000Z")
    assert (again.resolved_at, again.expiration) == (None, None)


@pytest.mark.parametrize("status", [NEW, RETRYING])
@pytest.mark.parametrize(("attempts", "runs"), [(0, True), (1, True), (2, True), (3, False)])
def test_a_retry_runs_unless_a_later_one_has_begun(status: FailedEventStatus, attempts: int, runs: bool) -> None:
    retried = claimed(a_record(status=status, attempts=attempts), 2)
    assert (retried is not None) is runs
    if retried:
        assert (retried.status, retried.attempts) == (RETRYING, 2)


@pytest.mark.parametrize("record", [None, a_record(status=PARKED), a_record(status=RESOLVED)])
def test_a_retry_of_a_record_that_is_gone_parked_or_resolved_does_not_run(record: FailedEvent | None) -> None:
    assert claimed(record, 1) is None


def test_only_an_open_record_is_parked() -> None:
    records = [None, *(a_record(status=status) for status in FailedEventStatus)]
    changed = [parked(record) for record in records]
    assert [record and record.status for record in changed] == [None, PARKED, PARKED, None, None]


def test_a_successful_redrive_resolves_a_record_for_90_days() -> None:
    record = redriven(a_record(), RedriveOutcome(succeeded=True), PARKED, NOW)
    assert (record.status, record.resolved_at) == (RESOLVED, "2026-11-21T18:36:00.000Z")
    assert record.expiration == int((NOW + timedelta(days=90)).timestamp())


def test_a_failed_redrive_stores_its_reason() -> None:
    outcome = RedriveOutcome(succeeded=False, reason="KeyError", message="no")
    record = redriven(a_record(), outcome, RETRYING, NOW + timedelta(hours=1))
    assert (record.status, record.reason, record.message) == (RETRYING, "KeyError", "no")
    assert record.last_failed_at == "2026-11-21T19:36:00.000Z"


# ------------------------------------------------------------------------------------------ retries


@pytest.mark.parametrize(
    ("reason", "why"),
    [
        ("EventAgeExceeded", ""),
        ("Sandbox.Timedout", "RequestId: 1 Error: Task timed out after 10.00 seconds"),
        ("Runtime.ExitError", "RequestId: 1 Error: Runtime exited with error: signal: killed"),
        ("ConcurrentUpdate", "another writer was first at each of 5 attempts"),
        ("VersionConflict", "ORD-1 is at version 2"),
        ("Contention", "PRODUCT#P-1: TransactionConflict, after 8 attempts"),
        ("TransactionConflictException", "An error occurred (TransactionConflictException) when calling UpdateItem"),
        ("ThrottlingException", "Rate exceeded"),
        ("EndpointConnectionError", "Could not connect"),
        ("ClientError", "An error occurred (ThrottlingException) when calling the UpdateItem operation: slow down"),
        ("ClientError", "An error occurred (503) when calling the GetItem operation (reached max retries: 4): busy"),
        (
            "IdempotencyPersistenceLayerError",
            "Failed to save - (An error occurred (InternalServerError) when calling the PutItem operation: no)",
        ),
        ("IdempotencyPersistenceLayerError", "Failed to save - (Connection was closed before we received a response)"),
    ],
)
def test_a_transient_failure_is_retried(reason: str, why: str) -> None:
    assert is_transient(reason, why)


@pytest.mark.parametrize(
    "code",
    [
        "500",
        "502",
        "503",
        "504",
        "BandwidthLimitExceeded",
        "LimitExceededException",
        "PriorRequestNotComplete",
        "ProvisionedThroughputExceededException",
        "RequestLimitExceeded",
        "RequestThrottled",
        "RequestThrottledException",
        "RequestTimeout",
        "RequestTimeoutException",
        "SlowDown",
        "ThrottledException",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
        "TransactionInProgressException",
    ],
)
def test_each_error_code_that_the_sdk_retries_is_transient(code: str) -> None:
    assert is_transient("ClientError", f"An error occurred ({code}) when calling the Publish operation")


@pytest.mark.parametrize(
    "reason",
    [
        *("ConnectTimeoutError", "ConnectionClosedError", "ReadTimeoutError"),
        *("IdempotencyAlreadyInProgressError", "NotAccepted"),
        *("InternalError", "InternalException", "InternalFailure", "InternalServerError"),
        *("ServiceException", "ServiceUnavailable", "ServiceUnavailableException"),
    ],
)
def test_a_lost_connection_and_a_busy_service_are_transient(reason: str) -> None:
    assert is_transient(reason, "")


@pytest.mark.parametrize(
    ("reason", "why"),
    [
        ("ZeroReservedConcurrency", ""),
        ("KeyError", "'orderId'"),
        ("FaultInjected", ""),
        ("TransactionRejected", "PRODUCT#P-1: ValidationError"),
        ("ClientError", "An error occurred (AccessDeniedException) when calling the GetItem operation: (503)"),
        ("ValueError", "ThrottlingException"),
    ],
)
def test_an_unknown_error_is_not_retried(reason: str, why: str) -> None:
    assert not is_transient(reason, why)


def test_delays_grow_and_sqs_accepts_them() -> None:
    assert list(RETRY_DELAYS) == sorted(set(RETRY_DELAYS))
    assert RETRY_DELAYS[-1] <= 900


# ------------------------------------------------------------------------------------------ alerts


def test_an_alert_names_consumer_reason_and_next_step_and_contains_no_personal_data() -> None:
    alert = alert_for(a_record(), retried=False)
    assert (alert.consumer, alert.reason, alert.hour) == ("email", "MessageRejected", "2026-11-21T18")
    assert alert.subject == "Failed event: email, MessageRejected"
    for part in ("email:1", "ORD-1", "MessageRejected", "GET /admin/failed-events?consumer=email"):
        assert part in alert.text
    assert "Fix the cause, then call: POST /admin/failed-events/email%3A1/redrive" in alert.text
    assert "ada@example.com" not in alert.text


def test_an_alert_names_the_command_if_a_redrive_cannot_help() -> None:
    alert = alert_for(a_record(payload=None, remediation="make republish ORDER=ORD-1"), retried=False)
    assert "Fix the cause, then run: make republish ORDER=ORD-1" in alert.text
    assert "/redrive" not in alert.text


def test_an_alert_during_automatic_retries_says_so() -> None:
    assert "automatic retries are running" in alert_for(a_record(), retried=True).text


def test_an_alert_for_an_event_without_an_order_says_that_the_order_is_unknown() -> None:
    assert "Order:    unknown" in alert_for(a_record(order_id=None), retried=False).text


def test_a_subject_is_cut_to_the_limit_of_sns() -> None:
    assert len(alert_for(a_record(consumer="c" * 100, reason="r" * 100), retried=False).subject) == 100
