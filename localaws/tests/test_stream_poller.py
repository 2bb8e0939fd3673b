"""Stream mappings: batches, filters, partial responses, bisecting and discarded records."""

import json
import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from localaws import stream_poller
from localaws.delivery import Clock
from localaws.lambda_runtime import InvocationResult
from localaws.stream_poller import StreamPoller, read_mapping
from localaws.tests.support import RecordingTargets, wait_until

STREAM = "arn:aws:dynamodb:us-east-1:123456789012:table/orders/stream/2026"
DLQ = "arn:aws:sqs:us-east-1:123456789012:dlq"
ERROR = InvocationResult(b'{"errorMessage": "no"}', "Unhandled", 0.01)


def record(number: int, name: str = "MODIFY", age: float = 0) -> dict[str, Any]:
    change = {"SequenceNumber": str(number), "ApproximateCreationDateTime": time.time() - age}
    return {"eventID": f"event-{number}", "eventName": name, "dynamodb": change}


def answer(*failed: int) -> InvocationResult:
    failures = [{"itemIdentifier": str(number)} for number in failed]
    return InvocationResult(json.dumps({"batchItemFailures": failures}).encode(), None, 0.01)


class Consumer:
    """A function with a stream mapping. Records its batches and the pointers to discarded records."""

    def __init__(self, handle: Callable[[list[int]], InvocationResult], scale: float, **properties: Any) -> None:
        self.batches: list[list[int]] = []
        self.failures: list[str] = []
        self._handle = handle
        self._targets = RecordingTargets()
        mapping = {
            "FunctionName": "consumer",
            "EventSourceArn": STREAM,
            "FunctionResponseTypes": ["ReportBatchItemFailures"],
            "DestinationConfig": {"OnFailure": {"Destination": DLQ}},
        }
        self.poller = StreamPoller(
            read_mapping(mapping | properties),
            Clock(scale),
            self._invoke,
            self._targets,
            lambda function, text: self.failures.append(f"{function}: {text}"),
        )

    def feed(self, *records: dict[str, Any]) -> "Consumer":
        """Put records into the stream before the start, so that they arrive in one batch."""
        for each in records:
            self.poller.on_record(STREAM, each)
        self.poller.start()
        return self

    def _invoke(self, function: str, payload: bytes) -> InvocationResult:
        numbers = [int(each["dynamodb"]["SequenceNumber"]) for each in json.loads(payload)["Records"]]
        self.batches.append(numbers)
        return self._handle(numbers)

    @property
    def sent(self) -> list[dict[str, Any]]:
        assert {arn for arn, *_ in self._targets.sent} <= {DLQ}
        return [json.loads(body) for _, body, _ in self._targets.sent]


Make = Callable[..., Consumer]


@pytest.fixture
def make_consumer() -> Iterator[Make]:
    made: list[Consumer] = []

    def make(handle: Callable[[list[int]], InvocationResult], scale: float = 1000, **properties: Any) -> Consumer:
        made.append(Consumer(handle, scale, **properties))
        return made[-1]

    yield make
    for each in made:
        each.poller.stop()


def test_records_come_in_order_in_batches_of_the_size_asked_for(make_consumer: Make) -> None:
    consumer = make_consumer(lambda _: answer(), BatchSize=2).feed(*(record(number) for number in range(5)))
    wait_until(lambda: len(consumer.batches) == 3)
    assert consumer.batches == [[0, 1], [2, 3], [4]]


def test_a_window_ends_when_the_batch_is_full(make_consumer: Make) -> None:
    consumer = make_consumer(lambda _: answer(), 1, BatchSize=3, MaximumBatchingWindowInSeconds=300).feed(record(1))
    for number in (2, 3):
        consumer.poller.on_record(STREAM, record(number))
    wait_until(lambda: consumer.batches)
    assert consumer.batches == [[1, 2, 3]]


def test_a_window_ends_when_its_time_is_over(make_consumer: Make) -> None:
    consumer = make_consumer(lambda _: answer(), 20, MaximumBatchingWindowInSeconds=60).feed(record(1))
    consumer.poller.on_record(STREAM, record(2))
    wait_until(lambda: consumer.batches)
    assert consumer.batches == [[1, 2]]


