"""SQS: moto's queues with a lock, waiting receivers, redrive policies and retention.

The docstrings describe the behavior of moto and of SQS.
"""

import base64
import copy
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from moto.sqs.exceptions import ReceiptHandleIsInvalid
from moto.sqs.models import Message, Queue, SQSBackend, _filter_message_attributes, sqs_backends
from moto.sqs.responses import SQSResponse

from localaws.aws import ACCOUNT_ID, REGION
from localaws.moto_patch import replace_method

if TYPE_CHECKING:
    from localaws.store import Store

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Received:
    """A received message, which is invisible until its visibility timeout.

    Attributes:
        record: the message in Lambda's format.
        dead_letters: ARN of the dead-letter queue if the message was received `maxReceiveCount` times, else None.
    """

    record: dict[str, Any]
    dead_letters: str | None
    message: Message

    @property
    def visible_in(self) -> float:
        """Real seconds until the message is visible again."""
        return max(_due(self.message) / 1000 - time.time(), 0.0)


class Queues:
    """The corrections of SQS and their lock.

    Moto's queues are not thread-safe: two receivers may get the same message, or an error.
    """

    def __init__(self, store: "Store") -> None:
        self._store = store
        self.changed = threading.Condition()
        self._add = Queue.add_message
        self._receive_from_fifo = SQSBackend.receive_message
        self._change_visibility = SQSBackend.change_message_visibility
        self._answer_receive = SQSResponse.receive_message

    def add_message(self, queue: Queue, message: Message) -> None:
        """Adds a message and calls on_message, so that no polling is needed."""
        with self.changed:
            self._add(queue, message)
            self._store.on_message(queue.queue_arn)

    def receive_message(
        self,
        backend: SQSBackend,
        queue_name: str,
        count: int,
        wait: int,
        visibility_timeout: int,
        attribute_names: list[str] | None = None,
    ) -> list[Message]:
        """Waits for messages and receives them, one caller at a time. FIFO queues use moto's implementation."""
        end = time.monotonic() + wait
        with self.changed:
            while True:
                queue = backend.get_queue(queue_name)
                if queue.fifo_queue:
                    return self._receive_from_fifo(
                        backend, queue_name, count, wait, visibility_timeout, attribute_names
                    )
                received = [copy.copy(message) for message in self._take(queue, count, visibility_timeout)]
                left = end - time.monotonic()
                if received or left <= 0:
                    break
                due = _next_visible(queue)
                self.changed.wait(left if due is None else min(left, due))
        for message in received:
            _filter_message_attributes(message, attribute_names or [])
        return received

    def _take(self, queue: Any, count: int, visibility_timeout: int) -> Iterator[Any]:
        """Marks visible messages as received.

        Differences from moto:
        - Moto counts all messages for each message, so its time grows with the square of their number.
        - Moto keeps messages beyond the retention period.
        - Moto does not store the source queue of a message in a dead-letter queue.
        - If the dead-letter queue has one itself, moto moves the message on immediately. SQS counts
          ApproximateReceiveCount across all queues, but applies maxReceiveCount to the receives from one queue.
        """
        retention = self._store.real_seconds(queue.message_retention_period) * 1000
        now, first = time.time() * 1000, None
        for message in list(queue._messages):
            if _due(message) > now:
                continue
            if message.sent_timestamp + retention <= now:
                queue._messages.remove(message)
            elif _spent(queue, message):
                queue._messages.remove(message)
                message.source, message.received_before = queue.queue_arn, message.approximate_receive_count
                queue.dead_letter_queue.add_message(message)
            else:
                message.mark_received(visibility_timeout)
                first = first or message
                message.visible_at = first.visible_at  # messages received together become visible together
                yield message
                count -= 1
                if not count:
                    return

    def receive(self, arn: str, count: int) -> list[Received]:
        with self.changed:
            if (queue := _queue(arn)) is None:
                return []
            return [
                Received(
                    _queue_record(queue, message),
                    queue.dead_letter_queue.queue_arn if _spent(queue, message) else None,
                    message,
                )
                for message in self._take(queue, count, queue.visibility_timeout)
            ]

    def delete(self, arn: str, receipt_handles: Iterable[str]) -> None:
        if (queue := _queue(arn)) is not None:
            for handle in receipt_handles:
                with suppress(ReceiptHandleIsInvalid):
                    queue.delete_message(handle)

    def next_visible(self, arn: str) -> float | None:
        with self.changed:
            return None if (queue := _queue(arn)) is None else _next_visible(queue)

    def delete_message(self, queue: Queue, receipt_handle: str) -> None:
        """Deletes a message. Stops at the first match; moto compares the handles of all messages twice.

        Raises:
            ReceiptHandleIsInvalid: the handle is not of a message of this queue.
        """
        with self.changed:
            if receipt_handle in queue.deleted_messages:
                return
            message = next((message for message in queue._messages if message.had_receipt_handle(receipt_handle)), None)
            if message is None:
                raise ReceiptHandleIsInvalid
            queue._messages.remove(message)
            queue._pending_messages.discard(message)
            queue.deleted_messages.update(filter(None, message.all_receipt_handles))

    def change_visibility(
        self, backend: SQSBackend, queue_name: str, receipt_handle: str, visibility_timeout: int
    ) -> None:
        """Changes the visibility timeout, wakes the waiting receivers and calls on_message."""
        with self.changed:
            self._change_visibility(backend, queue_name, receipt_handle, visibility_timeout)
            self.changed.notify_all()
            self._store.on_message(backend.get_queue(queue_name).queue_arn)

    def answer_receive(self, handler: Any) -> Any:
        """Adds the attribute DeadLetterQueueSourceArn, which moto does not have."""
        answer: Any = self._answer_receive(handler)
        asked = {*handler._get_param("AttributeNames", []), *handler._get_param("MessageSystemAttributeNames", [])}
        if asked & {"All", "DeadLetterQueueSourceArn"}:
            queue = handler.sqs_backend.get_queue(handler._get_queue_name())
            with self.changed:
                sources = {message.id: _source(message) for message in queue._messages}
            for message in answer.result.get("Messages", []):
                message.setdefault("Attributes", {}).update(sources.get(message["MessageId"], {}))
        return answer


