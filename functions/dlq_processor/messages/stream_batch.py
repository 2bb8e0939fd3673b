"""Reads Lambda's record of a stream batch that failed: it points to the records in the stream and has no content."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from dlq_processor.domain import Failure, FailureKind, as_reason
from dlq_processor.messages import reading
from dlq_processor.messages.reading import at, required_text, required_time
from orderflow.serialization import to_json

MARGIN = timedelta(seconds=15)
"""An event is stored up to ten seconds after its time (the timeout of the functions that store events), and clocks and
the stream's arrival times are approximate. Republishing too many events does no harm."""


@dataclass(frozen=True)
class StreamBatch:
    """A batch of a DynamoDB stream that a consumer failed to process."""

    stream: str  # its ARN
    shard: str
    first: str  # the first record's sequence number
    last: str  # the last record's sequence number
    failure: Failure  # of the whole batch, without a payload


def read(body: Any, stack_name: str) -> StreamBatch:
    """Reads the record of a failed batch."""
    consumer = reading.consumer_of(required_text(body, "requestContext", "functionArn"), stack_name)
    reason = as_reason(required_text(body, "requestContext", "condition"))
    batch = body["DDBStreamBatchInfo"]
    message = f"{at(batch, 'batchSize')} records, {at(body, 'requestContext', 'approximateInvokeCount')} attempts"
    shard, first = required_text(batch, "shardId"), required_text(batch, "startSequenceNumber")
    begin = required_time(batch, "approximateArrivalOfFirstRecord") - MARGIN
    end = required_time(batch, "approximateArrivalOfLastRecord") + MARGIN
    command = f"make republish {reading.window(begin, end)}"
    failure = Failure(consumer, f"{shard}-{first}", FailureKind.STREAM, reason, message, remediation=command)
    stream, last = required_text(batch, "streamArn"), required_text(batch, "endSequenceNumber")
    return StreamBatch(stream, shard, first, last, failure)


def failures_of(batch: StreamBatch, records: Sequence[Mapping[str, Any]] | None) -> list[Failure]:
    """Returns one failure per record that holds events, or one for the whole batch if its records are lost.

    Args:
        records: the batch's stream records as Lambda hands them over; None if the stream no longer has them. Records
            without events are skipped, as the filters of the event source mappings do.
    """
    if records is None:
        return [batch.failure]
    common = replace(batch.failure, remediation=None, transient=True)  # Lambda does not report why the consumer failed
    return [
        reading.with_payload(replace(common, **reading.about_stream_record(record)), to_json({"Records": [record]}))
        for record in records
        if at(record, "dynamodb", "NewImage", "events") is not None
    ]
