"""A SAM template is deployed to a stack with resolved properties, or rejected with a message of one line."""

import re
from pathlib import Path
from typing import Any

import pytest

from localaws.cloudformation import Stack, TemplateError, deploy
from localaws.not_honoured import Report
from localaws.store import Store

TEMPLATE = """
Transform: AWS::Serverless-2016-10-31
Parameters:
  Stage: {Type: String, Default: sandbox}
Conditions:
  Production: !Equals [!Ref Stage, production]
Globals:
  Function:
    CodeUri: code/
    Runtime: python3.13
    Layers: [!Ref SharedLayer]
Resources:
  Api:
    Type: AWS::Serverless::HttpApi
    Properties:
      Auth:
        DefaultAuthorizer: Pool
        Authorizers:
          Pool:
            IdentitySource: $request.header.Authorization
            JwtConfiguration:
              issuer: !Sub https://cognito-idp.${AWS::Region}.amazonaws.com/${UserPool}
              audience: [!Ref Client]
  UserPool:
    Type: AWS::Cognito::UserPool
    Properties:
      UsernameAttributes: [email]
      Policies: {PasswordPolicy: {MinimumLength: 12}}
  Client:
    Type: AWS::Cognito::UserPoolClient
    Properties: {UserPoolId: !Ref UserPool, ExplicitAuthFlows: [ALLOW_USER_PASSWORD_AUTH]}
  Staff:
    Type: AWS::Cognito::UserPoolGroup
    Properties: {UserPoolId: !Ref UserPool, GroupName: staff}
  Orders:
    Type: AWS::DynamoDB::Table
    Properties:
      BillingMode: PAY_PER_REQUEST
      AttributeDefinitions: [{AttributeName: id, AttributeType: S}, {AttributeName: customer, AttributeType: S}]
      KeySchema: [{AttributeName: id, KeyType: HASH}]
      GlobalSecondaryIndexes:
        - IndexName: by-customer
          KeySchema: [{AttributeName: customer, KeyType: HASH}]
          Projection: {ProjectionType: ALL}
      StreamSpecification: {StreamViewType: NEW_AND_OLD_IMAGES}
      TimeToLiveSpecification: {AttributeName: expires, Enabled: true}
      PointInTimeRecoverySpecification: {PointInTimeRecoveryEnabled: true}
  Bus:
    Type: AWS::Events::EventBus
    Properties: {Name: bus}
  DeadLetters:
    Type: AWS::SQS::Queue
  DeadLettersPolicy:
    Type: AWS::SQS::QueuePolicy
    Properties:
      Queues: [!Ref DeadLetters]
      PolicyDocument:
        Statement: [{Effect: Allow, Principal: "*", Action: sqs:SendMessage, Resource: !GetAtt DeadLetters.Arn}]
  Log:
    Type: AWS::Logs::LogGroup
    Properties: {LogGroupName: /aws/events/bus}
  LogRule:
    Type: AWS::Events::Rule
    Properties:
      Name: log
      EventBusName: !Ref Bus
      EventPattern: {detail: {coupon: [null]}}
      Targets:
        - Id: log
          Arn: !GetAtt Log.Arn
          DeadLetterConfig: !If [Production, {Arn: !GetAtt DeadLetters.Arn}, !Ref AWS::NoValue]
        - !If [Production, {Id: more, Arn: !GetAtt DeadLetters.Arn}, !Ref AWS::NoValue]
  Alerts:
    Type: AWS::SNS::Topic
    Condition: Production
    Properties: {TopicName: alerts, Subscription: [{Protocol: email, Endpoint: ops@example.com}]}
  Seller:
    Type: AWS::Serverless::Function
    Properties:
      Handler: seller.handler
      EventInvokeConfig: {MaximumRetryAttempts: 1}
      Environment: {Variables: {TABLE: !Ref Orders, BUS: !GetAtt Bus.Name}}
      Events:
        Sell:
          Type: HttpApi
          Properties: {ApiId: !Ref Api, Method: POST, Path: /orders}
        Sold:
          Type: EventBridgeRule
          Properties:
            EventBusName: !GetAtt Bus.Name
            Pattern: {detail-type: [Sold]}
            RetryPolicy: {MaximumRetryAttempts: 2}
            DeadLetterConfig: {Arn: !GetAtt DeadLetters.Arn}
        Stream:
          Type: DynamoDB
          Properties:
            Stream: !GetAtt Orders.StreamArn
            StartingPosition: TRIM_HORIZON
            FilterCriteria: {Filters: [{Pattern: '{"eventName": ["INSERT"]}'}]}
  SharedLayer:
    Type: AWS::Serverless::LayerVersion
    Properties: {ContentUri: layer/}
Outputs:
  BusArn:
    Value: !GetAtt Bus.Arn
    Export: {Name: !Sub "${AWS::StackName}-BusArn"}
  Alerts:
    Condition: Production
    Value: !Ref Alerts
    Export: {Name: alarm}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "code").mkdir()
    (tmp_path / "layer").mkdir()
    return tmp_path


def deployed(
    store: Store, folder: Path, text: str = TEMPLATE, report: Report | None = None, **parameters: str
) -> Stack:
    path = folder / "template.yaml"
    path.write_text(text)
    return deploy(path, store, stack_name="shop", parameters=parameters, report=report or Report())


def reported(store: Store, folder: Path, text: str = TEMPLATE, **parameters: str) -> list[str]:
    """Deploys a template. Returns what is not honoured, one line each."""
    report = Report()
    deployed(store, folder, text, report, **parameters)
    return report.lines(verbose=True)


def properties(stack: Stack, logical_id: str) -> dict[str, Any]:
    return stack.resources[logical_id].properties


def with_a(resource_type: str, properties: str = "{}", more: str = "") -> str:
    """A template with one resource, `A`, and a folder for functions."""
    return f"""
