"""CloudFormation: deploys a SAM template with SAM's transform and moto's CloudFormation engine.

SAM's translator converts the template to plain CloudFormation. Moto's engine resolves parameters, conditions and
intrinsic functions, and creates the resources that store data. This file has models of the types that moto does not
have, and records the resolved properties of each resource for the other modules of localaws/.
"""

import copy
import json
import logging
import os
import secrets
import string
import uuid
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import yaml
from moto.awslambda import models as lambda_models
from moto.cloudformation import parsing
from moto.cloudformation.exceptions import UnformattedGetAttTemplateException
from moto.cloudformation.models import Stack as MotoStack
from moto.cloudformation.models import cloudformation_backends
from moto.cognitoidp.models import CognitoIdpBackend, cognitoidp_backends
from moto.core.common_models import CloudFormationModel
from moto.core.exceptions import ServiceException
from moto.dynamodb.models import dynamodb_backends
from moto.events.models import EventBus
from moto.sns.models import sns_backends
from samtranslator.model.exceptions import InvalidDocumentException
from samtranslator.translator.transform import transform
from samtranslator.yaml_helper import intrinsics_multi_constructor

from localaws.nested_stacks import STACK, NestedStackError, inline
from localaws.store import Store

# Hides warnings of each transform about SAM's internal metrics and feature toggles.
logging.getLogger("samtranslator").setLevel(logging.ERROR)

# A placeholder for the bucket of `sam package`; the key is the logical ID.
CODE_BUCKET = "local"


class TemplateError(Exception):
    """A template is not valid. The message is one line: the file, the resource if there is one, and the reason."""


@dataclass(frozen=True)
class Resource:
    """A deployed resource.

    Attributes:
        physical_id: value of `!Ref`; for a layer the ARN with the version.
        properties: resolved properties, without intrinsic functions and without the values of `AWS::NoValue`.
        local_path: folder in CodeUri or ContentUri.
    """

    logical_id: str
    type: str
    physical_id: str
    properties: dict[str, Any]
    local_path: Path | None


@dataclass(frozen=True)
class Stack:
    """A deployed template: its resources by logical ID, and the values of its outputs."""

    name: str
    resources: dict[str, Resource]
    outputs: dict[str, str]

    def of_type(self, type: str) -> list[Resource]:  # noqa: A002 - the name in CloudFormation
        return [resource for resource in self.resources.values() if resource.type == type]


def deploy(path: Path, store: Store, *, stack_name: str, parameters: Mapping[str, str]) -> Stack:
    """Deploys a SAM template to a started store.

    Args:
        path: path of the template.
        store: contains the stack, so that boto3's CloudFormation client shows it as well.
        stack_name: name of the stack, and prefix of generated names.
        parameters: values of the template's parameters, required for those without a default.

    Raises:
        TemplateError: the template cannot be read, transformed or resolved, names a folder that does not exist or an
            unknown resource type, or the parameters do not match.
    """
    try:
        template = inline(_read(path), path.parent, _read_nested, lambda kind: kind in _RUN | _PERMISSIONS)
        _check_parameters(template, parameters)
        folders = _take_folders(template, path.parent)
        plain = _transform(template, dict(parameters), store.region)
        _check_types(plain)
        return _create(plain, folders, store, stack_name, parameters)
    except (TemplateError, NestedStackError) as error:
        message = f"{path.name}: {error}"
        raise TemplateError(message) from error


# ------------------------------------------------------------------------------------------------ the template


class _Loader(yaml.CSafeLoader):
    """A loader for SAM's YAML with the parser in C. SAM's own loader takes 0.25 s for Orderflow's template."""


_Loader.add_multi_constructor("!", intrinsics_multi_constructor)


def _read(path: Path) -> dict[str, Any]:
    try:
        template = yaml.load(path.read_text(), _Loader)  # noqa: S506 - a safe loader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        message = f"line {mark.line + 1}: {error.problem}" if mark else str(error)
        raise TemplateError(message) from error
    except OSError as error:
        raise TemplateError(error.strerror) from error
    if not isinstance(template, dict) or not isinstance(template.get("Resources"), dict):
        raise TemplateError("the template has no Resources")
    # A copy, because YAML anchors share one object in several places, and SAM's transform changes objects in place.
    copied: dict[str, Any] = json.loads(json.dumps(template))
    return copied


