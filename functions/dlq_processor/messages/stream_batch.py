"""Reads Lambda's record of a stream batch that failed: it points to the records in the stream and has no content."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from dlq_processor.domain import Failure, FailureKind, as_reason
from dlq_processor.messages.reading import (
    about_stream_record,
    at,
    consumer_of,
    required_digits,
    required_text,
    required_time,
    storable,
    to_second,
)
from orderflow.serialization import to_json

MARGIN = timedelta(seconds=15)
"""An event is stored up to ten seconds after its time (the timeout of the functions that store events), and clocks and
the stream's arrival times are approximate. Republishing too many events does no harm."""


@dataclass(frozen=True)
class StreamBatch:
    """A batch of a DynamoDB stream that a consumer failed to process.

    Args:
        stream: the stream's ARN.
        first: the first record's sequence number.
        last: the last record's sequence number.
        arrived: when the first and the last record were written to the stream.
    """

    consumer: str
    reason: str
    message: str
    stream: str
    shard: str
    first: str
    last: str
    arrived: tuple[datetime, datetime]


def read(body: Any, stack_name: str) -> StreamBatch:
    """Reads the record of a failed batch."""
    batch = body["DDBStreamBatchInfo"]
    return StreamBatch(
        consumer=consumer_of(required_text(body, "requestContext", "functionArn"), stack_name),
        reason=as_reason(required_text(body, "requestContext", "condition")),
        message=f"{at(batch, 'batchSize')} records, {at(body, 'requestContext', 'approximateInvokeCount')} attempts",
        stream=required_text(batch, "streamArn"),
        shard=required_text(batch, "shardId"),
        first=required_digits(batch, "startSequenceNumber"),
        last=required_digits(batch, "endSequenceNumber"),
        arrived=(
            required_time(batch, "approximateArrivalOfFirstRecord"),
            required_time(batch, "approximateArrivalOfLastRecord"),
        ),
    )


def failures_of(batch: StreamBatch, records: Sequence[Mapping[str, Any]] | None) -> list[Failure]:
    """Returns one failure per record that holds events, or one for the whole batch if its records are lost.

    Args:
        records: the batch's stream records as Lambda hands them over; None if the stream no longer has them. Records
            without events are skipped, as the filters of the event source mappings do.
    """
    common: dict[str, Any] = {
        "consumer": batch.consumer,
        "kind": FailureKind.STREAM,
        "reason": batch.reason,
        "message": batch.message,
    }
    if records is None:
        begin, end = batch.arrived
        window = f"FROM={to_second(begin - MARGIN)} TO={to_second(end + MARGIN + timedelta(seconds=1))}"
        lost_id = f"{batch.shard}-{batch.first}"
        return [Failure(event_id=lost_id, remediation=f"make republish {window}", **common)]
    return [
        storable(
            payload=to_json({"Records": [record]}),
            transient=True,  # Lambda does not report why the consumer failed
            **about_stream_record(record),
            **common,
        )
        for record in records
        if at(record, "dynamodb", "NewImage", "events") is not None
    ]
