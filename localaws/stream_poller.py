"""Event source mappings of DynamoDB streams: batches in order, retried until they succeed or expire."""

import json
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, Protocol

from localaws.aws import ACCOUNT_ID, REGION, SHARD_ID
from localaws.delivery import Clock
from localaws.event_pattern import EventPattern
from localaws.lambda_runtime import REQUEST_LIMIT, InvocationResult, timestamp
from localaws.targets import Targets

NOT_HONOURED = {
    "ParallelizationFactor": "the batches of a stream run one after the other",
    "TumblingWindowInSeconds": "events have no window and no state",
}
"""Properties of an event source mapping of a stream that are ignored, and the effect."""

FIRST_PAUSE = 0.1
LONGEST_PAUSE = 10.0
"""First and longest pause between attempts of a failing batch, in seconds. Each pause is twice the previous one."""

Record = dict[str, Any]


class Filter(Protocol):
    """A filter of a mapping."""

    def matches(self, event: dict[str, Any]) -> bool: ...


@dataclass(frozen=True)
class SourceMapping:
    """An enabled event source mapping.

    Args:
        function: name or ARN of the function, or ARN of a pipe.
        source: ARN of the stream or queue.
        batch_size: maximum records of an invocation.
        window: seconds that a batch waits for more records.
        filters: a record that matches none of them is skipped; a message is deleted. Without filters, all match.
        partial: whether the function reports failed records (ReportBatchItemFailures).
    """

    function: str
    source: str
    batch_size: int
    window: float
    filters: tuple[Filter, ...]
    partial: bool

    def wants(self, record: Record) -> bool:
        """Returns whether a record matches the filters."""
        return not self.filters or any(each.matches(record) for each in self.filters)


@dataclass(frozen=True)
class StreamMapping(SourceMapping):
    """A mapping of a stream to a function or pipe.

    Args:
        bisect: whether a batch that fails as a whole is split in two halves for the retry.
        retries: maximum retries of a batch; None for no limit.
        maximum_age: seconds after which a failing record is discarded; None for never.
        on_failure: ARN of the queue or topic for the pointers to discarded records, or None.
    """

    bisect: bool
    retries: int | None
    maximum_age: float | None
    on_failure: str | None


def read_mapping(properties: Mapping[str, Any]) -> StreamMapping:
    """Returns the mapping with the resolved properties of an `AWS::Lambda::EventSourceMapping` on a stream.

    Raises:
        InvalidEventPattern: Lambda would reject a filter.
    """
    retries = int(properties.get("MaximumRetryAttempts", -1))
    age = int(properties.get("MaximumRecordAgeInSeconds", -1))
    return StreamMapping(
        **common_settings(properties, 100, EventPattern),
        bisect=bool(properties.get("BisectBatchOnFunctionError", False)),
        retries=None if retries == -1 else retries,
        maximum_age=None if age == -1 else age,
        on_failure=properties.get("DestinationConfig", {}).get("OnFailure", {}).get("Destination"),
    )


def common_settings(
    properties: Mapping[str, Any], batch_size: int, make_filter: Callable[[dict[str, Any]], Filter]
) -> dict[str, Any]:
    """Returns the fields of a SourceMapping. `batch_size` is the default."""
    filters = properties.get("FilterCriteria", {}).get("Filters", [])
    return {
        "function": properties["FunctionName"],
        "source": properties["EventSourceArn"],
        "batch_size": int(properties.get("BatchSize", batch_size)),
        "window": float(properties.get("MaximumBatchingWindowInSeconds", 0)),
        "filters": tuple(make_filter(json.loads(criterion["Pattern"])) for criterion in filters),
        "partial": "ReportBatchItemFailures" in properties.get("FunctionResponseTypes", []),
    }


@dataclass(frozen=True)
class _Batch:
    """The records of one invocation, and its number of failed attempts."""

    records: list[Record]
    failures: int = 0


