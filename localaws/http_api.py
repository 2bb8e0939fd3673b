"""API Gateway HTTP API: stages, routes, JWT authorizer, CORS, Lambda proxy integrations with payload format 2.0.

Sources, in the API Gateway developer guide:
- events and responses: https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-develop-integrations-lambda.html
- routes: https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-develop-routes.html
- stages: https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-stages.html
- tokens: https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-jwt-authorizer.html
- responses to invalid tokens:
  https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-troubleshooting-jwt.html
- CORS: https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-cors.html
"""

import base64
import json
import re
import secrets
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from joserfc import errors, jwt
from joserfc.jwk import KeySet
from werkzeug.wrappers import Request
from werkzeug.wrappers import Response as WerkzeugResponse

from localaws import http_server
from localaws.aws import ServiceError
from localaws.lambda_runtime import InvocationResult, RequestTooLarge, RuntimeStopped, Throttled

# https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-quotas.html
MAX_BODY = 10 * 1024 * 1024  # bytes
MAX_HEAD = 10_240  # bytes of the request line and the headers
MAX_INTEGRATION_TIME = 30.0  # s
MAX_CALLS = 100  # concurrent calls; no AWS quota, but more than the functions of one machine can serve

_REFUSALS = {400: "Bad Request", 413: "Request Entity Too Large"}
_ANY = "x-amazon-apigateway-any-method"
_METHODS = {"get", "head", "post", "put", "patch", "delete", "options", _ANY}
_TEXT_TYPES = re.compile(r"text/.*|application/(json|xml|javascript|x-www-form-urlencoded|.*\+json|.*\+xml)")


@dataclass(frozen=True)
class RequestLine:
    """An answered request, for the runner's output.

    Args:
        duration: in seconds.
        body: of the response.
        reason: why the request was refused, if the response does not tell.
    """

    method: str
    path: str
    status: int
    duration: float
    body: bytes = b""
    reason: str | None = None


class Response(WerkzeugResponse):
    """A response, and the reason in its RequestLine."""

    reason: str | None = None


