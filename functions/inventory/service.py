"""Use cases of the inventory: reserve an order's stock, and release it when the order is cancelled."""

from datetime import datetime

from aws_lambda_powertools.metrics import MetricUnit

from inventory.domain import refuse, release, reserve
from inventory.repository import Inventory
from orderflow.dynamodb import ConcurrentUpdate
from orderflow.events import Cause, OrderContent
from orderflow.observability import logger, metrics


def reserve_stock(inventory: Inventory, order: OrderContent, cause: Cause, now: datetime) -> None:
    """Reserves all items of an order, or records which products are out of stock.

    If the order has a reservation already, nothing changes: the event is repeated, or the cancellation came first.
    """
    try:
        shortages = inventory.reserve(reserve(order, cause, now))
        if shortages:
            inventory.create(refuse(order, shortages, cause, now))
    except ConcurrentUpdate:
        logger.info("reservation exists already")
        return
    if shortages:
        logger.info("out of stock", products=[shortage["productId"] for shortage in shortages])
        metrics.add_metric(name="StockShortages", unit=MetricUnit.Count, value=1)
    else:
        logger.info("stock reserved")
        metrics.add_metric(name="StockReserved", unit=MetricUnit.Count, value=1)


def release_stock(inventory: Inventory, order: OrderContent, cause: Cause, now: datetime) -> None:
    """Returns the reserved items of a cancelled order to stock, once."""
    _, event = inventory.update(order["orderId"], lambda reservation: release(reservation, order, cause, now))
    if event is None:
        logger.info("nothing to release")
    else:
        logger.info("stock released", quantity=sum(line["quantity"] for line in event.data["released"]))
