"""Lambda: runs each function in a pool of processes that use the Lambda Runtime API.

Source: https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html (version 2018-06-01).
"""

import json
import logging
import os
import secrets
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from localaws.aws import ACCOUNT_ID, REGION
from localaws.faults import NO_FAULTS, Caller, Faults
from localaws.http_server import BadRequest, Connection, Request, encode

BOOTSTRAP = Path(__file__).with_name("lambda_bootstrap.py")
INIT_LIMIT = 10.0  # s for importing a function: Lambda's limit of the init phase
STARTS = (os.cpu_count() or 1) + 1  # functions imported concurrently; one more than cores, for waits on the disk
START_SECONDS = 0.3  # about as long as a start; until then, an invocation waits for a running process to become idle
MAX_TIMEOUT = 900.0  # s, Lambda's limit; what the context of a debugged function shows
EXIT_GRACE = 2.0  # s between SIGTERM and SIGKILL
REQUEST_LIMIT = 6 * 1024**2  # bytes of a synchronous invocation's payload (Lambda quotas)
EVENT_LIMIT = 1024**2  # bytes of an asynchronous invocation's payload (Lambda quotas, since January 2026)
MESSAGE_LIMIT = 100_000_000  # bytes of a request of the Runtime API
RESPONSE_LIMIT = 6_291_556  # bytes, from Lambda's error message: 100 more than in a request

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FunctionConfig:
    """A function of the template. `timeout` is in seconds, `memory` in MB, paths are absolute.

    In real time, the timeout is `time_scale` times as short. `dead_letters` is the ARN of a queue or topic.
    `not_run` is the reason why the function cannot run here, or None. Each invocation of such a function fails with it.
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
    time_scale: float = 1.0
    dead_letters: str | None = None
    not_run: str | None = None
    debug_port: int | None = None


@dataclass(frozen=True)
class InvocationResult:
    """Lambda's response: the payload, and "Unhandled" in `function_error` if the payload describes an error."""

    payload: bytes
    function_error: str | None
    duration: float  # s
    log: str = ""  # the output during the invocation, as far as it was read


class HandlerImportError(Exception):
    """The handler of a function cannot be imported, for this reason, in one line."""

    def __init__(self, config: FunctionConfig, reason: str) -> None:
        super().__init__(f"{config.name}: cannot import handler {config.handler}: {reason}")
        self.reason = reason


class Throttled(Exception):
    """The function's reserved concurrency is exhausted."""


