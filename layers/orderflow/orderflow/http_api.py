"""What every HTTP function needs: problems (RFC 9457), JSON answers, bodies, and paged lists."""

from collections.abc import Callable, Mapping
from datetime import datetime
from enum import StrEnum
from http import HTTPStatus
from typing import Annotated, Any, TypeVar

from aws_lambda_powertools.event_handler import APIGatewayHttpResolver, Response
from aws_lambda_powertools.utilities.data_classes import APIGatewayProxyEventV2
from aws_lambda_powertools.utilities.typing import LambdaContext
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from orderflow import pagination
from orderflow.observability import logger
from orderflow.plain_text import UNSAFE, unsafe_character
from orderflow.serialization import to_json

ModelT = TypeVar("ModelT", bound=BaseModel)
StatusT = TypeVar("StatusT", bound=StrEnum)

MAX_BODY_BYTES = 256 * 1024
MAX_ID_BYTES = 1024
"""Half of what a partition key may have, to leave room for a prefix (DynamoDB developer guide, "Constraints")."""
MAX_LIMIT = 100
DEFAULT_LIMIT = 20


def _plain(text: str) -> str:
    if unsafe := unsafe_character(text):
        raise ValueError(f"the character {unsafe} is not allowed: it controls the output or the direction of text")
    return text


PlainText = Annotated[
    str, Field(min_length=1, json_schema_extra={"pattern": f"^[^{UNSAFE}]+$"}), AfterValidator(_plain)
]
"""Text of one line, in any language. White space around it, which includes line ends, is removed before the check."""


class RequestModel(BaseModel):
    """A body: fields in camelCase; an unknown one is refused, since it may be a misspelt one."""

    model_config = ConfigDict(
        alias_generator=to_camel, extra="forbid", frozen=True, str_strip_whitespace=True, strict=True
    )


class Problem(Exception):
    """A request that cannot be served, in the caller's words.

    Args:
        status: the HTTP status.
        slug: the problem's type, `/problems/<slug>`, which clients tell problems apart by.
        detail: what is wrong with this request.
        errors: one entry per field: {"field": …, "message": …}.
    """

    def __init__(self, status: HTTPStatus, slug: str, detail: str, errors: list[dict[str, str]] | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.slug = slug
        self.detail = detail
        self.errors = errors

    def response(self) -> Response[str]:
        """The HTTP answer, `application/problem+json`."""
        body: dict[str, Any] = {
            "type": f"/problems/{self.slug}",
            "title": self.slug.replace("-", " ").capitalize(),
            "status": int(self.status),
            "detail": self.detail,
        }
        if self.errors is not None:
            body["errors"] = self.errors
        return Response(int(self.status), content_type="application/problem+json", body=to_json(body))


def new_app() -> APIGatewayHttpResolver:
    """A router of HTTP requests (payload format 2.0) that answers every problem in the same form."""
    app = APIGatewayHttpResolver()

    @app.exception_handler(Problem)  # type: ignore[untyped-decorator]
    def on_problem(problem: Problem) -> Response[str]:
        logger.info("request refused", status=int(problem.status), problem=problem.slug)
        return problem.response()

    @app.not_found
    def on_no_route(_: Exception) -> Response[str]:
        return Problem(HTTPStatus.NOT_FOUND, "no-such-route", "there is nothing at this path").response()

    return app


def answer(app: APIGatewayHttpResolver, event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Answer one HTTP request, with the id by which its traces and logs are found."""
    response = app.resolve(event, context)
    response["headers"]["X-Correlation-Id"] = event["requestContext"]["requestId"]
    return response


def json_response(status: HTTPStatus, body: dict[str, Any], headers: dict[str, str] | None = None) -> Response[str]:
    """An HTTP answer in JSON."""
    return Response(int(status), content_type="application/json", body=to_json(body), headers=dict(headers or {}))


def read_body(event: APIGatewayProxyEventV2, model: type[ModelT]) -> ModelT:
    """The request's JSON body, validated.

    Raises:
        Problem: 415 for another content type, 413 for more than 256 KB, 400 if it is not JSON, 422 with an entry per
            field that is wrong.
    """
    media_type = event.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise Problem(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type", "send application/json")
    body = _body(event)
    if len(body.encode()) > MAX_BODY_BYTES:
        detail = f"the body has more than {MAX_BODY_BYTES} bytes"
        raise Problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "body-too-large", detail)
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        if first["type"] == "json_invalid":
            raise Problem(HTTPStatus.BAD_REQUEST, "malformed-body", f"the body is no JSON: {first['msg']}") from error
        detail = "the body is JSON, but not what is wanted here"
        raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, "invalid-body", detail, _field_errors(error)) from error


def _body(event: APIGatewayProxyEventV2) -> str:
    try:
        return event.decoded_body or ""
    except ValueError as error:
        raise Problem(HTTPStatus.BAD_REQUEST, "malformed-body", "the body is not UTF-8 text") from error


def _field_errors(error: ValidationError) -> list[dict[str, str]]:
    """One entry per thing that is wrong: the field as the client spelt it, and what is the matter."""
    return [
        {"field": ".".join(str(part) for part in item["loc"]) or "body", "message": item["msg"]}
        for item in error.errors(include_url=False, include_context=False, include_input=False)
    ]


def is_id(text: str) -> bool:
    """Whether something can be stored under an id from a path; DynamoDB refuses to look for one that is too long."""
    return len(text.encode()) <= MAX_ID_BYTES


def status_parameter(event: APIGatewayProxyEventV2, statuses: type[StatusT]) -> StatusT | None:
    """The status that the caller wants to see; None for all.

    Raises:
        Problem: 400, if it is none of them.
    """
    text = event.query_string_parameters.get("status")
    if text is None:
        return None
    try:
        return statuses(text)
    except ValueError as error:
        detail = f"status is one of {', '.join(statuses)}"
        raise Problem(HTTPStatus.BAD_REQUEST, "malformed-status", detail) from error


def limit_parameter(event: APIGatewayProxyEventV2) -> int:
    """How many entries the caller wants in a page.

    Raises:
        Problem: 400, if it is not a number from 1 to 100.
    """
    text = event.query_string_parameters.get("limit", str(DEFAULT_LIMIT))
    if text not in map(str, range(1, MAX_LIMIT + 1)):
        raise Problem(HTTPStatus.BAD_REQUEST, "malformed-limit", f"limit is a number from 1 to {MAX_LIMIT}")
    return int(text)


def cursor_parameter(
    event: APIGatewayProxyEventV2,
    of_list: tuple[str, ...],
    is_position: Callable[[Mapping[str, str]], bool],
    now: datetime,
) -> dict[str, str] | None:
    """Where the caller's list goes on; None for its beginning.

    Raises:
        Problem: 400, if the cursor is not one of this list's.
    """
    cursor = event.query_string_parameters.get("cursor")
    if cursor is None:
        return None
    try:
        return pagination.decode_cursor(cursor, of_list, is_position, now)
    except pagination.InvalidCursor as error:
        raise Problem(HTTPStatus.BAD_REQUEST, "malformed-cursor", str(error)) from error


def page_response(
    items: list[dict[str, Any]], last: dict[str, str] | None, of_list: tuple[str, ...], now: datetime
) -> Response[str]:
    """One page of a list, with a cursor if there is more."""
    body: dict[str, Any] = {"items": items}
    if last is not None:
        body["nextCursor"] = pagination.encode_cursor(last, of_list, now)
    return json_response(HTTPStatus.OK, body)
