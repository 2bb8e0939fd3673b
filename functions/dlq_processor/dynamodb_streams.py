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
    """Returns the records of a batch as Lambda hands them over, including those that a filter excludes.

    Returns:
        The records, or None if the stream no longer returns all of them.
    """
    found: list[dict[str, Any]] = []
    try:
        iterator: str | None = streams.get_shard_iterator(
            StreamArn=batch.stream,
            ShardId=batch.shard,
            ShardIteratorType="AT_SEQUENCE_NUMBER",
            SequenceNumber=batch.first,
        )["ShardIterator"]
        for _ in range(MAX_READS):
            if iterator is None:
                break
            answer = streams.get_records(ShardIterator=iterator)
            for record in answer["Records"]:
                number = int(record["dynamodb"]["SequenceNumber"])
                if number <= int(batch.last):
                    found.append(_as_lambda_does(record, batch.stream))
                if number >= int(batch.last):
                    return found
            iterator = answer.get("NextShardIterator")
    except ClientError as error:
        if error.response["Error"]["Code"] not in LOST:
            raise
    return None


def _as_lambda_does(record: Any, stream: str) -> dict[str, Any]:
    """Returns a record in Lambda's JSON: times are numbers, binary values are Base64, the stream's ARN is added."""
    plain: dict[str, Any] = json.loads(json.dumps(record, default=_plain))
    return {**plain, "eventSourceARN": stream}


def _plain(value: datetime | bytes) -> float | str:
    return value.timestamp() if isinstance(value, datetime) else base64.b64encode(value).decode()
