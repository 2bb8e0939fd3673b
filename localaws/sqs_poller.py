"""Event source mappings of SQS queues: concurrent batches, retries after the visibility timeout, dead-letter queues."""

import json
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from localaws.delivery import Clock
from localaws.event_pattern import EventPattern
from localaws.lambda_runtime import InvocationResult
from localaws.sqs import Received
from localaws.store import Store
from localaws.stream_poller import attempt, filter_patterns, reports_failures

CONCURRENCY = 4
"""Concurrent batches of a mapping without MaximumConcurrency. Equal to the runtime's processes per function."""
PAYLOAD_LIMIT = 6 * 1024 * 1024
"""Maximum payload of an invocation in bytes (Lambda developer guide, "Batching behavior")."""


@dataclass(frozen=True)
class QueueMapping:
    """An enabled mapping of a queue to a function.

    Args:
        function: name or ARN of the function.
        queue: ARN of the queue.
        batch_size: maximum messages of an invocation.
        window: seconds that a batch waits for more messages.
        filters: a message that matches none of them is deleted. Without filters, all messages match.
        partial: whether the function reports failed messages (ReportBatchItemFailures).
        concurrency: maximum number of concurrent batches.
    """

    function: str
    queue: str
    batch_size: int
    window: float
    filters: tuple["BodyFilter", ...]
    partial: bool
    concurrency: int

    def wants(self, record: Mapping[str, Any]) -> bool:
        """Returns whether a message matches the filters."""
        return not self.filters or any(pattern.matches(record) for pattern in self.filters)


class BodyFilter:
    """A filter on the body of messages: on the fields of a JSON body, or on a plain text body.

    A pattern of fields drops bodies that are not JSON, and a pattern of text drops JSON bodies (Lambda developer guide,
    "Using event filtering with an Amazon SQS event source").

    Raises:
        InvalidEventPattern: Lambda would reject the filter.
    """

    def __init__(self, pattern: dict[str, Any]) -> None:
        self._pattern = EventPattern(pattern)
        self._wants_fields = isinstance(pattern.get("body"), dict) if "body" in pattern else None

    def matches(self, record: Mapping[str, Any]) -> bool:
        """Returns whether the record of a message matches the filter."""
        body = _fields(record["body"])
        if self._wants_fields is not None and self._wants_fields != isinstance(body, dict | list):
            return False
        return self._pattern.matches({**record, "body": body})


def _fields(body: str) -> Any:
    """Returns the parsed body if it is a JSON object or array, else the unchanged body."""
    try:
        parsed = json.loads(body)
    except ValueError:
        return body
    return parsed if isinstance(parsed, dict | list) else body


def read_queue_mapping(properties: Mapping[str, Any]) -> QueueMapping:
    """Returns the mapping with the resolved properties of an `AWS::Lambda::EventSourceMapping` on a queue.

    Raises:
        InvalidEventPattern: Lambda would reject a filter.
    """
    return QueueMapping(
        function=properties["FunctionName"],
        queue=properties["EventSourceArn"],
        batch_size=int(properties.get("BatchSize", 10)),
        window=float(properties.get("MaximumBatchingWindowInSeconds", 0)),
        filters=tuple(BodyFilter(pattern) for pattern in filter_patterns(properties)),
        partial=reports_failures(properties),
        concurrency=int(properties.get("ScalingConfig", {}).get("MaximumConcurrency", CONCURRENCY)),
    )


class QueueSources:
    """All queue mappings of a template.

    Args:
        mappings: from `read_queue_mapping`.
        store: the store of the queues.
        clock: measures the batching window.
        invoke: runs a function and waits for its result; it may raise.
        on_failure: called with the function and one line about a failure and the next step.
    """

    def __init__(
        self,
        mappings: Iterable[QueueMapping],
        *,
        store: Store,
        clock: Clock,
        invoke: Callable[[str, bytes], InvocationResult],
        on_failure: Callable[[str, str], None],
    ) -> None:
        self._pollers = [_Poller(mapping, store, clock, invoke, on_failure) for mapping in mappings]

    def start(self) -> None:
        """Start to deliver messages."""
        for poller in self._pollers:
            poller.start()

    def on_message(self, queue: str) -> None:
        """Wake the mappings of a queue that has a new message or a changed visibility time. Returns immediately."""
        for poller in self._pollers:
            if poller.mapping.queue == queue:
                poller.wake()

    def stop(self) -> None:
        """Wait for the running invocations to end, then stop. Messages that are not handled stay in their queue."""
        for poller in self._pollers:
            poller.stop()


