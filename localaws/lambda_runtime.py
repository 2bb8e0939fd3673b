"""Lambda: runs each function in a pool of processes that use the Lambda Runtime API.

Source: https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html (version 2018-06-01).
"""

import json
import logging
import os
import queue
import secrets
import signal
import socket
import socketserver
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from localaws.faults import NO_FAULTS, Caller, Faults

BOOTSTRAP = Path(__file__).with_name("lambda_bootstrap.py")
INIT_LIMIT = 10.0  # s for importing a function: Lambda's limit of the init phase
STARTS = (os.cpu_count() or 1) + 1  # functions imported concurrently; one more than cores, for waits on the disk
MAX_TIMEOUT = 900.0  # s, Lambda's limit; what the context of a debugged function shows
EXIT_GRACE = 2.0  # s between SIGTERM and SIGKILL
REQUEST_LIMIT = 6 * 1024**2  # bytes of a synchronous invocation's payload (Lambda quotas)
EVENT_LIMIT = 1024**2  # bytes of an asynchronous invocation's payload (Lambda quotas, since January 2026)
RESPONSE_LIMIT = 6_291_556  # bytes, from Lambda's error message: 100 more than in a request

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FunctionConfig:
    """A function of the template. `timeout` is in seconds, `memory` in MB, paths are absolute.

    With a `debug_port`, the function has one process, in which debugpy listens on that port, and its invocations do not
    time out.
    """

    name: str
    arn: str
    handler: str
    timeout: float
    memory: int
    code: Path
    layers: tuple[Path, ...]
    environment: Mapping[str, str]
    reserved_concurrency: int | None = None
    debug_port: int | None = None


@dataclass(frozen=True)
class InvocationResult:
    """Lambda's response: the payload, and "Unhandled" in `function_error` if the payload describes an error."""

    payload: bytes
    function_error: str | None
    duration: float  # s


class HandlerImportError(Exception):
    """The handler of a function cannot be imported, for this reason, in one line."""

    def __init__(self, config: FunctionConfig, reason: str) -> None:
        super().__init__(f"{config.name}: cannot import handler {config.handler}: {reason}")
        self.reason = reason


class Throttled(Exception):
    """The function's reserved concurrency is exhausted."""


class UnknownFunction(Exception):
    """There is no function with this name."""


class RequestTooLarge(Exception):
    """A payload is larger than Lambda's limit."""


class RuntimeStopped(Exception):
    """The runtime was stopped before the invocation ended."""


@dataclass(frozen=True)
class _Invocation:
    request_id: str
    payload: bytes
    arn: str
    trace_id: str
    deadline_ms: int


@dataclass(frozen=True)
class _Message:
    """A message of a process: "next", "response", "error", "init/error", or "exit" after it has ended."""

    kind: str
    body: bytes = b""


