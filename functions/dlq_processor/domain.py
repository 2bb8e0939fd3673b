"""What a message in the DLQ says: who failed at which event, why, and whether trying again may help. No AWS."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

from dlq_processor.consumers import ANALYTICS, EVENT_PUBLISHER, Consumers
from dlq_processor.retries import is_transient
from orderflow.ids import derived_ulid
from orderflow.serialization import timestamp, to_json

Message = Mapping[str, Any]
"""A record of SQS as Lambda gives it."""

MAX_PAYLOAD = 350_000
"""Bytes. A larger one would not fit a DynamoDB item (400 KB) together with all that stands beside it."""
MAX_CODE = 100
MAX_REPLAY_NAME = 64
"""Characters (StartReplay, EventBridge API reference)."""
MAX_SENTENCE = 1000
PLAIN = re.compile(r"[A-Za-z0-9_.-]{1,100}")
"""What goes into a record's id, and so into a path, as it is."""

MARGIN = timedelta(seconds=15)
"""An event's time is its writer's, who may take ten seconds (the functions' time-out) until it is stored; the rest is
for clocks and the stream's own times, which are approximate. A window too wide repeats events, which does no harm."""


class Kind(StrEnum):
    """The shapes in which failures arrive."""

    UNDELIVERED = "UNDELIVERED"  # EventBridge could not hand an event over
    INVOCATION = "INVOCATION"  # a function kept failing, or was never free
    QUEUE = "QUEUE"  # a queue's message was received too often
    STREAM = "STREAM"  # a stream's batch grew too old
    SET_ASIDE = "SET_ASIDE"  # a function met what no retry mends


class Unclassified(Exception):
    """A message of none of these shapes; the text says what is wrong with it, and nothing of what it contains."""


@dataclass(frozen=True)
class Failure:
    """One consumer's failure to handle one event. Fields as in `records.FailedEvent`.

    Args:
        transient: whether trying again without anybody's help may succeed.
    """

    consumer: str
    event_id: str
    kind: Kind
    reason: str
    message: str
    transient: bool = False
    payload: str | None = None
    mend: str | None = None
    order_id: str | None = None
    detail_type: str | None = None
    correlation_id: str | None = None

    @property
    def id(self) -> str:
        """The record's id: the same for the same consumer and event, and always one segment of a path."""
        if PLAIN.fullmatch(self.consumer) and PLAIN.fullmatch(self.event_id):
            return f"{self.consumer}:{self.event_id}"
        return derived_ulid(self.consumer, self.event_id)


@dataclass(frozen=True)
class Batch:
    """Where in a stream a batch is that a consumer failed at.

    Args:
        consumer, reason, message: as in Failure.
        stream: its ARN.
        shard: the shard's id.
        first: the first record's sequence number.
        last: the last one's.
        arrived: when the first and the last record came into the stream.
    """

    consumer: str
    reason: str
    message: str
    stream: str
    shard: str
    first: str
    last: str
    arrived: tuple[datetime, datetime]


@dataclass(frozen=True)
class RetryRequest:
    """Our own message: it is time for an automatic retry."""

    record_id: str
    attempt: int


def classify(message: Message, consumers: Consumers) -> Failure | Batch | RetryRequest:
    """What a message says.

    What its sender cannot choose decides first, what anybody may write into a body last.

    Raises:
        Unclassified: see there.
    """
    attributes = {name: value.get("stringValue", "") for name, value in message["messageAttributes"].items()}
    source = message["attributes"].get("DeadLetterQueueSourceArn", "")
    if "RETRY_OF" in attributes:
        return _retry_request(attributes)
    if consumers.is_analytics_queue(source):
        return _received_too_often(message, source)
    body = _json(message["body"])
    if "RULE_ARN" in attributes:
        return _undelivered(message, attributes, body, consumers)
    if "ERROR_CODE" in attributes:
        return _set_aside(message, attributes, body, consumers)
    if _at(body, "DDBStreamBatchInfo") is not None:
        return _batch(body, consumers)
    if _at(body, "requestContext") is not None and "requestPayload" in body:
        return _failed_invocation(body, consumers)
    if _text(body, "detail-type") and _at(body, "detail") is not None:
        # Moved back from the parking queue, a message has lost its source; only the analytics queue's are bare events
        return _received_too_often(message, consumers.analytics_queue_arn)
    raise Unclassified("neither message attributes nor a body that tell of a failure")


def _retry_request(attributes: Mapping[str, str]) -> RetryRequest:
    attempt = attributes.get("ATTEMPT", "")
    if attempt not in ("1", "2", "3"):
        raise Unclassified("a retry whose ATTEMPT is not 1, 2 or 3")
    return RetryRequest(attributes["RETRY_OF"], int(attempt))


