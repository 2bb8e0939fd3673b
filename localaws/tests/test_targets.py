"""What the targets of rules receive, with a template of its own: queues, topics, functions, buses. Local only."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from localaws.tests.runner import RunningStack, read_stack, running
from localaws.tests.support import wait_until

TEMPLATE = """
Transform: AWS::Serverless-2016-10-31
Resources:
  Dlq: {Type: AWS::SQS::Queue}
  Raw: {Type: AWS::SQS::Queue}
  Wrapped: {Type: AWS::SQS::Queue}
  Called: {Type: AWS::SQS::Queue}
  Planned: {Type: AWS::SQS::Queue}
  Bus:
    Type: AWS::Events::EventBus
    Properties: {Name: shop-bus}
  OtherBus:
    Type: AWS::Events::EventBus
    Properties: {Name: other-bus}
  Feed:
    Type: AWS::SNS::Topic
    Properties:
      Subscription: [{Protocol: sqs, Endpoint: !GetAtt Wrapped.Arn}]
  RawSubscription:
    Type: AWS::SNS::Subscription
    Properties: {TopicArn: !Ref Feed, Protocol: sqs, Endpoint: !GetAtt Raw.Arn, RawMessageDelivery: true}
  CalledFunction:
    Type: AWS::Serverless::Function
    Properties:
      CodeUri: code/
      Handler: called.handler
      Runtime: python3.13
      Timeout: 60
      Environment: {Variables: {CALLED: !Ref Called}}
      Events:
        Feed:
          Type: SNS
          Properties: {Topic: !Ref Feed}
  SoldRule:
    Type: AWS::Events::Rule
    Properties:
      EventBusName: !Ref OtherBus
      EventPattern: {source: [shop]}
      Targets:
        - Id: Feed
          Arn: !Ref Feed
          InputTransformer:
            InputPathsMap: {n: $.detail.n, name: $.detail.name}
            InputTemplate: |
              {
                "n": <n>,
                "text": "<n> of <name>"
              }
  ForwardRule:
    Type: AWS::Events::Rule
    Properties:
      EventBusName: !Ref Bus
      EventPattern: {source: [shop]}
      Targets: [{Id: Bus, Arn: !GetAtt OtherBus.Arn}]
  MissingRule:
    Type: AWS::Events::Rule
    Properties:
      EventBusName: !Ref Bus
      EventPattern: {source: [missing]}
      Targets:
        - Id: Topic
          Arn: !Sub arn:aws:sns:${AWS::Region}:${AWS::AccountId}:no-such-topic
          DeadLetterConfig: {Arn: !GetAtt Dlq.Arn}
        - Id: NotJson
          Arn: !GetAtt CalledFunction.Arn
          InputTransformer: {InputTemplate: '"one" "two"'}
          DeadLetterConfig: {Arn: !GetAtt Dlq.Arn}
  Disabled:
    Type: AWS::Scheduler::Schedule
    Properties: &schedule
      State: DISABLED
      ScheduleExpression: rate(1 day)
      FlexibleTimeWindow: {Mode: "OFF"}
      Target: {Arn: !GetAtt Planned.Arn, RoleArn: a-role, Input: never}
  Daily:
    Type: AWS::Scheduler::Schedule
    Properties:
      <<: *schedule
      State: ENABLED
      Target: {Arn: !GetAtt Planned.Arn, RoleArn: a-role, Input: at <aws.scheduler.scheduled-time>}
Outputs:
  PlannedUrl: {Value: !Ref Planned}
  DlqUrl: {Value: !Ref Dlq}
  RawUrl: {Value: !Ref Raw}
  WrappedUrl: {Value: !Ref Wrapped}
  CalledUrl: {Value: !Ref Called}
  CalledFunction: {Value: !Ref CalledFunction}
"""
CODE = """
import os

import boto3

def handler(event, context):
    if "Records" not in event:
        return "x" * event["size"]
    for record in event["Records"]:
        boto3.client("sqs").send_message(QueueUrl=os.environ["CALLED"], MessageBody=record["Sns"]["Message"])
