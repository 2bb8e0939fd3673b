"""Failed deliveries: retries, maximum age and failure destination."""

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from localaws.async_invocations import AsynchronousInvocations, InvokeConfig
from localaws.delivery import (
    Clock,
    GivenUp,
    RetryPolicy,
    Scheduler,
    Undelivered,
    deliver,
)
from localaws.lambda_runtime import FunctionConfig, InvocationResult, Throttled
from localaws.tests.support import PATIENCE, wait_until

ARN = "arn:aws:lambda:us-east-1:123456789012:function:taker"
DLQ = "arn:aws:sqs:us-east-1:123456789012:dlq"
OK = InvocationResult(b"null", None, 0.01)
FAILED = InvocationResult(b'{"errorMessage": "no", "errorType": "ValueError"}', "Unhandled", 0.01)
THROTTLED = Throttled("busy")


@pytest.fixture
def failures() -> list[str]:
    return []


@pytest.fixture
def scheduler(failures: list[str]) -> Iterator[Scheduler]:
    """A scheduler that is a thousand times as fast as real time."""
    running = Scheduler(Clock(1000), failures.append)
    running.start()
    yield running
    running.stop()


def test_actions_run_when_they_are_due_and_not_in_the_order_they_were_given(scheduler: Scheduler) -> None:
    done: list[str] = []
    scheduler.after(100, lambda: done.append("later"))
    scheduler.after(10, lambda: done.append("sooner"))
    wait_until(lambda: len(done) == 2)
    assert done == ["sooner", "later"]


def test_the_error_of_an_action_is_reported_and_the_next_action_runs(scheduler: Scheduler, failures: list[str]) -> None:
    done = threading.Event()

    def fail() -> None:
        raise ValueError("broken")

    scheduler.after(0, fail)
    scheduler.after(1, done.set)
    assert done.wait(PATIENCE)
    assert failures == ["ValueError: broken"]


def undelivered(*, retriable: bool = True) -> Undelivered:
    return Undelivered("THROTTLING", "slow down", retriable=retriable)


def attempts(errors: list[Undelivered | None]) -> Callable[[], None]:
    """Attempts with the given results in order. The last result is repeated."""
    left = iter(errors)
    last: list[Undelivered | None] = [None]

    def attempt() -> None:
        last[0] = next(left, last[0])
        if last[0] is not None:
            raise last[0]

    return attempt


def test_a_delivery_is_retried_until_it_succeeds(scheduler: Scheduler) -> None:
    done = threading.Event()
    given_up: list[GivenUp] = []
    left = iter([undelivered(), undelivered()])

    def attempt() -> None:
        error = next(left, None)
        if error:
            raise error
        done.set()

    deliver(scheduler, attempt, RetryPolicy(retries=2), given_up.append)
    assert done.wait(PATIENCE)
    assert given_up == []


@pytest.mark.parametrize(
    ("policy", "condition", "retries"),
    [
        (RetryPolicy(retries=0), "MaximumRetryAttempts", 0),
        (RetryPolicy(retries=3), "MaximumRetryAttempts", 3),
        (RetryPolicy(maximum_age=0), "MaximumEventAgeInSeconds", 0),
    ],
)
def test_a_delivery_ends_at_the_limits_of_its_policy(
    scheduler: Scheduler, policy: RetryPolicy, condition: str, retries: int
) -> None:
    given_up: list[GivenUp] = []
    deliver(scheduler, attempts([undelivered()]), policy, given_up.append)
    wait_until(lambda: given_up)
    assert (given_up[0].condition, given_up[0].retries) == (condition, retries)


def test_a_non_retriable_error_is_not_retried(scheduler: Scheduler) -> None:
    given_up: list[GivenUp] = []
    deliver(scheduler, attempts([undelivered(retriable=False)]), RetryPolicy(), given_up.append)
    assert [(end.condition, end.retries) for end in given_up] == [(None, 0)]


def test_a_requested_pause_beyond_the_maximum_age_ends_the_delivery(scheduler: Scheduler) -> None:
    given_up: list[GivenUp] = []
    busy = Undelivered("SDK_CLIENT_ERROR", "it answered 503", retriable=True, pause=100)
    deliver(scheduler, attempts([busy]), RetryPolicy(maximum_age=60), given_up.append)
    assert [(end.condition, end.retries) for end in given_up] == [("MaximumEventAgeInSeconds", 0)]


def test_a_policy_has_eventbridges_defaults() -> None:
    assert RetryPolicy.of({}) == RetryPolicy(185, 86_400)
    assert RetryPolicy.of({"MaximumRetryAttempts": "2", "MaximumEventAgeInSeconds": 60}) == RetryPolicy(2, 60)


# ----------------------------------------------------------------------------------- asynchronous invocations


class Lambda:
    """A function with the given invocation results. Records what happens to its events."""

    def __init__(self, scheduler: Scheduler, results: list[InvocationResult | Throttled], config: InvokeConfig) -> None:
        self.calls = 0
        self.shown: list[InvocationResult] = []
        self.failures: list[str] = []
        self.sent: list[tuple[str, dict[str, Any]]] = []
        self.destination_is_gone = False
        self._results = results
        self.queue = AsynchronousInvocations(
            scheduler,
            configs={"taker": config},
            invoke=self._invoke,
            send=self._send,
            on_result=lambda _name, _payload, result: self.shown.append(result),
            on_failure=lambda name, text: self.failures.append(f"{name}: {text}"),
        )

    def accept(self, reserved_concurrency: int | None = None) -> None:
        function = FunctionConfig("taker", ARN, "m.handler", 3, 128, Path("/"), (), {}, reserved_concurrency)
        self.queue.accept(function, b'{"order": 1}')

    def _invoke(self, arn: str, payload: bytes, on_done: Callable[[Any], None], trace_id: str | None) -> None:
        assert (arn, payload) == (ARN, b'{"order": 1}')
        result = self._results[min(self.calls, len(self._results) - 1)]
        self.calls += 1
        on_done(result)

    def _send(self, arn: str, body: str) -> None:
        if self.destination_is_gone:
            raise LookupError("no such queue")
        self.sent.append((arn, json.loads(body)))


