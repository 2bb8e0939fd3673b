"""The rules of template.yaml: which events and replays each one matches, its target and its retries."""

import json
from collections.abc import Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from localaws.event_pattern import EventPattern
from orderflow.contracts import DETAILS
from orders.domain import MAX_TOTAL
from tests.contract.source import application

ROOT = Path(__file__).parents[2]
RESOURCES = application()["Resources"]
# Of high value and with a promotion, so that every rule that wants its event wants this one.
DETAIL = json.loads((ROOT / "events/email/high_value_order_placed.json").read_text())["detail"]
DETAIL["metadata"]["promotionCode"] = "SPRING10"
DLQ = {"Arn": {"Fn::GetAtt": ["OrderEventsDlq", "Arn"]}}

TWO_HOURS = {"MaximumRetryAttempts": 2, "MaximumEventAgeInSeconds": 7200}
ONE_HOUR = {"MaximumRetryAttempts": 3, "MaximumEventAgeInSeconds": 3600}
ONE_DAY = {"MaximumRetryAttempts": 185, "MaximumEventAgeInSeconds": 86400}
SAMPLES = {*DETAILS, ("somebody.else", "Order Placed")}
ORDERS = {sample for sample in DETAILS if sample[0] == "orders.service"}

# The names of replays; None is for an event that is not replayed.
REPLAYS = (None, "repair-of-november", "redrive-0k3v", "to-staging-november")
YES, NO, REDRIVES, STAGING_ONLY = {*REPLAYS}, {None}, {None, "redrive-0k3v"}, {"to-staging-november"}


@dataclass(frozen=True)
class Wanted:
    """The expected properties of a rule.

    Args:
        events: source and detail-type of what the rule matches.
        replays: in which replays it matches them.
        target: the logical id of what gets them, or the parameter that names it.
        retry: the target's retry policy; None for EventBridge's own.
        condition: without which there is no such rule.
    """

    events: set[tuple[str, str]]
    replays: Set[str | None]
    target: str
    retry: dict[str, int] | None
    condition: str | None = None


RULES = {
    "order-to-inventory": Wanted({("orders.service", "Order Placed")}, YES, "InventoryFunction", TWO_HOURS),
    "order-cancelled-to-inventory": Wanted(
        {("orders.service", "Order Cancelled")}, YES, "InventoryFunction", TWO_HOURS
    ),
    "inventory-to-order-status": Wanted(
        {("inventory.service", "Inventory Reserved"), ("inventory.service", "Inventory Out-Of-Stock")},
        YES,
        "OrderStatusFunction",
        TWO_HOURS,
    ),
    "high-value-order-email": Wanted({("orders.service", "Order Placed")}, NO, "EmailFunction", ONE_HOUR),
    "order-outcome-email": Wanted(
        {("orders.service", f"Order {outcome}") for outcome in ("Confirmed", "Rejected", "Cancelled")},
        NO,
        "EmailFunction",
        ONE_HOUR,
    ),
    "promo-code-analytics": Wanted({("orders.service", "Order Placed")}, YES, "AnalyticsQueue", None),
    "sales-analytics": Wanted(
        {("orders.service", "Order Confirmed"), ("orders.service", "Order Cancelled")}, YES, "AnalyticsQueue", None
    ),
    "sales-feed": Wanted({("orders.service", "Order Placed")}, REDRIVES, "SalesFeedTopic", None),
    "fulfilment-webhook": Wanted(
        {("orders.service", "Order Confirmed"), ("orders.service", "Order Cancelled")},
        REDRIVES,
        "FulfilmentWebhook",
        ONE_DAY,
        "HasFulfilmentWebhook",
    ),
    "partner-bus": Wanted(ORDERS, REDRIVES, "PartnerEventBusArn", None, "HasPartnerBus"),
    "replay-to-staging": Wanted(ORDERS, STAGING_ONLY, "StagingEventBusArn", None, "HasStagingBus"),
    "all-events-log": Wanted(SAMPLES, NO, "EventLogGroup", None),
}