class UnknownFunction(Exception):
    """There is no function with this name, or no version or alias of it."""


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
    client_context: str


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
        self._starter = ThreadPoolExecutor(STARTS, thread_name_prefix="start of functions")
        self._starts: dict[str, Future[None]] = {}

    def start(self) -> None:
        """Begins to start one process of each function. A few start at a time, so that each has about one CPU core."""
        with_code = [pool for pool in self._pools.values() if pool.config.not_run is None]
        self._starts = {pool.config.name: self._starter.submit(pool.warm) for pool in with_code}

    def failed_imports(self) -> dict[str, str]:
        """Waits for the processes of `start`. Returns the reasons by the names of the functions that cannot start."""
        self._starter.shutdown()
        errors = {name: start.exception() for name, start in self._starts.items()}
        return {name: str(error) for name, error in errors.items() if error is not None}

    def config(self, function: str) -> FunctionConfig:
        """Returns the configuration of a function, given by its name or ARN. Raises UnknownFunction."""
        return self._pool(function).config

    def invoke(
        self, function: str, payload: bytes, trace_id: str | None = None, request_id: str = "", client_context: str = ""
    ) -> InvocationResult:
        """Invokes a function, given by its name or ARN, and waits for its result. `client_context` is JSON or empty.

        Raises UnknownFunction, RequestTooLarge, Throttled or RuntimeStopped.
        """
        check_request(payload, "RequestResponse")
        pool = self._pool(function)
        arn = function if function.startswith("arn:") else pool.config.arn
        request_id, started = request_id or str(uuid.uuid4()), time.monotonic()
        if pool.config.not_run is not None:
            return _failed(f"{pool.config.name}: {pool.config.not_run}", "Runtime.NotRunHere", started)
        fault = self._faults.inject("function", pool.config.name, request=request_id)
        match fault and fault.kind:
            case "throttle":
                raise Throttled(f"injected fault: {pool.config.name} is throttled")
            case "error":
                return _failed("injected fault", "FaultInjected", started)
            case "time-out":
                return _timed_out(request_id, pool.config.timeout, started)
        invocation = _Invocation(request_id, payload, arn, trace_id or _new_trace_id(), client_context)
        return pool.invoke(invocation, crash=fault is not None)

    def reserve(self, function: str, reserved: int | None) -> None:
        """Changes a function's reserved concurrency; None removes the reservation. Raises UnknownFunction."""
        pool = self._pool(function)
        pool.config = replace(pool.config, reserved_concurrency=reserved)

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
        request_id: str = "",
    ) -> None:
        """Queues one invocation and returns. A worker thread of the function calls `on_done` with the result.

        Invocations that `stop` interrupts are dropped without a call of `on_done`.
        Raises UnknownFunction or RuntimeStopped.
        """
        workers = self._pool(function).workers
        try:
            workers.submit(self._run_queued, function, payload, on_done, trace_id, request_id)
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
        self._starter.shutdown(cancel_futures=True)

    def _pool(self, function: str) -> "_Pool":
        name = function_name(function)
        if name not in self._pools:
            raise UnknownFunction(f"Function not found: arn:aws:lambda:{REGION}:{ACCOUNT_ID}:function:{name}")
        return self._pools[name]

    def _run_queued(
        self,
        function: str,
        payload: bytes,
        on_done: Callable[[InvocationResult | Throttled], None],
        trace_id: str | None,
        request_id: str,
    ) -> None:
        result: InvocationResult | Throttled
        try:
            result = self.invoke(function, payload, trace_id, request_id)
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
        self._given_back = 0
        self._calls = 0
        self._closed = False

    def warm(self) -> None:
        """Starts a process and keeps it. Raises HandlerImportError."""
        process = self._take()
        try:
            process.wait_until_ready()
        finally:
            self._give_back(process)

    def invoke(self, invocation: _Invocation, *, crash: bool) -> InvocationResult:
        """Runs one invocation in an idle process, a new process, or the first that becomes free."""
        self._count_call()
        try:
            process = self._take()
            try:
                result = process.invoke(invocation, crash=crash)
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
            while self._processes and not self._closed and not self._idle:
                before = self._given_back
                self._changed.wait(START_SECONDS if len(self._processes) < self._max_processes else None)
                if self._given_back == before and len(self._processes) < self._max_processes:
                    break
            if self._closed:
                raise RuntimeStopped(self.config.name)
            while self._idle:
                process = self._idle.pop()
                if process.alive and not process.has_hung_up:
                    return process
                self._processes.discard(process)
            process = self._new_process()
            self._processes.add(process)
            return process

    def _give_back(self, process: "_Process") -> None:
        if process.retired:
            process.kill()
        with self._changed:
            self._given_back += 1
            self._idle.append(process)  # even if it has ended: `_take` drops it
            self._changed.notify()


