"""The house rules: this template keeps them, and a function that does not is named with what to add and where."""

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
    source("infrastructure/observability.yaml"),
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
def test_every_function_keeps_the_rule(rule: Rule) -> None:
    found = list(rule(HERE))
    assert not found, "\n".join(found)


@pytest.mark.parametrize("rule", RULES, ids=IDS)
def test_a_function_that_lacks_it_is_named_with_what_to_add_and_where(rule: Rule) -> None:
    found = set(rule(with_a_bare_function())) - set(rule(HERE))

    assert found
    for line in found:
        assert re.match(r"GiftWrapFunction\b.*(: add |: describe |correct )", line)
        assert re.search(r"template\.yaml|observability\.yaml|events/gift_wrap/|test_rules\.py", line)


def test_a_bare_function_does_not_keep_the_event_catalogue_from_being_read() -> None:
    (found,) = [rule for rule in rules(with_a_bare_function().template) if rule.target == "GiftWrapFunction"]

    assert found.name == "OrderPlaced"
    assert found.retry == "185 times in 24 h; then the function 2 times in 6 h"
