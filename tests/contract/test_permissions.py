"""Compares what the roles allow with what the functions called in the integration and end-to-end tests.

A local stack checks no permissions, so a role that lacks one would fail in AWS only. `make test` runs this file after
all other tests, which collect the calls in the folder that `--calls` names. Without that folder it is skipped.
"""

import json
import re
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest

from tests.contract.test_template import as_list, function_of, functions, granted

Permission = tuple[str, str, str]
"""Function, action and resource. An index or a stream follows the name of its table."""

RUNS = {"e2e", "failures", "integration"}

# Permissions that no function uses in the tests, as patterns, and who needs them.
NOT_CALLED = {
    ("*", "logs:*", "*"): "Lambda writes the function's log",
    ("*", "xray:*", "*"): "Lambda's daemon sends traces",
    ("*", "kms:*", "*"): "SNS encrypts with the permissions of the publisher",
    ("*", "sqs:ReceiveMessage", "*"): "an event source mapping reads the queue",
    ("*", "sqs:DeleteMessage", "*"): "an event source mapping reads the queue",
    ("*", "sqs:GetQueueAttributes", "*"): "an event source mapping reads the queue",
    ("EventPublisherFunction", "dynamodb:*", "*/stream"): "event source mappings read the streams",
    ("EventPublisherFunction", "dynamodb:ListStreams", "*"): "event source mappings read the streams",
    ("*", "sqs:SendMessage", "OrderEventsDlq"): "Lambda sends the record of an invocation that failed",
    ("EmailFunction", "ses:SendEmail", "identity/*"): "SES checks the identity of the sender; a call names the address",
    ("*", "dynamodb:GetItem", "IdempotencyTable"): "Powertools reads a record if the failed write did not return it",
    (
        "DlqProcessorFunction",
        "dynamodb:Get*",
        "InventoryTable/stream",
    ): "the tests read a failed batch of the other stream only",
}


@pytest.fixture
def allowed(template: dict[str, Any]) -> set[Permission]:
    by_role = {function["Role"]["Fn::GetAtt"][0]: name for name, function in functions(template).items()}
    return {
        (by_role[role], action, _resource(resource))
        for role, action, statement in granted(template)
        for resource in as_list(statement["Resource"])
        if role in by_role
    }


def _resource(resource: Any) -> str:
    """The resource of a statement, in the notation of the recorded calls."""
    match resource:
        case {"Fn::GetAtt": [name, "StreamArn"]}:
            return f"{name}/stream"
        case {"Fn::GetAtt": [name, _]} | {"Ref": name}:
            return str(name)
        case _ if name := function_of(resource):
            return name
        case {"Fn::Sub": str(text)} if ":function:${AWS::StackName}-*" in text:
            return "*Function"
        case {"Fn::Sub": text} if found := re.search(r"\$\{(\w+)(?:\.Arn)?\}(/index/\S+)?$", text):
            return f"{found[1]}{found[2] or ''}"
        case {"Fn::Sub": text}:
            return str(text).rpartition(":")[2]
    return str(resource)


@pytest.fixture
def called(calls: Path) -> set[Permission]:
    found = {tuple(json.loads(line)) for file in calls.glob("*.jsonl") for line in file.read_text().splitlines()}
    if not found:
        pytest.skip("no calls to compare: `make test` collects them")
    return found


def test_every_call_of_a_function_is_granted(
    template: dict[str, Any], allowed: set[Permission], called: set[Permission]
) -> None:
    # Some tests use resources that do not exist: a deleted topic, or a function to redrive
    invoked = {use for use in called if use[1] == "lambda:InvokeFunction"}
    gone = {use for use in called if use[2].startswith("arn:")} | {
        use for use in invoked if use[2] not in functions(template)
    }
    assert {use for use in called - gone if not any(_covers(permission, use) for permission in allowed)} == set()


def test_every_grant_of_a_function_is_used(allowed: set[Permission], called: set[Permission], calls: Path) -> None:
    if {file.stem for file in calls.glob("*.jsonl")} < RUNS:
        pytest.skip("only the calls of all tests show what is never called")
    unused = {permission for permission in allowed if not any(_covers(permission, use) for use in called)}
    known = {pattern: {permission for permission in unused if _fits(permission, pattern)} for pattern in NOT_CALLED}
    assert unused - set().union(*known.values()) == set()
    assert {pattern for pattern, permissions in known.items() if not permissions} == set()


def _fits(permission: Permission, pattern: Permission) -> bool:
    return all(fnmatchcase(part, wanted) for part, wanted in zip(permission, pattern, strict=True))


def _covers(permission: Permission, use: Permission) -> bool:
    return permission[:2] == use[:2] and fnmatchcase(use[2], permission[2])
