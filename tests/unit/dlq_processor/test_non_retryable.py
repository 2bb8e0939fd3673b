"""Messages that functions send to the DLQ themselves."""

import json
from typing import Any

from hypothesis import given

from dlq_processor.domain import FailureKind
from tests.unit.dlq_processor.support import (
    consumers,
    event_of,
    extra,
    failure,
    fixture,
    function_arn,
    ids,
    message,
    sentences,
    summary,
    words,
)


@given(consumers, ids, words, sentences, extra)
def test_an_event_is_a_failure_of_the_function_that_sent_it_and_is_not_retried(
    consumer: str, event_id: str, reason: str, why: str, more: dict[str, Any]
) -> None:
    event = {**more, **event_of(event_id)}
    attributes = {"ERROR_CODE": reason, "ERROR_MESSAGE": why, "TARGET_ARN": function_arn(consumer)}
    found = failure(message(event, attributes))
    assert summary(found) == (FailureKind.NON_RETRYABLE, consumer, reason, event_id)
    assert (json.loads(found.payload or ""), found.transient) == (event, False)


def test_an_event_of_the_publisher_is_redriven_with_the_request_that_publishes_it() -> None:
    found = failure(fixture("non_retryable_event"))
    assert (found.consumer, found.detail_type) == ("event-publisher", "Order Placed")
    request = {"table": "OrdersTable", "key": {"orderId": found.order_id}, "fromSequence": 1}
    assert json.loads(found.payload or "") == request


def test_an_unreadable_stream_record_is_described_by_its_newest_event_and_redriven_with_its_request() -> None:
    found = failure(fixture("non_retryable_record"))
    assert (found.consumer, found.event_id, found.detail_type) == (
        "event-publisher",
        "01M7ZP9MY7KDH09ZCE2Z1T0QTD",
        "Order Confirmed",
    )
    request = {"table": "OrdersTable", "key": {"orderId": found.order_id}, "fromSequence": 2}
    assert json.loads(found.payload or "") == request
