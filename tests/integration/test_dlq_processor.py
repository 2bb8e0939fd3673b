"""DlqProcessorFunction against moto: its records, automatic retries, redrives and alerts."""

import json
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

import boto3
import pytest
from botocore.exceptions import ClientError, ReadTimeoutError

from dlq_processor.domain import (
    FailedEvent,
    FailedEventStatus,
    Failure,
    FailureKind,
    RedriveOutcome,
    claimed,
    counted,
    parked,
)
from dlq_processor.lambda_invoke import ANSWER_SECONDS, Redriver
from dlq_processor.repository import FailedEvents
from dlq_processor.service import settle
from localaws.aws import SHARD_ID, ServiceError
from orderflow.dynamodb import ConcurrentUpdate
from tests.integration.support import (
    Api,
    Aws,
    Context,
    answering,
    line,
    log_lines,
    measured,
    module,
    order_event,
    subscribed,
)

FIXTURES = Path(__file__).parents[2] / "events/dlq_processor"
NOW = datetime(2026, 11, 21, 18, 36, tzinfo=UTC)
CUSTOMER = "ada@example.com"
OLD = "100000000000000000001"
FAILED_ITEM = {"batchItemFailures": [{"itemIdentifier": "1"}]}
SUCCESS = RedriveOutcome(succeeded=True)


@dataclass
class Answered:
    """The result of Invoke."""

    payload: bytes
    function_error: str | None = None


class Consumers:
    """The functions that the processor invokes."""

    def __init__(self) -> None:
        self.invoked: list[tuple[str, Any]] = []
        self.answer: Callable[[], Any] = lambda: None

    def invoke(self, name: str, payload: bytes) -> Answered:
        self.invoked.append((name, json.loads(payload)))
        found = self.answer()
        return found if isinstance(found, Answered) else Answered(json.dumps(found).encode())

    def fail(self, error: str = "KeyError", message: str = "no") -> None:
        body = json.dumps({"errorType": error, "errorMessage": message}).encode()
        self.answer = lambda: Answered(body, "Unhandled")


def set_time(processor: ModuleType, monkeypatch: pytest.MonkeyPatch, now: datetime) -> None:
    monkeypatch.setattr(processor, "processor", replace(processor.processor, now=lambda: now))


