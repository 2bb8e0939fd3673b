"""What the DLQ's messages say: their shapes, whose failure it is, what passes by itself, and what people are told."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from botocore.retries import standard
from hypothesis import given
from hypothesis import strategies as st

from dlq_processor.consumers import Consumers
from dlq_processor.domain import (
    MAX_PAYLOAD,
    Batch,
    Failure,
    Kind,
    RetryRequest,
    Unclassified,
    classify,
    failures_in,
)
from dlq_processor.repository import FailedEvent, FailedEventStatus
from dlq_processor.retries import DELAYS, is_transient
from dlq_processor.sns import subject, text

FIXTURES = Path(__file__).parents[2] / "events/dlq_processor"
ACCOUNT = "us-east-1:123456789012"
QUEUE = f"arn:aws:sqs:{ACCOUNT}:AnalyticsQueue"
SDK: Any = standard
"""The SDK's retries. Its lists of error codes are private, and not in its type stubs."""
FUNCTIONS = {
    "inventory": "InventoryFunction",
    "order-status": "OrderStatusFunction",
    "email": "EmailFunction",
    "analytics": "AnalyticsFunction",
    "event-publisher": "EventPublisherFunction",
    "sales-report": "SalesReportFunction",
}
CONSUMERS = Consumers(
    inventory_function="InventoryFunction",
    order_status_function="OrderStatusFunction",
    email_function="EmailFunction",
    analytics_function="AnalyticsFunction",
    event_publisher_function="EventPublisherFunction",
    sales_report_function="SalesReportFunction",
    analytics_queue_arn=QUEUE,
    orders_table="OrdersTable",
    inventory_table="InventoryTable",
)


def fixture(name: str) -> dict[str, Any]:
    (message,) = json.loads((FIXTURES / f"{name}.json").read_text())["Records"]
    return dict(message)


def function_arn(name: str) -> str:
    return f"arn:aws:lambda:{ACCOUNT}:function:{name}"


def message(body: Any, attributes: dict[str, str] | None = None, **system: str) -> dict[str, Any]:
    return {
        "messageId": "message-1",
        "body": body if isinstance(body, str) else json.dumps(body),
        "attributes": {"ApproximateReceiveCount": "1", **system},
        "messageAttributes": {
            name: {"stringValue": value, "dataType": "String"} for name, value in (attributes or {}).items()
        },
    }


def event_of(event_id: str, **detail: Any) -> dict[str, Any]:
    return {
        "id": "envelope-1",
        "source": "orders.service",
        "detail-type": "Order Placed",
        "time": "2026-11-21T18:36:00Z",
        "detail": {"orderId": "ORD-1", "metadata": {"eventId": event_id, "sequence": 1}, **detail},
    }


def undelivered(target: str, rule: str, error: str = "TIMEOUT", **attributes: str) -> dict[str, str]:
    return {
        "RULE_ARN": f"arn:aws:events:{ACCOUNT}:rule/orders-event-bus/{rule}",
        "TARGET_ARN": target,
        "ERROR_CODE": error,
        "ERROR_MESSAGE": "no",
        **attributes,
    }


def failure(found: dict[str, Any]) -> Failure:
    classified = classify(found, CONSUMERS)
    assert isinstance(classified, Failure)
    return classified


# ------------------------------------------------------------------------------------------ any message of a shape

names = st.text("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_", min_size=1, max_size=30)
ids = names
other_functions = names.filter(lambda name: name not in FUNCTIONS.values())
"""Functions that are not known by a consumer's name. Hypothesis also draws from the constants of this file."""
words = st.text("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._", min_size=1, max_size=40)
sentences = st.text(max_size=40)
known = st.sampled_from(sorted(FUNCTIONS))
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=10,
)
extra = st.dictionaries(st.sampled_from(["requestContext", "requestPayload", "DDBStreamBatchInfo", "x"]), json_values)


