"""Event source mappings of DynamoDB streams: pushed, not polled, in order, and tried until they succeed."""

import json
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

from local.patterns import EventPattern
from local.runtime import InvocationResult

FIRST_PAUSE = 0.1
LONGEST_PAUSE = 10.0
"""Seconds between attempts at a failing batch; each pause is twice the one before."""

Record = dict[str, Any]


@dataclass(frozen=True)
class StreamMapping:
    """An enabled mapping of a stream to a function.

    Args:
        function: the function's name or ARN.
        stream: the stream's ARN.
        batch_size: the most records of one invocation.
        filters: a record that none of them matches is left out; no filters, no record left out.
        partial: whether the function reports failed records (ReportBatchItemFailures).
        maximum_age: seconds after which a failing record is given up; None for never.
    """

    function: str
    stream: str
    batch_size: int
    filters: tuple[EventPattern, ...]
    partial: bool
    maximum_age: float | None

    def wants(self, record: Record) -> bool:
        """Whether the record passes the filters."""
        return not self.filters or any(pattern.matches(record) for pattern in self.filters)


def read_mapping(properties: Mapping[str, Any]) -> StreamMapping:
    """A mapping from the resolved properties of an `AWS::Lambda::EventSourceMapping` on a stream.

    Raises:
        InvalidEventPattern: a filter is not one that Lambda takes.
    """
    criteria = properties.get("FilterCriteria", {}).get("Filters", [])
    age = int(properties.get("MaximumRecordAgeInSeconds", -1))
    return StreamMapping(
        function=properties["FunctionName"],
        stream=properties["EventSourceArn"],
        batch_size=int(properties.get("BatchSize", 100)),
        filters=tuple(EventPattern(json.loads(criterion["Pattern"])) for criterion in criteria),
        partial="ReportBatchItemFailures" in properties.get("FunctionResponseTypes", []),
        maximum_age=None if age == -1 else age,
    )


class StreamSources:
    """All stream mappings of a template.

    Args:
        mappings: from `read_mapping`.
        invoke: runs a function and waits for its result; it may raise.
        on_failure: is told the function, and in a line what failed and what happens next.
    """

    def __init__(
        self,
        mappings: Iterable[StreamMapping],
        *,
        invoke: Callable[[str, bytes], InvocationResult],
        on_failure: Callable[[str, str], None],
    ) -> None:
        self._shards = [_Shard(mapping, invoke, on_failure) for mapping in mappings]

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


class _Shard:
    """One mapping's records, in the order of their writes; a failing batch holds up those behind it."""

    def __init__(
        self,
        mapping: StreamMapping,
        invoke: Callable[[str, bytes], InvocationResult],
        on_failure: Callable[[str, str], None],
    ) -> None:
        self.mapping = mapping
        self._invoke = invoke
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
        pending: list[Record] = []
        failures = 0
        while True:
            pending += self._next(wait=not pending, room=self.mapping.batch_size - len(pending))
            if self._stopping.is_set():
                return
            rest, reason = self._attempt(pending)
            if reason is None:
                pending, failures = [], 0
                continue
            failures = 1 if len(rest) < len(pending) else failures + 1
            pending = self._without_expired(rest, reason)
            pause = min(FIRST_PAUSE * 2 ** (failures - 1), LONGEST_PAUSE)
            self._on_failure(self.mapping.function, f"{reason}; {len(pending)} records again in {pause:.1f} s")
            self._stopping.wait(pause)

    def _next(self, *, wait: bool, room: int) -> list[Record]:
        records: list[Record | None] = [self._queue.get()] if wait else []
        while len(records) < room and not self._queue.empty():
            records.append(self._queue.get())
        return [record for record in records if record is not None]

    def _attempt(self, batch: list[Record]) -> tuple[list[Record], str | None]:
        """One invocation: the records still to be handled, and why; None if all went well."""
        try:
            result = self._invoke(self.mapping.function, json.dumps({"Records": batch}).encode())
        except Exception as error:
            return batch, f"{type(error).__name__}: {error}"
        if result.function_error:
            return batch, "the invocation failed"
        if not self.mapping.partial:
            return [], None
        return _after_partial(batch, result.payload)

    def _without_expired(self, records: list[Record], reason: str) -> list[Record]:
        if self.mapping.maximum_age is None:
            return records
        oldest = time.time() - self.mapping.maximum_age
        kept = [record for record in records if record["dynamodb"]["ApproximateCreationDateTime"] >= oldest]
        for record in records:
            if record not in kept:
                self._on_failure(self.mapping.function, f"gave up record {record['eventID']}, too old: {reason}")
        return kept


def _after_partial(batch: list[Record], payload: bytes) -> tuple[list[Record], str | None]:
    """Lambda goes back to the lowest failed record, whatever came after it (partial batch response)."""
    try:
        failures = [item["itemIdentifier"] for item in (json.loads(payload) or {}).get("batchItemFailures") or []]
    except (ValueError, KeyError, TypeError, AttributeError):
        return batch, f"not a partial batch response: {payload[:200].decode(errors='replace')}"
    if not failures:
        return [], None
    numbers = [record["dynamodb"]["SequenceNumber"] for record in batch]
    if not set(failures) <= set(numbers):  # Lambda takes an unknown identifier for a failure of the whole batch
        return batch, "batchItemFailures names a record that is not in the batch"
    return batch[min(numbers.index(number) for number in failures) :], f"{len(failures)} records reported as failed"
