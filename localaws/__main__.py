"""The runner's commands: `python -m localaws run` and `python -m localaws invoke`."""

import signal

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C during the imports ends the process without a traceback

import argparse
import errno
import fcntl
import gc
import json
import logging
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from localaws.console import Console
    from localaws.runner import Runner

DEBUG_PORT = 5678  # debugpy's own default
STARTED = b"S"  # the start has ended; other bytes in the pipe end the run
EXIT_AFTER = 1.8  # s after Ctrl-C until the runner exits in any case
CHECKED_VALUES = 25  # of the highlighted key in an event of `invoke`


class CommandError(Exception):
    """The command failed. The message gives the reason in one line."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Ends the command with the reason in one line, without the usage."""
        self.exit(2, f"error: {message}\n")


def main(arguments: list[str] | None = None) -> int:
    """Run a command.

    Returns:
        The exit code: 0, or 1 with the reason in one line on stderr.
    """
    options = _parser().parse_args(arguments)
    try:
        code: int = options.command(options)
    except CommandError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return code


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m localaws", description="Run a SAM template on this machine.")
    commands = parser.add_subparsers(required=True)
    run = commands.add_parser("run", help="start all resources of the template")
    run.set_defaults(command=_run)
    run.add_argument("--template", type=Path, default=Path("template.yaml"))
    run.add_argument("--parameter", action="append", default=[], metavar="NAME=VALUE", type=_parameter)
    run.add_argument("--stack-name", default="local", help="name of the stack, and prefix of generated names")
    run.add_argument("--port", type=_port, default=3000, help="port of the HTTP API; 0 selects a free port")
    run.add_argument(
        "--time-scale", type=_positive, default=1.0, help="factor by which waits and timeouts are shorter than in AWS"
    )
    run.add_argument("--store-host", default="127.0.0.1", help="address that the AWS endpoint listens on")
    run.add_argument("--state", type=Path, default=Path(".local"), help="folder for logs and stack.json")
    run.add_argument("--quiet", action="store_true", help="print notices and failures only")
    run.add_argument("--verbose", action="store_true", help="print each property that is not honoured")
    run.add_argument("--json", action="store_true", help="print one JSON object per line; see localaws/console.py")
    run.add_argument("--highlight", metavar="KEY", help="end each line with this key's values in the payload")
    run.add_argument(
        "--debug", metavar="FUNCTION[:PORT]", type=_debugged, help=f"run a function under debugpy (port {DEBUG_PORT})"
    )
    run.add_argument("--prepare", metavar="COMMAND", help="command to run after the start; the stack is ready after it")
    run.add_argument(
        "--fault", type=Path, metavar="FILE", help="JSON file of the faults to inject; see localaws/faults.py"
    )
    run.add_argument("--stop-at-eof", action="store_true", help="stop when standard input ends")
    run.add_argument("--calls", type=Path, metavar="FILE", help="record the IAM actions that the functions use")
    invoke = commands.add_parser("invoke", help="invoke one function of a running stack with one event")
    invoke.set_defaults(command=_invoke)
    invoke.add_argument("function", help="logical ID of the function")
    invoke.add_argument("-e", "--event", required=True, help="JSON file, or - for standard input")
    invoke.add_argument("--state", type=Path, default=Path(".local"))
    return parser


def _parameter(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return name, value


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text} is not a port (0 to 65535); choose one with PORT=…")
    return int(text)


def _debugged(text: str) -> tuple[str, int]:
    function, _, port = text.partition(":")
    return function, _port(port) if port else DEBUG_PORT


def _positive(text: str) -> float:
    number = float(text)
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not greater than 0")
    return number


def _run(options: argparse.Namespace) -> int:
    begun = time.monotonic()
    gc.disable()  # objects made during the start live until the end; collecting garbage now costs half a second
    os.umask(0o077)  # only this user may read the files: stack.json contains tokens, the e-mails contain addresses
    happened, report = os.pipe()  # a signal always ends the wait for a pipe, but not the wait for a lock
    _report_signals(report)
    if options.stop_at_eof:
        threading.Thread(target=_report_eof, args=(report,), daemon=True).start()
    with _only_run_in(options.state):
        _check(options)
        stack = _Stack(options, begun)
        # The start runs on another thread, which Ctrl-C does not wait for
        threading.Thread(target=stack.start, args=(report,), daemon=True).start()
        if os.read(happened, 1) == STARTED:
            if stack.error:
                stack.stop()
                raise stack.error
            gc.freeze()
            gc.enable()
            os.read(happened, 1)
            limit = threading.Timer(EXIT_AFTER, _exit, (options,))
            limit.daemon = True
            limit.start()
            stack.stop()
        stack.abandon()
        _exit(options)


