"""Event source mappings of DynamoDB streams: pushed, in order, tried until they succeed or grow too old."""

import json
import threading
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue
from typing import Any

from local.delivery import Clock, put_aside
from local.patterns import EventPattern
from local.runtime import InvocationResult, timestamp
from local.store import SHARD_ID

FIRST_PAUSE = 0.1
LONGEST_PAUSE = 10.0
"""Seconds between attempts at a failing batch; each pause is twice the one before."""

Record = dict[str, Any]


@dataclass(frozen=True)
class StreamMapping:
    """An enabled mapping of a stream to a function or pipe.

    Args:
        function: the function's name or ARN, or the pipe's ARN.
        stream: the stream's ARN.
        batch_size: the most records of one invocation.
        filters: a record that none of them matches is left out; no filters, no record left out.
        partial: whether the function reports failed records (ReportBatchItemFailures).
        bisect: whether a batch that fails as a whole is tried again in two halves.
        retries: how often a batch is tried again; None for no limit.
        maximum_age: seconds after which a failing record is given up; None for never.
        on_failure: the ARN of the queue that is told about records that were given up, or None.
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
        """Whether the record passes the filters."""
        return not self.filters or any(pattern.matches(record) for pattern in self.filters)


def read_mapping(properties: Mapping[str, Any]) -> StreamMapping:
    """A mapping from the resolved properties of an `AWS::Lambda::EventSourceMapping` on a stream.

    Raises:
        InvalidEventPattern: a filter is not one that Lambda takes.
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
    """The patterns of a mapping's FilterCriteria."""
    return [json.loads(criterion["Pattern"]) for criterion in properties.get("FilterCriteria", {}).get("Filters", [])]


def reports_failures(properties: Mapping[str, Any]) -> bool:
    """Whether a mapping's function says which records failed."""
    return "ReportBatchItemFailures" in properties.get("FunctionResponseTypes", [])


class StreamSources:
    """All stream mappings of a template.

    Args:
        mappings: from `read_mapping`.
        clock: what a second is.
        invoke: runs a function and waits for its result; it may raise.
        send: hands a message to a queue by its ARN; it may raise.
        on_failure: is told the function, and in a line what failed and what happens next.
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
        """Begin to hand records over."""
        for shard in self._shards:
            shard.start()

    def on_record(self, stream: str, record: Record) -> None:
        """Take in a record of a stream; returns at once."""
        for shard in self._shards:
            if shard.mapping.stream == stream and shard.mapping.wants(record):
                shard.put(record)

    def stop(self) -> None:
        """Give up what waits, and end."""
        for shard in self._shards:
            shard.stop()


@dataclass(frozen=True)
class _Batch:
    """Records that are handed over together, and how often that has failed."""

    records: list[Record]
    failures: int = 0


class _Shard:
    """One mapping's records, in the order of their writes; a failing batch holds up those behind it."""

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
        """One invocation: the records still to be handled, and why; None if all went well.

        Lambda goes back to the lowest failed record, whatever came after it (partial batch response).
        """
        numbers = [record["dynamodb"]["SequenceNumber"] for record in records]
        payload = json.dumps({"Records": records}).encode()
        failed, reason = attempt(self._invoke, self.mapping.function, payload, numbers, partial=self.mapping.partial)
        return records[min(numbers.index(number) for number in failed) :] if failed else [], reason

    def _after_failure(self, batch: _Batch, failed: list[Record], reason: str) -> list[_Batch]:
        """Wait a while, give up what has to be, and say what to try next."""
        failures = 1 if len(failed) < len(batch.records) else batch.failures + 1
        halves = self._halves(failed) if len(failed) == len(batch.records) else [failed]
        if len(halves) == 1 and self.mapping.retries is not None and failures > self.mapping.retries:
            self._give_up(failed, "RetryAttemptsExhausted", failures)
            return []
        pause = min(FIRST_PAUSE * 2 ** (failures - 1), LONGEST_PAUSE)
        self._on_failure(self.mapping.function, f"{reason}; {len(failed)} records again")
        self._stopping.wait(self._clock.outside(pause))
        # A half begins with what its whole has used up of the retries: splitting alone is no retry
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
        expired = records[: len(records) - len(fresh)]  # the oldest are in front
        if expired:
            self._give_up(expired, "RecordAgeExceeded", attempts)
        return fresh

    def _give_up(self, records: list[Record], condition: str, attempts: int) -> None:
        def send(destination: str) -> None:
            self._send(destination, json.dumps(_pointer(self.mapping, records, condition, attempts)))

        put_aside(
            f"{len(records)} records given up, {condition}",
            self.mapping.on_failure,
            send,
            partial(self._on_failure, self.mapping.function),
        )


def _written(record: Record) -> float:
    return float(record["dynamodb"]["ApproximateCreationDateTime"])


def _pointer(mapping: StreamMapping, records: list[Record], condition: str, attempts: int) -> dict[str, Any]:
    """What the destination gets: where the records are, not what they say.

    Lambda developer guide, "Retain discarded records" for DynamoDB streams.
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
    """Have a batch handled once.

    Args:
        invoke: runs a function and waits for its result; it may raise.
        function: the function's name or ARN.
        payload: the batch.
        identifiers: of its records: sequence numbers of a stream, message ids of a queue.
        partial: whether the function reports failed records.

    Returns:
        The identifiers of the records that failed, and why; nothing and None if all went well. An answer that makes no
        sense, or names an unknown record, counts as a failure of the whole batch (Lambda developer guide, "Success and
        failure conditions").
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
