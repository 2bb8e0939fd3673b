"""DynamoDB access that several services share: conditional updates, transaction retries, batch reads."""

import random
import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from botocore.exceptions import ClientError
    from mypy_boto3_dynamodb.client import DynamoDBClient

StateT = TypeVar("StateT")
ChangeT = TypeVar("ChangeT")

UPDATE_ATTEMPTS = 5
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


class ConcurrentUpdate(Exception):
    """Another writer changed the item first; nothing was written."""


def load_decide_save(
    load: Callable[[], StateT],
    decide: Callable[[StateT], ChangeT | None],
    save: Callable[[StateT, ChangeT], StateT],
) -> tuple[StateT, ChangeT | None]:
    """Load a state, decide on a change, and save it; if another writer was first, decide again on the newer state.

    Args:
        load: reads the state, strongly consistent.
        decide: returns the change, or None if there is nothing to change. It is called once per attempt.
        save: writes the change under the condition that the state has not changed, and returns the new state.

    Returns:
        The state afterwards, and the change that was saved, if any.

    Raises:
        ConcurrentUpdate: other writers were first at each of UPDATE_ATTEMPTS attempts.
    """
    for _ in range(UPDATE_ATTEMPTS):
        state = load()
        change = decide(state)
        if change is None:
            return state, None
        try:
            return save(state, change), change
        except ConcurrentUpdate:
            continue
    raise ConcurrentUpdate(f"another writer was first at each of {UPDATE_ATTEMPTS} attempts")


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


BATCH_ATTEMPTS = 3


class IncompleteRead(Exception):
    """DynamoDB kept back part of a batch, several times over."""


def read_batch(
    client: "DynamoDBClient", table: str, keys: Iterable[Mapping[str, Any]], *, consistent: bool = False
) -> list[dict[str, Any]]:
    """Those of the items that exist, in no order.

    Args:
        client: one that speaks Python values (`boto3.resource("dynamodb").meta.client`).
        table: the table's name.
        keys: 1 to 100, as many as BatchGetItem takes.
        consistent: whether every write before counts.

    Raises:
        IncompleteRead: DynamoDB was too busy to answer in full.
    """
    wanted: Any = {table: {"Keys": list(keys), "ConsistentRead": consistent}}
    found: list[dict[str, Any]] = []
    for _ in range(BATCH_ATTEMPTS):
        answer = client.batch_get_item(RequestItems=wanted)
        found += answer["Responses"].get(table, [])
        wanted = answer.get("UnprocessedKeys")
        if not wanted:
            return found
    raise IncompleteRead(f"{table}: DynamoDB left keys unprocessed {BATCH_ATTEMPTS} times")
