"""Runs one function in its own process: takes invocations from the Lambda Runtime API and calls the handler.

`localaws.lambda_runtime` starts this file as a script. It imports the standard library only (and debugpy for a function
that is debugged), so that a function sees only its own code and its layers.
"""

import decimal
import http.client
import importlib
import json
import os
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

API = "/2018-06-01/runtime"
Handler = Callable[[Any, "Context"], Any]


class Context:
    """The Lambda context object, the second argument of a handler."""

    identity = None
    client_context = None

    def __init__(self, request_id: str, arn: str, deadline_ms: int) -> None:
        self.function_name = os.environ["AWS_LAMBDA_FUNCTION_NAME"]
        self.function_version = os.environ["AWS_LAMBDA_FUNCTION_VERSION"]
        self.memory_limit_in_mb = os.environ["AWS_LAMBDA_FUNCTION_MEMORY_SIZE"]  # a string, as in Lambda
        self.log_group_name = os.environ["AWS_LAMBDA_LOG_GROUP_NAME"]
        self.log_stream_name = os.environ["AWS_LAMBDA_LOG_STREAM_NAME"]
        self.invoked_function_arn = arn
        self.aws_request_id = request_id
        self._deadline_ms = deadline_ms

    def get_remaining_time_in_millis(self) -> int:
        """Milliseconds until the runtime stops this invocation, never below 0."""
        return max(0, self._deadline_ms - int(time.time() * 1000))


def main() -> None:
    """Loads the handler and serves invocations until the runtime closes the connection."""
    _end_with_the_runner()
    connection = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])
    connection.connect()  # before the import: the connection shows the runtime that this process is alive
    try:
        if port := os.environ.pop("LOCALAWS_DEBUG_PORT", None):
            _listen_for_debugger(int(port))
        os.chdir(os.environ["LAMBDA_TASK_ROOT"])
        handler = load_handler(os.environ["_HANDLER"])
    except Exception as error:  # importing a function may raise any exception
        _call(connection, "POST", "/init/error", _dump(_describe(error)))
        sys.exit(1)
    try:
        while True:
            serve_one(connection, handler)
    except (ConnectionError, http.client.HTTPException):
        sys.exit(0)  # the runtime has closed the connection


def load_handler(name: str) -> Handler:
    """Returns the handler with a name like "package.module.function" or "directory/module.function".

    Raises: any exception of the import; AttributeError or ValueError if the module does not have the function.
    """
    module, function = name.rsplit(".", 1)
    handler: Handler = getattr(importlib.import_module(module.replace("/", ".")), function)
    return handler


def serve_one(connection: http.client.HTTPConnection, handler: Handler) -> None:
    """Waits for one invocation, runs it and reports its response or its error."""
    headers, payload = _call(connection, "GET", "/invocation/next")
    request_id = headers["Lambda-Runtime-Aws-Request-Id"]
    os.environ["_X_AMZN_TRACE_ID"] = headers["Lambda-Runtime-Trace-Id"]
    context = Context(
        request_id, headers["Lambda-Runtime-Invoked-Function-Arn"], int(headers["Lambda-Runtime-Deadline-Ms"])
    )
    outcome, body = run(handler, payload, context)
    _call(connection, "POST", f"/invocation/{request_id}/{outcome}", body)


def run(handler: Handler, payload: bytes, context: Context) -> tuple[str, bytes]:
    """Calls the handler. Returns ("response", its result) or ("error", the description of its exception)."""
    try:
        answer = handler(json.loads(payload), context)
    except Exception as error:  # a handler may raise any exception; it fails this invocation only
        traceback.print_exc()
        return "error", _dump(_describe(error) | {"requestId": context.aws_request_id})
    try:
        return "response", _dump(answer)
    except (TypeError, ValueError) as error:
        message = f"Unable to marshal response: {error}"
        description = {"errorMessage": message, "errorType": "Runtime.MarshalError", "stackTrace": []}
        return "error", _dump(description | {"requestId": context.aws_request_id})


def _describe(error: Exception) -> dict[str, Any]:
    """Returns an error as Lambda reports it. The stack trace starts after the frame of this file."""
    frames = traceback.extract_tb(error.__traceback__)[1:]
    return {
        "errorMessage": str(error),
        "errorType": type(error).__name__,
        "stackTrace": traceback.format_list(frames),
    }


def _dump(value: Any) -> bytes:
    return json.dumps(value, default=_number).encode()


def _number(value: object) -> float:
    """Converts a Decimal to a number. Lambda's Python runtime serializes JSON's own types and Decimal only."""
    if isinstance(value, decimal.Decimal):
        return float(value)
    raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")


def _call(
    connection: http.client.HTTPConnection, method: str, path: str, body: bytes | None = None
) -> tuple[http.client.HTTPMessage, bytes]:
    connection.request(method, API + path, body, {"Content-Type": "application/json"} if body else {})
    response = connection.getresponse()
    return response.headers, response.read()


def _listen_for_debugger(port: int) -> None:
    """Starts debugpy in this process, without its separate adapter process, which would outlive this one."""
    os.environ["PYDEVD_DISABLE_FILE_VALIDATION"] = "1"  # no warning about frozen modules, which no function debugs
    import debugpy

    socket.create_server(("127.0.0.1", port)).close()  # raises an error if the port is in use; debugpy would hang
    debugpy.listen(("127.0.0.1", port), in_process_debug_adapter=True)


def _end_with_the_runner() -> None:
    """Ends this process when the runner's end of standard input closes, even while a handler runs.

    A runner that is killed cannot stop its processes, but the kernel closes its pipes. The function itself reads an
    empty standard input, as in Lambda.
    """
    pipe = os.dup(0)
    empty = os.open(os.devnull, os.O_RDONLY)
    os.dup2(empty, 0)
    os.close(empty)

    def watch() -> None:
        os.read(pipe, 1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    main()