def shown(found: Failure) -> tuple[Kind, str, str, str]:
    return found.kind, found.consumer, found.reason, found.event_id


@given(known, ids, words, sentences, extra)
def test_any_event_that_did_not_reach_a_function_is_that_functions_failure(
    consumer: str, event_id: str, reason: str, why: str, more: dict[str, Any]
) -> None:
    attributes = undelivered(function_arn(FUNCTIONS[consumer]), "a-rule", reason, ERROR_MESSAGE=why)
    event = {**more, **event_of(event_id)}
    found = failure(message(event, attributes))
    assert shown(found) == (Kind.UNDELIVERED, consumer, reason, event_id)
    assert json.loads(found.payload or "") == event


@given(names, ids, words)
def test_any_event_that_did_not_reach_something_else_is_for_a_replay_to_that_rule_alone(
    rule: str, event_id: str, reason: str
) -> None:
    found = failure(message(event_of(event_id), undelivered("arn:aws:sns:us-east-1:1:topic", rule, reason)))
    assert shown(found) == (Kind.UNDELIVERED, rule, reason, event_id)
    assert (found.payload, found.transient) == (None, False)
    window = "FROM=2026-11-21T18:36:00Z TO=2026-11-21T18:36:01Z"
    assert re.fullmatch(rf"make replay {window} RULE={rule} NAME=redrive-[0-9a-z]{{12}}", found.mend or "")


@pytest.mark.parametrize(
    ("replay", "begins"),
    [
        ("to-staging-november", "to-staging-november"),
        ("redrive-" + "x" * 56, "redrive-" + "x" * 43),
        ("a b;c", "a_b_c"),
    ],
)
def test_a_replayed_event_is_replayed_again_under_a_name_that_its_rule_takes(replay: str, begins: str) -> None:
    event = event_of("e") | {"replay-name": replay}
    attributes = undelivered("arn:aws:events:us-east-1:1:event-bus/staging", "replay-to-staging", "NO_RESOURCE")
    (name,) = re.findall("NAME=(.*)$", failure(message(event, attributes)).mend or "")
    assert re.fullmatch(rf"{begins}-[0-9a-z]{{12}}", name)
    assert len(name) <= 64


def test_an_event_that_did_not_reach_the_log_is_published_again() -> None:
    """The log takes no replays."""
    found = failure(fixture("undelivered_to_a_log"))
    assert found.mend == "make republish FROM=2026-11-21T18:36:00Z TO=2026-11-21T18:36:01Z"


@given(other_functions, ids, words, sentences, extra)
def test_any_record_of_a_failed_invocation_is_the_functions_failure_with_what_it_was_given(
    function: str, event_id: str, reason: str, why: str, more: dict[str, Any]
) -> None:
    event = {**more, **event_of(event_id)}
    body = {
        "requestContext": {"requestId": "r", "functionArn": f"{function_arn(function)}:$LATEST", "condition": "C"},
        "requestPayload": event,
        "responsePayload": {"errorType": reason, "errorMessage": why},
    }
    found = failure(message(body))
    assert shown(found) == (Kind.INVOCATION, function, reason, event_id)
    assert json.loads(found.payload or "") == event


@pytest.mark.parametrize(
    "attributes", [undelivered(function_arn("EmailFunction"), "r"), {"ERROR_CODE": "E", "TARGET_ARN": "email"}]
)
def test_a_message_of_the_analytics_queue_is_classified_by_its_source_and_not_by_its_attributes(
    attributes: dict[str, str],
) -> None:
    found = failure(message(event_of("1"), attributes, DeadLetterQueueSourceArn=QUEUE))
    assert shown(found) == (Kind.QUEUE, "analytics", "MaxReceiveCount", "1")