def _undelivered(message: Message, attributes: Mapping[str, str], event: Any, consumers: Consumers) -> Failure:
    """The event, which a rule's target did not get."""
    target, rule = _attribute(attributes, "TARGET_ARN"), code(_attribute(attributes, "RULE_ARN").rpartition("/")[2])
    reason = _attribute(attributes, "ERROR_CODE")
    known: dict[str, Any] = {
        "kind": Kind.UNDELIVERED,
        "reason": code(reason),
        "message": sentence(attributes.get("ERROR_MESSAGE", "")),
        **_about(event, _text(event, "id") or message["messageId"]),
    }
    # EventBridge does not retry what it takes for permanent: then no condition has ended its retries
    transient = "EXHAUSTED_RETRY_CONDITION" in attributes and reason not in ("NO_PERMISSIONS", "NO_RESOURCE")
    if ":lambda:" in target:
        return _storable(consumer=_consumer(target, consumers), payload=message["body"], transient=transient, **known)
    if consumers.is_analytics_queue(target):
        payload = _queue_record({**message, "messageAttributes": {}}, target)
        return _storable(consumer=ANALYTICS, payload=payload, transient=transient, **known)
    return Failure(consumer=rule, mend=_command(rule, target, event, known["event_id"]), **known)


def _command(rule: str, target: str, event: Any, event_id: str) -> str:
    """What sends the event to its rule's target again: a replay to that rule alone, if it takes replays.

    A replay's name must be new in its account. The rule takes names that begin like this one's, or with `redrive-`.
    """
    begin = _moment(event, "time")
    window = f"FROM={_second(begin)} TO={_second(begin + timedelta(seconds=1))}"  # an event's time is cut to the second
    if ":logs:" in target:  # replays are no news, so the log takes none
        return f"make republish {window}"
    replay = code(_text(event, "replay-name") or "redrive")
    unique = f"-{derived_ulid(rule, event_id)[-12:].lower()}"
    return f"make replay {window} RULE={rule} NAME={replay[: MAX_REPLAY_NAME - len(unique)]}{unique}"


def _received_too_often(message: Message, queue: str) -> Failure:
    """A message of the analytics queue, whose body may be anything."""
    try:
        event = _json(message["body"])
    except Unclassified:
        event = None
    return _storable(
        consumer=ANALYTICS,
        kind=Kind.QUEUE,
        reason="MaxReceiveCount",
        message="the message was received as often as its queue allows",
        transient=True,  # nobody has kept the reason
        payload=_queue_record(message, queue),
        **_about(event, message["messageId"]),
    )


def _queue_record(message: Message, queue: str) -> str:
    """The message as a batch of its own, from the queue that the consumer reads."""
    return to_json({"Records": [{**message, "eventSourceARN": queue}]})


def _set_aside(message: Message, attributes: Mapping[str, str], body: Any, consumers: Consumers) -> Failure:
    """What the function in TARGET_ARN, or the publisher, set aside: an event, or a stream record.

    So does EventBridge Scheduler with the input that its target did not get, and names the schedule.
    """
    target = attributes.get("TARGET_ARN")
    is_record = target is None and _at(body, "dynamodb") is not None
    if not target and not is_record:
        _check_published(body)
    return _storable(
        consumer=_consumer(target, consumers) if target else EVENT_PUBLISHER,
        kind=Kind.UNDELIVERED if "SCHEDULE_ARN" in attributes else Kind.SET_ASIDE,
        reason=code(_attribute(attributes, "ERROR_CODE")),
        message=sentence(attributes.get("ERROR_MESSAGE", "")),
        payload=to_json({"Records": [body]}) if is_record else message["body"],
        **_about_record(body) if is_record else _about(body, message["messageId"]),
    )


def _check_published(event: Any) -> None:
    """Whether an event names what its stream record is rebuilt from."""
    for path in (("source",), ("detail", "orderId")):
        _needed(event, *path)
    sequence = _at(event, "detail", "metadata", "sequence")
    if not isinstance(sequence, int) or sequence < 1:
        raise Unclassified("sequence is missing or no number from 1")


def _failed_invocation(body: Any, consumers: Consumers) -> Failure:
    """Lambda's record of an asynchronous invocation."""
    reason = _text(body, "responsePayload", "errorType") or _needed(body, "requestContext", "condition")
    message = _text(body, "responsePayload", "errorMessage") or ""
    return _storable(
        consumer=_consumer(_needed(body, "requestContext", "functionArn"), consumers),
        kind=Kind.INVOCATION,
        reason=code(reason),
        message=sentence(message),
        transient=is_transient(reason, message),
        payload=to_json(body["requestPayload"]),
        **_about(body["requestPayload"], _needed(body, "requestContext", "requestId")),
    )


def _batch(body: Any, consumers: Consumers) -> Batch:
    """Lambda's pointer to a batch of a stream."""
    batch = body["DDBStreamBatchInfo"]
    tried = f"{_at(batch, 'batchSize')} records, tried {_at(body, 'requestContext', 'approximateInvokeCount')} times"
    return Batch(
        consumer=_consumer(_needed(body, "requestContext", "functionArn"), consumers),
        reason=code(_needed(body, "requestContext", "condition")),
        message=tried,
        stream=_needed(batch, "streamArn"),
        shard=_needed(batch, "shardId"),
        first=_number(batch, "startSequenceNumber"),
        last=_number(batch, "endSequenceNumber"),
        arrived=(_moment(batch, "approximateArrivalOfFirstRecord"), _moment(batch, "approximateArrivalOfLastRecord")),
    )