"""


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    folder = tmp_path_factory.mktemp("targets")
    (folder / "code").mkdir()
    (folder / "code" / "called.py").write_text(CODE)
    (folder / "template.yaml").write_text(TEMPLATE)
    with running(folder / "template.yaml", "--quiet"):
        yield read_stack(folder / "state")


def publish(shop: RunningStack, source: str) -> None:
    detail = json.dumps({"n": 2, "name": "Tea"})
    entry = {"EventBusName": "shop-bus", "Source": source, "DetailType": "Sold", "Detail": detail}
    assert shop.client("events").put_events(Entries=[entry])["FailedEntryCount"] == 0


def receive(shop: RunningStack, output: str) -> dict[str, Any]:
    """Receives and deletes one message of a queue."""
    queue, url = shop.client("sqs"), shop.outputs[output]

    def receive_one() -> Any:
        return queue.receive_message(QueueUrl=url, MessageAttributeNames=["All"]).get("Messages")

    message: dict[str, Any] = wait_until(receive_one)[0]
    queue.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    return message


def test_a_transformed_event_from_another_bus_reaches_all_subscribers_of_the_topic(shop: RunningStack) -> None:
    publish(shop, "shop")
    assert receive(shop, "RawUrl")["Body"] == '{"n":2,"text":"2 of Tea"}'
    wrapped = json.loads(receive(shop, "WrappedUrl")["Body"])
    assert (wrapped["Type"], wrapped["Message"]) == ("Notification", '{"n":2,"text":"2 of Tea"}')
    assert receive(shop, "CalledUrl")["Body"] == '{"n":2,"text":"2 of Tea"}'


def test_a_rate_schedule_starts_at_once_unless_it_is_disabled(shop: RunningStack) -> None:
    assert re.fullmatch(r"at 2\d{3}-\d\d-\d\dT\d\d:\d\d:\d\dZ", receive(shop, "PlannedUrl")["Body"])
    assert shop.client("sqs").receive_message(QueueUrl=shop.outputs["PlannedUrl"]).get("Messages", []) == []


def test_an_event_that_cannot_be_delivered_goes_to_the_dlq_unchanged(shop: RunningStack) -> None:
    publish(shop, "missing")
    messages = [receive(shop, "DlqUrl"), receive(shop, "DlqUrl")]
    assert all(json.loads(message["Body"])["detail"] == {"n": 2, "name": "Tea"} for message in messages)
    attributes = [message["MessageAttributes"] for message in messages]
    assert {each["ERROR_CODE"]["StringValue"] for each in attributes} == {"NO_RESOURCE", "INVALID_JSON"}
    (rule,) = {each["RULE_ARN"]["StringValue"] for each in attributes}
    assert ":rule/shop-bus/local-MissingRule-" in rule  # CloudFormation's name for a rule without one


@pytest.mark.parametrize(("kind", "limit"), [("RequestResponse", 6_291_456), ("Event", 1_048_576)])
def test_a_request_beyond_lambdas_limit_is_refused(shop: RunningStack, kind: str, limit: int) -> None:
    with pytest.raises(ClientError) as raised:
        shop.client("lambda").invoke(
            FunctionName=shop.outputs["CalledFunction"], InvocationType=kind, Payload=b"1" * (limit + 1)
        )
    assert raised.value.response["Error"]["Code"] == "RequestEntityTooLargeException"
    assert raised.value.response["ResponseMetadata"]["HTTPStatusCode"] == 413


def test_a_response_beyond_lambdas_limit_is_an_error_of_the_function(shop: RunningStack) -> None:
    answer = shop.client("lambda").invoke(
        FunctionName=shop.outputs["CalledFunction"], Payload=json.dumps({"size": 6_291_556})
    )
    assert answer["FunctionError"] == "Unhandled"
    assert json.load(answer["Payload"])["errorType"] == "Function.ResponseSizeTooLarge"