def test_stop_ends_a_window(make_consumer: Make) -> None:
    consumer = make_consumer(lambda _: answer(), 1, MaximumBatchingWindowInSeconds=300).feed(record(1))
    consumer.poller.stop()
    assert consumer.batches == []


def test_a_batch_beyond_the_payload_limit_is_split_without_a_failure(
    make_consumer: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_poller, "REQUEST_LIMIT", 2 * len(json.dumps(record(1))) + 50)
    consumer = make_consumer(lambda _: answer()).feed(*(record(number) for number in range(1, 6)))
    wait_until(lambda: sum(map(len, consumer.batches)) == 5)
    assert consumer.batches == [[1, 2], [3], [4, 5]]
    assert consumer.failures == []


def test_records_that_no_filter_matches_are_left_out(make_consumer: Make) -> None:
    filters = {"Filters": [{"Pattern": '{"eventName": ["INSERT"]}'}, {"Pattern": '{"eventID": ["event-3"]}'}]}
    consumer = make_consumer(lambda _: answer(), FilterCriteria=filters)
    consumer.feed(record(1), record(2, "INSERT"), record(3), record(4, "REMOVE"))
    wait_until(lambda: consumer.batches)
    assert consumer.batches == [[2, 3]]


def test_a_record_of_another_stream_is_not_taken(make_consumer: Make) -> None:
    consumer = make_consumer(lambda _: answer())
    consumer.poller.on_record("arn:another", record(1))
    consumer.feed(record(2))
    wait_until(lambda: consumer.batches)
    assert consumer.batches == [[2]]


def test_a_partial_failure_is_retried_from_the_lowest_failed_record(make_consumer: Make) -> None:
    answers = iter([answer(4, 2), answer()])
    consumer = make_consumer(lambda _: next(answers)).feed(*(record(number) for number in range(1, 6)))
    wait_until(lambda: len(consumer.batches) == 2)
    assert consumer.batches == [[1, 2, 3, 4, 5], [2, 3, 4, 5]]


@pytest.mark.parametrize(
    "payload",
    [
        b'{"batchItemFailures": [{"itemIdentifier": "9"}]}',
        b'{"batchItemFailures": [{"itemIdentifier": ["1"]}]}',
        b'{"batchItemFailures": [{}]}',
        b"[1]",
        b'"x"',
    ],
)
def test_an_invalid_response_is_a_failure_of_the_whole_batch(make_consumer: Make, payload: bytes) -> None:
    answers = iter([InvocationResult(payload, None, 0.01), answer()])
    consumer = make_consumer(lambda _: next(answers)).feed(record(1), record(2))
    wait_until(lambda: len(consumer.batches) == 2)
    assert consumer.batches == [[1, 2], [1, 2]]


@pytest.mark.parametrize("payload", [b"null", b"{}", b'{"batchItemFailures": null}', b'{"batchItemFailures": []}'])
def test_a_response_without_failures_is_a_success(make_consumer: Make, payload: bytes) -> None:
    consumer = make_consumer(lambda _: InvocationResult(payload, None, 0.01), BatchSize=1).feed(record(1), record(2))
    wait_until(lambda: len(consumer.batches) == 2)
    assert consumer.batches == [[1], [2]]


def test_a_function_that_cannot_be_invoked_gets_the_records_again(make_consumer: Make) -> None:
    errors = iter([RuntimeError("gone")])

    def handle(_: list[int]) -> InvocationResult:
        for error in errors:
            raise error
        return answer()

    consumer = make_consumer(handle).feed(record(1))
    wait_until(lambda: len(consumer.batches) == 2)
    assert consumer.failures == ["consumer: RuntimeError: gone; 1 records, next attempt in 0.0 s"]


def poisoned(*poison: int) -> Callable[[list[int]], InvocationResult]:
    return lambda numbers: ERROR if set(numbers) & set(poison) else answer()