def failures_in(batch: Batch, records: Sequence[Mapping[str, Any]] | None) -> list[Failure]:
    """The failures that a batch stands for.

    Args:
        batch: what the DLQ's message says.
        records: the stream's records in it, as Lambda gives them; None if they cannot be read any more.

    Returns:
        One per record that holds events: the mappings' filters keep the others from the publisher. For a lost batch
        one in all, which no invocation mends.
    """
    if records is None:
        begin, end = batch.arrived
        window = f"FROM={_second(begin - MARGIN)} TO={_second(end + MARGIN + timedelta(seconds=1))}"
        return [
            Failure(
                consumer=batch.consumer,
                event_id=f"{batch.shard}-{batch.first}",
                kind=Kind.STREAM,
                reason=batch.reason,
                message=batch.message,
                mend=f"make republish {window}",
            )
        ]
    return [
        _storable(
            consumer=batch.consumer,
            kind=Kind.STREAM,
            reason=batch.reason,
            message=batch.message,
            transient=True,  # nobody has kept the reason
            payload=to_json({"Records": [record]}),
            **_about_record(record),
        )
        for record in records
        if _at(record, "dynamodb", "NewImage", "events") is not None
    ]


# ------------------------------------------------------------------------------------------ reading


def code(text: str) -> str:
    """A reason in a word, fit for logs and alerts whatever its sender put into it."""
    return re.sub(r"[^A-Za-z0-9_.:-]+", "_", text)[:MAX_CODE] or "Unknown"


def _consumer(function_arn: str, consumers: Consumers) -> str:
    return code(consumers.at(function_arn))


def sentence(text: str) -> str:
    """A reason in a sentence."""
    return text[:MAX_SENTENCE]


def _storable(payload: str, **described: Any) -> Failure:
    """A failure with its payload, or with the command that needs none where the payload is too large to store."""
    size = len(payload.encode())
    if size <= MAX_PAYLOAD:
        return Failure(payload=payload, **described)
    if not PLAIN.fullmatch(described["order_id"] or ""):
        raise Unclassified(f"{size} bytes to store, and no order that could be published again instead")
    return Failure(**{**described, "transient": False}, mend=f"make republish ORDER={described['order_id']}")


def _about(event: Any, otherwise: str) -> dict[str, str | None]:
    """Which event it is, as far as it says so.

    Args:
        event: as a consumer gets it; it may be anything.
        otherwise: the id of one that has none.
    """
    return {
        "event_id": _text(event, "detail", "metadata", "eventId") or otherwise,
        "order_id": _text(event, "detail", "orderId"),
        "detail_type": _text(event, "detail-type"),
        "correlation_id": _text(event, "detail", "metadata", "correlationId"),
    }


def _about_record(record: Any) -> dict[str, str | None]:
    """The same of a stream record, whose newest event it is about; the order stands in its first one."""
    events = _at(record, "dynamodb", "NewImage", "events", "L")
    return {
        "event_id": _text(events, -1, "M", "eventId", "S") or _needed(record, "eventID"),
        "order_id": _text(events, 0, "M", "data", "M", "order", "M", "orderId", "S"),
        "detail_type": _text(events, -1, "M", "type", "S"),
        "correlation_id": _text(events, -1, "M", "correlationId", "S"),
    }


def _json(body: str) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        raise Unclassified("the body is no JSON") from None


def _at(value: Any, *path: str | int) -> Any:
    """What is at a path, or None."""
    for step in path:
        try:
            value = value[step]
        except (KeyError, IndexError, TypeError):
            return None
    return value


def _text(value: Any, *path: str | int) -> str | None:
    """The text at a path, or None if there is none or it is empty."""
    found = _at(value, *path)
    return found if isinstance(found, str) and found else None


def _needed(value: Any, *path: str | int) -> str:
    found = _text(value, *path)
    if found is None:
        raise Unclassified(f"{path[-1]} is missing or no text")
    return found


def _number(value: Any, name: str) -> str:
    found = _needed(value, name)
    if not re.fullmatch("[0-9]{1,40}", found):
        raise Unclassified(f"{name} is no number")
    return found


def _moment(value: Any, name: str) -> datetime:
    """A time of RFC 3339."""
    try:
        return datetime.fromisoformat(_needed(value, name)).astimezone(UTC)
    except ValueError:
        raise Unclassified(f"{name} is no time") from None


def _second(moment: datetime) -> str:
    """The second that a time lies in: `2026-11-21T18:36:00Z`."""
    return timestamp(moment).partition(".")[0] + "Z"


def _attribute(attributes: Mapping[str, str], name: str) -> str:
    if not attributes.get(name):
        raise Unclassified(f"the message attribute {name} is missing or no text")
    return attributes[name]
