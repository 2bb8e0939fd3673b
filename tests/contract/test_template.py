"""The template after SAM's transform: every failure reaches the DLQ, and roles have only the permissions they need."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from dlq_processor.lambda_invoke import ALIAS, ANSWER_SECONDS
from dlq_processor.repository import ATTRIBUTES
from localaws.event_pattern import EventPattern
from orderflow.contracts import DETAILS

ROOT = Path(__file__).parents[2]
DLQ = {"Fn::GetAtt": ["OrderEventsDlq", "Arn"]}

# Actions that IAM grants on "*" only, and why.
WITHOUT_RESOURCES = {
    "xray:PutTraceSegments": "does not support resource-level permissions",
    "xray:PutTelemetryRecords": "does not support resource-level permissions",
    "cloudwatch:DescribeAlarms": "CodeDeploy reads the state of all alarms in one call",
    "dynamodb:ListStreams": "does not support resource-level permissions; event source mappings and pipes call it",
}


def of_type(template: dict[str, Any], resource_type: str) -> dict[str, Any]:
    """The properties of the resources of a type, by logical id. There is at least one."""
    found = {
        name: resource.get("Properties", {})
        for name, resource in template["Resources"].items()
        if resource["Type"] == resource_type
    }
    assert found, f"no {resource_type}"
    return found


def functions(template: dict[str, Any]) -> dict[str, Any]:
    return of_type(template, "AWS::Lambda::Function")


def function_of(arn: Any) -> str:
    """The function whose alias an ARN names; empty if it names something else."""
    match arn:
        case {"Ref": str(name)} if name.endswith(f"Alias{ALIAS}"):
            return name.removesuffix(f"Alias{ALIAS}")
        case {"Fn::Sub": str(text)} if text.endswith(f".Arn}}:{ALIAS}"):
            return text.removeprefix("${").removesuffix(f".Arn}}:{ALIAS}")
    return ""


def mappings(template: dict[str, Any], service: str) -> dict[str, Any]:
    """The event source mappings of streams (`dynamodb`) or of queues (`sqs`), by logical id."""
    sources = {"dynamodb": "StreamArn", "sqs": "Arn"}
    found = of_type(template, "AWS::Lambda::EventSourceMapping").items()
    return {name: mapping for name, mapping in found if mapping["EventSourceArn"]["Fn::GetAtt"][1] == sources[service]}


def granted(template: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    """Returns role, action and statement of every permission."""
    managed = of_type(template, "AWS::IAM::ManagedPolicy")
    return [
        (role, action, statement)
        for role, properties in of_type(template, "AWS::IAM::Role").items()
        for policy in (
            *properties.get("Policies", []),
            *(managed[arn["Ref"]] for arn in properties.get("ManagedPolicyArns", [])),
        )
        for statement in policy["PolicyDocument"]["Statement"]
        for action in as_list(statement["Action"])
    ]


def trusting(template: dict[str, Any], service: str) -> set[str]:
    """The roles that a service may assume."""
    return {
        name
        for name, role in of_type(template, "AWS::IAM::Role").items()
        for statement in role["AssumeRolePolicyDocument"]["Statement"]
        if statement["Principal"] == {"Service": service}
    }


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def resolved(template: dict[str, Any], value: Any, **parameters: str) -> Any:
    """A value with its conditions resolved, for the given parameters and the template's defaults."""
    match value:
        case {"Fn::If": [name, then, otherwise]}:
            chosen = then if resolved(template, template["Conditions"][name], **parameters) else otherwise
            return resolved(template, chosen, **parameters)
        case {"Fn::Not": [condition]}:
            return not resolved(template, condition, **parameters)
        case {"Fn::Equals": [left, right]}:
            return resolved(template, left, **parameters) == resolved(template, right, **parameters)
        case {"Ref": str(name)} if name in template["Parameters"]:
            return parameters.get(name, template["Parameters"][name].get("Default"))
        case dict():
            return {name: resolved(template, member, **parameters) for name, member in value.items()}
        case list():
            members = [resolved(template, member, **parameters) for member in value]
            return [member for member in members if member != {"Ref": "AWS::NoValue"}]
    return value


def test_every_function_is_traced(template: dict[str, Any]) -> None:
    assert {function["TracingConfig"]["Mode"] for function in functions(template).values()} == {"Active"}


