"""The gateway serves an HttpApi of SAM like API Gateway: routes, events, responses, tokens and CORS."""

import functools
import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests
from joserfc import jwt
from joserfc.jwk import KeySet, OctKey, RSAKey
from samtranslator.translator.transform import transform

from localaws.http_api import Gateway, RequestLine, read_stages
from localaws.lambda_runtime import InvocationResult, RequestTooLarge, Throttled
from localaws.tests.support import exchange, hang_up

ISSUER = "https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_pool"
ARN = "arn:aws:lambda:eu-west-1:123456789012:function:"
KEY = RSAKey.generate_key(2048, {"kid": "one"})
OTHER_KEY = RSAKey.generate_key(2048, {"kid": "one"})
PUBLIC_KEYS = KeySet([RSAKey.import_key(KEY.as_dict(private=False))])

ROUTES = {
    "Orders": ("GET", "/orders/{orderId}", "NONE", None),
    "NewOrder": ("GET", "/orders/new", "NONE", None),
    "Anything": ("ANY", "/orders/{orderId}", "NONE", None),
    "Files": ("GET", "/files/a/{proxy+}", "NONE", None),
    "File": ("GET", "/files/{folder}/{name}", "NONE", None),
    "Echo": ("POST", "/echo", "NONE", None),
    "Slow": ("GET", "/slow", "NONE", None),
    "Private": ("GET", "/private", "Jwt", None),
    "Scoped": ("GET", "/scoped", "Jwt", ["orders/read", "orders/write"]),
    "Rest": ("ANY", "$default", "NONE", None),
}
CORS = {
    "AllowOrigins": ["https://shop.example"],
    "AllowMethods": ["GET", "POST"],
    "AllowHeaders": ["authorization", "content-type"],
    "ExposeHeaders": ["location"],
    "MaxAge": 300,
}


class Functions:
    """Replaces the runtime: records each event and returns the response of the test."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.result = InvocationResult(b"{}", None, 0.0)
        self.refusal: Exception | None = None
        self.released = threading.Event()
        self.holds: threading.Event | None = None

    def invoke(self, function: str, payload: bytes) -> InvocationResult:
        self.calls.append((function, json.loads(payload)))
        if function.endswith("Slow"):
            self.released.wait(10)
        if self.holds:
            self.holds.wait(10)
        if self.refusal:
            raise self.refusal
        return self.result

    def answer(self, value: Any) -> None:
        self.result = InvocationResult(json.dumps(value).encode(), None, 0.0)

    @property
    def event(self) -> dict[str, Any]:
        return self.calls[-1][1]


@functools.cache  # a transform takes 0.1 s
def api_body(names: tuple[str, ...], cors: str) -> dict[str, Any]:
    """Returns the API's Body from SAM's transform, with the functions' ARNs. `cors` is JSON."""
    api: dict[str, Any] = {
        "Auth": {
            "DefaultAuthorizer": "Jwt",
            "Authorizers": {
                "Jwt": {
                    "IdentitySource": "$request.header.Authorization",
                    "JwtConfiguration": {"issuer": ISSUER, "audience": ["client-1", "client-2"]},
                }
            },
        }
    }
    if json.loads(cors):
        api["CorsConfiguration"] = json.loads(cors)
    resources: dict[str, Any] = {"Api": {"Type": "AWS::Serverless::HttpApi", "Properties": api}}
    for name in names:
        method, path, authorizer, scopes = ROUTES[name]
        event: dict[str, Any] = {
            "ApiId": {"Ref": "Api"},
            "Method": method,
            "Path": path,
            "Auth": {"Authorizer": authorizer},
        }
        if scopes:
            event["Auth"] = {"Authorizer": authorizer, "AuthorizationScopes": scopes}
        if name == "Slow":
            event["TimeoutInMillis"] = 100
        if path == "$default":
            del event["Method"], event["Path"]
        resources[name] = {
            "Type": "AWS::Serverless::Function",
            "Properties": {
                "Runtime": "python3.13",
                "Handler": "app.handler",
                "CodeUri": "s3://bucket/key",
                "Events": {"Call": {"Type": "HttpApi", "Properties": event}},
            },
        }
    template = {"Transform": "AWS::Serverless-2016-10-31", "Resources": resources}
    resolved = transform(template, {}, NoPolicies())  # type: ignore[arg-type]  # it asks for no more than load()
    body: dict[str, Any] = resolved["Resources"]["Api"]["Properties"]["Body"]
    for path in body["paths"].values():
        for operation in path.values():
            integration = operation["x-amazon-apigateway-integration"]
            uri = (
                integration["uri"]["Fn::Sub"].replace("${AWS::Partition}", "aws").replace("${AWS::Region}", "eu-west-1")
            )
            integration["uri"] = uri.replace("${", ARN).replace(".Arn}", "")
    return body