@given(st.text() | json_values.map(json.dumps) | ids.map(event_of).map(json.dumps))
def test_any_message_of_the_analytics_queue_is_analytics_failure_and_kept_as_it_is(body: str) -> None:
    found = failure(message(body, DeadLetterQueueSourceArn=QUEUE))
    assert (found.kind, found.consumer, found.reason, found.transient) == (
        Kind.QUEUE,
        "analytics",
        "MaxReceiveCount",
        True,
    )
    (record,) = json.loads(found.payload or "")["Records"]
    assert (record["body"], record["messageId"], record["eventSourceARN"]) == (body, "message-1", QUEUE)


@given(known, names, st.integers(1, 10**30), st.integers(0, 10**6), words)
def test_any_pointer_to_a_streams_batch_is_understood(
    consumer: str, shard: str, first: int, more: int, reason: str
) -> None:
    body = {
        "requestContext": {"functionArn": function_arn(FUNCTIONS[consumer]), "condition": reason},
        "DDBStreamBatchInfo": {
            "shardId": shard,
            "startSequenceNumber": str(first),
            "endSequenceNumber": str(first + more),
            "approximateArrivalOfFirstRecord": "2026-11-21T18:36:00Z",
            "approximateArrivalOfLastRecord": "2026-11-21T18:36:01.5Z",
            "batchSize": 2,
            "streamArn": "a-stream",
        },
    }
    batch = classify(message(body), CONSUMERS)
    assert isinstance(batch, Batch)
    assert (batch.stream, batch.shard, batch.first, batch.last) == ("a-stream", shard, str(first), str(first + more))
    (lost,) = failures_in(batch, None)
    assert shown(lost) == (Kind.STREAM, consumer, reason, f"{shard}-{first}")
    assert lost.mend == "make republish FROM=2026-11-21T18:35:45Z TO=2026-11-21T18:36:17Z"


@given(known, ids, words, sentences, extra)
def test_any_event_that_a_function_set_aside_is_its_failure_and_nothing_to_retry(
    consumer: str, event_id: str, reason: str, why: str, more: dict[str, Any]
) -> None:
    event = {**more, **event_of(event_id)}
    attributes = {"ERROR_CODE": reason, "ERROR_MESSAGE": why, "TARGET_ARN": function_arn(FUNCTIONS[consumer])}
    found = failure(message(event, attributes))
    assert shown(found) == (Kind.SET_ASIDE, consumer, reason, event_id)
    assert (json.loads(found.payload or ""), found.transient) == (event, False)


def test_a_bare_event_can_only_be_the_analytics_queues() -> None:
    found = failure(message(event_of("1")))
    assert shown(found) == (Kind.QUEUE, "analytics", "MaxReceiveCount", "1")
    (record,) = json.loads(found.payload or "")["Records"]
    assert record["eventSourceARN"] == CONSUMERS.analytics_queue_arn


@given(
    st.text() | json_values.map(json.dumps),
    st.dictionaries(st.sampled_from(["ERROR_MESSAGE", "TARGET_ARN", "RETRY_ATTEMPTS", "other"]), st.text(min_size=1)),
)
def test_anything_else_is_refused_by_an_error_that_says_why_and_quotes_nothing(
    body: str, attributes: dict[str, str]
) -> None:
    with pytest.raises(Unclassified) as refusal:
        classify(message(body, attributes), CONSUMERS)
    assert str(refusal.value) in ("the body is no JSON", "neither message attributes nor a body that tell of a failure")


# ------------------------------------------------------------------------------------------ the shapes' details


