"""Asynchronous invocations of functions: the queue, its retries, and the failure destination."""

import json
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from localaws.delivery import AGE, ATTEMPTS, Scheduler, put_aside
from localaws.lambda_runtime import FunctionConfig, InvocationResult, Throttled, timestamp

RETRY_PAUSES = (60.0, 120.0)
"""Seconds before the first and second retry of a function error. Throttled events are retried after 1 s to 5 min
(Lambda developer guide, "How Lambda handles errors and retries with asynchronous invocation")."""
LONGEST_THROTTLE_PAUSE = 300.0


@dataclass(frozen=True)
class InvokeConfig:
    """A function's EventInvokeConfig. The defaults are Lambda's.

    Args:
        retries: maximum retries of function errors.
        maximum_age: maximum age of an event, in seconds.
        on_failure: ARN of the destination, or None.
    """

    retries: int = 2
    maximum_age: float = 21_600.0
    on_failure: str | None = None

    @classmethod
    def of(cls, properties: Mapping[str, Any]) -> "InvokeConfig":
        """Returns the configuration from the properties of an AWS::Lambda::EventInvokeConfig."""
        destinations = properties.get("DestinationConfig", {})
        return cls(
            int(properties.get(ATTEMPTS, cls.retries)),
            float(properties.get(AGE, cls.maximum_age)),
            destinations.get("OnFailure", {}).get("Destination"),
        )


@dataclass
class _Event:
    """An event in the queue of a function."""

    function: FunctionConfig
    payload: bytes
    trace_id: str | None
    request_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    accepted: float = field(default_factory=time.time)
    invocations: int = 0
    throttles: int = 0


class AsynchronousInvocations:
    """Lambda's queue for asynchronous invocations of each function.

    Args:
        scheduler: runs the retries.
        configs: by function name; a missing function has Lambda's defaults.
        invoke: `Runtime.invoke_async`.
        send: sends a message to a destination, given by its ARN; it may raise.
        on_result: called with the function, the payload and the result of each invocation.
        on_failure: called with the function and one line about a failed event and its next step.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        *,
        configs: Mapping[str, InvokeConfig],
        invoke: Callable[[str, bytes, Callable[[InvocationResult | Throttled], None], str | None], None],
        send: Callable[[str, str], None],
        on_result: Callable[[str, bytes, InvocationResult], None],
        on_failure: Callable[[str, str], None],
    ) -> None:
        self._scheduler = scheduler
        self._configs = configs
        self._invoke = invoke
        self._send = send
        self._on_result = on_result
        self._on_failure = on_failure

    def accept(self, function: FunctionConfig, payload: bytes, trace_id: str | None = None) -> None:
        """Put an event into the queue and return."""
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
        self._on_result(event.function.name, event.payload, result)
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
        self._on_failure(
            event.function.name, f"event {why}, next attempt in {self._scheduler.clock.outside(pause):.1f} s"
        )
        self._scheduler.after(pause, lambda: self._run(event))

    def _give_up(self, event: _Event, condition: str, result: InvocationResult | None) -> None:
        def send(destination: str) -> None:
            self._send(destination, json.dumps(_invocation_record(event, condition, result)))

        put_aside(
            f"event discarded, {condition}",
            self._config(event).on_failure,
            send,
            partial(self._on_failure, event.function.name),
        )

    def _config(self, event: _Event) -> InvokeConfig:
        return self._configs.get(event.function.name, InvokeConfig())


def _invocation_record(event: _Event, condition: str, result: InvocationResult | None) -> dict[str, Any]:
    """Returns the record for a destination (Lambda developer guide, "Capturing records of Lambda asynchronous
    invocations").
    """
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
