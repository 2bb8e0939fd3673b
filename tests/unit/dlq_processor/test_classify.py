"""The format of a message, the reasons why it is unreadable, and the fields that are stored."""

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlq_processor.domain import FailureKind, RetryRequest
from dlq_processor.messages import Unclassified, classify
from dlq_processor.messages.reading import MAX_PAYLOAD
from tests.unit.dlq_processor.support import (
    STACK,
    event_of,
    failure,
    fixture,
    function_arn,
    json_values,
    message,
    undelivered,
)

TOPIC = "arn:aws:sns:::t"


@pytest.mark.parametrize(
    ("name", "kind", "consumer", "reason", "transient"),
    [
        ("undelivered", FailureKind.UNDELIVERED, "inventory", "THROTTLING", True),
        ("undelivered_to_a_queue", FailureKind.UNDELIVERED, "analytics", "NO_PERMISSIONS", False),
        ("undelivered_to_a_log", FailureKind.UNDELIVERED, "all-events-log", "NO_RESOURCE", False),
        ("failed_invocation", FailureKind.INVOCATION, "email", "NotAccepted", True),
        ("received_too_often", FailureKind.QUEUE, "analytics", "MaxReceiveCount", True),
        ("non_retryable_email", FailureKind.NON_RETRYABLE, "email", "MessageRejected", False),
        ("non_retryable_event", FailureKind.NON_RETRYABLE, "event-publisher", "EventTooLarge", False),
        ("non_retryable_record", FailureKind.NON_RETRYABLE, "event-publisher", "UnreadableRecord", False),
    ],
)
def test_each_fixture_has_its_format(name: str, kind: FailureKind, consumer: str, reason: str, transient: bool) -> None:
    found = failure(fixture(name))
    assert (found.kind, found.consumer, found.reason, found.transient) == (kind, consumer, reason, transient)
    assert found.order_id in ("ORD-6V5P7GG0RPDMGJQ01WCPTTA70T", "ORD-3NEHS33EJFT0FE2GAPJG7E5G98")
    assert found.id == f"{consumer}:{found.event_id}"
    assert (found.payload is None) is (found.remediation is not None)


def test_a_retry_request_is_not_a_failure() -> None:
    found = classify(fixture("retry_request"), STACK)
    assert found == RetryRequest(failure(fixture("received_too_often")).id, 1)


@given(
    st.text() | json_values.map(json.dumps),
    st.dictionaries(st.sampled_from(["ERROR_MESSAGE", "TARGET_ARN", "RETRY_ATTEMPTS", "other"]), st.text(min_size=1)),
)
def test_any_other_message_is_refused_with_a_reason_that_quotes_nothing(body: str, attributes: dict[str, str]) -> None:
    with pytest.raises(Unclassified) as refusal:
        classify(message(body, attributes), STACK)
    assert str(refusal.value) in ("the body is not valid JSON", "the message has no known format")


@pytest.mark.parametrize(
    ("found", "problem"),
    [
        (message("x", {"RETRY_OF": "a:b"}), "ATTEMPT is not a number from 1 to 3"),
        (message("x", {"RETRY_OF": "a:b", "ATTEMPT": "4"}), "ATTEMPT is not a number from 1 to 3"),
        (message("{}", {"RULE_ARN": "r"}), "TARGET_ARN is missing or is not a string"),
        (message("{}", {"RULE_ARN": "r", "TARGET_ARN": "t"}), "ERROR_CODE is missing or is not a string"),
        (message("{}", undelivered(TOPIC, "r")), "time is missing or is not a string"),
        (message({"time": "noon"}, undelivered(TOPIC, "r")), "time is not a time in RFC 3339 format"),
        (message("{}", {"ERROR_CODE": "EventTooLarge"}), "TARGET_ARN is missing or is not a string"),
        (message("{}", {"SCHEDULE_ARN": "s"}), "TARGET_ARN is missing or is not a string"),
        (message({"requestContext": {}, "requestPayload": 1}), "condition is missing or is not a string"),
        (message({"DDBStreamBatchInfo": {}}), "functionArn is missing or is not a string"),
        (
            message(
                {
                    "requestContext": {"functionArn": "f", "condition": "c"},
                    "DDBStreamBatchInfo": {"streamArn": "s", "shardId": "1", "startSequenceNumber": 1},
                }
            ),
            "startSequenceNumber is missing or is not a string",
        ),
    ],
)
def test_a_message_that_lacks_a_part_is_refused_with_the_name_of_the_part(found: dict[str, Any], problem: str) -> None:
    with pytest.raises(Unclassified, match=f"^{re.escape(problem)}$"):
        classify(found, STACK)


def test_a_reason_is_cleaned_and_cut_and_a_message_is_cut() -> None:
    attributes = undelivered(function_arn("email"), "r", "a b;c" + "x" * 200, ERROR_MESSAGE="y" * 1001)
    found = failure(message(event_of("1"), attributes))
    assert (found.reason, found.message) == ("a_b_c" + "x" * 95, "y" * 1000)


@pytest.mark.parametrize(("more", "stored"), [("x", True), ("xx", False), ("é", False)])
def test_a_payload_is_stored_up_to_its_limit_in_bytes(more: str, stored: bool) -> None:
    event = json.dumps(event_of("1", text="TEXT"), ensure_ascii=False)
    body = event.replace("TEXT", "x" * (MAX_PAYLOAD - len(event) + len("TEXT") - 1) + more)
    found = failure(message(body, undelivered(function_arn("email"), "r")))
    assert found.payload == (body if stored else None)


def test_the_remediation_of_an_event_too_large_to_store_republishes_its_order() -> None:
    attributes = undelivered(function_arn("email"), "r", EXHAUSTED_RETRY_CONDITION="MaximumRetryAttempts")
    found = failure(message(event_of("1", items="x" * MAX_PAYLOAD), attributes))
    assert (found.payload, found.remediation, found.transient) == (None, "make republish ORDER=ORD-1", False)


@pytest.mark.parametrize("order_id", [None, "ORD-1; rm -rf /"])
def test_a_payload_too_large_to_store_without_an_order_is_refused(order_id: str | None) -> None:
    event = event_of("1", items="x" * MAX_PAYLOAD, orderId=order_id)
    with pytest.raises(Unclassified, match="bytes is too large to store, and it names no order"):
        classify(message(event, undelivered(function_arn("email"), "r")), STACK)
