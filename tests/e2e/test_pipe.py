"""The pipe sends an alert about each failed event that is parked, once."""

import json
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.e2e.conftest import Shop

CUSTOMER = "ada@example.com"


@pytest.fixture
def alerts(shop: Shop) -> Iterator[Callable[[], list[str]]]:
    """Returns all alerts of the pipe so far."""
    topics, queues = shop.stack.client("sns"), shop.stack.client("sqs")
    topic = shop.stack.outputs["AlertTopicArn"]
    name = f"alerts-{uuid.uuid4().hex}"
    url = queues.create_queue(QueueName=name)["QueueUrl"]
    arn = queues.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    allowed = {
        "Effect": "Allow",
        "Principal": {"Service": "sns.amazonaws.com"},
        "Action": "sqs:SendMessage",
        "Resource": arn,
        "Condition": {"ArnEquals": {"aws:SourceArn": topic}},
    }
    policy = json.dumps({"Version": "2012-10-17", "Statement": [allowed]})
    queues.set_queue_attributes(QueueUrl=url, Attributes={"Policy": policy})
    raw = {"RawMessageDelivery": "true"}
    subscription = topics.subscribe(
        TopicArn=topic, Protocol="sqs", Endpoint=arn, Attributes=raw, ReturnSubscriptionArn=True
    )["SubscriptionArn"]
    seen: list[str] = []

    def received() -> list[str]:
        for message in queues.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages", []):
            queues.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
            if "Failed event parked" in message["Body"]:  # the DLQ processor's own alerts come to the topic too
                seen.append(message["Body"])
        return seen

    yield received
    topics.unsubscribe(SubscriptionArn=subscription)
    queues.delete_queue(QueueUrl=url)


def fail(shop: Shop, reason: str) -> str:
    """Creates a failed event of a function that does not exist, and returns its id."""
    event_id = uuid.uuid4().hex
    event = {
        "detail-type": "Order Confirmed",
        "detail": {"orderId": "ORD-0", "customerEmail": CUSTOMER, "metadata": {"eventId": event_id}},
    }
    attributes = {
        "ERROR_CODE": reason,
        "ERROR_MESSAGE": f"{CUSTOMER} is refused",
        "TARGET_ARN": "arn:aws:lambda:us-east-1:123456789012:function:a-function-that-is-gone",
    }
    shop.stack.client("sqs").send_message(
        QueueUrl=shop.stack.outputs["OrderEventsDlqUrl"],
        MessageBody=json.dumps(event),
        MessageAttributes={name: {"DataType": "String", "StringValue": text} for name, text in attributes.items()},
    )
    failure_id = f"a-function-that-is-gone:{event_id}"
    listed = "/admin/failed-events?consumer=a-function-that-is-gone&limit=100"
    shop.eventually(lambda: failure_id in ids(shop.call("GET", listed, user="staff").body))
    return failure_id


def ids(page: dict[str, Any]) -> list[str]:
    return [item["id"] for item in page["items"]]


def act(shop: Shop, failure_id: str, what: str) -> dict[str, Any]:
    answer = shop.call("POST", f"/admin/failed-events/{failure_id}/{what}", user="staff")
    assert answer.status == 200, answer.body
    return dict(answer.body)


def test_a_parked_event_causes_one_alert_and_its_later_changes_cause_none(
    shop: Shop, alerts: Callable[[], list[str]]
) -> None:
    failed, later = fail(shop, "Refused"), fail(shop, "Refused")

    assert act(shop, failed, "park")["status"] == "PARKED"
    assert (act(shop, failed, "redrive")["outcome"], act(shop, failed, "park")["status"]) == ("FAILED", "PARKED")
    act(shop, later, "park")

    shop.eventually(lambda: any(later in alert for alert in alerts()))
    (alert,) = [each for each in alerts() if failed in each]
    assert "consumer: a-function-that-is-gone | reason: Refused | order: ORD-0 |" in alert
    assert f"POST /admin/failed-events/{failed}/redrive" in alert
    assert CUSTOMER not in alert
    assert "<" not in alert