Transform: AWS::Serverless-2016-10-31
Globals: {{Function: {{CodeUri: code}}}}
Resources:
  A: &a {{Type: {resource_type}, Properties: {properties}}}
{more}
"""


# ------------------------------------------------------------------------------------------ resolved properties


def test_a_function_knows_its_folder_its_layers_and_the_names_in_its_environment(store: Store, folder: Path) -> None:
    stack = deployed(store, folder)

    [layer] = stack.of_type("AWS::Lambda::LayerVersion")
    assert stack.resources["Seller"].local_path == folder / "code"
    assert properties(stack, "Seller")["Layers"] == [layer.physical_id]
    assert re.fullmatch(r"arn:aws:lambda:us-east-1:123456789012:layer:[\w-]+:1", layer.physical_id)
    assert layer.local_path == folder / "layer"
    assert properties(stack, "Seller")["Environment"]["Variables"] == {
        "TABLE": stack.resources["Orders"].physical_id,
        "BUS": "bus",
    }


def test_the_events_of_a_function_become_rules_and_mappings(store: Store, folder: Path) -> None:
    stack = deployed(store, folder)

    rule = properties(stack, "SellerSold")
    queue = f"arn:aws:sqs:us-east-1:123456789012:{stack.resources['DeadLetters'].physical_id.split('/')[-1]}"
    assert rule["EventBusName"] == "bus"
    assert rule["EventPattern"] == {"detail-type": ["Sold"]}
    [target] = rule["Targets"]
    assert target["Arn"].endswith(f":function:{stack.resources['Seller'].physical_id}")
    assert target["RetryPolicy"] == {"MaximumRetryAttempts": 2}
    assert target["DeadLetterConfig"] == {"Arn": queue}
    mapping = properties(stack, "SellerStream")
    table = store.client("dynamodb").describe_table(TableName=stack.resources["Orders"].physical_id)["Table"]
    assert mapping["EventSourceArn"] == table["LatestStreamArn"]
    assert mapping["FilterCriteria"] == {"Filters": [{"Pattern": '{"eventName": ["INSERT"]}'}]}
    assert properties(stack, "SellerEventInvokeConfig")["FunctionName"] == stack.resources["Seller"].physical_id


def test_the_api_has_its_routes_and_an_authorizer_for_the_pool(store: Store, folder: Path) -> None:
    stack = deployed(store, folder)

    body = properties(stack, "Api")["Body"]
    authorizer = body["components"]["securitySchemes"]["Pool"]["x-amazon-apigateway-authorizer"]
    assert authorizer["jwtConfiguration"] == {
        "issuer": f"https://cognito-idp.us-east-1.amazonaws.com/{stack.resources['UserPool'].physical_id}",
        "audience": [stack.resources["Client"].physical_id],
    }
    integration = body["paths"]["/orders"]["post"]["x-amazon-apigateway-integration"]
    assert f":function:{stack.resources['Seller'].physical_id}/invocations" in integration["uri"]


def test_no_value_is_removed_and_a_null_in_a_pattern_is_kept(store: Store, folder: Path) -> None:
    stack = deployed(store, folder)

    rule = properties(stack, "LogRule")
    assert rule["EventPattern"] == {"detail": {"coupon": [None]}}
    assert [target["Id"] for target in rule["Targets"]] == ["log"]
    assert "DeadLetterConfig" not in rule["Targets"][0]
    made = store.client("events").list_targets_by_rule(Rule="log", EventBusName="bus")["Targets"]
    assert [target["Id"] for target in made] == ["log"]


def test_an_archive_keeps_its_pattern_and_has_a_name_and_an_arn(store: Store, folder: Path) -> None:
    text = (
        "Resources:\n  Bus: {Type: AWS::Events::EventBus, Properties: {Name: bus}}\n"
        "  Kept: {Type: AWS::Events::Archive, Properties:"
        " {SourceArn: !GetAtt Bus.Arn, EventPattern: {source: [shop]}, ArchiveName: kept}}\n"
        "  Unnamed: {Type: AWS::Events::Archive, Properties: {SourceArn: !GetAtt Bus.Arn}}\n"
        "Outputs:\n  Name: {Value: !Ref Kept}\n  Arn: {Value: !GetAtt Kept.Arn}\n"
    )
    report = Report()
    stack = deployed(store, folder, text, report)
    assert stack.outputs == {"Name": "kept", "Arn": "arn:aws:events:us-east-1:123456789012:archive/kept"}
    assert properties(stack, "Kept")["EventPattern"] == {"source": ["shop"]}
    assert stack.resources["Unnamed"].physical_id.startswith("shop-Unnamed-")
    assert report.lines(verbose=True) == []


def test_a_ref_to_a_bus_is_its_name(store: Store, folder: Path) -> None:
    stack = deployed(store, folder)

    assert properties(stack, "LogRule")["EventBusName"] == "bus"


@pytest.mark.parametrize(("stage", "made"), [("sandbox", False), ("production", True)])
def test_a_condition_decides_over_a_resource_and_an_output(store: Store, folder: Path, stage: str, made: bool) -> None:
    stack = deployed(store, folder, Stage=stage)

    assert ("Alerts" in stack.resources) is made
    assert ("Alerts" in stack.outputs) is made
    exports = {export["Name"] for export in store.client("cloudformation").list_exports()["Exports"]}
    assert ("alarm" in exports) is made


def test_functions_that_share_a_yaml_anchor_are_independent(store: Store, folder: Path) -> None:
    text = with_a("AWS::Serverless::Function", "{Handler: a.b, Runtime: python3.13}", "  B: *a")

    stack = deployed(store, folder, text)

    functions = stack.of_type("AWS::Lambda::Function")
    assert {resource.properties["Code"]["S3Key"] for resource in functions} == {"A", "B"}


# ---------------------------------------------------------------------------------------------- what is stored


def test_a_table_gets_its_time_to_live_and_recovery(store: Store, folder: Path) -> None:
    name = deployed(store, folder).resources["Orders"].physical_id

    tables = store.client("dynamodb")
    ttl = tables.describe_time_to_live(TableName=name)["TimeToLiveDescription"]
    backups = tables.describe_continuous_backups(TableName=name)["ContinuousBackupsDescription"]
    assert ttl == {"TimeToLiveStatus": "ENABLED", "AttributeName": "expires"}
    assert backups["PointInTimeRecoveryDescription"]["PointInTimeRecoveryStatus"] == "ENABLED"


def test_users_sign_up_and_in_at_the_pool_of_the_template(store: Store, folder: Path) -> None:
    stack = deployed(store, folder)
    client_id, pool_id = stack.resources["Client"].physical_id, stack.resources["UserPool"].physical_id
    cognito = store.client("cognito-idp")
    ann, password = "ann@example.com", "Twelve-Chars-1"

    cognito.sign_up(ClientId=client_id, Username=ann, Password=password)
    cognito.admin_confirm_sign_up(UserPoolId=pool_id, Username=ann)
    cognito.admin_add_user_to_group(UserPoolId=pool_id, Username=ann, GroupName="staff")
    signed_in = cognito.initiate_auth(
        ClientId=client_id, AuthFlow="USER_PASSWORD_AUTH", AuthParameters={"USERNAME": ann, "PASSWORD": password}
    )

    assert signed_in["AuthenticationResult"]["IdToken"]


def test_the_pool_refuses_a_password_that_is_too_short(store: Store, folder: Path) -> None:
    client_id = deployed(store, folder).resources["Client"].physical_id
    cognito = store.client("cognito-idp")

    with pytest.raises(cognito.exceptions.InvalidPasswordException):
        cognito.sign_up(ClientId=client_id, Username="ann@example.com", Password="Eleven-Ch-1")


def test_cloudformation_shows_the_stack_with_its_outputs_and_exports(store: Store, folder: Path) -> None:
    stack = deployed(store, folder)

    client = store.client("cloudformation")
    [shown] = client.describe_stacks(StackName="shop")["Stacks"]
    arn = "arn:aws:events:us-east-1:123456789012:event-bus/bus"
    assert shown["StackStatus"] == "CREATE_COMPLETE"
    assert stack.outputs == {"BusArn": arn}
    assert {output["OutputKey"]: output["OutputValue"] for output in shown["Outputs"]} == stack.outputs
    assert [(export["Name"], export["Value"]) for export in client.list_exports()["Exports"]] == [("shop-BusArn", arn)]
    listed = client.describe_stack_resources(StackName="shop")["StackResources"]
    bus = next(resource for resource in listed if resource["LogicalResourceId"] == "Bus")
    assert bus["PhysicalResourceId"] == "bus"


SUBSCRIPTIONS = """
Resources:
  Topic: {Type: AWS::SNS::Topic}
  Queue: {Type: AWS::SQS::Queue}
  ToQueue:
    Type: AWS::SNS::Subscription
    Properties:
      TopicArn: !Ref Topic
      Protocol: sqs
      Endpoint: !GetAtt Queue.Arn
      RawMessageDelivery: true
      FilterPolicyScope: MessageBody
      FilterPolicy: {kind: [wanted]}
  ToAddress:
    Type: AWS::SNS::Subscription
    Properties: {TopicArn: !Ref Topic, Protocol: https, Endpoint: "https://example.com/"}
