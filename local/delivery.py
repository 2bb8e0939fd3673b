"""What becomes of a delivery that fails: attempts, age, pauses, a failure destination. For targets and invocations."""

import heapq
import itertools
import json
import random
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from local.runtime import FunctionConfig, InvocationResult, Throttled, timestamp

Action = Callable[[], None]


class Clock:
    """Time that runs `scale` times as fast as it does outside, for every wait alike."""

    def __init__(self, scale: float = 1.0) -> None:
        self.scale = scale

    def since(self, moment: float) -> float:
        """Seconds since a moment in seconds of the epoch, as they count here."""
        return (time.time() - moment) * self.scale

    def outside(self, seconds: float) -> float:
        """How long so many seconds last outside."""
        return seconds / self.scale


class Scheduler:
    """Runs actions after a while, one after the other, on a thread of its own; they must be short.

    Args:
        clock: what a second is.
        on_failure: is told, in a line, what an action raised.
    """

    def __init__(self, clock: Clock, on_failure: Callable[[str], None]) -> None:
        self.clock = clock
        self._on_failure = on_failure
        self._due: list[tuple[float, int, Action]] = []
        self._numbers = itertools.count()
        self._changed = threading.Condition()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="scheduler", daemon=True)

    def start(self) -> None:
        """Begin to run actions."""
        self._thread.start()

    def stop(self) -> None:
        """End; what is not due yet is given up."""
        with self._changed:
            self._stopped = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join()

    def after(self, seconds: float, action: Action) -> None:
        """Run an action in so many seconds of the clock."""
        with self._changed:
            due = time.monotonic() + self.clock.outside(seconds)
            heapq.heappush(self._due, (due, next(self._numbers), action))
            self._changed.notify()

    def _run(self) -> None:
        while action := self._next():
            try:
                action()
            except Exception as error:  # one delivery's trouble is not another's
                self._on_failure(f"{type(error).__name__}: {error}")

    def _next(self) -> Action | None:
        with self._changed:
            while not self._stopped:
                wait = self._due[0][0] - time.monotonic() if self._due else None
                if wait is not None and wait <= 0:
                    return heapq.heappop(self._due)[2]
                self._changed.wait(wait)
        return None


# ------------------------------------------------------------------------------------------ targets of rules

ATTEMPTS = "MaximumRetryAttempts"
AGE = "MaximumEventAgeInSeconds"


@dataclass(frozen=True)
class RetryPolicy:
    """How often and how long a target's delivery is tried again.

    The defaults are EventBridge's: 185 retries within 24 hours (EventBridge user guide, "How EventBridge retries
    delivering events").
    """

    retries: int = 185
    maximum_age: float = 86_400.0  # s

    @classmethod
    def of(cls, properties: Mapping[str, Any]) -> "RetryPolicy":
        """From a target's RetryPolicy."""
        return cls(int(properties.get(ATTEMPTS, cls.retries)), float(properties.get(AGE, cls.maximum_age)))


class Undelivered(Exception):
    """A target did not take an event.

    Args:
        code: as in the attribute ERROR_CODE.
        message: as in ERROR_MESSAGE.
        retriable: whether another attempt may succeed. A target that is gone, or lacks a permission, never does.
        pause: how many seconds the target asks to be left alone before that.
    """

    def __init__(self, code: str, message: str, *, retriable: bool, pause: float = 0.0) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.retriable = retriable
        self.pause = pause


@dataclass(frozen=True)
class GivenUp:
    """A delivery that failed for good: why, after how many retries, and which of the policy's limits ended it."""

    error: Undelivered
    retries: int
    condition: str | None

    @property
    def attributes(self) -> dict[str, str]:
        """What a message of a dead-letter queue says of it, in its attributes."""
        ended = {} if self.condition is None else {"EXHAUSTED_RETRY_CONDITION": self.condition}
        return {
            "ERROR_CODE": self.error.code,
            "ERROR_MESSAGE": self.error.message,
            "RETRY_ATTEMPTS": str(self.retries),
            **ended,
        }


def put_aside(
    what: str, destination: str | None, send: Callable[[str], None], on_failure: Callable[[str], None]
) -> None:
    """Send what was given up to its failure destination, and tell what became of it.

    Args:
        what: what was given up, and why, in a line.
        destination: the ARN of its DLQ or OnFailure destination; without one it is lost.
        send: sends it there; it may raise.
        on_failure: is told, in a line.
    """
    if destination is None:
        on_failure(f"{what}; lost, it has no failure destination")
        return
    try:
        send(destination)
    except Exception as error:  # in AWS too it is lost then; here somebody is told
        on_failure(f"{what}; lost, not sent to {destination}: {error}")
    else:
        on_failure(f"{what}; sent to {destination}")


def run_at_once(action: Action) -> None:
    """Run it here and now."""
    action()


def deliver(
    scheduler: Scheduler,
    attempt: Action,
    policy: RetryPolicy,
    on_given_up: Callable[[GivenUp], None],
    run: Callable[[Action], None] = run_at_once,
) -> None:
    """Try a delivery until it succeeds or the policy ends it.

    Args:
        scheduler: runs the retries.
        attempt: raises Undelivered if it fails.
        policy: the target's.
        on_given_up: called once, if it failed for good.
        run: runs each attempt, at once or on another thread.
    """
    begun = time.time()

    def go(retries: int) -> None:
        try:
            attempt()
        except Undelivered as error:
            pause = max(random.uniform(0.5, 1) * min(2.0**retries, 600), error.pause)  # noqa: S311 - jitter
            condition = None
            if error.retriable:
                condition = _limit(retries, scheduler.clock.since(begun) + pause, policy)
                if condition is None:
                    scheduler.after(pause, lambda: run(lambda: go(retries + 1)))
                    return
            on_given_up(GivenUp(error, retries, condition))

    run(lambda: go(0))


