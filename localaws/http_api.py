"""API Gateway HTTP API: routes, JWT authorizer, CORS and Lambda proxy integrations with payload format 2.0.

Sources, in the API Gateway developer guide:
- events and responses: https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-develop-integrations-lambda.html
- routes: https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-develop-routes.html
- tokens: https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-jwt-authorizer.html
- CORS: https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-cors.html
"""

import base64
import json
import re
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet
from werkzeug.exceptions import BadRequest, RequestEntityTooLarge
from werkzeug.serving import WSGIRequestHandler, make_server
from werkzeug.wrappers import Request, Response

from localaws.lambda_runtime import InvocationResult, RequestTooLarge, RuntimeStopped, Throttled

# https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-quotas.html
MAX_BODY = 10 * 1024 * 1024  # bytes
MAX_INTEGRATION_TIME = 30.0  # s
MAX_CALLS = 100  # concurrent calls; no AWS quota, but more than the functions of one machine can serve

_ANY = "x-amazon-apigateway-any-method"
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


class Gateway:
    """Serves one HTTP API at `url`."""

    def __init__(
        self,
        body: Mapping[str, Any],
        *,
        invoke: Callable[[str, bytes], InvocationResult],
        keys: Callable[[str], KeySet],
        account_id: str,
        api_id: str,
        on_request: Callable[[RequestLine], None],
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        """Opens the port.

        Args:
            body: the API's OpenAPI document with resolved references.
            keys: returns the public keys of an issuer.

        Raises:
            OSError: the port is in use.
            ValueError: a route is not supported.
        """
        self._routes = _read_routes(body)
        self._cors = body.get("x-amazon-apigateway-cors")
        self._invoke = invoke
        self._keys = keys
        self._account_id = account_id
        self._api_id = api_id
        self._on_request = on_request
        self._calls = ThreadPoolExecutor(MAX_CALLS, thread_name_prefix="gateway")
        with socket.create_server((host, port)) as listener:  # werkzeug would exit if the port is in use
            self._server = make_server(
                host, port, self._serve, threaded=True, request_handler=_Handler, fd=listener.fileno()
            )
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="gateway", daemon=True)
        self.url = f"http://{host}:{self._server.port}"

    def start(self) -> None:
        """Starts to answer requests."""
        self._thread.start()

    def stop(self) -> None:
        """Stops the server. Requests that wait for a function get no response. May be called twice."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()
        self._calls.shutdown(wait=False, cancel_futures=True)

    def _serve(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        started = time.monotonic()
        request = Request(environ)
        request.max_content_length = MAX_BODY
        response = self._answer(request)
        if self._cors is not None:
            _set_cors_headers(response, request, self._cors)
        duration, body = time.monotonic() - started, response.get_data()
        self._on_request(RequestLine(request.method, request.path, response.status_code, duration, body))
        return response(environ, start_response)

    def _answer(self, request: Request) -> Response:
        if not request.environ.get("CONTENT_LENGTH", "0").isdecimal():
            return _message(400, "Bad Request")
        found = _find_route(self._routes, request.method, request.path)
        if found is None:
            if request.method == "OPTIONS" and self._cors is not None:
                return Response(status=204)  # a preflight request needs no route
            return _message(404, "Not Found")
        route, path_parameters = found
        try:
            caller = _authorize(request, route, self._keys)
            event = self._event(request, route, path_parameters, caller)
        except _Unauthorized:
            response = _message(401, "Unauthorized")
            response.headers["WWW-Authenticate"] = "Bearer"
            return response
        except _Forbidden:
            return _message(403, "Forbidden")
        except RequestEntityTooLarge:
            return _message(413, "Request Entity Too Large")
        except (OSError, BadRequest):  # a malformed chunk, or the client has closed the connection
            return _message(400, "Bad Request")
        return self._integrate(route, event)

    def _integrate(self, route: "_Route", event: dict[str, Any]) -> Response:
        call = self._calls.submit(self._invoke, route.function, json.dumps(event).encode())
        try:
            result = call.result(timeout=route.timeout)
        except RequestTooLarge:
            return _message(413, "Request Entity Too Large")
        except (Throttled, RuntimeStopped, TimeoutError):
            return _message(503, "Service Unavailable")
        if result.function_error is not None:
            return _message(500, "Internal Server Error")
        try:
            return _read_answer(result.payload)
        except (TypeError, ValueError, AttributeError):  # not in payload format 2.0
            return _message(500, "Internal Server Error")

    def _event(
        self, request: Request, route: "_Route", path_parameters: dict[str, str], caller: dict[str, Any] | None
    ) -> dict[str, Any]:
        """Returns the request in payload format 2.0.

        Raises RequestEntityTooLarge, BadRequest or OSError if the body is not valid.
        """
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
            "stage": "$default",
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
            "headers": {name.lower(): value for name, value in request.headers if name != "Cookie"},
            "queryStringParameters": {name: ",".join(values) for name, values in request.args.lists()},
            "pathParameters": path_parameters,
            "requestContext": {name: value for name, value in context.items() if value is not None},
            "body": body.decode(errors="replace") if is_text else base64.b64encode(body).decode(),
            "isBase64Encoded": bool(body) and not is_text,
        }
        optional = ("cookies", "queryStringParameters", "pathParameters", "body")
        return {name: value for name, value in event.items() if value or name not in optional}


class _Handler(WSGIRequestHandler):
    """Logs nothing: the runner prints one line per request, and a URL may contain sensitive data."""

    wbufsize = -1  # send headers and body together

    def finish(self) -> None:
        with suppress(ConnectionError):  # the client has closed the connection before the end of the response
            super().finish()

    def log(self, type: str, message: str, *args: Any) -> None:  # noqa: A002 - named by the base class
        pass


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


def _read_routes(body: Mapping[str, Any]) -> list[_Route]:
    """Returns the routes of an OpenAPI document, the most specific first."""
    schemes = body.get("components", {}).get("securitySchemes", {})
    routes = [
        _read_route(path, method, operation, schemes)
        for path, operations in body["paths"].items()
        for method, operation in operations.items()
    ]
    return sorted(routes, key=lambda route: route.rank)


def _read_route(path: str, method: str, operation: Mapping[str, Any], schemes: Mapping[str, Any]) -> _Route:
    integration = operation["x-amazon-apigateway-integration"]
    verb = None if method == _ANY else method.upper()
    key = path if path == "$default" else f"{verb or 'ANY'} {path}"
    if integration["type"] != "aws_proxy" or integration["payloadFormatVersion"] != "2.0":
        raise ValueError(f"{key}: only Lambda proxy integrations with payload format 2.0 are supported")
    authorizer, scopes = _read_security(key, operation.get("security", []), schemes)
    return _Route(
        key=key,
        method=verb,
        path=_path_pattern(path),
        parameters=tuple(name.rstrip("+") for name in re.findall(r"\{(.+?)\}", path)),
        rank=_rank(path, verb),
        function=integration["uri"].split("/functions/")[1].removesuffix("/invocations"),
        timeout=integration.get("timeoutInMillis", MAX_INTEGRATION_TIME * 1000) / 1000,
        authorizer=authorizer,
        scopes=scopes,
    )


def _read_security(
    key: str, security: list[Mapping[str, list[str]]], schemes: Mapping[str, Any]
) -> tuple[_JwtAuthorizer | None, frozenset[str]]:
    """Returns a route's authorizer and its required scopes. SAM writes NONE for a route without an authorizer."""
    for requirement in security:
        for name, scopes in requirement.items():
            if name == "NONE":
                continue
            authorizer = schemes[name]["x-amazon-apigateway-authorizer"]
            if authorizer["type"] != "jwt" or not authorizer["identitySource"].startswith("$request.header."):
                raise ValueError(f"{key}: only JWT authorizers that read a header are supported")
            configuration = authorizer["jwtConfiguration"]
            header = authorizer["identitySource"].removeprefix("$request.header.")
            return (
                _JwtAuthorizer(header, configuration["issuer"], frozenset(configuration["audience"])),
                frozenset(scopes),
            )
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


