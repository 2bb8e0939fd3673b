"""The queues behave like SQS where moto does not: a contract test for each correction in localaws/sqs.py."""

import itertools
import json
import time
from concurrent.futures import ThreadPoolExecutor
from hashlib import md5
from typing import Any

import pytest
from botocore.exceptions import ClientError
from moto.sqs.models import sqs_backends

from localaws.store import Store
from localaws.tests.support import code_of, wait_until


class Queues:
    """The queues of a store, by name."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.client = store.client("sqs")
        self.messages: list[str] = []
        store.on_message = self.messages.append

    def create(self, name: str, **attributes: str) -> None:
        self.client.create_queue(QueueName=name, Attributes=attributes)

    def url(self, name: str) -> str:
        return str(self.client.get_queue_url(QueueName=name)["QueueUrl"])

    def arn(self, name: str) -> str:
        return f"arn:aws:sqs:{self.store.region}:{self.store.account_id}:{name}"

    def send(self, name: str, body: str, **more: Any) -> str:
        return str(self.client.send_message(QueueUrl=self.url(name), MessageBody=body, **more)["MessageId"])

    def receive(self, name: str, **more: Any) -> list[dict[str, Any]]:
        return list(self.client.receive_message(QueueUrl=self.url(name), **more).get("Messages", []))

    def bodies(self, name: str, count: int = 10) -> list[str]:
        return [message.record["body"] for message in self.store.receive(self.arn(name), count)]

    def wait_until_visible(self, name: str) -> None:
        wait_until(lambda: self.store.next_visible(self.arn(name)) == 0)

    def counts(self, name: str) -> list[str]:
        """Returns the numbers of visible, delayed and in-flight messages."""
        names = [f"ApproximateNumberOfMessages{kind}" for kind in ("", "Delayed", "NotVisible")]
        attributes = self.client.get_queue_attributes(QueueUrl=self.url(name), AttributeNames=names)["Attributes"]
        return [attributes[name] for name in names]


@pytest.fixture
def queues(store: Store) -> Queues:
    """A fast clock, and a queue `orders` whose messages go to `dead` after two receives."""
    store.real_seconds = lambda seconds: seconds / 1000
    made = Queues(store)
    made.create("dead")
    policy = {"deadLetterTargetArn": made.arn("dead"), "maxReceiveCount": 2}
    made.create("orders", RedrivePolicy=json.dumps(policy), VisibilityTimeout="60")
    return made


def test_a_message_has_the_form_that_lambda_hands_on(queues: Queues) -> None:
    before = int(time.time() * 1000)
    attributes = {
        "REASON": {"DataType": "String", "StringValue": "no"},
        "raw": {"DataType": "Binary", "BinaryValue": b"\x00\xff"},
    }
    message_id = queues.send("orders", "{}", MessageAttributes=attributes)

    [received] = queues.store.receive(queues.arn("orders"), 10)

    record = received.record
    sent, first = (int(record["attributes"].pop(f"{kind}Timestamp")) for kind in ("Sent", "ApproximateFirstReceive"))
    assert before <= sent <= first <= time.time() * 1000
    assert record["attributes"].pop("SenderId")
    assert record.pop("receiptHandle")
    lists: dict[str, list[str]] = {"stringListValues": [], "binaryListValues": []}
    # The parts of each attribute with their lengths (SQS developer guide, "Calculating the MD5 message digest")
    parts = ((b"REASON", b"String", b"\x01", b"no"), (b"raw", b"Binary", b"\x02", b"\x00\xff"))
    digest = md5(usedforsecurity=False)
    for part in itertools.chain(*parts):
        digest.update(part if part in (b"\x01", b"\x02") else len(part).to_bytes(4, "big") + part)
    assert record.pop("md5OfMessageAttributes") == digest.hexdigest()
    assert record == {
        "messageId": message_id,
        "body": "{}",
        "attributes": {"ApproximateReceiveCount": "1"},
        "messageAttributes": {
            "REASON": {"stringValue": "no", "dataType": "String"} | lists,
            "raw": {"binaryValue": "AP8=", "dataType": "Binary"} | lists,
        },
        "md5OfBody": "99914b932bd37a50b983c5e7c90ae93b",
        "eventSource": "aws:sqs",
        "eventSourceARN": queues.arn("orders"),
        "awsRegion": "us-east-1",
    }


def test_waits_of_a_queue_use_the_clock_of_the_store(queues: Queues) -> None:
    queues.store.real_seconds = lambda seconds: seconds * 1000  # slow, so that the duration of the test does not matter
    queues.create("delaying", DelaySeconds="50")
    queues.send("delaying", "by its queue")
    queues.send("orders", "at once")
    [received] = queues.store.receive(queues.arn("orders"), 10)
    queues.send("dead", "by itself", DelaySeconds=100)

    assert 49_000 < (queues.store.next_visible(queues.arn("delaying")) or 0) <= 50_000
    assert 59_000 < received.visible_in <= 60_000
    assert 99_000 < (queues.store.next_visible(queues.arn("dead")) or 0) <= 100_000


def test_a_message_is_visible_once_its_wait_is_over(queues: Queues) -> None:
    queues.create("delaying", DelaySeconds="50")
    queues.send("delaying", "by its queue")
    queues.send("orders", "by itself", DelaySeconds=100)

    queues.wait_until_visible("orders")
    assert queues.bodies("orders") == ["by itself"]
    queues.wait_until_visible("orders")
    assert queues.bodies("orders") == ["by itself"]
    queues.wait_until_visible("delaying")
    assert queues.bodies("delaying") == ["by its queue"]


def test_messages_that_were_received_together_are_visible_together(queues: Queues) -> None:
    for body in ("one", "two", "three"):
        queues.send("orders", body)

    received = queues.store.receive(queues.arn("orders"), 10)

    assert len(received) == 3
    assert len({message.message.visible_at for message in received}) == 1


def test_messages_are_counted_by_whether_they_are_visible_delayed_or_in_flight(queues: Queues) -> None:
    queues.store.real_seconds = lambda seconds: seconds
    for body in ("one", "two", "three"):
        queues.send("orders", body)
    queues.send("orders", "later", DelaySeconds=900)
    queues.receive("orders")

    assert queues.counts("orders") == ["2", "1", "1"]


def test_a_message_that_was_received_too_often_moves_to_the_dead_letter_queue_and_names_its_source(
    queues: Queues,
) -> None:
    attributes = {"REASON": {"DataType": "String", "StringValue": "no"}}
    message_id = queues.send("orders", "poison", MessageAttributes=attributes)
    last = []
    for _ in range(2):
        queues.wait_until_visible("orders")
        last.append([received.dead_letters for received in queues.store.receive(queues.arn("orders"), 1)])

    queues.wait_until_visible("orders")

    assert last == [[None], [queues.arn("dead")]]
    assert queues.bodies("orders") == []
    [moved] = queues.receive("dead", MessageSystemAttributeNames=["All"], MessageAttributeNames=["All"])
    assert (moved["MessageId"], moved["Body"], moved["MessageAttributes"]) == (message_id, "poison", attributes)
    # The count goes on: "the number of times a message has been received across all queues" (API of ReceiveMessage).
    assert moved["Attributes"]["ApproximateReceiveCount"] == "3"
    assert moved["Attributes"]["DeadLetterQueueSourceArn"] == queues.arn("orders")
    queues.wait_until_visible("dead")
    [again] = queues.store.receive(queues.arn("dead"), 1)
    assert again.record["attributes"]["DeadLetterQueueSourceArn"] == queues.arn("orders")


def test_a_dead_letter_queue_with_a_redrive_policy_counts_its_own_receives(queues: Queues) -> None:
    queues.create("buried")
    policy = {"deadLetterTargetArn": queues.arn("buried"), "maxReceiveCount": 1}
    queues.client.set_queue_attributes(QueueUrl=queues.url("dead"), Attributes={"RedrivePolicy": json.dumps(policy)})
    queues.send("orders", "poison")

    received = []
    for name in ("orders", "orders", "orders", "dead", "dead", "buried"):
        queues.wait_until_visible(name)
        received.append(len(queues.bodies(name)))

    assert received == [1, 1, 0, 1, 0, 1]


def test_a_message_that_is_too_old_is_gone(queues: Queues) -> None:
    queues.create("short", MessageRetentionPeriod="60")
    queues.send("short", "old")
    sent = time.time()

    wait_until(lambda: time.time() - sent > 0.06)

    assert queues.bodies("short") == []
    assert queues.counts("short") == ["0", "0", "0"]


def test_on_message_is_called_for_new_moved_and_rescheduled_messages(queues: Queues) -> None:
    queues.send("orders", "poison")
    [message] = queues.receive("orders", VisibilityTimeout=43_200)
    assert queues.bodies("orders") == []

    queues.client.change_message_visibility(
        QueueUrl=queues.url("orders"), ReceiptHandle=message["ReceiptHandle"], VisibilityTimeout=0
    )
    assert queues.bodies("orders") == ["poison"]
    queues.wait_until_visible("orders")
    assert queues.bodies("orders") == []

    assert queues.messages == [queues.arn("orders"), queues.arn("orders"), queues.arn("dead")]


def test_a_receiver_gets_nothing_at_the_end_of_its_wait(queues: Queues) -> None:
    begun = time.monotonic()

    received = queues.receive("orders", WaitTimeSeconds=1)

    assert received == []
    assert time.monotonic() - begun >= 1


def test_a_receiver_that_waits_gets_a_message_as_soon_as_it_comes_or_is_visible(queues: Queues) -> None:
    queues.send("orders", "delayed", DelaySeconds=300)
    begun = time.monotonic()

    delayed = queues.receive("orders", WaitTimeSeconds=20)
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(queues.receive, "dead", WaitTimeSeconds=20)
        queues.send("dead", "new")

    assert [message["Body"] for message in (*delayed, *waiting.result())] == ["delayed", "new"]
    assert time.monotonic() - begun < 20  # no wait lasted until its timeout


@pytest.mark.usefixtures("busy")
def test_each_message_is_received_by_one_of_many_threads_and_deleted(queues: Queues) -> None:
    queues.store.real_seconds = lambda seconds: seconds
    bodies = [str(number) for number in range(100)]
    for body in bodies:
        queues.send("orders", body)

    def drain(_: int) -> list[str]:
        drained = []
        while messages := queues.receive("orders", MaxNumberOfMessages=3):
            for message in messages:
                queues.client.delete_message(QueueUrl=queues.url("orders"), ReceiptHandle=message["ReceiptHandle"])
                drained.append(message["Body"])
        return drained

    with ThreadPoolExecutor(8) as threads:
        drained = [body for part in threads.map(drain, range(8)) for body in part]

    assert sorted(drained, key=int) == bodies
    assert queues.counts("orders") == ["0", "0", "0"]


def test_a_deleted_message_may_be_deleted_again_but_not_one_that_never_was(queues: Queues) -> None:
    queues.send("orders", "one")
    [message] = queues.receive("orders")
    request = {"QueueUrl": queues.url("orders"), "ReceiptHandle": message["ReceiptHandle"]}

    queues.client.delete_message(**request)
    queues.client.delete_message(**request)

    queues.store.delete(queues.arn("orders"), ["unknown"])
    with pytest.raises(ClientError) as error:
        queues.client.delete_message(**request | {"ReceiptHandle": "unknown"})
    assert code_of(error) == "ReceiptHandleIsInvalid"


def test_a_queue_that_is_gone_is_empty(queues: Queues) -> None:
    queues.client.delete_queue(QueueUrl=queues.url("orders"))

    queues.store.delete(queues.arn("orders"), ["handle"])
    assert queues.store.receive(queues.arn("orders"), 1) == []
    assert queues.store.next_visible(queues.arn("orders")) is None


def test_a_fifo_queue_keeps_the_order_of_a_group(queues: Queues) -> None:
    queues.create("orders.fifo", FifoQueue="true", ContentBasedDeduplication="true")
    for body in ("one", "two"):
        queues.send("orders.fifo", body, MessageGroupId="cup")

    assert [message["Body"] for message in queues.receive("orders.fifo", VisibilityTimeout=43_200)] == ["one"]
    assert queues.receive("orders.fifo") == []


def test_a_long_queue_is_filled_and_drained_at_the_speed_of_a_short_one(queues: Queues) -> None:
    backend = sqs_backends[queues.store.account_id][queues.store.region]

    def seconds_of_the_next(count: int) -> float:
        """Returns the shortest of five measurements, to exclude other threads and the garbage collector."""
        return min(one_try(count) for _ in range(5))

    def one_try(count: int) -> float:
        begun = time.thread_time()
        for _ in range(count):
            backend.send_message("orders", "{}")
        for received in queues.store.receive(queues.arn("orders"), count):
            queues.store.delete(queues.arn("orders"), [received.record["receiptHandle"]])
        return time.thread_time() - begun

    queues.store.real_seconds = lambda seconds: seconds
    short = seconds_of_the_next(200)
    for _ in range(3000):
        backend.send_message("orders", "{}")
    long = seconds_of_the_next(200)

    assert long < 5 * short
