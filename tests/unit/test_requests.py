"""The validation of `POST /orders`."""

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from orders.domain import Line
from orders.models import MAX_PRODUCTS, PlaceOrderRequest

ADDRESS = {"street": "1 Main St", "city": "Seattle", "state": "WA", "zipCode": "98101", "country": "US"}


def parse(items: list[dict[str, Any]], **more: Any) -> PlaceOrderRequest:
    body = json.dumps({"items": items, "shippingAddress": ADDRESS, **more})
    return PlaceOrderRequest.model_validate_json(body)


def line(product: str = "P-1", quantity: Any = 1, **more: Any) -> dict[str, Any]:
    return {"productId": product, "quantity": quantity, **more}


@given(st.lists(st.tuples(st.sampled_from(["P-1", "P-2", "P-3"]), st.integers(1, 50)), min_size=1, max_size=20))
def test_lines_of_one_product_are_merged_and_nothing_is_lost(lines: list[tuple[str, int]]) -> None:
    merged = parse([line(product, quantity) for product, quantity in lines]).lines()
    assert [entry.product_id for entry in merged] == list(dict.fromkeys(product for product, _ in lines))
    assert sum(entry.quantity for entry in merged) == sum(quantity for _, quantity in lines)


def test_an_order_has_the_defaults_of_the_contract() -> None:
    request = parse([line(price=9.99)])
    assert (request.source, request.promotion_code) == ("web", None)
    assert request.lines() == [Line("P-1", 1, Decimal("9.99"))]


@pytest.mark.parametrize(
    ("items", "named"),
    [
        ([], "at least 1 item"),
        ([line(quantity=0)], "greater than or equal to 1"),
        ([line(quantity=10_001)], "less than or equal to 10000"),
        ([line(quantity=1.5)], "valid integer"),
        ([line(quantity="2")], "valid integer"),
        ([line(quantity=True)], "valid integer"),
        ([line(quantity=6_000), line(quantity=4_001)], "10001 of P-1 in all"),
        ([line(price=-1)], "greater than or equal to 0"),
        ([line(price=1.999)], "2 decimal places"),
        ([line(price=1), line(price=2)], "different prices"),
        ([line(product="no spaces")], "match pattern"),
        ([line(colour="red")], "Extra inputs"),
        ([line(f"P-{number}") for number in range(MAX_PRODUCTS + 1)], "at most 90 distinct products, not 91"),
    ],
)
def test_an_invalid_line_is_refused_with_the_reason(items: list[dict[str, Any]], named: str) -> None:
    with pytest.raises(ValidationError, match=named):
        parse(items)


def test_the_largest_number_of_products_is_accepted() -> None:
    assert len(parse([line(f"P-{number}") for number in range(MAX_PRODUCTS)]).lines()) == MAX_PRODUCTS


def test_the_largest_quantity_of_a_product_is_accepted_from_several_lines() -> None:
    (merged,) = parse([line(quantity=6_000), line(quantity=4_000)]).lines()
    assert merged.quantity == 10_000


@pytest.mark.parametrize(
    "more",
    [
        {"promotioncode": "SPRING10"},
        {"source": "fax"},
        {"promotionCode": ""},
        {"shippingAddress": {**ADDRESS, "country": "usa"}},
        {"shippingAddress": {**ADDRESS, "street": "  "}},
        {"shippingAddress": {name: text for name, text in ADDRESS.items() if name != "zipCode"}},
    ],
)
def test_a_field_that_is_unknown_or_wrong_is_refused(more: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        parse([line()], **more)


UNSAFE = [0x00, 0x09, 0x0A, 0x0D, 0x1B, 0x1F, 0x7F, 0x80, 0x85, 0x9F, 0x2028, 0x2029, 0x202A, 0x202E, 0x2066, 0x2069]
CUSTOMER = {"customerId": "customer-2", "customerEmail": "bob@example.com"}


def errors_of(body: dict[str, Any]) -> list[tuple[str, str]]:
    """The field and the message of each error in a staff member's order."""
    with pytest.raises(ValidationError) as raised:
        PlaceOrderRequest.model_validate_json(json.dumps(body))
    return [(".".join(map(str, error["loc"])), error["msg"]) for error in raised.value.errors()]


@pytest.mark.parametrize("code_point", UNSAFE)
@pytest.mark.parametrize("field", ["street", "city", "state", "zipCode"])
def test_an_address_with_a_control_or_direction_character_is_refused_by_its_field(field: str, code_point: int) -> None:
    address = {**ADDRESS, field: f"1{chr(code_point)}2"}
    ((found, message),) = errors_of({"items": [line()], "shippingAddress": address, **CUSTOMER})
    assert found == f"shippingAddress.{field}"
    assert f"U+{code_point:04X}" in message


@pytest.mark.parametrize("code_point", UNSAFE)
@pytest.mark.parametrize(("field", "text"), [("customerId", "customer{}2"), ("customerEmail", "b{}ob@example.com")])
def test_a_customer_with_a_control_or_direction_character_is_refused_by_its_field(
    field: str, text: str, code_point: int
) -> None:
    customer = {**CUSTOMER, field: text.format(chr(code_point))}
    ((found, _),) = errors_of({"items": [line()], "shippingAddress": ADDRESS, **customer})
    assert found == field


@pytest.mark.parametrize(
    "street",
    [
        "Côte d'Ivoire 3\u20135",
        "O\u2019Brien's Ľubľana",
        "東京都千代田区1-1",
        "\U0001f469\u200d\U0001f469\u200d\U0001f467 Straße",
        "שדרות\u200f 5",
        "شارع\u061c 5",
        "नई दिल्ली",
    ],
)
def test_an_address_in_any_language_is_accepted_unchanged(street: str) -> None:
    request = parse([line()], shippingAddress={**ADDRESS, "street": f" {street}\n"})
    assert request.shipping_address.street == street


def test_the_fingerprint_differs_between_orders_and_not_between_spellings() -> None:
    same = [parse([line(quantity=3, price=1.5)]), parse([line(quantity=1, price=1.50), line(quantity=2, price=1.5)])]
    assert same[0].fingerprint() == same[1].fingerprint()
    assert same[0].fingerprint() != parse([line(quantity=3)]).fingerprint()


@pytest.mark.parametrize(
    ("spellings", "other"),
    [
        (["24.5", "24.50", "24.5e0", "2.45e1", '"24.5"', '"24.50"', '"24.5e0"', '"2450e-2"', '" 24.5 "'], "24.51"),
        (["20", "20.0", "2e1", '"20"', '"20.00"', '"2E+1"'], "2"),
        (["0", "0.00", "-0", '"-0.0"', '"0e5"'], "0.01"),
    ],
)
def test_the_fingerprint_does_not_depend_on_how_a_price_is_written(spellings: list[str], other: str) -> None:
    def fingerprint(price: str) -> str:
        body = json.dumps({"items": [line(price="PRICE")], "shippingAddress": ADDRESS}).replace('"PRICE"', price)
        return PlaceOrderRequest.model_validate_json(body).fingerprint()

    assert len({fingerprint(price) for price in spellings}) == 1
    assert fingerprint(other) != fingerprint(spellings[0])
