"""Fails if a local stack is running. `make clean` calls it, with any Python 3 and without installed packages."""

import fcntl
import json
import sys
from pathlib import Path


def running_stack(state: Path) -> str:
    """Returns how to stop the stack that runs in a folder; an empty text if none is running.

    A running stack holds a lock on the file `lock` (fcntl.flock). The kernel releases it when the process ends.
    """
    try:
        with (state / "lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return f"a stack is running in {state}: stop it with Ctrl-C in its terminal{_or_kill(state)}, then try again"
    except FileNotFoundError:
        pass  # no stack was ever started here
    return ""


def _or_kill(state: Path) -> str:
    try:
        return f", or with `kill {json.loads((state / 'stack.json').read_text())['pid']}`"
    except (OSError, ValueError, LookupError, TypeError):
        return ""  # the stack is starting or stopping


def main() -> int:
    """`python -m tools.stopped FOLDER`."""
    found = running_stack(Path(sys.argv[1]))
    if found:
        print(f"error: {found}", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
