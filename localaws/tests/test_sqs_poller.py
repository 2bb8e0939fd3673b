"""Queue mappings: batches, windows, filters, partial responses, concurrency, and messages that keep failing."""

import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from localaws import sqs_poller
from localaws.delivery import Clock
from localaws.event_pattern import InvalidEventPattern
from localaws.lambda_runtime import InvocationResult, Throttled
from localaws.sqs_poller import BodyFilter, QueuePoller, read_queue_mapping
from localaws.store import Store
from localaws.tests.support import PATIENCE, wait_until

ERROR = InvocationResult(b'{"errorMessage": "no"}', "Unhandled", 0.01)
DONE = InvocationResult(b"null", None, 0.01)

Records = list[dict[str, Any]]


def failing(*message_ids: str) -> InvocationResult:
    failures = [{"itemIdentifier": message_id} for message_id in message_ids]
    return InvocationResult(json.dumps({"batchItemFailures": failures}).encode(), None, 0.01)


def bodies(records: Records) -> list[str]:
    return [record["body"] for record in records]


class Consumer:
    """A function with a queue mapping: visibility timeout 100 s, and after 3 receives a dead-letter queue."""

    def __init__(
        self, store: Store, handle: Callable[[Records], InvocationResult], scale: float, **mapping: Any
    ) -> None:
        self.batches: list[Records] = []
        self.failures: list[str] = []
        self.store = store
        self._handle = handle
        clock = Clock(scale)
        store.real_seconds = clock.real_seconds
        self.client = store.client("sqs")
        self.dead = self._create("dead")
        policy = {"deadLetterTargetArn": self.dead, "maxReceiveCount": 3}
        self.queue = self._create("orders", VisibilityTimeout="100", RedrivePolicy=json.dumps(policy))
        properties = {
            "FunctionName": "consumer",
            "EventSourceArn": self.queue,
            "FunctionResponseTypes": ["ReportBatchItemFailures"],
        }
        self.poller = QueuePoller(
            read_queue_mapping(properties | mapping),
            store,
            clock,
            self._invoke,
            lambda function, text: self.failures.append(f"{function}: {text}"),
        )
        store.on_message = self.poller.on_message

    def send(self, *texts: str, **more: Any) -> list[str]:
        url = self.client.get_queue_url(QueueName="orders")["QueueUrl"]
        return [self.client.send_message(QueueUrl=url, MessageBody=text, **more)["MessageId"] for text in texts]

    def start(self) -> "Consumer":
        self.poller.start()
        return self

    def seen(self) -> list[list[str]]:
        return [bodies(records) for records in self.batches]

    def left(self, name: str = "orders") -> int:
        """Returns the number of messages in a queue, visible or not."""
        url = self.client.get_queue_url(QueueName=name)["QueueUrl"]
        attributes = self.client.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
        return sum(int(attributes[f"ApproximateNumberOfMessages{kind}"]) for kind in ("", "Delayed", "NotVisible"))

    def _create(self, name: str, **attributes: str) -> str:
        self.client.create_queue(QueueName=name, Attributes=attributes)
        return f"arn:aws:sqs:{self.store.region}:{self.store.account_id}:{name}"

    def _invoke(self, function: str, payload: bytes) -> InvocationResult:
        assert function == "consumer"
        records: Records = json.loads(payload)["Records"]
        self.batches.append(records)
        return self._handle(records)


Make = Callable[..., Consumer]


@pytest.fixture
def make_consumer(store: Store) -> Iterator[Make]:
    made: list[Consumer] = []

    def make(handle: Callable[[Records], InvocationResult], scale: float = 100, **mapping: Any) -> Consumer:
        made.append(Consumer(store, handle, scale, **mapping))
        return made[-1]

    yield make
    for each in made:
        each.poller.stop()


def counts(records: Records) -> list[str]:
    return [record["attributes"]["ApproximateReceiveCount"] for record in records]


def test_messages_are_handed_over_as_they_come_and_deleted(make_consumer: Make) -> None:
    consumer = make_consumer(lambda _: DONE).start()
    consumer.send("one")
    wait_until(lambda: len(consumer.batches) == 1)
    consumer.send("two")
    wait_until(lambda: len(consumer.batches) == 2 and consumer.left() == 0)
    assert consumer.seen() == [["one"], ["two"]]
    assert consumer.failures == []


