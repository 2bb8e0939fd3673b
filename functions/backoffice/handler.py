"""BackofficeApiFunction: the HTTP API of staff: figures, failed events and stock."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote

import boto3
from aws_lambda_powertools.event_handler import APIGatewayHttpResolver, Response
from aws_lambda_powertools.event_handler.middlewares import NextMiddleware
from aws_lambda_powertools.logging import correlation_paths
from aws_lambda_powertools.utilities.typing import LambdaContext
from botocore.config import Config

from analytics.repository import Analytics
from backoffice.domain import MalformedRange, Range, promotions, range_of, sales
from backoffice.models import RedriveRequest, SetStockRequest
from backoffice.service import redrive_all
from dlq_processor.consumers import Consumers
from dlq_processor.redrive import CLIENT, Redriver, settle
from dlq_processor.repository import FailedEvent, FailedEvents, FailedEventStatus, is_position
from inventory.repository import Contention, Inventory, Stock, StockChanged
from orderflow.auth import caller_of
from orderflow.dynamodb import ConcurrentUpdate
from orderflow.http_api import (
    Problem,
    answer,
    cursor_parameter,
    is_id,
    json_response,
    limit_parameter,
    new_app,
    page_response,
    read_body,
    status_parameter,
)
from orderflow.observability import count, logger, metrics, tracer
from orderflow.serialization import timestamp
from orderflow.settings import from_environment
from orders.domain import InvalidProduct
from orders.repository import Products

ANSWER_SECONDS = 15
"""How long a redrive waits for its consumer; what takes longer has failed, though it may end well yet."""
REDRIVE_MILLISECONDS = (ANSWER_SECONDS + 2) * 1000
"""The longest that a redrive takes, with what is read and written around it."""
PARK_ATTEMPTS = 5


@dataclass(frozen=True)
class Settings:
    """BackofficeApiFunction's environment, beside the consumers'."""

    analytics_table: str
    failed_events_table: str
    products_table: str
    inventory_table: str


def report_invalid_product(invalid: InvalidProduct) -> None:
    """Log and count a row of the products table that does not describe a product."""
    logger.warning("invalid product left out", product_id=invalid.product_id, problems=invalid.problems)
    count("InvalidProducts")


settings = from_environment(Settings)
dynamodb = boto3.resource("dynamodb")
analytics = Analytics(dynamodb, settings.analytics_table)
failed_events = FailedEvents(dynamodb, settings.failed_events_table)
products = Products(dynamodb, settings.products_table, report_invalid_product)
inventory = Inventory(dynamodb, settings.inventory_table)
functions = boto3.client("lambda", config=CLIENT.merge(Config(read_timeout=ANSWER_SECONDS)))
redriver = Redriver(functions, boto3.client("dynamodb"), from_environment(Consumers))
app = new_app()


@logger.inject_lambda_context(correlation_id_path=correlation_paths.API_GATEWAY_HTTP, clear_state=True)
@tracer.capture_lambda_handler(capture_response=False)  # a failure's message may hold personal data
@metrics.log_metrics
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Answer one HTTP request (payload format 2.0)."""
    return answer(app, event, context)


def staff_only(router: APIGatewayHttpResolver, next_middleware: NextMiddleware) -> Response[str]:
    """Turns everybody else away, whatever the route; what staff do is logged with their id."""
    caller = caller_of(router.current_event)
    if not caller.is_staff:
        raise Problem(HTTPStatus.FORBIDDEN, "staff-only", "this needs a user of the group staff")
    logger.append_keys(staff_id=caller.subject)
    return next_middleware(router)


app.use(middlewares=[staff_only])


# ---------------------------------------------------------------------------------------------- figures


@app.get("/admin/sales")
def get_sales() -> Response[str]:
    """What was sold and taken back, per day and promotion."""
    days = _range_parameters()
    return _of_range(days, sales(analytics.figures(days.first, days.last)))


@app.get("/admin/promotions")
def get_promotions() -> Response[str]:
    """What was ordered, sold and taken back under each promotion code."""
    days = _range_parameters()
    return _of_range(days, {"items": promotions(analytics.figures(days.first, days.last))})


def _range_parameters() -> Range:
    query = app.current_event.query_string_parameters
    try:
        return range_of(query.get("from"), query.get("to"), _now().date())
    except MalformedRange as error:
        raise Problem(HTTPStatus.BAD_REQUEST, "malformed-range", str(error)) from error


def _of_range(days: Range, figures: Mapping[str, Any]) -> Response[str]:
    span = {"from": days.first.isoformat(), "to": days.last.isoformat()}
    return json_response(HTTPStatus.OK, {**span, **figures})


# ---------------------------------------------------------------------------------------- failed events


@app.get("/admin/failed-events")
def list_failed_events() -> Response[str]:
    """What failed, newest first within a status."""
    status = status_parameter(app.current_event, FailedEventStatus)
    consumer = app.current_event.query_string_parameters.get("consumer")
    of_list = ("failed-events", status or "", consumer or "")
    start = cursor_parameter(app.current_event, of_list, is_position, _now())
    page = failed_events.page(status, consumer, limit_parameter(app.current_event), start)
    return page_response(page.items, page.last, of_list, _now())