class _Process:
    """One process of a function. The thread that invokes it serves its Runtime API; another one reads its output.

    Each process has its own API address, because the protocol does not identify the calling process.
    """

    def __init__(
        self, config: FunctionConfig, environment: Mapping[str, str], on_log: Callable[[str, str], None]
    ) -> None:
        self.function = config.name
        self.key = f"LOCAL{secrets.token_hex(8).upper()}"
        self._config = config
        self._on_log = on_log
        self._timeout: float | None = config.timeout / config.time_scale  # in real time
        if config.debug_port:
            self._timeout = None
        self._output: deque[str] = deque(maxlen=100)
        self.retired = False
        """Whether the process ends after its invocation, because the code has changed."""
        self._ready = False
        self._next: Request | None = None  # the process asked for an invocation with it
        self._unsent = b""  # the response to its last request, if it did not wait for it
        self._sockets = ExitStack()
        self._listener = self._sockets.enter_context(socket.create_server(("127.0.0.1", 0)))
        self._listener.settimeout(INIT_LIMIT)
        if "AWS_ACCESS_KEY_ID" in environment:  # identifies the process in its AWS calls
            environment = {**environment, "AWS_ACCESS_KEY_ID": self.key}
        self._popen = subprocess.Popen(
            [sys.executable, "-u", "-P", BOOTSTRAP],  # -P: hide this package's modules from the function
            env=_process_environment(config, environment, f"127.0.0.1:{self._listener.getsockname()[1]}"),
            stdin=subprocess.PIPE,  # the process ends when the runner closes this pipe
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,  # Ctrl-C reaches the runner only, which then stops the functions
        )
        self._thread = threading.Thread(target=self._read_log, name=f"log of {config.name}", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the process can take another invocation."""
        return self._popen.poll() is None

    @property
    def has_hung_up(self) -> bool:
        """Whether an idle process has closed its connection, which shows its end before `alive` does."""
        return self._ready and bool(select.select([self._socket], [], [], 0)[0])

    def wait_until_ready(self) -> None:
        """Waits until the process requests its first invocation. Raises HandlerImportError."""
        if self._ready:
            return
        try:
            with self._listener:
                self._socket = self._sockets.enter_context(self._listener.accept()[0])
            self._socket.settimeout(INIT_LIMIT)
            self._requests = Connection(self._socket, max_body=MESSAGE_LIMIT)
            request = self._requests.read()
            if request.method == "GET":
                self._next, self._ready = request, True
                self._socket.settimeout(self._timeout)
                return
            error = json.loads(request.body)
            reason = " ".join(f"{error['errorType']}: {error['errorMessage']}".split())
        except TimeoutError:
            reason = f"not imported after {INIT_LIMIT:.0f} s"
        except (BadRequest, OSError):
            self.join()
            reason = f"its process ended while importing it ({_status(self._popen.returncode)})"
        self.kill()
        raise HandlerImportError(self._config, reason)

    def invoke(self, invocation: _Invocation, *, crash: bool) -> InvocationResult:
        """Runs one invocation. Kills the process on a timeout, or at the end of the invocation if `crash` is true."""
        started = time.monotonic()
        try:
            self.wait_until_ready()
        except HandlerImportError as error:
            return _failed(str(error), "Runtime.ImportModuleError", started)
        started = time.monotonic()
        self._output.clear()
        headers = {
            "Lambda-Runtime-Aws-Request-Id": invocation.request_id,
            "Lambda-Runtime-Deadline-Ms": str(int((time.time() + (self._timeout or MAX_TIMEOUT)) * 1000)),
            "Lambda-Runtime-Invoked-Function-Arn": invocation.arn,
            "Lambda-Runtime-Trace-Id": invocation.trace_id,
            "Content-Type": "application/json",  # awslambdaric fails without it
        }
        if invocation.client_context:
            headers["Lambda-Runtime-Client-Context"] = invocation.client_context
        try:
            self._next = self._next or self._requests.read()
            self._socket.sendall(self._unsent + encode("GET", ("200", [*headers.items()], invocation.payload)))
            request = self._requests.read()
            self._unsent = encode("POST", ("202", [("Content-Type", "application/json")], b'{"status":"OK"}'))
            self._next = self._requests.read() if self._requests.received else None
            if self._next is None and not crash:
                self._socket.sendall(self._unsent)
                self._unsent = b""
        except TimeoutError:
            self.kill()
            return _timed_out(invocation.request_id, self._config.timeout, started)
        except (BadRequest, OSError):
            self.join()
            crash = True
        if crash:
            self.kill()
            code = self._popen.returncode
            how = f"with error: {_status(code)}" if code else "without providing a reason"
            text = f"RequestId: {invocation.request_id} Error: Runtime exited {how}"
            return _failed(text, "Runtime.ExitError", started)
        failed = request.path.endswith("/error")
        if len(request.body) > RESPONSE_LIMIT and not failed:
            text = f"Response payload size exceeded maximum allowed payload size ({RESPONSE_LIMIT} bytes)."
            return _failed(text, "Function.ResponseSizeTooLarge", started)
        duration = time.monotonic() - started
        log = _log(invocation.request_id, list(self._output), duration, self._config.memory)
        return InvocationResult(request.body, "Unhandled" if failed else None, duration, log)

    def signal(self, number: int) -> None:
        """Sends a signal to the process and its child processes, if it is alive."""
        if self.alive:
            self._signal_group(number)

    def kill(self) -> None:
        """Kills the process and waits until it has ended."""
        self.signal(signal.SIGKILL)
        self.join()

    def join(self) -> None:
        """Waits until the process and its log have ended. Kills a process that does not end in time."""
        try:
            self._popen.wait(EXIT_GRACE)
        except subprocess.TimeoutExpired:
            self.signal(signal.SIGKILL)
            self._popen.wait()
        self._signal_group(signal.SIGKILL)  # its child processes
        self._thread.join(EXIT_GRACE)  # a daemon started by the function may keep its output open
        self._sockets.close()

    def _read_log(self) -> None:
        with self._popen as process:  # at the end of the output, closes the pipes and waits for the process
            for line in process.stdout or ():
                self._output.append(line)
                try:
                    self._on_log(self._config.name, line.rstrip("\n"))
                except Exception:  # without a reader, the function would block when the pipe is full
                    logger.exception("The callback for a log line of %s failed", self._config.name)
        with suppress(OSError):  # wakes a thread that waits for the connection of this process
            socket.create_connection(self._listener.getsockname()).close()

    def _signal_group(self, number: int) -> None:
        with suppress(ProcessLookupError, PermissionError):  # the group has ended; macOS reports EPERM
            os.killpg(self._popen.pid, number)


def check_request(payload: bytes, invocation_type: str) -> None:
    """Raises RequestTooLarge, with Lambda's message, if a payload is larger than Lambda's limit."""
    limit = EVENT_LIMIT if invocation_type == "Event" else REQUEST_LIMIT
    if len(payload) > limit:
        raise RequestTooLarge(
            f"{len(payload)} byte payload is too large for the {invocation_type} invocation type (limit {limit} bytes)"
        )


def name_and_qualifier(function: str) -> tuple[str, str | None]:
    """Returns the parts of `name`, `name:alias` or `arn:aws:lambda:region:account:function:name:alias`."""
    name, _, qualifier = function.rpartition(":function:")[2].partition(":")
    return name, qualifier or None


def function_name(function: str) -> str:
    """Returns the name in `name`, `name:alias` or `arn:aws:lambda:region:account:function:name:alias`."""
    return name_and_qualifier(function)[0]


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


def timestamp(moment: float | None = None, precision: str = "milliseconds") -> str:
    """Returns a time in the format of Lambda's records: `2026-11-21T18:36:00.123Z`.

    Args:
        moment: seconds since the epoch; None for now.
        precision: `milliseconds` or `seconds`.
    """
    when = datetime.now(UTC) if moment is None else datetime.fromtimestamp(moment, UTC)
    return when.isoformat(timespec=precision).replace("+00:00", "Z")


def _status(exit_code: int) -> str:
    """Returns the exit of a process in Lambda's words."""
    if exit_code < 0:
        return f"signal: {(signal.strsignal(-exit_code) or str(-exit_code)).lower()}"
    return f"exit status {exit_code}"


def _timed_out(request_id: str, timeout: float, started: float) -> InvocationResult:
    return _failed(
        f"RequestId: {request_id} Error: Task timed out after {timeout:.2f} seconds", "Sandbox.Timedout", started
    )


def _log(request_id: str, output: Iterable[str], duration: float, memory: int) -> str:
    """Returns the log of an invocation with Lambda's own lines."""
    return (
        f"START RequestId: {request_id} Version: $LATEST\n{''.join(output)}END RequestId: {request_id}\n"
        f"REPORT RequestId: {request_id}\tDuration: {duration * 1000:.2f} ms\tMemory Size: {memory} MB\n"
    )


def _failed(message: str, error_type: str, started: float) -> InvocationResult:
    payload = json.dumps({"errorMessage": message, "errorType": error_type}).encode()
    return InvocationResult(payload, "Unhandled", time.monotonic() - started)
