"""Runs one function in its own process: takes invocations from the Lambda Runtime API and calls the handler.

`localaws.lambda_runtime` starts this file as a script. It imports the standard library only (and debugpy for a function
that is debugged), so that a function sees only its own code and its layers.
"""

import decimal
import gc
import importlib
import json
import os
import socket
import sys
import threading
import time
import traceback
import types
from collections.abc import Callable
from typing import Any

API = "/2018-06-01/runtime"
Handler = Callable[[Any, "Context"], Any]


def _request(method: str, path: str, body: bytes = b"") -> bytes:
    return f"{method} {API}{path} HTTP/1.1\r\nHost: runtime\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


NEXT = _request("GET", "/invocation/next")


class RuntimeApi:
    """A connection to the Lambda Runtime API. `http.client` would take longer than many handlers.

    Args:
        address: host and port.
    """

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self._socket = socket.create_connection((host, int(port)))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._file = self._socket.makefile("rb")

    def send(self, *requests: bytes) -> None:
        """Sends requests in one packet."""
        self._socket.sendall(b"".join(requests))

    def receive(self) -> tuple[dict[str, str], bytes]:
        """Waits for the response to the oldest request. Returns its headers, by lowercase name, and its body.

        Raises:
            ConnectionError: the runtime has closed the connection.
        """
        if not self._file.readline():
            raise ConnectionResetError
        headers = {}
        while line := self._file.readline().decode("latin-1").strip():
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        return headers, self._file.read(int(headers["content-length"]))


class Context:
    """The Lambda context object, the second argument of a handler."""

    identity = None

    def __init__(self, request_id: str, arn: str, deadline_ms: int, client_context: dict[str, Any] | None) -> None:
        self.function_name = os.environ["AWS_LAMBDA_FUNCTION_NAME"]
        self.function_version = os.environ["AWS_LAMBDA_FUNCTION_VERSION"]
        self.memory_limit_in_mb = os.environ["AWS_LAMBDA_FUNCTION_MEMORY_SIZE"]  # a string, as in Lambda
        self.log_group_name = os.environ["AWS_LAMBDA_LOG_GROUP_NAME"]
        self.log_stream_name = os.environ["AWS_LAMBDA_LOG_STREAM_NAME"]
        self.invoked_function_arn = arn
        self.aws_request_id = request_id
        empty = {"custom": None, "env": None, "client": None}
        self.client_context = None if client_context is None else types.SimpleNamespace(**empty | client_context)
        self._deadline_ms = deadline_ms

    def get_remaining_time_in_millis(self) -> int:
        """Milliseconds until the runtime stops this invocation, never below 0."""
        return max(0, self._deadline_ms - int(time.time() * 1000))


def main() -> None:
    """Loads the handler and serves invocations until the runtime closes the connection."""
    _end_with_the_runner()
    api = RuntimeApi(os.environ["AWS_LAMBDA_RUNTIME_API"])  # before the import: shows that this process is alive
    gc.disable()  # what an import makes lives until the end, so it is never worth a search for garbage
    try:
        if port := os.environ.pop("LOCALAWS_DEBUG_PORT", None):
            _listen_for_debugger(int(port))
        os.chdir(os.environ["LAMBDA_TASK_ROOT"])
        handler = load_handler(os.environ["_HANDLER"])
    except Exception as error:  # importing a function may raise any exception
        api.send(_request("POST", "/init/error", _dump(_describe(error))))
        api.receive()
        sys.exit(1)
    gc.freeze()
    gc.enable()
    api.send(NEXT)
    try:
        while True:
            serve_one(api, handler)
    except ConnectionError:
        sys.exit(0)  # the runtime has closed the connection


def load_handler(name: str) -> Handler:
    """Returns the handler with a name like "package.module.function" or "directory/module.function".

    Raises: any exception of the import; AttributeError or ValueError if the module does not have the function.
    """
    module, function = name.rsplit(".", 1)
    handler: Handler = getattr(importlib.import_module(module.replace("/", ".")), function)
    return handler


def serve_one(api: RuntimeApi, handler: Handler) -> None:
    """Waits for one invocation, runs it and reports its response or its error."""
    headers, payload = api.receive()
    request_id = headers["lambda-runtime-aws-request-id"]
    os.environ["_X_AMZN_TRACE_ID"] = headers["lambda-runtime-trace-id"]
    context = Context(
        request_id,
        headers["lambda-runtime-invoked-function-arn"],
        int(headers["lambda-runtime-deadline-ms"]),
        json.loads(headers.get("lambda-runtime-client-context", "null")),
    )
    outcome, body = run(handler, payload, context)
    api.send(_request("POST", f"/invocation/{request_id}/{outcome}", body), NEXT)
    api.receive()


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
