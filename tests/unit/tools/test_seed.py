"""A seed file is validated completely before anything is written, by the rules for reading the catalogue."""

import json
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from orderflow.plain_text import unsafe_character
from orders import domain as rules
from tools import seed

MOUSE = {"productId": "PROD-MOUSE", "name": "Mouse", "price": 24.5, "stock": 10}
VALID: list[dict[str, Any]] = [
    {},
    {"price": 24},
    {"price": 0},
    {"price": 999999.99},
    {"name": 'Café 27" 東京 \U0001f469\u200d\U0001f467'},
    {"productId": "x" * 64},
]
INVALID: list[tuple[dict[str, Any], str]] = [
    ({"name": None}, "name"),
    ({"name": ""}, "name"),
    ({"name": " "}, "name"),
    ({"name": "Mouse\n"}, "name: Value error, the character U+000A is not allowed"),
    ({"name": "\u202eesuoM"}, "name: Value error, the character U+202E is not allowed"),
    ({"price": "24.50"}, "price: Value error, not a JSON number"),
    ({"price": True}, "price"),
    ({"price": None}, "price"),
    ({"price": -5}, "price: Input should be greater than or equal to 0"),
    ({"price": 19.999}, "price: Decimal input should have no more than 2 decimal places"),
    ({"price": 1_000_000}, "price: Input should be less than 1000000"),
    ({"productId": "PROD MOUSE"}, "productId"),
    ({"productId": "x" * 65}, "productId"),
]


def written(tmp_path: Path, *rows: Any) -> Path:
    path = tmp_path / "seed.json"
    path.write_text(json.dumps({"products": rows}))
    return path


def catalogue_row(row: dict[str, Any]) -> dict[str, Any]:
    """What DynamoDB would return for a seeded row."""
    price = row["price"]
    number = isinstance(price, int | float) and not isinstance(price, bool)
    return {**row, "price": Decimal(str(price)) if number else price, "active": True}


@pytest.mark.parametrize("change", VALID)
def test_a_product_that_the_seed_accepts_is_valid_in_the_catalogue(tmp_path: Path, change: dict[str, Any]) -> None:
    row = {**MOUSE, **change}
    (product,) = seed.read_seed(written(tmp_path, row))
    assert product == {**row, "price": Decimal(str(row["price"]))}
    assert not list(rules.product_problems(catalogue_row(row)))


@pytest.mark.parametrize(("change", "problem"), INVALID)
def test_a_product_that_the_catalogue_leaves_out_is_refused_with_file_row_and_field(
    tmp_path: Path, change: dict[str, Any], problem: str
) -> None:
    row = {**MOUSE, **change}
    path = written(tmp_path, MOUSE, row)
    with pytest.raises(seed.InvalidSeed) as raised:
        seed.read_seed(path)
    assert str(raised.value).startswith(f"{path}: product 2 ({row['productId']}): {problem}")
    left_out = list(rules.product_problems(catalogue_row(row)))
    assert [text.split()[0] for text in left_out] == [problem.partition(":")[0]]


def test_a_price_that_dynamodb_cannot_store_is_refused(tmp_path: Path) -> None:
    with pytest.raises(seed.InvalidSeed, match=r"product 1 \(PROD-MOUSE\): price: Value error, not a JSON number"):
        seed.read_seed(written(tmp_path, {**MOUSE, "price": float("nan")}))


def test_the_seed_and_the_catalogue_refuse_the_same_characters() -> None:
    every = list(map(chr, range(sys.maxunicode + 1)))
    assert [text for text in every if seed.UNSAFE.search(text)] == [text for text in every if unsafe_character(text)]


@pytest.mark.parametrize("stock", [-1, 1.5, "10", True, 1_000_001, None])
def test_an_invalid_stock_is_refused(tmp_path: Path, stock: Any) -> None:
    with pytest.raises(seed.InvalidSeed, match=r"product 1 \(PROD-MOUSE\): stock: "):
        seed.read_seed(written(tmp_path, {**MOUSE, "stock": stock}))


def test_every_problem_of_a_file_is_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(seed.InvalidSeed) as raised:
        seed.read_seed(written(tmp_path, {"productId": "A", "stok": 1}, "B"))
    fields = [problem.split(": ")[1:3] for problem in str(raised.value).split("; ")]
    assert [field for product, field in fields if product == "product 1 (A)"] == ["name", "price", "stock", "stok"]
    assert [product for product, _ in fields].count("product 2") == 1


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"products": 1}', "{"])
def test_a_file_of_another_form_is_refused_by_its_name(tmp_path: Path, text: str) -> None:
    path = tmp_path / "seed.json"
    path.write_text(text)
    with pytest.raises(seed.InvalidSeed, match=r"seed\.json is not a JSON file of the form"):
        seed.read_seed(path)


def test_a_file_with_an_invalid_row_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stacks: list[str | None] = []
    monkeypatch.setattr(seed, "find", stacks.append)
    path = written(tmp_path, MOUSE, {**MOUSE, "price": -5})
    assert seed.main(["--file", str(path)]) == 1
    assert stacks == []
    assert "product 2 (PROD-MOUSE): price" in capsys.readouterr().err
