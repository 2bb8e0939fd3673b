"""The commands that deploy and delete a stack: how they call the SAM CLI, and when they refuse."""

import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.contract.source import source
from tools.deploy import LONGEST_STACK_NAME, NOT_UPDATABLE, DeployError, Stage, deploy, read_stage, release, run_sam
from tools.destroy import LEFT_BEHIND, DestroyError, destroy

ROOT = Path(__file__).parents[3]
PROD = Stage("prod", "shop-prod", ["Stage=prod", 'Release=""'])
SANDBOX = Stage("sandbox", "shop", ["Stage=sandbox"])
NOW = 1795528011.5


@dataclass
class Account:
    """An account with one stack, and the SAM CLI that deploys and deletes it.

    Args:
        status: the stack's; None if there is no stack.
        outcome: the status of the stack after `sam deploy`.
        code: the exit code of `sam deploy` and `sam delete`.
    """

    status: str | None = None
    outcome: str = "CREATE_COMPLETE"
    code: int = 0
    parameters: dict[str, str] = field(default_factory=dict)
    commands: list[list[str]] = field(default_factory=list)

    @property
    def meta(self) -> Any:
        return type("Meta", (), {"region_name": "us-east-1"})

    def describe_stacks(self, *, StackName: str) -> dict[str, Any]:  # noqa: N803 - boto3's name for it
        if self.status is None:
            message = f"Stack with id {StackName} does not exist"
            raise ClientError({"Error": {"Code": "ValidationError", "Message": message}}, "DescribeStacks")
        parameters = [{"ParameterKey": key, "ParameterValue": value} for key, value in self.parameters.items()]
        return {"Stacks": [{"StackName": StackName, "StackStatus": self.status, "Parameters": parameters}]}

    def sam(self, arguments: list[str]) -> int:
        self.commands.append(arguments)
        if arguments[0] == "deploy":
            self.status = self.outcome
            return self.code
        if arguments[0] == "delete" and self.code == 0:
            self.status = None
        return self.code if arguments[0] == "delete" else 0

    def deployments(self) -> list[dict[str, str]]:
        """The parameters of each `sam deploy`, as the SAM CLI reads them: the last value of a name counts."""
        found = [command[command.index("--parameter-overrides") + 1 :] for command in self.commands[1:]]
        return [dict(override.split("=", 1) for override in overrides) for overrides in found]


@pytest.mark.parametrize("stage", [PROD, SANDBOX])
def test_a_deployment_builds_first_and_passes_the_parameters_of_samconfig_and_a_release(stage: Stage) -> None:
    account = Account("UPDATE_COMPLETE", "UPDATE_COMPLETE")

    assert deploy(stage, account, account.sam, now=NOW) == 0

    assert [command[0] for command in account.commands] == ["build", "deploy"]
    (parameters,) = account.deployments()
    assert parameters["Stage"] == stage.name
    assert parameters["Release"] == "1795528011"


def test_a_release_differs_in_its_first_ten_characters_and_matches_the_templates_pattern() -> None:
    one, other = release(NOW), release(NOW + 1)

    assert one[:10] != other[:10]
    assert re.search(source()["Parameters"]["Release"]["AllowedPattern"], one)


def test_a_first_deployment_is_not_protected_until_the_stack_exists() -> None:
    account = Account()

    assert deploy(PROD, account, account.sam, now=NOW) == 0

    first, second = account.deployments()
    assert "Protect" not in first
    assert second == first | {"Protect": "true"}
    assert "--no-confirm-changeset" not in account.commands[1]
    assert "--no-confirm-changeset" in account.commands[2]


@pytest.mark.parametrize(
    ("outcome", "code"),
    [("ROLLBACK_COMPLETE", 1), ("REVIEW_IN_PROGRESS", 0)],
    ids=["it failed", "the operator declined the changes"],
)
def test_a_first_deployment_without_a_stack_is_not_followed_by_a_second(outcome: str, code: int) -> None:
    account = Account(None, outcome, code)

    assert deploy(PROD, account, account.sam, now=NOW) == code

    (only,) = account.deployments()
    assert "Protect" not in only


@pytest.mark.parametrize("status", ["CREATE_COMPLETE", "UPDATE_COMPLETE", "UPDATE_ROLLBACK_COMPLETE"])
def test_a_stack_that_exists_is_protected_by_one_deployment(status: str) -> None:
    account = Account(status, "UPDATE_COMPLETE")

    assert deploy(PROD, account, account.sam, now=NOW) == 0

    (only,) = account.deployments()
    assert only["Protect"] == "true"