@pytest.fixture
def processor(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The function's module, with automatic retries that arrive at once."""
    found = module("dlq_processor.handler")
    monkeypatch.setattr(found, "RETRY_DELAYS", (0, 0, 0))
    set_time(found, monkeypatch, NOW)
    return found


@pytest.fixture
def consumers(aws: Aws) -> Iterator[Consumers]:
    found, before = Consumers(), aws.store.on_invoke
    aws.store.on_invoke = answering(found.invoke)
    yield found
    aws.store.on_invoke = before


@pytest.fixture
def alerts(aws: Aws) -> Iterator[Callable[[], list[dict[str, str]]]]:
    """Returns a function that returns the alerts published since its last call."""
    with subscribed(aws.stack.outputs["AlertTopicArn"]) as received:
        yield received


def refusing(code: str, operation: str) -> Callable[..., NoReturn]:
    """A call of an AWS client that fails with an error code."""

    def refuse(**_: Any) -> NoReturn:
        raise ClientError({"Error": {"Code": code, "Message": "refused by the test"}}, operation)

    return refuse


def as_delivered(message: dict[str, Any]) -> dict[str, Any]:
    """A message of the DLQ in the format of Lambda's event."""
    return {
        "messageId": message["MessageId"],
        "body": message["Body"],
        "attributes": {"ApproximateReceiveCount": "1"},
        "messageAttributes": {
            name: {"stringValue": value["StringValue"], "dataType": value["DataType"]}
            for name, value in message["MessageAttributes"].items()
        },
        "eventSourceARN": "arn:aws:sqs:us-east-1:123456789012:the-dlq",
    }


def function_arn(consumer: str) -> str:
    return f"arn:aws:lambda:us-east-1:123456789012:function:test-{consumer}"


def queue_arn(aws: Aws) -> str:
    return f"arn:aws:sqs:us-east-1:123456789012:{aws.stack.outputs['AnalyticsQueueUrl'].rpartition('/')[2]}"


def a_message(body: Any, attributes: dict[str, str] | None = None, **system: str) -> dict[str, Any]:
    return {
        "messageId": str(uuid.uuid4()),
        "body": body if isinstance(body, str) else json.dumps(body),
        "attributes": {"ApproximateReceiveCount": "1", **system},
        "messageAttributes": {
            name: {"stringValue": value, "dataType": "String"} for name, value in (attributes or {}).items()
        },
        "eventSourceARN": "arn:aws:sqs:us-east-1:123456789012:the-dlq",
    }


def failed_invocation(event: Any, error: str, message: str = "no") -> dict[str, Any]:
    """The message that Lambda sends when all attempts of the e-mail function have failed."""
    body = {
        "requestContext": {
            "requestId": "r",
            "functionArn": f"{function_arn('email')}:$LATEST",
            "condition": "RetriesExhausted",
        },
        "requestPayload": event,
        "responsePayload": {"errorType": error, "errorMessage": message},
    }
    return a_message(body)


def an_event() -> dict[str, Any]:
    return order_event("Order Confirmed", "ORD-1", [("PROD-1", 2)])


def process(processor: ModuleType, *messages: dict[str, Any]) -> list[str]:
    """Processes messages. Returns the ids of those that failed."""
    answer = processor.handler({"Records": list(messages)}, Context())
    return [failure["itemIdentifier"] for failure in answer["batchItemFailures"]]


def process_retries(aws: Aws, processor: ModuleType) -> int:
    """Delivers the messages that the processor has sent to its own queue. Returns their number."""
    messages = [as_delivered(message) for message in aws.dlq()]
    if messages:  # Lambda never hands over an empty batch
        assert process(processor, *messages) == []
    return len(messages)


def record_of(processor: ModuleType, consumer: str, event: dict[str, Any]) -> FailedEvent:
    found: FailedEvent | None = processor.records.get(f"{consumer}:{event['detail']['metadata']['eventId']}")
    assert found is not None
    return found


# ------------------------------------------------------------------------------------------ records


def test_a_failure_is_stored_with_all_fields(aws: Aws, processor: ModuleType) -> None:
    event = an_event()
    message = failed_invocation(event, "KeyError", "'orderId'")
    assert process(processor, message) == []
    found = record_of(processor, "email", event)
    assert found == FailedEvent(
        id=f"email:{event['detail']['metadata']['eventId']}",
        consumer="email",
        event_id=event["detail"]["metadata"]["eventId"],
        kind=FailureKind.INVOCATION,
        reason="KeyError",
        message="'orderId'",
        status=FailedEventStatus.NEW,
        first_failed_at="2026-11-21T18:36:00.000Z",
        last_failed_at="2026-11-21T18:36:00.000Z",
        failures=1,
        version=1,
        order_id="ORD-1",
        detail_type="Order Confirmed",
        correlation_id="correlation-1",
        payload=found.payload,
        message_ids=frozenset({message["messageId"]}),
    )
    assert json.loads(found.payload or "") == event


def test_a_message_is_counted_once_and_another_message_is_a_second_failure(aws: Aws, processor: ModuleType) -> None:
    event = an_event()
    message = failed_invocation(event, "KeyError")
    process(processor, message, message)
    process(processor, message)
    assert record_of(processor, "email", event).failures == 1
    process(processor, failed_invocation(event, "ValueError"))
    again = record_of(processor, "email", event)
    assert (again.failures, again.reason, again.status) == (2, "ValueError", FailedEventStatus.PARKED)


def test_the_same_event_may_fail_at_two_consumers(aws: Aws, processor: ModuleType) -> None:
    event = an_event()
    rule = "arn:aws:events:us-east-1:123456789012:rule/orders-event-bus/sales-analytics"
    queue = queue_arn(aws)
    undelivered = {"RULE_ARN": rule, "TARGET_ARN": queue, "ERROR_CODE": "NO_PERMISSIONS"}
    process(processor, failed_invocation(event, "KeyError"), a_message(event, undelivered))
    assert record_of(processor, "email", event).reason == "KeyError"
    assert record_of(processor, "analytics", event).reason == "NO_PERMISSIONS"


def test_a_failure_that_a_redrive_cannot_help_is_parked_with_its_remediation(aws: Aws, processor: ModuleType) -> None:
    event = an_event()
    attributes = {
        "RULE_ARN": "arn:aws:events:us-east-1:123456789012:rule/orders-event-bus/all-events-log",
        "TARGET_ARN": "arn:aws:logs:us-east-1:123456789012:log-group:gone",
        "ERROR_CODE": "NO_RESOURCE",
        "EXHAUSTED_RETRY_CONDITION": "MaximumRetryAttempts",
    }
    process(processor, a_message(event, attributes))
    found = record_of(processor, "all-events-log", event)
    assert (found.status, found.redrivable) == (FailedEventStatus.PARKED, False)
    assert (found.remediation or "").startswith("make republish FROM=2026-11-21T18:36:00Z")
    assert aws.dlq() == []


def test_only_the_unreadable_message_is_reported_and_its_content_is_not_logged(
    aws: Aws, processor: ModuleType, output: Callable[[], str]
) -> None:
    event, strange = an_event(), a_message(f"mail to {CUSTOMER}")
    assert process(processor, strange, failed_invocation(event, "KeyError", CUSTOMER)) == [strange["messageId"]]
    assert record_of(processor, "email", event).failures == 1
    printed = output()
    (logged,) = [entry for entry in log_lines(printed) if entry.get("message") == "message not processed"]
    assert (logged["message_id"], logged["error"]) == (strange["messageId"], "Unclassified: the body is not valid JSON")
    assert "dlq_processor" in logged["stack"]
    assert CUSTOMER not in printed


def test_a_batch_that_fails_completely_is_reported_and_the_text_of_its_errors_is_not_logged(
    aws: Aws, processor: ModuleType, monkeypatch: pytest.MonkeyPatch, output: Callable[[], str]
) -> None:
    def fail(*_: Any) -> NoReturn:
        raise ValueError(CUSTOMER)

    monkeypatch.setattr(processor, "classify", fail)
    messages = [a_message({}) for _ in range(2)]
    assert process(processor, *messages) == [message["messageId"] for message in messages]
    printed = output()
    logged = [entry for entry in log_lines(printed) if entry.get("message") == "message not processed"]
    assert [entry["error"] for entry in logged] == ["ValueError", "ValueError"]
    assert CUSTOMER not in printed


def test_failures_are_counted_and_logged_with_their_event(
    aws: Aws, processor: ModuleType, output: Callable[[], str]
) -> None:
    event = an_event()
    message = failed_invocation(event, "KeyError")
    process(processor, message)
    process(processor, message)
    printed = output()
    assert sum(measured(printed, "FailedEvents")) == 1
    (logged,) = [entry for entry in log_lines(printed) if entry.get("message") == "event failed"]
    event_id = event["detail"]["metadata"]["eventId"]
    names = ("failed_event", "consumer", "reason", "order_id", "event_id", "correlation_id")
    expected = [f"email:{event_id}", "email", "KeyError", "ORD-1", event_id, "correlation-1"]
    assert [logged[name] for name in names] == expected


def test_a_failure_that_comes_back_is_counted_as_parked(
    aws: Aws, processor: ModuleType, output: Callable[[], str]
) -> None:
    event = an_event()
    process(processor, failed_invocation(event, "KeyError"))
    assert measured(output(), "FailedEventsParked") == []
    process(processor, failed_invocation(event, "KeyError"))
    assert measured(output(), "FailedEventsParked") == [1.0]


# ------------------------------------------------------------------------------------------ the store


def a_failure(consumer: str, event_id: str | None = None) -> Failure:
    return Failure(consumer, event_id or uuid.uuid4().hex, FailureKind.QUEUE, "reason", "", payload="{}")


def add(records: FailedEvents, failure: Failure, message_id: str = "m-1", now: datetime = NOW) -> FailedEvent:
    record, _ = records.update(failure.id, lambda known: counted(known, failure, message_id, now))
    assert record is not None
    return record


def park(processor: ModuleType, event: dict[str, Any]) -> None:
    """Parks the failed event of the e-mail function, as an operator does."""
    processor.records.update(record_of(processor, "email", event).id, parked)


def test_a_record_that_changes_during_an_update_is_read_again_and_decided_again(
    processor: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    records, failure = processor.records, a_failure("a")
    add(records, failure, "m-1")
    stale: list[FailedEvent | None] = [None]
    get = records.get
    monkeypatch.setattr(records, "get", lambda record_id: stale.pop() if stale else get(record_id))
    found = add(records, failure, "m-2")
    assert (found.failures, set(found.message_ids)) == (2, {"m-1", "m-2"})


def test_a_record_that_changes_at_every_attempt_fails_the_update(
    processor: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    records, failure = processor.records, a_failure("a")
    add(records, failure, "m-1")
    monkeypatch.setattr(records, "get", lambda _: None)
    with pytest.raises(ConcurrentUpdate):
        add(records, failure, "m-2")


def test_any_other_error_of_the_table_is_not_a_concurrent_update(
    processor: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processor.records._table, "put_item", refusing("ThrottlingException", "PutItem"))
    with pytest.raises(ClientError):
        add(processor.records, a_failure("a"))


def test_an_update_without_a_change_writes_nothing(processor: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    record = add(processor.records, a_failure("a"))
    monkeypatch.setattr(processor.records._table, "put_item", refusing("ThrottlingException", "PutItem"))
    assert processor.records.update(record.id, lambda _: None) == (record, None)


def test_a_resolved_record_expires_unless_it_fails_again(processor: ModuleType) -> None:
    records, failure = processor.records, a_failure("a")
    resolved, _ = settle(records, add(records, failure, "m-1"), SUCCESS, NOW)
    assert resolved == records.get(resolved.id)
    assert (resolved.status, resolved.expiration is None) == (FailedEventStatus.RESOLVED, False)
    again = add(records, failure, "m-2")
    assert (again.status, again.resolved_at, again.expiration) == (FailedEventStatus.PARKED, None, None)
    assert records.get(again.id) == again


@pytest.fixture
def listed(aws: Aws, processor: ModuleType) -> tuple[FailedEvents, str]:
    """Seven records in all statuses of a consumer that no other test uses, and some of another consumer."""
    consumer, records = uuid.uuid4().hex, FailedEvents(aws.resource, aws.stack.outputs["FailedEventsTableName"])
    for number in range(7):
        now = NOW + timedelta(seconds=number)
        record = add(records, a_failure(consumer, f"e{number}"), now=now)
        add(records, a_failure("another-consumer"), now=now)
        if number in (1, 2):
            records.update(record.id, parked)
        if number == 3:
            settle(records, record, SUCCESS, now)
        if number == 4:
            records.update(record.id, lambda known: claimed(known, 1))
    return records, consumer


def pages(
    records: FailedEvents, status: FailedEventStatus | None, consumer: str | None, limit: int
) -> Iterator[list[dict[str, Any]]]:
    start: dict[str, str] | None = None
    while True:
        page = records.page(status, consumer, limit, start)
        assert len(page.items) <= limit
        yield page.items
        if page.last is None:
            return
        assert all(isinstance(value, str) for value in page.last.values())
        start = page.last


@pytest.mark.parametrize("limit", [1, 2, 3, 100])
def test_a_list_contains_each_record_once_newest_first_within_its_status(
    listed: tuple[FailedEvents, str], limit: int
) -> None:
    records, consumer = listed
    found = [item["eventId"] for page in pages(records, None, consumer, limit) for item in page]
    assert found == ["e6", "e5", "e0", "e4", "e2", "e1", "e3"]


@pytest.mark.parametrize("limit", [1, 2, 100])
def test_a_list_of_one_status_contains_only_that_status(listed: tuple[FailedEvents, str], limit: int) -> None:
    records, consumer = listed
    found = [item["eventId"] for page in pages(records, FailedEventStatus.PARKED, consumer, limit) for item in page]
    assert found == ["e2", "e1"]


def test_a_list_without_consumer_contains_all_consumers(listed: tuple[FailedEvents, str]) -> None:
    records, consumer = listed
    found = {(item["consumer"], item["id"]) for page in pages(records, FailedEventStatus.NEW, None, 2) for item in page}
    assert {f"{consumer}:e0", f"{consumer}:e5", f"{consumer}:e6"} < {record_id for _, record_id in found}
    assert "another-consumer" in {name for name, _ in found}


def test_a_list_has_the_fields_of_the_record(listed: tuple[FailedEvents, str]) -> None:
    records, consumer = listed
    (item,) = records.page(FailedEventStatus.RESOLVED, consumer, 5, None).items
    record = records.get(item["id"])
    assert record is not None
    assert {name: item[name] for name in ("id", "consumer", "reason", "failures")} == {
        "id": record.id,
        "consumer": record.consumer,
        "reason": record.reason,
        "failures": record.failures,
    }
    assert "payload" not in item
    assert item["resolvedAt"]


# ------------------------------------------------------------------------------------------ retries


def test_a_transient_failure_is_retried_and_resolved(
    aws: Aws, processor: ModuleType, consumers: Consumers, output: Callable[[], str]
) -> None:
    event = an_event()
    process(processor, failed_invocation(event, "NotAccepted"))
    assert consumers.invoked == []
    assert process_retries(aws, processor) == 1
    assert consumers.invoked == [("test-email", event)]
    found = record_of(processor, "email", event)
    assert (found.status, found.attempts) == (FailedEventStatus.RESOLVED, 1)
    assert sum(measured(output(), "FailedEventsResolved")) == 1
    assert aws.dlq() == []


def test_the_first_retry_waits_in_the_queue(aws: Aws, processor: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processor, "RETRY_DELAYS", module("dlq_processor.domain").RETRY_DELAYS)
    process(processor, failed_invocation(an_event(), "NotAccepted"))
    assert aws.dlq() == []
    url, queue = aws.stack.outputs["OrderEventsDlqUrl"], boto3.client("sqs")
    attributes = queue.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
    assert attributes["ApproximateNumberOfMessagesDelayed"] == "1"
    queue.purge_queue(QueueUrl=url)


def test_after_three_retries_a_record_is_parked_and_not_retried_again(
    aws: Aws, processor: ModuleType, consumers: Consumers, output: Callable[[], str]
) -> None:
    event = an_event()
    consumers.fail("Sandbox.Timedout", f"no mail to {CUSTOMER}")
    process(processor, failed_invocation(event, "NotAccepted"))
    states = []
    while process_retries(aws, processor):
        found = record_of(processor, "email", event)
        states.append((found.status, found.attempts))
    assert states == [(FailedEventStatus.RETRYING, 1), (FailedEventStatus.RETRYING, 2), (FailedEventStatus.PARKED, 3)]
    assert len(consumers.invoked) == 3
    assert (found.reason, found.message) == ("Sandbox.Timedout", f"no mail to {CUSTOMER}")
    printed = output()
    assert sum(measured(printed, "FailedEventsParked")) == 1
    assert CUSTOMER not in printed


def test_a_record_whose_last_retry_succeeds_is_neither_alerted_nor_counted_as_parked(
    aws: Aws,
    processor: ModuleType,
    consumers: Consumers,
    alerts: Callable[[], list[dict[str, str]]],
    output: Callable[[], str],
) -> None:
    event = an_event()
    consumers.fail()
    process(processor, failed_invocation(event, "NotAccepted"))
    assert [process_retries(aws, processor) for _ in range(2)] == [1, 1]
    alerts()
    consumers.answer = lambda: None
    assert process_retries(aws, processor) == 1
    found = record_of(processor, "email", event)
    assert (found.status, found.attempts) == (FailedEventStatus.RESOLVED, 3)
    assert alerts() == []
    assert measured(output(), "FailedEventsParked") == []


def test_a_record_that_is_parked_during_a_failing_retry_is_not_retried_again(
    aws: Aws, processor: ModuleType, consumers: Consumers
) -> None:
    event = an_event()

    def park_and_fail() -> Answered:
        park(processor, event)
        return Answered(b'{"errorType": "KeyError"}', "Unhandled")

    consumers.answer = park_and_fail
    process(processor, failed_invocation(event, "NotAccepted"))
    assert process_retries(aws, processor) == 1
    assert record_of(processor, "email", event).status is FailedEventStatus.PARKED
    assert aws.dlq() == []


def test_a_failure_that_is_not_transient_is_not_retried(aws: Aws, processor: ModuleType, consumers: Consumers) -> None:
    process(processor, failed_invocation(an_event(), "KeyError"))
    assert aws.dlq() == []
    assert consumers.invoked == []


def test_a_repeated_or_late_retry_request_changes_nothing(
    aws: Aws, processor: ModuleType, consumers: Consumers
) -> None:
    event = an_event()
    process(processor, failed_invocation(event, "NotAccepted"))
    (request,) = [as_delivered(message) for message in aws.dlq()]
    process(processor, request)
    assert process(processor, request, request) == []
    assert len(consumers.invoked) == 1
    assert record_of(processor, "email", event).failures == 1


def test_an_interrupted_retry_is_repeated_when_its_request_is_delivered_again(
    aws: Aws, processor: ModuleType, consumers: Consumers, monkeypatch: pytest.MonkeyPatch
) -> None:
    event = an_event()
    process(processor, failed_invocation(event, "NotAccepted"))
    (request,) = [as_delivered(message) for message in aws.dlq()]

    def crash(*_: Any) -> NoReturn:
        raise RuntimeError("the process ends while the consumer is invoked")

    with monkeypatch.context() as crashing:
        crashing.setattr(Redriver, "redrive", crash)
        assert process(processor, request) == [request["messageId"]]
    interrupted = record_of(processor, "email", event)
    assert (interrupted.status, interrupted.attempts) == (FailedEventStatus.RETRYING, 1)
    assert process(processor, request) == []
    assert len(consumers.invoked) == 1
    assert record_of(processor, "email", event).status is FailedEventStatus.RESOLVED


def test_a_retry_request_after_a_later_one_does_nothing(aws: Aws, processor: ModuleType, consumers: Consumers) -> None:
    event = an_event()
    consumers.fail()
    process(processor, failed_invocation(event, "NotAccepted"))
    (first,) = [as_delivered(message) for message in aws.dlq()]
    process(processor, first)
    assert process_retries(aws, processor) == 1
    process(processor, first)
    assert len(consumers.invoked) == 2


def test_a_retry_request_for_a_deleted_record_does_nothing(processor: ModuleType, consumers: Consumers) -> None:
    assert process(processor, a_message("automatic retry", {"RETRY_OF": "email:gone", "ATTEMPT": "1"})) == []
    assert consumers.invoked == []


def test_a_parked_record_is_not_retried(aws: Aws, processor: ModuleType, consumers: Consumers) -> None:
    event = an_event()
    process(processor, failed_invocation(event, "NotAccepted"))
    park(processor, event)
    process_retries(aws, processor)
    assert consumers.invoked == []


def test_a_failure_that_comes_back_is_parked_without_further_retries(
    aws: Aws, processor: ModuleType, consumers: Consumers
) -> None:
    event = an_event()
    process(processor, failed_invocation(event, "NotAccepted"))
    process_retries(aws, processor)
    process(processor, failed_invocation(event, "NotAccepted"))
    assert process_retries(aws, processor) == 0
    assert record_of(processor, "email", event).status is FailedEventStatus.PARKED


def test_a_retry_has_failed_if_the_consumer_sends_the_event_to_the_dlq_again(
    aws: Aws, processor: ModuleType, consumers: Consumers
) -> None:
    event = an_event()

    def send_to_dlq_and_answer() -> None:
        target = function_arn("email")
        process(processor, a_message(event, {"ERROR_CODE": "MessageRejected", "TARGET_ARN": target}))

    consumers.answer = send_to_dlq_and_answer
    process(processor, failed_invocation(event, "NotAccepted"))
    process_retries(aws, processor)
    found = record_of(processor, "email", event)
    assert (found.status, found.reason, found.failures) == (FailedEventStatus.PARKED, "MessageRejected", 2)
    assert aws.dlq() == []


def test_a_retry_that_was_not_requested_is_requested_when_the_message_is_delivered_again(
    aws: Aws, processor: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    message = failed_invocation(an_event(), "NotAccepted")

    with monkeypatch.context() as broken:
        broken.setattr(processor.queue, "send_message", refusing("RequestThrottled", "SendMessage"))
        assert process(processor, message) == [message["messageId"]]
    assert process(processor, message) == []
    assert len(aws.dlq()) == 1


# ------------------------------------------------------------------------------------------ redriving


def redrive(processor: ModuleType, failure: Failure) -> Any:
    return processor.redriver.redrive(add(processor.records, failure))


def test_a_queue_message_is_redriven_as_a_batch_and_its_response_is_read(
    aws: Aws, processor: ModuleType, consumers: Consumers
) -> None:
    event = an_event()
    queue = queue_arn(aws)
    process(processor, a_message(event, DeadLetterQueueSourceArn=queue))
    consumers.answer = lambda: FAILED_ITEM
    process_retries(aws, processor)
    ((name, batch),) = consumers.invoked
    assert name == "test-analytics"
    assert [(record["eventSourceARN"], json.loads(record["body"])) for record in batch["Records"]] == [(queue, event)]
    found = record_of(processor, "analytics", event)
    assert (found.status, found.reason) == (FailedEventStatus.RETRYING, "BatchItemFailure")
    consumers.answer = lambda: {"batchItemFailures": []}
    process_retries(aws, processor)
    assert record_of(processor, "analytics", event).status is FailedEventStatus.RESOLVED


def test_a_redrive_fails_if_lambda_does_not_run_the_function(
    aws: Aws, processor: ModuleType, consumers: Consumers
) -> None:
    def throttle(*_: Any) -> Any:
        raise ServiceError("TooManyRequestsException", "Rate Exceeded.", 429)

    aws.store.on_invoke = answering(throttle)
    outcome = redrive(processor, a_failure("email"))
    assert (outcome.succeeded, outcome.reason) == (False, "TooManyRequestsException")


def test_a_consumer_whose_response_is_lost_is_not_invoked_again_by_the_sdk(
    aws: Aws, processor: ModuleType, consumers: Consumers
) -> None:
    with aws.lost_answers("/2015-03-31/functions/"):
        outcome = redrive(processor, a_failure("email"))
    assert (outcome.succeeded, outcome.reason) == (False, "ConnectionClosedError")
    assert len(consumers.invoked) == 1


def test_a_consumer_is_invoked_by_its_alias(aws: Aws, processor: ModuleType, consumers: Consumers) -> None:
    process(processor, failed_invocation(an_event(), "NotAccepted"))
    process_retries(aws, processor)
    assert [parameters["Qualifier"] for operation, parameters in aws.requests if operation == "Invoke"] == ["live"]


def test_a_redrive_fails_if_the_function_does_not_respond(
    processor: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wait(**_: Any) -> None:
        raise ReadTimeoutError(endpoint_url="http://127.0.0.1")

    monkeypatch.setattr(processor.redriver.functions, "invoke", wait)
    assert redrive(processor, a_failure("email")).reason == "ReadTimeoutError"


def test_the_read_timeout_of_a_redrive_is_within_the_functions_timeout(processor: ModuleType) -> None:
    assert processor.redriver.functions.meta.config.read_timeout == ANSWER_SECONDS


def test_an_error_without_a_type_has_the_reason_that_lambda_gives(processor: ModuleType, consumers: Consumers) -> None:
    consumers.answer = lambda: Answered(b"{}", "Unhandled")
    outcome = redrive(processor, a_failure("email"))
    assert (outcome.succeeded, outcome.reason, outcome.message) == (False, "Unhandled", "")


def test_the_reason_of_a_failed_redrive_is_cleaned_and_cut_and_its_message_is_cut(
    processor: ModuleType, consumers: Consumers
) -> None:
    consumers.fail("a b;c" + "x" * 200, "y" * 1001)
    outcome = redrive(processor, a_failure("email"))
    assert (outcome.reason, outcome.message) == ("a_b_c" + "x" * 95, "y" * 1000)


def test_a_record_that_changed_during_its_redrive_is_not_overwritten(processor: ModuleType) -> None:
    records, record = processor.records, add(processor.records, a_failure("email"))
    settle(records, record, SUCCESS, NOW)
    failed = RedriveOutcome(succeeded=False, reason="KeyError")
    settled, outcome = settle(records, record, failed, NOW)
    assert (settled.status, outcome) == (FailedEventStatus.RESOLVED, failed)
    settled, outcome = settle(records, record, SUCCESS, NOW)
    assert (settled.status, outcome.succeeded, outcome.reason) == (
        FailedEventStatus.RESOLVED,
        False,
        "ConcurrentUpdate",
    )


def test_a_record_that_changes_while_its_outcome_is_stored_is_not_overwritten(
    processor: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    records, record = processor.records, add(processor.records, a_failure("email"))
    records.update(record.id, parked)
    stale, get = [record], records.get
    monkeypatch.setattr(records, "get", lambda record_id: stale.pop() if stale else get(record_id))
    settled, outcome = settle(records, record, SUCCESS, NOW)
    assert (settled.status, outcome.succeeded) == (FailedEventStatus.PARKED, False)


def test_the_outcome_of_a_record_that_has_expired_is_not_stored(processor: ModuleType) -> None:
    record = add(processor.records, a_failure("email"))
    processor.records._table.delete_item(Key={"id": record.id})
    settled, outcome = settle(processor.records, record, SUCCESS, NOW)
    assert (settled, outcome.succeeded, processor.records.get(record.id)) == (record, False, None)


@pytest.fixture
def publisher(aws: Aws, consumers: Consumers) -> ModuleType:
    """The event publisher, run for real when it is invoked."""
    found = module("event_publisher.handler")
    consumers.answer = lambda: found.handler(consumers.invoked[-1][1], Context())
    return found


def published(aws: Aws) -> list[tuple[str, str, int]]:
    details = [(entry["DetailType"], json.loads(entry["Detail"])) for entry in aws.published]
    return [(name, detail["orderId"], detail["metadata"]["sequence"]) for name, detail in details]


def refused_by_the_bus(aws: Aws, publisher: ModuleType, records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The DLQ's messages about stream records whose events the bus refuses."""
    context = Context(invoked_function_arn=function_arn("event-publisher"))
    aws.answer = lambda _: {"ErrorCode": "MalformedDetail", "ErrorMessage": "no"}
    publisher.handler({"Records": records}, context)
    aws.answer = lambda _: {}
    return [as_delivered(message) for message in aws.dlq()]


def test_an_event_that_the_bus_refused_is_published_with_the_later_ones_of_its_order(
    aws: Aws, api: Api, processor: ModuleType, publisher: ModuleType
) -> None:
    order_id = api.place(line(aws.add_product())).body["orderId"]
    api.call("POST", f"/orders/{order_id}/cancellation")
    messages = refused_by_the_bus(aws, publisher, aws.records_of(order_id))
    assert process(processor, *messages) == []
    expected = [("Order Placed", order_id, 1), ("Order Cancelled", order_id, 2)]
    for message in messages:
        aws.published.clear()
        event = json.loads(message["body"])
        assert processor.redriver.redrive(record_of(processor, "event-publisher", event)).succeeded
        assert published(aws) == expected
        assert json.loads(aws.published[0]["Detail"]) == event["detail"]
        expected.pop(0)


def test_a_reservations_event_is_published_again_from_its_own_table(
    aws: Aws, processor: ModuleType, publisher: ModuleType
) -> None:
    order_id, product = f"ORD-{uuid.uuid4().hex}", aws.add_product(stock=5)
    module("inventory.handler").handler(order_event("Order Placed", order_id, [(product, 2)]), Context())
    (message,) = refused_by_the_bus(aws, publisher, aws.records_of(f"RESERVATION#{order_id}"))
    process(processor, message)
    event = json.loads(message["body"])
    assert processor.redriver.redrive(record_of(processor, "event-publisher", event)).succeeded
    assert published(aws) == [("Inventory Reserved", order_id, 1)]


def test_a_record_that_the_publisher_could_not_read_is_redriven_with_the_repaired_item(
    aws: Aws, api: Api, processor: ModuleType, publisher: ModuleType
) -> None:
    order_id = api.place(line(aws.add_product())).body["orderId"]
    (stream_record,) = aws.records_of(order_id)
    corrupt = json.loads(json.dumps(stream_record))
    del corrupt["dynamodb"]["NewImage"]["events"]["L"][0]["M"]["data"]
    (message,) = refused_by_the_bus(aws, publisher, [corrupt])
    process(processor, message)
    record = processor.records.get(f"event-publisher:{event_id_of(stream_record)}")
    assert record.reason == "UnreadableRecord"
    assert processor.redriver.redrive(record).succeeded
    assert published(aws) == [("Order Placed", order_id, 1)]


# ------------------------------------------------------------------------------------------ a stream's batch


def pointer(aws: Aws, stream: str, first: str, last: str, shard: str = SHARD_ID) -> dict[str, Any]:
    body = {
        "requestContext": {
            "functionArn": function_arn("event-publisher"),
            "condition": "RecordAgeExceeded",
            "approximateInvokeCount": 7,
        },
        "DDBStreamBatchInfo": {
            "shardId": shard,
            "startSequenceNumber": first,
            "endSequenceNumber": last,
            "approximateArrivalOfFirstRecord": "2026-11-21T18:36:00Z",
            "approximateArrivalOfLastRecord": "2026-11-21T18:36:01Z",
            "batchSize": 2,
            "streamArn": stream,
        },
    }
    return a_message(body)


def event_id_of(stream_record: dict[str, Any]) -> str:
    return str(stream_record["dynamodb"]["NewImage"]["events"]["L"][-1]["M"]["eventId"]["S"])


def test_each_record_of_a_failed_batch_is_fetched_and_published(
    aws: Aws, api: Api, processor: ModuleType, publisher: ModuleType
) -> None:
    order_id = api.place(line(aws.add_product())).body["orderId"]
    api.call("POST", f"/orders/{order_id}/cancellation")
    other = api.place(line(aws.add_product())).body["orderId"]
    stream = aws.table("OrdersTableName").latest_stream_arn
    placed, cancelled = aws.records_of(order_id)
    batch = pointer(aws, stream, *(record["dynamodb"]["SequenceNumber"] for record in (placed, cancelled)))
    assert process(processor, batch) == []
    for record in (placed, cancelled):
        stored = processor.records.get(f"event-publisher:{event_id_of(record)}")
        (kept,) = json.loads(stored.payload)["Records"]
        assert kept["dynamodb"] == record["dynamodb"]
        assert kept["eventSourceARN"] == stream
    assert process_retries(aws, processor) == 2
    assert published(aws) == [("Order Placed", order_id, 1), ("Order Cancelled", order_id, 2)]
    (elsewhere,) = aws.records_of(other)
    assert processor.records.get(f"event-publisher:{event_id_of(elsewhere)}") is None


def test_an_expired_batch_is_parked_with_its_remediation(aws: Aws, processor: ModuleType) -> None:
    stream = aws.table("OrdersTableName").latest_stream_arn
    shard = f"shardId-{uuid.uuid4().hex}"
    assert process(processor, pointer(aws, stream, OLD, OLD, shard)) == []
    found = processor.records.get(f"event-publisher:{shard}-{OLD}")
    assert (found.status, found.kind) == (FailedEventStatus.PARKED, FailureKind.STREAM)
    assert found.remediation == "make republish FROM=2026-11-21T18:35:45Z TO=2026-11-21T18:36:17Z"


class PagedStreams:
    """A shard whose records are returned in pages, as DynamoDB may do."""

    def __init__(self, *answers: dict[str, Any]) -> None:
        self._answers = list(answers)

    def get_shard_iterator(self, **_: Any) -> dict[str, str]:
        return {"ShardIterator": "0"}

    def get_records(self, ShardIterator: str) -> dict[str, Any]:  # noqa: N803 - boto3's name
        return self._answers[int(ShardIterator)]


def a_stream_record(number: int) -> dict[str, Any]:
    event = {"M": {"eventId": {"S": uuid.uuid4().hex}, "seal": {"B": b"\x00\x01"}}}
    change = {
        "ApproximateCreationDateTime": NOW,
        "NewImage": {"events": {"L": [event]}},
        "SequenceNumber": str(number),
    }
    return {"eventID": str(number), "dynamodb": change}


def test_a_batch_is_read_across_empty_pages_up_to_its_end(
    aws: Aws, processor: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [a_stream_record(number) for number in (9, 10, 12)]
    pages = (
        {"Records": [], "NextShardIterator": "1"},
        {"Records": found[:1], "NextShardIterator": "2"},
        {"Records": found[1:], "NextShardIterator": "3"},
    )
    monkeypatch.setattr(processor, "streams", PagedStreams(*pages))
    assert process(processor, pointer(aws, "a-stream", "9", "11")) == []
    stored = [processor.records.get(f"event-publisher:{event_id_of(record)}") for record in found]
    assert [record is not None for record in stored] == [True, True, False]
    (kept,) = json.loads(stored[0].payload)["Records"]
    assert kept["dynamodb"]["ApproximateCreationDateTime"] == NOW.timestamp()
    assert kept["dynamodb"]["NewImage"]["events"]["L"][0]["M"]["seal"] == {"B": "AAE="}


def test_a_batch_is_read_across_99_empty_pages(
    aws: Aws, processor: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = a_stream_record(9)
    empty = [{"Records": [], "NextShardIterator": str(following)} for following in range(1, 100)]
    monkeypatch.setattr(processor, "streams", PagedStreams(*empty, {"Records": [record]}))
    assert process(processor, pointer(aws, "a-stream", "9", "9")) == []
    assert processor.records.get(f"event-publisher:{event_id_of(record)}") is not None


@pytest.mark.parametrize(
    "code", ["ExpiredIteratorException", "ResourceNotFoundException", "TrimmedDataAccessException"]
)
def test_a_batch_that_the_stream_no_longer_returns_is_parked(
    aws: Aws, processor: ModuleType, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    monkeypatch.setattr(processor.streams, "get_shard_iterator", refusing(code, "GetShardIterator"))
    shard = f"shardId-{uuid.uuid4().hex}"
    assert process(processor, pointer(aws, "a-stream", "9", "11", shard)) == []
    assert processor.records.get(f"event-publisher:{shard}-9").status is FailedEventStatus.PARKED


@pytest.mark.parametrize("following", [{}, {"NextShardIterator": "0"}])
def test_a_batch_whose_end_is_not_found_is_parked(
    aws: Aws, processor: ModuleType, monkeypatch: pytest.MonkeyPatch, following: dict[str, str]
) -> None:
    monkeypatch.setattr(processor, "streams", PagedStreams({"Records": [], **following}))
    shard = f"shardId-{uuid.uuid4().hex}"
    assert process(processor, pointer(aws, "a-stream", "9", "11", shard)) == []
    assert processor.records.get(f"event-publisher:{shard}-9").status is FailedEventStatus.PARKED


def test_a_temporary_error_of_the_stream_fails_the_message(
    aws: Aws, processor: ModuleType, monkeypatch: pytest.MonkeyPatch, output: Callable[[], str]
) -> None:
    monkeypatch.setattr(processor.streams, "get_shard_iterator", refusing("InternalServerError", "GetShardIterator"))
    batch = pointer(aws, "a-stream", "9", "11")
    assert process(processor, batch) == [batch["messageId"]]
    assert "GetShardIterator: InternalServerError" in output()


# ------------------------------------------------------------------------------------------ alerts


def test_one_alert_is_sent_per_consumer_reason_and_hour(
    aws: Aws, processor: ModuleType, alerts: Callable[[], list[dict[str, str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    reason = f"Error{uuid.uuid4().hex}"
    event = an_event()
    process(processor, *(failed_invocation(event, reason, CUSTOMER) for event in (event, an_event(), an_event())))
    (alert,) = alerts()
    assert alert["Subject"] == f"Failed event: email, {reason}"
    assert f"email:{event['detail']['metadata']['eventId']}" in alert["Message"]
    assert CUSTOMER not in alert["Message"]
    process(processor, failed_invocation(an_event(), f"{reason}2"))
    assert len(alerts()) == 1
    set_time(processor, monkeypatch, NOW + timedelta(hours=1))
    process(processor, failed_invocation(an_event(), reason))
    assert len(alerts()) == 1


def test_the_same_reason_at_another_consumer_is_another_alert(
    aws: Aws, processor: ModuleType, alerts: Callable[[], list[dict[str, str]]]
) -> None:
    reason = f"Error{uuid.uuid4().hex}"
    process(processor, failed_invocation(an_event(), reason))
    attributes = {"ERROR_CODE": reason, "TARGET_ARN": function_arn("inventory")}
    process(processor, a_message(an_event(), attributes))
    subjects = sorted(alert["Subject"] for alert in alerts())
    assert subjects == [f"Failed event: {consumer}, {reason}" for consumer in ("email", "inventory")]


def test_the_idempotency_record_of_an_alert_outlives_its_hour(aws: Aws, processor: ModuleType) -> None:
    before = {item["id"] for item in aws.idempotency_table().scan()["Items"]}
    process(processor, failed_invocation(an_event(), f"Error{uuid.uuid4().hex}"))
    (record,) = [item for item in aws.idempotency_table().scan()["Items"] if item["id"] not in before]
    assert record["expiration"] > time.time() + 60 * 60
    assert "in_progress_expiration" in record  # or an alert of an invocation that crashed would be locked for two hours


def test_an_alert_that_is_sent_while_retries_run_says_so(
    aws: Aws,
    processor: ModuleType,
    consumers: Consumers,
    alerts: Callable[[], list[dict[str, str]]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hour = NOW - timedelta(hours=5)  # for which no other test alerts
    set_time(processor, monkeypatch, hour)
    event = an_event()
    message = failed_invocation(event, "NotAccepted")

    with monkeypatch.context() as broken:
        broken.setattr(processor.sns, "publish", refusing("KMSThrottling", "Publish"))
        assert process(processor, message) == [message["messageId"]]
    consumers.fail("NotAccepted")
    assert process_retries(aws, processor) == 1
    assert record_of(processor, "email", event).status is FailedEventStatus.RETRYING
    assert process(processor, message) == []
    (alert,) = alerts()
    assert "automatic retries are running" in alert["Message"]


def test_another_alert_is_sent_in_another_hour_after_the_last_retry(
    aws: Aws,
    processor: ModuleType,
    consumers: Consumers,
    alerts: Callable[[], list[dict[str, str]]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hour = NOW + timedelta(hours=int(uuid.uuid4().hex[:3], 16) + 2)  # for which no other test sends an alert
    set_time(processor, monkeypatch, hour)
    consumers.fail("NotAccepted")
    process(processor, failed_invocation(an_event(), "NotAccepted"))
    (alert,) = alerts()
    assert "automatic retries are running" in alert["Message"]
    set_time(processor, monkeypatch, hour + timedelta(hours=1))
    while process_retries(aws, processor):
        pass
    (alert,) = alerts()
    assert "PARKED, failures: 1, automatic retries: 3" in alert["Message"]


def test_an_alert_that_fails_is_sent_when_the_message_is_delivered_again(
    aws: Aws, processor: ModuleType, alerts: Callable[[], list[dict[str, str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    event = an_event()
    message = failed_invocation(event, f"Error{uuid.uuid4().hex}")

    with monkeypatch.context() as broken:
        broken.setattr(processor.sns, "publish", refusing("KMSThrottling", "Publish"))
        assert process(processor, message) == [message["messageId"]]
    assert record_of(processor, "email", event).failures == 1
    assert process(processor, message) == []
    assert len(alerts()) == 1


def test_a_record_is_parked_only_after_its_alert_was_sent(
    aws: Aws,
    processor: ModuleType,
    consumers: Consumers,
    alerts: Callable[[], list[dict[str, str]]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A parked record is not retried: without its alert, operators would not notice it."""
    event, reason = an_event(), f"Error{uuid.uuid4().hex}"
    process(processor, failed_invocation(event, "NotAccepted"))
    consumers.fail(reason)
    assert [process_retries(aws, processor) for _ in range(2)] == [1, 1]
    (last,) = [as_delivered(message) for message in aws.dlq()]
    alerts()

    with monkeypatch.context() as broken:
        broken.setattr(processor.sns, "publish", refusing("KMSThrottling", "Publish"))
        assert process(processor, last) == [last["messageId"]]
    assert record_of(processor, "email", event).status is FailedEventStatus.RETRYING
    assert process(processor, last) == []
    assert record_of(processor, "email", event).status is FailedEventStatus.PARKED
    assert [reason in alert["Subject"] for alert in alerts()] == [True]


def test_no_alert_is_sent_for_a_record_that_is_resolved_by_then(
    aws: Aws, processor: ModuleType, alerts: Callable[[], list[dict[str, str]]]
) -> None:
    event = an_event()
    message = failed_invocation(event, f"Error{uuid.uuid4().hex}")
    process(processor, message)
    assert len(alerts()) == 1
    settle(processor.records, record_of(processor, "email", event), SUCCESS, NOW)
    assert process(processor, message) == []
    assert alerts() == []


def test_every_fixture_is_processed(aws: Aws, processor: ModuleType, consumers: Consumers) -> None:
    for fixture in sorted(FIXTURES.glob("*.json")):
        text = fixture.read_text().replace(":orderflow-", ":test-")
        text = text.replace("table/OrdersTable", f"table/{aws.stack.outputs['OrdersTableName']}")
        assert process(processor, *json.loads(text)["Records"]) == [], fixture.name
    assert [name for name, _ in consumers.invoked] == ["test-analytics"]
    aws.dlq()
