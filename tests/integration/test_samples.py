"""Every consumer processes the published samples, of every version, of the events that its rules match."""

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from localaws.event_pattern import EventPattern
from tests.contract.source import source
from tests.contract.test_rules import rules
from tests.integration.support import Api, Aws, Context, line, module
from tests.integration.test_email import set_addresses

SAMPLES = {
    path.stem: json.loads(path.read_text())
    for path in sorted((Path(__file__).parents[2] / "events/schemas/samples").glob("*.json"))
}


def samples_for(target: str) -> list[str]:
    """The names of the samples that a rule sends to this target."""
    patterns = [EventPattern(rule.pattern) for rule in rules().values() if rule.target == target]
    return [name for name, sample in SAMPLES.items() if any(pattern.matches(sample) for pattern in patterns)]


def sample(name: str, **detail: Any) -> dict[str, Any]:
    """A sample with a new eventId, and with these changes of its detail."""
    found = SAMPLES[name]
    metadata = {**found["detail"]["metadata"], "eventId": uuid.uuid4().hex}
    return {**found, "detail": {**found["detail"], "metadata": metadata, **detail}}


HANDLERS = {
    name: resource["Properties"]["Handler"]
    for name, resource in source()["Resources"].items()
    if resource["Type"] == "AWS::Serverless::Function"
}
TARGETS = sorted({rule.target for rule in rules().values()} & set(HANDLERS))


@pytest.mark.parametrize(("target", "name"), [(target, name) for target in TARGETS for name in samples_for(target)])
def test_a_function_processes_each_sample_that_its_rules_match(aws: Aws, api: Api, target: str, name: str) -> None:
    order_id = api.place(line(aws.add_product())).body["orderId"]
    module(HANDLERS[target].removesuffix(".handler")).handler(sample(name, orderId=order_id), Context())


@pytest.mark.parametrize("name", samples_for("InventoryFunction"))
def test_inventory_decides_on_a_sample(aws: Aws, name: str) -> None:
    order_id = f"ORD-{uuid.uuid4()}"
    module("inventory.handler").handler(sample(name, orderId=order_id), Context())
    reservation = aws.reservation(order_id)
    assert reservation is not None
    wanted = {"Order Placed": "OUT_OF_STOCK", "Order Cancelled": "RELEASED"}
    assert reservation["status"] == wanted[SAMPLES[name]["detail-type"]]


@pytest.mark.parametrize("name", samples_for("OrderStatusFunction"))
def test_order_status_moves_an_order_on_by_a_sample(aws: Aws, api: Api, name: str) -> None:
    order_id = api.place(line(aws.add_product())).body["orderId"]
    module("orders.status_handler").handler(sample(name, orderId=order_id), Context())
    wanted = {"Inventory Reserved": "CONFIRMED", "Inventory Out-Of-Stock": "REJECTED"}
    assert api.call("GET", f"/orders/{order_id}").body["status"] == wanted[SAMPLES[name]["detail-type"]]


@pytest.fixture
def email(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[ModuleType, list[bytes]]]:
    """EmailFunction with both addresses, and the mails that SES has accepted."""
    function, mails = module("customer_email.handler"), list[bytes]()
    aws.store.client("sesv2").create_email_identity(EmailIdentity="shop@example.com")
    set_addresses(function, monkeypatch, sender="shop@example.com", sales="sales@example.com")
    aws.store.on_mail = mails.append
    yield function, mails
    aws.store.on_mail = lambda _: None


@pytest.mark.parametrize("name", samples_for("EmailFunction"))
def test_email_sends_an_e_mail_for_a_sample(email: tuple[ModuleType, list[bytes]], name: str) -> None:
    function, mails = email
    function.handler(sample(name), Context())
    (mail,) = mails
    assert SAMPLES[name]["detail"]["orderId"].encode() in mail


@pytest.mark.parametrize("name", samples_for("AnalyticsQueue"))
def test_analytics_counts_a_sample(aws: Aws, name: str) -> None:
    event = sample(name)
    record = {"messageId": "message-1", "body": json.dumps(event)}
    assert module("analytics.counting_handler").handler({"Records": [record]}, Context()) == {"batchItemFailures": []}
    key = {"pk": f"FACT#{event['detail']['metadata']['eventId']}", "sk": "FACT"}
    assert "Item" in aws.table("AnalyticsTableName").get_item(Key=key)