"""


def test_a_nested_stack_whose_template_is_not_a_file_is_listed_as_not_run(store: Store, folder: Path) -> None:
    lines = reported(store, folder, with_a("AWS::CloudFormation::Stack", "{TemplateURL: nested.yaml}"))

    assert lines == ["A: the nested stack is not run here: its template is not a file"]


NESTED = """
Parameters:
  BusName: {Type: String}
  Prefix: {Type: String, Default: ""}
Conditions:
  HasPrefix: !Not [!Equals [!Ref Prefix, ""]]
Resources:
  Rule:
    Type: AWS::Events::Rule
    Properties:
      Name: !Sub ${BusName}-${Prefix}rule
      EventBusName: !Ref BusName
      EventPattern: {source: [shop]}
      Targets: [{Id: queue, Arn: !GetAtt Queue.Arn}]
  Queue:
    Type: AWS::SQS::Queue
  Optional:
    Type: AWS::SQS::Queue
    Condition: HasPrefix
Outputs:
  QueueName: {Value: !GetAtt Queue.QueueName}
"""
WITH_NESTED = with_a(
    "AWS::CloudFormation::Stack",
    "{TemplateURL: nested.yaml, Parameters: {BusName: !GetAtt Bus.Name}}",
    """
  Bus: {Type: AWS::Events::EventBus, Properties: {Name: bus}}
  Topic: {Type: AWS::SNS::Topic, Properties: {TopicName: !Sub "to-${A.Outputs.QueueName}"}}
