"""Who hears of orders outside the application: the warehouse's webhook, the sales feed, a partner's bus. Local only."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.changed_copy import Change, changed_copy
from tests.e2e.conftest import Shop, eventually
from tests.e2e.runner import running
from tests.webhook import Answer, Webhook, webhook
from tools.http import Api
from tools.own_stack import PREPARE
from tools.stack import local_stack

# In AWS it would be in another account.
PARTNER = """
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
  PartnersQueueUrl:
    Value: !Ref PartnersQueue
"""
PARTNERS_BUS = "arn:aws:events:us-east-1:123456789012:event-bus/partners-bus"


@dataclass
class Neighbours:
    """A copy of the application with everybody it can tell.

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

    def told(self, order_id: str) -> list[dict[str, Any]]:
        """What the warehouse heard of an order, whatever it answered."""
        events = [json.loads(call.body) for call in list(self.warehouse.calls)]
        return [event for event in events if event["detail"]["orderId"] == order_id]


@pytest.fixture(scope="module")
def neighbours(tmp_path_factory: pytest.TempPathFactory, calls: Path) -> Iterator[Neighbours]:
    folder = tmp_path_factory.mktemp("neighbours")
    template = changed_copy(folder, [Change("template.yaml", "\nOutputs:\n", PARTNER)])
    options = ["--quiet", "--prepare", PREPARE, "--calls", str(calls / "neighbours.jsonl")]
    with webhook() as warehouse:
        for name, value in {
            "FulfilmentWebhookUrl": f"{warehouse.url}/orders",
            "FulfilmentWebhookApiKey": "k3y",
            "PartnerEventBusArn": PARTNERS_BUS,
        }.items():
            options += ["--parameter", f"{name}={value}"]
        with running(template, *options):
            stack = local_stack(folder / "state" / "stack.json")
            yield Neighbours(Shop(stack, Api(stack, connections=2)), warehouse)


def received(neighbours: Neighbours, url: str, order_id: str, count: int = 1) -> list[Any]:
    """What came into a queue until so many messages named an order."""
    queue, found = neighbours.shop.stack.client("sqs"), []

    def receive_more() -> bool:
        for message in queue.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages", []):
            queue.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
            found.append(message["Body"])
        return sum(order_id in body for body in found) >= count

    eventually(receive_more)
    return [json.loads(body) for body in found]


def test_the_warehouse_is_told_of_confirmed_and_cancelled_orders_by_whom_it_knows(neighbours: Neighbours) -> None:
    order = neighbours.order(neighbours.shop.product(stock=5))
    eventually(lambda: neighbours.told(order))
    neighbours.shop.call("POST", f"/orders/{order}/cancellation")
    eventually(lambda: len(neighbours.told(order)) == 2)
    assert [event["detail-type"] for event in neighbours.told(order)] == ["Order Confirmed", "Order Cancelled"]
    assert {call.headers.get("x-api-key") for call in neighbours.warehouse.calls} == {"k3y"}
    assert {(call.method, call.path) for call in neighbours.warehouse.calls} == {("POST", "/orders")}


def test_a_warehouse_that_is_busy_is_told_again(neighbours: Neighbours) -> None:
    product = neighbours.shop.product(stock=5)
    busy = iter([Answer(503)])
    neighbours.warehouse.answer = lambda call: next(busy, Answer()) if product.encode() in call.body else Answer()
    order = neighbours.order(product)
    eventually(lambda: len(neighbours.told(order)) == 2)
    first, second = neighbours.told(order)
    assert first == second


def test_what_the_warehouse_refuses_becomes_a_failed_event_that_says_how_to_tell_it_again(
    neighbours: Neighbours,
) -> None:
    product = neighbours.shop.product(stock=5)
    neighbours.warehouse.answer = lambda call: Answer(400 if product.encode() in call.body else 200)
    order = neighbours.order(product)

    def failed() -> list[dict[str, Any]]:
        page = neighbours.shop.call("GET", "/admin/failed-events?consumer=fulfilment-webhook", user="staff").body
        return [item for item in page["items"] if item.get("orderId") == order]

    (record,) = eventually(failed)
    assert (record["kind"], record["reason"]) == ("UNDELIVERED", "SDK_CLIENT_ERROR")
    assert record["detailType"] == "Order Confirmed"
    assert record["mend"].startswith("make replay FROM=")
    assert "RULE=fulfilment-webhook NAME=redrive-" in record["mend"]
    assert len(neighbours.told(order)) == 1  # a refusal is not tried again


def test_the_sales_feed_has_what_it_needs_of_a_placed_order_and_nothing_else(neighbours: Neighbours) -> None:
    shop = neighbours.shop
    queue = shop.stack.client("sqs").create_queue(QueueName="sales-feed-reader")["QueueUrl"]
    reader = f"arn:aws:sqs:us-east-1:123456789012:{queue.rpartition('/')[2]}"
    topic = shop.stack.outputs["SalesFeedTopicArn"]
    attributes = {"RawMessageDelivery": "true"}
    shop.stack.client("sns").subscribe(TopicArn=topic, Protocol="sqs", Endpoint=reader, Attributes=attributes)

    order = neighbours.order(shop.product(stock=5, price="10.25"), quantity=2)

    (message,) = received(neighbours, queue, order)
    placed = shop.call("GET", f"/orders/{order}/events").body["items"][0]
    assert message == {
        "orderId": order,
        "totalAmount": 20.5,
        "timestamp": placed["detail"]["metadata"]["timestamp"],
        "processedBy": "orderflow",
        "priority": "normal",
    }


def test_a_partner_hears_of_orders_and_not_of_what_others_put_on_the_bus(neighbours: Neighbours) -> None:
    shop = neighbours.shop
    stranger = {"EventBusName": "orders-event-bus", "Source": "partner.shop", "DetailType": "Sold", "Detail": "{}"}
    assert shop.stack.client("events").put_events(Entries=[stranger])["FailedEntryCount"] == 0

    order = neighbours.order(shop.product(stock=5))

    events = received(neighbours, shop.stack.outputs["PartnersQueueUrl"], order, count=2)
    assert {event["source"] for event in events} == {"orders.service"}
    ours = {event["detail-type"] for event in events if event["detail"]["orderId"] == order}
    assert ours == {"Order Placed", "Order Confirmed"}
