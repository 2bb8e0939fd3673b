"""Finds a running stack, local (.local/stack.json) or deployed (by its name), and signs test users in."""

import json
import os
import secrets
import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

from tools.errors import CommandError

LOCAL = Path(".local/stack.json")
SECONDS_TO_ANSWER = 5.0
"""A local stack that accepts no connection for so long counts as stopped."""
USERS = {"customer": "ada@example.com", "staff": "staff@example.com"}


class StackNotFound(CommandError):
    """There is no such stack. The message says how to start one."""


class Outputs(dict[str, str]):
    """The outputs of a stack. A missing one is an error of the command: the stack is of another application."""

    def __missing__(self, name: str) -> str:
        raise CommandError(f"the stack has no output {name}: it is of another application, or of an earlier release")


@dataclass(frozen=True)
class Stack:
    """A running stack.

    Args:
        api_url: the URL of the HTTP API, without a slash at the end.
        outputs: the template's outputs.
        region: the AWS region.
        aws_endpoint: the endpoint of the local AWS services; None for a deployed stack.
        tokens: the known ID tokens, by test user.
        functions: the names of a local stack's functions, by logical ID; empty for a deployed stack.
        mails: the folder of the sent e-mails; None for a deployed stack.
        logs: the folder with a log file per function; None for a deployed stack.
    """

    api_url: str
    outputs: dict[str, str]
    region: str
    aws_endpoint: str | None = None
    tokens: dict[str, str] = field(default_factory=dict)
    functions: dict[str, str] = field(default_factory=dict)
    mails: Path | None = None
    logs: Path | None = None

    def client(self, service: str) -> Any:
        """Returns a boto3 client for the stack's services."""
        return boto3.client(service, **self._connection())  # type: ignore[call-overload]

    def resource(self, service: str) -> Any:
        """Returns a boto3 resource for the stack's services."""
        return boto3.resource(service, **self._connection())  # type: ignore[call-overload]

    def _connection(self) -> dict[str, Any]:
        if self.aws_endpoint is None:
            return {"region_name": self.region}
        return {
            "region_name": self.region,
            "endpoint_url": self.aws_endpoint,
            "aws_access_key_id": "local",
            "aws_secret_access_key": "local",
            "config": Config(account_id_endpoint_mode="disabled", max_pool_connections=50),
        }


def local_stack(description: Path | None = None) -> Stack:
    """Returns the local stack.

    Args:
        description: its stack.json; default: the file that STACK_FILE names, or .local/stack.json.

    Raises:
        StackNotFound: no stack is running, or its description cannot be read.
    """
    path = description or Path(os.environ.get("STACK_FILE", LOCAL))
    try:
        found = json.loads(path.read_text())
        stack = Stack(
            found["apiUrl"],
            Outputs(found["outputs"]),
            found["region"],
            found["awsEndpoint"],
            found.get("tokens", {}),
            found.get("functions", {}),
            path.parent / "mail",
            path.parent / "logs",
        )
        host, port = urlsplit(found["awsEndpoint"]).netloc.split(":")
        address = host, int(port)
    except FileNotFoundError as error:
        raise StackNotFound(f"there is no {path}: start the stack with `make run`") from error
    except (ValueError, LookupError, TypeError) as error:
        raise StackNotFound(f"{path} does not describe a stack: start the stack anew with `make run`") from error
    try:
        socket.create_connection(address, SECONDS_TO_ANSWER).close()
    except OSError as error:
        raise StackNotFound(f"the stack of {path} does not answer ({error}): start it anew with `make run`") from error
    return stack


def deployed_stack(name: str) -> Stack:
    """Returns a deployed stack, by its name in the account and region of the environment.

    Raises:
        StackNotFound: there is no stack of this name, or it has no API.
        BotoCoreError: the region or the credentials are missing.
        ClientError: AWS rejects the request.
    """
    session = session_of()
    cloudformation = session.client("cloudformation")
    where = f"in {session.region_name}"
    try:
        found = cloudformation.describe_stacks(StackName=name)["Stacks"][0]
    except ClientError as error:
        if error.response["Error"]["Code"] != "ValidationError":
            raise
        raise StackNotFound(f"no stack {name} {where}: check STACK, AWS_REGION and AWS_PROFILE ({error})") from error
    outputs = Outputs((output["OutputKey"], output["OutputValue"]) for output in found.get("Outputs", []))
    if "ApiUrl" not in outputs:
        raise StackNotFound(f"stack {name} {where} has no output ApiUrl; its status is {found['StackStatus']}")
    return Stack(outputs["ApiUrl"], outputs, session.region_name)


def session_of(profile: str | None = None, region: str | None = None) -> boto3.Session:
    """Returns a boto3 session.

    Args:
        profile: a profile of the AWS configuration; default: AWS_PROFILE.
        region: default: AWS_REGION, which the AWS CLI reads and boto3 does not; then AWS_DEFAULT_REGION or the region
            of the profile.

    Raises:
        ProfileNotFound: there is no such profile.
    """
    return boto3.Session(profile_name=profile, region_name=region or os.environ.get("AWS_REGION") or None)


def find(name: str | None) -> Stack:
    """Returns the deployed stack of this name, or the local stack without a name."""
    return deployed_stack(name) if name else local_stack()


def sign_in(stack: Stack, user: str) -> str:
    """Returns an ID token of a test user. The user is created if necessary.

    Args:
        stack: the stack of the user pool.
        user: `customer`, or `staff`, who is added to the group of that name.
    """
    cognito = stack.client("cognito-idp")
    pool, email = stack.outputs["UserPoolId"], USERS[user]
    try:
        attributes = [{"Name": "email", "Value": email}, {"Name": "email_verified", "Value": "true"}]
        cognito.admin_create_user(UserPoolId=pool, Username=email, UserAttributes=attributes, MessageAction="SUPPRESS")
    except cognito.exceptions.UsernameExistsException:
        pass  # from an earlier run
    password = f"Aa1-{secrets.token_urlsafe(24)}"  # a new one each time: it is not stored
    cognito.admin_set_user_password(UserPoolId=pool, Username=email, Password=password, Permanent=True)
    if user == "staff":
        cognito.admin_add_user_to_group(UserPoolId=pool, Username=email, GroupName="staff")
    answer = cognito.admin_initiate_auth(
        UserPoolId=pool,
        ClientId=stack.outputs["UserPoolClientId"],
        AuthFlow="ADMIN_USER_PASSWORD_AUTH",
        AuthParameters={"USERNAME": email, "PASSWORD": password},
    )
    return str(answer["AuthenticationResult"]["IdToken"])
