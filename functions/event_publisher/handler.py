"""EventPublisherFunction: puts the new events of the tables' streams on the bus."""

import json
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import boto3
from aws_lambda_powertools.utilities.typing import LambdaContext

from event_publisher.domain import MAX_BYTES, Outgoing, Publisher, outgoing
from event_publisher.put_events import deliver
from inventory import domain as inventory
from orderflow.dlq import send_to_dlq
from orderflow.observability import count, logger, metrics, stack, tracer
from orderflow.serialization import to_json
from orderflow.settings import from_environment
from orders import domain as orders


@dataclass(frozen=True)
class Settings:
    """EventPublisherFunction's environment."""

    event_bus_name: str
    orders_table: str
    inventory_table: str
    unpublishable_queue_url: str


settings = from_environment(Settings)
events = boto3.client("events")
queue = boto3.client("sqs")

PUBLISHERS = {
    settings.orders_table: Publisher(orders.SOURCE, orders.compose),
    settings.inventory_table: Publisher(inventory.SOURCE, inventory.compose),
}
"""Every table that holds events. Another service joins by its table here and its stream in the template."""


@logger.inject_lambda_context(clear_state=True)
@tracer.capture_lambda_handler(capture_response=False)
@metrics.log_metrics
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, list[dict[str, str]]]:
    """Publish the new events of a batch of stream records.

    Returns:
        The records with an event that could not be published yet; Lambda goes back to the earliest of them.
    """
    entries = [entry for record in event["Records"] for entry in _read(record)]
    outcome = deliver(events, entries, time.sleep, random.uniform)
    for entry, code, message in outcome.refused:
        _set_aside(to_json(_as_event(entry)), entry.log, code, message)
    for entry in outcome.published:
        logger.info("event published", **entry.log)
    if outcome.published:
        count("EventsPublished", len(outcome.published))
    if outcome.failed:
        count("PublishFailures", len(outcome.failed))
    failed = dict.fromkeys(entry.record for entry in outcome.failed)
    return {"batchItemFailures": [{"itemIdentifier": record} for record in failed]}


def _read(record: dict[str, Any]) -> list[Outgoing]:
    """A record's entries. What can never be published is set aside, whole, and does not hold up the shard."""
    table = record["eventSourceARN"].split("/")[1]
    try:
        entries = outgoing(record, PUBLISHERS[table], settings.event_bus_name)
    except Exception as error:  # whatever a corrupt item leads to; the same record would fail for ever
        name, log = type(error).__name__, {"record_id": record["eventID"]}
        logger.error("stream record without readable events", error=name, stack=stack(error), **log)
        _set_aside(to_json(record), log, "UnreadableRecord", f"{name}: {error}")
        return []
    fitting = [entry for entry in entries if entry.size <= MAX_BYTES]
    for entry in entries:
        if entry not in fitting:
            reason = f"{entry.size} bytes, where PutEvents takes {MAX_BYTES}"
            _set_aside(to_json(_as_event(entry)), entry.log, "EventTooLarge", reason)
    return fitting


def _as_event(entry: Outgoing) -> dict[str, Any]:
    """The event as a consumer would have seen it."""
    return {
        "source": entry.entry["Source"],
        "detail-type": entry.entry["DetailType"],
        "time": entry.entry["Time"].isoformat(),  # type: ignore[union-attr]  # we set it, as a datetime
        "detail": json.loads(entry.entry["Detail"]),
    }


def _set_aside(body: str, log: Mapping[str, Any], code: str, message: str) -> None:
    """Send what cannot be published to the DLQ. If that fails, so does the batch: nothing is dropped."""
    logger.error("event can never be published", error=code, **log)
    count("PublishFailures")
    send_to_dlq(queue, settings.unpublishable_queue_url, body, code, message)
