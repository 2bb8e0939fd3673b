"""Adds the products of events/seed.json, with their stock, to a stack. Existing products are not changed."""

import json
import re
import sys
from collections.abc import Iterable
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel
from pydantic_core import ErrorDetails

from tools.arguments import Parser
from tools.errors import CommandError, one_line_errors
from tools.stack import Stack, find

SEED = Path("events/seed.json")
UNSAFE = re.compile(r"[\u0000-\u001F\u007F-\u009F\u2028-\u202E\u2066-\u2069]")


class InvalidSeed(CommandError):
    """The seed file is invalid. The text names the file, and the error of each product."""


def _decimal(value: Any) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        raise ValueError("not a JSON number")
    return Decimal(value)


def _name(text: str) -> str:
    if not text.strip():
        raise ValueError("the name is blank")
    if unsafe := UNSAFE.search(text):
        raise ValueError(f"the character U+{ord(unsafe[0]):04X} is not allowed")
    return text


class SeedProduct(BaseModel):
    """A product of a seed file. The limits are those of the catalogue (`orders.domain`) and of `PUT …/stock`."""

    model_config = ConfigDict(alias_generator=to_camel, extra="forbid", strict=True)

    product_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")]
    name: Annotated[str, AfterValidator(_name)]
    price: Annotated[Decimal, BeforeValidator(_decimal), Field(ge=0, lt=1_000_000, decimal_places=2)]
    stock: Annotated[int, Field(ge=0, le=1_000_000)]


def seed(stack: Stack, products: Iterable[dict[str, Any]]) -> int:
    """Adds products to the catalogue and their stock to the inventory, and returns how many products were new.

    Args:
        stack: the stack.
        products: each with productId, name, price (a Decimal) and stock.
    """
    dynamodb = stack.resource("dynamodb")
    catalogue = dynamodb.Table(stack.outputs["ProductsTableName"])
    inventory = dynamodb.Table(stack.outputs["InventoryTableName"])
    new = 0
    for product in products:
        entry = {name: product[name] for name in ("productId", "name", "price")}
        new += _put_new(catalogue, {**entry, "active": True}, "productId")
        # Only if there is none yet: a second run must not reset what orders have reserved
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
    """Returns the products of a seed file.

    Raises:
        InvalidSeed: the file cannot be read, or a product is invalid.
    """
    try:
        rows = list(json.loads(path.read_text(), parse_float=Decimal)["products"])
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise InvalidSeed(f'{path} is not a JSON file of the form {{"products": […]}}: {error}') from error
    products: list[dict[str, Any]] = []
    problems: list[str] = []
    for number, row in enumerate(rows, 1):
        try:
            products.append(SeedProduct.model_validate(row).model_dump(by_alias=True))
        except ValidationError as error:
            product = f"product {number} ({row.get('productId')})" if isinstance(row, dict) else f"product {number}"
            problems += [f"{path}: {product}: {_described(item)}" for item in error.errors()]
    if problems:
        raise InvalidSeed("; ".join(problems))
    return products


def _described(error: ErrorDetails) -> str:
    return ": ".join([*map(str, error["loc"]), error["msg"]])


@one_line_errors
def main(arguments: list[str] | None = None) -> int:
    """`python -m tools.seed [--stack NAME] [--file PATH]`."""
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