class Runtime:
    """All functions and their processes. `on_log` is called with a function's name and a line of its output."""

    def __init__(
        self,
        functions: Iterable[FunctionConfig],
        *,
        environment: Mapping[str, str],
        on_log: Callable[[str, str], None],
        max_processes: int = 4,
        faults: Faults = NO_FAULTS,
    ) -> None:
        """`environment` has the variables that all functions get; `max_processes` is per function."""
        self._faults = faults
        self._pools = {
            config.name: _Pool(
                config, partial(_Process, config, environment, on_log), 1 if config.debug_port else max_processes
            )
            for config in functions
        }

    def start(self) -> None:
        """Starts one process of each function. Only a few start at a time, so that each has about one CPU core.

        Raises HandlerImportError after stopping all processes.
        """
        with ThreadPoolExecutor(STARTS) as executor:
            starts = [executor.submit(pool.warm) for pool in self._pools.values()]
        for error in filter(None, (start.exception() for start in starts)):
            self.stop()
            raise error

    def invoke(self, function: str, payload: bytes, trace_id: str | None = None) -> InvocationResult:
        """Invokes a function, given by its name or ARN, and waits for its result.

        Raises UnknownFunction, RequestTooLarge, Throttled or RuntimeStopped.
        """
        check_request(payload, "RequestResponse")
        pool = self._pool(function)
        arn = function if function.startswith("arn:") else pool.config.arn
        request_id, started = str(uuid.uuid4()), time.monotonic()
        fault = self._faults.strikes("function", pool.config.name, request=request_id)
        match fault and fault.kind:
            case "throttle":
                raise Throttled(f"injected fault: {pool.config.name} is throttled")
            case "error":
                return _failed("injected fault", "FaultInjected", started)
            case "time-out":
                return _timed_out(request_id, pool.config.timeout, started)
        return pool.invoke(payload, arn, trace_id or _new_trace_id(), request_id, crash=fault is not None)

    def reserve(self, function: str, reserved: int | None) -> FunctionConfig:
        """Changes a function's reserved concurrency; None removes the reservation. Raises UnknownFunction."""
        pool = self._pool(function)
        pool.config = replace(pool.config, reserved_concurrency=reserved)
        return pool.config

    def replace(self, functions: Iterable[str]) -> dict[str, str]:
        """Replaces the processes of functions, given by their names. A running invocation ends in its old process.

        Returns:
            The reasons why functions cannot be imported, by name. Their next invocation tries again.
        """
        pools = [pool for pool in [self._pools[name] for name in functions] if pool.retire()]
        with ThreadPoolExecutor(STARTS) as executor:
            starts = {pool.config.name: executor.submit(pool.warm) for pool in pools}
        errors = {name: start.exception() for name, start in starts.items()}
        return {name: error.reason for name, error in errors.items() if isinstance(error, HandlerImportError)}

    def caller(self, key: str) -> Caller | None:
        """Returns the process with this access key, or None."""
        processes = (process for pool in self._pools.values() for process in pool.processes())
        return next((process for process in processes if process.key == key), None)

    def invoke_async(
        self,
        function: str,
        payload: bytes,
        on_done: Callable[[InvocationResult | Throttled], None],
        trace_id: str | None = None,
    ) -> None:
        """Queues one invocation and returns. A worker thread of the function calls `on_done` with the result.

        Invocations that `stop` interrupts are dropped without a call of `on_done`.
        Raises UnknownFunction or RuntimeStopped.
        """
        workers = self._pool(function).workers
        try:
            workers.submit(self._run_queued, function, payload, on_done, trace_id)
        except RuntimeError as error:  # the executor has been shut down
            raise RuntimeStopped(function) from error

    def stop(self) -> None:
        """Stops all processes and threads. May be called twice."""
        processes = [process for pool in self._pools.values() for process in pool.close()]
        for process in processes:
            process.signal(signal.SIGTERM)
        for process in processes:
            process.join()
        for pool in self._pools.values():
            pool.workers.shutdown(cancel_futures=True)

    def _pool(self, function: str) -> "_Pool":
        name = function_name(function)
        if name not in self._pools:
            raise UnknownFunction(function)
        return self._pools[name]

    def _run_queued(
        self,
        function: str,
        payload: bytes,
        on_done: Callable[[InvocationResult | Throttled], None],
        trace_id: str | None,
    ) -> None:
        result: InvocationResult | Throttled
        try:
            result = self.invoke(function, payload, trace_id)
        except Throttled as error:
            result = error
        except RuntimeStopped:
            return
        try:
            on_done(result)
        except Exception:  # the executor would not report it
            logger.exception("The callback for an asynchronous invocation of %s failed", function)


