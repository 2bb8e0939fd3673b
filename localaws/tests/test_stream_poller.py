"""Stream mappings: batches, filters, partial responses, bisecting and discarded records."""

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from localaws.delivery import Clock
from localaws.lambda_runtime import InvocationResult
from localaws.stream_poller import StreamSources, read_mapping
from localaws.tests.support import wait_until

STREAM = "arn:aws:dynamodb:us-east-1:123456789012:table/orders/stream/2026"
DLQ = "arn:aws:sqs:us-east-1:123456789012:dlq"
ERROR = InvocationResult(b'{"errorMessage": "no"}', "Unhandled", 0.01)


def record(number: int, name: str = "MODIFY", age: float = 0) -> dict[str, Any]:
    change = {"SequenceNumber": str(number), "ApproximateCreationDateTime": time.time() - age}
    return {"eventID": f"event-{number}", "eventName": name, "dynamodb": change}


def answer(*failed: int) -> InvocationResult:
    failures = [{"itemIdentifier": str(number)} for number in failed]
    return InvocationResult(json.dumps({"batchItemFailures": failures}).encode(), None, 0.01)


class World:
    """A function with a stream mapping. Records its batches, the handled records and the discarded records."""

    def __init__(self, take: Callable[[list[int]], InvocationResult], scale: float, **properties: Any) -> None:
        self.batches: list[list[int]] = []
        self.sent: list[dict[str, Any]] = []
        self.failures: list[str] = []
        self._take = take
        mapping = {
            "FunctionName": "taker",
            "EventSourceArn": STREAM,
            "FunctionResponseTypes": ["ReportBatchItemFailures"],
            "DestinationConfig": {"OnFailure": {"Destination": DLQ}},
        }
        self.sources = StreamSources(
            [read_mapping(mapping | properties)],
            clock=Clock(scale),
            invoke=self._invoke,
            send=self._send,
            on_failure=lambda function, text: self.failures.append(f"{function}: {text}"),
        )

    def feed(self, *records: dict[str, Any]) -> "World":
        """Put records into the stream before the start, so that they arrive in one batch."""
        for each in records:
            self.sources.on_record(STREAM, each)
        self.sources.start()
        return self

    def _invoke(self, function: str, payload: bytes) -> InvocationResult:
        numbers = [int(each["dynamodb"]["SequenceNumber"]) for each in json.loads(payload)["Records"]]
        self.batches.append(numbers)
        return self._take(numbers)

    def _send(self, arn: str, body: str) -> None:
        assert arn == DLQ
        self.sent.append(json.loads(body))


Make = Callable[..., World]


@pytest.fixture
def world() -> Iterator[Make]:
    made: list[World] = []

    def make(take: Callable[[list[int]], InvocationResult], scale: float = 1000, **properties: Any) -> World:
        made.append(World(take, scale, **properties))
        return made[-1]

    yield make
    for each in made:
        each.sources.stop()


def test_records_come_in_order_in_batches_of_the_size_asked_for(world: Make) -> None:
    taker = world(lambda _: answer(), BatchSize=2).feed(*(record(number) for number in range(5)))
    wait_until(lambda: len(taker.batches) == 3)
    assert taker.batches == [[0, 1], [2, 3], [4]]


def test_records_that_no_filter_matches_are_left_out(world: Make) -> None:
    filters = {"Filters": [{"Pattern": '{"eventName": ["INSERT"]}'}, {"Pattern": '{"eventID": ["event-3"]}'}]}
    taker = world(lambda _: answer(), FilterCriteria=filters)
    taker.feed(record(1), record(2, "INSERT"), record(3), record(4, "REMOVE"))
    wait_until(lambda: taker.batches)
    assert taker.batches == [[2, 3]]


def test_a_record_of_another_stream_is_not_taken(world: Make) -> None:
    taker = world(lambda _: answer())
    taker.sources.on_record("arn:another", record(1))
    taker.feed(record(2))
    wait_until(lambda: taker.batches)
    assert taker.batches == [[2]]


def test_a_partial_failure_is_retried_from_the_lowest_failed_record(world: Make) -> None:
    answers = iter([answer(4, 2), answer()])
    taker = world(lambda _: next(answers)).feed(*(record(number) for number in range(1, 6)))
    wait_until(lambda: len(taker.batches) == 2)
    assert taker.batches == [[1, 2, 3, 4, 5], [2, 3, 4, 5]]


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
def test_an_invalid_response_is_a_failure_of_the_whole_batch(world: Make, payload: bytes) -> None:
    answers = iter([InvocationResult(payload, None, 0.01), answer()])
    taker = world(lambda _: next(answers)).feed(record(1), record(2))
    wait_until(lambda: len(taker.batches) == 2)
    assert taker.batches == [[1, 2], [1, 2]]


