"""InventoryFunction: reserves an order's items, all or none, and gives them back when the order is cancelled."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import boto3
from aws_lambda_powertools.utilities.typing import LambdaContext

from inventory import domain as rules
from inventory.repository import AlreadyDecided, Contention, Inventory, OutOfStock
from orderflow.event_store import VersionConflict
from orderflow.events import Cause, OrderContent
from orderflow.observability import CORRELATION_PATH, count, logger, metrics, new_cause, tracer
from orderflow.serialization import with_decimals
from orderflow.settings import from_environment

RELEASE_ATTEMPTS = 5


@dataclass(frozen=True)
class Settings:
    """InventoryFunction's environment."""

    inventory_table: str


settings = from_environment(Settings)
inventory = Inventory(boto3.resource("dynamodb"), settings.inventory_table)


@logger.inject_lambda_context(correlation_id_path=CORRELATION_PATH, clear_state=True)
@tracer.capture_lambda_handler(capture_response=False)
@metrics.log_metrics
def handler(event: dict[str, Any], context: LambdaContext) -> None:
    """Take in one event of an order: Order Placed or Order Cancelled."""
    detail = with_decimals(event["detail"])
    event_id = detail["metadata"]["eventId"]
    logger.append_keys(order_id=detail["orderId"], event_id=event_id)
    cause = new_cause(detail["metadata"]["correlationId"], event_id)
    HANDLERS[event["detail-type"]](rules.content_of(detail), cause)


def reserve(order: OrderContent, cause: Cause) -> None:
    """Reserve all items of an order, or record what lacked. A repeated event finds its reservation and does nothing."""
    order_id, items = order["orderId"], order["items"]
    try:
        inventory.reserve(order_id, rules.reserve(order, cause, _now()), items)
    except AlreadyDecided:
        logger.info("reservation exists already")
    except OutOfStock as error:
        _record_shortage(order, error, cause)
    else:
        logger.info("stock reserved")
        count("StockReserved")


def _record_shortage(order: OrderContent, shortage: OutOfStock, cause: Cause) -> None:
    """Record it, unless a copy of the same event has decided since: stock may have come back in between."""
    event = rules.refuse(order, shortage.shortages, cause, _now())
    try:
        inventory.record(order["orderId"], event, rules.ReservationStatus.OUT_OF_STOCK)
    except VersionConflict:
        logger.info("reservation exists already")
    else:
        logger.info("out of stock", products=[lacking["productId"] for lacking in shortage.shortages])
        count("StockShortages")


def release(order: OrderContent, cause: Cause) -> None:
    """Give a cancelled order's items back, once.

    Raises:
        Contention: the reservation changed at each attempt.
    """
    order_id = order["orderId"]
    for _ in range(RELEASE_ATTEMPTS):
        stream = inventory.load(order_id)
        reservation = rules.fold(stream.events) if stream else None
        event = rules.release(reservation, order, cause, _now())
        if event is None:
            logger.info("nothing to release")
            return
        try:
            if reservation is None:
                inventory.record(order_id, event, rules.ReservationStatus.RELEASED)
            else:
                inventory.release(order_id, event, reservation.version, reservation.order["items"])
        except (AlreadyDecided, VersionConflict):
            continue  # decide anew on what the other writer stored
        logger.info("stock released", quantity=sum(line["quantity"] for line in event.data["released"]))
        return
    raise Contention(order_id)


HANDLERS: dict[str, Callable[[OrderContent, Cause], None]] = {"Order Placed": reserve, "Order Cancelled": release}


def _now() -> datetime:
    return datetime.now(UTC)