class _Pool:
    """The processes of one function, and the worker threads of its queue."""

    def __init__(self, config: FunctionConfig, new_process: Callable[[], "_Process"], max_processes: int) -> None:
        self.config = config
        self.workers = ThreadPoolExecutor(max_processes, thread_name_prefix=f"queue of {config.name}")
        self._new_process = new_process
        self._max_processes = max_processes
        self._changed = threading.Condition()
        self._processes: set[_Process] = set()
        self._idle: list[_Process] = []
        self._calls = 0
        self._closed = False

    def warm(self) -> None:
        """Starts a process and keeps it. Raises HandlerImportError."""
        process = self._take()
        try:
            process.wait_until_ready()
        finally:
            self._give_back(process)

    def invoke(self, payload: bytes, arn: str, trace_id: str, request_id: str, *, crash: bool) -> InvocationResult:
        """Runs one invocation in an idle process, a new process, or the first that becomes free."""
        self._count_call()
        try:
            process = self._take()
            try:
                result = process.invoke(payload, arn, trace_id, request_id, crash=crash)
            finally:
                self._give_back(process)
        finally:
            with self._changed:
                self._calls -= 1
        if self._closed and not process.alive:
            raise RuntimeStopped(self.config.name)
        return result

    def retire(self) -> bool:
        """Ends the idle processes, and the busy ones after their invocations. Returns whether another one can start."""
        with self._changed:
            for process in self._processes:
                process.retired = True
            idle, self._idle = self._idle, []
            self._processes.difference_update(idle)
            free = len(self._processes) < self._max_processes
        for process in idle:
            process.kill()
        return free

    def close(self) -> set["_Process"]:
        """Rejects further invocations, and returns the processes for the caller to stop."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        return self.processes()

    def processes(self) -> set["_Process"]:
        """Returns the running processes."""
        with self._changed:
            return set(self._processes)

    def _count_call(self) -> None:
        reserved = self.config.reserved_concurrency
        with self._changed:
            if reserved is not None and self._calls >= reserved:
                raise Throttled(f"{self.config.name} runs {self._calls} invocations, which is its reserved concurrency")
            self._calls += 1

    def _take(self) -> "_Process":
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._idle or len(self._processes) < self._max_processes)
            if self._closed:
                raise RuntimeStopped(self.config.name)
            while self._idle:
                process = self._idle.pop()
                if process.alive:
                    return process
                self._processes.discard(process)
            process = self._new_process()
            self._processes.add(process)
            return process

    def _give_back(self, process: "_Process") -> None:
        if process.retired:
            process.kill()
        with self._changed:
            if process.alive:
                self._idle.append(process)
            else:
                self._processes.discard(process)
            self._changed.notify()


class _Process:
    """One process of a function. Two threads serve its Runtime API and read its output.

    Each process has its own API address, because the protocol does not identify the calling process.
    """

    def __init__(
        self, config: FunctionConfig, environment: Mapping[str, str], on_log: Callable[[str, str], None]
    ) -> None:
        self.function = config.name
        self.key = f"LOCAL{secrets.token_hex(8).upper()}"
        self._config = config
        self._on_log = on_log
        self._inbox: queue.SimpleQueue[_Invocation | None] = queue.SimpleQueue()
        self._outbox: queue.SimpleQueue[_Message] = queue.SimpleQueue()
        self.retired = False
        """Whether the process ends after its invocation, because the code has changed."""
        self._limit = None if config.debug_port else config.timeout
        self._ready = False
        self._server = socketserver.TCPServer(("127.0.0.1", 0), partial(_RuntimeApi, self._inbox, self._outbox))
        self._server.timeout = INIT_LIMIT
        if "AWS_ACCESS_KEY_ID" in environment:  # identifies the process in its AWS calls
            environment = {**environment, "AWS_ACCESS_KEY_ID": self.key}
        self._popen = subprocess.Popen(
            [sys.executable, "-u", "-P", BOOTSTRAP],  # -P: hide this package's modules from the function
            env=_process_environment(config, environment, f"127.0.0.1:{self._server.server_address[1]}"),
            stdin=subprocess.PIPE,  # the process ends when the runner closes this pipe
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,  # Ctrl-C reaches the runner only, which then stops the functions
        )
        self._threads = [
            threading.Thread(target=target, name=f"{target.__name__} of {config.name}", daemon=True)
            for target in (self._serve, self._read_log)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def alive(self) -> bool:
        """Whether the process can take another invocation."""
        return self._popen.poll() is None

    def wait_until_ready(self) -> None:
        """Waits until the process requests its first invocation. Raises HandlerImportError."""
        if self._ready:
            return
        try:
            message = self._outbox.get(timeout=None if self._config.debug_port else INIT_LIMIT)
        except queue.Empty:
            message = _Message("timeout")
        if message.kind != "next":
            self.kill()
            reason = _init_failure(message, self._popen.returncode)
            raise HandlerImportError(self._config, reason)
        self._ready = True

    def invoke(self, payload: bytes, arn: str, trace_id: str, request_id: str, *, crash: bool) -> InvocationResult:
        """Runs one invocation. Kills the process on a timeout, or at the end of the invocation if `crash` is true."""
        started = time.monotonic()
        try:
            self.wait_until_ready()
        except HandlerImportError as error:
            return _failed(str(error), "Runtime.ImportModuleError", started)
        started = time.monotonic()
        deadline_ms = int((time.time() + (self._limit or MAX_TIMEOUT)) * 1000)
        self._inbox.put(_Invocation(request_id, payload, arn, trace_id, deadline_ms))
        try:
            message = self._outbox.get(timeout=self._limit)
        except queue.Empty:
            self.kill()
            return _timed_out(request_id, self._config.timeout, started)
        if crash:
            self.kill()
        if crash or message.kind == "exit":
            text = f"RequestId: {request_id} Error: Runtime exited with error: {_status(self._popen.returncode)}"
            return _failed(text, "Runtime.ExitError", started)
        if len(message.body) > RESPONSE_LIMIT and message.kind == "response":
            text = f"Response payload size exceeded maximum allowed payload size ({RESPONSE_LIMIT} bytes)."
            return _failed(text, "Function.ResponseSizeTooLarge", started)
        error_kind = "Unhandled" if message.kind == "error" else None
        return InvocationResult(message.body, error_kind, time.monotonic() - started)

    def signal(self, number: int) -> None:
        """Sends a signal to the process and its child processes, if it is alive."""
        if self.alive:
            self._signal_group(number)

    def kill(self) -> None:
        """Kills the process and waits until it has ended."""
        self.signal(signal.SIGKILL)
        self.join()

    def join(self) -> None:
        """Waits until the process and its threads have ended. Kills a process that does not end in time."""
        try:
            self._popen.wait(EXIT_GRACE)
        except subprocess.TimeoutExpired:
            self.signal(signal.SIGKILL)
        for thread in self._threads:
            thread.join(EXIT_GRACE)  # a daemon started by the function may keep its output open

    def _serve(self) -> None:
        with self._server:
            self._server.handle_request()  # the only connection, open until the process ends
        try:
            self._popen.wait(EXIT_GRACE)
        except subprocess.TimeoutExpired:  # it never connected, or closed the connection without ending
            self.signal(signal.SIGKILL)
            self._popen.wait()
        self._signal_group(signal.SIGKILL)  # its child processes
        self._outbox.put(_Message("exit"))

    def _read_log(self) -> None:
        with self._popen as process:  # at the end of the output, closes the pipes and waits for the process
            for line in process.stdout or ():
                try:
                    self._on_log(self._config.name, line.rstrip("\n"))
                except Exception:  # without a reader, the function would block when the pipe is full
                    logger.exception("The callback for a log line of %s failed", self._config.name)
        # The process has ended. Wake the other thread, which waits for an invocation or for a connection.
        self._inbox.put(None)
        with suppress(OSError):
            socket.create_connection(("127.0.0.1", self._server.server_address[1])).close()

    def _signal_group(self, number: int) -> None:
        with suppress(ProcessLookupError, PermissionError):  # the group has ended; macOS reports EPERM
            os.killpg(self._popen.pid, number)


class _RuntimeApi(BaseHTTPRequestHandler):
    """Answers the Lambda Runtime API calls of one process."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # send headers and body together; else each call waits 40 ms for a TCP acknowledgement

    def __init__(
        self, inbox: "queue.SimpleQueue[_Invocation | None]", outbox: "queue.SimpleQueue[_Message]", *connection: Any
    ) -> None:
        self._inbox = inbox
        self._outbox = outbox
        self._asked_before = False
        super().__init__(*connection)

    def handle(self) -> None:
        with suppress(ConnectionError):  # the process has ended; `_serve` reports it
            super().handle()

    def do_GET(self) -> None:  # name required by the base class
        """GET /runtime/invocation/next: waits for an invocation."""
        if not self._asked_before:
            self._asked_before = True
            self._outbox.put(_Message("next"))
        invocation = self._inbox.get()
        if invocation is None:
            self.close_connection = True
            return
        headers = {
            "Lambda-Runtime-Aws-Request-Id": invocation.request_id,
            "Lambda-Runtime-Deadline-Ms": str(invocation.deadline_ms),
            "Lambda-Runtime-Invoked-Function-Arn": invocation.arn,
            "Lambda-Runtime-Trace-Id": invocation.trace_id,
        }
        self._answer(200, invocation.payload, headers)

    def do_POST(self) -> None:
        """POST /runtime/init/error, /runtime/invocation/{id}/response and /runtime/invocation/{id}/error."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self._answer(202, b'{"status":"OK"}', {})
        kind = "init/error" if self.path.endswith("/init/error") else self.path.rpartition("/")[2]
        self._outbox.put(_Message(kind, body))

    def _answer(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Type", "application/json")  # awslambdaric fails without it
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def check_request(payload: bytes, invocation_type: str) -> None:
    """Raises RequestTooLarge, with Lambda's message, if a payload is larger than Lambda's limit."""
    limit = EVENT_LIMIT if invocation_type == "Event" else REQUEST_LIMIT
    if len(payload) > limit:
        raise RequestTooLarge(
            f"{len(payload)} byte payload is too large for the {invocation_type} invocation type (limit {limit} bytes)"
        )


def function_name(function: str) -> str:
    """Returns the name in `name`, `name:alias` or `arn:aws:lambda:region:account:function:name:alias`."""
    parts = function.split(":")
    return parts[6] if len(parts) > 6 else parts[0]


def _process_environment(config: FunctionConfig, environment: Mapping[str, str], api: str) -> dict[str, str]:
    """Returns the environment of a function. Only PATH is from the runner's environment, so no secrets are passed on.

    The names are Lambda's: https://docs.aws.amazon.com/lambda/latest/dg/configuration-envvars.html
    """
    layers = [layer / "python" if (layer / "python").is_dir() else layer for layer in config.layers]
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": "/nonexistent",  # prevents the AWS SDK from reading the user's configuration and credentials
        "LANG": "C.UTF-8",
        "LC_ALL": "C.UTF-8",
        "TZ": "UTC",
        **environment,
        **config.environment,
        "AWS_LAMBDA_RUNTIME_API": api,
        "_HANDLER": config.handler,
        "LAMBDA_TASK_ROOT": str(config.code),
        "AWS_LAMBDA_FUNCTION_NAME": config.name,
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(config.memory),
        "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
        "AWS_LAMBDA_LOG_GROUP_NAME": f"/aws/lambda/{config.name}",
        "AWS_LAMBDA_LOG_STREAM_NAME": f"{datetime.now(UTC):%Y/%m/%d}/[$LATEST]{uuid.uuid4().hex}",
        "AWS_SAM_LOCAL": "true",  # disables Powertools' tracer, as `sam local` does
        "PYTHONPATH": os.pathsep.join(str(path) for path in (config.code, *layers)),
        **({"LOCALAWS_DEBUG_PORT": str(config.debug_port)} if config.debug_port else {}),
    }


def _new_trace_id() -> str:
    """Returns a new trace header in X-Ray's format: https://docs.aws.amazon.com/xray/latest/devguide/xray-concepts.html"""
    root = f"1-{int(time.time()):08x}-{secrets.token_hex(12)}"
    return f"Root={root};Parent={secrets.token_hex(8)};Sampled=1"