@pytest.mark.parametrize("payload", [b"null", b"{}", b'{"batchItemFailures": null}', b'{"batchItemFailures": []}'])
def test_a_response_without_failures_is_a_success(world: Make, payload: bytes) -> None:
    taker = world(lambda _: InvocationResult(payload, None, 0.01), BatchSize=1).feed(record(1), record(2))
    wait_until(lambda: len(taker.batches) == 2)
    assert taker.batches == [[1], [2]]


def test_a_function_that_cannot_be_invoked_gets_the_records_again(world: Make) -> None:
    errors = iter([RuntimeError("gone")])

    def take(_: list[int]) -> InvocationResult:
        for error in errors:
            raise error
        return answer()

    taker = world(take).feed(record(1))
    wait_until(lambda: len(taker.batches) == 2)
    assert taker.failures == ["taker: RuntimeError: gone; 1 records, next attempt in 0.0 s"]


def poisoned(*poison: int) -> Callable[[list[int]], InvocationResult]:
    return lambda numbers: ERROR if set(numbers) & set(poison) else answer()


def test_bisecting_isolates_the_failing_record_and_the_others_are_handled(world: Make) -> None:
    taker = world(poisoned(3), BisectBatchOnFunctionError=True, MaximumRetryAttempts=1)
    taker.feed(*(record(number) for number in range(1, 6)))
    wait_until(lambda: [4, 5] in taker.batches)
    (pointer,) = taker.sent
    assert pointer["requestContext"]["condition"] == "RetryAttemptsExhausted"
    where = pointer["DDBStreamBatchInfo"]
    assert (where["startSequenceNumber"], where["endSequenceNumber"], where["batchSize"]) == ("3", "3", 1)
    assert where["streamArn"] == STREAM
    assert "SequenceNumber" not in json.dumps(pointer["requestContext"])


def test_without_bisecting_the_whole_batch_is_discarded(world: Make) -> None:
    taker = world(poisoned(3), MaximumRetryAttempts=2).feed(*(record(number) for number in range(1, 6)))
    wait_until(lambda: taker.sent)
    assert taker.batches == [[1, 2, 3, 4, 5]] * 3
    assert taker.sent[0]["DDBStreamBatchInfo"]["batchSize"] == 5


def test_an_expired_record_is_discarded_and_a_newer_one_is_not(world: Make) -> None:
    answers = iter([ERROR, answer()])
    taker = world(lambda _: next(answers), scale=1, MaximumRecordAgeInSeconds=60)
    taker.feed(record(1, age=100), record(2, age=0))
    wait_until(lambda: len(taker.batches) == 2)
    assert taker.batches == [[1, 2], [2]]
    (pointer,) = taker.sent
    assert pointer["requestContext"]["condition"] == "RecordAgeExceeded"
    assert pointer["DDBStreamBatchInfo"]["endSequenceNumber"] == "1"


def test_lost_records_are_reported(world: Make) -> None:
    taker = world(poisoned(1), MaximumRetryAttempts=0, DestinationConfig={}).feed(record(1))
    wait_until(lambda: taker.failures)
    assert taker.failures == [
        "taker: 1 records discarded, RetryAttemptsExhausted; lost, there is no failure destination"
    ]


@settings(max_examples=25, deadline=None)
@given(st.sets(st.integers(0, 11)), st.booleans())
def test_whatever_fails_good_records_are_handled_in_order_and_bad_ones_end_in_the_queue(
    poison: set[int], bisect: bool
) -> None:
    handled: list[int] = []

    def take(numbers: list[int]) -> InvocationResult:
        bad = [number for number in numbers if number in poison]
        if bad and bisect:
            return ERROR
        handled.extend(number for number in numbers if not bad or number < bad[0])
        return answer(*bad[:1])

    # Without bisecting, a bad record fails its whole batch, so the batch size is 1
    size = 5 if bisect else 1
    taker = World(take, 100_000, BisectBatchOnFunctionError=bisect, MaximumRetryAttempts=0, BatchSize=size)
    taker.feed(*(record(number) for number in range(12)))
    wait_until(lambda: len(handled) + len(taker.sent) == 12)
    taker.sources.stop()
    assert handled == [number for number in range(12) if number not in poison]
    assert sorted(int(pointer["DDBStreamBatchInfo"]["startSequenceNumber"]) for pointer in taker.sent) == sorted(poison)
