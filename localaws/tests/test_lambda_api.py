"""Lambda's Invoke API: request IDs, payloads, qualifiers, errors, logs and asynchronous invocations."""

import base64
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from localaws.async_invocations import AsynchronousInvocations, InvokeConfig
from localaws.delivery import Clock, Scheduler
from localaws.lambda_api import InvokeApi
from localaws.lambda_runtime import FunctionConfig, InvocationResult, Runtime
from localaws.tests.support import RecordingTargets, wait_until

ARN = "arn:aws:lambda:us-east-1:123456789012:function:"
DLQ = "arn:aws:sqs:us-east-1:123456789012:dlq"


class Functions:
    """A running runtime with its API."""

    def __init__(self) -> None:
        self.results: list[tuple[str, InvocationResult]] = []
        self.targets = RecordingTargets()
        self.scheduler = Scheduler(Clock(1000), print)
        code = Path(__file__).with_name("handlers")
        self.runtime = Runtime(
            [
                FunctionConfig(name, ARN + name, f"plain.{name}", 10, 256, code, (), {})
                for name in ("echo", "describe", "fail", "client_context")
            ],
            environment={},
            on_log=lambda _name, _line: None,
        )
        asynchronous = AsynchronousInvocations(
            self.scheduler,
            self.runtime,
            configs=dict.fromkeys(["describe", "fail"], InvokeConfig(0, on_success=DLQ, on_failure=DLQ)),
            targets=self.targets,
            on_result=lambda *_: None,
            on_failure=lambda _name, _text: None,
        )
        self._api = InvokeApi(self.runtime, asynchronous, {f"{ARN}echo:live"}, self._on_result)

    def invoke(
        self, function: str, payload: bytes = b"{}", qualifier: str | None = None, **headers: str
    ) -> tuple[int, Mapping[str, str], Any]:
        """Header names have `_` for `-`."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        status, answered, body = self._api.answer(function, qualifier, named, payload)
        return status, answered, json.loads(body) if body else None

    def _on_result(self, function: str, _payload: bytes, result: InvocationResult) -> None:
        self.results.append((function, result))


@pytest.fixture(scope="module")
def functions() -> Iterator[Functions]:
    made = Functions()
    made.scheduler.start()
    yield made
    made.runtime.stop()
    made.scheduler.stop()


def test_an_invocation_has_one_request_id_in_the_answer_and_in_the_context(functions: Functions) -> None:
    status, headers, body = functions.invoke("describe")

    assert (status, headers["x-amz-executed-version"]) == (200, "$LATEST")
    assert body["context"]["aws_request_id"] == headers["x-amzn-requestid"]
    assert body["context"]["client_context"] is None
    assert functions.results[-1][0] == f"{ARN}describe"


def test_an_event_has_one_request_id_in_the_answer_in_the_context_and_in_the_record(functions: Functions) -> None:
    status, headers, body = functions.invoke("describe", X_Amz_Invocation_Type="Event")
    wait_until(lambda: functions.targets.sent)

    record = json.loads(functions.targets.sent.pop()[1])
    assert (status, body) == (202, None)
    assert record["requestContext"]["requestId"] == headers["x-amzn-requestid"]
    assert record["responsePayload"]["context"]["aws_request_id"] == headers["x-amzn-requestid"]


def test_no_payload_is_an_empty_object(functions: Functions) -> None:
    assert functions.invoke("echo", b"")[2] == {}


def test_the_trace_header_of_the_call_reaches_the_function(functions: Functions) -> None:
    trace = "Root=1-67a1b2c3-0123456789abcdef01234567;Parent=0123456789abcdef;Sampled=1"
    _, _, body = functions.invoke("describe", X_Amzn_Trace_Id=trace)
    assert body["environment"]["_X_AMZN_TRACE_ID"] == trace


@pytest.mark.parametrize(("function", "qualifier"), [("echo:live", None), ("echo", "live"), ("echo", "$LATEST")])
def test_a_function_is_invoked_by_a_version_or_alias(
    functions: Functions, function: str, qualifier: str | None
) -> None:
    status, _, body = functions.invoke(function, b'{"n": 1}', qualifier)
    assert (status, body) == (200, {"n": 1})


def refused(answer: tuple[int, Mapping[str, str], Any]) -> tuple[int, str, str]:
    """Returns the status, code and message of an error."""
    status, headers, body = answer
    return status, headers["x-amzn-errortype"], body["message"]


@pytest.mark.parametrize(
    ("function", "qualifier", "missing"),
    [("nobody", None, "nobody"), ("echo", "test", "echo:test"), (f"{ARN}echo:test", None, "echo:test")],
)
def test_a_missing_function_version_or_alias_is_not_found(
    functions: Functions, function: str, qualifier: str | None, missing: str
) -> None:
    answer = functions.invoke(function, b"{}", qualifier)
    assert refused(answer) == (404, "ResourceNotFoundException", f"Function not found: {ARN}{missing}")


@pytest.mark.parametrize("payload", [b"{nope", b"n\x87r\x9e"])
@pytest.mark.parametrize("kind", ["RequestResponse", "Event", "DryRun"])
def test_a_payload_that_is_not_json_is_invalid(functions: Functions, payload: bytes, kind: str) -> None:
    status, code, message = refused(functions.invoke("echo", payload, X_Amz_Invocation_Type=kind))
    assert (status, code) == (400, "InvalidRequestContentException")
    assert message.startswith("Could not parse request body into json: ")


@pytest.mark.parametrize(("kind", "limit"), [("RequestResponse", 6_291_456), ("Event", 1_048_576)])
def test_a_payload_beyond_the_limit_is_too_large(functions: Functions, kind: str, limit: int) -> None:
    status, code, message = refused(functions.invoke("echo", b"1" * (limit + 1), X_Amz_Invocation_Type=kind))
    assert (status, code) == (413, "RequestEntityTooLargeException")
    assert f"limit {limit} bytes" in message


def test_a_throttled_invocation_names_the_reason(functions: Functions) -> None:
    functions.runtime.reserve("echo", 0)
    status, headers, body = functions.invoke("echo")
    functions.runtime.reserve("echo", None)

    assert (status, headers["x-amzn-errortype"], body["message"]) == (429, "TooManyRequestsException", "Rate Exceeded.")
    assert body["Reason"] == "ReservedFunctionConcurrentInvocationLimitExceeded"


def test_an_error_of_the_function_is_a_header(functions: Functions) -> None:
    status, headers, body = functions.invoke("fail", b'{"thing": 1}')
    assert (status, headers["x-amz-function-error"], body["errorType"]) == (200, "Unhandled", "LookupError")


def test_a_dry_run_invokes_nothing(functions: Functions) -> None:
    before = len(functions.results)
    status, _, body = functions.invoke("echo", X_Amz_Invocation_Type="DryRun")
    assert (status, body, len(functions.results)) == (204, None, before)


def test_the_log_of_an_invocation_is_returned_on_request(functions: Functions) -> None:
    _, without, _ = functions.invoke("echo")
    _, headers, _ = functions.invoke("echo", X_Amz_Log_Type="Tail")

    first, *_, end, report = base64.b64decode(headers["x-amz-log-result"]).decode().splitlines()
    request = headers["x-amzn-requestid"]
    assert first == f"START RequestId: {request} Version: $LATEST"
    assert end == f"END RequestId: {request}"
    assert report.startswith(f"REPORT RequestId: {request}\tDuration: ")
    assert "x-amz-log-result" not in without


def test_a_function_gets_the_client_context(functions: Functions) -> None:
    context = base64.b64encode(b'{"custom": {"shop": "north"}}').decode()
    _, _, body = functions.invoke("client_context", X_Amz_Client_Context=context)
    assert body == {"custom": {"shop": "north"}, "env": None}
