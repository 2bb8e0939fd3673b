"""template.yaml follows the house rules. A violation names the file, the function and what to add."""

import re
from copy import deepcopy
from dataclasses import replace

import pytest

from tests.contract import test_rules
from tests.contract.house_rules import RULES, Application, Rule, folders_of_fixtures
from tests.contract.source import ROOT, source
from tools.catalogue import rules

HERE = Application(
    source(),
    folders_of_fixtures(ROOT / "events"),
    test_rules.RULES.keys(),
)
IDS = [rule.__name__ for rule in RULES]


def with_a_bare_function() -> Application:
    """The application, and a function that has nothing but a rule."""
    template = deepcopy(HERE.template)
    pattern = {"source": ["orders.service"], "detail-type": ["Order Placed"]}
    template["Resources"]["GiftWrapFunction"] = {
        "Type": "AWS::Serverless::Function",
        "Properties": {"Events": {"OrderPlaced": {"Type": "EventBridgeRule", "Properties": {"Pattern": pattern}}}},
    }
    return replace(HERE, template=template)


@pytest.mark.parametrize("rule", RULES, ids=IDS)
def test_every_function_follows_the_rule(rule: Rule) -> None:
    found = list(rule(HERE))
    assert not found, "\n".join(found)


@pytest.mark.parametrize("rule", RULES, ids=IDS)
def test_a_violation_names_the_file_the_function_and_what_to_add(rule: Rule) -> None:
    found = set(rule(with_a_bare_function())) - set(rule(HERE))

    assert found
    for line in found:
        assert re.match(
            r"(template\.yaml|tests/contract/test_rules\.py|events/gift_wrap/)\S*: GiftWrapFunction: add ", line
        )


def test_the_event_catalogue_can_read_a_function_without_these_properties() -> None:
    (found,) = [rule for rule in rules(with_a_bare_function().template) if rule.target == "GiftWrapFunction"]

    assert found.name == "OrderPlaced"
    assert found.retry == "185 times in 24 h; then the function 2 times in 6 h"
