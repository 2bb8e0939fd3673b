"""Lambda's API, EventBridge's API, SES and Cognito: the corrections of moto that these services need."""

import json
import logging
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from moto.awslambda.models import LambdaBackend, LambdaFunction
from moto.awslambda.responses import LambdaResponse
from moto.cognitoidp.models import CognitoIdpUserPool
from moto.core.exceptions import JsonRESTError
from moto.events.models import EventsBackend
from moto.events.responses import EventsHandler
from moto.sesv2.responses import SESV2Response

from localaws.aws import ServiceError
from localaws.event_pattern import EventPattern
from localaws.moto_patch import replace_method

if TYPE_CHECKING:
    from localaws.store import Store

log = logging.getLogger(__name__)


def correct_services(replaced: ExitStack, store: "Store") -> None:
    def put_events(_backend: EventsBackend, events: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Calls on_put_events. Moto raises an error for a function as target, and has no retries or DLQs."""
        with _as_aws_error():
            return store.on_put_events(events)

    def replay(handler: EventsHandler) -> tuple[str, dict[str, Any]]:
        """Calls on_replay. Moto ignores the time range and FilterArns, and does not get the events."""
        with _as_aws_error():
            answer = store.on_replay(handler._get_action(), json.loads(handler.body))
        return json.dumps(answer), handler.response_headers

    dispatch = LambdaResponse._dispatch

    def invoke(handler: LambdaResponse, request: Any, *more: Any) -> Any:
        """Answers Invoke by on_invoke. Moto would need Docker."""
        path = request.path.rstrip("/").split("/")
        if path[-1] != "invocations":
            return dispatch(handler, request, *more)
        return store.on_invoke(unquote(path[-2]), request.args.get("Qualifier"), request.headers, request.data)

    def invoke_later(function: LambdaFunction, body: str | bytes, _headers: Any, _answer_headers: Any) -> bytes:
        """Calls on_invoke. Calls inside moto, for example by SNS, are asynchronous."""
        payload = body if isinstance(body, bytes) else body.encode()
        return store.on_invoke(function.function_name, None, {"X-Amz-Invocation-Type": "Event"}, payload)[2]

    def reserve(change: Callable[..., Any], backend: LambdaBackend, name: str, *reserved: Any) -> Any:
        """Calls on_concurrency. Moto only stores the value."""
        answer = change(backend, name, *reserved)
        store.on_concurrency(name, int(reserved[0]) if reserved else None)
        return answer

    send_email = SESV2Response.send_email

    def send_and_show(handler: SESV2Response) -> str:
        """Calls on_mail. Moto keeps only the HTML part."""
        answer = send_email(handler)
        request = json.loads(handler.body)
        if "Simple" in request["Content"]:
            store.on_mail(_message(request, json.loads(answer)["MessageId"]))
        return answer

    replace_method(replaced, EventsBackend, "put_events", put_events)
    for action in ("describe_archive", "start_replay", "describe_replay", "list_replays", "cancel_replay"):
        replace_method(replaced, EventsHandler, action, replay)
    replace_method(replaced, EventsHandler, "test_event_pattern", _test_event_pattern)
    replace_method(replaced, SESV2Response, "send_email", send_and_show)
    replace_method(replaced, LambdaResponse, "_dispatch", invoke)
    replace_method(replaced, LambdaFunction, "invoke", invoke_later)
    for action in ("put_function_concurrency", "delete_function_concurrency"):
        replace_method(replaced, LambdaBackend, action, partial(reserve, getattr(LambdaBackend, action)))
    replace_method(replaced, CognitoIdpUserPool, "get_user_extra_data_by_client_id", _user_claims)


@contextmanager
def _as_aws_error() -> Iterator[None]:
    try:
        yield
    except ServiceError as error:
        answer = JsonRESTError(error.code, error.message)
        answer.code = error.status
        raise answer from error


def _message(request: dict[str, Any], message_id: str) -> bytes:
    """Returns the message that SES makes from SendEmail's simple content. The tags are in a header, for checks."""
    content = request["Content"]["Simple"]
    message = EmailMessage(SMTP.clone(max_line_length=998))  # RFC 5322's limit; folded headers are hard to search
    message["From"] = request["FromEmailAddress"]
    message["To"] = ", ".join(request["Destination"]["ToAddresses"])
    message["Subject"] = content["Subject"]["Data"]
    message["Date"] = format_datetime(datetime.now(UTC))
    message["MIME-Version"] = "1.0"
    message["Message-ID"] = f"<{message_id}@email.amazonses.com>"
    tags = (f"{tag['Name']}={tag['Value']}" for tag in request.get("EmailTags", []))
    message["X-SES-MESSAGE-TAGS"] = ", ".join(tags)
    for form, subtype in (("Text", "plain"), ("Html", "html")):
        if form in content["Body"]:
            message.add_alternative(content["Body"][form]["Data"], subtype=subtype)
    return message.as_bytes()


def _user_claims(pool: CognitoIdpUserPool, client_id: str, username: str) -> dict[str, Any]:
    """Returns a user's attributes as claims of the ID token.

    Moto omits all attributes that are not in ReadAttributes, and makes every claim a string. In Cognito, a client
    without ReadAttributes can read all attributes, and `email_verified` and `phone_number_verified` are booleans:
    https://docs.aws.amazon.com/cognito/latest/developerguide/amazon-cognito-user-pools-using-the-id-token.html
    """
    readable = pool.clients[client_id].get_readable_fields()
    claims: dict[str, Any] = {
        attribute["Name"]: attribute["Value"]
        for attribute in pool._get_user(username).attributes
        if not readable or attribute["Name"] in readable
    }
    for name in {"email_verified", "phone_number_verified"} & claims.keys():
        claims[name] = claims[name] == "true"
    return claims | {"event_id": str(uuid.uuid4())}


# Mandatory fields of the event (TestEventPattern, EventBridge API reference)
_EVENT_FIELDS = {"id", "account", "source", "time", "region", "resources", "detail-type"}


def _test_event_pattern(handler: EventsHandler) -> tuple[str, dict[str, Any]]:
    """Answers TestEventPattern, which moto answers with nothing."""
    with _as_aws_error():
        try:
            pattern = EventPattern(json.loads(handler._get_param("EventPattern", "")))
        except ValueError as error:  # also InvalidEventPattern
            message = f"Event pattern is not valid. Reason: {error}"
            raise ServiceError("InvalidEventPatternException", message) from error
        try:
            event = json.loads(handler._get_param("Event", ""))
            missing = ", ".join(sorted(_EVENT_FIELDS - event.keys()))
        except (AttributeError, ValueError) as error:
            raise ServiceError("ValidationException", "Parameter Event is not valid. Reason: not an object") from error
        if missing:
            raise ServiceError("ValidationException", f"Parameter Event is not valid. Reason: it has no {missing}")
        return json.dumps({"Result": pattern.matches(event)}), handler.response_headers
