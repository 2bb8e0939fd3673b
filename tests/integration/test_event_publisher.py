"""EventPublisherFunction against moto: fed with the stream records that the services' own writes make."""

import json
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
from botocore.exceptions import ClientError

from orderflow.contracts import DETAILS
from tests.integration.support import Api, Aws, Context, line, log_lines, measured, module, order_event


@pytest.fixture
def publisher(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    found = module("event_publisher.handler")
    monkeypatch.setattr(found.time, "sleep", lambda _: None)
    return found


@pytest.fixture
def order_id(api: Api, aws: Aws) -> str:
    return str(api.place(line(aws.add_product(), 2)).body["orderId"])


def publish(publisher: ModuleType, records: list[dict[str, Any]]) -> list[str]:
    answer = publisher.handler({"Records": records}, Context())
    return [failure["itemIdentifier"] for failure in answer["batchItemFailures"]]


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


def test_a_later_record_of_an_order_waits_until_the_earlier_one_is_published(
    aws: Aws, api: Api, publisher: ModuleType, order_id: str
) -> None:
    api.call("POST", f"/orders/{order_id}/cancellation")
    throttled = iter([{"ErrorCode": "ThrottlingException", "ErrorMessage": "slow down"}])
    aws.answer = lambda entry: next(throttled, {}) if entry["DetailType"] == "Order Placed" else {}
    assert publish(publisher, aws.records_of(order_id)) == []
    assert [entry["DetailType"] for entry in aws.published] == ["Order Placed", "Order Cancelled"]


def test_reservations_are_published_as_inventorys(aws: Aws, publisher: ModuleType, order_id: str) -> None:
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


def test_the_trace_of_the_request_goes_on_behind_the_stream(
    aws: Aws, api: Api, publisher: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1"
    monkeypatch.setenv("_X_AMZN_TRACE_ID", trace)
    order_id = api.place(line(aws.add_product())).body["orderId"]
    publish(publisher, aws.records_of(order_id))
    assert aws.published[0]["TraceHeader"] == trace


def test_an_entry_that_the_bus_refuses_for_now_is_reported_and_its_neighbours_are_not(
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


def test_an_event_that_the_bus_will_never_take_goes_whole_to_the_dlq_and_is_counted(
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


def test_an_event_that_is_too_large_goes_whole_to_the_dlq_and_the_batch_goes_on(
    aws: Aws, api: Api, publisher: ModuleType, order_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = api.place(*(line(aws.add_product()) for _ in range(20))).body["orderId"]
    monkeypatch.setattr(publisher, "MAX_BYTES", 1500)
    assert publish(publisher, aws.records_of(many) + aws.records_of(order_id)) == []
    assert [json.loads(entry["Detail"])["orderId"] for entry in aws.published] == [order_id]
    (message,) = aws.dlq()
    assert message["MessageAttributes"]["ERROR_CODE"]["StringValue"] == "EventTooLarge"
    assert "where PutEvents takes 1500" in message["MessageAttributes"]["ERROR_MESSAGE"]["StringValue"]
    assert json.loads(message["Body"])["detail"]["orderId"] == many


def test_an_event_of_exactly_the_largest_size_is_published(
    aws: Aws, publisher: ModuleType, order_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(publisher, aws.records_of(order_id))
    (entry,) = aws.published
    texts = (entry["Source"], entry["DetailType"], entry["Detail"])
    aws.published.clear()
    monkeypatch.setattr(publisher, "MAX_BYTES", 14 + sum(len(text.encode()) for text in texts))
    assert publish(publisher, aws.records_of(order_id)) == []
    assert len(aws.published) == 1
    assert aws.dlq() == []


def test_a_record_that_no_service_can_have_written_goes_to_the_dlq_and_the_batch_goes_on(
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


@pytest.mark.parametrize("cause", ["MalformedDetail", "EventTooLarge", "UnreadableRecord"])
def test_a_batch_is_not_acknowledged_when_its_unpublishable_event_does_not_reach_the_dlq(
    aws: Aws, publisher: ModuleType, order_id: str, monkeypatch: pytest.MonkeyPatch, cause: str
) -> None:
    (record,) = aws.records_of(order_id)
    if cause == "MalformedDetail":
        aws.answer = lambda _: {"ErrorCode": "MalformedDetail", "ErrorMessage": "Detail is malformed."}
    elif cause == "EventTooLarge":
        monkeypatch.setattr(publisher, "MAX_BYTES", 100)
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


def test_what_an_unreadable_record_contains_stays_out_of_the_log(
    aws: Aws, publisher: ModuleType, order_id: str, output: Callable[[], str]
) -> None:
    (record,) = aws.records_of(order_id)
    record["dynamodb"]["NewImage"]["events"]["L"][0]["M"]["time"]["S"] = "ada@example.com"  # which the error quotes
    assert publish(publisher, [record]) == []
    printed = output()
    (logged,) = [
        entry for entry in log_lines(printed) if entry.get("message") == "stream record without readable events"
    ]
    assert (logged["record_id"], logged["error"]) == (record["eventID"], "ValueError")
    assert "outbox.py" in logged["stack"]
    assert "ada@" not in printed
    (message,) = aws.dlq()
    assert "ada@example.com" in message["MessageAttributes"]["ERROR_MESSAGE"]["StringValue"]


def test_a_record_without_events_has_nothing_to_say(aws: Aws, publisher: ModuleType) -> None:
    product = aws.add_product(stock=5)
    assert publish(publisher, aws.records_of(f"PRODUCT#{product}")) == []
    assert aws.published == []
    assert aws.dlq() == []


def test_what_was_published_and_what_failed_is_counted(
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