class NoPolicies:
    """Replaces the transform's lookup of managed policies."""

    def load(self) -> dict[str, str]:
        return {}


@pytest.fixture
def functions() -> Iterator[Functions]:
    functions = Functions()
    yield functions
    functions.released.set()


@pytest.fixture
def lines() -> list[RequestLine]:
    return []


Serve = Callable[..., str]


@pytest.fixture
def serve(functions: Functions, lines: list[RequestLine], monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """Starts a gateway for routes and returns its URL."""
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    gateways: list[Gateway] = []

    def start(
        *routes: str,
        cors: dict[str, Any] | None = None,
        stages: dict[str, dict[str, str]] | None = None,
        body: dict[str, Any] | None = None,
    ) -> str:
        gateway = Gateway(
            body or api_body(routes, json.dumps(cors)),
            invoke=functions.invoke,
            keys={ISSUER: PUBLIC_KEYS}.__getitem__,
            account_id="123456789012",
            api_id="api1",
            on_request=lines.append,
            stages=stages or {"$default": {}},
        )
        gateways.append(gateway)
        gateway.start()
        return gateway.url

    yield start
    for gateway in gateways:
        gateway.stop()


def token(key: RSAKey = KEY, headers: dict[str, Any] | None = None, **changes: Any) -> str:
    """Returns a valid token with changed claims. None removes a claim."""
    now = int(time.time())
    claims = {"iss": ISSUER, "aud": "client-1", "sub": "somebody", "iat": now, "exp": now + 60} | changes
    return jwt.encode(
        {"alg": "RS256", "kid": "one"} | (headers or {}),
        {name: value for name, value in claims.items() if value is not None},
        key,
    )


# Routes


@pytest.mark.parametrize(
    ("method", "path", "function", "key", "parameters"),
    [
        ("GET", "/orders/7", "Orders", "GET /orders/{orderId}", {"orderId": "7"}),
        ("GET", "/orders/a%20b", "Orders", "GET /orders/{orderId}", {"orderId": "a b"}),
        ("GET", "/orders/new", "NewOrder", "GET /orders/new", None),
        ("PATCH", "/orders/7", "Anything", "ANY /orders/{orderId}", {"orderId": "7"}),
        ("PATCH", "/orders/new", "Anything", "ANY /orders/{orderId}", {"orderId": "new"}),
        ("GET", "/files/a/b/c", "Files", "GET /files/a/{proxy+}", {"proxy": "b/c"}),
        ("GET", "/files/a/b", "File", "GET /files/{folder}/{name}", {"folder": "a", "name": "b"}),
        ("GET", "/elsewhere", "Rest", "$default", None),
        ("DELETE", "/files/a/b", "Rest", "$default", None),
    ],
)
def test_the_most_specific_route_is_taken(
    serve: Serve,
    functions: Functions,
    method: str,
    path: str,
    function: str,
    key: str,
    parameters: dict[str, str] | None,
) -> None:
    url = serve("Files", "Anything", "Orders", "NewOrder", "File", "Rest")

    requests.request(method, url + path, timeout=10)

    assert functions.calls[0][0] == ARN + function
    assert functions.event["routeKey"] == functions.event["requestContext"]["routeKey"] == key
    assert functions.event.get("pathParameters") == parameters


@pytest.mark.parametrize(("method", "path"), [("GET", "/"), ("HEAD", "/orders/new"), ("GET", "/orders/new/")])
def test_a_request_without_a_matching_route_is_not_found(
    serve: Serve, functions: Functions, method: str, path: str
) -> None:
    url = serve("NewOrder")

    response = requests.request(method, url + path, timeout=10)

    assert response.status_code == 404
    assert response.text in ('{"message":"Not Found"}', "")
    assert functions.calls == []


# Events


def test_a_request_becomes_an_event_of_payload_format_2(serve: Serve, functions: Functions) -> None:
    url = serve("Echo")

    requests.post(
        f"{url}/echo?a=1&b=x%20y&a=2&c=",
        data='{"name": "Zoë"}'.encode(),
        headers={
            "Content-Type": "application/json",
            "X-Thing": "One",
            "Cookie": "k=1; l=2",
            "User-Agent": "test/1",
            "Accept": "*/*",
            "Accept-Encoding": "identity",
        },
        timeout=10,
    )

    event = functions.event
    context = event["requestContext"]
    assert len(context.pop("requestId")) == 36
    assert re.fullmatch("Root=1-[0-9a-f]{8}-[0-9a-f]{24}", event["headers"].pop("x-amzn-trace-id"))
    assert abs(context.pop("timeEpoch") / 1000 - time.time()) < 10
    assert time.strptime(context.pop("time"), "%d/%b/%Y:%H:%M:%S +0000").tm_year >= 2026
    assert event == {
        "version": "2.0",
        "routeKey": "POST /echo",
        "rawPath": "/echo",
        "rawQueryString": "a=1&b=x%20y&a=2&c=",
        "cookies": ["k=1", "l=2"],
        "headers": {
            "content-type": "application/json",
            "content-length": "16",
            "x-thing": "One",
            "user-agent": "test/1",
            "accept": "*/*",
            "accept-encoding": "identity",
            "host": url.removeprefix("http://"),
            "x-forwarded-for": "127.0.0.1",
            "x-forwarded-port": url.rpartition(":")[2],
            "x-forwarded-proto": "http",
        },
        "queryStringParameters": {"a": "1,2", "b": "x y", "c": ""},
        "requestContext": {
            "accountId": "123456789012",
            "apiId": "api1",
            "domainName": "api1.execute-api.localhost",
            "domainPrefix": "api1",
            "http": {
                "method": "POST",
                "path": "/echo",
                "protocol": "HTTP/1.1",
                "sourceIp": "127.0.0.1",
                "userAgent": "test/1",
            },
            "routeKey": "POST /echo",
            "stage": "$default",
        },
        "body": '{"name": "Zoë"}',
        "isBase64Encoded": False,
    }


def test_fields_without_a_value_are_absent(serve: Serve, functions: Functions) -> None:
    requests.get(f"{serve('NewOrder')}/orders/new", timeout=10)

    absent = {"cookies", "queryStringParameters", "pathParameters", "body", "stageVariables"}
    assert not absent & functions.event.keys()
    assert functions.event["rawQueryString"] == ""
    assert functions.event["isBase64Encoded"] is False


def test_a_request_without_a_body_has_the_content_length_0(serve: Serve, functions: Functions) -> None:
    requests.get(f"{serve('NewOrder')}/orders/new", timeout=10)

    assert functions.event["headers"]["content-length"] == "0"


def test_the_headers_of_a_proxy_are_kept(serve: Serve, functions: Functions) -> None:
    trace = "Root=1-5759e988-bd862e3fe1be46a994272793"

    requests.get(
        f"{serve('NewOrder')}/orders/new",
        headers={"X-Forwarded-For": "203.0.113.7", "X-Amzn-Trace-Id": trace},
        timeout=10,
    )

    assert functions.event["headers"]["x-forwarded-for"] == "203.0.113.7, 127.0.0.1"
    assert functions.event["headers"]["x-amzn-trace-id"] == trace


def test_headers_that_come_twice_are_joined(serve: Serve, functions: Functions) -> None:
    host, port = serve("NewOrder").removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(b"GET /orders/new HTTP/1.1\r\nHost: here\r\nX-Thing: one\r\nx-thing: two\r\n\r\n")
        assert connection.recv(1000).startswith(b"HTTP/1.1 200")

    assert functions.event["headers"]["x-thing"] == "one,two"


@pytest.mark.parametrize(
    ("content_type", "is_text"),
    [
        ("text/csv; charset=utf-8", True),
        ("application/json", True),
        ("application/problem+json", True),
        ("application/xml", True),
        ("application/javascript", True),
        ("application/x-www-form-urlencoded", True),
        ("application/octet-stream", False),
        ("image/png", False),
    ],
)
def test_bodies_that_are_not_text_are_base64(
    serve: Serve, functions: Functions, content_type: str, is_text: bool
) -> None:
    requests.post(f"{serve('Echo')}/echo", data=b"a=1", headers={"Content-Type": content_type}, timeout=10)

    assert functions.event["isBase64Encoded"] is not is_text
    assert functions.event["body"] == ("a=1" if is_text else "YT0x")


def test_a_body_over_10_mb_is_too_large(serve: Serve, functions: Functions) -> None:
    url = serve("Echo")

    largest = requests.post(f"{url}/echo", data=b"x" * 10 * 1024 * 1024, timeout=10)
    larger = requests.post(f"{url}/echo", data=b"x" * (10 * 1024 * 1024 + 1), timeout=10)

    assert (largest.status_code, larger.status_code) == (200, 413)
    assert larger.json() == {"message": "Request Entity Too Large"}
    assert len(functions.calls) == 1


# Stages


def test_the_path_of_a_request_starts_with_the_stage(serve: Serve, functions: Functions) -> None:
    url = serve("Orders", stages={"dev": {"table": "orders-dev"}})

    response = requests.get(f"{url}/orders/7", timeout=10)

    assert url.endswith("/dev")
    assert response.status_code == 200
    assert functions.event["pathParameters"] == {"orderId": "7"}
    assert functions.event["rawPath"] == functions.event["requestContext"]["http"]["path"] == "/dev/orders/7"
    assert functions.event["requestContext"]["stage"] == "dev"
    assert functions.event["stageVariables"] == {"table": "orders-dev"}


def test_a_path_without_a_stage_is_for_the_default_stage_if_there_is_one(serve: Serve, functions: Functions) -> None:
    named = serve("Orders", stages={"dev": {}}).removesuffix("/dev")
    both = serve("Orders", stages={"dev": {}, "$default": {"a": "1"}})

    assert requests.get(f"{named}/orders/7", timeout=10).status_code == 404
    assert requests.get(f"{both}/orders/7", timeout=10).status_code == 200
    assert (functions.event["requestContext"]["stage"], functions.event["stageVariables"]) == ("$default", {"a": "1"})


def test_an_api_has_the_stages_of_the_template_that_name_it() -> None:
    stages: list[dict[str, Any]] = [
        {"ApiId": "api1", "StageName": "dev", "StageVariables": {"a": "1"}},
        {"ApiId": "api1", "StageName": "$default"},
        {"ApiId": "api2", "StageName": "prod"},
    ]

    assert read_stages("api1", stages) == {"dev": {"a": "1"}, "$default": {}}
    assert read_stages("api3", stages) == {"$default": {}}


# Routes that cannot be served


def operation(**changes: Any) -> dict[str, Any]:
    uri = f"arn:aws:apigateway:eu-west-1:lambda:path/2015-03-31/functions/{ARN}Echo/invocations"
    integration = {"type": "aws_proxy", "payloadFormatVersion": "2.0", "uri": uri}
    return {"x-amazon-apigateway-integration": integration | changes}


@pytest.mark.parametrize(
    ("unserved", "reason"),
    [
        (operation(type="http_proxy", uri="https://shop.example"), "only integrations with a Lambda function"),
        (operation(integrationSubtype="EventBridge-PutEvents", uri=None), "only integrations with a Lambda function"),
        ({"responses": {}}, "only integrations with a Lambda function"),
        (operation(payloadFormatVersion="1.0"), "only payload format 2.0"),
        (operation() | {"security": [{"Custom": []}]}, "only JWT authorizers that read a header"),
        (operation() | {"security": [{"Query": []}]}, "only JWT authorizers that read a header"),
        (operation() | {"security": [{"Unknown": []}]}, "only JWT authorizers that read a header"),
    ],
)
def test_a_route_that_cannot_be_served_answers_501_and_the_others_work(
    serve: Serve, functions: Functions, lines: list[RequestLine], unserved: dict[str, Any], reason: str
) -> None:
    jwt_in_query = {
        "type": "jwt",
        "identitySource": "$request.querystring.token",
        "jwtConfiguration": {"issuer": ISSUER, "audience": ["client-1"]},
    }
    schemes = {"Custom": {"type": "request", "identitySource": "$request.header.A"}, "Query": jwt_in_query}
    body = {
        "paths": {"/a": {"get": unserved, "parameters": []}, "/b": {"get": operation()}},
        "components": {
            "securitySchemes": {name: {"x-amazon-apigateway-authorizer": each} for name, each in schemes.items()}
        },
    }
    url = serve(body=body)

    refused = requests.get(f"{url}/a", timeout=10)
    served = requests.get(f"{url}/b", timeout=10)

    assert (refused.status_code, served.status_code) == (501, 200)
    assert refused.json()["message"].startswith(f"GET /a is not served here: {reason}")
    assert (lines[0].reason or "").startswith(reason)
    assert len(functions.calls) == 1


def test_the_security_of_the_whole_api_applies_to_each_route(serve: Serve, functions: Functions) -> None:
    authorizer = {
        "type": "jwt",
        "identitySource": "$request.header.Authorization",
        "jwtConfiguration": {"issuer": ISSUER, "audience": ["client-1"]},
    }
    body = {
        "security": [{"Jwt": []}],
        "paths": {"/a": {"get": operation()}, "/b": {"get": operation() | {"security": []}}},
        "components": {"securitySchemes": {"Jwt": {"x-amazon-apigateway-authorizer": authorizer}}},
    }
    url = serve(body=body)

    assert [requests.get(f"{url}{path}", timeout=10).status_code for path in ("/a", "/b")] == [401, 200]


# Answers


def test_a_function_sets_status_headers_cookies_and_body(serve: Serve, functions: Functions) -> None:
    functions.answer(
        {
            "statusCode": 201,
            "headers": {"Location": "/orders/7", "Content-Type": "application/problem+json", "X-Count": 3},
            "cookies": ["a=1; Secure", "b=2"],
            "body": '{"näme": 1}',
        }
    )

    response = requests.post(f"{serve('Echo')}/echo", timeout=10)

    assert response.status_code == 201
    assert response.headers["Location"] == "/orders/7"
    assert response.headers["Content-Type"] == "application/problem+json"
    assert response.headers["X-Count"] == "3"
    assert response.raw.headers.getlist("Set-Cookie") == ["a=1; Secure", "b=2"]
    assert response.content.decode() == '{"näme": 1}'


def test_a_base64_body_is_decoded(serve: Serve, functions: Functions) -> None:
    functions.answer({"statusCode": 200, "body": "/wA=", "isBase64Encoded": True})

    assert requests.post(f"{serve('Echo')}/echo", timeout=10).content == b"\xff\x00"


@pytest.mark.parametrize(
    ("result", "text"), [({"message": "hello"}, '{"message": "hello"}'), ("hello", "hello"), ([1], "[1]")]
)
def test_a_result_without_a_status_is_the_body_of_a_200(
    serve: Serve, functions: Functions, result: Any, text: str
) -> None:
    functions.answer(result)

    response = requests.post(f"{serve('Echo')}/echo", timeout=10)

    assert (response.status_code, response.text) == (200, text)
    assert response.headers["Content-Type"] == "application/json"


@pytest.mark.parametrize(
    "result",
    [
        {"statusCode": "many"},
        {"statusCode": 99},
        {"statusCode": 200, "body": {"a": 1}},
        {"statusCode": 200, "headers": ["a"]},
        {"statusCode": 200, "headers": {"X-Thing": ["a"]}},
        {"statusCode": 200, "body": "not base64", "isBase64Encoded": True},
    ],
)
def test_an_invalid_answer_is_an_internal_server_error(serve: Serve, functions: Functions, result: Any) -> None:
    functions.answer(result)

    response = requests.post(f"{serve('Echo')}/echo", timeout=10)

    assert (response.status_code, response.json()) == (500, {"message": "Internal Server Error"})


def test_a_function_error_does_not_reach_the_client(serve: Serve, functions: Functions) -> None:
    functions.result = InvocationResult(b'{"errorMessage": "secret", "statusCode": 200}', "Unhandled", 0.1)

    response = requests.post(f"{serve('Echo')}/echo", timeout=10)

    assert (response.status_code, response.json()) == (500, {"message": "Internal Server Error"})


@pytest.mark.parametrize(
    ("refusal", "status", "message"),
    [(Throttled(), 503, "Service Unavailable"), (RequestTooLarge(), 413, "Request Entity Too Large")],
)
def test_an_invocation_that_lambda_rejects_has_its_own_status(
    serve: Serve, functions: Functions, refusal: Exception, status: int, message: str
) -> None:
    functions.refusal = refusal

    response = requests.post(f"{serve('Echo')}/echo", timeout=10)

    assert (response.status_code, response.json()) == (status, {"message": message})


def test_a_function_that_takes_longer_than_the_integrations_time_is_unavailable(serve: Serve) -> None:
    response = requests.get(f"{serve('Slow')}/slow", timeout=5)

    assert (response.status_code, response.json()) == (503, {"message": "Service Unavailable"})


# Tokens


@pytest.mark.parametrize("prefix", ["Bearer ", "bearer ", ""])
def test_a_valid_token_reaches_the_function_as_claims_of_text(serve: Serve, functions: Functions, prefix: str) -> None:
    now = int(time.time())
    claims: dict[str, Any] = {
        "email_verified": True,
        "cognito:groups": ["staff", "buyers"],
        "level": 1.5,
        "iat": now,
        "exp": now + 60,
    }

    response = requests.get(
        f"{serve('Private')}/private", headers={"Authorization": prefix + token(KEY, **claims)}, timeout=10
    )

    assert response.status_code == 200
    assert functions.event["requestContext"]["authorizer"] == {
        "jwt": {
            "claims": {
                "iss": ISSUER,
                "aud": "client-1",
                "sub": "somebody",
                "email_verified": "true",
                "cognito:groups": "[staff buyers]",
                "level": "1.5",
                "iat": str(now),
                "exp": str(now + 60),
            },
            "scopes": None,
        }
    }


@pytest.mark.parametrize(
    "changes",
    [{"aud": ["other", "client-2"]}, {"aud": None, "client_id": "client-2"}, {"nbf": 1}],
    ids=["one of several audiences", "client_id without aud", "nbf has passed"],
)
def test_a_token_is_valid_with(serve: Serve, changes: dict[str, Any]) -> None:
    headers = {"Authorization": token(**changes)}

    assert requests.get(f"{serve('Private')}/private", headers=headers, timeout=10).status_code == 200


def hs256() -> str:
    """Returns a token of the key confusion attack: signed with the public key as an HMAC secret."""
    now = int(time.time())
    key = OctKey.import_key({"kty": "oct", "k": KEY.as_dict(private=False)["n"]})
    claims = {"iss": ISSUER, "aud": "client-1", "iat": now, "exp": now + 60}
    return jwt.encode({"alg": "HS256", "kid": "one"}, claims, key)


def unsigned() -> str:
    _, payload, _ = token().split(".")
    return f"eyJhbGciOiJub25lIiwia2lkIjoib25lIn0.{payload}."  # {"alg":"none","kid":"one"}


def tampered() -> str:
    header, _, signature = token().split(".")
    return f"{header}.{token(sub='somebody else').split('.')[1]}.{signature}"


@pytest.mark.parametrize(
    ("bad_token", "reason"),
    [
        pytest.param(lambda: None, "no token", id="none"),
        pytest.param(lambda: "", "no token", id="empty"),
        pytest.param(lambda: "Bearer nonsense", "is not a valid JSON Web Token", id="not a token"),
        pytest.param(lambda: "Basic " + token(), "is not a valid JSON Web Token", id="another scheme"),
        pytest.param(hs256, "is not signed with RS256", id="HS256"),
        pytest.param(unsigned, "is not signed with RS256", id="algorithm none"),
        pytest.param(tampered, "does not have a valid signature", id="changed claims"),
        pytest.param(lambda: token(OTHER_KEY), "does not have a valid signature", id="another key"),
        pytest.param(lambda: token(headers={"kid": "two"}), "is signed with an unknown key", id="unknown kid"),
        pytest.param(
            lambda: jwt.encode({"alg": "RS256"}, jwt.decode(token(), KEY).claims, KEY),
            "does not name its key",
            id="no kid",
        ),
        pytest.param(lambda: token(iss="https://elsewhere.example"), "does not have a valid issuer", id="issuer"),
        pytest.param(lambda: token(iss=None), "does not have a valid issuer", id="no issuer"),
        pytest.param(lambda: token(aud="client-3"), "does not have a valid audience", id="another audience"),
        pytest.param(
            lambda: token(aud="client-3", client_id="client-1"),
            "does not have a valid audience",
            id="aud goes before client_id",
        ),
        pytest.param(lambda: token(aud=None), "does not have a valid audience", id="no audience"),
        pytest.param(lambda: token(exp=int(time.time()) - 1), "has expired", id="expired"),
        pytest.param(lambda: token(exp=None), "is not a valid JSON Web Token", id="without end"),
        pytest.param(lambda: token(nbf=int(time.time()) + 30), "is not valid yet", id="not yet valid"),
        pytest.param(lambda: token(iat=int(time.time()) + 30), "is not valid yet", id="issued in the future"),
    ],
)
def test_a_token_is_refused_with_the_reason(
    serve: Serve,
    functions: Functions,
    lines: list[RequestLine],
    bad_token: Callable[[], str | None],
    reason: str,
) -> None:
    value = bad_token()

    response = requests.get(
        f"{serve('Private')}/private", headers={} if value is None else {"Authorization": value}, timeout=10
    )

    assert (response.status_code, response.text) == (401, '{"message":"Unauthorized"}')
    if reason == "no token":
        assert response.headers["WWW-Authenticate"] == "Bearer"
    else:
        reason = f"the token {reason}"
        details = f'scope="" error="invalid_token" error_description="{reason}"'
        assert response.headers["WWW-Authenticate"] == f"Bearer {details}"
    assert [line.reason for line in lines] == [reason]
    assert functions.calls == []


def test_the_error_for_an_invalid_token_names_the_scopes_of_the_route(serve: Serve) -> None:
    headers = {"Authorization": token(aud="client-3")}

    response = requests.get(f"{serve('Scoped')}/scoped", headers=headers, timeout=10)

    assert response.headers["WWW-Authenticate"].startswith('Bearer scope="orders/read orders/write" error=')


@pytest.mark.parametrize(
    ("claims", "status", "scopes"),
    [
        ({"scope": "orders/read openid"}, 200, ["orders/read"]),
        ({"scp": ["orders/write"]}, 200, ["orders/write"]),
        ({"scope": "openid"}, 403, None),
        ({}, 403, None),
    ],
)
def test_a_token_needs_one_of_the_routes_scopes(
    serve: Serve,
    functions: Functions,
    lines: list[RequestLine],
    claims: dict[str, Any],
    status: int,
    scopes: list[str] | None,
) -> None:
    response = requests.get(f"{serve('Scoped')}/scoped", headers={"Authorization": token(**claims)}, timeout=10)

    assert response.status_code == status
    if scopes:
        assert functions.event["requestContext"]["authorizer"]["jwt"]["scopes"] == scopes
    else:
        assert response.json() == {"message": "Forbidden"}
        assert [line.reason for line in lines] == ["the token has none of the scopes orders/read, orders/write"]


# CORS


def cors_headers(response: requests.Response) -> dict[str, str]:
    return {n.lower(): v for n, v in response.headers.items() if n.lower().startswith("access-control-")}


def test_the_gateway_answers_preflight_requests_itself(serve: Serve, functions: Functions) -> None:
    headers = {"Origin": "https://shop.example", "Access-Control-Request-Method": "GET"}

    response = requests.options(f"{serve('Private', cors=CORS)}/private", headers=headers, timeout=10)

    assert (response.status_code, response.content) == (204, b"")
    assert cors_headers(response) == {
        "access-control-allow-origin": "https://shop.example",
        "access-control-allow-methods": "GET,POST",
        "access-control-allow-headers": "authorization,content-type",
        "access-control-max-age": "300",
    }
    assert functions.calls == []


def test_answers_get_the_apis_cors_headers_in_place_of_the_functions(serve: Serve, functions: Functions) -> None:
    own = {"access-control-allow-origin": "*", "access-control-allow-credentials": "true", "Location": "/x"}
    functions.answer({"statusCode": 200, "headers": own})

    response = requests.post(f"{serve('Echo', cors=CORS)}/echo", headers={"Origin": "https://shop.example"}, timeout=10)

    assert cors_headers(response) == {
        "access-control-allow-origin": "https://shop.example",
        "access-control-expose-headers": "location",
    }
    assert response.headers["Location"] == "/x"


@pytest.mark.parametrize(
    ("cors", "origin", "allowed"),
    [
        (CORS, "https://elsewhere.example", None),
        (CORS, None, None),
        (CORS | {"AllowOrigins": ["*"]}, "https://elsewhere.example", "*"),
        (CORS | {"AllowOrigins": ["https://*"]}, "https://elsewhere.example", "https://elsewhere.example"),
        (CORS | {"AllowOrigins": ["https://*"]}, "http://elsewhere.example", None),
    ],
)
def test_only_allowed_origins_get_cors_headers(
    serve: Serve, cors: dict[str, Any], origin: str | None, allowed: str | None
) -> None:
    response = requests.post(
        f"{serve('Echo', cors=cors)}/echo", headers={"Origin": origin} if origin else {}, timeout=10
    )

    assert response.status_code == 200
    assert cors_headers(response).get("access-control-allow-origin") == allowed


def test_without_configuration_there_is_no_cors(serve: Serve, functions: Functions) -> None:
    url = serve("Echo")
    functions.answer({"statusCode": 200, "headers": {"Access-Control-Allow-Origin": "https://own.example"}})

    preflight = requests.options(f"{url}/echo", headers={"Origin": "https://shop.example"}, timeout=10)
    response = requests.post(f"{url}/echo", headers={"Origin": "https://shop.example"}, timeout=10)

    assert preflight.status_code == 404
    assert cors_headers(response) == {"access-control-allow-origin": "https://own.example"}


# The server


def test_each_request_is_reported_to_the_runner_and_nothing_else_is_printed(
    serve: Serve, lines: list[RequestLine], capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    url = serve("Private")

    requests.get(f"{url}/private?key=secret", headers={"Authorization": "secret"}, timeout=10)

    assert [(line.method, line.path, line.status) for line in lines] == [("GET", "/private", 401)]
    assert 0 < lines[0].duration < 10
    assert capfd.readouterr() == ("", "")
    assert [record for record in caplog.records if record.name == "werkzeug"] == []


@pytest.mark.parametrize(
    "rest",
    [
        b"Content-Length: many\r\n\r\n{}",
        b"Content-Length: -1\r\n\r\n{}",
        b"Content-Length: 100\r\n\r\n{}",
        b"Transfer-Encoding: chunked\r\n\r\nmany\r\n{}\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n-2\r\n{}\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}and more than that\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n64\r\n{}",
        b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n",
    ],
)
def test_a_body_that_is_malformed_or_cut_off_is_answered_with_400(
    serve: Serve,
    functions: Functions,
    lines: list[RequestLine],
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    rest: bytes,
) -> None:
    url = serve("Echo")
    capfd.readouterr()  # discard the output of SAM's transform
    caplog.clear()

    answer = exchange(url, b"POST /echo HTTP/1.1\r\nHost: localhost\r\n" + rest)

    assert answer.partition(b"\r\n")[0] == b"HTTP/1.1 400 Bad Request"
    assert answer.count(b"HTTP/1.1 ") == 1  # the body is not read as a second request
    assert [line.status for line in lines] == [400]
    assert functions.calls == []
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []


def test_a_body_in_chunks_reaches_the_function(serve: Serve, functions: Functions) -> None:
    requests.post(f"{serve('Echo')}/echo", data=iter([b"a=", b"1"]), headers={"Content-Type": "text/plain"}, timeout=10)

    assert functions.event["body"] == "a=1"


def test_a_client_that_closes_the_connection_early_causes_no_traceback(
    serve: Serve,
    functions: Functions,
    lines: list[RequestLine],
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    functions.answer({"statusCode": 200, "body": "x" * 5_000_000})
    functions.holds = gone = threading.Event()

    hang_up(serve("Echo"), b"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n", gone)

    assert len(lines) == 1
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []


def test_a_port_that_is_taken_is_an_error_and_after_stop_it_is_free(functions: Functions) -> None:
    def gateway(port: int) -> Gateway:
        return Gateway(
            {"paths": {}},
            invoke=functions.invoke,
            keys=lambda issuer: PUBLIC_KEYS,
            account_id="1",
            api_id="a",
            on_request=lambda line: None,
            stages={"$default": {}},
            port=port,
        )

    first = gateway(0)
    first.start()
    port = int(first.url.rpartition(":")[2])

    with pytest.raises(OSError, match="in use"):
        gateway(port)
    first.stop()
    first.stop()

    second = gateway(port)
    second.start()
    assert requests.get(second.url, timeout=10).status_code == 404
    second.stop()