Outputs:
  Queue: {Value: !GetAtt A.Outputs.QueueName}
""",
)


def test_the_resources_of_a_nested_stack_are_the_stacks_own(store: Store, folder: Path) -> None:
    (folder / "nested.yaml").write_text(NESTED)

    report = Report()
    stack = deployed(store, folder, WITH_NESTED, report)

    queue = stack.outputs["Queue"]
    assert queue.startswith("shop-Queue-")
    assert properties(stack, "Topic")["TopicName"] == f"to-{queue}"
    assert (properties(stack, "Rule")["Name"], properties(stack, "Rule")["EventBusName"]) == ("bus-rule", "bus")
    assert stack.resources.keys() == {"Bus", "Topic", "Rule", "Queue"}
    assert report.lines(verbose=True) == []


@pytest.mark.parametrize(
    ("nested", "template", "error"),
    [
        (
            NESTED,
            WITH_NESTED.replace("BusName:", "Name:"),
            "A: the stack and its template differ in the parameters BusName, Name",
        ),
        (NESTED.replace("Queue:", "Bus:"), WITH_NESTED, "A: nested.yaml defines Bus, which exists already"),
        ("Resources: [", WITH_NESTED, "template.yaml: nested.yaml: line 2"),
    ],
)
def test_a_nested_stack_that_cannot_be_deployed_is_named_with_the_reason(
    store: Store, folder: Path, nested: str, template: str, error: str
) -> None:
    (folder / "nested.yaml").write_text(nested)

    with pytest.raises(TemplateError, match=error):
        deployed(store, folder, template)


def test_a_nested_stack_with_nothing_to_run_is_listed_as_not_run(store: Store, folder: Path) -> None:
    (folder / "nested.yaml").write_text(
        "Resources: {Alarm: {Type: AWS::CloudWatch::Alarm}, Fn::ForEach::X: [Y, [], {}]}"
    )

    lines = reported(store, folder, with_a("AWS::CloudFormation::Stack", "{TemplateURL: nested.yaml}"))

    assert lines == ["A: the nested stack is not run here: 1 CloudWatch::Alarm"]


def test_a_subscribed_queue_gets_what_its_filter_lets_through_and_no_address_is_called(
    store: Store, folder: Path
) -> None:
    report = Report()
    stack = deployed(store, folder, SUBSCRIPTIONS, report)
    topics, queues = store.client("sns"), store.client("sqs")

    for message in ('{"kind": "other"}', '{"kind": "wanted"}'):
        topics.publish(TopicArn=stack.resources["Topic"].physical_id, Message=message)

    answer = queues.receive_message(QueueUrl=stack.resources["Queue"].physical_id, MaxNumberOfMessages=10)
    assert [message["Body"] for message in answer["Messages"]] == ['{"kind": "wanted"}']
    assert [each["Protocol"] for each in topics.list_subscriptions()["Subscriptions"]] == ["sqs"]
    assert report.lines(verbose=True) == ["ToAddress: messages of protocol https are not sent"]


def test_an_api_destination_and_its_connection_have_arns_with_an_id(store: Store, folder: Path) -> None:
    text = with_a(
        "AWS::Events::ApiDestination",
        "{ConnectionArn: !GetAtt Key.Arn, InvocationEndpoint: http://127.0.0.1/, HttpMethod: POST, Name: hook}",
        """
  Key: {Type: AWS::Events::Connection, Properties: {AuthorizationType: API_KEY}}
