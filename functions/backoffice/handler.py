"""BackofficeApiFunction: the HTTP API for staff. Sales figures, failed events and stock."""

from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated, Any
from urllib.parse import unquote

import boto3
from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.event_handler.openapi.params import Query
from aws_lambda_powertools.logging import correlation_paths
from aws_lambda_powertools.utilities.data_classes import APIGatewayProxyEventV2
from aws_lambda_powertools.utilities.typing import LambdaContext
from botocore.config import Config
from pydantic.json_schema import SkipJsonSchema

from analytics.repository import Analytics
from backoffice import domain, models, service
from dlq_processor.domain import FailedEventStatus
from dlq_processor.lambda_invoke import CLIENT, Redriver
from dlq_processor.repository import FailedEvents, is_position
from inventory.repository import Inventory
from orderflow import http_api
from orderflow.auth import caller_of
from orderflow.observability import logger, metrics, tracer
from orderflow.pagination import decode_cursor, encode_cursor
from orderflow.settings import from_environment
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
    stack_name: str


settings = from_environment(Settings)
dynamodb = boto3.resource("dynamodb")
analytics = Analytics(dynamodb, settings.analytics_table)
failed_events = FailedEvents(dynamodb, settings.failed_events_table)
products = Products(dynamodb, settings.products_table)
inventory = Inventory(dynamodb, settings.inventory_table)
lambda_client = boto3.client("lambda", config=CLIENT.merge(Config(read_timeout=CONSUMER_SECONDS)))
redriver = Redriver(lambda_client, settings.stack_name)
app = http_api.new_app()

PROBLEMS: dict[type[domain.RefusedRequest], tuple[HTTPStatus, str]] = {
    domain.MalformedRange: (HTTPStatus.BAD_REQUEST, "malformed-range"),
    domain.UnknownFailedEvent: (HTTPStatus.NOT_FOUND, "failed-event-not-found"),
    domain.AlreadyResolved: (HTTPStatus.CONFLICT, "already-resolved"),
    domain.NotRedrivable: (HTTPStatus.CONFLICT, "not-redrivable"),
    domain.UnknownProduct: (HTTPStatus.NOT_FOUND, "product-not-found"),
    domain.StaleCount: (HTTPStatus.CONFLICT, "stock-changed"),
}

FirstDay = Annotated[
    str | SkipJsonSchema[None],
    Query(alias="from", description="The first day in UTC, such as 2026-11-21. Default: six days before `to`."),
]
LastDay = Annotated[
    str | SkipJsonSchema[None],
    Query(alias="to", description="The last day in UTC. Default: today. A range has at most 366 days."),
]


@logger.inject_lambda_context(correlation_id_path=correlation_paths.API_GATEWAY_HTTP, clear_state=True)
@tracer.capture_lambda_handler(capture_response=False)  # the message of a failed event can contain personal data
@metrics.log_metrics
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Handles one HTTP request (payload format 2.0)."""
    return http_api.answer(app, event, context, staff_only)


def staff_only(request: APIGatewayProxyEventV2) -> None:
    """Rejects callers who are not staff. Adds the staff member's id to the logs."""
    caller = caller_of(request)
    if not caller.is_staff:
        raise http_api.Problem(HTTPStatus.FORBIDDEN, "staff-only", "this needs a user of the group staff")
    logger.append_keys(staff_id=caller.subject)


@app.exception_handler(domain.RefusedRequest)  # type: ignore[untyped-decorator]
def on_refused_request(error: domain.RefusedRequest) -> Response[str]:
    """Returns the problem of a refused request."""
    status, slug = PROBLEMS[type(error)]
    return http_api.refuse(http_api.Problem(status, slug, str(error)))


def for_staff(description: str, *problems: str) -> dict[str, Any]:
    """Returns the documentation of a route for staff: the description of a success, and the problems."""
    responses = http_api.documented(HTTPStatus.OK, description, http_api.SIGNED_IN, "403 staff-only", *problems)
    return {"responses": responses, "security": http_api.ID_TOKEN}


