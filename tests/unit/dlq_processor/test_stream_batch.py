"""Lambda's records of stream batches that failed."""

import json

from hypothesis import given
from hypothesis import strategies as st

from dlq_processor.domain import FailureKind
from dlq_processor.messages import classify
from dlq_processor.messages.stream_batch import StreamBatch, failures_of
from tests.unit.dlq_processor.support import (
    FIXTURES,
    STACK,
    consumers,
    fixture,
    function_arn,
    ids,
    message,
    summary,
    words,
)


@given(consumers, ids, st.integers(1, 10**30), st.integers(0, 10**6), words)
def test_a_batch_names_its_place_in_the_stream_and_is_republished_if_its_records_are_lost(
    consumer: str, shard: str, first: int, more: int, reason: str
) -> None:
    body = {
        "requestContext": {"functionArn": function_arn(consumer), "condition": reason},
        "DDBStreamBatchInfo": {
            "shardId": shard,
            "startSequenceNumber": str(first),
            "endSequenceNumber": str(first + more),
            "approximateArrivalOfFirstRecord": "2026-11-21T18:36:00Z",
            "approximateArrivalOfLastRecord": "2026-11-21T18:36:01.5Z",
            "batchSize": 2,
            "streamArn": "a-stream",
        },
    }
    batch = classify(message(body), STACK)
    assert isinstance(batch, StreamBatch)
    assert (batch.stream, batch.shard, batch.first, batch.last) == ("a-stream", shard, str(first), str(first + more))
    (lost,) = failures_of(batch, None)
    assert summary(lost) == (FailureKind.STREAM, consumer, reason, f"{shard}-{first}")
    assert lost.remediation == "make republish FROM=2026-11-21T18:35:45Z TO=2026-11-21T18:36:17Z"


def test_each_record_of_a_batch_that_holds_events_is_a_failure_of_its_newest_event() -> None:
    batch = classify(fixture("stream_batch"), STACK)
    assert isinstance(batch, StreamBatch)
    (record,) = json.loads((FIXTURES.parent / "event_publisher/order_confirmed.json").read_text())["Records"]
    of_a_product = {"eventID": "2", "dynamodb": {"NewImage": {"pk": {"S": "PRODUCT#1"}}, "SequenceNumber": "2"}}
    (found,) = failures_of(batch, [record, of_a_product])
    assert summary(found) == (FailureKind.STREAM, "event-publisher", "RecordAgeExceeded", "01M7ZP9MY7KDH09ZCE2Z1T0QTD")
    assert (found.order_id, found.detail_type) == ("ORD-6V5P7GG0RPDMGJQ01WCPTTA70T", "Order Confirmed")
    assert (json.loads(found.payload or ""), found.transient) == ({"Records": [record]}, True)
    assert found.remediation is None
