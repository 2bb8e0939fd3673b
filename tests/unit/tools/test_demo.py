"""The demo rebuilds the HTTP request from a fixture in API Gateway's format."""

import base64
from typing import Any

import pytest

from tools.demo import request_of


def fixture(**more: Any) -> dict[str, Any]:
    return {
        "rawPath": "/orders",
        "rawQueryString": "",
        "headers": {"Content-Type": "application/json", "Idempotency-Key": "k-1", "authorization": "Bearer x"},
        "requestContext": {"http": {"method": "POST"}, "authorizer": {"jwt": {"claims": {"sub": "someone"}}}},
        **more,
    }


def context(claims: dict[str, str] | None) -> dict[str, Any]:
    authorizer = {} if claims is None else {"authorizer": {"jwt": {"claims": claims}}}
    return {"http": {"method": "GET"}, **authorizer}


def test_the_request_has_the_method_path_body_and_relevant_headers_of_the_fixture() -> None:
    request = request_of(fixture(body='{"items": []}'))

    assert (request.method, request.path, request.body) == ("POST", "/orders", b'{"items": []}')
    assert request.headers == {"content-type": "application/json", "idempotency-key": "k-1"}


def test_a_query_belongs_to_the_path() -> None:
    assert request_of(fixture(rawQueryString="limit=2&status=PENDING")).path == "/orders?limit=2&status=PENDING"


def test_a_binary_body_is_decoded() -> None:
    encoded = base64.b64encode(b"\xff\x00").decode()

    assert request_of(fixture(body=encoded, isBase64Encoded=True)).body == b"\xff\x00"


@pytest.mark.parametrize(
    ("claims", "user"),
    [
        (None, None),
        ({"sub": "a"}, "customer"),
        ({"sub": "a", "cognito:groups": "[staff]"}, "staff"),
        ({"sub": "a", "cognito:groups": "[buyers staff]"}, "staff"),
        ({"sub": "a", "cognito:groups": "[non-staff]"}, "customer"),
    ],
)
def test_the_claims_choose_the_user(claims: dict[str, str] | None, user: str | None) -> None:
    assert request_of(fixture(requestContext=context(claims))).user == user
