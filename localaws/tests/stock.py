"""Helpers of the tests of DynamoDB: items of the table `stock`."""

from typing import Any


def put(tables: Any, pk: str, **numbers: int) -> None:
    """Puts an item with some numbers."""
    tables.put_item(TableName="stock", Item=item(pk, **numbers))


def item(pk: str, **numbers: int) -> dict[str, Any]:
    return {"pk": {"S": pk}} | {name: {"N": str(number)} for name, number in numbers.items()}


def stored(tables: Any, pk: str) -> Any:
    return tables.get_item(TableName="stock", Key=item(pk)).get("Item")


def taking(pk: str, **more: Any) -> dict[str, Any]:
    """Returns an update that removes one unit if one is in stock."""
    return {
        "TableName": "stock",
        "Key": item(pk),
        "UpdateExpression": "SET n = n - :one",
        "ConditionExpression": "n >= :one",
        "ExpressionAttributeValues": {":one": {"N": "1"}},
    } | more
