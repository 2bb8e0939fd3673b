"""Hands a failed event to its consumer again, and only to that one."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from dlq_processor.consumers import EVENT_PUBLISHER, Consumers
from dlq_processor.domain import Kind, code, sentence
from dlq_processor.repository import FailedEvent, FailedEvents, FailedEventStatus
from orderflow.dynamodb import ConcurrentUpdate
from orderflow.serialization import to_json

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient
    from mypy_boto3_lambda.client import LambdaClient

ANSWER_SECONDS = 35
"""How long to wait for a consumer: longer than it may take (30 s), and so briefly that a batch of five fits the DLQ
processor's own 180 s."""
ALIAS = "live"
"""What everybody invokes: while a new version is tried on some of the calls, a redrive is one of them."""
CLIENT = Config(connect_timeout=2, read_timeout=ANSWER_SECONDS, retries={"total_max_attempts": 1})
"""One attempt: an answer that was lost may hide a success, and whoever redrives again does so knowingly."""


@dataclass(frozen=True)
class Outcome:
    """What became of a redrive; a failure's reason in a word and in a sentence."""

    succeeded: bool
    reason: str | None = None
    message: str | None = None


class NothingToPublish(Exception):
    """An event that is not, or no longer, stored in its aggregate."""


class Redriver:
    """Invokes consumers.

    Args:
        functions: the Lambda client; see CLIENT.
        dynamodb: the low-level client, whose items are in DynamoDB's own notation as a stream's are.
        consumers: who they are.
    """

    def __init__(self, functions: "LambdaClient", dynamodb: "DynamoDBClient", consumers: Consumers) -> None:
        self._functions = functions
        self._dynamodb = dynamodb
        self._consumers = consumers

    def redrive(self, record: FailedEvent) -> Outcome:
        """Invoke a record's consumer with its payload and wait for the answer.

        Args:
            record: one that is redrivable.
        """
        try:
            answer = self._functions.invoke(
                FunctionName=self._consumers.function_of(record.consumer),
                Qualifier=ALIAS,
                Payload=self._payload(record),
            )
            result = json.loads(answer["Payload"].read() or "null")
        except ClientError as error:
            return _failed(error.response["Error"]["Code"], error.response["Error"]["Message"])
        except (BotoCoreError, NothingToPublish) as error:
            return _failed(type(error).__name__, str(error))
        if "FunctionError" in answer:
            return _failed(result.get("errorType", answer["FunctionError"]), result.get("errorMessage", ""))
        if isinstance(result, dict) and result.get("batchItemFailures"):
            return _failed("BatchItemFailure", "the function reports that it could not handle it")
        return Outcome(succeeded=True)

    def _payload(self, record: FailedEvent) -> str:
        """The stored payload, but a stream record where an event is stored that the publisher set aside."""
        payload = record.payload or "null"
        if record.kind is not Kind.SET_ASIDE or record.consumer != EVENT_PUBLISHER:
            return payload
        event = json.loads(payload)
        return payload if "Records" in event else to_json({"Records": [self._stream_record(event)]})

    def _stream_record(self, event: Mapping[str, Any]) -> dict[str, Any]:
        """The change that stored an event, as the publisher would have got it, so that it publishes this event alone.

        Raises:
            NothingToPublish: see there.
        """
        order_id, sequence = event["detail"]["orderId"], event["detail"]["metadata"]["sequence"]
        if event["source"] == "orders.service":
            table, key = self._consumers.orders_table, {"orderId": {"S": order_id}}
        else:
            table, key = self._consumers.inventory_table, {"pk": {"S": f"RESERVATION#{order_id}"}}
        item: dict[str, Any] = self._dynamodb.get_item(TableName=table, Key=key, ConsistentRead=True).get("Item", {})
        events = item.get("events", {"L": []})["L"]
        if len(events) < sequence:
            raise NothingToPublish(f"{len(events)} events are stored, and this is number {sequence}")
        change = {
            "Keys": key,
            "NewImage": {**item, "events": {"L": events[:sequence]}},
            "SequenceNumber": str(sequence),
        }
        if sequence > 1:
            change["OldImage"] = {**item, "events": {"L": events[: sequence - 1]}}
        return {
            "eventID": "redrive",
            "eventName": "MODIFY" if sequence > 1 else "INSERT",
            "eventSource": "aws:dynamodb",
            "eventSourceARN": f"arn:aws:dynamodb:::table/{table}",  # the publisher reads the table alone
            "dynamodb": change,
        }


def _failed(reason: str, message: str) -> Outcome:
    return Outcome(succeeded=False, reason=code(reason), message=sentence(message))


def settle(
    records: FailedEvents,
    record: FailedEvent,
    outcome: Outcome,
    otherwise: FailedEventStatus = FailedEventStatus.PARKED,
) -> tuple[FailedEvent, Outcome]:
    """Write down what became of a redrive.

    Args:
        records: where.
        record: as it was before the redrive.
        outcome: the redrive's.
        otherwise: the status of a record whose redrive failed.

    Returns:
        The record as it is now, and the outcome. If the record has changed meanwhile, a success is none: the consumer
        may have set the event aside again and answered, and the record stays as the other writer left it.
    """
    try:
        if outcome.succeeded:
            return records.resolve(record), outcome
        return records.fail(record, outcome.reason or "", outcome.message or "", otherwise), outcome
    except ConcurrentUpdate:
        found = records.get(record.id) or record
        changed = Outcome(succeeded=False, reason="Changed", message="the record has changed meanwhile")
        return found, changed if outcome.succeeded else outcome
