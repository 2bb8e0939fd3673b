"""CloudFormation models of the resource types that moto lacks or gets wrong, and stand-ins for all others."""

import copy
import json
import secrets
import string
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moto.cloudformation.exceptions import UnformattedGetAttTemplateException
from moto.cognitoidp.models import CognitoIdpBackend, cognitoidp_backends
from moto.sns.models import sns_backends

DELIVERED_PROTOCOLS = {"lambda", "sqs"}
"""Protocols of SNS subscriptions that are delivered. E-mails, for example, are not sent."""

Json = dict[str, Any]


@dataclass(frozen=True)
class Resource:
    """A deployed resource.

    Attributes:
        physical_id: value of `!Ref`; for a layer the ARN with the version.
        properties: resolved properties, without intrinsic functions and without the values of `AWS::NoValue`.
        local_path: folder in CodeUri or ContentUri; None if it is not a folder on this machine.
    """

    logical_id: str
    type: str
    physical_id: str
    properties: Json
    local_path: Path | None


@dataclass(frozen=True)
class Place:
    """The account and region of a resource, and its generated name, used if the template does not name it."""

    account_id: str
    region: str
    name: str

    def arn(self, service: str, resource: str) -> str:
        return f"arn:aws:{service}:{self.region}:{self.account_id}:{resource}"


class Recorded:
    """A resource with the values of `Ref` and of its attributes for GetAtt, for moto's engine."""

    cf_resource_type = logical_resource_id = ""  # set by the engine

    def __init__(self, values: dict[str, str]) -> None:
        self.values = values
        self.physical_resource_id = values["Ref"]

    def is_created(self) -> bool:
        return True

    def get_cfn_attribute(self, attribute_name: str) -> str:
        if attribute_name == "Ref" or attribute_name not in self.values:
            raise UnformattedGetAttTemplateException
        return self.values[attribute_name]


class StandIn(Recorded):
    """A resource that does not exist here. Each attribute has a value: an ARN, or the attribute's own name."""

    def __init__(self, logical_id: str, resource_type: str, place: Place, properties: Json) -> None:
        kind = resource_type.rpartition("::")[2]
        named = (properties.get(name) for name in (f"{kind}Name", "Name"))
        super().__init__({"Ref": next((name for name in named if isinstance(name, str)), place.name)})
        self._logical_id, self._place = logical_id, place
        self._service = resource_type.split("::")[1].lower()

    def get_cfn_attribute(self, attribute_name: str) -> str:
        if attribute_name.endswith("Arn"):
            return self._place.arn(self._service, self.values["Ref"])
        return f"{self._logical_id}.{attribute_name}"


# Creates a resource from its place and properties. Returns the values of Ref and of the attributes for GetAtt.
_Maker = Callable[[Place, Json], dict[str, str]]


def _named(name_property: str, **arns: str) -> _Maker:
    """Returns a maker: Ref is the name, and each attribute is an ARN from `service:resource`, with {name} and {id}."""

    def make(place: Place, properties: Json) -> dict[str, str]:
        name, unique = properties.get(name_property, place.name), uuid.uuid4()
        filled = {attribute: text.format(name=name, id=unique) for attribute, text in arns.items()}
        return {"Ref": name} | {attribute: place.arn(*text.split(":", 1)) for attribute, text in filled.items()}

    return make


def _http_api(place: Place, _properties: Json) -> dict[str, str]:
    api_id = "".join(secrets.choice(string.ascii_lowercase + string.digits) for _ in range(10))
    endpoint = f"https://{api_id}.execute-api.{place.region}.amazonaws.com"
    return {"Ref": api_id, "ApiId": api_id, "ApiEndpoint": endpoint}


def _user_pool(place: Place, properties: Json) -> dict[str, str]:
    pool = _cognito(place).create_user_pool(properties.get("UserPoolName", place.name), copy.deepcopy(properties))
    provider = f"cognito-idp.{place.region}.amazonaws.com/{pool.id}"
    values = {"UserPoolId": pool.id, "Arn": pool.arn, "ProviderName": provider, "ProviderURL": f"https://{provider}"}
    return {"Ref": pool.id} | values


def _user_pool_client(place: Place, properties: Json) -> dict[str, str]:
    settings = {"ClientName": place.name} | properties
    pool_id, with_secret = settings.pop("UserPoolId"), bool(settings.pop("GenerateSecret", False))
    client = _cognito(place).create_user_pool_client(pool_id, with_secret, settings)
    values = {"Ref": client.id, "ClientId": client.id, "Name": settings["ClientName"]}
    return values | ({"ClientSecret": client.secret} if with_secret else {})


def _user_pool_group(place: Place, properties: Json) -> dict[str, str]:
    name = properties.get("GroupName", place.name)
    optional = (properties.get(key) for key in ("Description", "RoleArn", "Precedence"))
    _cognito(place).create_group(properties["UserPoolId"], name, *optional)  # type: ignore[arg-type]
    return {"Ref": name}


def _cognito(place: Place) -> CognitoIdpBackend:
    return cognitoidp_backends[place.account_id][place.region]


def _version(place: Place, properties: Json) -> dict[str, str]:
    return {"Ref": place.arn("lambda", f"function:{properties['FunctionName']}:1"), "Version": "1"}


def _alias(place: Place, properties: Json) -> dict[str, str]:
    arn = place.arn("lambda", f"function:{properties['FunctionName']}:{properties['Name']}")
    return {"Ref": arn, "AliasArn": arn}


def _subscription(place: Place, properties: Json) -> dict[str, str]:
    if properties["Protocol"] not in DELIVERED_PROTOCOLS:  # moto would send an HTTP request to the endpoint
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


MAKERS: dict[str, _Maker] = {
    "AWS::ApiGatewayV2::Api": _http_api,
    "AWS::ApiGatewayV2::Stage": _named("StageName"),
    "AWS::Cognito::UserPool": _user_pool,
    "AWS::Cognito::UserPoolClient": _user_pool_client,
    "AWS::Cognito::UserPoolGroup": _user_pool_group,
    "AWS::Events::ApiDestination": _named(
        "Name", Arn="events:api-destination/{name}/{id}", ArnForPolicy="events:api-destination/{name}"
    ),
    # Moto's model of an archive fails with an event pattern and does not support Ref.
    "AWS::Events::Archive": _named("ArchiveName", Arn="events:archive/{name}"),
    "AWS::Events::Connection": _named(
        "Name",
        Arn="events:connection/{name}/{id}",
        ArnForPolicy="events:connection/{name}",
        SecretArn="secretsmanager:secret:events!connection/{name}/{id}",
    ),
    "AWS::Lambda::Alias": _alias,
    "AWS::Lambda::EventInvokeConfig": _named(""),
    "AWS::Lambda::Version": _version,
    "AWS::Pipes::Pipe": _named("Name", Arn="pipes:pipe/{name}"),
    "AWS::SNS::Subscription": _subscription,
    "AWS::Scheduler::Schedule": _named("Name", Arn="scheduler:schedule/default/{name}"),
}
