"""The input of a target: the documented rules of Input, InputPath and InputTransformer."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localaws.delivery import Undelivered
from localaws.input_transformer import InvalidInput, Match, read_input

RULE = "arn:aws:events:us-east-1:123456789012:rule/shop-bus/sales"
ENVELOPE = {"version": "0", "id": "1", "detail-type": "Sold", "source": "shop", "time": "2026-11-21T18:36:00Z"}
DETAIL = {
    "orderId": "ORD-1",
    "total": 159.8,
    "paid": True,
    "coupon": None,
    "note": 'said "hi"',
    "items": [{"productId": "KEY", "quantity": 2}, {"productId": "MAT"}],
    "address": {"city": "Zürich"},
}


def match(detail: Any) -> Match:
    return Match(ENVELOPE | {"detail": detail}, "sales", RULE, "2026-11-21T18:36:01Z")


def got(detail: Any = DETAIL, /, **target: Any) -> str:
    return read_input(target)(match(detail))


def filled(template: str, detail: Any = DETAIL, /, **paths: str) -> str:
    return got(detail, InputTransformer={"InputPathsMap": paths, "InputTemplate": template})


def test_a_target_without_input_gets_the_event() -> None:
    assert json.loads(got()) == ENVELOPE | {"detail": DETAIL}


def test_a_constant_is_passed_as_it_is() -> None:
    assert got(Input='{"run":  [1.50]}') == '{"run":  [1.50]}'


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("$", ENVELOPE | {"detail": DETAIL}),
        ("$.detail-type", "Sold"),
        ("$.detail.total", 159.8),
        ("$.detail.coupon", None),
        ("$.detail.items[1].productId", "MAT"),
        ("$.detail.items[*].productId", ["KEY", "MAT"]),
        ("$.detail.items[*].quantity", [2]),
        ("$.detail.address.*", ["Zürich"]),
        ("$.detail.items[2]", None),
        ("$.detail.items.productId", None),
        ("$.detail.orderId[0]", None),
        ("$.detail.missing[*]", None),
    ],
)
def test_a_path_gives_the_part_at_its_end(path: str, value: Any) -> None:
    assert json.loads(got(InputPath=path)) == value


def test_a_variable_without_quotes_keeps_its_type_and_the_result_is_one_line() -> None:
    template = """
    {
      "order": <order>,
      "total": <total>,
      "all": [<paid>, <coupon>, <note>],
      "items": <items>
    }
    """
    paths = {name: f"$.detail.{name}" for name in ("total", "paid", "coupon", "note", "items")}
    assert filled(template, order="$.detail.orderId", **paths) == (
        '{"order":"ORD-1","total":159.8,"all":[true,null,"said \\"hi\\""],'
        '"items":[{"productId":"KEY","quantity":2},{"productId":"MAT"}]}'
    )


def test_a_variable_in_quotes_gives_its_text() -> None:
    template = '{"text": "order \\"<order>\\": <total>, <paid>"}'
    paths = {"order": "$.detail.orderId", "total": "$.detail.total", "paid": "$.detail.paid"}
    assert json.loads(filled(template, **paths)) == {"text": 'order "ORD-1": 159.8, true'}


@pytest.mark.parametrize(
    ("path", "text"),
    [("$.detail.items", "[{productId:KEY,quantity:2},{productId:MAT}]"), ("$.detail.items[1]", "{productId:MAT}")],
)
def test_an_object_or_array_in_quotes_is_delivered_by_a_string_template_only(path: str, text: str) -> None:
    assert filled('"got <value>"', value=path) == f'"got {text}"'
    with pytest.raises(Undelivered, match="only a variable without quotes is escaped"):
        filled('{"text": "got <value>"}', value=path)


def test_a_string_template_keeps_its_quotes_and_lines() -> None:
    template = '"<order> costs <total>"\n"in <city>"'
    paths = {"order": "$.detail.orderId", "total": "$.detail.total", "city": "$.detail.address.city"}
    assert filled(template, **paths) == '"ORD-1 costs 159.8"\n"in Zürich"'


def test_a_missing_value_is_an_empty_string() -> None:
    assert filled('{"bare": <gone>, "text": "was <gone>."}', gone="$.detail.gone") == '{"bare":"","text":"was ."}'
    assert filled('"was <gone>."', gone="$.detail.gone") == '"was ."'


def test_a_value_in_quotes_is_not_escaped_and_an_invalid_object_is_not_delivered() -> None:
    assert filled('"<note>"', note="$.detail.note") == '"said "hi""'
    with pytest.raises(Undelivered, match="only a variable without quotes is escaped") as raised:
        filled('{"note": "<note>"}', note="$.detail.note")
    assert (raised.value.code, raised.value.retriable) == ("INVALID_JSON", False)


def test_reserved_variables_need_no_path() -> None:
    template = """{
      "rule": "<aws.events.rule-name>",
      "arn": <aws.events.rule-arn>,
      "at": <aws.events.event.ingestion-time>,
      "envelope": <aws.events.event>
    }"""
    envelope = {name: value for name, value in ENVELOPE.items() if name != "detail-type"} | {"detailType": "Sold"}
    assert json.loads(filled(template)) == {
        "rule": "sales",
        "arn": RULE,
        "at": "2026-11-21T18:36:01Z",
        "envelope": envelope,
    }


def test_angle_brackets_around_no_name_are_text() -> None:
    assert filled('"<total> < 200, <b c>"', total="$.detail.total") == '"159.8 < 200, <b c>"'


def template(text: str, **paths: str) -> dict[str, Any]:
    return {"InputTransformer": {"InputPathsMap": paths, "InputTemplate": text}}


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ({"Input": "{}", "InputPath": "$"}, "Input and InputPath"),
        ({"InputPath": "$", **template('"a"')}, "InputPath and InputTransformer"),
        ({"Input": "hello"}, "not valid JSON"),
        ({"InputPath": "detail"}, "not a path"),
        ({"InputPath": "$.detail['total']"}, "not a path"),
        ({"InputPath": "$..total"}, "not a path"),
        ({"InputPath": "$." + "a" * 255}, "not a path"),
        (template('"<a>"', a="detail"), "not a path"),
        (template('"<a>"', **{"a b": "$"}), "not a valid variable name"),
        (template('"<a>"', **{"a" * 257: "$"}), "not a valid variable name"),
        (template('"a"', **{"aws.events.rule-name": "$"}), "not a valid variable name"),
        (template('"a"', **{f"a{n}": "$" for n in range(101)}), "101 entries"),
        (template('"' + "a" * 8191 + '"'), "8193 characters"),
        (template(""), "0 characters"),
        (template('"<b>"', a="$"), "invalid placeholder b"),
        (template('{"b": <b>}', a="$"), "invalid placeholder b"),
        (template("<a> is <a>", a="$.b") | {"Input": "{}"}, "Input and InputTransformer"),
        (template("a is <a>", a="$"), "neither an object nor quoted strings"),
        (template('{"a": <a>', a="$"), "neither an object nor quoted strings"),
        (template("{<a>: 1}", a="$"), "neither an object nor quoted strings"),
        (template('"<aws.events.event>"'), "value of an object's field"),
        (template("[<aws.events.event.json>]"), "value of an object's field"),
        (template('{"a": "<aws.events.event.json>"}'), "value of an object's field"),
    ],
)
def test_an_invalid_input_is_rejected_with_the_reason(target: dict[str, Any], reason: str) -> None:
    with pytest.raises(InvalidInput, match=reason):
        read_input(target)


def test_a_hundred_paths_and_8192_characters_are_accepted() -> None:
    text = '"' + "a" * 8190 + '"'
    assert filled(text, **{f"a{n}": "$" for n in range(100)}) == text


LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
NESTED = st.recursive(LEAVES, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=10)


@given(st.dictionaries(st.text(), NESTED, max_size=5))
def test_the_variable_for_the_whole_event_gives_the_event(detail: dict[str, Any]) -> None:
    assert json.loads(filled('{"event": <aws.events.event.json>}', detail)) == {"event": match(detail).event}


@given(st.lists(LEAVES, min_size=1, max_size=20))
def test_a_template_of_one_variable_per_leaf_gives_the_leaves_with_their_types(leaves: list[Any]) -> None:
    names = [f"leaf{number}" for number in range(len(leaves))]
    text = "{" + ", ".join(f'"{name}": <{name}>' for name in names) + "}"
    paths = {name: f"$.detail[{number}]" for number, name in enumerate(names)}
    found = json.loads(filled(text, leaves, **paths))
    assert [(type(value), value) for value in found.values()] == [(type(leaf), leaf) for leaf in leaves]
