"""How patiently a transaction is tried again that met another one of the same items."""

import random
import time
from collections.abc import Callable

ATTEMPTS = 8
PAUSE = 0.05
"""Seconds; the longest pause after attempt n is n times as long, so all of them together stay below two seconds."""


def pause_after(
    attempt: int,
    sleep: Callable[[float], None] = time.sleep,
    jitter: Callable[[float, float], float] = random.uniform,
) -> None:
    """Wait a random while, so that those who met do not meet again.

    Args:
        attempt: the one that failed, counted from 1.
        sleep: waits for so many seconds.
        jitter: a random number between its arguments.
    """
    sleep(jitter(0, PAUSE * attempt))
