"""Handlers for the tests of the runtime."""

import logging
import os
import subprocess
import sys
import time
from decimal import Decimal
from pathlib import Path
from typing import Any


def echo(event: Any, context: Any) -> Any:
    return event


def describe(event: Any, context: Any) -> dict[str, Any]:
    """Returns the environment of the function."""
    return {
        "context": {name: getattr(context, name) for name in dir(context) if not name.startswith(("_", "get_"))},
        "remaining": context.get_remaining_time_in_millis(),
        "environment": dict(os.environ),
        "pid": os.getpid(),
        "directory": str(Path.cwd()),
        "path": sys.path,
    }


def client_context(event: Any, context: Any) -> Any:
    return {"custom": context.client_context.custom, "env": context.client_context.env}


def fail(event: Any, context: Any) -> None:
    raise LookupError(f"no such thing: {event['thing']}")


def unserialisable(event: Any, context: Any) -> Any:
    return {"when": object()}


def decimals(event: Any, context: Any) -> Any:
    return {"amount": Decimal("12.50")}


def leave(event: Any, context: Any) -> None:
    sys.exit(event["status"])


def talk(event: Any, context: Any) -> None:
    for number in range(event["lines"]):
        print(f"line {number} " + "x" * 100)  # noqa: T201
    print("on stderr", file=sys.stderr)  # noqa: T201
    logging.getLogger("function").warning("logged")


def wait_for_file(event: Any, context: Any) -> int:
    """Creates the file `started-<pid>`, waits for the file `go`, and returns its process ID."""
    directory = Path(event["directory"])
    (directory / f"started-{os.getpid()}").touch()
    while not (directory / "go").exists():
        time.sleep(0.005)
    return os.getpid()


def hang(event: Any, context: Any) -> None:
    while True:
        time.sleep(0.05)


def hang_with_child(event: Any, context: Any) -> None:
    child = subprocess.Popen(["sleep", "600"])
    (Path(event["directory"]) / "child").write_text(str(child.pid))
    hang(event, context)
