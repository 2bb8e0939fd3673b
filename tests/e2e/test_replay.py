"""Replays from the archive: which rules deliver past events again, and which do not. Local only."""

import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from localaws.tests.runner import running
from tests.customer import ADDRESS
from tests.e2e.conftest import Shop, eventually
from tests.variants import Template, add, variant
from tests.webhook import Webhook, webhook
from tools.http import Api
from tools.own_stack import PREPARE
from tools.reconcile import BusRecord, read_table, scanner
from tools.replay import start, wait
from tools.stack import Stack, local_stack

STAGING = "arn:aws:events:us-east-1:123456789012:event-bus/staging-bus"
TARGETS = """
Resources:
  StagingBus:
    Type: AWS::Events::EventBus
    Properties: {Name: staging-bus}
  StagingQueue:
    Type: AWS::SQS::Queue
    Properties: {QueueName: staging}
  StagingRule:
    Type: AWS::Events::Rule
    Properties:
      EventBusName: !Ref StagingBus
      EventPattern: {source: [orders.service]}
      Targets: [{Id: Queue, Arn: !GetAtt StagingQueue.Arn}]
"""


def change(template: Template) -> None:
    add(template, TARGETS)
    queue = template["Resources"]["AnalyticsFunction"]["Properties"]["Events"]["Queue"]
    queue["Properties"]["MaximumBatchingWindowInSeconds"] = 1


def subscribe_queue(stack: Stack, name: str) -> None:
    """Creates a queue that receives the sales feed."""
    arn = f"arn:aws:sqs:us-east-1:123456789012:{name}"
    stack.client("sqs").create_queue(QueueName=name)
    stack.client("sns").subscribe(
        TopicArn=stack.outputs["SalesFeedTopicArn"],
        Protocol="sqs",
        Endpoint=arn,
        Attributes={"RawMessageDelivery": "true"},
    )


@dataclass
class Replaying:
    """The application with an archive.

    Args:
        shop: the running application.
        warehouse: the endpoint of the webhook.
        record: the events on the bus.
        begun: a time before the first order.
    """

    shop: Shop
    warehouse: Webhook
    record: BusRecord
    begun: datetime

    def order(self, stock: int = 5, cancelled: bool = False) -> str:
        """The id of an order for one thing, whose events have reached all consumers."""
        body = {"items": [{"productId": self.shop.product(stock), "quantity": 1}], "shippingAddress": ADDRESS}
        answer = self.shop.call(
            "POST",
            "/orders",
            headers={"content-type": "application/json"},
            body=json.dumps(body | {"promotionCode": "REPLAY"}),
        )
        order_id = str(answer.body["orderId"])
        outcome = self.shop.outcome(order_id)["status"]
        assert outcome == ("CONFIRMED" if stock else "REJECTED")
        if cancelled:
            assert self.shop.call("POST", f"/orders/{order_id}/cancellation").status == 202
        wanted = 2 if cancelled else 1
        eventually(lambda: self.mails(order_id) == wanted)
        eventually(lambda: len(self.sent_to_the_warehouse(order_id)) == (wanted if stock else 0))
        self.settle()
        return order_id

    def settle(self) -> None:
        """Wait until the bus has delivered everything up to now, and analytics has counted it."""
        mark = uuid.uuid4().hex
        entry = {"Source": "test", "DetailType": "Mark", "Detail": json.dumps({"mark": mark})}
        bus = self.shop.stack.outputs["EventBusName"]
        self.shop.stack.client("events").put_events(Entries=[{**entry, "EventBusName": bus}])
        eventually(lambda: any(event["detail"].get("mark") == mark for event in self.record.new()))
        eventually(self.nothing_to_count)

    def nothing_to_count(self) -> bool:
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        url = self.shop.stack.outputs["AnalyticsQueueUrl"]
        found = self.shop.stack.client("sqs").get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]
        return all(found[name] == "0" for name in names)

    def replay(self, *rules: str, name: str = "") -> str:
        """Replays all events to these rules, or to all rules if there are none. Returns the name of the replay."""
        stack, name = self.shop.stack, name or f"repair-{uuid.uuid4().hex}"
        end = datetime.now(UTC) + timedelta(seconds=1)
        if rules:
            start(stack, self.begun, end, rules, name)
        else:
            stack.client("events").start_replay(
                ReplayName=name,
                EventSourceArn=stack.outputs["EventArchiveArn"],
                EventStartTime=self.begun,
                EventEndTime=end,
                Destination={"Arn": stack.outputs["EventBusArn"]},
            )
        assert wait(stack, name) is not None
        return name

    def mails(self, order_id: str) -> int:
        """How many mails there are about an order."""
        assert self.shop.stack.mails is not None
        return len(list(self.shop.stack.mails.glob(f"*{order_id.lower()}*.eml")))

    def sent_to_the_warehouse(self, order_id: str) -> list[tuple[str, str]]:
        """The events about an order that the warehouse received, sorted: detail-type, and the replay's name or ""."""
        events = [json.loads(call.body) for call in self.warehouse.calls]
        ours = (event for event in events if event["detail"]["orderId"] == order_id)
        return sorted((event["detail-type"], event.get("replay-name", "")) for event in ours)

    def received(self, queue: str) -> list[dict[str, Any]]:
        """Receives and deletes the messages of a queue."""
        sqs, found = self.shop.stack.client("sqs"), list[dict[str, Any]]()
        url = sqs.get_queue_url(QueueName=queue)["QueueUrl"]
        while messages := sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages"):
            found += [json.loads(message["Body"]) for message in messages]
            for message in messages:
                sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
        return found

    def counted(self) -> dict[tuple[str, str], dict[str, Any]]:
        """The analytics table: facts and counters, without the time of counting."""
        items = read_table(scanner(self.shop.stack), self.shop.stack.outputs["AnalyticsTableName"])
        kept = ({name: value for name, value in item.items() if name != "countedAt"} for item in items)
        return {(item["pk"], item["sk"]): item for item in kept}

    def forget_what_was_counted(self) -> None:
        table = self.shop.stack.resource("dynamodb").Table(self.shop.stack.outputs["AnalyticsTableName"])
        for pk, sk in self.counted():
            table.delete_item(Key={"pk": pk, "sk": sk})
        assert self.counted() == {}