Outputs: {Hook: {Value: !GetAtt A.Arn}, Policy: {Value: !GetAtt A.ArnForPolicy}, Secret: {Value: !GetAtt Key.SecretArn}}
""",
    )

    report = Report()
    stack = deployed(store, folder, text, report)

    events = "arn:aws:events:us-east-1:123456789012:"
    key = stack.resources["Key"].physical_id
    assert re.fullmatch(f"{events}api-destination/hook/[0-9a-f-]{{36}}", stack.outputs["Hook"])
    assert stack.outputs["Policy"] == f"{events}api-destination/hook"
    assert f":secret:events!connection/{key}/" in stack.outputs["Secret"]
    assert re.fullmatch(f"{events}connection/{key}/[0-9a-f-]{{36}}", properties(stack, "A")["ConnectionArn"])
    assert report.lines(verbose=True) == []


def test_an_alias_resolves_to_the_function(store: Store, folder: Path) -> None:
    text = TEMPLATE.replace("    Runtime: python3.13", "    Runtime: python3.13\n    AutoPublishAlias: live", 1)
    stack = deployed(store, folder, text)
    (alias, *_) = stack.of_type("AWS::Lambda::Alias")
    function = alias.properties["FunctionName"]
    assert alias.physical_id == f"arn:aws:lambda:{store.region}:{store.account_id}:function:{function}:live"
    functions = store.client("lambda")
    for name, qualifier in ((alias.physical_id, {}), (function, {"Qualifier": "live"})):
        assert functions.get_function(FunctionName=name, **qualifier)["Configuration"]["FunctionName"] == function


def test_resources_and_properties_that_are_not_honoured_are_listed(store: Store, folder: Path) -> None:
    lines = reported(store, folder, Stage="production")

    assert [line for line in lines if "not checked" not in line] == [
        "Alerts: messages of protocol email are not sent",
        "Client.ExplicitAuthFlows (Cognito::UserPoolClient): not honoured",
        "Orders.TimeToLiveSpecification (DynamoDB::Table): not honoured",
    ]
    assert "DeadLettersPolicy (SQS::QueuePolicy): not checked here" in lines


def test_pipes_and_schedules_have_their_arns(store: Store, folder: Path) -> None:
    text = """
Resources:
  Pipe: {Type: AWS::Pipes::Pipe, Properties: {Name: parked}}
  Schedule: {Type: AWS::Scheduler::Schedule, Properties: {State: ENABLED}}
