"""Fails if a local stack is running. `make clean` calls it, with any Python 3 and without installed packages."""

import fcntl
import json
import sys
from pathlib import Path


def running_stack(state: Path) -> str | None:
    """Returns an error that says how to stop the stack of a folder; None if none is running.

    A running stack holds a lock (fcntl.flock) on the file `lock`. The kernel releases it when the process ends.
    """
    description = state / "stack.json"
    try:
        with (state / "lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return None  # no stack was ever started here
    except BlockingIOError:
        kill = f", or with `kill {json.loads(description.read_text())['pid']}`" if description.exists() else ""
        return f"error: a stack is running in {state}: stop it with Ctrl-C in its terminal{kill}, then try again"
    return None


if __name__ == "__main__":
    sys.exit(running_stack(Path(sys.argv[1])))