class _Poller:
    """One mapping: a thread that collects batches, and a pool of threads that invoke the function with them.

    Messages are received only when a worker is free, so that their visibility timeout does not pass while they wait.
    """

    def __init__(
        self,
        mapping: QueueMapping,
        store: Store,
        clock: Clock,
        invoke: Callable[[str, bytes], InvocationResult],
        on_failure: Callable[[str, str], None],
    ) -> None:
        self.mapping = mapping
        self._store = store
        self._clock = clock
        self._invoke = invoke
        self._on_failure = on_failure
        self._left: deque[Received] = deque()  # received messages that did not fit into the previous batch
        self._changed = threading.Condition()
        self._woken = False
        self._stopping = False
        self._busy = 0
        self._workers = ThreadPoolExecutor(mapping.concurrency, thread_name_prefix=f"batches to {mapping.function}")
        self._thread = threading.Thread(target=self._run, name=f"queue to {mapping.function}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        with self._changed:
            self._woken = True
            self._changed.notify_all()

    def stop(self) -> None:
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join()
        self._workers.shutdown()

    def _run(self) -> None:
        while self._find_worker() and (batch := self._gather()):
            with self._changed:
                self._busy += 1
            self._workers.submit(self._handle, batch)

    def _find_worker(self) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: self._stopping or self._busy < self.mapping.concurrency)
            return not self._stopping

    def _gather(self) -> list[Received]:
        """Receives messages until the batch is full or its window is over. Returns an empty list when stopping."""
        batch: list[Received] = []
        size, end = len(_payload([])), math.inf
        while not self._stopping:
            self._left.extend(self._receive(self.mapping.batch_size - len(batch) - len(self._left)))
            while self._left and (not batch or size + _size(self._left[0]) <= PAYLOAD_LIMIT):
                size += _size(self._left[0])
                batch.append(self._left.popleft())
            if batch:
                end = min(end, time.monotonic() + self._clock.outside(self.mapping.window))
            if self._left or len(batch) == self.mapping.batch_size or time.monotonic() >= end:
                return batch
            self._wait(end)
        return []

    def _receive(self, count: int) -> list[Received]:
        """Receives messages and deletes those that do not match the filters."""
        wanted: list[Received] = []
        unwanted: list[Received] = []
        for message in self._store.receive(self.mapping.queue, count) if count else []:
            (wanted if self.mapping.wants(message.record) else unwanted).append(message)
        self._delete(unwanted)
        return wanted

    def _wait(self, end: float) -> None:
        """Waits until the window is over, a message becomes visible, or `wake` is called."""
        due = self._store.next_visible(self.mapping.queue)
        seconds = min(end - time.monotonic(), math.inf if due is None else due)
        with self._changed:
            self._changed.wait_for(lambda: self._woken or self._stopping, min(seconds, threading.TIMEOUT_MAX))
            self._woken = False

    def _handle(self, batch: list[Received]) -> None:
        """Invokes the function with a batch, and deletes the messages that succeeded."""
        ids = [message.record["messageId"] for message in batch]
        failures, reason = attempt(
            self._invoke, self.mapping.function, _payload(batch), ids, partial=self.mapping.partial
        )
        failed = set(failures)
        self._delete(message for message in batch if message.record["messageId"] not in failed)
        if reason is not None and not self._stopping:
            self._tell(reason, [message for message in batch if message.record["messageId"] in failed])
        with self._changed:
            self._busy -= 1
            self._changed.notify_all()

    def _delete(self, messages: Iterable[Received]) -> None:
        self._store.delete(self.mapping.queue, [message.record["receiptHandle"] for message in messages])

    def _tell(self, reason: str, failed: list[Received]) -> None:
        ways: dict[str | None, list[float]] = {}
        for message in failed:
            ways.setdefault(message.dead_letters, []).append(message.visible_in)
        for queue, pauses in ways.items():
            then = "next attempt" if queue is None else f"moved to {queue}"
            self._on_failure(self.mapping.function, f"{reason}; {len(pauses)} messages, {then} in {max(pauses):.1f} s")


def _payload(batch: list[Received]) -> bytes:
    return json.dumps({"Records": [message.record for message in batch]}).encode()


def _size(message: Received) -> int:
    return len(json.dumps(message.record)) + len(", ")
