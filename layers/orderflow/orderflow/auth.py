"""The caller of an API, from the claims of the ID token that API Gateway verified."""

from dataclasses import dataclass
from http import HTTPStatus

from aws_lambda_powertools.utilities.data_classes import APIGatewayProxyEventV2

from orderflow.http_api import Problem

STAFF = "staff"


@dataclass(frozen=True)
class Caller:
    """An authenticated caller.

    Args:
        subject: the token's subject, which is the customer's id.
        email: the e-mail address; None if it is not verified.
        is_staff: whether the caller is in the group `staff`.
    """

    subject: str
    email: str | None
    is_staff: bool


def caller_of(event: APIGatewayProxyEventV2) -> Caller:
    """Returns the caller of a request.

    API Gateway's authorizer also accepts access tokens, which contain no e-mail address. The claim `token_use`
    distinguishes them from ID tokens.

    Raises:
        Problem: 401, if the request has no verified claims of an ID token. A route without an authorizer thus stays
            closed.
    """
    claims = _claims(event)
    if not claims.get("sub") or claims.get("token_use") != "id":
        raise Problem(HTTPStatus.UNAUTHORIZED, "unauthorized", "send the ID token of a signed-in user")
    verified = claims.get("email_verified") == "true"
    groups = _groups(claims.get("cognito:groups", ""))
    return Caller(claims["sub"], claims.get("email") if verified else None, STAFF in groups)


def _groups(claim: str) -> list[str]:
    """Returns the names in a list claim, which API Gateway passes on as the text `[a b]`.

    The name of a group may contain brackets, but no space (Cognito API reference, CreateGroup): the group `[staff]`
    arrives as `[[staff]]`. Cognito always issues a list, so a claim without brackets is not a list of groups.
    """
    if not (claim.startswith("[") and claim.endswith("]")):
        return []
    return claim[1:-1].split(" ")


def _claims(event: APIGatewayProxyEventV2) -> dict[str, str]:
    authorizer = event.request_context.authorizer
    return dict(authorizer.jwt_claim) if authorizer and authorizer.jwt_claim else {}
