"""OrderStatusFunction: confirms or rejects an order after an event of the inventory."""

from dataclasses import dataclass
from datetime import UTC, datetime

import boto3
from aws_lambda_powertools.utilities.data_classes import EventBridgeEvent, event_source
from aws_lambda_powertools.utilities.typing import LambdaContext

from orderflow.events import OrderEvent
from orderflow.observability import CORRELATION_PATH, logger, metrics, tracer
from orderflow.settings import from_environment
from orders import service
from orders.repository import Orders


@dataclass(frozen=True)
class Settings:
    """OrderStatusFunction's environment."""

    orders_table: str


settings = from_environment(Settings)
orders = Orders(boto3.resource("dynamodb"), settings.orders_table)


@logger.inject_lambda_context(correlation_id_path=CORRELATION_PATH, clear_state=True)
@tracer.capture_lambda_handler(capture_response=False)
@metrics.log_metrics
@event_source(data_class=EventBridgeEvent)
def handler(event: EventBridgeEvent, context: LambdaContext) -> None:
    """Handles one event of the inventory."""
    report = OrderEvent.from_envelope(event.detail_type, event.detail)
    logger.append_keys(order_id=report.order_id, event_id=report.event_id)
    service.settle_order(orders, report, datetime.now(UTC))
