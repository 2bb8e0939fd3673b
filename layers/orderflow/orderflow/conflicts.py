"""Retries of cancelled DynamoDB transactions: which cancellations are retried, how often, and after which pause."""

import random
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from botocore.exceptions import ClientError

NO_ERROR = "None"
"""The reason code of a write that did not cause the cancellation."""
CONDITION_FAILED = "ConditionalCheckFailed"
RETRYABLE = frozenset({"TransactionConflict", "ThrottlingError", "ProvisionedThroughputExceeded"})
"""Reason codes that a retry can clear (DynamoDB API reference, TransactionCanceledException).

A request that is throttled as a whole is not cancelled. It fails with ThrottlingException,
ProvisionedThroughputExceededException or TransactionInProgressException, which the SDK retries by itself.
"""
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


def reason_codes(error: "ClientError") -> list[str]:
    """The reason codes of a cancelled transaction, one per write, in the order of the writes.

    Args:
        error: a TransactionCanceledException.
    """
    return [reason.get("Code", NO_ERROR) for reason in error.response["CancellationReasons"]]


def is_retryable(codes: Iterable[str]) -> bool:
    """Whether the same transaction can succeed later: only conflicts and throttling have cancelled it.

    Args:
        codes: the reason codes of all writes.
    """
    causes = set(codes) - {NO_ERROR}
    return bool(causes) and causes <= RETRYABLE
