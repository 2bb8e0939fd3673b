"""Reads the records that a stream's failed batch points to, while the stream still has them: for 24 hours."""

import base64
import json
from datetime import datetime
from typing import Any

from botocore.exceptions import ClientError

from dlq_processor.domain import Batch

READS = 100
"""Pages of GetRecords, of which any may be empty. A batch of 100 records takes one or two that are not."""
LOST = frozenset({"ExpiredIteratorException", "ResourceNotFoundException", "TrimmedDataAccessException"})


def read(streams: Any, batch: Batch) -> list[dict[str, Any]] | None:
    """A batch's records as Lambda gives them, and those between them that a filter kept back.

    Args:
        streams: the DynamoDB Streams client.
        batch: where they are.

    Returns:
        The records, or None if the stream does not give all of them any more.
    """
    found: list[dict[str, Any]] = []
    try:
        iterator = streams.get_shard_iterator(
            StreamArn=batch.stream,
            ShardId=batch.shard,
            ShardIteratorType="AT_SEQUENCE_NUMBER",
            SequenceNumber=batch.first,
        )["ShardIterator"]
        for _ in range(READS):
            answer = streams.get_records(ShardIterator=iterator)
            for record in answer["Records"]:
                number = int(record["dynamodb"]["SequenceNumber"])
                if number <= int(batch.last):
                    found.append(_as_lambda_does(record, batch.stream))
                if number >= int(batch.last):
                    return found
            iterator = answer.get("NextShardIterator")
            if iterator is None:
                break
    except ClientError as error:
        if error.response["Error"]["Code"] not in LOST:
            raise
    return None


def _as_lambda_does(record: dict[str, Any], stream: str) -> dict[str, Any]:
    """Times are numbers and binary values texts in Base64; beside the record stands its stream."""
    plain: dict[str, Any] = json.loads(json.dumps(record, default=_plain))
    return {**plain, "eventSourceARN": stream}


def _plain(value: datetime | bytes) -> float | str:
    return value.timestamp() if isinstance(value, datetime) else base64.b64encode(value).decode()
