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
        email: None if it is not verified.
    """

    subject: str
    email: str | None
    is_staff: bool


def caller_of(event: APIGatewayProxyEventV2) -> Caller:
    """Returns the caller of a request.

    API Gateway's authorizer also accepts access tokens, which contain no e-mail address. The claim `token_use`
    distinguishes them from ID tokens.

    Raises:
        Problem: 401 without verified claims of an ID token, which keeps a route without an authorizer closed.
    """
    authorizer = event.request_context.authorizer
    claims = (authorizer and authorizer.jwt_claim) or {}
    if not claims.get("sub") or claims.get("token_use") != "id":
        raise Problem(HTTPStatus.UNAUTHORIZED, "unauthorized", "send the ID token of a signed-in user")
    email = claims.get("email") if claims.get("email_verified") == "true" else None
    return Caller(claims["sub"], email, STAFF in _groups(claims.get("cognito:groups", "")))


def _groups(claim: str) -> list[str]:
    """Returns the names in a list claim, which API Gateway passes on as the text `[a b]`.

    The name of a group may contain brackets, but no space (Cognito API reference, CreateGroup): the group `[staff]`
    arrives as `[[staff]]`. Cognito always issues a list, so a claim without brackets is not a list of groups.
    """
    if not (claim.startswith("[") and claim.endswith("]")):
        return []
    return claim[1:-1].split(" ")