NO_FAILED_EVENT = ("404 no-such-route", "404 failed-event-not-found", "409 already-resolved")
NO_PRODUCT = ("404 no-such-route", "404 product-not-found")


@app.get("/admin/sales", **for_staff("The sales of the days.", "400 malformed-range"))
def get_sales(first: FirstDay = None, last: LastDay = None) -> models.SalesResponse:
    """Returns confirmed and cancelled orders, per day and promotion code."""
    return service.sales_by_day(analytics, *domain.date_range(first, last, _now().date()))


@app.get("/admin/promotions", **for_staff("The orders by promotion code.", "400 malformed-range"))
def get_promotions(first: FirstDay = None, last: LastDay = None) -> models.PromotionsResponse:
    """Returns placed, confirmed and cancelled orders, by promotion code."""
    return service.sales_by_promotion(analytics, *domain.date_range(first, last, _now().date()))


@app.get("/admin/failed-events", **for_staff("A page of failed events.", *http_api.PAGE, "400 malformed-status"))
def list_failed_events(
    status: Annotated[FailedEventStatus | SkipJsonSchema[None], Query()] = None,
    consumer: Annotated[str | SkipJsonSchema[None], Query(description="Such as `email` or `inventory`.")] = None,
    limit: http_api.Limit = http_api.DEFAULT_LIMIT,
    cursor: http_api.Cursor = None,
) -> models.FailedEventsResponse:
    """Lists failed events, newest first within a status."""
    of_list = ("failed-events", status or "", consumer or "")
    page = failed_events.page(status, consumer, limit, decode_cursor(cursor, of_list, is_position, _now()))
    next_cursor = encode_cursor(page.last, of_list, _now())
    return models.FailedEventsResponse.model_validate({"items": page.items, "next_cursor": next_cursor})


@app.post("/admin/failed-events/redrive", **for_staff("The number of events by outcome.", *http_api.BODY))
def redrive_failed_events(request: models.RedriveRequest) -> models.RedriveAllResponse:
    """Redrives all matching failed events, or as many as time permits."""
    return service.redrive_all(failed_events, redriver, request, _has_time, _now)


def _has_time() -> bool:
    return bool(app.lambda_context.get_remaining_time_in_millis() >= REDRIVE_MILLISECONDS)


@app.post(
    "/admin/failed-events/<failure_id>/redrive",
    **for_staff("The failed event after its redrive.", *NO_FAILED_EVENT, "409 not-redrivable"),
)
def redrive_failed_event(failure_id: str) -> models.RedriveResponse:
    """Redrives a failed event to its consumer."""
    return service.redrive(failed_events, redriver, unquote(failure_id), _now)


@app.post("/admin/failed-events/<failure_id>/park", **for_staff("The parked event.", *NO_FAILED_EVENT, "409 busy"))
def park_failed_event(failure_id: str) -> models.FailedEventResponse:
    """Parks a failed event. Parking it again changes nothing."""
    return service.park(failed_events, unquote(failure_id))


@app.get("/admin/products/<product_id>/stock", **for_staff("The stock.", *NO_PRODUCT))
def get_stock(product_id: str) -> models.StockResponse:
    """Returns the stock of a product, with its last changes by staff."""
    return service.read_stock(products, inventory, product_id)


@app.put(
    "/admin/products/<product_id>/stock",
    **for_staff("The stock after the change.", *http_api.BODY, *NO_PRODUCT, "409 stock-changed", "409 busy"),
)
def set_stock(product_id: str, request: models.SetStockRequest) -> models.StockResponse:
    """Sets the available pieces of a product, unless its stock has changed since they were counted."""
    staff_id = caller_of(app.current_event).subject
    return service.set_stock(products, inventory, product_id, request, staff_id, _now())


def _now() -> datetime:
    return datetime.now(UTC)
