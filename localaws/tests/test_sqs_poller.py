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
from localaws.sqs_poller import BodyFilter, QueueSources, read_queue_mapping
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


class World:
    """A function with a queue mapping: visibility timeout 100 s, and after 3 receives a dead-letter queue."""

    def __init__(self, store: Store, take: Callable[[Records], InvocationResult], scale: float, **mapping: Any) -> None:
        self.batches: list[Records] = []
        self.failures: list[str] = []
        self.store = store
        self._take = take
        clock = Clock(scale)
        store.outside = clock.outside
        self.client = store.client("sqs")
        self.dead = self._create("dead")
        policy = {"deadLetterTargetArn": self.dead, "maxReceiveCount": 3}
        self.queue = self._create("orders", VisibilityTimeout="100", RedrivePolicy=json.dumps(policy))
        properties = {
            "FunctionName": "taker",
            "EventSourceArn": self.queue,
            "FunctionResponseTypes": ["ReportBatchItemFailures"],
        }
        self.sources = QueueSources(
            [read_queue_mapping(properties | mapping)],
            store=store,
            clock=clock,
            invoke=self._invoke,
            on_failure=lambda function, text: self.failures.append(f"{function}: {text}"),
        )
        store.on_message = self.sources.on_message

    def send(self, *texts: str, **more: Any) -> list[str]:
        url = self.client.get_queue_url(QueueName="orders")["QueueUrl"]
        return [self.client.send_message(QueueUrl=url, MessageBody=text, **more)["MessageId"] for text in texts]

    def start(self) -> "World":
        self.sources.start()
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
        assert function == "taker"
        records: Records = json.loads(payload)["Records"]
        self.batches.append(records)
        return self._take(records)


Make = Callable[..., World]


@pytest.fixture
def world(store: Store) -> Iterator[Make]:
    made: list[World] = []

    def make(take: Callable[[Records], InvocationResult], scale: float = 100, **mapping: Any) -> World:
        made.append(World(store, take, scale, **mapping))
        return made[-1]

    yield make
    for each in made:
        each.sources.stop()


def counts(records: Records) -> list[str]:
    return [record["attributes"]["ApproximateReceiveCount"] for record in records]


def test_messages_are_handed_over_as_they_come_and_deleted(world: Make) -> None:
    taker = world(lambda _: DONE).start()
    taker.send("one")
    wait_until(lambda: len(taker.batches) == 1)
    taker.send("two")
    wait_until(lambda: len(taker.batches) == 2 and taker.left() == 0)
    assert taker.seen() == [["one"], ["two"]]
    assert taker.failures == []


def test_a_backlog_comes_in_batches_of_the_size_asked_for(world: Make) -> None:
    taker = world(lambda _: DONE, BatchSize=2, ScalingConfig={"MaximumConcurrency": 2})
    taker.send(*"abcde")
    taker.start()
    wait_until(lambda: len(taker.batches) == 3)
    assert sorted(taker.seen()) == [["a", "b"], ["c", "d"], ["e"]]


def test_a_window_ends_when_the_batch_is_full(world: Make) -> None:
    taker = world(lambda _: DONE, scale=1, BatchSize=3, MaximumBatchingWindowInSeconds=300).start()
    for text in "abc":
        taker.send(text)
    wait_until(lambda: taker.batches)
    assert taker.seen() == [["a", "b", "c"]]


def test_a_window_ends_when_its_time_is_over(world: Make) -> None:
    taker = world(lambda _: DONE, scale=20, BatchSize=100, MaximumBatchingWindowInSeconds=60).start()
    for text in "ab":
        taker.send(text)
    wait_until(lambda: taker.batches)
    assert taker.seen() == [["a", "b"]]


def test_a_batch_is_not_larger_than_the_payload_limit(world: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqs_poller, "PAYLOAD_LIMIT", 3000)
    taker = world(lambda _: DONE, scale=20, BatchSize=10, MaximumBatchingWindowInSeconds=1)
    taker.send(*(letter * 600 for letter in "abcde"))
    taker.start()
    wait_until(lambda: taker.left() == 0)
    assert max(len(json.dumps({"Records": records})) for records in taker.batches) <= 3000
    assert sorted(text[0] for batch in taker.seen() for text in batch) == list("abcde")
    assert len(taker.batches[0]) > 1


def test_a_message_that_is_too_large_for_a_batch_comes_alone(world: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqs_poller, "PAYLOAD_LIMIT", 100)
    taker = world(lambda _: DONE)
    taker.send("a", "b")
    taker.start()
    wait_until(lambda: len(taker.batches) == 2)
    assert sorted(taker.seen()) == [["a"], ["b"]]