@dataclass(frozen=True)
class Rule:
    """A rule of the template: a resource of its own, or an event of a function."""

    pattern: dict[str, Any]
    bus: Any
    target: str
    retry: dict[str, int] | None
    dead_letters: Any
    condition: str | None = None


def rules() -> dict[str, Rule]:
    return {**_explicit(), **_of_functions()}


def _explicit() -> dict[str, Rule]:
    found = {}
    for resource in RESOURCES.values():
        if resource["Type"] != "AWS::Events::Rule":
            continue
        rule = resource["Properties"]
        (target,) = rule["Targets"]
        (named,) = [
            name
            for name in (*RESOURCES, *application()["Parameters"])
            if target["Arn"] in ({"Fn::GetAtt": [name, "Arn"]}, {"Ref": name}) or f"${{{name}}}" in str(target["Arn"])
        ]
        found[rule["Name"]] = Rule(
            rule["EventPattern"],
            rule["EventBusName"],
            named,
            target.get("RetryPolicy"),
            target.get("DeadLetterConfig"),
            resource.get("Condition"),
        )
    return found


def _of_functions() -> dict[str, Rule]:
    found = {}
    for name, resource in RESOURCES.items():
        for event_name, event in resource.get("Properties", {}).get("Events", {}).items():
            if event["Type"] != "EventBridgeRule":
                continue
            rule = event["Properties"]
            found[rule.get("RuleName", event_name)] = Rule(
                rule["Pattern"], rule.get("EventBusName"), name, rule.get("RetryPolicy"), rule.get("DeadLetterConfig")
            )
    return found


def event(source: str, detail_type: str, replay: str | None = None) -> dict[str, Any]:
    found: dict[str, Any] = {"source": source, "detail-type": detail_type, "detail": DETAIL}
    return found if replay is None else found | {"replay-name": replay}


def test_the_template_has_these_rules_and_no_others() -> None:
    assert set(rules()) == set(RULES)


@pytest.mark.parametrize("replay", REPLAYS)
@pytest.mark.parametrize("name", RULES)
def test_a_rule_matches_its_events_and_the_replays_that_it_accepts_and_no_others(name: str, replay: str | None) -> None:
    pattern = EventPattern(rules()[name].pattern)
    matched = {sample for sample in SAMPLES if pattern.matches(event(*sample, replay))}
    assert matched == (RULES[name].events if replay in RULES[name].replays else set())


@pytest.mark.parametrize(
    ("total", "matches"), [(999.99, False), (1000, False), (1000.01, True), (float(MAX_TOTAL), True)]
)
def test_a_high_value_order_is_above_1000(total: float, matches: bool) -> None:
    placed = event("orders.service", "Order Placed")
    pattern = EventPattern(rules()["high-value-order-email"].pattern)
    assert pattern.matches({**placed, "detail": {**DETAIL, "totalAmount": total}}) is matches


def test_a_placed_order_is_sent_to_analytics_only_with_a_promotion() -> None:
    placed = event("orders.service", "Order Placed")
    metadata = {name: value for name, value in DETAIL["metadata"].items() if name != "promotionCode"}
    pattern = EventPattern(rules()["promo-code-analytics"].pattern)
    assert not pattern.matches({**placed, "detail": {**DETAIL, "metadata": metadata}})


@pytest.mark.parametrize("name", RULES)
def test_a_rule_has_its_target(name: str) -> None:
    assert rules()[name].target == RULES[name].target


@pytest.mark.parametrize("name", RULES)
def test_a_rule_has_its_retry_policy_and_the_dlq(name: str) -> None:
    rule = rules()[name]
    assert rule.retry == RULES[name].retry
    assert rule.dead_letters == DLQ


@pytest.mark.parametrize("name", RULES)
def test_a_rule_has_the_condition_of_its_target(name: str) -> None:
    assert rules()[name].condition == RULES[name].condition


@pytest.mark.parametrize("name", RULES)
def test_a_rule_is_on_our_bus(name: str) -> None:
    assert rules()[name].bus == {"Fn::GetAtt": ["OrdersEventBus", "Name"]}