def test_a_backlog_comes_in_batches_of_the_size_asked_for(make_consumer: Make) -> None:
    consumer = make_consumer(lambda _: DONE, BatchSize=2, ScalingConfig={"MaximumConcurrency": 2})
    consumer.send(*"abcde")
    consumer.start()
    wait_until(lambda: len(consumer.batches) == 3)
    assert sorted(consumer.seen()) == [["a", "b"], ["c", "d"], ["e"]]


def test_a_window_ends_when_the_batch_is_full(make_consumer: Make) -> None:
    consumer = make_consumer(lambda _: DONE, scale=1, BatchSize=3, MaximumBatchingWindowInSeconds=300).start()
    for text in "abc":
        consumer.send(text)
    wait_until(lambda: consumer.batches)
    assert consumer.seen() == [["a", "b", "c"]]


def test_a_window_ends_when_its_time_is_over(make_consumer: Make) -> None:
    consumer = make_consumer(lambda _: DONE, scale=20, BatchSize=100, MaximumBatchingWindowInSeconds=60).start()
    for text in "ab":
        consumer.send(text)
    wait_until(lambda: consumer.batches)
    assert consumer.seen() == [["a", "b"]]


def test_a_batch_is_not_larger_than_the_payload_limit(make_consumer: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqs_poller, "PAYLOAD_LIMIT", 3000)
    consumer = make_consumer(lambda _: DONE, scale=20, BatchSize=10, MaximumBatchingWindowInSeconds=1)
    consumer.send(*(letter * 600 for letter in "abcde"))
    consumer.start()
    wait_until(lambda: consumer.left() == 0)
    assert max(len(json.dumps({"Records": records})) for records in consumer.batches) <= 3000
    assert sorted(text[0] for batch in consumer.seen() for text in batch) == list("abcde")
    assert len(consumer.batches[0]) > 1


def test_a_message_that_is_too_large_for_a_batch_comes_alone(
    make_consumer: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqs_poller, "PAYLOAD_LIMIT", 100)
    consumer = make_consumer(lambda _: DONE)
    consumer.send("a", "b")
    consumer.start()
    wait_until(lambda: len(consumer.batches) == 2)
    assert sorted(consumer.seen()) == [["a"], ["b"]]


def test_reported_messages_come_again_and_the_others_are_deleted(make_consumer: Make) -> None:
    consumer = make_consumer(
        lambda records: failing(*(r["messageId"] for r in records if counts([r]) == ["1"] and r["body"] == "b"))
    )
    consumer.send("a", "b", "c")
    consumer.start()
    wait_until(lambda: consumer.left() == 0)
    assert consumer.seen() == [["a", "b", "c"], ["b"]]
    assert [counts(records) for records in consumer.batches] == [["1", "1", "1"], ["2"]]
    (line,) = consumer.failures
    assert line.startswith("consumer: 1 records reported as failed; 1 messages, next attempt in ")


def throttled(_: Records) -> InvocationResult:
    raise Throttled("consumer runs 1 invocations, which is its reserved concurrency")


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (lambda _: ERROR, "the invocation failed"),
        (throttled, "Throttled: consumer runs 1 invocations, which is its reserved concurrency"),
        (lambda _: failing("unknown"), "batchItemFailures names a record that is not in the batch"),
        (lambda _: InvocationResult(b"[1]", None, 0.01), "not a partial batch response: [1]"),
    ],
)
def test_a_batch_that_fails_as_a_whole_comes_again_after_the_visibility_timeout(
    make_consumer: Make, answer: Callable[[Records], InvocationResult], reason: str
) -> None:
    answers = iter([answer])
    consumer = make_consumer(lambda records: next(answers, lambda _: DONE)(records))
    consumer.send("a", "b")
    consumer.start()
    wait_until(lambda: consumer.left() == 0)
    assert consumer.seen() == [["a", "b"], ["a", "b"]]
    (line,) = consumer.failures
    assert line.startswith(f"consumer: {reason}; 2 messages, next attempt in ")