def _check(options: argparse.Namespace) -> None:
    """Check what can be checked before the imports, which take two seconds.

    Raises:
        CommandError: a port is in use, or the template cannot be read.
    """
    try:
        options.template.read_text()
    except (OSError, ValueError) as error:
        raise CommandError(f"{options.template}: {getattr(error, 'strerror', None) or error}") from error
    debug = options.debug[1] if options.debug else 0
    for port, other in ((options.port, "PORT=…"), (debug, f"DEBUG={options.debug and options.debug[0]}:…")):
        try:
            socket.create_server(("127.0.0.1", port)).close()
        except OSError as error:
            reason = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be opened ({error.strerror})"
            raise CommandError(f"port {port} {reason}; choose another one with {other}") from error


class _Stack:
    """The running stack: its start, on a thread of its own, and its end."""

    def __init__(self, options: argparse.Namespace, begun: float) -> None:
        """`begun` is the start of the command on the monotonic clock."""
        self._options = options
        self._begun = begun
        self._description: Path = options.state / "stack.json"
        self.error: BaseException | None = None
        self._console: Console | None = None
        self._runner: Runner | None = None
        self._preparation: subprocess.Popen[str] | None = None

    def start(self, report: int) -> None:
        """Start the stack, and write STARTED to a pipe, also after an error."""
        try:
            self._start()
        except BaseException as error:
            self.error = error
        os.write(report, STARTED)

    def stop(self) -> None:
        """Stop the stack and remove its description."""
        self._description.unlink(missing_ok=True)
        if self._console:
            self._console.muted = True
        if self._runner:
            self._runner.stop()

    def abandon(self) -> None:
        """Leave a start: the processes of the functions end by themselves after this process."""
        self._description.unlink(missing_ok=True)
        if self._preparation and self._preparation.poll() is None:
            os.killpg(self._preparation.pid, signal.SIGKILL)

    def _start(self) -> None:
        # Imported here because the import takes a second and `invoke` does not need it
        import localaws.moto_speed  # noqa: F401 - first, because it imports parts of moto without their slow data
        from localaws.console import Console, LogLines
        from localaws.runner import Runner, StartError

        options = self._options
        self._console = Console(quiet=options.quiet, highlight=options.highlight, as_json=options.json)
        logging.getLogger().addHandler(LogLines(self._console))
        if self._description.exists():
            self._console.notice(f"{self._description} of a run that did not stop normally is replaced")
            self._description.unlink()
        self._runner = Runner(
            options.template,
            parameters=dict(options.parameter),
            stack_name=options.stack_name,
            host=options.store_host,
            port=options.port,
            time_scale=options.time_scale,
            state=options.state,
            console=self._console,
            faults=options.fault,
            calls=options.calls,
            verbose=options.verbose,
            debug=options.debug,
        )
        try:
            stack = self._runner.start()
        except StartError as error:
            raise CommandError(str(error)) from error
        printed = self._prepare({**stack, "highlight": options.highlight, "pid": os.getpid()})
        self._console.ready(stack, options.state, time.monotonic() - self._begun, printed)

    def _prepare(self, stack: dict[str, Any]) -> str:
        """Run the command of --prepare, which may add to the stack's description, and return what it printed.

        The description appears complete, because it is renamed at the end.
        """
        draft = self._description.with_suffix(".starting")
        draft.unlink(missing_ok=True)  # an existing file would keep its mode; a new one gets the mode of the umask
        draft.write_text(json.dumps(stack, indent=2))
        printed = ""
        if command := self._options.prepare:
            self._preparation = subprocess.Popen(  # noqa: S602 - the user's own command line
                command,
                shell=True,
                env={**os.environ, "STACK_FILE": str(draft)},
                stdout=subprocess.PIPE,
                text=True,
                start_new_session=True,  # a group of processes that can be killed
            )
            printed, _ = self._preparation.communicate()
            if code := self._preparation.returncode:
                raise CommandError(f"`{command}` ended with exit code {code}")
        draft.rename(self._description)
        return printed


def _report_signals(report: int) -> None:
    """Write SIGINT (Ctrl-C), SIGTERM and SIGHUP (the terminal is closed) to a pipe. The second one ends the process."""
    received: list[int] = []

    def receive(number: int, _frame: object) -> None:
        if received:
            os._exit(128 + number)  # the functions' processes end because their standard input is closed
        received.append(number)

    os.set_blocking(report, False)
    signal.set_wakeup_fd(report)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if (number, signal.getsignal(number)) != (signal.SIGHUP, signal.SIG_IGN):  # nohup ignores SIGHUP
            signal.signal(number, receive)


