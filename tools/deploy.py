"""Builds and deploys a stage: a new release each time, and deletion protection outside the sandbox."""

import os
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

from tools.arguments import Parser
from tools.errors import CommandError, one_line_errors
from tools.stack import session_of

CONFIG = Path("samconfig.toml")
ENVIRONMENTS = {"sandbox": "default", "staging": "staging", "prod": "prod"}
"""The environment of samconfig.toml that describes a stage."""

LONGEST_STACK_NAME = 48
"""A function is named <stack>-<service> and has at most 64 characters. A service's name has at most 15."""

NOT_CREATED = (None, "REVIEW_IN_PROGRESS")
"""There is no stack, or only a change set that would create it."""

NOT_UPDATABLE = {"CREATE_FAILED", "ROLLBACK_FAILED", "ROLLBACK_COMPLETE", "DELETE_FAILED"}
"""Stacks in these statuses can only be deleted: their creation or deletion failed."""

Sam = Callable[[list[str]], int]
"""Runs the SAM CLI with arguments, and returns its exit code."""


class DeployError(CommandError):
    """The stage cannot be deployed. The text is one line."""


@dataclass(frozen=True)
class Stage:
    """The settings of a stage in samconfig.toml.

    Args:
        name: sandbox, staging or prod.
        overrides: the template's parameters, as Name=value.
        profile: the profile of the AWS credentials; None for the default.
        region: the AWS region; None for the default.
    """

    name: str
    stack: str
    overrides: list[str]
    profile: str | None = None
    region: str | None = None


def read_stage(name: str, config: Path = CONFIG) -> Stage:
    """Returns the settings of a stage.

    Raises:
        DeployError: the name of the stack is too long.
    """
    environment = tomllib.loads(config.read_text())[ENVIRONMENTS[name]]
    settings = environment["global"]["parameters"] | environment["deploy"]["parameters"]
    stack = settings["stack_name"]
    if len(stack) > LONGEST_STACK_NAME:
        raise DeployError(
            f"stack_name {stack} in {config.name} has {len(stack)} characters; {LONGEST_STACK_NAME} is the limit,"
            " because a function's name <stack>-<service> has at most 64"
        )
    overrides = settings.get("parameter_overrides", [])
    return Stage(
        name,
        stack,
        [overrides] if isinstance(overrides, str) else overrides,
        settings.get("profile"),
        settings.get("region"),
    )


def release(now: float) -> str:
    """Returns a value for the template's parameter Release.

    SAM puts its first 10 characters into the logical ids of the functions' versions. Seconds have 10 digits until the
    year 2286.

    Args:
        now: seconds since 1970.
    """
    return str(int(now))


def status_of(cloudformation: Any, stack: str) -> str | None:
    """Returns the status of a stack, or None if it does not exist."""
    found = describe(cloudformation, stack)
    return found["StackStatus"] if found else None


def describe(cloudformation: Any, stack: str) -> dict[str, Any] | None:
    """Returns CloudFormation's description of a stack, or None if it does not exist."""
    try:
        found: dict[str, Any] = cloudformation.describe_stacks(StackName=stack)["Stacks"][0]
    except ClientError as error:
        if "does not exist" in error.response["Error"]["Message"]:
            return None
        raise
    return found


def deploy(
    stage: Stage, cloudformation: Any, sam: Sam, *, now: float, confirmed: bool = False, protect: bool = True
) -> int:
    """Builds and deploys a stage.

    Outside the sandbox, a second update enables deletion protection for the tables and the user pool. The creation is
    unprotected, because CloudFormation could not roll back a failed creation of protected resources.

    Args:
        cloudformation: a boto3 client.
        now: seconds since 1970.
        confirmed: do not show the changes and ask.
        protect: False switches the protection off.

    Returns:
        The exit code of the SAM CLI.

    Raises:
        DeployError: the stack can only be deleted.
    """
    status = status_of(cloudformation, stage.stack)
    if status in NOT_UPDATABLE:
        raise DeployError(
            f"the stack {stage.stack} is in status {status} and can only be deleted: see why in its events, run"
            f" `make destroy STACK={stage.stack}`, then deploy again (docs/operations.md#the-first-deployment)"
        )
    exists = status not in NOT_CREATED
    overrides = [*stage.overrides, f"Release={release(now)}"]
    protection = [] if stage.name == "sandbox" else [f"Protect={str(protect).lower()}"]
    code = sam(["build"]) or sam(_arguments(stage, [*overrides, *(protection if exists else [])], confirmed))
    if code or exists or not protection or not protect:
        return code
    if status_of(cloudformation, stage.stack) != "CREATE_COMPLETE":  # the operator declined the changes
        return 0
    print(f"the stack {stage.stack} exists: switching deletion protection on")
    return sam(_arguments(stage, [*overrides, *protection], confirmed=True))


def _arguments(stage: Stage, overrides: list[str], confirmed: bool) -> list[str]:
    # Parameters on the command line replace all parameters of samconfig.toml
    ask = ["--no-confirm-changeset"] if confirmed else []
    return ["deploy", "--config-env", ENVIRONMENTS[stage.name], *ask, "--parameter-overrides", *overrides]


def run_sam(arguments: list[str]) -> int:
    """Runs the SAM CLI of this checkout, and returns its exit code."""
    environment = {**os.environ, "SAM_CLI_TELEMETRY": "0"}
    if region := os.environ.get("AWS_REGION"):  # the SAM CLI does not read it
        environment["AWS_DEFAULT_REGION"] = region
    return subprocess.call([".venv-sam/bin/sam", *arguments], env=environment)


@one_line_errors
def main() -> int:
    """`python -m tools.deploy [--stage NAME] [--confirmed] [--unprotected]`."""
    parser = Parser(prog="python -m tools.deploy", description=__doc__)
    parser.add_argument("--stage", choices=ENVIRONMENTS, default="sandbox")
    parser.add_argument("--confirmed", action="store_true", help="do not show the changes and ask")
    parser.add_argument("--unprotected", action="store_true", help="switch deletion protection off")
    options = parser.parse_args()
    stage = read_stage(options.stage)
    return deploy(
        stage,
        session_of(stage.profile, stage.region).client("cloudformation"),
        run_sam,
        now=time.time(),
        confirmed=options.confirmed,
        protect=not options.unprotected,
    )


if __name__ == "__main__":
    sys.exit(main())