@dataclass(eq=False)
class StreamPoller:
    """Delivers the records of one mapping in the order of the writes. A failing batch blocks the batches after it.

    Args:
        invoke: runs the function and waits for its result; it may raise.
        on_failure: called with the function and one line about a failure and the next step.
    """

    mapping: StreamMapping
    clock: Clock
    invoke: Callable[[str, bytes], InvocationResult]
    targets: Targets
    on_failure: Callable[[str, str], None]

    def __post_init__(self) -> None:
        self._queue: SimpleQueue[Record | None] = SimpleQueue()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"stream to {self.mapping.function}", daemon=True)

    def start(self) -> None:
        """Start to deliver records."""
        self._thread.start()

    def on_record(self, stream: str, record: Record) -> None:
        """Enqueue a record of a stream if the mapping wants it. Returns immediately."""
        if stream == self.mapping.source and self.mapping.wants(record):
            self._queue.put(record)

    def stop(self) -> None:
        """Stop, and drop the waiting records."""
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
            payload = json.dumps({"Records": batch.records}).encode()
            if len(payload) > REQUEST_LIMIT and len(batch.records) > 1:
                waiting.extendleft(_Batch(half, batch.failures) for half in reversed(_halves(batch.records)))
            elif failure := self._attempt(batch.records, payload):
                waiting.extendleft(reversed(self._after_failure(batch, failure)))

    def _next(self) -> list[Record]:
        """Waits for records until the batch is full or its window is over."""
        records = [self._queue.get()]
        end = time.monotonic() + self.clock.real_seconds(self.mapping.window)
        while len(records) < self.mapping.batch_size and records[-1] is not None:
            try:
                records.append(self._queue.get(timeout=max(end - time.monotonic(), 0)))
            except Empty:
                break
        return [record for record in records if record is not None]

    def _attempt(self, records: list[Record], payload: bytes) -> "Failure | None":
        """Invokes the function once."""
        numbers = [record["dynamodb"]["SequenceNumber"] for record in records]
        return attempt(self.invoke, self.mapping.function, payload, numbers, partial=self.mapping.partial)

    def _after_failure(self, batch: _Batch, failure: "Failure") -> list[_Batch]:
        """Waits, discards the records that are expired or out of retries, and returns the batches to retry.

        Lambda retries from the lowest failed record on, also records that succeeded (partial batch response).
        """
        numbers = [record["dynamodb"]["SequenceNumber"] for record in batch.records]
        failed = batch.records[min(map(numbers.index, failure.identifiers)) :]
        failures = 1 if len(failed) < len(batch.records) else batch.failures + 1
        bisect = self.mapping.bisect and 1 < len(failed) == len(batch.records)
        halves = _halves(failed) if bisect else [failed]
        if len(halves) == 1 and self.mapping.retries is not None and failures > self.mapping.retries:
            self._discard(failed, "RetryAttemptsExhausted", failures, failure)
            return []
        pause = min(FIRST_PAUSE * 2 ** (failures - 1), LONGEST_PAUSE)
        seconds = self.clock.real_seconds(pause)
        text = f"{failure.reason}; {len(failed)} records, next attempt in {seconds:.1f} s"
        self.on_failure(self.mapping.function, text)
        self._stopping.wait(seconds)
        # A half starts with the retries that the whole batch has used: splitting alone does not count as a retry
        kept = [self._without_expired(half, failures, failure) for half in halves]
        return [_Batch(half, failures - (len(halves) - 1)) for half in kept if half]

    def _without_expired(self, records: list[Record], attempts: int, failure: "Failure") -> list[Record]:
        limit = self.mapping.maximum_age
        if limit is None:
            return records
        fresh = [record for record in records if self.clock.since(_written(record)) <= limit]
        expired = records[: len(records) - len(fresh)]  # the oldest are first
        if expired:
            self._discard(expired, "RecordAgeExceeded", attempts, failure)
        return fresh

    def _discard(self, records: list[Record], condition: str, attempts: int, failure: "Failure") -> None:
        self.targets.send_to_failure_destination(
            f"{len(records)} records discarded, {condition}",
            self.mapping.on_failure,
            json.dumps(_pointer(self.mapping, records, condition, attempts, failure)),
            report=partial(self.on_failure, self.mapping.function),
        )


def _halves(records: list[Record]) -> list[list[Record]]:
    middle = len(records) // 2
    return [records[:middle], records[middle:]]


def _written(record: Record) -> float:
    return float(record["dynamodb"]["ApproximateCreationDateTime"])


def _pointer(
    mapping: StreamMapping, records: list[Record], condition: str, attempts: int, failure: "Failure"
) -> dict[str, Any]:
    """Returns the message for the destination. It contains the position of the records, not their content.

    Source: Lambda developer guide, "Retain discarded records" for DynamoDB streams.
    """
    first, last = records[0], records[-1]
    name = mapping.function
    arn = name if name.startswith("arn:") else f"arn:aws:lambda:{REGION}:{ACCOUNT_ID}:function:{name}"
    reader: dict[str, Any] = {
        "requestContext": {
            "requestId": str(uuid.uuid4()),
            "functionArn": arn,
            "condition": condition,
            "approximateInvokeCount": attempts,
        },
        "responseContext": {
            "statusCode": 200,
            "executedVersion": "$LATEST",
            "functionError": failure.function_error,
        },
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
            "approximateArrivalOfFirstRecord": timestamp(_written(first), "seconds"),
            "approximateArrivalOfLastRecord": timestamp(_written(last), "seconds"),
            "batchSize": len(records),
            "streamArn": mapping.source,
        },
    }


@dataclass(frozen=True)
class Failure:
    """A failed invocation with a batch.

    Args:
        identifiers: the failed records, as passed to `attempt`.
        reason: one line.
        function_error: "Unhandled" if the function failed; None if it reported failed records.
    """

    identifiers: Sequence[str]
    reason: str
    function_error: str | None = None


def attempt(
    invoke: Callable[[str, bytes], InvocationResult],
    function: str,
    payload: bytes,
    identifiers: Sequence[str],
    *,
    partial: bool,
) -> Failure | None:
    """Invokes a function once with a batch.

    Args:
        invoke: runs a function and waits for its result; it may raise.
        function: name or ARN of the function.
        payload: the batch.
        identifiers: sequence numbers of a stream's records, or message IDs of a queue.
        partial: whether the function reports failed records.

    Returns:
        None if all records succeeded. An invalid response, or one that names an unknown record, is a failure of the
        whole batch (Lambda developer guide, "Success and failure conditions").
    """
    try:
        result = invoke(function, payload)
    except Exception as error:
        return Failure(identifiers, f"{type(error).__name__}: {error}")
    if result.function_error:
        return Failure(identifiers, "the invocation failed", result.function_error)
    if not partial:
        return None
    try:
        response = json.loads(result.payload) or {}
        failures = [item["itemIdentifier"] for item in response.get("batchItemFailures") or []]
        unknown = set(failures) - set(identifiers)
    except (ValueError, KeyError, TypeError, AttributeError):
        return Failure(identifiers, f"not a partial batch response: {result.payload[:200].decode(errors='replace')}")
    if unknown:
        return Failure(identifiers, "batchItemFailures names a record that is not in the batch")
    return Failure(failures, f"{len(failures)} records reported as failed") if failures else None
