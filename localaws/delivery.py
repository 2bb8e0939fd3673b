"""Retries of failed deliveries and asynchronous invocations: attempts, maximum age, backoff, failure destination."""

import heapq
import itertools
import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Action = Callable[[], None]


class Clock:
    """A clock that runs `scale` times as fast as real time."""

    def __init__(self, scale: float = 1.0) -> None:
        self.scale = scale

    def since(self, moment: float) -> float:
        """Returns the seconds of this clock since a time in seconds since the epoch."""
        return (time.time() - moment) * self.scale

    def real_seconds(self, seconds: float) -> float:
        """Converts seconds of this clock to real seconds."""
        return seconds / self.scale


class Scheduler:
    """Runs actions after a delay, one at a time, on its own thread. Actions must be short.

    Args:
        clock: measures the delays.
        on_failure: called with one line about an exception of an action.
    """

    def __init__(self, clock: Clock, on_failure: Callable[[str], None]) -> None:
        self.clock = clock
        self._on_failure = on_failure
        self._due: list[tuple[float, int, Action]] = []
        self._numbers = itertools.count()
        self._changed = threading.Condition()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="scheduler", daemon=True)

    def start(self) -> None:
        """Start to run actions."""
        self._thread.start()

    def stop(self) -> None:
        """Stop. Actions that are not due yet are dropped."""
        with self._changed:
            self._stopped = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join()

    def after(self, seconds: float, action: Action) -> None:
        """Run an action after this number of seconds of the clock."""
        with self._changed:
            due = time.monotonic() + self.clock.real_seconds(seconds)
            heapq.heappush(self._due, (due, next(self._numbers), action))
            self._changed.notify()

    def _run(self) -> None:
        while action := self._next():
            try:
                action()
            except Exception as error:  # the failure of one delivery must not stop the others
                self._on_failure(f"{type(error).__name__}: {error}")

    def _next(self) -> Action | None:
        with self._changed:
            while not self._stopped:
                wait = self._due[0][0] - time.monotonic() if self._due else None
                if wait is not None and wait <= 0:
                    return heapq.heappop(self._due)[2]
                self._changed.wait(wait)
        return None


# ------------------------------------------------------------------------------------------ targets of rules

ATTEMPTS = "MaximumRetryAttempts"
AGE = "MaximumEventAgeInSeconds"


@dataclass(frozen=True)
class RetryPolicy:
    """The retry policy of a target.

    The defaults are EventBridge's: 185 retries within 24 hours (EventBridge user guide, "How EventBridge retries
    delivering events").
    """

    retries: int = 185
    maximum_age: float = 86_400.0  # s

    @classmethod
    def of(cls, properties: Mapping[str, Any]) -> "RetryPolicy":
        """Returns the policy from a target's RetryPolicy."""
        return cls(int(properties.get(ATTEMPTS, cls.retries)), float(properties.get(AGE, cls.maximum_age)))


class Undelivered(Exception):
    """The delivery of an event to a target failed.

    Args:
        code: value of the DLQ message attribute ERROR_CODE.
        message: value of ERROR_MESSAGE.
        retriable: whether another attempt may succeed. Not if the target does not exist or a permission is missing.
        pause: minimum seconds before the next attempt, as the target requested.
    """

    def __init__(self, code: str, message: str, *, retriable: bool, pause: float = 0.0) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.retriable = retriable
        self.pause = pause


@dataclass(frozen=True)
class FailedDelivery:
    """A delivery that failed permanently: the error, the number of retries, and the exhausted limit of the policy."""

    error: Undelivered
    retries: int
    condition: str | None

    @property
    def attributes(self) -> dict[str, str]:
        """The attributes of the message in the dead-letter queue."""
        ended = {} if self.condition is None else {"EXHAUSTED_RETRY_CONDITION": self.condition}
        return {
            "ERROR_CODE": self.error.code,
            "ERROR_MESSAGE": self.error.message,
            "RETRY_ATTEMPTS": str(self.retries),
            **ended,
        }


def run_at_once(action: Action) -> None:
    """Run an action on the current thread."""
    action()


def deliver(
    scheduler: Scheduler,
    attempt: Action,
    policy: RetryPolicy,
    on_failed: Callable[[FailedDelivery], None],
    run: Callable[[Action], None] = run_at_once,
    on_retry: Callable[[str], None] = lambda _text: None,
) -> None:
    """Try a delivery until it succeeds or the limits of the retry policy are reached.

    Args:
        scheduler: runs the retries.
        attempt: raises Undelivered if it fails.
        policy: retry policy of the target.
        on_failed: called once if the delivery failed permanently.
        run: runs each attempt, immediately or on another thread.
        on_retry: called with the reason of a failed attempt and the time of the next one.
    """
    begun = time.time()

    def go(retries: int) -> None:
        try:
            attempt()
        except Undelivered as error:
            pause = max(random.uniform(0.5, 1) * min(2.0**retries, 600), error.pause)  # noqa: S311 - jitter
            condition = None
            if error.retriable:
                condition = _limit(retries, scheduler.clock.since(begun) + pause, policy)
                if condition is None:
                    on_retry(f"{error}; next attempt in {scheduler.clock.real_seconds(pause):.1f} s")
                    scheduler.after(pause, lambda: run(lambda: go(retries + 1)))
                    return
            on_failed(FailedDelivery(error, retries, condition))

    run(lambda: go(0))


def _limit(retries: int, age: float, policy: RetryPolicy) -> str | None:
    if retries >= policy.retries:
        return ATTEMPTS
    return AGE if age > policy.maximum_age else None
