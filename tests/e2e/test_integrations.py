"""What systems outside the application receive: the warehouse's webhook, sales feed, partner bus. Local only."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from localaws.tests.runner import running
from tests.e2e.conftest import Shop, eventually
from tests.variants import add, variant
from tests.webhook import Answer, Webhook, webhook
from tools.http import Api
from tools.own_stack import PREPARE
from tools.stack import local_stack

# In AWS, this would be in another account.
PARTNER = """
Resources:
  PartnersBus:
    Type: AWS::Events::EventBus
    Properties: {Name: partners-bus}
  PartnersQueue:
    Type: AWS::SQS::Queue
  PartnersRule:
    Type: AWS::Events::Rule
    Properties:
      EventBusName: !GetAtt PartnersBus.Name
      EventPattern: {source: [{prefix: ""}]}
      Targets: [{Id: Queue, Arn: !GetAtt PartnersQueue.Arn}]
Outputs:
  PartnersQueueUrl: {Value: !Ref PartnersQueue}
"""
PARTNERS_BUS = "arn:aws:events:us-east-1:123456789012:event-bus/partners-bus"


@dataclass
class Integrations:
    """The application with all its integrations.

    Args:
        shop: as its users see it.
        warehouse: its webhook.
    """

    shop: Shop
    warehouse: Webhook

    def order(self, product_id: str, quantity: int = 1) -> str:
        """The id of a new order."""
        answer = self.shop.place((product_id, quantity))
        assert answer.status == 201, answer.body
        return str(answer.body["orderId"])

    def sent_to_the_warehouse(self, order_id: str) -> list[dict[str, Any]]:
        """The events about an order that were sent to the warehouse, with any response."""
        events = [json.loads(call.body) for call in list(self.warehouse.calls)]
        return [event for event in events if event["detail"]["orderId"] == order_id]


@pytest.fixture(scope="module")
def integrations(tmp_path_factory: pytest.TempPathFactory, calls: Path) -> Iterator[Integrations]:
    folder = tmp_path_factory.mktemp("integrations")
    template = variant(folder, lambda template: add(template, PARTNER))
    options = ["--quiet", "--prepare", PREPARE, "--calls", str(calls / "integrations.jsonl")]
    with webhook() as warehouse:
        for name, value in {
            "FulfilmentWebhookUrl": f"{warehouse.url}/orders",
            "FulfilmentWebhookApiKey": "k3y",
            "PartnerEventBusArn": PARTNERS_BUS,
        }.items():
            options += ["--parameter", f"{name}={value}"]
        with running(template, *options):
            stack = local_stack(folder / "state" / "stack.json")
            yield Integrations(Shop(stack, Api(stack, connections=2)), warehouse)


def received(integrations: Integrations, url: str, order_id: str, count: int = 1) -> list[Any]:
    """All messages received from a queue, once so many of them name an order."""
    queue, found = integrations.shop.stack.client("sqs"), []

    def receive_more() -> bool:
        for message in queue.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages", []):
            queue.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
            found.append(message["Body"])
        return sum(order_id in body for body in found) >= count

    eventually(receive_more)
    return [json.loads(body) for body in found]


def test_the_warehouse_receives_confirmed_and_cancelled_orders_with_its_api_key(integrations: Integrations) -> None:
    order = integrations.order(integrations.shop.product(stock=5))
    eventually(lambda: integrations.sent_to_the_warehouse(order))
    integrations.shop.call("POST", f"/orders/{order}/cancellation")
    eventually(lambda: len(integrations.sent_to_the_warehouse(order)) == 2)
    assert [event["detail-type"] for event in integrations.sent_to_the_warehouse(order)] == [
        "Order Confirmed",
        "Order Cancelled",
    ]
    assert {call.headers.get("x-api-key") for call in integrations.warehouse.calls} == {"k3y"}
    assert {(call.method, call.path) for call in integrations.warehouse.calls} == {("POST", "/orders")}


def test_a_delivery_is_retried_while_the_warehouse_is_busy(integrations: Integrations) -> None:
    product = integrations.shop.product(stock=5)
    busy = iter([Answer(503)])
    integrations.warehouse.answer = lambda call: next(busy, Answer()) if product.encode() in call.body else Answer()
    order = integrations.order(product)
    eventually(lambda: len(integrations.sent_to_the_warehouse(order)) == 2)
    first, second = integrations.sent_to_the_warehouse(order)
    assert first == second


def test_an_event_that_the_warehouse_refuses_becomes_a_failed_event_with_the_command_that_sends_it_again(
    integrations: Integrations,
) -> None:
    product = integrations.shop.product(stock=5)
    integrations.warehouse.answer = lambda call: Answer(400 if product.encode() in call.body else 200)
    order = integrations.order(product)

    def failed() -> list[dict[str, Any]]:
        page = integrations.shop.call("GET", "/admin/failed-events?consumer=fulfilment-webhook", user="staff").body
        return [item for item in page["items"] if item.get("orderId") == order]

    (record,) = eventually(failed)
    assert (record["kind"], record["reason"]) == ("UNDELIVERED", "SDK_CLIENT_ERROR")
    assert record["detailType"] == "Order Confirmed"
    assert record["remediation"].startswith("make replay FROM=")
    assert "RULE=fulfilment-webhook NAME=redrive-" in record["remediation"]
    assert len(integrations.sent_to_the_warehouse(order)) == 1  # a refusal is not retried


def test_the_sales_feed_contains_only_the_documented_fields_of_a_placed_order(integrations: Integrations) -> None:
    shop = integrations.shop
    queue = shop.stack.client("sqs").create_queue(QueueName="sales-feed-reader")["QueueUrl"]
    reader = f"arn:aws:sqs:us-east-1:123456789012:{queue.rpartition('/')[2]}"
    topic = shop.stack.outputs["SalesFeedTopicArn"]
    attributes = {"RawMessageDelivery": "true"}
    shop.stack.client("sns").subscribe(TopicArn=topic, Protocol="sqs", Endpoint=reader, Attributes=attributes)

    order = integrations.order(shop.product(stock=5, price="10.25"), quantity=2)

    (message,) = received(integrations, queue, order)
    placed = shop.call("GET", f"/orders/{order}/events").body["items"][0]
    assert message == {
        "orderId": order,
        "totalAmount": 20.5,
        "timestamp": placed["detail"]["metadata"]["timestamp"],
        "processedBy": "orderflow",
        "priority": "normal",
    }


def test_a_partner_receives_the_events_of_orders_and_no_other_events_of_the_bus(integrations: Integrations) -> None:
    shop = integrations.shop
    event = {"EventBusName": "orders-event-bus", "Source": "partner.shop", "DetailType": "Sold", "Detail": "{}"}
    assert shop.stack.client("events").put_events(Entries=[event])["FailedEntryCount"] == 0

    order = integrations.order(shop.product(stock=5))

    events = received(integrations, shop.stack.outputs["PartnersQueueUrl"], order, count=2)
    assert {event["source"] for event in events} == {"orders.service"}
    ours = {event["detail-type"] for event in events if event["detail"]["orderId"] == order}
    assert ours == {"Order Placed", "Order Confirmed"}
