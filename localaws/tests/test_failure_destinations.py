"""Failures reach the failure destinations of a template in AWS's formats. Local only: the tests need fast time."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from localaws.tests.runner import RunningStack, read_stack, running
from localaws.tests.support import wait_until

TIME_SCALE = 100
TEMPLATE = """
Transform: AWS::Serverless-2016-10-31
Globals:
  Function:
    CodeUri: code/
    Runtime: python3.13
    Timeout: 300 # 3 seconds; each of three attempts to sleep takes as long
Resources:
  Dlq:
    Type: AWS::SQS::Queue
  Bus:
    Type: AWS::Events::EventBus
    Properties: {Name: shop-bus}
  TakerFunction:
    Type: AWS::Serverless::Function
    Properties:
      Handler: taker.of_event
      EventInvokeConfig: &dlq
        DestinationConfig: {OnFailure: {Type: SQS, Destination: !GetAtt Dlq.Arn}}
      Events:
        Shop:
          Type: EventBridgeRule
          Properties:
            EventBusName: !GetAtt Bus.Name
            Pattern: {source: [shop]}
  ClosedFunction:
    Type: AWS::Serverless::Function
    Properties:
      Handler: taker.of_event
      ReservedConcurrentExecutions: 0
      EventInvokeConfig: *dlq
      Events:
        Closed:
          Type: EventBridgeRule
          Properties:
            EventBusName: !GetAtt Bus.Name
            Pattern: {source: [closed]}
  MissingTargetRule:
    Type: AWS::Events::Rule
    Properties:
      Name: missing-target
      EventBusName: !GetAtt Bus.Name
      EventPattern: {source: [missing]}
      Targets:
        - Id: Missing
          Arn: !Sub arn:aws:lambda:${AWS::Region}:${AWS::AccountId}:function:no-such-function
          DeadLetterConfig: {Arn: !GetAtt Dlq.Arn}
  Table:
    Type: AWS::DynamoDB::Table
    Properties:
      BillingMode: PAY_PER_REQUEST
      AttributeDefinitions: [{AttributeName: pk, AttributeType: S}]
      KeySchema: [{AttributeName: pk, KeyType: HASH}]
      StreamSpecification: {StreamViewType: NEW_AND_OLD_IMAGES}
  ReaderFunction:
    Type: AWS::Serverless::Function
    Properties:
      Handler: taker.of_records
      Timeout: 900 # 9 seconds: it makes clients
      Environment: {Variables: {SEEN: !Ref Seen}}
      Events:
        Stream:
          Type: DynamoDB
          Properties:
            Stream: !GetAtt Table.StreamArn
            StartingPosition: TRIM_HORIZON
            BisectBatchOnFunctionError: true
            MaximumRetryAttempts: 1
            DestinationConfig: {OnFailure: {Type: SQS, Destination: !GetAtt Dlq.Arn}}
  Seen:
    Type: AWS::SQS::Queue
Outputs:
  DlqUrl: {Value: !Ref Dlq}
  SeenUrl: {Value: !Ref Seen}
  TableName: {Value: !Ref Table}
"""
CODE = """
import os
import time

import boto3

def of_event(event, context):
    what = event["detail"]["do"]
    if what == "sleep":
        time.sleep(60)
    if what == "exit":
        os._exit(3)
    raise ValueError(what)

def of_records(event, context):
    keys = [record["dynamodb"]["Keys"]["pk"]["S"] for record in event["Records"]]
    if "poison" in keys:
        raise ValueError("poison")
    for key in keys:
        boto3.client("sqs").send_message(QueueUrl=os.environ["SEEN"], MessageBody=key)
"""


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    folder = tmp_path_factory.mktemp("shop")
    (folder / "code").mkdir()
    (folder / "code" / "taker.py").write_text(CODE)
    (folder / "template.yaml").write_text(TEMPLATE)
    with running(folder / "template.yaml", "--quiet", "--time-scale", str(TIME_SCALE)):
        yield read_stack(folder / "state")


def publish(shop: RunningStack, source: str, do: str = "raise") -> str:
    entry = {"EventBusName": "shop-bus", "Source": source, "DetailType": "Sold", "Detail": json.dumps({"do": do})}
    return str(shop.client("events").put_events(Entries=[entry])["Entries"][0]["EventId"])


def messages(shop: RunningStack, output: str, number: int) -> list[dict[str, Any]]:
    """Receives and deletes so many messages of a queue, and fails if there are more."""
    queue, url = shop.client("sqs"), shop.outputs[output]
    found: list[dict[str, Any]] = []

    def receive() -> bool:
        answer = queue.receive_message(QueueUrl=url, MaxNumberOfMessages=10, MessageAttributeNames=["All"])
        for message in answer.get("Messages", []):
            queue.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
            found.append(message)
        return len(found) >= number

    wait_until(receive)
    assert len(found) == number
    return found


@pytest.mark.parametrize(
    ("do", "error"), [("raise", "ValueError"), ("sleep", "Sandbox.Timedout"), ("exit", "Runtime.ExitError")]
)
def test_a_function_that_fails_three_times_leaves_an_invocation_record(shop: RunningStack, do: str, error: str) -> None:
    event_id = publish(shop, "shop", do)
    (message,) = messages(shop, "DlqUrl", 1)
    record = json.loads(message["Body"])
    context = record["requestContext"]
    assert (context["condition"], context["approximateInvokeCount"]) == ("RetriesExhausted", 3)
    assert record["requestPayload"]["id"] == event_id
    assert record["responsePayload"]["errorType"] == error
    assert "MessageAttributes" not in message


def test_a_function_throttled_to_zero_leaves_an_invocation_record_and_no_rule_message(shop: RunningStack) -> None:
    event_id = publish(shop, "closed")
    (message,) = messages(shop, "DlqUrl", 1)
    record = json.loads(message["Body"])
    context = record["requestContext"]
    assert (context["condition"], context["approximateInvokeCount"]) == ("ZeroReservedConcurrency", 0)
    assert record["requestPayload"]["id"] == event_id


def test_an_event_for_a_missing_target_goes_to_the_dlq_with_the_reason(shop: RunningStack) -> None:
    event_id = publish(shop, "missing")
    (message,) = messages(shop, "DlqUrl", 1)
    attributes = {name: value["StringValue"] for name, value in message["MessageAttributes"].items()}
    assert json.loads(message["Body"])["id"] == event_id
    assert attributes["ERROR_CODE"] == "NO_RESOURCE"
    assert attributes["RULE_ARN"].endswith(":rule/shop-bus/missing-target")
    assert attributes["TARGET_ARN"].endswith(":no-such-function")


def test_a_poison_record_leaves_a_pointer_and_the_other_records_are_processed(shop: RunningStack) -> None:
    table = shop.client("dynamodb")
    for key in ("one", "poison", "two"):
        table.put_item(TableName=shop.outputs["TableName"], Item={"pk": {"S": key}})
    assert {message["Body"] for message in messages(shop, "SeenUrl", 2)} == {"one", "two"}
    (message,) = messages(shop, "DlqUrl", 1)
    pointer = json.loads(message["Body"])
    assert pointer["requestContext"]["condition"] == "RetryAttemptsExhausted"
    assert pointer["DDBStreamBatchInfo"]["batchSize"] == 1
    assert "poison" not in message["Body"]
