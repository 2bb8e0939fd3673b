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
    FailedDelivery,
    RetryPolicy,
    Scheduler,
    Undelivered,
    deliver,
)
from localaws.lambda_runtime import FunctionConfig, InvocationResult, Runtime, Throttled
from localaws.tests.support import PATIENCE, RecordingTargets, wait_until

ARN = "arn:aws:lambda:us-east-1:123456789012:function:seller"
DLQ = "arn:aws:sqs:us-east-1:123456789012:dlq"
TOPIC = "arn:aws:sns:us-east-1:123456789012:sold"
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
    failed: list[FailedDelivery] = []
    left = iter([undelivered(), undelivered()])

    def attempt() -> None:
        error = next(left, None)
        if error:
            raise error
        done.set()

    deliver(scheduler, attempt, RetryPolicy(retries=2), failed.append)
    assert done.wait(PATIENCE)
    assert failed == []


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
    failed: list[FailedDelivery] = []
    deliver(scheduler, attempts([undelivered()]), policy, failed.append)
    wait_until(lambda: failed)
    assert (failed[0].condition, failed[0].retries) == (condition, retries)


def test_a_non_retriable_error_is_not_retried(scheduler: Scheduler) -> None:
    failed: list[FailedDelivery] = []
    deliver(scheduler, attempts([undelivered(retriable=False)]), RetryPolicy(), failed.append)
    assert [(end.condition, end.retries) for end in failed] == [(None, 0)]


def test_a_requested_pause_beyond_the_maximum_age_ends_the_delivery(scheduler: Scheduler) -> None:
    failed: list[FailedDelivery] = []
    busy = Undelivered("SDK_CLIENT_ERROR", "it answered 503", retriable=True, pause=100)
    deliver(scheduler, attempts([busy]), RetryPolicy(maximum_age=60), failed.append)
    assert [(end.condition, end.retries) for end in failed] == [("MaximumEventAgeInSeconds", 0)]


def test_a_policy_has_eventbridges_defaults() -> None:
    assert RetryPolicy.of({}) == RetryPolicy(185, 86_400)
    assert RetryPolicy.of({"MaximumRetryAttempts": "2", "MaximumEventAgeInSeconds": 60}) == RetryPolicy(2, 60)


# ----------------------------------------------------------------------------------- asynchronous invocations


class Seller(Runtime):
    """A function with the given invocation results. Records what happens to its events."""

    def __init__(
        self,
        scheduler: Scheduler,
        results: list[InvocationResult | Throttled],
        config: InvokeConfig,
        **changes: Any,
    ) -> None:
        self.request_ids: list[str] = []
        self.shown: list[InvocationResult] = []
        self.failures: list[str] = []
        self.targets = RecordingTargets()
        self._results = results
        self._config = FunctionConfig("seller", ARN, "m.handler", 3, 128, Path("/"), (), {}, **changes)
        self.queue = AsynchronousInvocations(
            scheduler,
            self,
            configs={"seller": config},
            targets=self.targets,
            on_result=lambda _name, _payload, result: self.shown.append(result),
            on_failure=lambda name, text: self.failures.append(f"{name}: {text}"),
        )

    def accept(self, arn: str = "seller") -> None:
        self.queue.accept(arn, b'{"order": 1}', request_id="the-request")

    def config(self, function: str) -> FunctionConfig:
        return self._config

    def invoke_async(
        self,
        function: str,
        payload: bytes,
        on_done: Callable[[InvocationResult | Throttled], None],
        trace_id: str | None = None,
        request_id: str = "",
    ) -> None:
        assert payload == b'{"order": 1}'
        result = self._results[min(self.calls, len(self._results) - 1)]
        self.request_ids.append(request_id)
        on_done(result)

    @property
    def calls(self) -> int:
        return len(self.request_ids)

    @property
    def sent(self) -> list[tuple[str, dict[str, Any]]]:
        return [(arn, json.loads(body)) for arn, body, _ in self.targets.sent]


def test_a_handled_event_is_not_invoked_again(scheduler: Scheduler) -> None:
    seller = Seller(scheduler, [OK], InvokeConfig(on_failure=DLQ))
    seller.accept()
    assert (seller.calls, seller.shown, seller.sent, seller.failures) == (1, [OK], [], [])


def test_a_function_error_is_retried_twice_and_then_sent_to_the_destination(scheduler: Scheduler) -> None:
    seller = Seller(scheduler, [FAILED], InvokeConfig(on_failure=DLQ))
    seller.accept()
    wait_until(lambda: seller.sent)
    ((arn, record),) = seller.sent
    assert (arn, seller.calls) == (DLQ, 3)
    context = record["requestContext"]
    assert (context["condition"], context["approximateInvokeCount"]) == ("RetriesExhausted", 3)
    assert context["functionArn"] == f"{ARN}:$LATEST"
    assert record["requestPayload"] == {"order": 1}
    assert record["responseContext"]["functionError"] == "Unhandled"
    assert record["responsePayload"]["errorType"] == "ValueError"


def test_all_attempts_and_the_record_have_one_request_id(scheduler: Scheduler) -> None:
    seller = Seller(scheduler, [FAILED], InvokeConfig(on_failure=DLQ))
    seller.accept()
    wait_until(lambda: seller.sent)
    assert seller.request_ids == ["the-request"] * 3
    assert seller.sent[0][1]["requestContext"]["requestId"] == "the-request"


