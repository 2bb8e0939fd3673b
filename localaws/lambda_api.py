"""Lambda's Invoke API. Source: Invoke (Lambda API reference)."""

import base64
import json
import uuid
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from localaws.async_invocations import AsynchronousInvocations
from localaws.lambda_runtime import (
    InvocationResult,
    RequestTooLarge,
    Runtime,
    Throttled,
    UnknownFunction,
    check_request,
    name_and_qualifier,
)


class InvalidRequest(Exception):
    """The payload or the client context is not valid JSON."""


TAIL = 4096  # bytes of the log in the response, with LogType Tail
ERRORS: Mapping[type[Exception], tuple[int, str]] = {
    UnknownFunction: (404, "ResourceNotFoundException"),
    # The code that Lambda sends; the API reference has RequestTooLargeException
    RequestTooLarge: (413, "RequestEntityTooLargeException"),
    Throttled: (429, "TooManyRequestsException"),
    InvalidRequest: (400, "InvalidRequestContentException"),
}

Answer = tuple[int, dict[str, str], bytes]
"""Status, headers and body."""


@dataclass(frozen=True)
class InvokeApi:
    """Answers Invoke for the functions of one stack.

    Args:
        qualified: ARNs of the versions and aliases. All of them run the same code.
        on_result: called with the function's name, the payload and the result of each synchronous invocation.
    """

    runtime: Runtime
    asynchronous: AsynchronousInvocations
    qualified: Collection[str]
    on_result: Callable[[str, bytes, InvocationResult], None]

    def answer(self, function: str, qualifier: str | None, headers: Mapping[str, str], payload: bytes) -> Answer:
        """Invokes a function, given by its name or ARN. The headers are case-insensitive."""
        request_id = str(uuid.uuid4())
        try:
            status, more, body = self._invoke(function, qualifier, headers, payload or b"{}", request_id)
        except tuple(ERRORS) as error:
            status, code = next(answer for kind, answer in ERRORS.items() if isinstance(error, kind))
            more, fields = {"x-amzn-errortype": code}, {"Type": "User", "message": str(error)}
            if isinstance(error, Throttled):
                fields["message"] = "Rate Exceeded."
                fields["Reason"] = "ReservedFunctionConcurrentInvocationLimitExceeded"
            body = json.dumps(fields).encode()
        return status, {"content-type": "application/json", "x-amzn-requestid": request_id, **more}, body

    def _invoke(
        self, function: str, qualifier: str | None, headers: Mapping[str, str], payload: bytes, request_id: str
    ) -> Answer:
        arn = self._arn(function, qualifier)
        kind = headers.get("X-Amz-Invocation-Type", "RequestResponse")
        check_request(payload, kind)
        try:
            json.loads(payload)
            context = base64.b64decode(headers.get("X-Amz-Client-Context", "")).decode()
            if not isinstance(json.loads(context or "{}"), dict):
                raise ValueError("the client context is not an object")
        except ValueError as error:
            raise InvalidRequest(f"Could not parse request body into json: {error}") from error
        trace_id = headers.get("X-Amzn-Trace-Id")
        if kind == "DryRun":
            return 204, {}, b""
        if kind == "Event":
            self.asynchronous.accept(arn, payload, trace_id, request_id)
            return 202, {}, b""
        result = self.runtime.invoke(arn, payload, trace_id, request_id, context)
        self.on_result(arn, payload, result)
        more = {"x-amz-executed-version": "$LATEST"}
        if result.function_error:
            more["x-amz-function-error"] = result.function_error
        if headers.get("X-Amz-Log-Type") == "Tail":
            more["x-amz-log-result"] = base64.b64encode(result.log.encode()[-TAIL:]).decode()
        return 200, more, result.payload

    def _arn(self, function: str, qualifier: str | None) -> str:
        name, named = name_and_qualifier(function)
        arn, qualifier = self.runtime.config(name).arn, qualifier or named
        if qualifier not in (None, "$LATEST") and f"{arn}:{qualifier}" not in self.qualified:
            raise UnknownFunction(f"Function not found: {arn}:{qualifier}")
        return f"{arn}:{qualifier}" if qualifier else arn
