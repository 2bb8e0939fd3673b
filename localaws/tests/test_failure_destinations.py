"""Events and records reach the destinations of a template in AWS's formats. Local only: the tests need fast time."""

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
  ConsumerFunction:
    Type: AWS::Serverless::Function
    Properties:
      Handler: consumer.of_event
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
      Handler: consumer.of_event
      ReservedConcurrentExecutions: 0
      EventInvokeConfig: *dlq
      Events:
        Closed:
          Type: EventBridgeRule
          Properties:
            EventBusName: !GetAtt Bus.Name
            Pattern: {source: [closed]}
  SuccessFunction:
    Type: AWS::Serverless::Function
    Properties:
      Handler: consumer.succeed
      EventInvokeConfig:
        DestinationConfig: {OnSuccess: {Type: Lambda, Destination: !GetAtt RecordFunction.Arn}}
  RecordFunction:
    Type: AWS::Serverless::Function
    Properties:
      Handler: consumer.of_record
      Timeout: 900 # 9 seconds: it makes a client
      Environment: {Variables: {SEEN: !Ref Seen}}
  ToBusFunction:
    Type: AWS::Serverless::Function
    Properties:
      Handler: consumer.fail
      EventInvokeConfig:
        MaximumRetryAttempts: 0
        DestinationConfig: {OnFailure: {Type: EventBridge, Destination: !GetAtt Bus.Arn}}
  LambdaRule:
    Type: AWS::Events::Rule
    Properties:
      EventBusName: !GetAtt Bus.Name
      EventPattern: {source: [lambda]}
      Targets: [{Id: Seen, Arn: !GetAtt Seen.Arn}]
  ToTopicFunction:
    Type: AWS::Serverless::Function
    Properties:
      Handler: consumer.fail
      DeadLetterQueue: {Type: SNS, TargetArn: !Ref Topic}
      EventInvokeConfig:
        MaximumRetryAttempts: 0
        DestinationConfig: {OnFailure: {Type: SNS, Destination: !Ref Topic}}
  Topic:
    Type: AWS::SNS::Topic
  Subscription:
    Type: AWS::SNS::Subscription
    Properties: {TopicArn: !Ref Topic, Protocol: sqs, Endpoint: !GetAtt Seen.Arn, RawMessageDelivery: true}
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
      Handler: consumer.of_records
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
import json
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

def succeed(event, context):
    return {"sold": event["n"]}

def fail(event, context):
    raise ValueError("none left")

def of_record(event, context):
    boto3.client("sqs").send_message(QueueUrl=os.environ["SEEN"], MessageBody=json.dumps(event))

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
    (folder / "code" / "consumer.py").write_text(CODE)
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


def invoke(shop: RunningStack, function: str) -> str:
    """Invokes a function asynchronously and returns the request ID."""
    answer = shop.client("lambda").invoke(
        FunctionName=shop.functions[function], InvocationType="Event", Payload=b'{"n": 1}'
    )
    return str(answer["ResponseMetadata"]["RequestId"])


def test_the_record_of_a_success_invokes_a_function(shop: RunningStack) -> None:
    request_id = invoke(shop, "SuccessFunction")
    (message,) = messages(shop, "SeenUrl", 1)
    record = json.loads(message["Body"])
    context = record["requestContext"]
    assert (context["condition"], context["requestId"]) == ("Success", request_id)
    assert (record["requestPayload"], record["responsePayload"]) == ({"n": 1}, {"sold": 1})


def test_the_record_of_a_failure_is_an_event_on_a_bus(shop: RunningStack) -> None:
    request_id = invoke(shop, "ToBusFunction")
    (message,) = messages(shop, "SeenUrl", 1)
    event = json.loads(message["Body"])
    bus, function = event["resources"]
    assert event["detail-type"] == "Lambda Function Invocation Result - Failure"
    assert (bus.rpartition(":")[2], function) == (
        "event-bus/shop-bus",
        event["detail"]["requestContext"]["functionArn"],
    )
    assert event["detail"]["requestContext"]["requestId"] == request_id
    assert event["detail"]["responsePayload"]["errorMessage"] == "none left"


def test_a_topic_gets_the_record_and_the_event_of_a_failure(shop: RunningStack) -> None:
    request_id = invoke(shop, "ToTopicFunction")
    event, record = sorted(messages(shop, "SeenUrl", 2), key=lambda message: len(message["Body"]))
    attributes = {name: (value["DataType"], value["StringValue"]) for name, value in event["MessageAttributes"].items()}
    assert json.loads(event["Body"]) == {"n": 1}
    assert attributes == {
        "RequestID": ("String", request_id),
        "ErrorCode": ("Number", "200"),
        "ErrorMessage": ("String", "none left"),
    }
    assert json.loads(record["Body"])["requestContext"]["requestId"] == request_id


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