@pytest.mark.parametrize(
    ("name", "kind", "consumer", "reason", "transient"),
    [
        ("undelivered", Kind.UNDELIVERED, "inventory", "THROTTLING", True),
        ("undelivered_to_a_queue", Kind.UNDELIVERED, "analytics", "NO_PERMISSIONS", False),
        ("undelivered_to_a_log", Kind.UNDELIVERED, "all-events-log", "NO_RESOURCE", False),
        ("failed_invocation", Kind.INVOCATION, "email", "NotAccepted", True),
        ("received_too_often", Kind.QUEUE, "analytics", "MaxReceiveCount", True),
        ("set_aside_by_email", Kind.SET_ASIDE, "email", "MessageRejected", False),
        ("set_aside_by_publisher", Kind.SET_ASIDE, "event-publisher", "EventTooLarge", False),
        ("set_aside_record", Kind.SET_ASIDE, "event-publisher", "UnreadableRecord", False),
    ],
)
def test_each_fixture_is_of_its_shape(name: str, kind: Kind, consumer: str, reason: str, transient: bool) -> None:
    found = failure(fixture(name))
    assert (found.kind, found.consumer, found.reason, found.transient) == (kind, consumer, reason, transient)
    assert found.order_id in ("ORD-6V5P7GG0RPDMGJQ01WCPTTA70T", "ORD-3NEHS33EJFT0FE2GAPJG7E5G98")
    assert found.id == f"{consumer}:{found.event_id}"
    assert (found.payload is None) is (found.mend is not None)


def test_a_schedule_that_could_not_start_its_function_is_redriven_with_its_input() -> None:
    found = failure(fixture("undelivered_by_schedule"))
    assert shown(found)[:3] == (Kind.UNDELIVERED, "sales-report", "AccessDeniedException")
    assert (json.loads(found.payload or ""), found.order_id) == ({"scheduledTime": "2026-11-22T06:00:00Z"}, None)


def test_our_own_retry_request_is_no_failure() -> None:
    found = classify(fixture("retry_request"), CONSUMERS)
    assert found == RetryRequest(failure(fixture("received_too_often")).id, 1)


def test_an_event_for_the_analytics_queue_becomes_a_message_of_that_queue() -> None:
    given_up = fixture("undelivered_to_a_queue")
    (record,) = json.loads(failure(given_up).payload or "")["Records"]
    assert (record["eventSourceARN"], record["body"]) == (QUEUE, given_up["body"])
    assert record["messageAttributes"] == {}


def test_a_stream_record_that_was_set_aside_is_kept_as_a_batch_of_its_own() -> None:
    send_to_dlq = fixture("set_aside_record")
    found = failure(send_to_dlq)
    assert json.loads(found.payload or "") == {"Records": [json.loads(send_to_dlq["body"])]}
    assert found.detail_type == "Order Confirmed"


def test_an_invocation_that_never_ran_has_lambdas_condition_for_a_reason() -> None:
    body = json.loads(fixture("failed_invocation")["body"])
    del body["responsePayload"]
    body["requestContext"]["condition"] = "EventAgeExceeded"
    found = failure(message(body))
    assert (found.reason, found.message, found.transient) == ("EventAgeExceeded", "", True)


def test_an_invocation_by_hand_is_known_by_its_request() -> None:
    body = json.loads(fixture("failed_invocation")["body"])
    found = failure(message({**body, "requestPayload": {"Records": []}}))
    assert found.event_id == body["requestContext"]["requestId"]
    assert found.payload == '{"Records":[]}'


def test_each_record_of_a_batch_that_holds_events_is_a_failure_of_its_newest_event() -> None:
    batch = classify(fixture("stream_batch"), CONSUMERS)
    assert isinstance(batch, Batch)
    (record,) = json.loads((FIXTURES.parent / "event_publisher/order_confirmed.json").read_text())["Records"]
    of_a_product = {"eventID": "2", "dynamodb": {"NewImage": {"pk": {"S": "PRODUCT#1"}}, "SequenceNumber": "2"}}
    (found,) = failures_in(batch, [record, of_a_product])
    assert shown(found) == (Kind.STREAM, "event-publisher", "RecordAgeExceeded", "01M7ZP9MY7KDH09ZCE2Z1T0QTD")
    assert (found.order_id, found.detail_type) == ("ORD-6V5P7GG0RPDMGJQ01WCPTTA70T", "Order Confirmed")
    assert (json.loads(found.payload or ""), found.transient) == ({"Records": [record]}, True)


