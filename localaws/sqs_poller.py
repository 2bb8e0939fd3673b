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
from localaws.stream_poller import SourceMapping, attempt, common_settings

CONCURRENCY = 4
"""Concurrent batches of a mapping without MaximumConcurrency. Equal to the runtime's processes per function."""
NOT_HONOURED = {"ProvisionedPollerConfig": "a mapping has up to MaximumConcurrency batches at a time"}
"""Properties of an event source mapping of a queue that are ignored, and the effect."""
PAYLOAD_LIMIT = 6 * 1024 * 1024
"""Maximum payload of an invocation in bytes (Lambda developer guide, "Batching behavior")."""


@dataclass(frozen=True)
class QueueMapping(SourceMapping):
    """A mapping of a queue to a function. `concurrency` is the maximum number of concurrent batches."""

    concurrency: int


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
        **common_settings(properties, 10, BodyFilter),
        concurrency=int(properties.get("ScalingConfig", {}).get("MaximumConcurrency", CONCURRENCY)),
    )


@dataclass(eq=False)
class QueuePoller:
    """Delivers the messages of one mapping: a thread collects batches, and a pool of threads invokes the function.

    Messages are received only when a worker is free, so that their visibility timeout does not pass while they wait.

    Args:
        invoke: runs the function and waits for its result; it may raise.
        on_failure: called with the function and one line about a failure and the next step.
    """

    mapping: QueueMapping
    store: Store
    clock: Clock
    invoke: Callable[[str, bytes], InvocationResult]
    on_failure: Callable[[str, str], None]

    def __post_init__(self) -> None:
        self._left: deque[Received] = deque()  # received messages that did not fit into the previous batch
        self._changed = threading.Condition()
        self._woken = False
        self._stopping = False
        self._busy = 0
        function = self.mapping.function
        self._workers = ThreadPoolExecutor(self.mapping.concurrency, thread_name_prefix=f"batches to {function}")
        self._thread = threading.Thread(target=self._run, name=f"queue to {function}", daemon=True)

    def start(self) -> None:
        """Start to deliver messages."""
        self._thread.start()

    def on_message(self, queue: str) -> None:
        """Look for messages if a message arrived in the mapping's queue or changed its visibility time."""
        if queue == self.mapping.source:
            with self._changed:
                self._woken = True
                self._changed.notify_all()

    def stop(self) -> None:
        """Wait for the running invocations to end, then stop. Messages that are not handled stay in their queue."""
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
                end = min(end, time.monotonic() + self.clock.real_seconds(self.mapping.window))
            if self._left or len(batch) == self.mapping.batch_size or time.monotonic() >= end:
                return batch
            self._wait(end)
        return []

    def _receive(self, count: int) -> list[Received]:
        """Receives messages and deletes those that do not match the filters."""
        wanted: list[Received] = []
        unwanted: list[Received] = []
        for message in self.store.receive(self.mapping.source, count) if count else []:
            (wanted if self.mapping.wants(message.record) else unwanted).append(message)
        self._delete(unwanted)
        return wanted

    def _wait(self, end: float) -> None:
        """Waits until the window is over, a message becomes visible, or `on_message` is called."""
        due = self.store.next_visible(self.mapping.source)
        seconds = min(end - time.monotonic(), math.inf if due is None else due)
        with self._changed:
            self._changed.wait_for(lambda: self._woken or self._stopping, min(seconds, threading.TIMEOUT_MAX))
            self._woken = False

    def _handle(self, batch: list[Received]) -> None:
        """Invokes the function with a batch, and deletes the messages that succeeded."""
        ids = [message.record["messageId"] for message in batch]
        failure = attempt(self.invoke, self.mapping.function, _payload(batch), ids, partial=self.mapping.partial)
        failed = set(failure.identifiers) if failure else set()
        self._delete(message for message in batch if message.record["messageId"] not in failed)
        if failure and not self._stopping:
            self._report_failures(
                failure.reason, [message for message in batch if message.record["messageId"] in failed]
            )
        with self._changed:
            self._busy -= 1
            self._changed.notify_all()

    def _delete(self, messages: Iterable[Received]) -> None:
        self.store.delete(self.mapping.source, [message.record["receiptHandle"] for message in messages])

    def _report_failures(self, reason: str, failed: list[Received]) -> None:
        ways: dict[str | None, list[float]] = {}
        for message in failed:
            ways.setdefault(message.dead_letters, []).append(message.visible_in)
        for queue, pauses in ways.items():
            then = "next attempt" if queue is None else f"moved to {queue}"
            self.on_failure(self.mapping.function, f"{reason}; {len(pauses)} messages, {then} in {max(pauses):.1f} s")


def _payload(batch: list[Received]) -> bytes:
    return json.dumps({"Records": [message.record for message in batch]}).encode()


def _size(message: Received) -> int:
    return len(json.dumps(message.record)) + len(", ")