def test_bisecting_isolates_the_failing_record_and_the_others_are_handled(make_consumer: Make) -> None:
    consumer = make_consumer(poisoned(3), BisectBatchOnFunctionError=True, MaximumRetryAttempts=1)
    consumer.feed(*(record(number) for number in range(1, 6)))
    wait_until(lambda: [4, 5] in consumer.batches)
    (pointer,) = consumer.sent
    assert pointer["requestContext"]["condition"] == "RetryAttemptsExhausted"
    where = pointer["DDBStreamBatchInfo"]
    assert (where["startSequenceNumber"], where["endSequenceNumber"], where["batchSize"]) == ("3", "3", 1)
    assert where["streamArn"] == STREAM
    assert "SequenceNumber" not in json.dumps(pointer["requestContext"])
    assert pointer["requestContext"]["functionArn"] == "arn:aws:lambda:us-east-1:123456789012:function:consumer"
    assert pointer["responseContext"]["functionError"] == "Unhandled"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", where["approximateArrivalOfFirstRecord"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", where["approximateArrivalOfLastRecord"])


def test_records_that_a_function_reports_as_failed_have_no_function_error(make_consumer: Make) -> None:
    consumer = make_consumer(lambda _: answer(1), MaximumRetryAttempts=0).feed(record(1))
    wait_until(lambda: consumer.sent)
    assert consumer.sent[0]["responseContext"]["functionError"] is None


def test_without_bisecting_the_whole_batch_is_discarded(make_consumer: Make) -> None:
    consumer = make_consumer(poisoned(3), MaximumRetryAttempts=2).feed(*(record(number) for number in range(1, 6)))
    wait_until(lambda: consumer.sent)
    assert consumer.batches == [[1, 2, 3, 4, 5]] * 3
    assert consumer.sent[0]["DDBStreamBatchInfo"]["batchSize"] == 5


def test_an_expired_record_is_discarded_and_a_newer_one_is_not(make_consumer: Make) -> None:
    answers = iter([ERROR, answer()])
    consumer = make_consumer(lambda _: next(answers), scale=1, MaximumRecordAgeInSeconds=60)
    consumer.feed(record(1, age=100), record(2, age=0))
    wait_until(lambda: len(consumer.batches) == 2)
    assert consumer.batches == [[1, 2], [2]]
    (pointer,) = consumer.sent
    assert pointer["requestContext"]["condition"] == "RecordAgeExceeded"
    assert pointer["DDBStreamBatchInfo"]["endSequenceNumber"] == "1"


def test_lost_records_are_reported(make_consumer: Make) -> None:
    consumer = make_consumer(poisoned(1), MaximumRetryAttempts=0, DestinationConfig={}).feed(record(1))
    wait_until(lambda: consumer.failures)
    assert consumer.failures == [
        "consumer: 1 records discarded, RetryAttemptsExhausted; lost, there is no failure destination"
    ]


@settings(max_examples=25, deadline=None)
@given(st.sets(st.integers(0, 11)), st.booleans())
def test_whatever_fails_good_records_are_handled_in_order_and_bad_ones_end_in_the_queue(
    poison: set[int], bisect: bool
) -> None:
    handled: list[int] = []

    def handle(numbers: list[int]) -> InvocationResult:
        bad = [number for number in numbers if number in poison]
        if bad and bisect:
            return ERROR
        handled.extend(number for number in numbers if not bad or number < bad[0])
        return answer(*bad[:1])

    # Without bisecting, a bad record fails its whole batch, so the batch size is 1
    size = 5 if bisect else 1
    consumer = Consumer(handle, 100_000, BisectBatchOnFunctionError=bisect, MaximumRetryAttempts=0, BatchSize=size)
    consumer.feed(*(record(number) for number in range(12)))
    wait_until(lambda: len(handled) + len(consumer.sent) == 12)
    consumer.poller.stop()
    assert handled == [number for number in range(12) if number not in poison]
    assert sorted(int(pointer["DDBStreamBatchInfo"]["startSequenceNumber"]) for pointer in consumer.sent) == sorted(
        poison
    )