@dataclass(frozen=True)
class _Count:
    """The number of messages that pass a test. It is counted only when it is written into a response.

    Moto counts three times at each SendMessage without using the result.
    """

    queue: Queue
    test: Callable[[Message, float], bool]

    def __str__(self) -> str:
        now = time.time() * 1000
        return str(sum(self.test(message, now) for message in list(self.queue._messages)))


def _counting(test: Callable[[Message, float], bool]) -> property:
    return property(lambda queue: _Count(queue, test))


def _queue(arn: str) -> Any:
    """Returns the queue, or None if it does not exist."""
    return sqs_backends[ACCOUNT_ID][REGION].queues.get(arn.rpartition(":")[2])


def _due(message: Message) -> float:
    """Returns the time when a message becomes visible, in milliseconds since the epoch."""
    return max(message.visible_at, message.delayed_until)


def _next_visible(queue: Queue) -> float | None:
    due = min(map(_due, queue._messages), default=None)
    return None if due is None else max(due / 1000 - time.time(), 0.0)


def _spent(queue: Any, message: Any) -> bool:
    """Returns whether a message was received from a queue as often as its redrive policy allows."""
    if queue.dead_letter_queue is None or not queue.redrive_policy:
        return False
    received = message.approximate_receive_count - getattr(message, "received_before", 0)
    return bool(received >= queue.redrive_policy["maxReceiveCount"])


def _source(message: Message) -> dict[str, str]:
    """Returns the system attribute of a message in a dead-letter queue."""
    source = getattr(message, "source", None)
    return {} if source is None else {"DeadLetterQueueSourceArn": source}


def _queue_record(queue: Queue, message: Message) -> dict[str, Any]:
    """Returns the record of a message in Lambda's format.

    https://docs.aws.amazon.com/lambda/latest/dg/with-sqs.html#example-standard-queue-message-event
    """
    return {
        "messageId": message.id,
        "receiptHandle": message.receipt_handle,
        "body": message.body,
        "attributes": {
            "ApproximateReceiveCount": str(message.approximate_receive_count),
            "SentTimestamp": str(message.sent_timestamp),
            "SenderId": message.sender_id,
            "ApproximateFirstReceiveTimestamp": str(message.approximate_first_receive_timestamp),
            **_source(message),
        },
        "messageAttributes": {name: _attribute(value) for name, value in message.message_attributes.items()},
        "md5OfBody": message.body_md5,
        **({"md5OfMessageAttributes": message.attribute_md5} if message.message_attributes else {}),
        "eventSource": "aws:sqs",
        "eventSourceARN": queue.queue_arn,
        "awsRegion": queue.region,
    }


def _attribute(value: dict[str, Any]) -> dict[str, Any]:
    """Returns a message attribute of a record: binary values in base64, and the list values, unused by SQS, empty."""
    attribute: dict[str, Any] = {"stringListValues": [], "binaryListValues": [], "dataType": value["DataType"]}
    if value.get("BinaryValue") is not None:
        return attribute | {"binaryValue": base64.b64encode(value["BinaryValue"]).decode()}
    return attribute | {"stringValue": value["StringValue"]}


def correct_queues(replaced: ExitStack, store: "Store") -> Queues:
    queues = Queues(store)

    # Moto uses real seconds.
    def hide(message: Message, visibility_timeout: int) -> None:
        message.visible_at = (time.time() + store.real_seconds(int(visibility_timeout))) * 1000

    def delay(message: Message, delay_seconds: int) -> None:
        message.delayed_until = (time.time() + store.real_seconds(int(delay_seconds))) * 1000

    for owner, name, correction in (
        (Queue, "add_message", queues.add_message),
        (Queue, "delete_message", queues.delete_message),
        (SQSBackend, "receive_message", queues.receive_message),
        (SQSBackend, "change_message_visibility", queues.change_visibility),
        (SQSResponse, "receive_message", queues.answer_receive),
        (Message, "change_visibility", hide),
        (Message, "delay", delay),
    ):
        replace_method(replaced, owner, name, correction)
    for name, value in (
        ("_messages_lock", property(lambda _queue: queues.changed, lambda _queue, _lock: None)),
        ("approximate_number_of_messages", _counting(lambda message, now: _due(message) <= now)),
        ("approximate_number_of_messages_delayed", _counting(lambda message, now: message.delayed_until > now)),
        ("approximate_number_of_messages_not_visible", _counting(lambda message, now: message.visible_at > now)),
        # Moto invokes the function of an event source mapping inside SendMessage, once per message, and deletes the
        # messages even if the function fails. In AWS a poller invokes it (localaws/sqs_poller.py).
        ("lambda_event_source_mappings", property(lambda _queue: {}, lambda _queue, _mappings: None)),
    ):
        replaced.enter_context(patch.object(Queue, name, value, create=True))
    return queues