def test_reported_messages_come_again_and_the_others_are_deleted(world: Make) -> None:
    taker = world(
        lambda records: failing(*(r["messageId"] for r in records if counts([r]) == ["1"] and r["body"] == "b"))
    )
    taker.send("a", "b", "c")
    taker.start()
    wait_until(lambda: taker.left() == 0)
    assert taker.seen() == [["a", "b", "c"], ["b"]]
    assert [counts(records) for records in taker.batches] == [["1", "1", "1"], ["2"]]
    (line,) = taker.failures
    assert line.startswith("taker: 1 records reported as failed; 1 messages, next attempt in ")


def throttled(_: Records) -> InvocationResult:
    raise Throttled("taker runs 1 invocations, which is its reserved concurrency")


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (lambda _: ERROR, "the invocation failed"),
        (throttled, "Throttled: taker runs 1 invocations, which is its reserved concurrency"),
        (lambda _: failing("unknown"), "batchItemFailures names a record that is not in the batch"),
        (lambda _: InvocationResult(b"[1]", None, 0.01), "not a partial batch response: [1]"),
    ],
)
def test_a_batch_that_fails_as_a_whole_comes_again_after_the_visibility_timeout(
    world: Make, answer: Callable[[Records], InvocationResult], reason: str
) -> None:
    answers = iter([answer])
    taker = world(lambda records: next(answers, lambda _: DONE)(records))
    taker.send("a", "b")
    taker.start()
    wait_until(lambda: taker.left() == 0)
    assert taker.seen() == [["a", "b"], ["a", "b"]]
    (line,) = taker.failures
    assert line.startswith(f"taker: {reason}; 2 messages, next attempt in ")


@pytest.mark.parametrize("payload", [b"null", b"{}", b'{"batchItemFailures": null}', b'{"batchItemFailures": []}'])
def test_a_response_without_failures_is_a_success(world: Make, payload: bytes) -> None:
    taker = world(lambda _: InvocationResult(payload, None, 0.01)).start()
    taker.send("a")
    wait_until(lambda: taker.batches and taker.left() == 0)
    assert len(taker.batches) == 1


def test_the_response_is_ignored_without_report_batch_item_failures(world: Make) -> None:
    taker = world(lambda records: failing(records[0]["messageId"]), FunctionResponseTypes=[]).start()
    taker.send("a")
    wait_until(lambda: taker.batches and taker.left() == 0)
    assert len(taker.batches) == 1


def test_a_message_that_keeps_failing_ends_in_the_dead_letter_queue(world: Make) -> None:
    taker = world(lambda _: ERROR).start()
    (message_id,) = taker.send("poison")
    wait_until(lambda: taker.left("dead") == 1)
    assert [counts(records) for records in taker.batches] == [["1"], ["2"], ["3"]]
    assert [line.rpartition(" in ")[0] for line in taker.failures] == [
        "taker: the invocation failed; 1 messages, next attempt",
        "taker: the invocation failed; 1 messages, next attempt",
        f"taker: the invocation failed; 1 messages, moved to {taker.dead}",
    ]
    [moved] = taker.store.receive(taker.dead, 1)
    assert moved.record["messageId"] == message_id
    assert moved.record["attributes"]["DeadLetterQueueSourceArn"] == taker.queue


def test_a_failure_reports_the_time_of_the_retry_even_if_the_function_changed_it(world: Make) -> None:
    def take(records: Records) -> InvocationResult:
        (record,) = records
        if record["body"] == "slower":
            url = taker.client.get_queue_url(QueueName="orders")["QueueUrl"]
            taker.client.change_message_visibility(
                QueueUrl=url, ReceiptHandle=record["receiptHandle"], VisibilityTimeout=5000
            )
        return ERROR

    taker = world(take, scale=1, BatchSize=1, ScalingConfig={"MaximumConcurrency": 2}).start()
    taker.send("as usual", "slower")
    wait_until(lambda: len(taker.failures) == 2)
    seconds = sorted(float(line.rpartition(" in ")[2].removesuffix(" s")) for line in taker.failures)
    assert 90 < seconds[0] <= 100
    assert 4990 < seconds[1] <= 5000


def test_a_delayed_message_comes_when_it_is_visible(world: Make) -> None:
    taker = world(lambda _: DONE).start()
    taker.send("later", DelaySeconds=100)
    taker.send("now")
    wait_until(lambda: len(taker.batches) == 2)
    assert taker.seen() == [["now"], ["later"]]