def test_lambda_may_assume_the_roles_of_functions_and_no_others(template: dict[str, Any]) -> None:
    roles = {function["Role"]["Fn::GetAtt"][0] for function in functions(template).values()}
    assert roles == trusting(template, "lambda.amazonaws.com")


def test_every_target_of_a_rule_has_a_dlq(template: dict[str, Any]) -> None:
    for name, rule in of_type(template, "AWS::Events::Rule").items():
        assert [target.get("DeadLetterConfig") for target in rule["Targets"]] == [{"Arn": DLQ}], name


def test_every_function_that_a_rule_invokes_has_retries_a_maximum_age_and_the_dlq(template: dict[str, Any]) -> None:
    rules = of_type(template, "AWS::Events::Rule").values()
    arns = [target["Arn"] for rule in rules for target in rule["Targets"]]
    invoked = {function_of(arn) for arn in arns if function_of(arn)}
    configurations = of_type(template, "AWS::Lambda::EventInvokeConfig").values()
    by_function = {configuration["FunctionName"]["Ref"]: configuration for configuration in configurations}
    assert invoked
    for name in invoked:
        assert by_function[name]["MaximumRetryAttempts"] == 2
        assert by_function[name]["MaximumEventAgeInSeconds"] == (3600 if name == "EmailFunction" else 7200)
        assert by_function[name]["DestinationConfig"] == {"OnFailure": {"Destination": DLQ}}


def test_every_function_may_send_its_failures_to_the_dlq(template: dict[str, Any]) -> None:
    sending = [found for found in granted(template) if found[1] == "sqs:SendMessage"]
    senders = {role for role, _, statement in sending if statement["Resource"] == DLQ}
    configurations = of_type(template, "AWS::Lambda::EventInvokeConfig").values()
    needing = {configuration["FunctionName"]["Ref"] for configuration in configurations}
    needing.add("DlqProcessorFunction")  # sends automatic retries to the DLQ
    roles = {functions(template)[name]["Role"]["Fn::GetAtt"][0] for name in needing}
    assert roles | trusting(template, "scheduler.amazonaws.com") == senders


def test_a_failing_stream_batch_is_bisected_retried_and_sent_to_the_dlq(template: dict[str, Any]) -> None:
    for name, mapping in mappings(template, "dynamodb").items():
        assert mapping["FunctionResponseTypes"] == ["ReportBatchItemFailures"], name
        assert mapping["BisectBatchOnFunctionError"] is True, name
        assert mapping["MaximumRetryAttempts"] == -1, name
        assert mapping["MaximumRecordAgeInSeconds"] == 82800, name
        assert mapping["DestinationConfig"] == {"OnFailure": {"Destination": DLQ}}, name
        assert mapping["FilterCriteria"]["Filters"], name


def test_a_function_that_reads_a_queue_reports_failed_messages_within_the_visibility_timeout(
    template: dict[str, Any],
) -> None:
    for name, mapping in mappings(template, "sqs").items():
        assert mapping["FunctionResponseTypes"] == ["ReportBatchItemFailures"], name
        queue = of_type(template, "AWS::SQS::Queue")[mapping["EventSourceArn"]["Fn::GetAtt"][0]]
        # Six times the time-out: Lambda developer guide, "Configuring a queue to use with Lambda"
        assert queue["VisibilityTimeout"] >= 6 * functions(template)[function_of(mapping["FunctionName"])]["Timeout"], (
            name
        )


def test_the_analytics_queue_moves_a_message_to_the_dlq_after_three_attempts(template: dict[str, Any]) -> None:
    queue = of_type(template, "AWS::SQS::Queue")["AnalyticsQueue"]
    assert queue["RedrivePolicy"] == {"deadLetterTargetArn": DLQ, "maxReceiveCount": 3}


def test_the_stream_of_every_table_with_events_invokes_the_publisher(template: dict[str, Any]) -> None:
    of_streams = mappings(template, "dynamodb").values()
    tables = of_type(template, "AWS::DynamoDB::Table").items()
    streaming = {name: table["StreamSpecification"] for name, table in tables if "StreamSpecification" in table}
    pipes = of_type(template, "AWS::Pipes::Pipe").values()
    piped = {pipe["Source"]["Fn::GetAtt"][0] for pipe in pipes}
    assert piped == {"FailedEventsTable"}  # its items are not events for the bus
    assert {mapping["EventSourceArn"]["Fn::GetAtt"][0] for mapping in of_streams} == set(streaming) - piped
    assert {function_of(mapping["FunctionName"]) for mapping in of_streams} == {"EventPublisherFunction"}
    assert all(stream == {"StreamViewType": "NEW_AND_OLD_IMAGES"} for stream in streaming.values())


