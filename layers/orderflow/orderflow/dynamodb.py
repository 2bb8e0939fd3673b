"""DynamoDB access that several services share: conditional updates, transaction retries, batch reads."""

import random
import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from boto3.dynamodb.types import TypeDeserializer

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
"""The longest pause after attempt n is n times this many seconds. All pauses together last less than two seconds."""
BATCH_ATTEMPTS = 3
MAX_ID_BYTES = 1024
"""Half of what a partition key may have, to leave room for a prefix (DynamoDB developer guide, "Constraints")."""


class ConcurrentUpdate(Exception):
    """Another writer changed the item first; nothing was written."""


class IncompleteRead(Exception):
    """DynamoDB left some keys of a batch unprocessed at each attempt."""


def load_decide_save(
    load: Callable[[], StateT], decide: Callable[[StateT], ChangeT | None], save: Callable[[StateT, ChangeT], StateT]
) -> tuple[StateT, ChangeT | None]:
    """Loads a state, decides on a change and saves it; if another writer was first, decides again on the new state.

    Args:
        load: reads the state, strongly consistent.
        decide: returns the change, or None if there is nothing to change.
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
    attempt: int, sleep: Callable[[float], None] = time.sleep, jitter: Callable[[float, float], float] = random.uniform
) -> None:
    """Waits a random time after an attempt (from 1), so that transactions that conflicted do not conflict again."""
    sleep(jitter(0, PAUSE * attempt))


def reason_codes(error: "ClientError") -> list[str]:
    """Returns the reason codes of a TransactionCanceledException, one per write, in the order of the writes."""
    return [reason.get("Code", NO_ERROR) for reason in error.response["CancellationReasons"]]


def is_retryable(codes: Iterable[str]) -> bool:
    """Returns whether only conflicts or throttling cancelled the transaction, so that a retry can succeed."""
    causes = set(codes) - {NO_ERROR}
    return bool(causes) and causes <= RETRYABLE


def is_id(text: str) -> bool:
    """Whether an id from a path is short enough to be a key: DynamoDB refuses to look up a longer one."""
    return len(text.encode()) <= MAX_ID_BYTES


def deserialize(item: Mapping[str, Any]) -> dict[str, Any]:
    """Converts an item from DynamoDB JSON, as in stream records and failed conditions, to Python values."""
    convert = TypeDeserializer().deserialize
    return {name: convert(value) for name, value in item.items()}


def read_batch(
    client: "DynamoDBClient", table: str, keys: Iterable[Mapping[str, Any]], *, consistent: bool = False
) -> list[dict[str, Any]]:
    """Returns the items that exist, unordered.

    Args:
        client: the client of a DynamoDB resource, which converts Python values (`dynamodb.meta.client`).
        keys: from 1 to 100, the limit of BatchGetItem.

    Raises:
        IncompleteRead: DynamoDB left some keys unprocessed at each of BATCH_ATTEMPTS attempts.
    """
    remaining: Any = {table: {"Keys": list(keys), "ConsistentRead": consistent}}
    items: list[dict[str, Any]] = []
    for _ in range(BATCH_ATTEMPTS):
        response = client.batch_get_item(RequestItems=remaining)
        items += response["Responses"].get(table, [])
        remaining = response.get("UnprocessedKeys")
        if not remaining:
            return items
    raise IncompleteRead(f"{table}: DynamoDB left keys unprocessed {BATCH_ATTEMPTS} times")