def test_the_sandbox_is_never_protected() -> None:
    for account in (Account(), Account("UPDATE_COMPLETE")):
        assert deploy(SANDBOX, account, account.sam, now=NOW) == 0

        (only,) = account.deployments()
        assert "Protect" not in only


def test_protection_is_switched_off_on_demand() -> None:
    account = Account("UPDATE_COMPLETE", "UPDATE_COMPLETE")

    assert deploy(PROD, account, account.sam, now=NOW, protect=False) == 0

    (only,) = account.deployments()
    assert only["Protect"] == "false"


@pytest.mark.parametrize("status", sorted(NOT_UPDATABLE))
def test_a_stack_that_can_only_be_deleted_is_reported_with_the_command_to_run(status: str) -> None:
    account = Account(status)

    with pytest.raises(DeployError, match=rf"shop-prod is in status {status}.*make destroy STACK=shop-prod"):
        deploy(PROD, account, account.sam, now=NOW)
    assert account.commands == []


def config(folder: Path, stack: str, more: str = "") -> Path:
    """A samconfig.toml with a prod stage."""
    path = folder / "samconfig.toml"
    path.write_text(f"""\
[prod.global.parameters]
stack_name = "{stack}"
{more}
[prod.deploy.parameters]
parameter_overrides = "Stage=prod LogRetentionDays=90"
""")
    return path


def test_a_stack_name_that_is_too_long_for_the_functions_names_is_refused_with_the_limit(tmp_path: Path) -> None:
    longest = "a" * LONGEST_STACK_NAME

    assert read_stage("prod", config(tmp_path, longest)).stack == longest
    with pytest.raises(
        DeployError, match=rf"stack_name {longest}b in samconfig.toml has 49 characters; 48 is the limit"
    ):
        read_stage("prod", config(tmp_path, f"{longest}b"))


def test_the_longest_stack_name_leaves_room_for_the_name_of_every_service() -> None:
    resources = source()["Resources"].values()
    functions = [each["Properties"] for each in resources if each["Type"] == "AWS::Serverless::Function"]
    for function in functions:
        name = function["FunctionName"]["Fn::Sub"].replace("${AWS::StackName}", "a" * LONGEST_STACK_NAME)
        assert len(name) <= 64, name


def test_profile_region_and_parameters_are_those_of_samconfig(tmp_path: Path) -> None:
    stage = read_stage("prod", config(tmp_path, "shop-prod", 'profile = "shop"\nregion = "eu-west-1"'))

    assert (stage.profile, stage.region) == ("shop", "eu-west-1")
    assert stage.overrides == ["Stage=prod LogRetentionDays=90"]


@pytest.mark.parametrize("name", ["sandbox", "staging", "prod"])
def test_every_stage_of_samconfig_can_be_deployed(name: str) -> None:
    stage = read_stage(name, ROOT / "samconfig.toml")

    assert f"Stage={name}" in stage.overrides


def test_a_protected_stack_is_not_deleted() -> None:
    account = Account("UPDATE_COMPLETE", parameters={"Protect": "true"})

    with pytest.raises(DestroyError, match=r"shop-prod has deletion protection on.*PROTECT=no"):
        destroy("shop-prod", account, account.sam)
    assert account.commands == []


def test_a_stack_that_does_not_exist_is_not_deleted() -> None:
    account = Account()

    with pytest.raises(DestroyError, match="no stack shop in us-east-1"):
        destroy("shop", account, account.sam)
    assert account.commands == []


@pytest.mark.parametrize(("code", "said"), [(0, LEFT_BEHIND + "\n"), (1, "")])
def test_resources_that_remain_after_a_deletion_are_reported(
    code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    account = Account("UPDATE_COMPLETE", code=code, parameters={"Protect": "false"})

    assert destroy("shop", account, account.sam) == code

    assert account.commands == [["delete", "--stack-name", "shop"]]
    assert capsys.readouterr().out == said


def test_destroy_without_a_stack_is_refused_before_anything_is_installed(tmp_path: Path) -> None:
    (tmp_path / "Makefile").write_bytes((ROOT / "Makefile").read_bytes())

    found = subprocess.run(["make", "destroy", "STACK="], cwd=tmp_path, capture_output=True, text=True)

    assert found.returncode == 2
    assert "error: name a stack: make destroy STACK=name" in found.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["Makefile"]


def test_the_sam_cli_gets_the_region_of_aws_region(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sam = tmp_path / ".venv-sam" / "bin" / "sam"
    sam.parent.mkdir(parents=True)
    sam.write_text('#!/bin/sh\necho "$AWS_DEFAULT_REGION $*" > called\nexit 3\n')
    sam.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AWS_REGION", "eu-west-1")

    assert run_sam(["delete"]) == 3

    assert (tmp_path / "called").read_text() == "eu-west-1 delete\n"
