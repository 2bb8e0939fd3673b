"""Reads the records of a failed stream batch. A stream keeps its records for 24 hours."""

import base64
import json
from datetime import datetime
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from dlq_processor.messages.stream_batch import StreamBatch

if TYPE_CHECKING:
    from mypy_boto3_dynamodbstreams.client import DynamoDBStreamsClient

MAX_READS = 100
"""GetRecords calls. Any of them may return no records; a batch of 100 records takes one or two that do."""
LOST = frozenset({"ExpiredIteratorException", "ResourceNotFoundException", "TrimmedDataAccessException"})


def read_records(streams: "DynamoDBStreamsClient", batch: StreamBatch) -> list[dict[str, Any]] | None:
    """Returns the records of a batch, also those that a filter excludes; None if the stream has no longer all of them.

    The records have the format of Lambda's events: times are numbers, binary values are Base64.
    """
    found: list[dict[str, Any]] = []
    try:
        iterator = streams.get_shard_iterator(
            StreamArn=batch.stream,
            ShardId=batch.shard,
            ShardIteratorType="AT_SEQUENCE_NUMBER",
            SequenceNumber=batch.first,
        )["ShardIterator"]
        for _ in range(MAX_READS):
            answer = streams.get_records(ShardIterator=iterator)
            for record in answer["Records"]:
                number = int(record["dynamodb"]["SequenceNumber"])
                if number <= int(batch.last):
                    found.append({**json.loads(json.dumps(record, default=_plain)), "eventSourceARN": batch.stream})
                if number >= int(batch.last):
                    return found
            if not (iterator := answer.get("NextShardIterator", "")):
                break
    except ClientError as error:
        if error.response["Error"]["Code"] not in LOST:
            raise
    return None


def _plain(value: datetime | bytes) -> float | str:
    return value.timestamp() if isinstance(value, datetime) else base64.b64encode(value).decode()