def test_no_more_batches_run_at_once_than_the_mapping_allows(world: Make) -> None:
    gate, running, most = threading.Semaphore(0), [0], [0]
    lock = threading.Lock()

    def take(_: Records) -> InvocationResult:
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        gate.acquire(timeout=PATIENCE)
        with lock:
            running[0] -= 1
        return DONE

    taker = world(take, scale=1, BatchSize=1, ScalingConfig={"MaximumConcurrency": 2})
    taker.send(*"abcde")
    taker.start()
    wait_until(lambda: running[0] == 2)
    waiting = taker.store.receive(taker.queue, 10)
    gate.release(5)
    wait_until(lambda: taker.left() == 3)
    assert most == [2]
    assert [message.record["body"] for message in waiting] == ["c", "d", "e"]  # not received before a worker is free


def test_messages_that_no_filter_matches_are_deleted(world: Make) -> None:
    patterns = ['{"body": {"kind": ["sale"]}}', '{"body": {"amount": [{"numeric": [">", 9]}]}}']
    filters = {"Filters": [{"Pattern": pattern} for pattern in patterns]}
    taker = world(lambda _: DONE, FilterCriteria=filters)
    taker.send('{"kind": "sale"}', '{"kind": "gift"}', '{"kind": "gift", "amount": 10}', "sale")
    taker.start()
    wait_until(lambda: taker.batches and taker.left() == 0)
    assert taker.seen() == [['{"kind": "sale"}', '{"kind": "gift", "amount": 10}']]


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
        read_queue_mapping({"FunctionName": "taker", "EventSourceArn": "arn", "FilterCriteria": filters})


def test_a_message_of_another_queue_is_not_taken(world: Make) -> None:
    taker = world(lambda _: DONE).start()
    url = taker.client.get_queue_url(QueueName="dead")["QueueUrl"]
    taker.client.send_message(QueueUrl=url, MessageBody="another")
    taker.send("own")
    wait_until(lambda: taker.batches and taker.left() == 0)
    assert taker.seen() == [["own"]]
    assert taker.left("dead") == 1


def test_stop_waits_for_running_batches_and_loses_no_message(world: Make) -> None:
    gate, entered = threading.Event(), threading.Event()

    def take(records: Records) -> InvocationResult:
        entered.set()
        gate.wait(PATIENCE)
        return DONE if bodies(records) == ["a"] else ERROR

    taker = world(take, scale=1, BatchSize=1, ScalingConfig={"MaximumConcurrency": 2})
    taker.send("a", "b", "c")
    taker.start()
    wait_until(lambda: len(taker.batches) == 2)
    stopping = threading.Thread(target=taker.sources.stop)
    stopping.start()
    gate.set()
    stopping.join(10)
    assert not [thread.name for thread in threading.enumerate() if "taker" in thread.name]
    assert taker.left() == 2


def test_stop_ends_a_mapping_that_waits_for_messages_or_was_never_started(world: Make) -> None:
    taker = world(lambda _: DONE)
    taker.sources.stop()
    idle = world(lambda _: DONE).start()
    idle.sources.stop()
    assert not [thread.name for thread in threading.enumerate() if "taker" in thread.name]


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sets(st.integers(0, 11)), st.booleans(), st.integers(1, 5))
def test_whatever_fails_each_message_is_handled_or_ends_in_the_dead_letter_queue(
    store: Store, poison: set[int], partial: bool, size: int
) -> None:
    handled: set[int] = set()

    def take(records: Records) -> InvocationResult:
        bad = [record["messageId"] for record in records if int(record["body"]) in poison]
        if bad and not partial:
            return ERROR
        handled.update(int(record["body"]) for record in records if record["messageId"] not in bad)
        return failing(*bad)

    # Without reported failures, a bad message fails its whole batch, so the batch size is 1
    size = size if partial else 1
    taker = World(store, take, 10_000, BatchSize=size)
    taker.send(*map(str, range(12)))
    taker.start()
    wait_until(lambda: taker.left() == 0)
    taker.sources.stop()
    dead = {int(message.record["body"]) for message in store.receive(taker.dead, 100)}
    for name in ("orders", "dead"):
        taker.client.delete_queue(QueueUrl=taker.client.get_queue_url(QueueName=name)["QueueUrl"])
    assert (handled, dead) == (set(range(12)) - poison, poison)