@pytest.mark.parametrize("payload", [b"null", b"{}", b'{"batchItemFailures": null}', b'{"batchItemFailures": []}'])
def test_a_response_without_failures_is_a_success(make_consumer: Make, payload: bytes) -> None:
    consumer = make_consumer(lambda _: InvocationResult(payload, None, 0.01)).start()
    consumer.send("a")
    wait_until(lambda: consumer.batches and consumer.left() == 0)
    assert len(consumer.batches) == 1


def test_the_response_is_ignored_without_report_batch_item_failures(make_consumer: Make) -> None:
    consumer = make_consumer(lambda records: failing(records[0]["messageId"]), FunctionResponseTypes=[]).start()
    consumer.send("a")
    wait_until(lambda: consumer.batches and consumer.left() == 0)
    assert len(consumer.batches) == 1


def test_a_message_that_keeps_failing_ends_in_the_dead_letter_queue(make_consumer: Make) -> None:
    consumer = make_consumer(lambda _: ERROR).start()
    (message_id,) = consumer.send("poison")
    wait_until(lambda: consumer.left("dead") == 1)
    assert [counts(records) for records in consumer.batches] == [["1"], ["2"], ["3"]]
    assert [line.rpartition(" in ")[0] for line in consumer.failures] == [
        "consumer: the invocation failed; 1 messages, next attempt",
        "consumer: the invocation failed; 1 messages, next attempt",
        f"consumer: the invocation failed; 1 messages, moved to {consumer.dead}",
    ]
    [moved] = consumer.store.receive(consumer.dead, 1)
    assert moved.record["messageId"] == message_id
    assert moved.record["attributes"]["DeadLetterQueueSourceArn"] == consumer.queue


def test_a_failure_reports_the_time_of_the_retry_even_if_the_function_changed_it(make_consumer: Make) -> None:
    def handle(records: Records) -> InvocationResult:
        (record,) = records
        if record["body"] == "slower":
            url = consumer.client.get_queue_url(QueueName="orders")["QueueUrl"]
            consumer.client.change_message_visibility(
                QueueUrl=url, ReceiptHandle=record["receiptHandle"], VisibilityTimeout=5000
            )
        return ERROR

    consumer = make_consumer(handle, scale=1, BatchSize=1, ScalingConfig={"MaximumConcurrency": 2}).start()
    consumer.send("as usual", "slower")
    wait_until(lambda: len(consumer.failures) == 2)
    seconds = sorted(float(line.rpartition(" in ")[2].removesuffix(" s")) for line in consumer.failures)
    assert 90 < seconds[0] <= 100
    assert 4990 < seconds[1] <= 5000


def test_a_delayed_message_comes_when_it_is_visible(make_consumer: Make) -> None:
    consumer = make_consumer(lambda _: DONE).start()
    consumer.send("later", DelaySeconds=100)
    consumer.send("now")
    wait_until(lambda: len(consumer.batches) == 2)
    assert consumer.seen() == [["now"], ["later"]]


def test_no_more_batches_run_at_once_than_the_mapping_allows(make_consumer: Make) -> None:
    gate, running, most = threading.Semaphore(0), [0], [0]
    lock = threading.Lock()

    def handle(_: Records) -> InvocationResult:
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        gate.acquire(timeout=PATIENCE)
        with lock:
            running[0] -= 1
        return DONE

    consumer = make_consumer(handle, scale=1, BatchSize=1, ScalingConfig={"MaximumConcurrency": 2})
    consumer.send(*"abcde")
    consumer.start()
    wait_until(lambda: running[0] == 2)
    waiting = consumer.store.receive(consumer.queue, 10)
    gate.release(5)
    wait_until(lambda: consumer.left() == 3)
    assert most == [2]
    assert [message.record["body"] for message in waiting] == ["c", "d", "e"]  # not received before a worker is free


def test_messages_that_no_filter_matches_are_deleted(make_consumer: Make) -> None:
    patterns = ['{"body": {"kind": ["sale"]}}', '{"body": {"amount": [{"numeric": [">", 9]}]}}']
    filters = {"Filters": [{"Pattern": pattern} for pattern in patterns]}
    consumer = make_consumer(lambda _: DONE, FilterCriteria=filters)
    consumer.send('{"kind": "sale"}', '{"kind": "gift"}', '{"kind": "gift", "amount": 10}', "sale")
    consumer.start()
    wait_until(lambda: consumer.batches and consumer.left() == 0)
    assert consumer.seen() == [['{"kind": "sale"}', '{"kind": "gift", "amount": 10}']]