@app.post("/admin/failed-events/redrive")
def redrive_failed_events() -> Response[str]:
    """Redrive those that match, as many as there is time for."""
    request = read_body(app.current_event, RedriveRequest)
    statuses = (
        [FailedEventStatus(request.status)]
        if request.status
        else [FailedEventStatus.NEW, FailedEventStatus.RETRYING, FailedEventStatus.PARKED]
    )
    redriven = redrive_all(failed_events, redriver, statuses, request.consumer, _has_time)
    logger.info("failed events redriven", resolved=redriven.resolved, failed=redriven.failed)
    count("FailedEventsResolved", redriven.resolved)
    shown = {
        "resolved": redriven.resolved,
        "failed": redriven.failed,
        "notRedrivable": redriven.not_redrivable,
        "remaining": redriven.remaining,
    }
    return json_response(HTTPStatus.OK, shown)


def _has_time() -> bool:
    return bool(app.lambda_context.get_remaining_time_in_millis() >= REDRIVE_MILLISECONDS)


@app.post("/admin/failed-events/<failure_id>/redrive")
def redrive_failed_event(failure_id: str) -> Response[str]:
    """Hand an event to the consumer that failed, once more."""
    record = _unresolved(failure_id)
    if not record.redrivable:
        raise Problem(HTTPStatus.CONFLICT, "not-redrivable", f"no consumer can mend this; run: {record.mend}")
    settled, outcome = settle(failed_events, record, redriver.redrive(record))
    logger.info("failed event redriven", failed_event=record.id, status=settled.status, outcome=outcome.reason)
    count("FailedEventsResolved", int(outcome.succeeded))
    return json_response(HTTPStatus.OK, {**settled.shown(), "outcome": "RESOLVED" if outcome.succeeded else "FAILED"})


@app.post("/admin/failed-events/<failure_id>/park")
def park_failed_event(failure_id: str) -> Response[str]:
    """Put a failed event aside; parking it again changes nothing."""
    for _ in range(PARK_ATTEMPTS):
        record = _unresolved(failure_id)
        if record.status is FailedEventStatus.PARKED:
            return json_response(HTTPStatus.OK, record.shown())
        try:
            parked = failed_events.park(record)
        except ConcurrentUpdate:
            continue  # another writer was quicker: decide anew on what it wrote
        logger.info("failed event parked", failed_event=record.id)
        return json_response(HTTPStatus.OK, parked.shown())
    raise Problem(HTTPStatus.CONFLICT, "busy", "the failed event is changing right now; try again")


def _unresolved(failure_id: str) -> FailedEvent:
    """A record that still needs somebody. API Gateway decodes the path's `%3A`; decoded twice, an id stays the same."""
    record = failed_events.get(unquote(failure_id)) if is_id(failure_id) else None
    if record is None:
        raise Problem(HTTPStatus.NOT_FOUND, "failed-event-not-found", "there is no failed event of this id")
    if record.status is FailedEventStatus.RESOLVED:
        raise Problem(HTTPStatus.CONFLICT, "already-resolved", "its consumer has succeeded already")
    return record


# ------------------------------------------------------------------------------------------------ stock


@app.get("/admin/products/<product_id>/stock")
def get_stock(product_id: str) -> Response[str]:
    """What there is of a product, and the last changes that people made."""
    return _stock_response(_stock(product_id))


@app.put("/admin/products/<product_id>/stock")
def set_stock(product_id: str) -> Response[str]:
    """Set how many of a product are available, unless its stock has changed since they were counted."""
    request = read_body(app.current_event, SetStockRequest)
    stock = _stock(product_id)
    if stock.version != request.version:
        raise _stock_changed(stock.version)
    by = caller_of(app.current_event).subject
    try:
        changed = inventory.set_available(stock, request.available, by, request.note, timestamp(_now()))
    except StockChanged as error:
        raise _stock_changed(error.version) from error
    except Contention as error:
        raise Problem(HTTPStatus.CONFLICT, "busy", "the stock is changing right now; try again") from error
    logger.info("stock set", product_id=product_id, version=changed.version)
    return _stock_response(changed)


def _stock(product_id: str) -> Stock:
    """The stock of a product of the catalogue.

    Raises:
        Problem: 404, if the catalogue has no such product, or an invalid row of this id.
    """
    if not (is_id(product_id) and products.get([product_id])):
        raise Problem(HTTPStatus.NOT_FOUND, "product-not-found", "the catalogue has no valid product of this id")
    return inventory.stock(product_id)


def _stock_changed(version: int) -> Problem:
    detail = f"the stock has changed: it is at version {version} now; read it again"
    return Problem(HTTPStatus.CONFLICT, "stock-changed", detail)


def _stock_response(stock: Stock) -> Response[str]:
    shown = {
        "productId": stock.product_id,
        "available": stock.available,
        "reserved": stock.reserved,
        "version": stock.version,
        "changes": [
            {
                "available": {"from": change.before, "to": change.after},
                "by": change.by,
                "note": change.note,
                "at": change.at,
                "version": change.version,
            }
            for change in inventory.changes(stock)
        ],
    }
    return json_response(HTTPStatus.OK, shown)


def _now() -> datetime:
    return datetime.now(UTC)
