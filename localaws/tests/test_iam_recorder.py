"""The IAM permissions that a function's AWS calls need."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from localaws.iam_recorder import Calls, needs
from localaws.store import Store

NAMES = {
    "stack-Orders-1": "OrdersTable",
    "stack-Inventory-1": "InventoryFunction",
    "http://127.0.0.1/123456789012/stack-Dlq-1": "Dlq",
}


@pytest.mark.parametrize(
    ("call", "request_", "needed"),
    [
        ("dynamodb.GetItem", {"TableName": "t"}, [("dynamodb:GetItem", "t")]),
        ("dynamodb.Query", {"TableName": "t", "IndexName": "i"}, [("dynamodb:Query", "t/index/i")]),
        ("dynamodb.BatchGetItem", {"RequestItems": {"t": {}}}, [("dynamodb:BatchGetItem", "t")]),
        (
            "dynamodb.TransactWriteItems",
            {"TransactItems": [{"Put": {"TableName": "t"}}, {"ConditionCheck": {"TableName": "u"}}]},
            [("dynamodb:PutItem", "t"), ("dynamodb:ConditionCheckItem", "u")],
        ),
        (
            "dynamodbstreams.GetRecords",
            {"ShardIterator": "arn:aws:dynamodb:r:1:table/t/stream/2026|1|7"},
            [("dynamodb:GetRecords", "t/stream")],
        ),
        ("events.PutEvents", {"Entries": [{"EventBusName": "b"}]}, [("events:PutEvents", "b")]),
        ("lambda.Invoke", {"FunctionName": "arn:aws:lambda:r:1:function:f:live"}, [("lambda:InvokeFunction", "f")]),
        ("sesv2.SendEmail", {"ConfigurationSetName": "c"}, [("ses:SendEmail", "c")]),
        ("sns.Publish", {"TopicArn": "a"}, [("sns:Publish", "a")]),
        ("sqs.SendMessage", {"QueueUrl": "q"}, [("sqs:SendMessage", "q")]),
        ("sts.GetCallerIdentity", {}, [("sts:GetCallerIdentity", "*")]),
    ],
)
def test_a_call_needs(call: str, request_: dict[str, Any], needed: list[tuple[str, str]]) -> None:
    assert list(needs(call, request_)) == needed


def test_each_use_is_recorded_once_with_logical_ids(tmp_path: Path) -> None:
    calls = Calls(tmp_path / "calls.jsonl", NAMES)
    for _ in range(2):
        calls.note("stack-Inventory-1", "dynamodb.Query", {"TableName": "stack-Orders-1", "IndexName": "i"})
    calls.note("stack-Inventory-1", "sqs.SendMessage", {"QueueUrl": "http://127.0.0.1/123456789012/stack-Dlq-1"})
    assert [json.loads(line) for line in (tmp_path / "calls.jsonl").read_text().splitlines()] == [
        ["InventoryFunction", "dynamodb:Query", "OrdersTable/index/i"],
        ["InventoryFunction", "sqs:SendMessage", "Dlq"],
    ]


@dataclass
class Process:
    """The process of a function."""

    function: str = "stack-Inventory-1"

    def kill(self) -> None: ...


@pytest.mark.parametrize(("process", "noted"), [(Process(), 3), (None, 0)])
def test_the_calls_of_functions_are_recorded_and_answered(tmp_path: Path, process: Process | None, noted: int) -> None:
    file = tmp_path / "calls.jsonl"
    store = Store()
    store.start()
    try:
        table = {"TableName": "stack-Orders-1", "BillingMode": "PAY_PER_REQUEST"}
        key = {"AttributeDefinitions": [{"AttributeName": "id", "AttributeType": "S"}]}
        store.client("dynamodb").create_table(**table, **key, KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}])
        topic = store.client("sns").create_topic(Name="alerts")["TopicArn"]
        store.on_call = Calls(file, {**NAMES, topic: "AlertTopic"}).noting(lambda _key: process, store.on_call)
        assert store.client("dynamodb").get_item(TableName="stack-Orders-1", Key={"id": {"S": "1"}})
        assert store.client("sns").publish(TopicArn=topic, Message="{}")
        with pytest.raises(store.client("lambda").exceptions.ResourceNotFoundException):
            store.client("lambda").invoke(FunctionName="stack-Inventory-1", Payload=b'{"TableName": "other"}')
    finally:
        store.stop()
    found = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    assert len(found) == noted
    if noted:
        assert [use[1:] for use in found] == [
            ["dynamodb:GetItem", "OrdersTable"],
            ["sns:Publish", "AlertTopic"],
            ["lambda:InvokeFunction", "InventoryFunction"],
        ]
