"""The use cases of the back office: sales figures, redriving and parking of failed events, stock counts."""

from collections.abc import Callable, Iterator
from datetime import date, datetime
from itertools import islice
from operator import itemgetter
from typing import Any, TypeAlias

from aws_lambda_powertools.metrics import MetricUnit

from analytics.domain import Sales, by_promotion
from analytics.repository import Analytics
from backoffice import domain, models
from dlq_processor.domain import FailedEvent, FailedEventStatus, parked
from dlq_processor.lambda_invoke import Redriver
from dlq_processor.repository import FailedEvents
from dlq_processor.service import settle
from inventory.repository import Contention, Inventory, Stock, StockChanged
from orderflow.dynamodb import ConcurrentUpdate, is_id
from orderflow.observability import logger, metrics
from orderflow.serialization import timestamp
from orders.repository import Products

Clock: TypeAlias = Callable[[], datetime]
MAX_CANDIDATES = 1000
"""One request has no time to redrive more."""
ENTRIES_PER_PAGE = 100
UNRESOLVED = (FailedEventStatus.NEW, FailedEventStatus.RETRYING, FailedEventStatus.PARKED)


def sales_by_day(analytics: Analytics, first: date, last: date) -> models.SalesResponse:
    """Returns confirmed and cancelled orders, per day and promotion code and in total."""
    # Orders that were only placed are not sales
    sold = [entry for entry in analytics.figures(first, last) if entry.confirmed.orders or entry.cancelled.orders]
    totals = sum(sold, Sales())
    return models.SalesResponse.model_validate({"first": first, "last": last, "totals": totals, "items": sold})


def sales_by_promotion(analytics: Analytics, first: date, last: date) -> models.PromotionsResponse:
    """Returns placed, confirmed and cancelled orders, sorted by promotion code."""
    sums = by_promotion(analytics.figures(first, last))
    items = [{"promotion_code": code, **vars(of_code)} for code, of_code in sums.items()]
    return models.PromotionsResponse.model_validate({"first": first, "last": last, "items": items})


def redrive(records: FailedEvents, redriver: Redriver, failure_id: str, now: Clock) -> models.RedriveResponse:
    """Invokes the consumer of a failed event again, and stores the outcome."""
    record = _unresolved(records.get(failure_id) if is_id(failure_id) else None)
    if not record.redrivable:
        raise domain.NotRedrivable(f"a redrive cannot help; run: {record.remediation}")
    settled, outcome = settle(records, record, redriver.redrive(record), now())
    logger.info("failed event redriven", failed_event=record.id, status=settled.status, outcome=outcome.reason)
    metrics.add_metric(name="FailedEventsResolved", unit=MetricUnit.Count, value=int(outcome.succeeded))
    result = "RESOLVED" if outcome.succeeded else "FAILED"
    return models.RedriveResponse.model_validate({**vars(settled), "outcome": result})


def redrive_all(
    records: FailedEvents, redriver: Redriver, request: models.RedriveRequest, has_time: Callable[[], bool], now: Clock
) -> models.RedriveAllResponse:
    """Redrives the matching failed events, each once.

    Those that failed longest ago come first. A redrive that fails makes an event the newest, so the next request
    continues with the events that this one did not reach.
    """
    matching = _matching(records, request, has_time)
    candidates = sorted(islice(matching, MAX_CANDIDATES + 1), key=itemgetter("lastFailedAt"))
    remaining = len(candidates) > MAX_CANDIDATES or not has_time()
    resolved = failed = skipped = 0
    for entry in candidates[:MAX_CANDIDATES]:
        if not has_time():
            remaining = True
            break
        record = records.get(entry["id"])
        if record is None or record.status != entry["status"]:
            continue  # it was changed after the query
        if not record.redrivable:
            skipped += 1
        elif settle(records, record, redriver.redrive(record), now())[1].succeeded:
            resolved += 1
        else:
            failed += 1
    logger.info("failed events redriven", resolved=resolved, failed=failed)
    metrics.add_metric(name="FailedEventsResolved", unit=MetricUnit.Count, value=resolved)
    return models.RedriveAllResponse(resolved=resolved, failed=failed, not_redrivable=skipped, remaining=remaining)


def _matching(
    records: FailedEvents, request: models.RedriveRequest, has_time: Callable[[], bool]
) -> Iterator[dict[str, Any]]:
    for status in [FailedEventStatus(request.status)] if request.status else UNRESOLVED:
        start: dict[str, str] | None = None
        while has_time():
            page = records.page(status, request.consumer, ENTRIES_PER_PAGE, start)
            yield from page.items
            if (start := page.last) is None:
                break


def park(records: FailedEvents, failure_id: str) -> models.FailedEventResponse:
    """Marks a failed event as PARKED. Does nothing if it is parked already."""
    record, change = records.update(failure_id, parked) if is_id(failure_id) else (None, None)
    record = _unresolved(record)
    if change:
        logger.info("failed event parked", failed_event=record.id)
    return models.FailedEventResponse.model_validate(record)


def _unresolved(record: FailedEvent | None) -> FailedEvent:
    if record is None:
        raise domain.UnknownFailedEvent("there is no failed event with this id")
    if record.status is FailedEventStatus.RESOLVED:
        raise domain.AlreadyResolved("the consumer has already processed the event")
    return record


def read_stock(products: Products, inventory: Inventory, product_id: str) -> models.StockResponse:
    """Returns the stock of a product, with its last changes by staff."""
    return _to_response(inventory, _stock(products, inventory, product_id))


def set_stock(
    products: Products, inventory: Inventory, product_id: str, request: models.SetStockRequest, by: str, now: datetime
) -> models.StockResponse:
    """Sets the available pieces of a product, unless its stock has changed since they were counted."""
    stock = _stock(products, inventory, product_id)
    try:
        if stock.version != request.version:
            raise StockChanged(product_id, stock.version)
        changed = inventory.set_available(stock, request.available, by, request.note, timestamp(now))
    except StockChanged as error:
        raise domain.StaleCount(f"the stock is now at version {error.version}; read it again") from error
    except Contention as error:
        raise ConcurrentUpdate(product_id) from error
    logger.info("stock set", product_id=product_id, version=changed.version)
    return _to_response(inventory, changed)


def _stock(products: Products, inventory: Inventory, product_id: str) -> Stock:
    if not (is_id(product_id) and products.get([product_id])):
        raise domain.UnknownProduct("the catalogue has no valid product with this id")
    return inventory.stock(product_id)


def _to_response(inventory: Inventory, stock: Stock) -> models.StockResponse:
    changes = [{**vars(change), "available": change} for change in inventory.changes(stock)]
    return models.StockResponse.model_validate({**vars(stock), "changes": changes})