def _limit(retries: int, age: float, policy: RetryPolicy) -> str | None:
    if retries >= policy.retries:
        return ATTEMPTS
    return AGE if age > policy.maximum_age else None


# ----------------------------------------------------------------------------------- asynchronous invocations

RETRY_PAUSES = (60.0, 120.0)
"""Seconds before the first and the second retry of a function error; throttles are tried again from 1 s to 5 min
(Lambda developer guide, "How Lambda handles errors and retries with asynchronous invocation")."""
LONGEST_THROTTLE_PAUSE = 300.0


@dataclass(frozen=True)
class InvokeConfig:
    """A function's EventInvokeConfig; the defaults are Lambda's.

    Args:
        retries: of function errors.
        maximum_age: of an event, in seconds.
        on_failure: the ARN of the destination, or None.
    """

    retries: int = 2
    maximum_age: float = 21_600.0
    on_failure: str | None = None

    @classmethod
    def of(cls, properties: Mapping[str, Any]) -> "InvokeConfig":
        """From an AWS::Lambda::EventInvokeConfig."""
        destinations = properties.get("DestinationConfig", {})
        return cls(
            int(properties.get(ATTEMPTS, cls.retries)),
            float(properties.get(AGE, cls.maximum_age)),
            destinations.get("OnFailure", {}).get("Destination"),
        )


@dataclass
class _Event:
    """An event in a function's queue."""

    function: FunctionConfig
    payload: bytes
    trace_id: str | None
    request_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    accepted: float = field(default_factory=time.time)
    invocations: int = 0
    throttles: int = 0


class AsynchronousInvocations:
    """Lambda's queue of events in front of each function.

    Args:
        scheduler: runs the retries.
        configs: by function name; a function without one has Lambda's defaults.
        invoke: `Runtime.invoke_async`.
        send: hands a message to a destination by its ARN; it may raise.
        on_result: is shown each invocation's result.
        on_failure: is told the function, and in a line what becomes of a failed event.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        *,
        configs: Mapping[str, InvokeConfig],
        invoke: Callable[[str, bytes, Callable[[InvocationResult | Throttled], None], str | None], None],
        send: Callable[[str, str], None],
        on_result: Callable[[str, InvocationResult], None],
        on_failure: Callable[[str, str], None],
    ) -> None:
        self._scheduler = scheduler
        self._configs = configs
        self._invoke = invoke
        self._send = send
        self._on_result = on_result
        self._on_failure = on_failure

    def accept(self, function: FunctionConfig, payload: bytes, trace_id: str | None = None) -> None:
        """Take an event in; returns at once."""
        event = _Event(function, payload, trace_id)
        if function.reserved_concurrency == 0:
            self._give_up(event, "ZeroReservedConcurrency", None)
        else:
            self._run(event)

    def _run(self, event: _Event) -> None:
        self._invoke(event.function.arn, event.payload, lambda result: self._settle(event, result), event.trace_id)

    def _settle(self, event: _Event, result: InvocationResult | Throttled) -> None:
        if isinstance(result, Throttled):
            event.throttles += 1
            pause = min(2.0 ** (event.throttles - 1), LONGEST_THROTTLE_PAUSE)
            self._again(event, pause, "throttled", None)
            return
        self._on_result(event.function.name, result)
        event.invocations += 1
        if result.function_error is None:
            return
        if event.invocations > self._config(event).retries:
            self._give_up(event, "RetriesExhausted", result)
        else:
            self._again(event, RETRY_PAUSES[event.invocations - 1], "failed", result)

    def _again(self, event: _Event, pause: float, why: str, result: InvocationResult | None) -> None:
        if self._scheduler.clock.since(event.accepted) + pause > self._config(event).maximum_age:
            self._give_up(event, "EventAgeExceeded", result)
            return
        self._on_failure(event.function.name, f"event {why}, again in {self._scheduler.clock.outside(pause):.1f} s")
        self._scheduler.after(pause, lambda: self._run(event))

    def _give_up(self, event: _Event, condition: str, result: InvocationResult | None) -> None:
        def send(destination: str) -> None:
            self._send(destination, json.dumps(_invocation_record(event, condition, result)))

        put_aside(
            f"event given up, {condition}",
            self._config(event).on_failure,
            send,
            partial(self._on_failure, event.function.name),
        )

    def _config(self, event: _Event) -> InvokeConfig:
        return self._configs.get(event.function.name, InvokeConfig())


def _invocation_record(event: _Event, condition: str, result: InvocationResult | None) -> dict[str, Any]:
    """What a destination gets (Lambda developer guide, "Capturing records of Lambda asynchronous invocations")."""
    record: dict[str, Any] = {
        "version": "1.0",
        "timestamp": timestamp(),
        "requestContext": {
            "requestId": event.request_id,
            "functionArn": f"{event.function.arn}:$LATEST",
            "condition": condition,
            "approximateInvokeCount": event.invocations,
        },
        "requestPayload": json.loads(event.payload),
    }
    if result is not None:
        record["responseContext"] = {
            "statusCode": 200,
            "executedVersion": "$LATEST",
            "functionError": result.function_error,
        }
        record["responsePayload"] = json.loads(result.payload)
    return record