@pytest.mark.parametrize(
    ("found", "problem"),
    [
        (message("x", {"RETRY_OF": "a:b"}), "a retry whose ATTEMPT is not 1, 2 or 3"),
        (message("x", {"RETRY_OF": "a:b", "ATTEMPT": "4"}), "a retry whose ATTEMPT is not 1, 2 or 3"),
        (message("{}", {"RULE_ARN": "r"}), "the message attribute TARGET_ARN is missing or no text"),
        (message("{}", {"RULE_ARN": "r", "TARGET_ARN": "t"}), "the message attribute ERROR_CODE is missing or no text"),
        (message("{}", undelivered("arn:aws:sns:::t", "r")), "time is missing or no text"),
        (message({"time": "noon"}, undelivered("arn:aws:sns:::t", "r")), "time is no time"),
        (message("{}", {"ERROR_CODE": "EventTooLarge"}), "source is missing or no text"),
        *(
            (message(event_of("1", metadata=metadata), {"ERROR_CODE": "E"}), "sequence is missing or no number from 1")
            for metadata in ({}, {"sequence": 0}, {"sequence": "1"})
        ),
        (message({"requestContext": {}, "requestPayload": 1}), "condition is missing or no text"),
        (message({"DDBStreamBatchInfo": {}}), "functionArn is missing or no text"),
        (
            message(
                {
                    "requestContext": {"functionArn": "f", "condition": "c"},
                    "DDBStreamBatchInfo": {"streamArn": "s", "shardId": "1", "startSequenceNumber": "x"},
                }
            ),
            "startSequenceNumber is no number",
        ),
    ],
)
def test_a_message_that_lacks_something_is_refused_by_its_name(found: dict[str, Any], problem: str) -> None:
    with pytest.raises(Unclassified, match=f"^{re.escape(problem)}$"):
        classify(found, CONSUMERS)


def test_a_reason_is_cleaned_and_cut_and_a_message_is_cut() -> None:
    attributes = undelivered(function_arn("EmailFunction"), "r", "a b;c" + "x" * 200, ERROR_MESSAGE="y" * 1001)
    found = failure(message(event_of("1"), attributes))
    assert (found.reason, found.message) == ("a_b_c" + "x" * 95, "y" * 1000)


def test_the_names_of_a_rule_and_of_a_function_are_cleaned() -> None:
    """They become a record's id, and the rule a part of a shell command."""
    found = failure(message(event_of("1"), undelivered("arn:aws:sns:us-east-1:1:topic", "a rule; rm -rf")))
    assert found.consumer == "a_rule_rm_-rf"
    assert " RULE=a_rule_rm_-rf " in (found.mend or "")
    assert failure(message(event_of("1"), undelivered(function_arn("a;b"), "r"))).consumer == "a_b"


def test_a_rule_without_a_name_is_called_unknown() -> None:
    assert failure(message(event_of("1"), undelivered("arn:aws:sns:us-east-1:1:topic", ""))).consumer == "Unknown"


@pytest.mark.parametrize(("more", "stored"), [("x", True), ("xx", False), ("é", False)])
def test_a_payload_is_stored_up_to_its_limit_in_bytes(more: str, stored: bool) -> None:
    event = json.dumps(event_of("1", text="TEXT"), ensure_ascii=False)
    body = event.replace("TEXT", "x" * (MAX_PAYLOAD - len(event) + len("TEXT") - 1) + more)
    found = failure(message(body, undelivered(function_arn("EmailFunction"), "r")))
    assert found.payload == (body if stored else None)


def test_an_event_too_large_to_store_is_mended_by_publishing_its_order_again() -> None:
    attributes = undelivered(function_arn("EmailFunction"), "r", EXHAUSTED_RETRY_CONDITION="MaximumRetryAttempts")
    found = failure(message(event_of("1", items="x" * MAX_PAYLOAD), attributes))
    assert (found.payload, found.mend, found.transient) == (None, "make republish ORDER=ORD-1", False)