@pytest.mark.parametrize(
    ("pattern", "body", "wanted"),
    [
        ({"body": ["stop"]}, "stop", True),
        ({"body": ["stop"]}, "go", False),
        ({"body": [{"prefix": "{"}]}, '{"a": 1}', False),
        ({"body": {"a": [1]}}, '{"a": 1}', True),
        ({"body": {"a": [{"exists": False}]}}, "plain", False),
        ({"messageId": ["1"]}, "plain", True),
        ({"messageId": ["2"]}, '{"a": 1}', False),
    ],
)
def test_a_filter_asks_for_fields_of_json_or_for_a_text(pattern: dict[str, Any], body: str, wanted: bool) -> None:
    assert BodyFilter(pattern).matches({"messageId": "1", "body": body}) is wanted


def test_an_invalid_filter_is_rejected() -> None:
    filters = {"Filters": [{"Pattern": '{"body": {"a": "not a list"}}'}]}
    with pytest.raises(InvalidEventPattern):
        read_queue_mapping({"FunctionName": "consumer", "EventSourceArn": "arn", "FilterCriteria": filters})


def test_a_message_of_another_queue_is_not_taken(make_consumer: Make) -> None:
    consumer = make_consumer(lambda _: DONE).start()
    url = consumer.client.get_queue_url(QueueName="dead")["QueueUrl"]
    consumer.client.send_message(QueueUrl=url, MessageBody="another")
    consumer.send("own")
    wait_until(lambda: consumer.batches and consumer.left() == 0)
    assert consumer.seen() == [["own"]]
    assert consumer.left("dead") == 1


def test_stop_waits_for_running_batches_and_loses_no_message(make_consumer: Make) -> None:
    gate, entered = threading.Event(), threading.Event()

    def handle(records: Records) -> InvocationResult:
        entered.set()
        gate.wait(PATIENCE)
        return DONE if bodies(records) == ["a"] else ERROR

    consumer = make_consumer(handle, scale=1, BatchSize=1, ScalingConfig={"MaximumConcurrency": 2})
    consumer.send("a", "b", "c")
    consumer.start()
    wait_until(lambda: len(consumer.batches) == 2)
    stopping = threading.Thread(target=consumer.poller.stop)
    stopping.start()
    gate.set()
    stopping.join(10)
    assert not [thread.name for thread in threading.enumerate() if "consumer" in thread.name]
    assert consumer.left() == 2


def test_stop_ends_a_mapping_that_waits_for_messages_or_was_never_started(make_consumer: Make) -> None:
    consumer = make_consumer(lambda _: DONE)
    consumer.poller.stop()
    idle = make_consumer(lambda _: DONE).start()
    idle.poller.stop()
    assert not [thread.name for thread in threading.enumerate() if "consumer" in thread.name]


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sets(st.integers(0, 11)), st.booleans(), st.integers(1, 5))
def test_whatever_fails_each_message_is_handled_or_ends_in_the_dead_letter_queue(
    store: Store, poison: set[int], partial: bool, size: int
) -> None:
    handled: set[int] = set()

    def handle(records: Records) -> InvocationResult:
        bad = [record["messageId"] for record in records if int(record["body"]) in poison]
        if bad and not partial:
            return ERROR
        handled.update(int(record["body"]) for record in records if record["messageId"] not in bad)
        return failing(*bad)

    # Without reported failures, a bad message fails its whole batch, so the batch size is 1
    size = size if partial else 1
    consumer = Consumer(store, handle, 10_000, BatchSize=size)
    consumer.send(*map(str, range(12)))
    consumer.start()
    wait_until(lambda: consumer.left() == 0)
    consumer.poller.stop()
    dead = {int(message.record["body"]) for message in store.receive(consumer.dead, 100)}
    for name in ("orders", "dead"):
        consumer.client.delete_queue(QueueUrl=consumer.client.get_queue_url(QueueName=name)["QueueUrl"])
    assert (handled, dead) == (set(range(12)) - poison, poison)