def _read_nested(path: Path) -> dict[str, Any]:
    try:
        return _read(path)
    except TemplateError as error:
        message = f"{path.name}: {error}"
        raise TemplateError(message) from error


def _check_parameters(template: dict[str, Any], parameters: Mapping[str, str]) -> None:
    declared = template.get("Parameters", {})
    unknown = parameters.keys() - declared.keys()
    missing = {name for name, parameter in declared.items() if "Default" not in parameter} - parameters.keys()
    if unknown or missing:
        kind, names = ("unknown", unknown) if unknown else ("no value for", missing)
        message = f"Parameters: {kind} {', '.join(sorted(names))}"
        raise TemplateError(message)


def _take_folders(template: dict[str, Any], root: Path) -> dict[str, Path]:
    """Replaces the code folders in the template by S3 locations, which SAM's transform requires.

    Returns:
        The folders by logical ID.
    """
    folders = {}
    default = template.get("Globals", {}).get("Function", {}).pop("CodeUri", None)
    for logical_id, resource in template["Resources"].items():
        properties = resource.setdefault("Properties", {})
        if resource.get("Type") == "AWS::Serverless::Function" and "InlineCode" not in properties:
            name, folder = "CodeUri", properties.get("CodeUri", default)
        elif resource.get("Type") == "AWS::Serverless::LayerVersion":
            name, folder = "ContentUri", properties.get("ContentUri")
        else:
            continue
        if not isinstance(folder, str) or not (root / folder).is_dir():
            message = f"{logical_id}: {name} is not a folder: {folder}"
            raise TemplateError(message)
        folders[logical_id] = (root / folder).resolve()
        properties[name] = f"s3://{CODE_BUCKET}/{logical_id}"
    return folders


class _NoManagedPolicies:
    """Replaces SAM's lookup of managed policies in an AWS account."""

    def load(self) -> dict[str, str]:
        return {}


def _transform(template: dict[str, Any], parameters: dict[str, str], region: str) -> dict[str, Any]:
    try:
        with patch.dict(os.environ, AWS_DEFAULT_REGION=region):  # SAM gets the region from boto3
            plain: dict[str, Any] = transform(template, parameters, _NoManagedPolicies())  # type: ignore[arg-type]
    except InvalidDocumentException as error:
        raise TemplateError("; ".join(cause.message for cause in error.causes)) from error
    return plain


def _check_types(plain: dict[str, Any]) -> None:
    for logical_id, resource in plain["Resources"].items():
        if resource.get("Type") not in parsing.get_model_map():
            message = f"{logical_id}: neither moto nor localaws supports the type {resource.get('Type')}"
            raise TemplateError(message)


# --------------------------------------------------------------------------------------------------- the stack


def _create(
    plain: dict[str, Any], folders: dict[str, Path], store: Store, name: str, parameters: Mapping[str, str]
) -> Stack:
    resolved: dict[str, dict[str, Any]] = {}
    with ExitStack() as replaced:
        _correct_engine(replaced, resolved)
        try:
            backend = cloudformation_backends[store.account_id][store.region]
            made = backend.create_stack(name, json.dumps(plain), dict(parameters))
            outputs = {key: str(output.value) for key in made.output_map if (output := made.output_map[key])}
        except ServiceException as error:
            raise TemplateError(error.message) from error
    resources = {
        logical_id: Resource(
            logical_id=logical_id,
            type=plain["Resources"][logical_id]["Type"],
            physical_id=getattr(made.resource_map[logical_id], "physical_resource_id", logical_id),
            properties=properties,
            local_path=_folder(properties, folders),
        )
        for logical_id, properties in resolved.items()
    }
    stack = Stack(name, resources, outputs)
    _complete_tables(stack, store)
    return stack


def _folder(properties: dict[str, Any], folders: dict[str, Path]) -> Path | None:
    code = properties.get("Code") or properties.get("Content")
    return folders.get(code["S3Key"]) if isinstance(code, dict) and code.get("S3Bucket") == CODE_BUCKET else None


