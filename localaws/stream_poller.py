"""Event source mappings of DynamoDB streams: batches in order, retried until they succeed or expire."""

import json
import threading
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue
from typing import Any

from localaws.aws import SHARD_ID
from localaws.delivery import Clock, put_aside
from localaws.event_pattern import EventPattern
from localaws.lambda_runtime import InvocationResult, timestamp

FIRST_PAUSE = 0.1
LONGEST_PAUSE = 10.0
"""First and longest pause between attempts of a failing batch, in seconds. Each pause is twice the previous one."""

Record = dict[str, Any]


@dataclass(frozen=True)
class StreamMapping:
    """An enabled mapping of a stream to a function or pipe.

    Args:
        function: name or ARN of the function, or ARN of the pipe.
        stream: ARN of the stream.
        batch_size: maximum records of an invocation.
        filters: a record that matches none of them is skipped. Without filters, all records match.
        partial: whether the function reports failed records (ReportBatchItemFailures).
        bisect: whether a batch that fails as a whole is split in two halves for the retry.
        retries: maximum retries of a batch; None for no limit.
        maximum_age: seconds after which a failing record is discarded; None for never.
        on_failure: ARN of the queue for the pointers to discarded records, or None.
    """

    function: str
    stream: str
    batch_size: int
    filters: tuple[EventPattern, ...]
    partial: bool
    bisect: bool
    retries: int | None
    maximum_age: float | None
    on_failure: str | None

    def wants(self, record: Record) -> bool:
        """Returns whether a record matches the filters."""
        return not self.filters or any(pattern.matches(record) for pattern in self.filters)


def read_mapping(properties: Mapping[str, Any]) -> StreamMapping:
    """Returns the mapping with the resolved properties of an `AWS::Lambda::EventSourceMapping` on a stream.

    Raises:
        InvalidEventPattern: Lambda would reject a filter.
    """
    retries = int(properties.get("MaximumRetryAttempts", -1))
    age = int(properties.get("MaximumRecordAgeInSeconds", -1))
    return StreamMapping(
        function=properties["FunctionName"],
        stream=properties["EventSourceArn"],
        batch_size=int(properties.get("BatchSize", 100)),
        filters=tuple(EventPattern(pattern) for pattern in filter_patterns(properties)),
        partial=reports_failures(properties),
        bisect=bool(properties.get("BisectBatchOnFunctionError", False)),
        retries=None if retries == -1 else retries,
        maximum_age=None if age == -1 else age,
        on_failure=properties.get("DestinationConfig", {}).get("OnFailure", {}).get("Destination"),
    )