Outputs:
  Pipe: {Value: !GetAtt Pipe.Arn}
  Schedule: {Value: !GetAtt Schedule.Arn}
"""
    report = Report()
    stack = deployed(store, folder, text, report)

    name = stack.resources["Schedule"].physical_id
    assert stack.outputs == {
        "Pipe": "arn:aws:pipes:us-east-1:123456789012:pipe/parked",
        "Schedule": f"arn:aws:scheduler:us-east-1:123456789012:schedule/default/{name}",
    }
    assert report.lines(verbose=True) == []


# -------------------------------------------------------------------------------- templates of other collections

UNKNOWN = """
Resources:
  Thing: {Type: AWS::No::Such, Properties: {Name: mine}}
  Other: {Type: Custom::Check, Properties: {ServiceToken: x}}
Outputs:
  Ref: {Value: !Ref Thing}
  Arn: {Value: !Sub "${Thing.Arn}"}
  Url: {Value: !GetAtt Other.Url.Long}
"""


def test_a_resource_of_an_unknown_type_has_stand_in_values_and_is_listed(store: Store, folder: Path) -> None:
    report = Report()

    stack = deployed(store, folder, UNKNOWN, report)

    arn = "arn:aws:no:us-east-1:123456789012:mine"
    assert stack.outputs == {"Ref": "mine", "Arn": arn, "Url": "Other.Url.Long"}
    assert report.lines(verbose=True) == [
        "Other (Check): not run here",
        "Thing (Such): not run here",
    ]
    assert report.lines(verbose=False) == [
        "not honoured here: 1 Custom (Check); 1 No (Such) (details: --verbose)",
    ]


def test_a_pattern_may_be_a_text_of_json(store: Store, folder: Path) -> None:
    text = with_a("AWS::Events::Rule", """{EventPattern: !Sub '{"region": ["${AWS::Region}"]}'}""")

    assert properties(deployed(store, folder, text), "A")["EventPattern"] == {"region": ["us-east-1"]}


def test_a_member_of_a_stand_in_value_is_the_value(store: Store, folder: Path) -> None:
    text = with_a(
        "AWS::No::Such", more="Outputs: {A: {Value: !Select [1, !Split [':', !Select [0, !GetAtt A.Names]]]}}"
    )

    assert deployed(store, folder, text).outputs == {"A": "A.Names"}


def test_a_date_in_yaml_is_text(store: Store, folder: Path) -> None:
    text = "Resources: {A: {Type: AWS::SSM::Parameter, Properties: {Type: String, Value: 2012-10-17, Tags: {a: b}}}}"

    name = deployed(store, folder, text).resources["A"].physical_id

    assert store.client("ssm").get_parameter(Name=name)["Parameter"]["Value"] == "2012-10-17"


def test_a_template_may_be_json(store: Store, folder: Path) -> None:
    text = '{\n\t"Resources": {"A": {"Type": "AWS::SQS::Queue", "Properties": {"DelaySeconds": 3}}}}'

    assert properties(deployed(store, folder, text), "A") == {"DelaySeconds": 3}


def test_parameters_have_the_values_that_cloudformation_passes_on(store: Store, folder: Path) -> None:
    text = with_a(
        QUEUE,
        """{Tags: [{Key: list, Value: !Select [1, !Ref List]}, {Key: switch, Value: !Ref Switch},
        {Key: ssm, Value: !Ref Ssm}], DelaySeconds: !Ref Number}""",
        """
Parameters:
  List: {Type: CommaDelimitedList, Default: "a,b"}
  Switch: {Type: String, Default: true}
  Number: {Type: Number, Default: 5}
  Ssm: {Type: "AWS::SSM::Parameter::Value<String>", Default: /name}
""",
    )
    report = Report()

    stack = deployed(store, folder, text, report)

    tags = {tag["Key"]: tag["Value"] for tag in properties(stack, "A")["Tags"]}
    assert tags == {"list": "b", "switch": "true", "ssm": "/name"}
    assert properties(stack, "A")["DelaySeconds"] == 5
    assert report.lines(verbose=True) == [
        "Ssm: the name of an SSM parameter is used as its value; --parameter NAME=VALUE sets one"
    ]


def test_a_value_of_a_parameter_that_is_not_allowed_is_rejected(store: Store, folder: Path) -> None:
    text = with_a(QUEUE, more="Parameters: {Stage: {Type: String, AllowedValues: [dev, prod]}}")

    with pytest.raises(TemplateError, match="Stage is 'test', and not one of dev, prod"):
        deployed(store, folder, text, Stage="test")


def test_a_value_that_no_stack_exports_has_a_stand_in(store: Store, folder: Path) -> None:
    text = with_a(QUEUE, "{Tags: [{Key: a, Value: !ImportValue TableArn}, {Key: b, Value: !ImportValue Table}]}")
    report = Report()

    stack = deployed(store, folder, text, report)

    values = [tag["Value"] for tag in properties(stack, "A")["Tags"]]
    assert values == ["arn:aws:import:us-east-1:123456789012:TableArn", "Table"]
    assert report.lines(verbose=False) == ["TableArn, Table: no stack exports this value; its name is its value"]


def test_the_language_extensions_are_expanded(store: Store, folder: Path) -> None:
    text = """
