"""Messages that a consumer received from its queue too often."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlq_processor.domain import FailureKind
from tests.unit.dlq_processor.support import (
    QUEUE,
    event_of,
    failure,
    function_arn,
    ids,
    json_values,
    message,
    summary,
    undelivered,
)


@pytest.mark.parametrize(
    "attributes", [undelivered(function_arn("email"), "r"), {"ERROR_CODE": "E", "TARGET_ARN": "email"}]
)
def test_a_message_is_classified_by_its_source_queue_and_not_by_its_attributes(attributes: dict[str, str]) -> None:
    found = failure(message(event_of("1"), attributes, DeadLetterQueueSourceArn=QUEUE))
    assert summary(found) == (FailureKind.QUEUE, "analytics", "MaxReceiveCount", "1")


@given(st.text() | json_values.map(json.dumps) | ids.map(event_of).map(json.dumps))
def test_a_message_with_any_body_is_a_failure_of_the_queues_consumer_and_is_kept_unchanged(body: str) -> None:
    found = failure(message(body, DeadLetterQueueSourceArn=QUEUE))
    assert summary(found)[:3] == (FailureKind.QUEUE, "analytics", "MaxReceiveCount")
    assert found.transient
    (record,) = json.loads(found.payload or "")["Records"]
    assert (record["body"], record["messageId"], record["eventSourceARN"]) == (body, "message-1", QUEUE)


def test_an_event_without_a_source_queue_is_a_failure_of_the_only_consumer_with_a_queue() -> None:
    found = failure(message(event_of("1")))
    assert summary(found) == (FailureKind.QUEUE, "analytics", "MaxReceiveCount", "1")
    (record,) = json.loads(found.payload or "")["Records"]
    assert record["eventSourceARN"] == QUEUE