class Gateway:
    """Serves one HTTP API at `url`. Routes in `not_honoured` are answered with 501; the value is the reason."""

    def __init__(
        self,
        body: Mapping[str, Any],
        *,
        invoke: Callable[[str, bytes], InvocationResult],
        keys: Callable[[str], KeySet],
        account_id: str,
        api_id: str,
        on_request: Callable[[RequestLine], None],
        stages: Mapping[str, Mapping[str, str]],
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        """Opens the port.

        Args:
            body: the API's OpenAPI document with resolved references.
            keys: returns the public keys of an issuer.
            stages: from `read_stages`. The path of a request starts with the name of the stage, except for $default.

        Raises:
            OSError: the port is in use.
        """
        self._routes = _read_routes(body)
        self.not_honoured = {route.key: route.not_honoured for route in self._routes if route.not_honoured}
        self._stages = stages
        self._cors = body.get("x-amazon-apigateway-cors")
        self._invoke = invoke
        self._keys = keys
        self._account_id = account_id
        self._api_id = api_id
        self._on_request = on_request
        self._calls = ThreadPoolExecutor(MAX_CALLS, thread_name_prefix="gateway")
        self._server = http_server.Server(host, port, self._serve, self._serve, max_body=MAX_BODY, max_head=MAX_HEAD)
        self.url = self._server.url + ("" if "$default" in stages else f"/{next(iter(stages))}")

    def start(self) -> None:
        """Starts to answer requests."""
        self._server.start()

    def stop(self) -> None:
        """Stops the server. Requests that wait for a function get no response. May be called twice."""
        self._server.stop()
        self._calls.shutdown(wait=False, cancel_futures=True)

    def _serve(self, received: http_server.Request, refused: int | None = None) -> http_server.Answer:
        """Answers a request. `refused` is the HTTP status for a request whose body is not valid."""
        started = time.monotonic()
        request = Request(received.wsgi_environment())
        response = self._answer(request) if refused is None else _message(refused, _REFUSALS[refused])
        if self._cors is not None:
            _set_cors_headers(response, request, self._cors)
        duration, body = time.monotonic() - started, response.get_data()
        line = RequestLine(request.method, request.path, response.status_code, duration, body, response.reason)
        self._on_request(line)
        return str(response.status_code), list(response.headers), body

    def _answer(self, request: Request) -> Response:
        first, _, rest = request.path[1:].partition("/")
        stage, path = (first, f"/{rest}") if first in self._stages else ("$default", request.path)
        found = _find_route(self._routes, request.method, path) if stage in self._stages else None
        if found is None:
            if request.method == "OPTIONS" and self._cors is not None:
                return Response(status=204)  # a preflight request needs no route
            return _message(404, "Not Found")
        route, path_parameters = found
        if route.not_honoured:
            return _message(501, f"{route.key} is not served here: {route.not_honoured}", reason=route.not_honoured)
        try:
            caller = _authorize(request, route, self._keys)
            event = self._event(request, route, stage, path_parameters, caller)
        except ServiceError as error:
            response = _message(error.status, error.code, reason=error.message)
            if error.status == 401:
                details = f'scope="{" ".join(sorted(route.scopes))}" error="invalid_token"'
                details = "" if error.message == _MISSING else f' {details} error_description="{error.message}"'
                response.headers["WWW-Authenticate"] = f"Bearer{details}"
            return response
        return self._integrate(route, event)

    def _integrate(self, route: "_Route", event: dict[str, Any]) -> Response:
        call = self._calls.submit(self._invoke, route.function, json.dumps(event).encode())
        try:
            result = call.result(timeout=route.timeout)
        except RequestTooLarge:
            return _message(413, _REFUSALS[413])
        except (Throttled, RuntimeStopped, TimeoutError):
            return _message(503, "Service Unavailable")
        if result.function_error is not None:
            return _message(500, "Internal Server Error")
        try:
            return _read_answer(result.payload)
        except (TypeError, ValueError, AttributeError):  # not in payload format 2.0
            return _message(500, "Internal Server Error")

    def _event(
        self,
        request: Request,
        route: "_Route",
        stage: str,
        path_parameters: dict[str, str],
        caller: dict[str, Any] | None,
    ) -> dict[str, Any]:
        """Returns the request in payload format 2.0."""
        now = time.time()
        domain = f"{self._api_id}.execute-api.localhost"
        context = {
            "accountId": self._account_id,
            "apiId": self._api_id,
            "authorizer": caller,
            "domainName": domain,
            "domainPrefix": self._api_id,
            "http": {
                "method": request.method,
                "path": request.path,
                "protocol": request.environ["SERVER_PROTOCOL"],
                "sourceIp": request.remote_addr,
                "userAgent": request.user_agent.string,
            },
            "requestId": str(uuid.uuid4()),
            "routeKey": route.key,
            "stage": stage,
            "time": f"{datetime.fromtimestamp(now, UTC):%d/%b/%Y:%H:%M:%S +0000}",
            "timeEpoch": int(now * 1000),
        }
        body = request.get_data()
        is_text = _TEXT_TYPES.fullmatch(request.mimetype) is not None
        event = {
            "version": "2.0",
            "routeKey": route.key,
            "rawPath": request.path,  # percent-decoded by HTTP APIs, despite the name
            "rawQueryString": request.query_string.decode("latin-1"),
            "cookies": [cookie.strip() for cookie in request.headers.get("Cookie", "").split(";") if cookie.strip()],
            "headers": _headers(request, body, now),
            "queryStringParameters": {name: ",".join(values) for name, values in request.args.lists()},
            "pathParameters": path_parameters,
            "stageVariables": self._stages[stage],
            "requestContext": {name: value for name, value in context.items() if value is not None},
            "body": body.decode(errors="replace") if is_text else base64.b64encode(body).decode(),
            "isBase64Encoded": bool(body) and not is_text,
        }
        optional = ("cookies", "queryStringParameters", "pathParameters", "stageVariables", "body")
        return {name: value for name, value in event.items() if value or name not in optional}


# Routes


@dataclass(frozen=True)
class _JwtAuthorizer:
    header: str
    issuer: str
    audience: frozenset[str]


@dataclass(frozen=True)
class _Route:
    key: str
    method: str | None  # None for ANY
    path: re.Pattern[str]
    parameters: tuple[str, ...]
    rank: tuple[Any, ...]  # the matching route with the smallest rank is selected
    function: str
    timeout: float  # s
    authorizer: _JwtAuthorizer | None
    scopes: frozenset[str]
    not_honoured: str | None  # the reason why the runner cannot serve the route


def read_stages(api_id: str, stages: Iterable[Mapping[str, Any]]) -> dict[str, Mapping[str, str]]:
    """Returns the variables of an API's stages by name, from the properties of `AWS::ApiGatewayV2::Stage` resources."""
    own = (stage for stage in stages if stage["ApiId"] == api_id)
    return {stage["StageName"]: stage.get("StageVariables", {}) for stage in own} or {"$default": {}}


def _read_routes(body: Mapping[str, Any]) -> list[_Route]:
    """Returns the routes of an OpenAPI document, the most specific first."""
    schemes = body.get("components", {}).get("securitySchemes", {})
    routes = [
        _read_route(path, method, {"security": body.get("security", []), **operation}, schemes)
        for path, operations in body.get("paths", {}).items()
        for method, operation in operations.items()
        if method in _METHODS
    ]
    return sorted(routes, key=lambda route: route.rank)


def _read_route(path: str, method: str, operation: Mapping[str, Any], schemes: Mapping[str, Any]) -> _Route:
    integration = operation.get("x-amazon-apigateway-integration", {})
    verb = None if method == _ANY else method.upper()
    key = path if path == "$default" else f"{verb or 'ANY'} {path}"
    function = str(integration.get("uri", "")).partition("/functions/")[2].removesuffix("/invocations")
    not_honoured = authorizer = None
    scopes: frozenset[str] = frozenset()
    if not function or integration.get("type", "").lower() != "aws_proxy":
        not_honoured = "only integrations with a Lambda function are supported"
    elif integration.get("payloadFormatVersion") != "2.0":
        not_honoured = "only payload format 2.0 is supported"
    else:
        try:
            authorizer, scopes = _read_security(operation["security"], schemes)
        except (AttributeError, KeyError):
            not_honoured = "only JWT authorizers that read a header are supported"
    return _Route(
        key=key,
        method=verb,
        path=_path_pattern(path),
        parameters=tuple(name.rstrip("+") for name in re.findall(r"\{(.+?)\}", path)),
        rank=_rank(path, verb),
        function=function,
        timeout=integration.get("timeoutInMillis", MAX_INTEGRATION_TIME * 1000) / 1000,
        authorizer=authorizer,
        scopes=scopes,
        not_honoured=not_honoured,
    )


def _read_security(
    security: list[Mapping[str, list[str]]], schemes: Mapping[str, Any]
) -> tuple[_JwtAuthorizer | None, frozenset[str]]:
    """Returns a route's authorizer and its required scopes. SAM writes NONE for a route without an authorizer.

    Raises AttributeError or KeyError if it is not a JWT authorizer that reads a header.
    """
    for requirement in security:
        for name, scopes in requirement.items():
            if name == "NONE":
                continue
            authorizer = schemes[name]["x-amazon-apigateway-authorizer"]
            configuration = authorizer["jwtConfiguration"]
            source, _, header = authorizer["identitySource"].rpartition(".")
            if source != "$request.header":
                raise KeyError(source)
            audience = frozenset(configuration["audience"])
            return _JwtAuthorizer(header, configuration["issuer"], audience), frozenset(scopes)
    return None, frozenset()


def _path_pattern(path: str) -> re.Pattern[str]:
    if path == "$default":
        return re.compile(r".*", re.DOTALL)
    parts = re.split(r"(\{.+?\})", path)
    return re.compile(
        "".join("(.+)" if p.endswith("+}") else "([^/]+)" if p[:1] == "{" else re.escape(p) for p in parts)
    )


def _rank(path: str, method: str | None) -> tuple[Any, ...]:
    """Returns the precedence: a full match, then a greedy variable, then $default; fixed parts before variables."""
    segments = tuple(2 if s.endswith("+}") else 1 if s.startswith("{") else 0 for s in path.split("/"))
    return (path == "$default", 2 in segments, segments, method is None)


def _find_route(routes: list[_Route], method: str, path: str) -> tuple[_Route, dict[str, str]] | None:
    for route in routes:
        if route.method in (None, method) and (match := route.path.fullmatch(path)):
            return route, dict(zip(route.parameters, match.groups(), strict=True))
    return None


def _headers(request: Request, body: bytes, now: float) -> dict[str, str]:
    """Returns the client's headers with those that API Gateway adds. The port and protocol are the runner's own."""
    headers = {name.lower(): value for name, value in request.headers if name not in ("Cookie", "Connection")}
    forwarded_for = [headers["x-forwarded-for"]] if "x-forwarded-for" in headers else []
    return headers | {
        "content-length": str(len(body)),
        "x-amzn-trace-id": headers.get("x-amzn-trace-id", f"Root=1-{int(now):08x}-{secrets.token_hex(12)}"),
        "x-forwarded-for": ", ".join([*forwarded_for, request.remote_addr or ""]),
        "x-forwarded-port": request.environ["SERVER_PORT"],
        "x-forwarded-proto": "http",
    }


# Tokens


# Reasons for errors of the JWT library, and for its claim errors. API Gateway has them in the header WWW-Authenticate.
_MISSING = "no token"
_ERRORS = {
    errors.ExpiredTokenError: "has expired",
    errors.BadSignatureError: "does not have a valid signature",
    errors.InvalidKeyIdError: "is signed with an unknown key",
    errors.UnsupportedAlgorithmError: "is not signed with RS256",
    errors.ConflictAlgorithmError: "is not signed with RS256",
}
_CLAIMS = {"iss": "does not have a valid issuer", "nbf": "is not valid yet", "iat": "is not valid yet"}


def _authorize(request: Request, route: _Route, keys: Callable[[str], KeySet]) -> dict[str, Any] | None:
    """Returns the authorizer context of the event, or None for a public route. Raises ServiceError."""
    if route.authorizer is None:
        return None
    token = request.headers.get(route.authorizer.header, "")
    if not token:
        raise ServiceError("Unauthorized", _MISSING, 401)
    claims = _valid_claims(re.sub("^bearer ", "", token, flags=re.IGNORECASE), route.authorizer, keys)
    granted = route.scopes & _scopes(claims)
    if route.scopes and not granted:
        raise ServiceError("Forbidden", f"the token has none of the scopes {', '.join(sorted(route.scopes))}", 403)
    texts = {name: _claim_text(value) for name, value in claims.items()}
    return {"jwt": {"claims": texts, "scopes": sorted(granted) or None}}


def _valid_claims(token: str, authorizer: _JwtAuthorizer, keys: Callable[[str], KeySet]) -> dict[str, Any]:
    # No leeway for clock differences: the guide does not mention any.
    registry = jwt.JWTClaimsRegistry(iss={"essential": True, "value": authorizer.issuer}, exp={"essential": True})
    try:
        decoded = jwt.decode(token, keys(authorizer.issuer), algorithms=["RS256"])
        registry.validate(decoded.claims)
    except errors.JoseError as error:
        of_claim = _CLAIMS.get(getattr(error, "claim", ""), "is not a valid JSON Web Token")
        raise ServiceError("Unauthorized", f"the token {_ERRORS.get(type(error), of_claim)}", 401) from error
    # client_id is used only if the token has no aud, such as Cognito's access tokens.
    audience = decoded.claims.get("aud", decoded.claims.get("client_id"))
    audiences = set(audience if isinstance(audience, list) else [audience])
    if "kid" not in decoded.header:
        raise ServiceError("Unauthorized", "the token does not name its key", 401)
    if not authorizer.audience & audiences:
        raise ServiceError("Unauthorized", "the token does not have a valid audience", 401)
    return decoded.claims


def _scopes(claims: Mapping[str, Any]) -> set[str]:
    value = claims.get("scope", claims.get("scp", ""))
    return set(value if isinstance(value, list) else str(value).split())


def _claim_text(value: Any) -> str:
    """Returns a claim as API Gateway passes it on: always a string, a list as "[a b]"."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return f"[{' '.join(_claim_text(item) for item in value)}]"
    return json.dumps(value)  # numbers, true and false


# Answers


def _message(status: int, text: str, *, reason: str | None = None) -> Response:
    response = Response(json.dumps({"message": text}, separators=(",", ":")), status, content_type="application/json")
    response.reason = reason
    return response


def _read_answer(payload: bytes) -> Response:
    """Returns the HTTP response for a function's result.

    Raises TypeError, ValueError or AttributeError if the result is not in payload format 2.0.
    """
    answer = json.loads(payload)
    if not isinstance(answer, dict) or "statusCode" not in answer:
        text = answer if isinstance(answer, str) else payload
        return Response(text, 200, content_type="application/json")
    body = answer.get("body") or ""
    if not isinstance(body, str):
        raise TypeError("body is not a string")
    status = int(answer["statusCode"])
    if status not in range(200, 600):
        raise ValueError(f"{status} is not an HTTP status of a response")
    response = Response(base64.b64decode(body, validate=True) if answer.get("isBase64Encoded") else body, status)
    response.headers["Content-Type"] = "text/plain;charset=utf-8"
    for name, value in (answer.get("headers") or {}).items():
        if isinstance(value, dict | list):
            raise TypeError(f"header {name} is not a string")
        response.headers[name] = value if isinstance(value, str) else json.dumps(value)
    for cookie in answer.get("cookies") or []:
        response.headers.add("Set-Cookie", cookie)
    return response


def _set_cors_headers(response: Response, request: Request, cors: Mapping[str, Any]) -> None:
    """Replaces the function's CORS headers by those of the API, if the origin of the request is allowed."""
    for header, _ in list(response.headers):
        if header.lower().startswith("access-control-"):
            del response.headers[header]
    origin = request.headers.get("Origin")
    allowed = cors.get("allowOrigins", [])
    if origin is None or not ({"*", origin, f"{origin.partition('://')[0]}://*"} & set(allowed)):
        return
    values = {"Allow-Origin": "*" if "*" in allowed else origin}
    if cors.get("allowCredentials"):
        values["Allow-Credentials"] = "true"
    if request.method == "OPTIONS":
        values |= {
            "Allow-Methods": ",".join(cors.get("allowMethods", [])),
            "Allow-Headers": ",".join(cors.get("allowHeaders", [])),
            "Max-Age": str(cors.get("maxAge", "")),
        }
    else:
        values["Expose-Headers"] = ",".join(cors.get("exposeHeaders", []))
    for name, value in values.items():
        if value:
            response.headers[f"Access-Control-{name}"] = value