@pytest.fixture(scope="module")
def replaying(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replaying]:
    parameters = {
        "SenderEmail": "shop@example.com",
        "FulfilmentWebhookApiKey": "made-up",
        "StagingEventBusArn": STAGING,
    }
    options = [option for name, value in parameters.items() for option in ("--parameter", f"{name}={value}")]
    folder = tmp_path_factory.mktemp("replaying")
    begun = datetime.now(UTC).replace(microsecond=0)  # an event's time is cut to the second
    with webhook() as warehouse:
        options += ["--parameter", f"FulfilmentWebhookUrl={warehouse.url}/orders"]
        with running(variant(folder, change), "--quiet", "--prepare", PREPARE, *options):
            stack = local_stack(folder / "state" / "stack.json")
            subscribe_queue(stack, "feed")
            yield Replaying(Shop(stack, Api(stack, connections=4)), warehouse, BusRecord(stack), begun)


def test_a_consumer_that_counted_the_events_before_counts_none_twice(replaying: Replaying) -> None:
    replaying.order()
    replaying.order(cancelled=True)
    before = replaying.counted()
    replaying.replay("promo-code-analytics", "sales-analytics")
    replaying.settle()
    assert replaying.counted() == before
    assert len([pk for pk, _ in before if pk.startswith("FACT#")]) >= 5  # two placed, two confirmed, one cancelled


def test_a_new_consumer_catches_up_from_the_archive(replaying: Replaying) -> None:
    replaying.order()
    replaying.order(cancelled=True)
    replaying.order(stock=0)
    before = replaying.counted()
    replaying.forget_what_was_counted()
    replaying.replay("promo-code-analytics", "sales-analytics")
    replaying.settle()
    assert replaying.counted() == before


def test_a_replay_to_every_rule_reaches_no_integration_and_changes_nothing(replaying: Replaying) -> None:
    order_id = replaying.order(cancelled=True)
    before, sent = replaying.counted(), replaying.sent_to_the_warehouse(order_id)
    order = replaying.shop.call("GET", f"/orders/{order_id}").body
    replaying.received("feed")
    replaying.replay()
    replaying.settle()
    assert replaying.counted() == before
    follow_up = replaying.order()  # its mails and calls come behind those of the replay
    assert (replaying.mails(order_id), replaying.mails(follow_up)) == (2, 1)
    assert replaying.sent_to_the_warehouse(order_id) == sent
    assert [line["orderId"] for line in replaying.received("feed")] == [follow_up]
    assert replaying.shop.call("GET", f"/orders/{order_id}").body == order
    assert replaying.received("staging") == []


def test_a_replay_to_the_webhook_reaches_no_other_target(replaying: Replaying) -> None:
    order_id = replaying.order(cancelled=True)
    sent, before = replaying.sent_to_the_warehouse(order_id), replaying.counted()
    replaying.received("feed")
    name = replaying.replay("fulfilment-webhook", name=f"redrive-{uuid.uuid4().hex}")
    again = [("Order Confirmed", name), ("Order Cancelled", name)]
    eventually(lambda: replaying.sent_to_the_warehouse(order_id) == sorted(sent + again))
    replaying.settle()
    assert replaying.received("feed") == []  # its pattern accepts this replay, but the replay names another rule
    assert replaying.received("staging") == []
    assert (replaying.mails(order_id), replaying.counted()) == (2, before)


def test_a_replay_to_staging_reaches_no_other_target(replaying: Replaying) -> None:
    order_id = replaying.order(cancelled=True)
    sent = replaying.sent_to_the_warehouse(order_id)
    replaying.received("feed")
    name = replaying.replay("replay-to-staging", name=f"to-staging-{uuid.uuid4().hex}")
    replaying.settle()
    there = [event for event in replaying.received("staging") if event["detail"]["orderId"] == order_id]
    types = ["Order Placed", "Order Confirmed", "Order Cancelled"]
    assert [event["detail-type"] for event in there] == types
    assert {event["replay-name"] for event in there} == {name}
    assert (replaying.sent_to_the_warehouse(order_id), replaying.mails(order_id), replaying.received("feed")) == (
        sent,
        2,
        [],
    )