def _complete_tables(stack: Stack, store: Store) -> None:
    """Sets the properties of tables that moto's CloudFormation ignores, but moto's DynamoDB supports."""
    backend = dynamodb_backends[store.account_id][store.region]
    for table in stack.of_type("AWS::DynamoDB::Table"):
        if "TimeToLiveSpecification" in table.properties:
            backend.update_time_to_live(table.physical_id, table.properties["TimeToLiveSpecification"])
        if "PointInTimeRecoverySpecification" in table.properties:
            backend.update_continuous_backups(table.physical_id, table.properties["PointInTimeRecoverySpecification"])


def _correct_engine(replaced: ExitStack, resolved: dict[str, dict[str, Any]]) -> None:
    """Corrects moto's engine during a deployment, and records each resource's properties in `resolved`."""
    create, output = parsing.parse_and_create_resource, parsing.parse_output
    clean, resolve = parsing.clean_json, parsing.parse_resource_and_generate_name

    def noted(logical_id: str, *arguments: Any) -> Any:
        model, resource, name = resolve(logical_id, *arguments)
        # A copy, because moto's models change the properties: a rule converts its pattern to a string.
        resolved[logical_id] = copy.deepcopy(resource["Properties"])
        return model, resource, name

    def cleaned(node: Any, resources: Any) -> Any:
        if isinstance(node, list):  # moto replaces NoValue by None
            return [parsing.clean_json(member, resources) for member in node if not _is_no_value(member, resources)]
        value = clean(node, resources)
        if isinstance(node, dict):
            _check_reference(node, value)
        return value

    for owner, name, correction in (
        (parsing, "parse_and_create_resource", lambda *args, **kwargs: _naming(create, *args, **kwargs)),
        (parsing, "parse_output", lambda *args: _naming(output, *args)),
        (parsing, "parse_resource_and_generate_name", noted),
        (parsing, "clean_json", cleaned),
        # Fails with a TypeError for an unknown resource. parse_output reports errors of outputs.
        (parsing.ResourceMap, "validate_outputs", lambda _resources: None),
        # Looks for the code in S3, but the functions run from their folders.
        (lambda_models, "_validate_s3_bucket_and_key", lambda *_, **__: None),
        # Reads JSON with a YAML parser in Python, which takes longer than the rest of the deployment.
        (MotoStack, "parse_template", staticmethod(json.loads)),
    ):
        replaced.enter_context(patch.object(owner, name, correction))


def _naming(make: Callable[..., Any], logical_id: str, *arguments: Any, **options: Any) -> Any:
    """Calls a function of the engine, and adds the name of the resource or output to its errors."""
    try:
        return make(logical_id, *arguments, **options)
    except TemplateError:
        raise  # from a resource that this one refers to; the message has its name
    except Exception as error:  # the engine and its models raise many kinds of exceptions
        reason = getattr(error, "message", None) or f"{type(error).__name__}: {error}"
        if isinstance(error, KeyError):
            reason = f"{error.args[0]} does not exist"
        message = f"{logical_id}: {reason}"
        raise TemplateError(message) from error


def _is_no_value(node: Any, resources: Any) -> bool:
    if not isinstance(node, dict):
        return False
    if "Fn::If" in node:
        condition, yes, no = node["Fn::If"]
        return _is_no_value(yes if resources.lazy_condition_map[condition] else no, resources)
    return node == {"Ref": "AWS::NoValue"}


def _check_reference(node: dict[str, Any], value: Any) -> None:
    """Checks that the engine resolved a Ref or GetAtt, and not to None, a Python object or the node itself.

    Raises:
        ServiceException: the reference cannot be resolved.
    """
    if "Ref" in node and node["Ref"] != "AWS::NoValue" and (value is None or isinstance(value, CloudFormationModel)):
        message = f"!Ref {node['Ref']} has no value: the resource's condition is false, or moto does not support it"
        raise ServiceException("ValidationError", message)
    if "Fn::GetAtt" in node and (value is None or isinstance(value, dict)):
        message = f"!GetAtt {'.'.join(node['Fn::GetAtt'])} has no value in moto"
        raise ServiceException("ValidationError", message)