def test_only_the_publisher_may_put_events_and_only_with_our_sources(template: dict[str, Any]) -> None:
    putting = [found for found in granted(template) if found[1] == "events:PutEvents"]
    elsewhere = [{"Ref": "PartnerEventBusArn"}, {"Ref": "StagingEventBusArn"}]
    ((role, _, statement),) = [found for found in putting if found[2]["Resource"] not in elsewhere]
    assert role == "EventPublisherRole"
    assert statement["Resource"] == {"Fn::GetAtt": ["OrdersEventBus", "Arn"]}
    assert statement["Condition"] == {
        "ForAllValues:StringEquals": {"events:source": ["orders.service", "inventory.service"]},
        "Null": {"events:source": "false"},
    }


def test_only_the_trusted_account_may_put_events_from_outside_and_never_with_our_sources(
    template: dict[str, Any],
) -> None:
    (name,) = of_type(template, "AWS::Events::EventBusPolicy")
    assert template["Resources"][name]["Condition"] == "HasTrustedAccount"
    policy = template["Resources"][name]["Properties"]
    assert policy["EventBusName"] == {"Fn::GetAtt": ["OrdersEventBus", "Name"]}
    statement = policy["Statement"]
    assert statement["Effect"] == "Allow"
    assert statement["Principal"] == {"AWS": {"Fn::Sub": "arn:${AWS::Partition}:iam::${TrustedAccountId}:root"}}
    assert statement["Action"] == "events:PutEvents"
    assert statement["Resource"] == {"Fn::GetAtt": ["OrdersEventBus", "Arn"]}
    ours = ["orders.service", "inventory.service"]
    assert {source for source, _ in DETAILS} == set(ours)
    assert statement["Condition"] == {
        "ForAllValues:StringNotEquals": {"events:source": ours},
        "Null": {"events:source": "false"},
    }


def test_the_role_of_a_rule_may_only_use_the_target_of_the_rule(template: dict[str, Any]) -> None:
    actions = {
        "SalesFeedRole": "sns:Publish",
        "FulfilmentWebhookRole": "events:InvokeApiDestination",
        "PartnerBusRole": "events:PutEvents",
        "ReplayToStagingRole": "events:PutEvents",
    }
    assert trusting(template, "events.amazonaws.com") == set(actions)
    for rule in of_type(template, "AWS::Events::Rule").values():
        for target in rule["Targets"]:
            if "RoleArn" in target:
                name = target["RoleArn"]["Fn::GetAtt"][0]
                allowed = [(action, each["Resource"]) for role, action, each in granted(template) if role == name]
                assert allowed == [(actions.pop(name), target["Arn"])]
    assert actions == {}


def test_only_rules_of_our_bus_may_assume_the_roles_of_rules(template: dict[str, Any]) -> None:
    source = "arn:${AWS::Partition}:events:${AWS::Region}:${AWS::AccountId}:rule/${OrdersEventBus.Name}/*"
    for name in trusting(template, "events.amazonaws.com"):
        (trust,) = of_type(template, "AWS::IAM::Role")[name]["AssumeRolePolicyDocument"]["Statement"]
        assert trust["Condition"] == {
            "StringEquals": {"aws:SourceAccount": {"Ref": "AWS::AccountId"}},
            "ArnLike": {"aws:SourceArn": {"Fn::Sub": source}},
        }


def test_the_api_key_of_the_webhook_is_a_noecho_parameter(template: dict[str, Any]) -> None:
    assert template["Parameters"]["FulfilmentWebhookApiKey"]["NoEcho"] is True
    (connection,) = of_type(template, "AWS::Events::Connection").values()
    key = connection["AuthParameters"]["ApiKeyAuthParameters"]["ApiKeyValue"]
    assert key == {"Fn::Sub": "${FulfilmentWebhookApiKey}"}


