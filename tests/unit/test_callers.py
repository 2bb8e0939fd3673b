"""The caller of an API, from a token's claims."""

import pytest
from aws_lambda_powertools.utilities.data_classes import APIGatewayProxyEventV2

from orderflow.auth import caller_of


def request(**claims: str) -> APIGatewayProxyEventV2:
    claims = {"sub": "user-1", "token_use": "id", **claims}
    return APIGatewayProxyEventV2({"requestContext": {"authorizer": {"jwt": {"claims": claims}}}})


@pytest.mark.parametrize("groups", ["[staff]", "[other staff]", "[staff other]", "[[staff] staff]"])
def test_a_member_of_the_group_staff_is_staff(groups: str) -> None:
    assert caller_of(request(**{"cognito:groups": groups})).is_staff


@pytest.mark.parametrize(
    "groups",
    [
        *("", "[]", "[other]", "[nonstaff]", "[STAFF]"),
        # Groups whose own names contain brackets: `[staff]`, `staff]`, `[staff`, and two groups
        *("[[staff]]", "[staff]]", "[[staff]", "[[staff staff]]"),
        # Not a list: Cognito does not issue such a claim
        *("staff", "staff]", "[staff", "other,staff", "[other,staff]", "[other\nstaff]", "["),
    ],
)
def test_members_of_other_groups_are_not_staff(groups: str) -> None:
    assert not caller_of(request(**{"cognito:groups": groups})).is_staff


def test_a_caller_without_groups_is_not_staff() -> None:
    assert not caller_of(request()).is_staff