def timestamp(moment: float | None = None) -> str:
    """Returns a time in the format of Lambda's records: `2026-11-21T18:36:00.123Z`.

    Args:
        moment: seconds since the epoch; None for now.
    """
    when = datetime.now(UTC) if moment is None else datetime.fromtimestamp(moment, UTC)
    return when.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _init_failure(message: _Message, exit_code: int) -> str:
    """Returns the reason why a process did not start, in one line."""
    if message.kind == "init/error":
        error = json.loads(message.body)
        return " ".join(f"{error['errorType']}: {error['errorMessage']}".split())
    if message.kind == "exit":
        return f"its process ended while importing it ({_status(exit_code)})"
    return f"not imported after {INIT_LIMIT:.0f} s"


def _status(exit_code: int) -> str:
    """Returns the exit of a process in Lambda's words."""
    if exit_code < 0:
        return f"signal: {(signal.strsignal(-exit_code) or str(-exit_code)).lower()}"
    return f"exit status {exit_code}"


def _timed_out(request_id: str, timeout: float, started: float) -> InvocationResult:
    return _failed(
        f"{timestamp()} {request_id} Task timed out after {timeout:.2f} seconds", "Sandbox.Timedout", started
    )


def _failed(message: str, error_type: str, started: float) -> InvocationResult:
    payload = json.dumps({"errorMessage": message, "errorType": error_type}).encode()
    return InvocationResult(payload, "Unhandled", time.monotonic() - started)