@pytest.mark.parametrize("order_id", [None, "ORD-1; rm -rf /"])
def test_a_payload_too_large_to_store_without_an_order_is_refused(order_id: str | None) -> None:
    event = event_of("1", items="x" * MAX_PAYLOAD, orderId=order_id)
    with pytest.raises(Unclassified, match="bytes to store, and no order"):
        classify(message(event, undelivered(function_arn("EmailFunction"), "r")), CONSUMERS)


@given(st.text(min_size=1), st.text(min_size=1))
def test_an_id_is_one_segment_of_a_path_and_tells_events_apart(consumer: str, event_id: str) -> None:
    def record_id(consumer: str, event_id: str) -> str:
        return Failure(consumer, event_id, Kind.QUEUE, "reason", "").id

    assert re.fullmatch("[A-Za-z0-9_.:-]{1,201}", record_id(consumer, event_id))
    assert record_id(consumer, event_id) == record_id(consumer, event_id)
    assert record_id(consumer, event_id) != record_id(consumer, f"{event_id}x")


# ------------------------------------------------------------------------------------------ retries and alerts


@pytest.mark.parametrize(
    ("reason", "why"),
    [
        ("EventAgeExceeded", ""),
        ("Sandbox.Timedout", "RequestId: 1 Error: Task timed out after 10.00 seconds"),
        ("Runtime.ExitError", "RequestId: 1 Error: Runtime exited with error: signal: killed"),
        ("Contention", "PRODUCT#P-1: TransactionConflict, after 8 attempts"),
        ("TransactionConflictException", "An error occurred (TransactionConflictException) when calling UpdateItem"),
        ("ThrottlingException", "Rate exceeded"),
        ("EndpointConnectionError", "Could not connect"),
        ("ClientError", "An error occurred (ThrottlingException) when calling the UpdateItem operation: slow down"),
        ("ClientError", "An error occurred (503) when calling the GetItem operation (reached max retries: 4): busy"),
        (
            "IdempotencyPersistenceLayerError",
            "Failed to save - (An error occurred (InternalServerError) when calling the PutItem operation: no)",
        ),
        ("IdempotencyPersistenceLayerError", "Failed to save - (Connection was closed before we received a response)"),
    ],
)
def test_what_passes_by_itself_is_tried_again(reason: str, why: str) -> None:
    assert is_transient(reason, why)


@pytest.mark.parametrize(
    "reason",
    sorted(
        {
            *SDK.ThrottledRetryableChecker._THROTTLED_ERROR_CODES,
            *SDK.TransientRetryableChecker._TRANSIENT_ERROR_CODES,
            *map(str, SDK.TransientRetryableChecker._TRANSIENT_STATUS_CODES),
        }
        - {"EC2ThrottledException"}  # Orderflow does not call EC2
    ),
)
def test_each_error_code_that_the_sdk_retries_is_transient(reason: str) -> None:
    assert is_transient("ClientError", f"An error occurred ({reason}) when calling the Publish operation")


@pytest.mark.parametrize(
    "reason",
    [
        *("ConnectTimeoutError", "ConnectionClosedError", "ReadTimeoutError"),
        *("IdempotencyAlreadyInProgressError", "NotAccepted"),
        *("InternalError", "InternalException", "InternalFailure", "InternalServerError"),
        *("ServiceException", "ServiceUnavailable", "ServiceUnavailableException"),
    ],
)
def test_a_lost_connection_a_busy_service_and_our_own_temporary_errors_are_transient(reason: str) -> None:
    assert is_transient(reason, "")


