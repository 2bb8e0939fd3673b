"""Commands find a deployed stack by region, credentials and name, and say in one line what is missing."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import boto3
import pytest
from botocore.exceptions import ClientError, UnauthorizedSSOTokenError
from botocore.stub import Stubber
from moto import mock_aws

from tools import alerts, events, reconcile, replay, republish, seed, switch, token, unpark
from tools.errors import explain
from tools.stack import StackNotFound, deployed_stack

Command = Callable[[list[str]], int]

WINDOW = ["--from", "2026-11-21T12:00:00Z", "--to", "2026-11-21T13:00:00Z"]
COMMANDS: list[tuple[Command, list[str]]] = [
    (alerts.main, []),
    (events.main, ["--order", "ORD-1"]),
    (reconcile.main, []),
    (replay.main, [*WINDOW, "--rule", "sales-analytics"]),
    (republish.main, ["--order", "ORD-1"]),
    (seed.main, []),
    (switch.main, ["off", "--function", "InventoryFunction"]),
    (token.main, []),
    (unpark.main, []),
]
every_command = pytest.mark.parametrize(
    ("command", "arguments"), COMMANDS, ids=[command.__module__ for command, _ in COMMANDS]
)


def create_stack(region: str, **outputs: str) -> None:
    """Create the stack `shop` in moto."""
    template = {
        "Resources": {"Topic": {"Type": "AWS::SNS::Topic"}},
        "Outputs": {name: {"Value": value} for name, value in outputs.items()},
    }
    boto3.client("cloudformation", region).create_stack(StackName="shop", TemplateBody=json.dumps(template))


def error_line(command: Command, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that a command prints to stderr when it fails."""
    assert command([*arguments, "--stack", "shop"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    return line


@every_command
@pytest.mark.usefixtures("no_account")
def test_without_a_region_a_command_says_what_to_set(
    command: Command, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    line = error_line(command, arguments, capsys)

    assert line == "error: no AWS region: set AWS_REGION, or AWS_PROFILE to a profile that has a region"


@every_command
@pytest.mark.usefixtures("no_account")
def test_without_credentials_a_command_says_what_to_set(
    command: Command, arguments: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_REGION", "eu-west-1")

    line = error_line(command, arguments, capsys)

    assert line.startswith("error: no AWS credentials (")
    assert line.endswith("): set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")


@pytest.mark.usefixtures("no_account")
def test_a_profile_that_does_not_exist_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobody")

    line = error_line(token.main, [], capsys)

    assert line.startswith("error: The config profile (nobody) could not be found: set AWS_PROFILE to ")


@every_command
@pytest.mark.usefixtures("no_account")
def test_a_stack_that_does_not_exist_is_named_with_its_region(
    command: Command, arguments: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    with mock_aws():
        create_stack("us-east-1", ApiUrl="https://api")

        line = error_line(command, arguments, capsys)

    assert line.startswith("error: no stack shop in eu-west-1: check STACK, AWS_REGION and AWS_PROFILE")


@pytest.mark.parametrize(
    "variables",
    [
        {"AWS_REGION": "eu-west-1"},
        {"AWS_DEFAULT_REGION": "eu-west-1"},
        {"AWS_REGION": "eu-west-1", "AWS_DEFAULT_REGION": "us-east-1"},
        {"AWS_REGION": "", "AWS_DEFAULT_REGION": "eu-west-1"},
        {"AWS_PROFILE": "shop"},
    ],
)
def test_a_stack_is_found_in_the_region_of_the_environment_or_the_profile(
    no_account: Path, variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    no_account.write_text("[profile shop]\nregion = eu-west-1\n")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with mock_aws():
        create_stack("eu-west-1", ApiUrl="https://api", OrdersTableName="orders")

        found = deployed_stack("shop")

    assert (found.region, found.api_url, found.outputs["OrdersTableName"]) == ("eu-west-1", "https://api", "orders")


@pytest.mark.usefixtures("no_account")
def test_a_stack_without_an_api_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    with mock_aws():
        create_stack("eu-west-1", Other="value")

        with pytest.raises(StackNotFound, match="stack shop in eu-west-1 has no output ApiUrl; its status is CREATE_"):
            deployed_stack("shop")


@every_command
@pytest.mark.usefixtures("no_account")
def test_a_stack_of_another_application_is_named(
    command: Command, arguments: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    with mock_aws():
        create_stack("eu-west-1", ApiUrl="https://api")

        line = error_line(command, arguments, capsys)

    assert re.match(r"error: the stack has no (output [A-Za-z]+: it is of another application|function )", line)


@pytest.mark.usefixtures("no_account")
def test_expired_credentials_are_not_reported_as_a_missing_stack(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    client = boto3.client(
        "cloudformation", region_name="eu-west-1", aws_access_key_id="key", aws_secret_access_key="secret"
    )
    monkeypatch.setattr(boto3.Session, "client", lambda *_, **__: client)
    with Stubber(client) as stubber:
        stubber.add_client_error("describe_stacks", "ExpiredToken", "The security token is expired")

        line = error_line(token.main, [], capsys)

    assert line.startswith("error: AWS refuses the credentials (")
    assert line.endswith("The security token is expired): sign in again (`aws sso login`), or set new credentials")


def test_an_expired_sign_in_says_how_to_sign_in_again() -> None:
    assert explain(UnauthorizedSSOTokenError()).endswith(": sign in again (`aws sso login`), or set new credentials")


def test_ctrl_c_ends_a_command_without_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: str | None) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(token, "find", interrupt)

    assert token.main([]) == 130


def test_an_error_of_several_lines_becomes_one() -> None:
    error = ClientError({"Error": {"Code": "AccessDenied", "Message": "not\n  allowed"}}, "PutItem")

    assert explain(error) == "An error occurred (AccessDenied) when calling the PutItem operation: not allowed"