def test_an_integration_without_its_parameter_is_not_created(template: dict[str, Any]) -> None:
    addresses = {
        "HasFulfilmentWebhook": "FulfilmentWebhookUrl",
        "HasPartnerBus": "PartnerEventBusArn",
        "HasStagingBus": "StagingEventBusArn",
        "HasTrustedAccount": "TrustedAccountId",
    }
    for condition, parameter in addresses.items():
        assert template["Parameters"][parameter]["Default"] == ""
        assert template["Conditions"][condition] == {"Fn::Not": [{"Fn::Equals": [{"Ref": parameter}, ""]}]}


def test_events_of_orders_are_archived_for_90_days(template: dict[str, Any]) -> None:
    (archive,) = of_type(template, "AWS::Events::Archive").values()
    assert archive["ArchiveName"] == {"Fn::If": ["IsDefaultBus", "orders-archive", {"Ref": "AWS::NoValue"}]}
    assert archive["SourceArn"] == {"Fn::GetAtt": ["OrdersEventBus", "Arn"]}
    assert archive["EventPattern"] == {"source": ["orders.service"]}
    assert archive["RetentionDays"] == 90


def test_only_the_email_function_may_send_e_mails_and_only_from_the_sender_address(template: dict[str, Any]) -> None:
    ((role, action, statement),) = [found for found in granted(template) if found[1].startswith("ses:")]
    assert (role, action) == ("EmailRole", "ses:SendEmail")
    assert statement["Condition"] == {"StringEquals": {"ses:FromAddress": {"Ref": "SenderEmail"}}}


def test_bounces_and_complaints_go_to_the_alert_topic_if_there_is_a_sender(template: dict[str, Any]) -> None:
    ((name, destination),) = of_type(template, "AWS::SES::ConfigurationSetEventDestination").items()
    assert template["Resources"][name]["Condition"] == "HasSenderEmail"
    assert resolved(template, template["Conditions"]["HasSenderEmail"], SenderEmail="shop@example.com") is True
    assert resolved(template, template["Conditions"]["HasSenderEmail"]) is False
    variables = functions(template)["EmailFunction"]["Environment"]["Variables"]
    assert destination["ConfigurationSetName"] == variables["CONFIGURATION_SET"]
    reported = destination["EventDestination"]
    assert reported["Enabled"] is True
    assert set(reported["MatchingEventTypes"]) == {"bounce", "complaint", "reject", "renderingFailure"}
    assert reported["SnsDestination"] == {"TopicARN": {"Ref": "AlertTopic"}}


def services(template: dict[str, Any], document: dict[str, Any], sender: str) -> dict[str, dict[str, Any]]:
    """The statements of a policy for AWS services, by service, with this `SenderEmail`."""
    statements = resolved(template, document, SenderEmail=sender)["Statement"]
    return {item["Principal"]["Service"]: item for item in statements if "Service" in item["Principal"]}


@pytest.mark.parametrize("sender", ["", "shop@example.com"])
def test_only_our_configuration_set_and_alarms_may_publish_alerts(template: dict[str, Any], sender: str) -> None:
    (topic,) = of_type(template, "AWS::SNS::TopicPolicy").values()
    allowed = services(template, topic["PolicyDocument"], sender)
    assert set(allowed) == {"cloudwatch.amazonaws.com"} | ({"ses.amazonaws.com"} if sender else set())
    for statement in allowed.values():
        assert statement["Action"] == "sns:Publish"
        assert statement["Condition"]["StringEquals"]["aws:SourceAccount"] == {"Ref": "AWS::AccountId"}
    alarms = allowed["cloudwatch.amazonaws.com"]["Condition"]["ArnLike"]["aws:SourceArn"]["Fn::Sub"]
    assert alarms.endswith(":${AWS::AccountId}:alarm:${AWS::StackName}-*")
    if sender:
        mails = allowed["ses.amazonaws.com"]["Condition"]["StringEquals"]["aws:SourceArn"]["Fn::Sub"]
        assert mails.endswith(":configuration-set/${EmailConfigurationSet}")


