"""EventPublisherFunction: puts the events that the tables' streams report on the bus."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import boto3
from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.typing import LambdaContext

from event_publisher.domain import EventEntry, EventSource, PublishRequest, build_entries
from event_publisher.put_events import Outcome, deliver
from inventory import domain as inventory
from orderflow.dlq import send_to_dlq
from orderflow.dynamodb import deserialize
from orderflow.observability import logger, metrics, safe_traceback, tracer
from orderflow.serialization import to_json
from orderflow.settings import from_environment
from orders import domain as orders


@dataclass(frozen=True)
class Settings:
    """EventPublisherFunction's environment."""

    event_bus_name: str
    orders_table: str
    inventory_table: str
    dlq_url: str


settings = from_environment(Settings)
events = boto3.client("events")
queue = boto3.client("sqs")
dynamodb = boto3.client("dynamodb")

SOURCES = {
    settings.orders_table: EventSource(orders.SOURCE, orders.compose),
    settings.inventory_table: EventSource(inventory.SOURCE, inventory.compose),
}
"""The tables that hold events. A further service adds its table here and its stream in the template."""


class NotPublished(Exception):
    """Events of an explicit request were not published; the text says why and contains no personal data."""


@logger.inject_lambda_context(clear_state=True)
@tracer.capture_lambda_handler(capture_response=False)
@metrics.log_metrics
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Publishes a batch of stream records, or the events of one item at an explicit request.

    An explicit request is `{"table": …, "key": {"orderId": "ORD-…"}, "fromSequence": 1}`. It publishes the events of
    that item from this sequence on, and the answer is `{"published": 2}`.
    """
    if "Records" not in event:
        return {"published": _publish_item(PublishRequest.from_payload(event, SOURCES.keys()))}
    failed = _publish_records(event["Records"], context.invoked_function_arn)
    return {"batchItemFailures": [{"itemIdentifier": record} for record in failed]}  # retried from the earliest


def _publish_records(records: Iterable[Mapping[str, Any]], function_arn: str) -> list[str]:
    """Publishes the new events of stream records, and sends to the DLQ what can never be published.

    BatchProcessor would process each record by itself. This publishes a batch in as few requests as possible, in order,
    and returns the sequence numbers of the records to retry.
    """

    def refuse(body: Any, request: PublishRequest, code: str, message: str) -> None:
        """Sends a body to the DLQ. If that fails, so does the batch: no event is lost."""
        send_to_dlq(queue, settings.dlq_url, to_json(body), code, message, function_arn, request.to_payload())

    entries: list[EventEntry] = []
    for record in records:
        request = PublishRequest.from_record(record)
        try:
            item = deserialize(record["dynamodb"].get("NewImage", {}))
            sequence_number = record["dynamodb"]["SequenceNumber"]
            entries += build_entries(request, item, SOURCES[request.table], settings.event_bus_name, sequence_number)
        except Exception as error:  # a retry of a corrupt record would block the shard
            name, stack = type(error).__name__, safe_traceback(error)
            logger.error("stream record not readable", error=name, stack=stack, record_id=record["eventID"])
            metrics.add_metric(name="PublishFailures", unit=MetricUnit.Count, value=1)
            refuse(record, request, "UnreadableRecord", f"{name}: {error}")
    outcome = _publish(entries)
    for entry, code, message in outcome.refused:
        refuse(entry.event, entry.request, code, message)
    return list(dict.fromkeys(entry.record for entry in outcome.failed))


def _publish_item(request: PublishRequest) -> int:
    """Publishes the events that an explicit request names, and returns their number."""
    key = {name: {"S": value} for name, value in request.key.items()}
    item = deserialize(dynamodb.get_item(TableName=request.table, Key=key, ConsistentRead=True).get("Item", {}))
    try:
        entries = build_entries(request, item, SOURCES[request.table], settings.event_bus_name)
    except Exception as error:
        logger.error("item not readable", error=type(error).__name__, stack=safe_traceback(error))
        # Lambda logs exceptions with their causes, and the text of this one may contain personal data
        raise NotPublished(f"the events of the item cannot be read: {type(error).__name__}") from None
    if not entries:
        raise NotPublished(f"{len(item.get('events', []))} events are stored, fromSequence is {request.from_sequence}")
    outcome = _publish(entries)
    if len(outcome.published) < len(entries):
        codes = sorted({code for _, code, _ in outcome.refused}) or ["EventBridge did not accept them at this time"]
        raise NotPublished(f"{len(outcome.published)} of {len(entries)} events were published: {', '.join(codes)}")
    return len(entries)


def _publish(entries: Iterable[EventEntry]) -> Outcome:
    outcome = deliver(events, entries)
    for entry in outcome.published:
        logger.info("event published", **entry.log)
    for entry, code, _ in outcome.refused:
        logger.error("event cannot be published", error=code, **entry.log)
    if outcome.published:
        metrics.add_metric(name="EventsPublished", unit=MetricUnit.Count, value=len(outcome.published))
    if failures := len(outcome.failed) + len(outcome.refused):
        metrics.add_metric(name="PublishFailures", unit=MetricUnit.Count, value=failures)
    return outcome
