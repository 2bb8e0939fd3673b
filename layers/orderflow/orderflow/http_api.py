"""What every HTTP API needs: problems (RFC 9457), validated requests, JSON responses, and the API's documentation."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from http import HTTPStatus
from itertools import groupby
from typing import Annotated, Any

from aws_lambda_powertools.event_handler import APIGatewayHttpResolver, Response
from aws_lambda_powertools.event_handler.openapi.exceptions import RequestValidationError
from aws_lambda_powertools.event_handler.openapi.params import Query
from aws_lambda_powertools.utilities.data_classes import APIGatewayProxyEventV2
from aws_lambda_powertools.utilities.typing import LambdaContext
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.alias_generators import to_camel
from pydantic.json_schema import SkipJsonSchema
from pydantic_core import from_json

from orderflow.dynamodb import ConcurrentUpdate
from orderflow.observability import logger
from orderflow.pagination import InvalidCursor
from orderflow.plain_text import UNSAFE, unsafe_character
from orderflow.serialization import to_json

MAX_BODY_BYTES = 256 * 1024
MAX_LIMIT = 100
DEFAULT_LIMIT = 20
JSON_MESSAGES = {
    "list_type": "Input should be a valid array",
    "model_type": "Input should be an object",
    "model_attributes_type": "Input should be an object",
}
"""For errors whose messages name Python's types."""
Guard = Callable[[APIGatewayProxyEventV2], None]
"""Raises a Problem if the caller of a request has no access."""


@dataclass(eq=False)
class Problem(Exception):
    """A request that cannot be served.

    Args:
        slug: the problem's type, `/problems/<slug>`, which clients tell problems apart by.
        errors: one entry per field: {"field": …, "message": …}.
    """

    status: HTTPStatus
    slug: str
    detail: str
    errors: list[dict[str, str]] | None = None


def _plain(text: str) -> str:
    if unsafe := unsafe_character(text):
        raise ValueError(f"the character {unsafe} is not allowed: it controls the output or the direction of text")
    return text


def _decimal_digits(value: str | list[str]) -> str:
    if not isinstance(value, str) or not re.fullmatch("[1-9][0-9]*", value):  # a repeated parameter is a list
        raise ValueError(f"write a number from 1 to {MAX_LIMIT}")
    return value


PlainText = Annotated[
    str, Field(min_length=1, json_schema_extra={"pattern": f"^[^{UNSAFE}]+$"}), AfterValidator(_plain)
]
"""Text of one line, in any language. White space around it, which includes line ends, is removed before the check."""
Limit = Annotated[
    int, Field(ge=1, le=MAX_LIMIT), BeforeValidator(_decimal_digits), Query(description="The most entries in a page.")
]
Cursor = Annotated[
    str | SkipJsonSchema[None],
    Query(description="`nextCursor` of the previous page. Valid for a day, and for the same caller and filters only."),
]
NextCursor = Annotated[
    str | SkipJsonSchema[None], Field(description="`cursor` of the next page; absent at the end of the list.")
]


class RequestModel(BaseModel):
    """A body. Fields are in camelCase; unknown fields are refused, because they may be misspelt."""

    model_config = ConfigDict(
        alias_generator=to_camel, extra="forbid", frozen=True, str_strip_whitespace=True, strict=True, defer_build=True
    )


def new_app() -> APIGatewayHttpResolver:
    """Returns a router of HTTP requests (payload format 2.0) that reports errors as problems."""
    app = APIGatewayHttpResolver(enable_validation=True, serializer=_serialize, json_body_deserializer=_parse_json)
    app.exception_handler(Problem)(refuse)
    app.exception_handler(RequestValidationError)(lambda error: refuse(_problem_of(error)))
    app.exception_handler(InvalidCursor)(
        lambda error: refuse(Problem(HTTPStatus.BAD_REQUEST, "malformed-cursor", str(error)))
    )
    app.exception_handler(ConcurrentUpdate)(
        lambda _: refuse(Problem(HTTPStatus.CONFLICT, "busy", "other requests are changing this now; try again"))
    )
    app.not_found(lambda _: refuse(Problem(HTTPStatus.NOT_FOUND, "no-such-route", "there is nothing at this path")))
    return app


def refuse(problem: Problem) -> Response[str]:
    """Logs a problem and returns its response."""
    logger.info("request refused", status=int(problem.status), problem=problem.slug)
    body = {
        "type": f"/problems/{problem.slug}",
        "title": problem.slug.replace("-", " ").capitalize(),
        "status": int(problem.status),
        "detail": problem.detail,
        "errors": problem.errors,
    }
    return Response(int(problem.status), "application/problem+json", _serialize(body))


