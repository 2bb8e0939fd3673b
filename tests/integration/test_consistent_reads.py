"""Reads that a decision depends on are strongly consistent. The tests check the requests: moto's reads always are."""

import json
import uuid
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from tests.integration.support import Api, Aws, Context, answering, line, module, order_event

STAFF = {"sub": "staff-1", "token_use": "id", "cognito:groups": "[staff]"}


def reads(aws: Aws, output: str) -> list[bool]:
    """Returns, for each GetItem and BatchGetItem of a table, whether the functions requested a consistent read.

    Args:
        output: the name of the stack output that holds the table's name.
    """
    table = aws.stack.outputs[output]
    gets = [request for operation, request in aws.requests if operation == "GetItem" and request["TableName"] == table]
    batches = [request["RequestItems"] for operation, request in aws.requests if operation == "BatchGetItem"]
    found = gets + [batch[table] for batch in batches if table in batch]
    return [request.get("ConsistentRead", False) for request in found]


@pytest.fixture
def order_id(aws: Aws, api: Api) -> str:
    order_id = str(api.place(line(aws.add_product())).body["orderId"])
    aws.requests.clear()
    return order_id


@pytest.mark.parametrize(
    ("method", "path"), [("GET", ""), ("GET", "/events"), ("POST", "/cancellation")], ids=["read", "events", "cancel"]
)
def test_an_order_is_read_consistently(aws: Aws, api: Api, order_id: str, method: str, path: str) -> None:
    api.call(method, f"/orders/{order_id}{path}")
    assert reads(aws, "OrdersTableName") == [True]


def test_the_order_of_an_idempotency_key_is_read_consistently(aws: Aws, api: Api) -> None:
    product, key = aws.add_product(), uuid.uuid4().hex
    placed = api.place(line(product), key=key)
    aws.spoil_product(product, active=False)
    assert api.place(line(product), key=key).body == placed.body
    found = reads(aws, "OrdersTableName")
    assert found
    assert all(found)


def test_an_order_is_settled_on_a_consistent_read(aws: Aws, order_id: str) -> None:
    module("orders.status_handler").handler(order_event("Inventory Reserved", order_id, [("PROD-1", 1)]), Context())
    assert reads(aws, "OrdersTableName") == [True]


def test_a_reservation_is_released_on_a_consistent_read(aws: Aws, order_id: str) -> None:
    module("inventory.handler").handler(order_event("Order Cancelled", order_id, [("PROD-1", 1)]), Context())
    assert reads(aws, "InventoryTableName") == [True]


@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_stock_and_its_changes_are_read_consistently(aws: Aws, method: str) -> None:
    office, path = Api(module("backoffice.handler"), STAFF), f"/admin/products/{aws.add_product(stock=5)}/stock"
    office.call("PUT", path, {"available": 7, "version": 0, "note": "counted"})
    aws.requests.clear()
    office.call(method, path, {"available": 8, "version": 1, "note": "counted"} if method == "PUT" else None)
    assert reads(aws, "InventoryTableName") == [True, True]


@pytest.fixture
def processor(aws: Aws) -> ModuleType:
    return module("dlq_processor.handler")


def process(aws: Aws, processor: ModuleType, event: dict[str, Any]) -> None:
    """Invokes the DLQ processor with an event that EmailFunction has sent to the DLQ."""
    function = aws.stack.resources["EmailFunction"].physical_id
    target = f"arn:aws:lambda:us-east-1:123456789012:function:{function}"
    attributes = {"ERROR_CODE": "MessageRejected", "TARGET_ARN": target}
    message = {
        "messageId": uuid.uuid4().hex,
        "body": json.dumps(event),
        "attributes": {"ApproximateReceiveCount": "1"},
        "messageAttributes": {name: {"stringValue": text, "dataType": "String"} for name, text in attributes.items()},
    }
    assert processor.handler({"Records": [message]}, Context()) == {"batchItemFailures": []}


def test_a_failure_is_counted_on_a_consistent_read_of_its_record(aws: Aws, processor: ModuleType) -> None:
    process(aws, processor, order_event("Order Placed", "ORD-1", [("PROD-1", 1)]))
    assert set(reads(aws, "FailedEventsTableName")) == {True}


def test_an_event_is_redriven_on_a_consistent_read_of_its_record(
    aws: Aws, processor: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    event = order_event("Order Placed", "ORD-1", [("PROD-1", 1)])
    process(aws, processor, event)
    answer = SimpleNamespace(payload=b"null", function_error=None)
    monkeypatch.setattr(aws.store, "on_invoke", answering(lambda *_: answer))
    aws.requests.clear()
    path = f"/admin/failed-events/email:{event['detail']['metadata']['eventId']}/redrive"
    assert Api(module("backoffice.handler"), STAFF).call("POST", path).body["outcome"] == "RESOLVED"
    assert set(reads(aws, "FailedEventsTableName")) == {True}
