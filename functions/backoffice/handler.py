"""BackofficeApiFunction: the HTTP API for staff. Sales figures, failed events and stock."""

from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote

import boto3
from aws_lambda_powertools.event_handler import APIGatewayHttpResolver, Response
from aws_lambda_powertools.event_handler.middlewares import NextMiddleware
from aws_lambda_powertools.logging import correlation_paths
from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.typing import LambdaContext
from botocore.config import Config

from analytics.repository import Analytics
from backoffice import service
from backoffice.domain import DateRange, MalformedRange, date_range
from backoffice.models import RedriveRequest, ResponseModel, SetStockRequest
from dlq_processor.consumers import Consumers
from dlq_processor.redrive import CLIENT, Redriver
from dlq_processor.repository import FailedEvents, FailedEventStatus, is_position
from inventory.repository import Inventory
from orderflow.auth import caller_of
from orderflow.http_api import (
    Problem,
    answer,
    cursor_parameter,
    limit_parameter,
    new_app,
    page_response,
    read_body,
    status_parameter,
)
from orderflow.observability import logger, metrics, tracer
from orderflow.settings import from_environment
from orders.domain import InvalidProduct
from orders.repository import Products

CONSUMER_SECONDS = 15
"""The read timeout of a redrive. A consumer that takes longer counts as failed, although it may still succeed."""
REDRIVE_MILLISECONDS = (CONSUMER_SECONDS + 2) * 1000
"""The longest duration of a redrive, with its DynamoDB calls."""


@dataclass(frozen=True)
class Settings:
    """The environment of BackofficeApiFunction."""

    analytics_table: str
    failed_events_table: str
    products_table: str
    inventory_table: str


def report_invalid_product(invalid: InvalidProduct) -> None:
    """Logs and counts an item of the products table that is not a valid product."""
    logger.warning("invalid product left out", product_id=invalid.product_id, problems=invalid.problems)
    metrics.add_metric(name="InvalidProducts", unit=MetricUnit.Count, value=1)


settings = from_environment(Settings)
dynamodb = boto3.resource("dynamodb")
analytics = Analytics(dynamodb, settings.analytics_table)
failed_events = FailedEvents(dynamodb, settings.failed_events_table)
products = Products(dynamodb, settings.products_table, report_invalid_product)
inventory = Inventory(dynamodb, settings.inventory_table)
functions = boto3.client("lambda", config=CLIENT.merge(Config(read_timeout=CONSUMER_SECONDS)))
redriver = Redriver(functions, boto3.client("dynamodb"), from_environment(Consumers))
app = new_app()


@logger.inject_lambda_context(correlation_id_path=correlation_paths.API_GATEWAY_HTTP, clear_state=True)
@tracer.capture_lambda_handler(capture_response=False)  # the message of a failed event can contain personal data
@metrics.log_metrics
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Handles one HTTP request (payload format 2.0)."""
    return answer(app, event, context)


def staff_only(router: APIGatewayHttpResolver, next_middleware: NextMiddleware) -> Response[str]:
    """Rejects callers who are not staff. Adds the staff member's id to the logs."""
    caller = caller_of(router.current_event)
    if not caller.is_staff:
        raise Problem(HTTPStatus.FORBIDDEN, "staff-only", "this needs a user of the group staff")
    logger.append_keys(staff_id=caller.subject)
    return next_middleware(router)


app.use(middlewares=[staff_only])


@app.get("/admin/sales")
def get_sales() -> Response[str]:
    """Sales per day and promotion code."""
    return _ok(service.sales_by_day(analytics, _date_range()))


@app.get("/admin/promotions")
def get_promotions() -> Response[str]:
    """Orders by promotion code."""
    return _ok(service.sales_by_promotion(analytics, _date_range()))


def _date_range() -> DateRange:
    query = app.current_event.query_string_parameters
    try:
        return date_range(query.get("from"), query.get("to"), _now().date())
    except MalformedRange as error:
        raise Problem(HTTPStatus.BAD_REQUEST, "malformed-range", str(error)) from error


@app.get("/admin/failed-events")
def list_failed_events() -> Response[str]:
    """Failed events, newest first within a status."""
    status = status_parameter(app.current_event, FailedEventStatus)
    consumer = app.current_event.query_string_parameters.get("consumer")
    of_list = ("failed-events", status or "", consumer or "")
    start = cursor_parameter(app.current_event, of_list, is_position, _now())
    page = failed_events.page(status, consumer, limit_parameter(app.current_event), start)
    return page_response(page.items, page.last, of_list, _now())


@app.post("/admin/failed-events/redrive")
def redrive_failed_events() -> Response[str]:
    """Redrive all matching failed events, as far as time permits."""
    request = read_body(app.current_event, RedriveRequest)
    return _ok(service.redrive_all(failed_events, redriver, request, _has_time))


def _has_time() -> bool:
    return bool(app.lambda_context.get_remaining_time_in_millis() >= REDRIVE_MILLISECONDS)


@app.post("/admin/failed-events/<failure_id>/redrive")
def redrive_failed_event(failure_id: str) -> Response[str]:
    """Redrive a failed event to its consumer."""
    return _ok(service.redrive(failed_events, redriver, unquote(failure_id)))


@app.post("/admin/failed-events/<failure_id>/park")
def park_failed_event(failure_id: str) -> Response[str]:
    """Park a failed event."""
    return _ok(service.park(failed_events, unquote(failure_id)))


@app.get("/admin/products/<product_id>/stock")
def get_stock(product_id: str) -> Response[str]:
    """The stock of a product, with the last changes by staff."""
    return _ok(service.read_stock(products, inventory, product_id))


@app.put("/admin/products/<product_id>/stock")
def set_stock(product_id: str) -> Response[str]:
    """Set the available pieces of a product, unless its stock has changed since they were counted."""
    request = read_body(app.current_event, SetStockRequest)
    staff_id = caller_of(app.current_event).subject
    return _ok(service.set_stock(products, inventory, product_id, request, staff_id, _now()))


def _ok(body: ResponseModel) -> Response[str]:
    return Response(
        int(HTTPStatus.OK),
        content_type="application/json",
        body=body.model_dump_json(by_alias=True, exclude_none=True),
    )


def _now() -> datetime:
    return datetime.now(UTC)