@pytest.mark.parametrize("sender", ["", "shop@example.com"])
def test_ses_may_use_the_alert_key_without_a_condition_only_if_there_is_a_sender(
    template: dict[str, Any], sender: str
) -> None:
    (key,) = of_type(template, "AWS::KMS::Key").values()
    allowed = services(template, key["KeyPolicy"], sender)
    assert set(allowed) == {"cloudwatch.amazonaws.com"} | ({"ses.amazonaws.com"} if sender else set())
    assert {tuple(statement["Action"]) for statement in allowed.values()} == {("kms:GenerateDataKey", "kms:Decrypt")}
    alarms = allowed["cloudwatch.amazonaws.com"]["Condition"]["ArnLike"]["aws:SourceArn"]["Fn::Sub"]
    assert alarms.endswith(":${AWS::AccountId}:alarm:${AWS::StackName}-*")
    assert "Condition" not in allowed.get("ses.amazonaws.com", {})


def test_eventbridge_may_write_to_the_event_log_only_for_its_rule(template: dict[str, Any]) -> None:
    (policy,) = of_type(template, "AWS::Logs::ResourcePolicy").values()
    statements = {item["Action"]: item for item in json.loads(policy["PolicyDocument"]["Fn::Sub"])["Statement"]}
    assert set(statements) == {"logs:CreateLogStream", "logs:PutLogEvents"}
    for statement in statements.values():
        assert statement["Principal"] == {"Service": ["events.amazonaws.com", "delivery.logs.amazonaws.com"]}
        assert statement["Resource"] == "${EventLogGroup.Arn}"
    # EventBridge sends aws:SourceArn with PutLogEvents only
    assert "Condition" not in statements["logs:CreateLogStream"]
    assert statements["logs:PutLogEvents"]["Condition"] == {"ArnEquals": {"aws:SourceArn": "${AllEventsLogRule.Arn}"}}


def test_topics_are_encrypted_and_the_alert_topic_with_a_key_that_ses_can_use(template: dict[str, Any]) -> None:
    keys = {name: topic["KmsMasterKeyId"] for name, topic in of_type(template, "AWS::SNS::Topic").items()}
    assert keys.pop("AlertTopic") == {"Fn::GetAtt": ["AlertKey", "Arn"]}
    assert set(keys.values()) == {"alias/aws/sns"}


@pytest.mark.parametrize(
    ("role", "service", "resource"),
    [
        ("ParkedEventsPipeRole", "pipes", "pipe/${AWS::StackName}-parked-events"),
        ("SalesReportScheduleRole", "scheduler", "schedule-group/default"),
    ],
)
def test_only_our_pipe_and_schedules_may_assume_their_roles(
    template: dict[str, Any], role: str, service: str, resource: str
) -> None:
    assert trusting(template, f"{service}.amazonaws.com") == {role}
    (trust,) = of_type(template, "AWS::IAM::Role")[role]["AssumeRolePolicyDocument"]["Statement"]
    assert trust["Condition"] == {
        "StringEquals": {
            "aws:SourceAccount": {"Ref": "AWS::AccountId"},
            "aws:SourceArn": {
                "Fn::Sub": f"arn:${{AWS::Partition}}:{service}:${{AWS::Region}}:${{AWS::AccountId}}:{resource}"
            },
        }
    }


def test_an_alert_that_the_pipe_cannot_send_goes_to_the_parking_queue(template: dict[str, Any]) -> None:
    (pipe,) = of_type(template, "AWS::Pipes::Pipe").values()
    stream = pipe["SourceParameters"]["DynamoDBStreamParameters"]
    parking = {"Fn::GetAtt": ["OrderEventsParking", "Arn"]}
    assert stream["DeadLetterConfig"] == {"Arn": parking}  # in the DLQ it would become a failed event itself
    assert (stream["BatchSize"], stream["MaximumRetryAttempts"], stream["MaximumRecordAgeInSeconds"]) == (1, 10, 3600)
    assert pipe["Target"] == {"Ref": "AlertTopic"}
    assert pipe["RoleArn"] == {"Fn::GetAtt": ["ParkedEventsPipeRole", "Arn"]}
    assert {
        (action, str(statement["Resource"]))
        for role, action, statement in granted(template)
        if role == "ParkedEventsPipeRole" and not action.startswith("dynamodb:")
    } == {
        ("sns:Publish", str({"Ref": "AlertTopic"})),
        ("kms:GenerateDataKey", str({"Fn::GetAtt": ["AlertKey", "Arn"]})),
        ("kms:Decrypt", str({"Fn::GetAtt": ["AlertKey", "Arn"]})),
        ("sqs:SendMessage", str(parking)),
    }


