"""The report of what a template asks for and localaws/ does not honour. It is printed at the start of a stack."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from localaws.resource_models import DELIVERED_PROTOCOLS, Resource

# The types that run here, with the properties that have the same effect as in AWS, or none. All others are reported.
# `A/` stands for a property whose own properties are listed too; a name without a slash covers them all.
_TABLE = {
    "AWS::ApiGatewayV2::Api": "Body Name ProtocolType FailOnWarnings",
    "AWS::ApiGatewayV2::Stage": "ApiId StageName AutoDeploy StageVariables DeploymentId",
    "AWS::Cognito::UserPool": """
        UserPoolName UserPoolTier UserPoolTags Policies UsernameAttributes AutoVerifiedAttributes Schema
        AccountRecoverySetting MfaConfiguration""",
    "AWS::Cognito::UserPoolClient": "UserPoolId ClientName GenerateSecret ReadAttributes",
    "AWS::Cognito::UserPoolGroup": "UserPoolId GroupName Precedence",
    "AWS::DynamoDB::Table": """
        TableName AttributeDefinitions KeySchema BillingMode ProvisionedThroughput OnDemandThroughput WarmThroughput
        GlobalSecondaryIndexes LocalSecondaryIndexes StreamSpecification PointInTimeRecoverySpecification
        DeletionProtectionEnabled TableClass""",
    "AWS::Events::ApiDestination": "Name ConnectionArn HttpMethod InvocationEndpoint InvocationRateLimitPerSecond",
    "AWS::Events::Archive": "ArchiveName SourceArn EventPattern RetentionDays",
    "AWS::Events::Connection": "Name AuthorizationType AuthParameters/ ApiKeyAuthParameters",
    "AWS::Events::EventBus": "Name",
    "AWS::Events::Rule": """
        Name EventBusName EventPattern ScheduleExpression State Targets/ Id Arn Input InputPath InputTransformer
        RetryPolicy DeadLetterConfig""",
    "AWS::Lambda::Alias": "Name FunctionName FunctionVersion",
    "AWS::Lambda::EventInvokeConfig": """
        FunctionName Qualifier MaximumEventAgeInSeconds MaximumRetryAttempts DestinationConfig""",
    "AWS::Lambda::EventSourceMapping": """
        FunctionName EventSourceArn Enabled BatchSize MaximumBatchingWindowInSeconds FilterCriteria StartingPosition
        FunctionResponseTypes ScalingConfig MaximumRetryAttempts MaximumRecordAgeInSeconds BisectBatchOnFunctionError
        DestinationConfig""",
    "AWS::Lambda::Function": """
        FunctionName Handler Runtime Code PackageType Timeout MemorySize Environment Layers Architectures
        ReservedConcurrentExecutions DeadLetterConfig""",
    "AWS::Lambda::LayerVersion": "LayerName Content CompatibleRuntimes CompatibleArchitectures LicenseInfo",
    "AWS::Lambda::Version": "FunctionName CodeSha256",
    "AWS::Logs::LogGroup": "LogGroupName LogGroupClass RetentionInDays",
    "AWS::Pipes::Pipe": """
        Name Source Target DesiredState SourceParameters/ FilterCriteria DynamoDBStreamParameters/ BatchSize
        StartingPosition DeadLetterConfig MaximumBatchingWindowInSeconds MaximumRetryAttempts
        MaximumRecordAgeInSeconds TargetParameters/ InputTemplate""",
    "AWS::S3::Bucket": "BucketName AccessControl OwnershipControls PublicAccessBlockConfiguration BucketEncryption",
    "AWS::SNS::Subscription": "TopicArn Protocol Endpoint RawMessageDelivery FilterPolicy FilterPolicyScope",
    "AWS::SNS::Topic": "TopicName Subscription FifoTopic",
    "AWS::SQS::Queue": """
        QueueName DelaySeconds MaximumMessageSize MessageRetentionPeriod ReceiveMessageWaitTimeSeconds
        VisibilityTimeout RedrivePolicy FifoQueue ContentBasedDeduplication SqsManagedSseEnabled""",
    "AWS::SSM::Parameter": "Name Type Value AllowedPattern DataType Tier",
    "AWS::Scheduler::Schedule": """
        Name ScheduleExpression ScheduleExpressionTimezone StartDate EndDate State FlexibleTimeWindow/ Mode
        Target/ Arn Input RetryPolicy DeadLetterConfig""",
}
HONOURED = {kind: frozenset(names.split()) for kind, names in _TABLE.items()}
"""The types that run here, with the honoured properties."""

PERMISSIONS = {
    *("AWS::IAM::InstanceProfile", "AWS::IAM::ManagedPolicy", "AWS::IAM::Policy", "AWS::IAM::Role"),
    *("AWS::Events::EventBusPolicy", "AWS::Lambda::LayerVersionPermission", "AWS::Lambda::Permission"),
    *("AWS::Logs::ResourcePolicy", "AWS::S3::BucketPolicy", "AWS::SNS::TopicPolicy", "AWS::SQS::QueuePolicy"),
}
"""Types of permissions. They are not checked here."""

# Properties of any type that have no effect, or that are permissions.
_ANYWHERE = {"Tags", "Description", "DisplayName", "Role", "RoleArn"}
# The services that invoke functions here by their permission.
_CALLERS = {"apigateway.amazonaws.com", "events.amazonaws.com", "sns.amazonaws.com"}
_SHOWN = 3
"""Names in a line of the summary; the others are only counted."""


class Report:
    """Collects what is not honoured. Call it with a logical ID, or `LogicalId.Property`, and the reason.

    A resource with a reason of its own is not listed with its type.
    """

    def __init__(self) -> None:
        self._types: dict[str, dict[str, list[str]]] = {}
        self._properties: dict[str, dict[str, list[str]]] = {}
        self._reasons: dict[str, list[str]] = {}

    def __call__(self, name: str, reason: str) -> None:
        names = self._reasons.setdefault(reason, [])
        if name not in names:
            names.append(name)

    def check(self, resources: Iterable[Resource]) -> None:
        """Adds the types and properties of a stack's resources that are not honoured."""
        named = {name for names in self._reasons.values() for name in names}
        for resource in resources:
            kind, name = resource.type.removeprefix("AWS::"), resource.logical_id
            caller = str(resource.properties.get("Principal"))
            if resource.type == "AWS::Lambda::Permission" and caller.endswith(".com") and caller not in _CALLERS:
                self(name, f"{caller} does not invoke functions here")
            elif resource.type in PERMISSIONS:
                self._types.setdefault("permissions", {}).setdefault(kind, []).append(name)
            elif resource.type not in HONOURED and name not in named:
                service, _, part = kind.partition("::")
                self._types.setdefault(service, {}).setdefault(part, []).append(name)
            elif resource.type in HONOURED:
                for path in dict.fromkeys(_others(resource.properties, HONOURED[resource.type])):
                    self._properties.setdefault(kind, {}).setdefault(path, []).append(name)
            for protocol in sorted(_protocols(resource) - DELIVERED_PROTOCOLS):
                self(name, f"messages of protocol {protocol} are not sent")

    def lines(self, *, verbose: bool) -> list[str]:
        """Returns the report in a few lines, or with `verbose` with one line for each resource and property."""
        if verbose:
            return list(self._details())
        lines = [f"{_few(names)}: {reason}" for reason, names in self._reasons.items()]
        groups = []
        for service, kinds in sorted(self._types.items()):
            shown = "" if service == "permissions" else f" ({', '.join(sorted(kinds))})"
            groups.append(f"{sum(map(len, kinds.values()))} {service}{shown}")
        for kind, paths in sorted(self._properties.items()):
            groups.append(
                f"{kind.rpartition('::')[2]} ({', '.join(sorted(path.rpartition('.')[2] for path in paths))})"
            )
        return lines + ([f"not honoured here: {'; '.join(groups)} (details: --verbose)"] if groups else [])

    def _details(self) -> Iterator[str]:
        for reason, names in self._reasons.items():
            yield from (f"{name}: {reason}" for name in names)
        for service, kinds in sorted(self._types.items()):
            reason = "not checked" if service == "permissions" else "not run"
            yield from (f"{name} ({kind}): {reason} here" for kind, names in kinds.items() for name in names)
        for kind, paths in sorted(self._properties.items()):
            yield from (f"{name}.{path} ({kind}): not honoured" for path, names in paths.items() for name in names)


def _others(properties: Mapping[str, Any], honoured: frozenset[str], prefix: str = "") -> Iterator[str]:
    """Yields the properties that are not honoured. A switch that is off and an empty value do nothing."""
    for name, value in properties.items():
        if name in honoured or name in _ANYWHERE or value in (False, "false", None, [], {}):
            continue
        members = value if isinstance(value, list) else [value]
        if f"{name}/" not in honoured or not all(isinstance(member, dict) for member in members):
            yield prefix + name
            continue
        for member in members:
            yield from _others(member, honoured, f"{prefix}{name}.")


def _protocols(resource: Resource) -> set[str]:
    """Returns the protocols of a topic's subscriptions or of a subscription."""
    one = [resource.properties] if resource.type == "AWS::SNS::Subscription" else []
    several = resource.properties.get("Subscription", []) if resource.type == "AWS::SNS::Topic" else []
    return {each["Protocol"] for each in one + several}


def _few(names: list[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
