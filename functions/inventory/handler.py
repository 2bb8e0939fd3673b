"""InventoryFunction: reserves stock for orders that were placed, and releases it for orders that were cancelled."""

from dataclasses import dataclass
from datetime import UTC, datetime

import boto3
from aws_lambda_powertools.utilities.data_classes import EventBridgeEvent, event_source
from aws_lambda_powertools.utilities.typing import LambdaContext

from inventory.repository import Inventory
from inventory.service import release_stock, reserve_stock
from orderflow.events import OrderEvent
from orderflow.observability import CORRELATION_PATH, logger, metrics, new_cause, tracer
from orderflow.settings import from_environment


@dataclass(frozen=True)
class Settings:
    """InventoryFunction's environment."""

    inventory_table: str


settings = from_environment(Settings)
inventory = Inventory(boto3.resource("dynamodb"), settings.inventory_table)


@logger.inject_lambda_context(correlation_id_path=CORRELATION_PATH, clear_state=True)
@tracer.capture_lambda_handler(capture_response=False)
@metrics.log_metrics
@event_source(data_class=EventBridgeEvent)
def handler(event: EventBridgeEvent, context: LambdaContext) -> None:
    """Handles one event of an order: Order Placed or Order Cancelled."""
    order_event = OrderEvent.from_envelope(event.detail_type, event.detail)
    logger.append_keys(order_id=order_event.order_id, event_id=order_event.event_id)
    cause = new_cause(order_event.correlation_id, order_event.event_id)
    now = datetime.now(UTC)
    match event.detail_type:
        case "Order Placed":
            reserve_stock(inventory, order_event.order, cause, now)
        case "Order Cancelled":
            release_stock(inventory, order_event.order, cause, now)
        case other:
            raise ValueError(f"the inventory does not handle events of the detail-type {other!r}")