@pytest.mark.parametrize(
    ("before", "after", "alerted"),
    [
        ("NEW", "PARKED", True),
        ("RETRYING", "PARKED", True),
        ("RESOLVED", "PARKED", True),
        (None, "PARKED", True),
        ("PARKED", "PARKED", False),
        ("PARKED", "RESOLVED", False),
        ("NEW", "RETRYING", False),
        (None, "NEW", False),
        ("PARKED", None, False),
    ],
)
def test_the_pipe_sends_an_alert_only_when_a_record_becomes_parked(
    template: dict[str, Any], before: str | None, after: str | None, alerted: bool
) -> None:
    (pipe,) = of_type(template, "AWS::Pipes::Pipe").values()
    filters = pipe["SourceParameters"]["FilterCriteria"]["Filters"]
    images = {"OldImage": before, "NewImage": after}
    record = {"dynamodb": {name: {"status": {"S": status}} for name, status in images.items() if status}}
    assert any(EventPattern(json.loads(each["Pattern"])).matches(record) for each in filters) is alerted


def test_the_alert_of_the_pipe_contains_existing_attributes_and_no_personal_data(
    template: dict[str, Any],
) -> None:
    (pipe,) = of_type(template, "AWS::Pipes::Pipe").values()
    named = re.findall(r"<([^>]*)>", pipe["TargetParameters"]["InputTemplate"])
    attributes = {path.removeprefix("$.dynamodb.NewImage.").removesuffix(".S") for path in named}
    assert attributes == {"id", "consumer", "reason", "orderId", "remediation"}
    assert attributes <= set(ATTRIBUTES.values())


def test_a_schedule_that_cannot_invoke_its_function_sends_to_the_dlq(template: dict[str, Any]) -> None:
    (schedule,) = of_type(template, "AWS::Scheduler::Schedule").values()
    assert "Name" not in schedule  # or a second stage in the account could not be made
    assert (schedule["ScheduleExpression"], schedule["ScheduleExpressionTimezone"]) == ("cron(0 6 * * ? *)", "UTC")
    target = schedule["Target"]
    assert target["RetryPolicy"] == {"MaximumRetryAttempts": 2, "MaximumEventAgeInSeconds": 7200}
    assert target["DeadLetterConfig"] == {"Arn": DLQ}
    allowed = {
        (action, str(statement["Resource"]))
        for role, action, statement in granted(template)
        if {"Fn::GetAtt": [role, "Arn"]} == target["RoleArn"]
    }
    assert target["Arn"] == {"Ref": "SalesReportFunctionAliaslive"}
    invoked = {"Fn::Sub": "${SalesReportFunction.Arn}:live"}
    assert allowed == {("lambda:InvokeFunction", str(invoked)), ("sqs:SendMessage", str(DLQ))}


def test_every_route_except_the_catalogue_requires_a_token_and_has_cors(template: dict[str, Any]) -> None:
    (api,) = of_type(template, "AWS::ApiGatewayV2::Api").values()
    operations = {
        f"{method.upper()} {path}": operation
        for path, methods in api["Body"]["paths"].items()
        for method, operation in methods.items()
        if method != "options"
    }
    public = {route for route, operation in operations.items() if operation.get("security") in (None, [{"NONE": []}])}
    assert public == {"GET /products"}
    allowed = api["Body"]["x-amazon-apigateway-cors"]["allowMethods"]
    assert {route.split()[0] for route in operations} == set(allowed)


def test_the_back_office_writes_only_failed_events_and_stock(template: dict[str, Any]) -> None:
    writes = {
        (action, str(resource["Fn::GetAtt"][0]))
        for role, action, statement in granted(template)
        for resource in as_list(statement["Resource"])
        if role == "BackofficeApiRole" and action in ("dynamodb:PutItem", "dynamodb:UpdateItem", "dynamodb:DeleteItem")
    }
    assert writes == {
        ("dynamodb:PutItem", "FailedEventsTable"),
        ("dynamodb:PutItem", "InventoryTable"),
        ("dynamodb:UpdateItem", "InventoryTable"),
    }


def test_no_role_has_a_wildcard_action(template: dict[str, Any]) -> None:
    assert [action for _, action, _ in granted(template) if "*" in action] == []