@pytest.mark.parametrize(
    ("reason", "why"),
    [
        ("ZeroReservedConcurrency", ""),
        ("KeyError", "'orderId'"),
        ("FaultInjected", ""),
        ("TransactionRejected", "PRODUCT#P-1: ValidationError"),
        ("ClientError", "An error occurred (AccessDeniedException) when calling the GetItem operation: (503)"),
        ("ValueError", "ThrottlingException"),
    ],
)
def test_what_nobody_has_thought_of_waits_for_a_person(reason: str, why: str) -> None:
    assert not is_transient(reason, why)


@pytest.mark.parametrize(
    ("error", "condition", "transient"),
    [
        ("TIMEOUT", {"EXHAUSTED_RETRY_CONDITION": "MaximumRetryAttempts"}, True),
        ("TIMEOUT", {}, False),
        ("NO_PERMISSIONS", {"EXHAUSTED_RETRY_CONDITION": "MaximumRetryAttempts"}, False),
        ("NO_RESOURCE", {"EXHAUSTED_RETRY_CONDITION": "MaximumEventAgeInSeconds"}, False),
    ],
)
@pytest.mark.parametrize("target", [function_arn("EmailFunction"), QUEUE])
def test_an_undelivered_event_is_tried_again_if_only_the_retries_ran_out(
    target: str, error: str, condition: dict[str, str], transient: bool
) -> None:
    assert failure(message(event_of("1"), undelivered(target, "r", error, **condition))).transient is transient


def test_delays_grow_and_sqs_takes_them() -> None:
    assert list(DELAYS) == sorted(set(DELAYS))
    assert DELAYS[-1] <= 900


def record(**fields: Any) -> FailedEvent:
    known_fields: dict[str, Any] = {
        "id": "email:1",
        "consumer": "email",
        "event_id": "1",
        "kind": Kind.SET_ASIDE,
        "reason": "MessageRejected",
        "message": "no mail for ada@example.com",
        "status": FailedEventStatus.NEW,
        "first_failed_at": "2026-11-21T18:36:00.000Z",
        "last_failed_at": "2026-11-21T18:36:00.000Z",
        "order_id": "ORD-1",
        "payload": '{"detail":{"customerEmail":"ada@example.com"}}',
    }
    return FailedEvent(**known_fields | fields)


def test_an_alert_says_who_why_and_what_to_do_and_nothing_personal() -> None:
    told = text(record(), retried=False)
    assert subject(record()) == "Failed event: email, MessageRejected"
    for part in (
        "email:1",
        "ORD-1",
        "MessageRejected",
        "GET /admin/failed-events?consumer=email",
        "docs/operations.md",
    ):
        assert part in told
    assert "POST /admin/failed-events/email%3A1/redrive" in told
    assert "ada@example.com" not in told


def test_an_alert_names_the_command_where_no_invocation_helps() -> None:
    told = text(record(payload=None, mend="make republish ORDER=ORD-1"), retried=False)
    assert "make republish ORDER=ORD-1" in told
    assert "/redrive" not in told


def test_an_alert_of_what_is_tried_again_says_so() -> None:
    assert "tried again automatically" in text(record(), retried=True)


def test_an_alert_of_an_event_without_an_order_says_that_the_order_is_not_known() -> None:
    assert "Order:    not known" in text(record(order_id=None), retried=False)


def test_a_subject_is_as_short_as_sns_takes_it() -> None:
    assert len(subject(record(consumer="c" * 100, reason="r" * 100))) == 100


def test_a_record_is_shown_without_its_payload() -> None:
    assert record().shown() == {
        "id": "email:1",
        "consumer": "email",
        "eventId": "1",
        "kind": "SET_ASIDE",
        "reason": "MessageRejected",
        "message": "no mail for ada@example.com",
        "status": "NEW",
        "firstFailedAt": "2026-11-21T18:36:00.000Z",
        "lastFailedAt": "2026-11-21T18:36:00.000Z",
        "failures": 0,
        "attempts": 0,
        "orderId": "ORD-1",
    }