# Tokens


class _Unauthorized(Exception):
    """The token is missing or not valid."""


class _Forbidden(Exception):
    """The token has none of the scopes that the route requires."""


def _authorize(request: Request, route: _Route, keys: Callable[[str], KeySet]) -> dict[str, Any] | None:
    """Returns the authorizer context of the event, or None for a public route. Raises _Unauthorized or _Forbidden."""
    if route.authorizer is None:
        return None
    token = request.headers.get(route.authorizer.header, "")
    claims = _valid_claims(re.sub("^bearer ", "", token, flags=re.IGNORECASE), route.authorizer, keys)
    granted = route.scopes & _scopes(claims)
    if route.scopes and not granted:
        raise _Forbidden
    texts = {name: _claim_text(value) for name, value in claims.items()}
    return {"jwt": {"claims": texts, "scopes": sorted(granted) or None}}


def _valid_claims(token: str, authorizer: _JwtAuthorizer, keys: Callable[[str], KeySet]) -> dict[str, Any]:
    # No leeway for clock differences: the guide does not mention any.
    registry = jwt.JWTClaimsRegistry(iss={"essential": True, "value": authorizer.issuer}, exp={"essential": True})
    try:
        decoded = jwt.decode(token, keys(authorizer.issuer), algorithms=["RS256"])
        registry.validate(decoded.claims)
    except JoseError as error:
        raise _Unauthorized from error
    # client_id is used only if the token has no aud, such as Cognito's access tokens.
    audience = decoded.claims.get("aud", decoded.claims.get("client_id"))
    audiences = set(audience if isinstance(audience, list) else [audience])
    if "kid" not in decoded.header or not authorizer.audience & audiences:
        raise _Unauthorized
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


def _message(status: int, text: str) -> Response:
    return Response(json.dumps({"message": text}), status, content_type="application/json")


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