Transform: [AWS::LanguageExtensions, AWS::Serverless-2016-10-31]
Parameters: {Names: {Type: CommaDelimitedList, Default: "In,Out"}}
Mappings: {Delays: {In: {Seconds: 7}}}
Resources:
  Fn::ForEach::Queues:
    - Name
    - !Ref Names
    - ${Name}Queue:
        Type: AWS::SQS::Queue
        Properties: {DelaySeconds: !FindInMap [Delays, !Ref Name, Seconds, {DefaultValue: 9}]}
Outputs: {Count: {Value: !Sub ["${n}", {n: {"Fn::Length": [a, b]}}]}}
"""
    stack = deployed(store, folder, text)

    assert properties(stack, "InQueue") == {"DelaySeconds": 7}
    assert properties(stack, "OutQueue") == {"DelaySeconds": 9}
    assert stack.outputs == {"Count": "2"}


def test_files_that_the_template_includes_are_read_and_other_macros_reported(store: Store, folder: Path) -> None:
    (folder / "api.yaml").write_text("openapi: 3.0.1\npaths: {/a: {get: {x-included: !Sub '${AWS::Region}'}}}\n")
    (folder / "flow.json").write_text('{"StartAt": "End", "States": {"End": {"Type": "Succeed"}}}')
    text = with_a(
        "AWS::Serverless::HttpApi",
        "{DefinitionBody: {Fn::Transform: {Name: AWS::Include, Parameters: {Location: api.yaml}}}}",
        """
  B: {Type: AWS::Serverless::HttpApi, Properties: {DefinitionUri: api.yaml}}
  C: {Type: AWS::Serverless::StateMachine, Properties: {DefinitionUri: flow.json, Policies: []}}
  D: {Type: AWS::SQS::Queue, Properties: {Fn::Transform: {Name: Own}}}
