"""Reads several items of a table at once."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient

ATTEMPTS = 3


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
    for _ in range(ATTEMPTS):
        answer = client.batch_get_item(RequestItems=wanted)
        found += answer["Responses"].get(table, [])
        wanted = answer.get("UnprocessedKeys")
        if not wanted:
            return found
    raise IncompleteRead(f"{table}: DynamoDB left keys unprocessed {ATTEMPTS} times")
