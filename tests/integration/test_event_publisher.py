"""EventPublisherFunction against moto, with the stream records of the services' own writes."""

import json
import traceback
from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any

import pytest
from botocore.exceptions import ClientError

from event_publisher import domain
from orderflow.contracts import DETAILS
from tests.integration.support import Api, Aws, Context, line, log_lines, measured, module, order_event


@pytest.fixture
def publisher(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    found = module("event_publisher.handler")
    monkeypatch.setattr(found, "deliver", partial(found.deliver, pause=lambda _: None))
    return found


@pytest.fixture
def order_id(api: Api, aws: Aws) -> str:
    return str(api.place(line(aws.add_product(), 2)).body["orderId"])


def publish(publisher: ModuleType, records: list[dict[str, Any]]) -> list[str]:
    answer = publisher.handler({"Records": records}, Context())
    return [failure["itemIdentifier"] for failure in answer["batchItemFailures"]]


def publish_from(publisher: ModuleType, aws: Aws, order_id: str, sequence: Any = 1) -> Any:
    """Send an explicit request for an order's events."""
    table = aws.stack.outputs["OrdersTableName"]
    request = {"table": table, "key": {"orderId": order_id}, "fromSequence": sequence}
    return publisher.handler(request, Context())


def sequence_number(record: dict[str, Any]) -> str:
    return str(record["dynamodb"]["SequenceNumber"])


def test_a_new_order_is_published_whole(aws: Aws, publisher: ModuleType, order_id: str) -> None:
    assert publish(publisher, aws.records_of(order_id)) == []
    (entry,) = aws.published
    assert (entry["Source"], entry["DetailType"]) == ("orders.service", "Order Placed")
    assert entry["EventBusName"] == "orders-event-bus"
    detail = json.loads(entry["Detail"])
    DETAILS["orders.service", "Order Placed"].model_validate(detail)
    assert (detail["orderId"], detail["metadata"]["sequence"]) == (order_id, 1)


def test_only_events_that_the_old_image_lacks_are_published(
    aws: Aws, api: Api, publisher: ModuleType, order_id: str
) -> None:
    api.call("POST", f"/orders/{order_id}/cancellation")
    _, change = aws.records_of(order_id)
    publish(publisher, [change])
    assert [entry["DetailType"] for entry in aws.published] == ["Order Cancelled"]
    detail = json.loads(aws.published[0]["Detail"])
    DETAILS["orders.service", "Order Cancelled"].model_validate(detail)
    assert (detail["reason"], detail["metadata"]["sequence"]) == ("CANCELLED_BY_CUSTOMER", 2)


def test_every_new_event_of_a_record_is_published_in_order(
    aws: Aws, api: Api, publisher: ModuleType, order_id: str
) -> None:
    api.call("POST", f"/orders/{order_id}/cancellation")
    _, change = aws.records_of(order_id)
    del change["dynamodb"]["OldImage"]  # as if both events were one write
    assert publish(publisher, [change]) == []
    assert [entry["DetailType"] for entry in aws.published] == ["Order Placed", "Order Cancelled"]


def test_every_record_of_a_batch_is_published_when_it_needs_several_requests(
    aws: Aws, api: Api, publisher: ModuleType
) -> None:
    product = aws.add_product()
    placed = [str(api.place(line(product)).body["orderId"]) for _ in range(23)]
    records = [record for order_id in placed for record in aws.records_of(order_id)]
    assert publish(publisher, records) == []
    assert [json.loads(entry["Detail"])["orderId"] for entry in aws.published] == placed


def test_a_later_record_of_an_order_is_published_after_the_earlier_one(
    aws: Aws, api: Api, publisher: ModuleType, order_id: str
) -> None:
    api.call("POST", f"/orders/{order_id}/cancellation")
    throttled = iter([{"ErrorCode": "ThrottlingException", "ErrorMessage": "slow down"}])
    aws.answer = lambda entry: next(throttled, {}) if entry["DetailType"] == "Order Placed" else {}
    assert publish(publisher, aws.records_of(order_id)) == []
    assert [entry["DetailType"] for entry in aws.published] == ["Order Placed", "Order Cancelled"]


def test_events_of_reservations_have_the_source_of_inventory(aws: Aws, publisher: ModuleType, order_id: str) -> None:
    stock = module("inventory.handler")
    product = aws.add_product(stock=5)
    for detail_type in ("Order Placed", "Order Cancelled"):
        stock.handler(order_event(detail_type, order_id, [(product, 2)]), Context())
    publish(publisher, aws.records_of(f"RESERVATION#{order_id}"))
    assert [entry["DetailType"] for entry in aws.published] == ["Inventory Reserved", "Inventory Released"]
    for entry in aws.published:
        assert entry["Source"] == "inventory.service"
        DETAILS[entry["Source"], entry["DetailType"]].model_validate(json.loads(entry["Detail"]))
    assert json.loads(aws.published[1]["Detail"])["released"] == [{"productId": product, "quantity": 2}]


def test_an_event_has_the_trace_of_the_request_that_stored_it(
    aws: Aws, api: Api, publisher: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1"
    monkeypatch.setenv("_X_AMZN_TRACE_ID", trace)
    order_id = api.place(line(aws.add_product())).body["orderId"]
    publish(publisher, aws.records_of(order_id))
    assert aws.published[0]["TraceHeader"] == trace


def test_only_the_records_whose_events_failed_are_reported(
    aws: Aws, api: Api, publisher: ModuleType, order_id: str
) -> None:
    other = api.place(line(aws.add_product())).body["orderId"]
    api.call("POST", f"/orders/{order_id}/cancellation")
    aws.answer = lambda entry: (
        {"ErrorCode": "ThrottlingException", "ErrorMessage": "slow down"}
        if json.loads(entry["Detail"])["orderId"] == order_id
        else {}
    )
    records = aws.records_of(order_id) + aws.records_of(other)
    failed = publish(publisher, records)
    assert failed == [sequence_number(record) for record in aws.records_of(order_id)]
    assert [json.loads(entry["Detail"])["orderId"] for entry in aws.published] == [other]


def test_an_event_that_the_bus_refuses_goes_unchanged_to_the_dlq_and_is_counted(
    aws: Aws, publisher: ModuleType, order_id: str, output: Callable[[], str]
) -> None:
    aws.answer = lambda _: {"ErrorCode": "MalformedDetail", "ErrorMessage": "Detail is malformed."}
    output()
    assert publish(publisher, aws.records_of(order_id)) == []
    assert measured(output(), "PublishFailures") == [1.0]
    (message,) = aws.dlq()
    assert message["MessageAttributes"]["ERROR_CODE"]["StringValue"] == "MalformedDetail"
    event = json.loads(message["Body"])
    assert (event["source"], event["detail-type"]) == ("orders.service", "Order Placed")
    DETAILS["orders.service", "Order Placed"].model_validate(event["detail"])


def test_a_message_in_the_dlq_names_the_function_and_the_request_that_publishes_its_event_later(
    aws: Aws, api: Api, publisher: ModuleType, order_id: str
) -> None:
    api.call("POST", f"/orders/{order_id}/cancellation")
    aws.answer = lambda _: {"ErrorCode": "MalformedDetail", "ErrorMessage": "Detail is malformed."}
    publish(publisher, aws.records_of(order_id))
    aws.answer = lambda _: {}
    _, cancelled = aws.dlq()
    attributes = {name: value["StringValue"] for name, value in cancelled["MessageAttributes"].items()}
    assert attributes["TARGET_ARN"] == Context().invoked_function_arn
    request = json.loads(attributes["REDRIVE_PAYLOAD"])
    table = aws.stack.outputs["OrdersTableName"]
    assert request == {"table": table, "key": {"orderId": order_id}, "fromSequence": 2}
    assert publisher.handler(request, Context()) == {"published": 1}
    assert json.loads(aws.published[0]["Detail"]) == json.loads(cancelled["Body"])["detail"]


def test_an_event_that_is_too_large_goes_to_the_dlq_and_the_rest_of_the_batch_is_published(
    aws: Aws, api: Api, publisher: ModuleType, order_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = api.place(*(line(aws.add_product()) for _ in range(20))).body["orderId"]
    monkeypatch.setattr(domain, "MAX_BYTES", 1500)
    assert publish(publisher, aws.records_of(many) + aws.records_of(order_id)) == []
    assert [json.loads(entry["Detail"])["orderId"] for entry in aws.published] == [order_id]
    (message,) = aws.dlq()
    assert message["MessageAttributes"]["ERROR_CODE"]["StringValue"] == "EventTooLarge"
    assert "PutEvents accepts 1500" in message["MessageAttributes"]["ERROR_MESSAGE"]["StringValue"]
    assert json.loads(message["Body"])["detail"]["orderId"] == many


def test_an_event_of_exactly_the_largest_size_is_published(
    aws: Aws, publisher: ModuleType, order_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(publisher, aws.records_of(order_id))
    (entry,) = aws.published
    texts = (entry["Source"], entry["DetailType"], entry["Detail"])
    aws.published.clear()
    monkeypatch.setattr(domain, "MAX_BYTES", 14 + sum(len(text.encode()) for text in texts))
    assert publish(publisher, aws.records_of(order_id)) == []
    assert len(aws.published) == 1
    assert aws.dlq() == []


def test_an_unreadable_record_goes_to_the_dlq_and_the_rest_of_the_batch_is_published(
    aws: Aws, publisher: ModuleType, order_id: str
) -> None:
    (good,) = aws.records_of(order_id)
    corrupt = json.loads(json.dumps(good))
    corrupt["dynamodb"]["NewImage"]["events"]["L"][0]["M"].pop("data")
    assert publish(publisher, [corrupt, good]) == []
    assert len(aws.published) == 1
    (message,) = aws.dlq()
    assert message["MessageAttributes"]["ERROR_CODE"]["StringValue"] == "UnreadableRecord"
    assert json.loads(message["Body"]) == corrupt
    request = json.loads(message["MessageAttributes"]["REDRIVE_PAYLOAD"]["StringValue"])
    table = aws.stack.outputs["OrdersTableName"]
    assert request == {"table": table, "key": {"orderId": order_id}, "fromSequence": 1}


@pytest.mark.parametrize("cause", ["MalformedDetail", "EventTooLarge", "UnreadableRecord"])
def test_a_batch_fails_if_its_unpublishable_event_cannot_be_sent_to_the_dlq(
    aws: Aws, publisher: ModuleType, order_id: str, monkeypatch: pytest.MonkeyPatch, cause: str
) -> None:
    (record,) = aws.records_of(order_id)
    if cause == "MalformedDetail":
        aws.answer = lambda _: {"ErrorCode": "MalformedDetail", "ErrorMessage": "Detail is malformed."}
    elif cause == "EventTooLarge":
        monkeypatch.setattr(domain, "MAX_BYTES", 100)
    else:
        record["dynamodb"]["NewImage"]["events"]["L"][0]["M"].pop("data")

    def refuse(**_: Any) -> None:
        raise ClientError({"Error": {"Code": "RequestThrottled", "Message": "slow down"}}, "SendMessage")

    with monkeypatch.context() as broken:
        broken.setattr(publisher.queue, "send_message", refuse)
        with pytest.raises(ClientError):
            publish(publisher, [record])
    assert publish(publisher, [record]) == []
    assert [message["MessageAttributes"]["ERROR_CODE"]["StringValue"] for message in aws.dlq()] == [cause]


def test_the_content_of_an_unreadable_record_is_not_logged(
    aws: Aws, publisher: ModuleType, order_id: str, output: Callable[[], str]
) -> None:
    (record,) = aws.records_of(order_id)
    record["dynamodb"]["NewImage"]["events"]["L"][0]["M"]["time"]["S"] = "ada@example.com"  # which the error quotes
    assert publish(publisher, [record]) == []
    printed = output()
    (logged,) = [entry for entry in log_lines(printed) if entry.get("message") == "stream record not readable"]
    assert (logged["record_id"], logged["error"]) == (record["eventID"], "ValueError")
    assert "event_publisher" in logged["stack"]
    assert "ada@" not in printed
    (message,) = aws.dlq()
    assert "ada@example.com" in message["MessageAttributes"]["ERROR_MESSAGE"]["StringValue"]


def test_a_record_without_events_publishes_nothing(aws: Aws, publisher: ModuleType) -> None:
    product = aws.add_product(stock=5)
    assert publish(publisher, aws.records_of(f"PRODUCT#{product}")) == []
    assert aws.published == []
    assert aws.dlq() == []


def test_published_and_failed_events_are_counted(
    aws: Aws, api: Api, publisher: ModuleType, order_id: str, output: Callable[[], str]
) -> None:
    other = api.place(line(aws.add_product())).body["orderId"]
    aws.answer = lambda entry: (
        {"ErrorCode": "InternalFailure"} if json.loads(entry["Detail"])["orderId"] == order_id else {}
    )
    publish(publisher, aws.records_of(order_id) + aws.records_of(other))
    lines = log_lines(output())
    (metrics,) = [entry for entry in lines if "EventsPublished" in entry]
    assert (metrics["EventsPublished"], metrics["PublishFailures"]) == ([1.0], [1.0])
    (published,) = [entry for entry in lines if entry.get("message") == "event published"]
    metadata = json.loads(aws.published[0]["Detail"])["metadata"]
    assert published["order_id"] == other
    assert (published["event_id"], published["correlation_id"]) == (metadata["eventId"], metadata["correlationId"])


# ------------------------------------------------------------------------------------------ explicit requests


@pytest.mark.parametrize(
    ("sequence", "published"), [(1, ["Order Placed", "Order Cancelled"]), (2, ["Order Cancelled"])]
)
def test_a_request_publishes_the_stored_events_from_its_sequence_on(
    aws: Aws, api: Api, publisher: ModuleType, order_id: str, sequence: int, published: list[str]
) -> None:
    api.call("POST", f"/orders/{order_id}/cancellation")
    trail = api.call("GET", f"/orders/{order_id}/events").body["items"]
    assert publish_from(publisher, aws, order_id, sequence) == {"published": len(published)}
    assert [entry["DetailType"] for entry in aws.published] == published
    assert [json.loads(entry["Detail"]) for entry in aws.published] == [event["detail"] for event in trail][
        -len(published) :
    ]


def test_a_request_publishes_the_events_of_a_reservation(aws: Aws, publisher: ModuleType, order_id: str) -> None:
    product = aws.add_product(stock=5)
    module("inventory.handler").handler(order_event("Order Placed", order_id, [(product, 2)]), Context())
    table, key = aws.stack.outputs["InventoryTableName"], {"pk": f"RESERVATION#{order_id}"}
    assert publisher.handler({"table": table, "key": key, "fromSequence": 1}, Context()) == {"published": 1}
    assert [entry["DetailType"] for entry in aws.published] == ["Inventory Reserved"]


def test_a_request_reads_the_item_strongly_consistent(aws: Aws, publisher: ModuleType, order_id: str) -> None:
    aws.requests.clear()
    publish_from(publisher, aws, order_id)
    assert [request["ConsistentRead"] for operation, request in aws.requests if operation == "GetItem"] == [True]


@pytest.mark.parametrize(("stored", "sequence"), [(True, 2), (False, 1)])
def test_a_request_for_events_that_are_not_stored_fails(
    aws: Aws, publisher: ModuleType, order_id: str, stored: bool, sequence: int
) -> None:
    problem = f"^{int(stored)} events are stored, fromSequence is {sequence}$"
    with pytest.raises(publisher.NotPublished, match=problem):
        publish_from(publisher, aws, order_id if stored else "ORD-NONE", sequence)
    assert aws.published == []


@pytest.mark.parametrize(
    ("code", "problem"),
    [("MalformedDetail", "MalformedDetail"), ("ThrottlingException", "EventBridge did not accept them at this time")],
)
def test_a_request_whose_event_is_not_published_fails_and_nothing_goes_to_the_dlq(
    aws: Aws, publisher: ModuleType, order_id: str, code: str, problem: str
) -> None:
    aws.answer = lambda _: {"ErrorCode": code, "ErrorMessage": "no"}
    with pytest.raises(publisher.NotPublished, match=f"^0 of 1 events were published: {problem}$"):
        publish_from(publisher, aws, order_id)
    assert aws.dlq() == []


def test_a_request_for_a_corrupt_item_fails_without_showing_the_items_content(
    aws: Aws, publisher: ModuleType, order_id: str, output: Callable[[], str]
) -> None:
    aws.table("OrdersTableName").update_item(
        Key={"orderId": order_id},
        UpdateExpression="SET events[0].#time = :wrong",
        ExpressionAttributeNames={"#time": "time"},
        ExpressionAttributeValues={":wrong": "ada@example.com"},
    )
    output()
    with pytest.raises(publisher.NotPublished) as failure:
        publish_from(publisher, aws, order_id)
    assert str(failure.value) == "the events of the item cannot be read: ValueError"
    assert "ada@" not in "".join(traceback.format_exception(failure.value))
    assert "ada@" not in output()


def test_an_invalid_request_fails_with_the_field_that_is_wrong(aws: Aws, publisher: ModuleType, order_id: str) -> None:
    with pytest.raises(domain.InvalidRequest, match="fromSequence is not an integer from 1"):
        publish_from(publisher, aws, order_id, "1")