def _correct_answers() -> None:
    """Applies the corrections of moto's engine that are also needed after the deployment, so they are permanent.

    In moto, a Ref to an event bus or a layer is a Python object. Moto exports outputs whose condition is false, and
    fails if such an output refers to a resource with the same condition.
    """
    exports: Any = parsing.OutputMap.exports

    def wanted_exports(outputs: Any) -> Any:
        with_value = copy.copy(outputs)
        with_value._output_json_map = {key: outputs._output_json_map[key] for key in outputs if outputs[key]}
        return exports.fget(with_value)

    parsing.OutputMap.exports = property(wanted_exports)  # type: ignore[method-assign, assignment]
    EventBus.physical_resource_id = property(lambda bus: bus.name)  # type: ignore[attr-defined]
    lambda_models.LayerVersion.physical_resource_id = property(lambda layer: layer.arn)  # type: ignore[attr-defined]

    # A function has one version here: every alias and version refers to it.
    functions: Any = lambda_models.LambdaStorage
    find = functions.get_function_by_name_with_qualifier
    functions.get_function_by_name_with_qualifier = lambda stored, name, _qualifier=None: find(stored, name)


_correct_answers()


# ------------------------------------------------------------------- models of the types that moto does not know


@dataclass(frozen=True)
class _Place:
    """The account and region of a resource, and its generated name, used if the template does not name it."""

    account_id: str
    region: str
    name: str

    def arn(self, service: str, resource: str) -> str:
        return f"arn:aws:{service}:{self.region}:{self.account_id}:{resource}"


# Creates a resource from its place and properties. Returns the values of Ref and of the attributes for GetAtt.
_Maker = Callable[[_Place, dict[str, Any]], dict[str, str]]


def _http_api(place: _Place, _properties: dict[str, Any]) -> dict[str, str]:
    api_id = "".join(secrets.choice(string.ascii_lowercase + string.digits) for _ in range(10))
    return {
        "Ref": api_id,
        "ApiId": api_id,
        "ApiEndpoint": f"https://{api_id}.execute-api.{place.region}.amazonaws.com",
    }


def _archive(place: _Place, properties: dict[str, Any]) -> dict[str, str]:
    """Replaces moto's model, which fails with an event pattern and does not support Ref."""
    name = properties.get("ArchiveName", place.name)
    return {"Ref": name, "Arn": place.arn("events", f"archive/{name}")}


def _connection(place: _Place, properties: dict[str, Any]) -> dict[str, str]:
    secret = place.arn("secretsmanager", f"secret:events!connection/{place.name}/{uuid.uuid4()}")
    return _with_id(place, properties, "connection") | {"SecretArn": secret}


def _api_destination(place: _Place, properties: dict[str, Any]) -> dict[str, str]:
    return _with_id(place, properties, "api-destination")


def _with_id(place: _Place, properties: dict[str, Any], kind: str) -> dict[str, str]:
    name = properties.get("Name", place.name)
    arn = place.arn("events", f"{kind}/{name}")
    return {"Ref": name, "Arn": f"{arn}/{uuid.uuid4()}", "ArnForPolicy": arn}


def _user_pool(place: _Place, properties: dict[str, Any]) -> dict[str, str]:
    pool = _cognito(place).create_user_pool(properties.get("UserPoolName", place.name), copy.deepcopy(properties))
    provider = f"cognito-idp.{place.region}.amazonaws.com/{pool.id}"
    return {
        "Ref": pool.id,
        "UserPoolId": pool.id,
        "Arn": pool.arn,
        "ProviderName": provider,
        "ProviderURL": f"https://{provider}",
    }


def _user_pool_client(place: _Place, properties: dict[str, Any]) -> dict[str, str]:
    settings = {"ClientName": place.name} | properties
    pool_id, with_secret = settings.pop("UserPoolId"), settings.pop("GenerateSecret", False)
    client = _cognito(place).create_user_pool_client(pool_id, with_secret, settings)
    values = {"Ref": client.id, "ClientId": client.id, "Name": settings["ClientName"]}
    return values | ({"ClientSecret": client.secret} if with_secret else {})


