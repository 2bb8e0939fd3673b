"""What the tests of local/ share."""

import time
from collections.abc import Callable
from typing import Any

PATIENCE = 10.0
"""Seconds after which a condition counts as never met."""


def wait_until(condition: Callable[[], Any]) -> None:
    """Wait for a condition, and fail if it is not met."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, f"waited for {PATIENCE:.0f} s in vain"
        time.sleep(0.005)