def filter_patterns(properties: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns the patterns of a mapping's FilterCriteria."""
    return [json.loads(criterion["Pattern"]) for criterion in properties.get("FilterCriteria", {}).get("Filters", [])]


def reports_failures(properties: Mapping[str, Any]) -> bool:
    """Returns whether a mapping's function reports the failed records (ReportBatchItemFailures)."""
    return "ReportBatchItemFailures" in properties.get("FunctionResponseTypes", [])


class StreamSources:
    """All stream mappings of a template.

    Args:
        mappings: from `read_mapping`.
        clock: measures the ages and pauses.
        invoke: runs a function and waits for its result; it may raise.
        send: sends a message to a queue, given by its ARN; it may raise.
        on_failure: called with the function and one line about a failure and the next step.
    """

    def __init__(
        self,
        mappings: Iterable[StreamMapping],
        *,
        clock: Clock,
        invoke: Callable[[str, bytes], InvocationResult],
        send: Callable[[str, str], None],
        on_failure: Callable[[str, str], None],
    ) -> None:
        self._shards = [_Shard(mapping, clock, invoke, send, on_failure) for mapping in mappings]

    def start(self) -> None:
        """Start to deliver records."""
        for shard in self._shards:
            shard.start()

    def on_record(self, stream: str, record: Record) -> None:
        """Enqueue a record of a stream. Returns immediately."""
        for shard in self._shards:
            if shard.mapping.stream == stream and shard.mapping.wants(record):
                shard.put(record)

    def stop(self) -> None:
        """Stop, and drop the waiting records."""
        for shard in self._shards:
            shard.stop()


@dataclass(frozen=True)
class _Batch:
    """The records of one invocation, and its number of failed attempts."""

    records: list[Record]
    failures: int = 0


class _Shard:
    """The records of one mapping, in the order of the writes. A failing batch blocks the batches after it."""

    def __init__(
        self,
        mapping: StreamMapping,
        clock: Clock,
        invoke: Callable[[str, bytes], InvocationResult],
        send: Callable[[str, str], None],
        on_failure: Callable[[str, str], None],
    ) -> None:
        self.mapping = mapping
        self._clock = clock
        self._invoke = invoke
        self._send = send
        self._on_failure = on_failure
        self._queue: SimpleQueue[Record | None] = SimpleQueue()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"stream to {mapping.function}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def put(self, record: Record) -> None:
        self._queue.put(record)

    def stop(self) -> None:
        self._stopping.set()
        self._queue.put(None)
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        waiting: deque[_Batch] = deque()
        while True:
            batch = waiting.popleft() if waiting else _Batch(self._next())
            if self._stopping.is_set():
                return
            failed, reason = self._attempt(batch.records)
            if reason is not None:
                waiting.extendleft(reversed(self._after_failure(batch, failed, reason)))

    def _next(self) -> list[Record]:
        records = [self._queue.get()]
        while len(records) < self.mapping.batch_size and not self._queue.empty():
            records.append(self._queue.get())
        return [record for record in records if record is not None]

    def _attempt(self, records: list[Record]) -> tuple[list[Record], str | None]:
        """Invokes the function once. Returns the records to retry and the reason, or an empty list and None.

        Lambda retries from the lowest failed record on, also records that succeeded (partial batch response).
        """
        numbers = [record["dynamodb"]["SequenceNumber"] for record in records]
        payload = json.dumps({"Records": records}).encode()
        failed, reason = attempt(self._invoke, self.mapping.function, payload, numbers, partial=self.mapping.partial)
        return records[min(numbers.index(number) for number in failed) :] if failed else [], reason

    def _after_failure(self, batch: _Batch, failed: list[Record], reason: str) -> list[_Batch]:
        """Waits, discards the records that are expired or out of retries, and returns the batches to retry."""
        failures = 1 if len(failed) < len(batch.records) else batch.failures + 1
        halves = self._halves(failed) if len(failed) == len(batch.records) else [failed]
        if len(halves) == 1 and self.mapping.retries is not None and failures > self.mapping.retries:
            self._give_up(failed, "RetryAttemptsExhausted", failures)
            return []
        pause = min(FIRST_PAUSE * 2 ** (failures - 1), LONGEST_PAUSE)
        seconds = self._clock.outside(pause)
        self._on_failure(self.mapping.function, f"{reason}; {len(failed)} records, next attempt in {seconds:.1f} s")
        self._stopping.wait(self._clock.outside(pause))
        # A half starts with the retries that the whole batch has used: splitting alone does not count as a retry
        kept = [self._without_expired(half, failures) for half in halves]
        return [_Batch(half, failures - (len(halves) - 1)) for half in kept if half]

    def _halves(self, records: list[Record]) -> list[list[Record]]:
        if not self.mapping.bisect or len(records) == 1:
            return [records]
        middle = len(records) // 2
        return [records[:middle], records[middle:]]

    def _without_expired(self, records: list[Record], attempts: int) -> list[Record]:
        limit = self.mapping.maximum_age
        if limit is None:
            return records
        fresh = [record for record in records if self._clock.since(_written(record)) <= limit]
        expired = records[: len(records) - len(fresh)]  # the oldest are first
        if expired:
            self._give_up(expired, "RecordAgeExceeded", attempts)
        return fresh

    def _give_up(self, records: list[Record], condition: str, attempts: int) -> None:
        def send(destination: str) -> None:
            self._send(destination, json.dumps(_pointer(self.mapping, records, condition, attempts)))

        put_aside(
            f"{len(records)} records discarded, {condition}",
            self.mapping.on_failure,
            send,
            partial(self._on_failure, self.mapping.function),
        )


def _written(record: Record) -> float:
    return float(record["dynamodb"]["ApproximateCreationDateTime"])


def _pointer(mapping: StreamMapping, records: list[Record], condition: str, attempts: int) -> dict[str, Any]:
    """Returns the message for the destination. It contains the position of the records, not their content.

    Source: Lambda developer guide, "Retain discarded records" for DynamoDB streams.
    """
    first, last = records[0], records[-1]
    reader: dict[str, Any] = {
        "requestContext": {
            "requestId": str(uuid.uuid4()),
            "functionArn": mapping.function,
            "condition": condition,
            "approximateInvokeCount": attempts,
        },
        "responseContext": {"statusCode": 200, "executedVersion": "$LATEST", "functionError": "Unhandled"},
    }
    if ":pipe/" in mapping.function:
        reader = {"context": {"partnerResourceArn": mapping.function, "condition": condition}}
    return {
        **reader,
        "version": "1.0",
        "timestamp": timestamp(),
        "DDBStreamBatchInfo": {
            "shardId": SHARD_ID,
            "startSequenceNumber": first["dynamodb"]["SequenceNumber"],
            "endSequenceNumber": last["dynamodb"]["SequenceNumber"],
            "approximateArrivalOfFirstRecord": timestamp(_written(first)),
            "approximateArrivalOfLastRecord": timestamp(_written(last)),
            "batchSize": len(records),
            "streamArn": mapping.stream,
        },
    }


def attempt(
    invoke: Callable[[str, bytes], InvocationResult],
    function: str,
    payload: bytes,
    identifiers: Sequence[str],
    *,
    partial: bool,
) -> tuple[Sequence[str], str | None]:
    """Invokes a function once with a batch.

    Args:
        invoke: runs a function and waits for its result; it may raise.
        function: name or ARN of the function.
        payload: the batch.
        identifiers: sequence numbers of a stream's records, or message IDs of a queue.
        partial: whether the function reports failed records.

    Returns:
        The identifiers of the failed records and the reason, or an empty list and None. An invalid response, or one
        that names an unknown record, is a failure of the whole batch (Lambda developer guide, "Success and failure
        conditions").
    """
    try:
        result = invoke(function, payload)
    except Exception as error:
        return identifiers, f"{type(error).__name__}: {error}"
    if result.function_error:
        return identifiers, "the invocation failed"
    if not partial:
        return [], None
    try:
        response = json.loads(result.payload) or {}
        failures = [item["itemIdentifier"] for item in response.get("batchItemFailures") or []]
        unknown = set(failures) - set(identifiers)
    except (ValueError, KeyError, TypeError, AttributeError):
        return identifiers, f"not a partial batch response: {result.payload[:200].decode(errors='replace')}"
    if unknown:
        return identifiers, "batchItemFailures names a record that is not in the batch"
    return failures, f"{len(failures)} records reported as failed" if failures else None