def _user_pool_group(place: _Place, properties: dict[str, Any]) -> dict[str, str]:
    name = properties.get("GroupName", place.name)
    optional = (properties.get(key) for key in ("Description", "RoleArn", "Precedence"))
    _cognito(place).create_group(properties["UserPoolId"], name, *optional)  # type: ignore[arg-type]
    return {"Ref": name}


def _cognito(place: _Place) -> CognitoIdpBackend:
    return cognitoidp_backends[place.account_id][place.region]


def _version(place: _Place, properties: dict[str, Any]) -> dict[str, str]:
    return {"Ref": place.arn("lambda", f"function:{properties['FunctionName']}:1"), "Version": "1"}


def _alias(place: _Place, properties: dict[str, Any]) -> dict[str, str]:
    arn = place.arn("lambda", f"function:{properties['FunctionName']}:{properties['Name']}")
    return {"Ref": arn, "AliasArn": arn}


def _named(place: _Place, _properties: dict[str, Any]) -> dict[str, str]:
    return {"Ref": place.name}


def _policy(place: _Place, _properties: dict[str, Any]) -> dict[str, str]:
    return {"Ref": place.name, "Id": place.name}


def _stage(_place: _Place, properties: dict[str, Any]) -> dict[str, str]:
    return {"Ref": properties["StageName"]}


def _pipe(place: _Place, properties: dict[str, Any]) -> dict[str, str]:
    name = properties.get("Name", place.name)
    return {"Ref": name, "Arn": place.arn("pipes", f"pipe/{name}")}


def _schedule(place: _Place, properties: dict[str, Any]) -> dict[str, str]:
    name = properties.get("Name", place.name)
    return {"Ref": name, "Arn": place.arn("scheduler", f"schedule/default/{name}")}


def _subscription(place: _Place, properties: dict[str, Any]) -> dict[str, str]:
    if properties["Protocol"] not in _DELIVERED:  # moto would send an HTTP request to the endpoint
        arn = f"{properties['TopicArn']}:{uuid.uuid4()}"
        return {"Ref": arn, "Arn": arn}
    topics = sns_backends[place.account_id][place.region]
    subscription = topics.subscribe(properties["TopicArn"], properties["Endpoint"], properties["Protocol"])
    if properties.get("RawMessageDelivery") in (True, "true"):
        topics.set_subscription_attributes(subscription.arn, "RawMessageDelivery", "true")
    # The scope first: moto needs it to read the policy.
    if "FilterPolicyScope" in properties:
        topics.set_subscription_attributes(subscription.arn, "FilterPolicyScope", properties["FilterPolicyScope"])
    if "FilterPolicy" in properties:
        topics.set_subscription_attributes(subscription.arn, "FilterPolicy", json.dumps(properties["FilterPolicy"]))
    return {"Ref": subscription.arn, "Arn": subscription.arn}


def _configuration_set(place: _Place, properties: dict[str, Any]) -> dict[str, str]:
    return {"Ref": properties.get("Name", place.name)}


def _log_policy(_place: _Place, properties: dict[str, Any]) -> dict[str, str]:
    return {"Ref": properties["PolicyName"]}


def _model(resource_type: str, make: _Maker) -> type[CloudFormationModel]:
    """Returns a model of a resource type: a subclass of CloudFormationModel, which moto finds by itself."""

    class Recorded(CloudFormationModel):
        def __init__(self, values: dict[str, str]) -> None:
            self.values = values

        @property
        def physical_resource_id(self) -> str:
            return self.values["Ref"]

        @staticmethod
        def cloudformation_name_type() -> str:
            return ""

        @staticmethod
        def cloudformation_type() -> str:
            return resource_type

        @classmethod
        def create_from_cloudformation_json(
            cls, resource_name: str, cloudformation_json: dict[str, Any], account_id: str, region_name: str, **_: Any
        ) -> "Recorded":
            place = _Place(account_id, region_name, resource_name)
            return cls(make(place, cloudformation_json["Properties"]))

        def get_cfn_attribute(self, attribute_name: str) -> str:
            if attribute_name == "Ref" or attribute_name not in self.values:
                raise UnformattedGetAttTemplateException
            return self.values[attribute_name]

    return Recorded