def test_no_role_has_a_wildcard_resource_without_a_reason(template: dict[str, Any]) -> None:
    on_all = {action for _, action, statement in granted(template) if "*" in as_list(statement["Resource"])}
    assert on_all == set(WITHOUT_RESOURCES)


def test_functions_share_one_managed_policy_and_no_other_role_has_any(template: dict[str, Any]) -> None:
    roles = of_type(template, "AWS::IAM::Role").items()
    with_policies = {name: role["ManagedPolicyArns"] for name, role in roles if "ManagedPolicyArns" in role}
    functions_roles = trusting(template, "lambda.amazonaws.com")
    assert with_policies == {role: [{"Ref": "LogsAndTracesPolicy"}] for role in functions_roles}


def test_a_function_may_write_to_the_log_groups_of_this_stack_only(template: dict[str, Any]) -> None:
    resources = {str(each["Resource"]) for _, action, each in granted(template) if action.startswith("logs:")}
    groups = "arn:${AWS::Partition}:logs:${AWS::Region}:${AWS::AccountId}:log-group:/aws/lambda/${AWS::StackName}-*"
    assert resources == {str({"Fn::Sub": groups})}


def test_queues_are_encrypted_and_keep_messages_for_the_maximum_time(template: dict[str, Any]) -> None:
    for name, queue in of_type(template, "AWS::SQS::Queue").items():
        assert queue["MessageRetentionPeriod"] == 14 * 24 * 60 * 60, name
        assert queue["SqsManagedSseEnabled"] is True, name