def test_a_handled_event_is_not_invoked_again(scheduler: Scheduler) -> None:
    taker = Lambda(scheduler, [OK], InvokeConfig(on_failure=DLQ))
    taker.accept()
    assert (taker.calls, taker.shown, taker.sent, taker.failures) == (1, [OK], [], [])


def test_a_function_error_is_retried_twice_and_then_sent_to_the_destination(scheduler: Scheduler) -> None:
    taker = Lambda(scheduler, [FAILED], InvokeConfig(on_failure=DLQ))
    taker.accept()
    wait_until(lambda: taker.sent)
    ((arn, record),) = taker.sent
    assert (arn, taker.calls) == (DLQ, 3)
    context = record["requestContext"]
    assert (context["condition"], context["approximateInvokeCount"]) == ("RetriesExhausted", 3)
    assert context["functionArn"] == f"{ARN}:$LATEST"
    assert record["requestPayload"] == {"order": 1}
    assert record["responseContext"]["functionError"] == "Unhandled"
    assert record["responsePayload"]["errorType"] == "ValueError"


def test_a_successful_retry_ends_the_retries(scheduler: Scheduler) -> None:
    taker = Lambda(scheduler, [FAILED, OK], InvokeConfig(on_failure=DLQ))
    taker.accept()
    wait_until(lambda: taker.calls == 2)
    assert taker.sent == []


def test_without_retries_the_first_failure_is_final(scheduler: Scheduler) -> None:
    taker = Lambda(scheduler, [FAILED], InvokeConfig(retries=0, on_failure=DLQ))
    taker.accept()
    assert taker.sent[0][1]["requestContext"]["approximateInvokeCount"] == 1


class PassingClock(Clock):
    """A clock that only waits advance, so that a test does not depend on the speed of the machine."""

    passed = 0.0

    def since(self, moment: float) -> float:
        return self.passed


class PassingScheduler(Scheduler):
    """Runs each action immediately, and advances its clock by the delay."""

    def __init__(self) -> None:
        self.passing = PassingClock()
        super().__init__(self.passing, print)

    def after(self, seconds: float, action: Callable[[], None]) -> None:
        self.passing.passed += seconds
        action()


def test_throttles_do_not_count_as_attempts_and_are_retried_until_the_maximum_age() -> None:
    scheduler = PassingScheduler()
    taker = Lambda(scheduler, [THROTTLED], InvokeConfig(maximum_age=60, on_failure=DLQ))
    taker.accept()
    assert scheduler.passing.passed <= 60
    context = taker.sent[0][1]["requestContext"]
    assert (context["condition"], context["approximateInvokeCount"]) == ("EventAgeExceeded", 0)
    assert taker.calls > 3
    assert "responsePayload" not in taker.sent[0][1]


def test_a_throttled_event_is_handled_when_concurrency_is_available(scheduler: Scheduler) -> None:
    taker = Lambda(scheduler, [THROTTLED, THROTTLED, OK], InvokeConfig(on_failure=DLQ))
    taker.accept()
    wait_until(lambda: taker.shown)
    assert taker.sent == []


def test_a_function_error_is_not_retried_past_the_events_age(scheduler: Scheduler) -> None:
    taker = Lambda(scheduler, [FAILED], InvokeConfig(maximum_age=59, on_failure=DLQ))
    taker.accept()
    assert taker.sent[0][1]["requestContext"]["condition"] == "EventAgeExceeded"


def test_events_of_a_function_with_zero_concurrency_go_to_the_destination_immediately(scheduler: Scheduler) -> None:
    taker = Lambda(scheduler, [OK], InvokeConfig(on_failure=DLQ))
    taker.accept(reserved_concurrency=0)
    assert taker.calls == 0
    assert taker.sent[0][1]["requestContext"]["condition"] == "ZeroReservedConcurrency"


def test_a_lost_event_is_reported(scheduler: Scheduler) -> None:
    without = Lambda(scheduler, [FAILED], InvokeConfig(retries=0))
    without.accept()
    assert without.failures == ["taker: event discarded, RetriesExhausted; lost, there is no failure destination"]
    gone = Lambda(scheduler, [FAILED], InvokeConfig(retries=0, on_failure=DLQ))
    gone.destination_is_gone = True
    gone.accept()
    assert gone.failures == [
        f"taker: event discarded, RetriesExhausted; lost, could not be sent to {DLQ}: no such queue"
    ]


def test_a_config_has_lambdas_defaults() -> None:
    assert InvokeConfig.of({}) == InvokeConfig(2, 21_600, None)
    destination = {"OnFailure": {"Destination": DLQ}}
    given = {"MaximumRetryAttempts": 1, "MaximumEventAgeInSeconds": 60, "DestinationConfig": destination}
    assert InvokeConfig.of(given) == InvokeConfig(1, 60, DLQ)
