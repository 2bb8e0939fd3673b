"""Asynchronous invocations of functions: the queue, its retries, and the destinations of the events."""

import json
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from localaws.delivery import AGE, ATTEMPTS, Scheduler
from localaws.lambda_runtime import FunctionConfig, InvocationResult, Runtime, Throttled, timestamp
from localaws.targets import Targets

RETRY_PAUSES = (60.0, 120.0)
"""Seconds before the first and second retry of a function error. Throttled events are retried after 1 s to 5 min
(Lambda developer guide, "How Lambda handles errors and retries with asynchronous invocation")."""
LONGEST_THROTTLE_PAUSE = 300.0
MAX_ERROR_MESSAGE = 1024  # characters of the attribute ErrorMessage in a function's dead-letter queue (developer guide)


@dataclass(frozen=True)
class InvokeConfig:
    """A function's EventInvokeConfig. The defaults are Lambda's.

    Args:
        retries: maximum retries of function errors.
        maximum_age: maximum age of an event, in seconds.
        on_success, on_failure: ARN of the destination of invocation records, or None.
    """

    retries: int = 2
    maximum_age: float = 21_600.0
    on_success: str | None = None
    on_failure: str | None = None

    @classmethod
    def of(cls, properties: Mapping[str, Any]) -> "InvokeConfig":
        """Returns the configuration from the properties of an AWS::Lambda::EventInvokeConfig."""
        destinations = properties.get("DestinationConfig", {})
        return cls(
            int(properties.get(ATTEMPTS, cls.retries)),
            float(properties.get(AGE, cls.maximum_age)),
            *(destinations.get(outcome, {}).get("Destination") for outcome in ("OnSuccess", "OnFailure")),
        )


@dataclass
class _Event:
    """An event in the queue of a function. `arn` may name a version or an alias."""

    function: FunctionConfig
    arn: str
    payload: bytes
    trace_id: str | None
    request_id: str
    accepted: float = field(default_factory=time.time)
    invocations: int = 0
    throttles: int = 0


@dataclass(frozen=True)
class AsynchronousInvocations:
    """Lambda's queue for asynchronous invocations of each function.

    Args:
        configs: by function name; a missing function has Lambda's defaults.
        on_result: called with the function, the payload and the result of each invocation.
        on_failure: called with the function and one line about a failed event and its next step.
    """

    scheduler: Scheduler
    runtime: Runtime
    configs: Mapping[str, InvokeConfig]
    targets: Targets
    on_result: Callable[[str, bytes, InvocationResult], None]
    on_failure: Callable[[str, str], None]

    def accept(self, function: str, payload: bytes, trace_id: str | None = None, request_id: str = "") -> None:
        """Put an event into the queue of a function, given by its name or ARN, and return. Raises UnknownFunction."""
        config = self.runtime.config(function)
        arn = function if function.startswith("arn:") else config.arn
        event = _Event(config, arn, payload, trace_id, request_id or str(uuid.uuid4()))
        if config.reserved_concurrency == 0:
            self._discard(event, "ZeroReservedConcurrency", None)
        else:
            self._run(event)

    def _run(self, event: _Event) -> None:
        settle = partial(self._settle, event)
        self.runtime.invoke_async(event.arn, event.payload, settle, event.trace_id, event.request_id)

    def _settle(self, event: _Event, result: InvocationResult | Throttled) -> None:
        if isinstance(result, Throttled):
            event.throttles += 1
            pause = min(2.0 ** (event.throttles - 1), LONGEST_THROTTLE_PAUSE)
            self._retry(event, pause, "throttled", None)
            return
        self.on_result(event.function.name, event.payload, result)
        event.invocations += 1
        if result.function_error is None:
            self._report_success(event, result)
        elif event.invocations > self._config(event).retries:
            self._discard(event, "RetriesExhausted", result)
        else:
            self._retry(event, RETRY_PAUSES[event.invocations - 1], "failed", result)

    def _retry(self, event: _Event, pause: float, why: str, result: InvocationResult | None) -> None:
        if self.scheduler.clock.since(event.accepted) + pause > self._config(event).maximum_age:
            self._discard(event, "EventAgeExceeded", result)
            return
        seconds = self.scheduler.clock.real_seconds(pause)
        self.on_failure(event.function.name, f"event {why}, next attempt in {seconds:.1f} s")
        self.scheduler.after(pause, lambda: self._run(event))

    def _report_success(self, event: _Event, result: InvocationResult) -> None:
        if destination := self._config(event).on_success:
            try:
                self.targets.send(destination, _invocation_record(event, "Success", result))
            except Exception as error:  # the event was handled; only the record is lost
                text = f"record of a success lost, could not be sent to {destination}: {error}"
                self.on_failure(event.function.name, text)

    def _discard(self, event: _Event, condition: str, result: InvocationResult | None) -> None:
        """Sends the invocation record to OnFailure, and the event to the function's dead-letter queue."""
        what, report = f"event discarded, {condition}", partial(self.on_failure, event.function.name)
        on_failure, dead_letters = self._config(event).on_failure, event.function.dead_letters
        if on_failure or not dead_letters:
            record = _invocation_record(event, condition, result)
            self.targets.send_to_failure_destination(what, on_failure, record, report=report)
        if dead_letters:
            reason = "Rate Exceeded." if result is None else str(json.loads(result.payload).get("errorMessage", ""))
            attributes = {"RequestID": event.request_id, "ErrorCode": 429 if result is None else 200}
            if reason:  # SQS refuses empty values
                attributes["ErrorMessage"] = reason[:MAX_ERROR_MESSAGE]
            body = event.payload.decode()
            self.targets.send_to_failure_destination(what, dead_letters, body, attributes, report=report)

    def _config(self, event: _Event) -> InvokeConfig:
        return self.configs.get(event.function.name, InvokeConfig())


def _invocation_record(event: _Event, condition: str, result: InvocationResult | None) -> str:
    """Returns the record for a destination (Lambda developer guide, "Capturing records of Lambda asynchronous
    invocations").
    """
    record: dict[str, Any] = {
        "version": "1.0",
        "timestamp": timestamp(),
        "requestContext": {
            "requestId": event.request_id,
            "functionArn": event.arn if event.arn != event.function.arn else f"{event.arn}:$LATEST",
            "condition": condition,
            "approximateInvokeCount": event.invocations,
        },
        "requestPayload": json.loads(event.payload),
    }
    if result is not None:
        record["responseContext"] = {"statusCode": 200, "executedVersion": "$LATEST"}
        if result.function_error:
            record["responseContext"]["functionError"] = result.function_error
        record["responsePayload"] = json.loads(result.payload)
    return json.dumps(record)