""",
    )
    report = Report()

    stack = deployed(store, folder, text, report)

    for api in ("A", "B"):
        assert properties(stack, api)["Body"]["paths"]["/a"]["get"]["x-included"] == "us-east-1"
    assert stack.resources["C"].physical_id.startswith("arn:aws:states:")
    assert report.lines(verbose=True)[0].startswith("Fn::Transform: Own is not run here")


def test_code_that_is_not_on_this_machine_is_reported(store: Store, folder: Path) -> None:
    text = with_a(
        FUNCTION,
        "{CodeUri: nowhere, Handler: a.b, Runtime: python3.13}",
        "  B: {Type: AWS::Serverless::LayerVersion, Properties: {ContentUri: s3://bucket/layer.zip}}",
    )
    report = Report()

    stack = deployed(store, folder, text, report)

    assert stack.resources["A"].local_path is None
    assert report.lines(verbose=True)[:2] == [
        "A: CodeUri is not a folder on this machine: nowhere",
        "B: ContentUri is not a folder on this machine: s3://bucket/layer.zip",
    ]


def test_a_resource_that_moto_cannot_create_has_a_stand_in(store: Store, folder: Path) -> None:
    text = with_a("AWS::StepFunctions::StateMachine", '{RoleArn: ""}', "Outputs: {Arn: {Value: !GetAtt A.Arn}}")
    report = Report()

    stack = deployed(store, folder, text, report)

    assert stack.outputs["Arn"].startswith("arn:aws:stepfunctions:")
    assert [line.partition("here")[0] for line in report.lines(verbose=True)] == ["A: cannot be created "]


def test_an_event_of_a_service_that_is_not_run_here_is_reported(store: Store, folder: Path) -> None:
    text = with_a(
        FUNCTION,
        """{Handler: a.b, Runtime: python3.13, Events: {
        Upload: {Type: S3, Properties: {Bucket: !Ref Bucket, Events: s3:ObjectCreated:*}},
        Rest: {Type: Api, Properties: {Method: get, Path: /}},
        Device: {Type: IoTRule, Properties: {Sql: SELECT 1}},
        Voice: {Type: AlexaSkill},
        Topic: {Type: SNS, Properties: {Topic: !Ref Topic}},
        Nightly: {Type: ScheduleV2, Properties: {ScheduleExpression: rate(1 day)}}},
        FunctionUrlConfig: {AuthType: NONE}}""",
        "  Bucket: {Type: AWS::S3::Bucket}\n  Topic: {Type: AWS::SNS::Topic}\n",
    )

    lines = [line for line in reported(store, folder, text) if "not checked" not in line]

    assert [line for line in lines if "Deployment" not in line] == [
        "ADevicePermission: iot.amazonaws.com does not invoke functions here",
        "AVoicePermission: alexa-appkit.amazon.com does not invoke functions here",
        "AUploadPermission: s3.amazonaws.com does not invoke functions here",
        "ServerlessRestApi (RestApi): not run here",
        "ServerlessRestApiProdStage (Stage): not run here",
        "ADevice (TopicRule): not run here",
        "AUrl (Url): not run here",
        "Bucket.NotificationConfiguration (S3::Bucket): not honoured",
    ]


# ------------------------------------------------------------------------------------------------------ errors


FUNCTION, LAYER, POOL, QUEUE = (
    "AWS::Serverless::Function",
    "AWS::Serverless::LayerVersion",
    "AWS::Cognito::UserPool",
    "AWS::SQS::Queue",
)
NEVER = "\nConditions: {Never: !Equals [a, b]}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Resources:\n  A: [", "line 3: did not find expected node content"),
        ("Description: nothing", "the template has no Resources"),
        ("Resources: {A: {Properties: {}}}", "A: the resource has no Type"),
        ("Resources: {A: {Type: AWS::SQS::Queue}}\nParameters: [a]", "AttributeError: "),
        (
            with_a(QUEUE, "{DelaySeconds: !Ref B}", "  B: {Type: AWS::SQS::Queue, Properties: {X: !Ref A}}"),
            "A: circular dependency",
        ),
        (with_a(FUNCTION, "{Handler: a.b}"), r"Resource with id \[A\] is invalid"),
        (with_a(QUEUE, "{QueueName: !Ref B}"), "A: B does not exist"),
        (with_a(QUEUE, "{QueueName: 'a b'}"), "A: Can only include alphanumeric characters"),
        (with_a(QUEUE, "{QueueName: !GetAtt B.Arn}"), "A: !GetAtt B.Arn: resource B is undefined"),
        (
            with_a(QUEUE, more="  B: {Type: AWS::SQS::QueuePolicy, Properties: {Q: !GetAtt A.Foo}}"),
            "B: !GetAtt A.Foo has no value",
        ),
        (
            with_a(POOL, more="  B: {Type: AWS::SQS::Queue, Properties: {QueueName: !GetAtt A.Foo}}"),
            "B: !GetAtt A.Foo has no value",
        ),
        (with_a(QUEUE, more="Outputs: {Url: {Value: !Ref B}}"), "Url: B does not exist"),
        (with_a(QUEUE, more="Outputs: {Url: {Value: !GetAtt B.Arn}}"), "Url: !GetAtt B.Arn: resource B is undefined"),
        (
            with_a(
                QUEUE, more="  B: {Type: AWS::SQS::Queue, Condition: Never}\nOutputs: {Url: {Value: !Ref B}}" + NEVER
            ),
            "Url: !Ref B has no value",
        ),
        (with_a(QUEUE, more="Parameters: {Stage: {Type: String}}"), "Parameters: no value for Stage"),
    ],
)
def test_the_error_for_an_invalid_template_is_one_line(store: Store, folder: Path, text: str, message: str) -> None:
    with pytest.raises(TemplateError, match=rf"^template\.yaml: {message}") as error:
        deployed(store, folder, text)

    assert "\n" not in str(error.value)


def test_an_unknown_parameter_is_rejected(store: Store, folder: Path) -> None:
    with pytest.raises(TemplateError, match=r"^template\.yaml: Parameters: unknown Stagee$"):
        deployed(store, folder, Stagee="production")


def test_the_error_for_a_missing_file_names_it(store: Store, tmp_path: Path) -> None:
    with pytest.raises(TemplateError, match=r"^template\.yaml: No such file or directory$"):
        deploy(tmp_path / "template.yaml", store, stack_name="shop", parameters={}, report=Report())