# Moto looks for subclasses. Python keeps only weak references to them, so this list keeps them alive.
_MODELS = [
    _model(resource_type, make)
    for resource_type, make in {
        "AWS::ApiGatewayV2::Api": _http_api,
        "AWS::ApiGatewayV2::Stage": _stage,
        STACK: _named,  # replaces moto's model, which looks for the template in S3
        "AWS::Cognito::UserPool": _user_pool,
        "AWS::Cognito::UserPoolClient": _user_pool_client,
        "AWS::Cognito::UserPoolGroup": _user_pool_group,
        "AWS::Events::ApiDestination": _api_destination,
        "AWS::Events::Archive": _archive,
        "AWS::Events::Connection": _connection,
        "AWS::Events::EventBusPolicy": _named,
        "AWS::CloudWatch::Alarm": _named,
        "AWS::CodeDeploy::Application": _named,
        "AWS::CodeDeploy::DeploymentGroup": _named,
        "AWS::Lambda::Alias": _alias,
        "AWS::Lambda::EventInvokeConfig": _named,
        "AWS::Lambda::Version": _version,
        "AWS::Logs::ResourcePolicy": _log_policy,
        "AWS::Pipes::Pipe": _pipe,
        "AWS::SES::ConfigurationSet": _configuration_set,
        "AWS::SES::ConfigurationSetEventDestination": _policy,
        "AWS::SNS::Subscription": _subscription,
        "AWS::SNS::TopicPolicy": _policy,
        "AWS::SQS::QueuePolicy": _policy,
        "AWS::Scheduler::Schedule": _schedule,
    }.items()
]


# ---------------------------------------------------------------------------------------------- what is not run

# Types that localaws/ runs, and types of permissions, which are not checked here.
_RUN = {
    "AWS::ApiGatewayV2::Api",
    "AWS::ApiGatewayV2::Stage",
    "AWS::Cognito::UserPool",
    "AWS::Cognito::UserPoolClient",
    "AWS::Cognito::UserPoolGroup",
    "AWS::DynamoDB::Table",
    "AWS::Events::ApiDestination",
    "AWS::Events::Archive",
    "AWS::Events::Connection",
    "AWS::Events::EventBus",
    "AWS::Events::Rule",
    "AWS::Lambda::Alias",
    "AWS::Lambda::EventInvokeConfig",
    "AWS::Lambda::EventSourceMapping",
    "AWS::Lambda::Function",
    "AWS::Lambda::LayerVersion",
    "AWS::Lambda::Version",
    "AWS::Logs::LogGroup",
    "AWS::Pipes::Pipe",
    "AWS::SNS::Subscription",
    "AWS::SNS::Topic",
    "AWS::SQS::Queue",
    "AWS::Scheduler::Schedule",
}
# Protocols of subscriptions that are delivered. E-mails, for example, are not sent.
_DELIVERED = {"lambda", "sqs"}
_PERMISSIONS = {
    "AWS::Events::EventBusPolicy",
    "AWS::IAM::ManagedPolicy",
    "AWS::IAM::Policy",
    "AWS::IAM::Role",
    "AWS::Lambda::Permission",
    "AWS::Logs::ResourcePolicy",
    "AWS::SNS::TopicPolicy",
    "AWS::SQS::QueuePolicy",
}


def not_run(stack: Stack) -> list[str]:
    """Returns the resources that have no effect here, unlike in AWS, as `logical ID (type)`."""
    known = _RUN | _PERMISSIONS
    return sorted(
        f"{resource.logical_id} ({resource.type})"
        for resource in stack.resources.values()
        if resource.type not in known or not _protocols(resource) <= _DELIVERED
    )


def _protocols(resource: Resource) -> set[str]:
    """Returns the protocols of a topic's subscriptions or of a subscription."""
    match resource.type:
        case "AWS::SNS::Subscription":
            subscriptions = [resource.properties]
        case "AWS::SNS::Topic":
            subscriptions = resource.properties.get("Subscription", [])
        case _:
            subscriptions = []
    return {subscription["Protocol"] for subscription in subscriptions}
