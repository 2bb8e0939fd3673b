"""Deletes a deployed stack with its data, unless deletion protection is on, and lists the resources that remain."""

import sys
from typing import Any

from tools.arguments import Parser
from tools.deploy import Sam, describe, run_sam
from tools.errors import CommandError, one_line_errors
from tools.stack import session_of

LEFT_BEHIND = """\
Left behind: the alert topic's KMS key, pending deletion for 30 days; DynamoDB's backups of tables that had
point-in-time recovery, for 35 days; the SAM CLI's bucket (stack aws-sam-cli-managed-default), which other stacks share.
docs/operations.md#deleting-a-stack has the complete list."""


class DestroyError(CommandError):
    """The stack cannot be deleted. The text is one line."""


def destroy(stack: str, cloudformation: Any, sam: Sam, *, confirmed: bool = False) -> int:
    """Deletes a stack.

    With deletion protection on, CloudFormation would delete everything except the tables and the user pool, and fail.

    Args:
        stack: the name of the stack.
        cloudformation: a boto3 client.
        confirmed: do not ask for confirmation.

    Returns:
        The exit code of the SAM CLI.

    Raises:
        DestroyError: there is no such stack, or its deletion protection is on.
    """
    found = describe(cloudformation, stack)
    if found is None:
        raise DestroyError(
            f"no stack {stack} in {cloudformation.meta.region_name}: check STACK, AWS_REGION and AWS_PROFILE"
        )
    if {"ParameterKey": "Protect", "ParameterValue": "true"} in found.get("Parameters", []):
        raise DestroyError(
            f"the stack {stack} has deletion protection on; to delete it with all its data, switch that off first:"
            " make deploy STAGE=… PROTECT=no"
        )
    code = sam(["delete", "--stack-name", stack, *(["--no-prompts"] if confirmed else [])])
    if code == 0 and describe(cloudformation, stack) is None:
        print(LEFT_BEHIND)
    return code


@one_line_errors
def main() -> int:
    """`python -m tools.destroy --stack NAME [--confirmed]`."""
    parser = Parser(prog="python -m tools.destroy", description=__doc__)
    parser.add_argument("--stack", required=True)
    parser.add_argument("--confirmed", action="store_true", help="do not ask for confirmation")
    options = parser.parse_args()
    return destroy(options.stack, session_of().client("cloudformation"), run_sam, confirmed=options.confirmed)


if __name__ == "__main__":
    sys.exit(main())