def _report_eof(report: int) -> None:
    while os.read(sys.stdin.fileno(), 1024):
        pass
    os.write(report, b"\0")


def _exit(options: argparse.Namespace) -> NoReturn:
    """Print that the stack has stopped, and exit at once, without waiting for threads."""
    text = json.dumps({"kind": "notice", "text": "stopped"}) if options.json else "stopped"
    with suppress(OSError):  # the terminal is closed
        print(text, flush=True)
    os._exit(0)


@contextmanager
def _only_run_in(state: Path) -> Iterator[None]:
    """Lock the folder for this run. Two stacks in one folder would overwrite each other's description and logs.

    The kernel releases the lock when the process ends, so a held lock means that the other run is alive. A process ID
    in a file would not show this, because process IDs are reused.

    Raises:
        CommandError: another run uses the folder, or the folder is not writable.
    """
    try:
        state.mkdir(parents=True, exist_ok=True)
        file = (state / "lock").open("w")
    except OSError as error:
        raise CommandError(f"--state {state}: {error}") from error
    with file as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise CommandError(f"a stack runs in {state} already: stop it, or use another --state folder") from error
        yield


def _invoke(options: argparse.Namespace) -> int:
    """Print the function's response. The exit code is 1 if the function returned an error."""
    from botocore.exceptions import BotoCoreError, ClientError  # imported here because `run` starts sooner without it

    stack = _running_stack(options.state / "stack.json")
    if options.function not in stack["functions"]:
        known = ", ".join(sorted(stack["functions"]))
        raise CommandError(f"the template has no function {options.function}; it has {known}")
    event = _event(options.event)
    try:
        for note in _missing_items(stack, event):
            print(f"note: {note}", file=sys.stderr)
        answer = _client(stack, "lambda").invoke(FunctionName=stack["functions"][options.function], Payload=event)
    except (BotoCoreError, ClientError) as error:
        raise CommandError(f"{options.function}: {error}") from error
    print(answer["Payload"].read().decode())
    return 1 if "FunctionError" in answer else 0


def _missing_items(stack: dict[str, Any], event: bytes) -> Iterator[str]:
    """Yields one line for each item that the event refers to by the highlighted key and that its table lacks.

    The key refers to the items of a table if it is the table's whole primary key.
    """
    from localaws.console import values_of

    key = stack.get("highlight")
    values = values_of(key, event)[:CHECKED_VALUES] if key else []
    if not values:
        return
    dynamodb = _client(stack, "dynamodb")
    for logical_id, name in stack.get("tables", {}).items():
        table = dynamodb.describe_table(TableName=name)["Table"]
        types = {each["AttributeName"]: each["AttributeType"] for each in table["AttributeDefinitions"]}
        if [each["AttributeName"] for each in table["KeySchema"]] != [key]:
            continue
        for value in values:
            if "Item" not in dynamodb.get_item(TableName=name, Key={key: {types[key]: value}}):
                yield (
                    f"{logical_id} has no item with {key} {value}; "
                    "what this invocation stores or publishes refers to an item that does not exist"
                )


def _client(stack: dict[str, Any], service: str) -> Any:
    import boto3
    from botocore.config import Config

    return boto3.client(  # type: ignore[call-overload]
        service,
        endpoint_url=stack["awsEndpoint"],
        region_name=stack["region"],
        aws_access_key_id="local",
        aws_secret_access_key="local",  # noqa: S106 - a placeholder; the local endpoint does not check signatures
        config=Config(retries={"total_max_attempts": 1}, read_timeout=910, account_id_endpoint_mode="disabled"),
    )


def _running_stack(description: Path) -> dict[str, Any]:
    try:
        stack: dict[str, Any] = json.loads(description.read_text())
    except FileNotFoundError as error:
        raise CommandError(f"no running stack: {description} does not exist; start one with `make run`") from error
    except ValueError as error:
        raise CommandError(f"{description} is not valid JSON: {error}; start a new stack with `make run`") from error
    if not isinstance(stack, dict) or not {"awsEndpoint", "region", "functions"} <= stack.keys():
        raise CommandError(f"{description} does not describe a stack; start a new one with `make run`")
    return stack


def _event(path: str) -> bytes:
    try:
        text = sys.stdin.read() if path == "-" else Path(path).read_text()
        json.loads(text)
    except (OSError, ValueError) as error:
        raise CommandError(f"{path}: {error}") from error
    return text.encode()


if __name__ == "__main__":
    sys.exit(main())
