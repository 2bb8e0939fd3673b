"""Lambda's records of asynchronous invocations that failed."""

import json
from typing import Any

from hypothesis import given

from dlq_processor.domain import FailureKind
from tests.unit.dlq_processor.support import (
    consumers,
    event_of,
    extra,
    failure,
    fixture,
    function_arn,
    ids,
    message,
    sentences,
    summary,
    words,
)


@given(consumers, ids, words, sentences, extra)
def test_an_invocation_is_a_failure_of_its_function_and_keeps_its_payload(
    consumer: str, event_id: str, reason: str, why: str, more: dict[str, Any]
) -> None:
    event = {**more, **event_of(event_id)}
    body = {
        "requestContext": {"requestId": "r", "functionArn": f"{function_arn(consumer)}:$LATEST", "condition": "C"},
        "requestPayload": event,
        "responsePayload": {"errorType": reason, "errorMessage": why},
    }
    found = failure(message(body))
    assert summary(found) == (FailureKind.INVOCATION, consumer, reason, event_id)
    assert json.loads(found.payload or "") == event


def test_a_function_of_another_stack_keeps_its_whole_name() -> None:
    body = json.loads(fixture("failed_invocation")["body"])
    body["requestContext"]["functionArn"] = "arn:aws:lambda:us-east-1:1:function:shop-email:live"
    assert failure(message(body)).consumer == "shop-email"


def test_an_invocation_that_never_ran_has_lambdas_condition_as_its_reason() -> None:
    body = json.loads(fixture("failed_invocation")["body"])
    del body["responsePayload"]
    body["requestContext"]["condition"] = "EventAgeExceeded"
    found = failure(message(body))
    assert (found.reason, found.message, found.transient) == ("EventAgeExceeded", "", True)


def test_an_invocation_without_an_event_is_identified_by_its_request_id() -> None:
    body = json.loads(fixture("failed_invocation")["body"])
    found = failure(message({**body, "requestPayload": {"Records": []}}))
    assert found.event_id == body["requestContext"]["requestId"]
    assert found.payload == '{"Records":[]}'
