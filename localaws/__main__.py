"""The runner's commands: `python -m localaws run` and `python -m localaws invoke`."""

import argparse
import fcntl
import gc
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError


class CommandError(Exception):
    """The command failed. The message gives the reason in one line."""


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
    parser = argparse.ArgumentParser(prog="python -m localaws", description="Run a SAM template on this machine.")
    commands = parser.add_subparsers(required=True)
    run = commands.add_parser("run", help="start all resources of the template")
    run.set_defaults(command=_run)
    run.add_argument("--template", type=Path, default=Path("template.yaml"))
    run.add_argument("--parameter", action="append", default=[], metavar="NAME=VALUE", type=_parameter)
    run.add_argument("--stack-name", default="orderflow")
    run.add_argument("--port", type=int, default=3000, help="port of the HTTP API; 0 selects a free port")
    run.add_argument(
        "--time-scale", type=_positive, default=1.0, help="factor by which waits and timeouts are shorter than in AWS"
    )
    run.add_argument("--store-host", default="127.0.0.1", help="address that the AWS endpoint listens on")
    run.add_argument("--state", type=Path, default=Path(".local"), help="folder for logs and stack.json")
    run.add_argument("--verbose", action="store_true", help="name each resource and property that is not honoured")
    run.add_argument("--quiet", action="store_true", help="print notices and failures only")
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


def _positive(text: str) -> float:
    number = float(text)
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not greater than 0")
    return number


def _run(options: argparse.Namespace) -> int:
    begun = time.monotonic()
    gc.disable()  # objects made during the start live until the end; collecting garbage now costs half a second
    os.umask(0o077)  # only this user may read the files: stack.json contains tokens, the e-mails contain addresses
    stop = _stop_on_signals()
    if options.stop_at_eof:
        threading.Thread(target=_set_at_eof, args=(stop,), daemon=True).start()
    with _only_run_in(options.state):
        return _run_until(stop, options, begun)


def _run_until(stop: threading.Event, options: argparse.Namespace, begun: float) -> int:
    """Run the stack until `stop` is set. `begun` is the start of the command on the monotonic clock."""
    # Imported here because the import takes a second and `invoke` does not need it
    import localaws.moto_speed  # noqa: F401 - first, because it imports parts of moto without their slow data
    from localaws.console import Console, LogLines
    from localaws.runner import Runner, StartError

    console = Console(quiet=options.quiet)
    logging.getLogger().addHandler(LogLines(console))
    description = options.state / "stack.json"
    if description.exists():
        console.notice(f"{description} is left over from a run that did not stop normally; it is replaced")
        description.unlink()
    runner = Runner(
        options.template,
        parameters=dict(options.parameter),
        stack_name=options.stack_name,
        host=options.store_host,
        port=options.port,
        time_scale=options.time_scale,
        state=options.state,
        console=console,
        faults=options.fault,
        calls=options.calls,
        verbose=options.verbose,
    )
    try:
        stack = runner.start()
    except StartError as error:
        raise CommandError(str(error)) from error
    gc.freeze()
    gc.enable()
    try:
        console.notice(f"started in {time.monotonic() - begun:.1f} s: {stack['apiUrl']}, AWS at {stack['awsEndpoint']}")
        if _prepare(options.prepare, stack, description):
            stop.wait()
            return 0
        return 1
    finally:
        description.unlink(missing_ok=True)
        runner.stop()


def _stop_on_signals() -> threading.Event:
    """Returns an event that is set on Ctrl-C (SIGINT), on SIGTERM and when the terminal is closed (SIGHUP)."""
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if (number, signal.getsignal(number)) != (signal.SIGHUP, signal.SIG_IGN):  # nohup ignores SIGHUP
            signal.signal(number, lambda *_: stop.set())
    return stop


def _set_at_eof(stop: threading.Event) -> None:
    while os.read(sys.stdin.fileno(), 1024):
        pass
    stop.set()


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


def _prepare(command: str | None, stack: dict[str, Any], description: Path) -> bool:
    """Run the command, which may add to the stack's description, then rename the file so that it appears complete."""
    draft = description.with_suffix(".starting")
    draft.unlink(missing_ok=True)  # an existing file would keep its mode; a new one gets the mode of the umask
    draft.write_text(json.dumps({**stack, "pid": os.getpid()}, indent=2))
    if command is not None:
        code = subprocess.run(command, shell=True, env={**os.environ, "STACK_FILE": str(draft)}).returncode  # noqa: S602 - the user's own command line
        if code != 0:
            print(f"error: `{command}` ended with exit code {code}", file=sys.stderr)
            return False
    draft.rename(description)
    return True


def _invoke(options: argparse.Namespace) -> int:
    """Print the function's response. The exit code is 1 if the function returned an error."""
    stack = _running_stack(options.state / "stack.json")
    if options.function not in stack["functions"]:
        known = ", ".join(sorted(stack["functions"]))
        raise CommandError(f"the template has no function {options.function}; it has {known}")
    client = boto3.client(
        "lambda",
        endpoint_url=stack["awsEndpoint"],
        region_name=stack["region"],
        aws_access_key_id="local",
        aws_secret_access_key="local",  # noqa: S106 - a placeholder; the local endpoint does not check signatures
        config=Config(retries={"total_max_attempts": 1}, read_timeout=910),
    )
    try:
        answer = client.invoke(FunctionName=stack["functions"][options.function], Payload=_event(options.event))
    except (BotoCoreError, ClientError) as error:
        raise CommandError(f"{options.function}: {error}") from error
    print(answer["Payload"].read().decode())
    return 1 if "FunctionError" in answer else 0


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