def answer(app: APIGatewayHttpResolver, event: dict[str, Any], context: LambdaContext, guard: Guard) -> dict[str, Any]:
    """Answers one HTTP request. The header X-Correlation-Id leads to its logs, events and traces.

    Args:
        guard: checks the caller's access. It runs before the validation, which Powertools does before any
            middleware: a caller without access learns nothing else about the request.
    """
    request = APIGatewayProxyEventV2(event)
    try:
        guard(request)
        _check_body(request)
        response = app.resolve(event, context)
    except Problem as problem:
        refused = refuse(problem)
        response = {"statusCode": refused.status_code, "headers": refused.headers, "body": refused.body}
    response["headers"]["X-Correlation-Id"] = request.request_context.request_id
    return response


def _serialize(body: Any) -> str:
    return to_json(_without_nulls(body))


def _without_nulls(body: Any) -> Any:
    """Returns a response without its absent fields, which the validation writes as null."""
    if isinstance(body, dict):
        return {name: _without_nulls(value) for name, value in body.items() if value is not None}
    return [_without_nulls(value) for value in body] if isinstance(body, list) else body


def _check_body(request: APIGatewayProxyEventV2) -> None:
    """Checks the media type and the size of a body. The validation would accept a form in place of JSON."""
    if not request.body:
        return
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise Problem(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type", "send application/json")
    request["headers"]["content-type"] = media_type  # the validation compares it with case
    try:
        body = request.decoded_body or ""
    except ValueError as error:
        raise Problem(HTTPStatus.BAD_REQUEST, "malformed-body", "the body is not UTF-8 text") from error
    if len(body.encode()) > MAX_BODY_BYTES:
        detail = f"the body has more than {MAX_BODY_BYTES} bytes"
        raise Problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "body-too-large", detail)


def _parse_json(body: str) -> Any:
    """Returns the object in a body. `json.loads` would fail with a RecursionError on a deeply nested one."""
    try:
        found = from_json(body)
    except ValueError as error:
        raise Problem(HTTPStatus.BAD_REQUEST, "malformed-body", f"the body is not valid JSON: {error}") from error
    if not isinstance(found, dict):  # the validation would accept an array of one object
        raise _invalid_body([("body", "Input should be an object")])
    return found


def _problem_of(invalid: RequestValidationError) -> Problem:
    """Returns the problem of a body with an entry per field, or else of the first parameter that is wrong."""
    errors = invalid.errors()
    if any((error["loc"], error["type"]) == (("body",), "missing") for error in errors):
        return Problem(HTTPStatus.BAD_REQUEST, "malformed-body", "the body is missing; send JSON")
    if in_body := [error for error in errors if error["loc"][0] == "body"]:
        return _invalid_body(
            (".".join(map(str, error["loc"][1:])) or "body", JSON_MESSAGES.get(error["type"], error["msg"]))
            for error in in_body
        )
    name = errors[0]["loc"][1]
    return Problem(HTTPStatus.BAD_REQUEST, f"malformed-{name}", f"{name}: {errors[0]['msg']}")


def _invalid_body(messages: Iterable[tuple[str, str]]) -> Problem:
    errors = [{"field": field, "message": message} for field, message in messages]
    detail = "the body is valid JSON, but not a valid request"
    return Problem(HTTPStatus.UNPROCESSABLE_ENTITY, "invalid-body", detail, errors)


ID_TOKEN: list[dict[str, list[str]]] = [{"idToken": []}]
"""For `security`: the route needs an ID token."""
SIGNED_IN = "401 unauthorized"
BODY = ("400 malformed-body", "413 body-too-large", "415 unsupported-media-type", "422 invalid-body")
PAGE = ("400 malformed-limit", "400 malformed-cursor")


def documented(status: int, description: str, *problems: str, location: str = "") -> dict[int, Any]:
    """Returns a route's `responses` for the OpenAPI document: its success and its problems.

    Args:
        problems: a status and a slug each, such as "409 price-changed".
        location: describes the header Location of a success, if it has one.
    """
    header = {"Location": {"description": location, "required": True, "schema": {"type": "string"}}}
    responses: dict[int, Any] = {status: {"description": description, "headers": header if location else {}}}
    for code, group in groupby(sorted(set(problems)), key=lambda problem: int(problem[:3])):
        types = [f"/problems/{problem[4:]}" for problem in group]
        variant = {"properties": {"type": {"enum": types}, "status": {"const": code}}}
        schema = {"allOf": [{"$ref": "#/components/schemas/Problem"}, variant]}
        responses[code] = {
            "description": ", ".join(f"`{name}`" for name in types),
            "content": {"application/problem+json": {"schema": schema}},
        }
    return responses
