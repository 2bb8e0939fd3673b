"""Fills a stack's catalogue and stock from events/seed.json. What exists is left as it is."""

import json
import sys
from collections.abc import Iterable
from decimal import Decimal
from pathlib import Path
from typing import Any

from tools.arguments import Parser
from tools.errors import one_line_errors
from tools.stack import Stack, find

SEED = Path("events/seed.json")


def seed(stack: Stack, products: Iterable[dict[str, Any]]) -> int:
    """Put products into the catalogue and their stock into the inventory.

    Args:
        stack: where.
        products: each with productId, name, price (a Decimal) and stock.

    Returns:
        How many were new.
    """
    dynamodb = stack.resource("dynamodb")
    catalogue = dynamodb.Table(stack.outputs["ProductsTableName"])
    inventory = dynamodb.Table(stack.outputs["InventoryTableName"])
    new = 0
    for product in products:
        entry = {name: product[name] for name in ("productId", "name", "price")}
        new += _put_new(catalogue, {**entry, "active": True}, "productId")
        # A second run must not make stock out of nothing beside what is reserved
        stock = {"pk": f"PRODUCT#{product['productId']}", "available": product["stock"], "reserved": 0}
        _put_new(inventory, stock, "pk")
    return new


def _put_new(table: Any, item: dict[str, Any], key: str) -> bool:
    try:
        table.put_item(Item=item, ConditionExpression=f"attribute_not_exists({key})")
    except table.meta.client.exceptions.ConditionalCheckFailedException:
        return False
    return True


def read_seed(path: Path = SEED) -> list[dict[str, Any]]:
    """The products of a seed file."""
    products: list[dict[str, Any]] = json.loads(path.read_text(), parse_float=Decimal)["products"]
    return products


@one_line_errors
def main(arguments: list[str] | None = None) -> int:
    """`python -m tools.seed [--stack NAME]`."""
    parser = Parser(prog="python -m tools.seed", description=__doc__)
    parser.add_stack()
    parser.add_argument("--file", type=Path, default=SEED)
    options = parser.parse_args(arguments)
    products = read_seed(options.file)
    new = seed(find(options.stack), products)
    print(f"{new} of {len(products)} products were new")
    return 0


if __name__ == "__main__":
    sys.exit(main())