def test_a_success_is_sent_to_its_destination(scheduler: Scheduler) -> None:
    seller = Seller(scheduler, [OK], InvokeConfig(on_success=TOPIC, on_failure=DLQ))
    seller.accept(f"{ARN}:live")
    ((arn, record),) = seller.sent
    assert arn == TOPIC
    context = record["requestContext"]
    assert (context["condition"], context["approximateInvokeCount"]) == ("Success", 1)
    assert context["functionArn"] == f"{ARN}:live"
    assert record["responseContext"] == {"statusCode": 200, "executedVersion": "$LATEST"}
    assert record["responsePayload"] is None
    assert seller.failures == []


def test_a_lost_record_of_a_success_is_reported(scheduler: Scheduler) -> None:
    seller = Seller(scheduler, [OK], InvokeConfig(on_success=TOPIC))
    seller.targets.destination_is_gone = True
    seller.accept()
    assert seller.failures == [f"seller: record of a success lost, could not be sent to {TOPIC}: no such queue"]


def test_a_functions_dead_letter_queue_gets_the_event_with_the_error(scheduler: Scheduler) -> None:
    seller = Seller(scheduler, [FAILED], InvokeConfig(retries=0), dead_letters=DLQ)
    seller.accept()
    attributes = {"RequestID": "the-request", "ErrorCode": 200, "ErrorMessage": "no"}
    assert seller.targets.sent == [(DLQ, '{"order": 1}', attributes)]
    assert seller.failures == [f"seller: event discarded, RetriesExhausted; sent to {DLQ}"]


def test_a_dead_letter_queue_and_a_destination_both_get_a_throttled_event() -> None:
    seller = Seller(PassingScheduler(), [THROTTLED], InvokeConfig(maximum_age=60, on_failure=TOPIC), dead_letters=DLQ)
    seller.accept()
    (record_arn, _, _), (queue, body, attributes) = seller.targets.sent
    assert (record_arn, queue, body) == (TOPIC, DLQ, '{"order": 1}')
    assert attributes == {"RequestID": "the-request", "ErrorCode": 429, "ErrorMessage": "Rate Exceeded."}


def test_an_error_without_a_message_has_no_empty_attribute(scheduler: Scheduler) -> None:
    silent = InvocationResult(b'{"errorMessage": "", "errorType": "ValueError"}', "Unhandled", 0.01)
    seller = Seller(scheduler, [silent], InvokeConfig(retries=0), dead_letters=DLQ)
    seller.accept()
    assert seller.targets.sent[0][2] == {"RequestID": "the-request", "ErrorCode": 200}


def test_a_successful_retry_ends_the_retries(scheduler: Scheduler) -> None:
    seller = Seller(scheduler, [FAILED, OK], InvokeConfig(on_failure=DLQ))
    seller.accept()
    wait_until(lambda: seller.calls == 2)
    assert seller.sent == []


def test_without_retries_the_first_failure_is_final(scheduler: Scheduler) -> None:
    seller = Seller(scheduler, [FAILED], InvokeConfig(retries=0, on_failure=DLQ))
    seller.accept()
    assert seller.sent[0][1]["requestContext"]["approximateInvokeCount"] == 1


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
    seller = Seller(scheduler, [THROTTLED], InvokeConfig(maximum_age=60, on_failure=DLQ))
    seller.accept()
    assert scheduler.passing.passed <= 60
    context = seller.sent[0][1]["requestContext"]
    assert (context["condition"], context["approximateInvokeCount"]) == ("EventAgeExceeded", 0)
    assert seller.calls > 3
    assert "responsePayload" not in seller.sent[0][1]


def test_a_throttled_event_is_handled_when_concurrency_is_available(scheduler: Scheduler) -> None:
    seller = Seller(scheduler, [THROTTLED, THROTTLED, OK], InvokeConfig(on_failure=DLQ))
    seller.accept()
    wait_until(lambda: seller.shown)
    assert seller.sent == []


def test_a_function_error_is_not_retried_past_the_events_age(scheduler: Scheduler) -> None:
    seller = Seller(scheduler, [FAILED], InvokeConfig(maximum_age=59, on_failure=DLQ))
    seller.accept()
    assert seller.sent[0][1]["requestContext"]["condition"] == "EventAgeExceeded"


def test_events_of_a_function_with_zero_concurrency_go_to_the_destination_immediately(scheduler: Scheduler) -> None:
    seller = Seller(scheduler, [OK], InvokeConfig(on_failure=DLQ), reserved_concurrency=0)
    seller.accept()
    assert seller.calls == 0
    assert seller.sent[0][1]["requestContext"]["condition"] == "ZeroReservedConcurrency"


def test_a_lost_event_is_reported(scheduler: Scheduler) -> None:
    without = Seller(scheduler, [FAILED], InvokeConfig(retries=0))
    without.accept()
    assert without.failures == ["seller: event discarded, RetriesExhausted; lost, there is no failure destination"]
    gone = Seller(scheduler, [FAILED], InvokeConfig(retries=0, on_failure=DLQ))
    gone.targets.destination_is_gone = True
    gone.accept()
    assert gone.failures == [
        f"seller: event discarded, RetriesExhausted; lost, could not be sent to {DLQ}: no such queue"
    ]


def test_a_config_has_lambdas_defaults() -> None:
    assert InvokeConfig.of({}) == InvokeConfig(2, 21_600, None, None)
    destinations = {"OnFailure": {"Destination": DLQ}, "OnSuccess": {"Destination": TOPIC}}
    given = {"MaximumRetryAttempts": 1, "MaximumEventAgeInSeconds": 60, "DestinationConfig": destinations}
    assert InvokeConfig.of(given) == InvokeConfig(1, 60, on_success=TOPIC, on_failure=DLQ)