def test_queues_refuse_requests_without_tls(template: dict[str, Any]) -> None:
    policies = of_type(template, "AWS::SQS::QueuePolicy").values()
    refusing = [
        queue["Ref"]
        for policy in policies
        for queue in policy["Queues"]
        for statement in policy["PolicyDocument"]["Statement"]
        if statement["Effect"] == "Deny" and statement["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
    ]
    assert sorted(refusing) == sorted(of_type(template, "AWS::SQS::Queue"))


def test_only_the_rules_of_analytics_may_send_to_its_queue(template: dict[str, Any]) -> None:
    policy = of_type(template, "AWS::SQS::QueuePolicy")["AnalyticsQueuePolicy"]
    (allowed,) = [item for item in policy["PolicyDocument"]["Statement"] if item["Effect"] == "Allow"]
    assert allowed["Principal"] == {"Service": "events.amazonaws.com"}
    assert allowed["Action"] == "sqs:SendMessage"
    rules = of_type(template, "AWS::Events::Rule").items()
    queue = {"Fn::GetAtt": ["AnalyticsQueue", "Arn"]}
    feeding = {name for name, rule in rules if queue in [target["Arn"] for target in rule["Targets"]]}
    sources = allowed["Condition"]["ArnEquals"]["aws:SourceArn"]
    assert {source["Fn::GetAtt"][0] for source in sources} == feeding


def test_only_rules_of_our_bus_may_send_to_the_dlq(template: dict[str, Any]) -> None:
    policy = of_type(template, "AWS::SQS::QueuePolicy")["OrderEventsDlqPolicy"]
    (allowed,) = [item for item in policy["PolicyDocument"]["Statement"] if item["Effect"] == "Allow"]
    assert allowed["Principal"] == {"Service": "events.amazonaws.com"}
    assert allowed["Action"] == "sqs:SendMessage"
    source = allowed["Condition"]["ArnLike"]["aws:SourceArn"]["Fn::Sub"]
    assert source.endswith(":${AWS::AccountId}:rule/${EventBusName}/*")


def test_a_message_that_the_dlq_processor_cannot_process_goes_to_the_parking_queue(template: dict[str, Any]) -> None:
    queues = of_type(template, "AWS::SQS::Queue")
    parking = {"Fn::GetAtt": ["OrderEventsParking", "Arn"]}
    assert queues["OrderEventsDlq"]["RedrivePolicy"] == {"deadLetterTargetArn": parking, "maxReceiveCount": 5}
    assert "RedrivePolicy" not in queues["OrderEventsParking"]
    read_from = {mapping["EventSourceArn"]["Fn::GetAtt"][0] for mapping in mappings(template, "sqs").values()}
    assert read_from == {"OrderEventsDlq", "AnalyticsQueue"}


def test_the_dlq_processor_does_not_time_out_before_the_consumers_of_a_batch(template: dict[str, Any]) -> None:
    assert max(functions(template)[name]["Timeout"] for name in redrivable(template)) < ANSWER_SECONDS
    reading = mappings(template, "sqs").values()
    batches = {function_of(mapping["FunctionName"]): mapping["BatchSize"] for mapping in reading}
    name = "DlqProcessorFunction"
    assert batches[name] * ANSWER_SECONDS < functions(template)[name]["Timeout"]


def test_every_function_of_the_stack_can_be_redriven_by_its_alias(template: dict[str, Any]) -> None:
    arn = "arn:${AWS::Partition}:lambda:${AWS::Region}:${AWS::AccountId}:function:${AWS::StackName}-*:live"
    invoking = [
        (role, each["Resource"]) for role, action, each in granted(template) if action == "lambda:InvokeFunction"
    ]
    assert [(role, resource) for role, resource in invoking if role != "SalesReportScheduleRole"] == [
        ("DlqProcessorRole", {"Fn::Sub": arn}),
        ("BackofficeApiRole", {"Fn::Sub": arn}),
    ]
    for name, function in functions(template).items():
        service = function["Environment"]["Variables"]["POWERTOOLS_SERVICE_NAME"]
        assert function["FunctionName"] == {"Fn::Sub": f"${{AWS::StackName}}-{service}"}, name
        assert function["Environment"]["Variables"]["STACK_NAME"] == {"Ref": "AWS::StackName"}, name


def test_a_queue_has_the_name_of_the_function_that_reads_it(template: dict[str, Any]) -> None:
    queues = of_type(template, "AWS::SQS::Queue")
    for mapping in mappings(template, "sqs").values():
        queue, function = mapping["EventSourceArn"]["Fn::GetAtt"][0], function_of(mapping["FunctionName"])
        if queue != "OrderEventsDlq":
            assert queues[queue]["QueueName"] == functions(template)[function]["FunctionName"]


def redrivable(template: dict[str, Any]) -> set[str]:
    """Returns the functions whose failed events end in the DLQ."""
    configurations = of_type(template, "AWS::Lambda::EventInvokeConfig").values()
    invoked = {configuration["FunctionName"]["Ref"] for configuration in configurations}
    reading = {
        function_of(mapping["FunctionName"])
        for service in ("dynamodb", "sqs")
        for mapping in mappings(template, service).values()
    }
    return (invoked | reading) - {"DlqProcessorFunction"}


def test_tables_are_on_demand(template: dict[str, Any]) -> None:
    tables = of_type(template, "AWS::DynamoDB::Table").values()
    assert {table["BillingMode"] for table in tables} == {"PAY_PER_REQUEST"}


def test_tables_have_point_in_time_recovery_outside_the_sandbox(template: dict[str, Any]) -> None:
    stages = template["Parameters"]["Stage"]["AllowedValues"]
    assert "sandbox" in stages
    assert len(stages) > 1
    for stage in stages:
        for name, table in of_type(template, "AWS::DynamoDB::Table").items():
            recovery = table["PointInTimeRecoverySpecification"]["PointInTimeRecoveryEnabled"]
            assert resolved(template, recovery, Stage=stage) is (stage != "sandbox"), (stage, name)


def test_deletion_protection_depends_on_its_parameter_and_not_on_the_stage(
    template: dict[str, Any],
) -> None:
    (pool,) = of_type(template, "AWS::Cognito::UserPool").values()
    for stage in template["Parameters"]["Stage"]["AllowedValues"]:
        for protect in ("true", "false"):
            given = {"Stage": stage, "Protect": protect}
            expected = "ACTIVE" if protect == "true" else "INACTIVE"
            assert resolved(template, pool["DeletionProtection"], **given) == expected
            for name, table in of_type(template, "AWS::DynamoDB::Table").items():
                protected = resolved(template, table["DeletionProtectionEnabled"], **given)
                assert protected is (protect == "true"), (stage, name)
    assert template["Parameters"]["Protect"]["Default"] == "false"


def test_a_deleted_stack_leaves_no_resource_behind(template: dict[str, Any]) -> None:
    kept = {
        resource["Type"]
        for resource in template["Resources"].values()
        if resource.get("DeletionPolicy", "Delete") != "Delete"
    }
    assert kept == {"AWS::Lambda::Version"}  # SAM keeps old versions; they go with their function
