"""docs/events.md matches the models, the samples and the template."""

from pathlib import Path
from typing import Any

import pytest

from orderflow.contracts import DETAILS
from tests.contract.source import application
from tests.contract.test_rules import RULES
from tools.catalogue import PAGE, STORED_BY, Rule, conditions, current, fields, main, replays, rules

ROOT = Path(__file__).parents[2]
FOUND = {rule.name: rule for rule in rules(application())}
TEXT = current(ROOT)
DLQ = {"Fn::GetAtt": ["OrderEventsDlq", "Arn"]}


def explicit(**rule: Any) -> Rule:
    """Returns the rule of a small template. Its target is a parameter."""
    target = {"Arn": {"Ref": "Bus"}, "DeadLetterConfig": {"Arn": DLQ}, **rule.pop("target", {})}
    properties = {"Name": "a-rule", "EventPattern": {"source": ["orders.service"]}, "Targets": [target]}
    resource = {"Type": "AWS::Events::Rule", "Properties": properties, **rule}
    conditions = {"HasBus": {"Fn::Not": [{"Fn::Equals": [{"Ref": "Bus"}, ""]}]}, "InProd": {"Fn::Equals": ["a", "b"]}}
    (found,) = rules({"Parameters": {"Bus": {}}, "Conditions": conditions, "Resources": {"R": resource}})
    return found


def test_the_committed_page_matches_models_samples_and_template() -> None:
    assert (ROOT / PAGE).read_text() == TEXT, "make catalogue"


def test_the_page_is_written_where_it_is_committed(tmp_path: Path) -> None:
    for name in ("events", "infrastructure", "template.yaml"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / PAGE).parent.mkdir()
    assert main(tmp_path) == 0
    assert (tmp_path / PAGE).read_text() == TEXT


@pytest.mark.parametrize(("source", "detail_type"), DETAILS)
def test_an_event_has_a_section_with_its_source_and_who_stores_it(source: str, detail_type: str) -> None:
    _, _, section = TEXT.partition(f"\n## {detail_type}\n")
    section, _, _ = section.partition("\n## ")
    assert f"`{source}`" in section
    assert f"| stored by | `{STORED_BY[detail_type]}`" in section
    assert '"eventId"' in section


def test_events_are_stored_by_functions_of_the_template() -> None:
    functions = {name for name, resource in application()["Resources"].items() if "Handler" in resource["Properties"]}
    assert set(STORED_BY.values()) <= functions
    assert set(STORED_BY) == {detail_type for _, detail_type in DETAILS}


@pytest.mark.parametrize("name", RULES)
def test_a_rule_is_listed_with_its_target_and_the_events_that_it_wants(name: str) -> None:
    rule = FOUND[name]
    assert rule.target == RULES[name].target
    assert {event for event in DETAILS if rule.wants(*event)} == RULES[name].events & set(DETAILS)


def test_no_other_rule_is_listed() -> None:
    assert set(FOUND) == set(RULES)


def test_the_retries_of_a_function_are_those_of_eventbridge_and_then_of_lambda() -> None:
    assert FOUND["high-value-order-email"].retry == "3 times in 1 h; then the function 2 times in 1 h"


def test_a_target_without_a_retry_policy_has_eventbridges_default_retries() -> None:
    assert explicit().retry == "185 times in 24 h"
    policy = {"MaximumRetryAttempts": 4, "MaximumEventAgeInSeconds": 5400}
    assert explicit(target={"RetryPolicy": policy}).retry == "4 times in 1.5 h"


def test_a_conditional_rule_is_listed_with_its_condition() -> None:
    assert explicit().only_if == ""
    assert explicit(Condition="HasBus").only_if == "only if `Bus` is given"
    assert explicit(Condition="InProd").only_if == "only if `InProd`"


def test_a_rule_with_an_input_transformer_is_listed_with_its_template() -> None:
    assert explicit(target={"InputTransformer": {"InputTemplate": '{"id": <id>}'}}).form == '{"id": <id>}'


@pytest.mark.parametrize(
    ("wanted", "text"),
    [
        (None, "yes"),
        ([{"exists": False}], "no"),
        ([{"exists": False}, {"prefix": "redrive-"}], "if named `redrive-…`"),
        ([{"prefix": "to-staging-"}], "only events of replays named `to-staging-…`"),
    ],
)
def test_a_rule_is_listed_with_the_replays_that_it_accepts(wanted: Any, text: str) -> None:
    assert replays({"source": ["orders.service"]} if wanted is None else {"replay-name": wanted}) == text


def test_conditions_on_a_detail_are_listed_by_their_path() -> None:
    pattern = {"metadata": {"promotionCode": [{"exists": True}]}, "totalAmount": [{"numeric": [">", 1000]}]}
    assert list(conditions(pattern)) == [
        '`metadata.promotionCode` is `[{"exists": true}]`',
        '`totalAmount` is `[{"numeric": [">", 1000]}]`',
    ]


def test_a_field_is_listed_with_its_type_and_description() -> None:
    line = {"description": "A line.", "type": "object", "properties": {"sku": {"type": "string"}}, "required": ["sku"]}
    properties = {
        "kind": {"enum": ["web", "api"]},
        "id": {"type": "string", "pattern": "^A$"},
        "at": {"type": "string", "format": "date-time"},
        "count": {"type": "integer", "minimum": 1, "description": "How many."},
        "lines": {"type": "array", "minItems": 1, "items": line},
        "more": {"type": "object", "properties": {"note": {"type": "string"}}, "required": []},
    }
    required = [name for name in properties if name != "more"]
    assert list(fields({"properties": properties, "required": required})) == [
        "| `kind` | `web` or `api` |  |",
        "| `id` | string, `^A$` |  |",
        "| `at` | string, a time |  |",
        "| `count` | integer, 1 or more | How many. |",
        "| `lines` | array of objects, at least one | A line. |",
        "| `lines[].sku` | string |  |",
        "| `more` | object | Optional. |",
        "| `more.note` | string | Optional. |",
    ]
