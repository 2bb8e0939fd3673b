"""OrderStatusFunction: moves an order on when inventory reports."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import boto3
from aws_lambda_powertools.utilities.typing import LambdaContext

from orderflow.event_store import VersionConflict
from orderflow.observability import CORRELATION_PATH, count, duration, logger, metrics, new_cause, tracer
from orderflow.settings import from_environment
from orders.domain import CONFIRMED, REJECTED, Order, fold, settle
from orders.repository import Orders

ATTEMPTS = 5
METRICS = {CONFIRMED: "OrdersConfirmed", REJECTED: "OrdersRejected"}


@dataclass(frozen=True)
class Settings:
    """OrderStatusFunction's environment."""

    orders_table: str


class UnknownOrder(Exception):
    """An event about an order that is not in the table."""


class Contention(Exception):
    """Other writers kept coming first; the invocation is worth a retry."""


settings = from_environment(Settings)
orders = Orders(boto3.resource("dynamodb"), settings.orders_table)


@logger.inject_lambda_context(correlation_id_path=CORRELATION_PATH, clear_state=True)
@tracer.capture_lambda_handler(capture_response=False)
@metrics.log_metrics
def handler(event: dict[str, Any], context: LambdaContext) -> None:
    """Take in one event of the inventory.

    Raises:
        UnknownOrder: there is no such order.
        Contention: the order changed at each attempt.
    """
    detail = event["detail"]
    order_id, event_id = detail["orderId"], detail["metadata"]["eventId"]
    logger.append_keys(order_id=order_id, event_id=event_id)
    for _ in range(ATTEMPTS):
        stream = orders.load(order_id)
        if stream is None:
            raise UnknownOrder(order_id)
        order = fold(stream.events)
        cause = new_cause(detail["metadata"]["correlationId"], event_id)
        change = settle(order, event["detail-type"], cause, datetime.now(UTC))
        if change is None:
            logger.info("nothing to do", status=order.status, inventory_event=event["detail-type"])
            return
        try:
            settled = orders.append(order, change)
        except VersionConflict:
            continue  # decide anew on what the other writer stored
        logger.info("order settled", order_event=change.type)
        count(METRICS[change.type])
        duration("OrderProcessingSeconds", seconds_of(settled))
        return
    raise Contention(order_id)


def seconds_of(order: Order) -> float:
    """How long an order took from its first event to its last one."""
    return (datetime.fromisoformat(order.updated_at) - datetime.fromisoformat(order.placed_at)).total_seconds()
