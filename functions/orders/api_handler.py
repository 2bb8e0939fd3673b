"""OrderApiFunction: the HTTP API of orders and products."""

from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated, Any

import boto3
from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.event_handler.openapi.params import Header, Query
from aws_lambda_powertools.logging import correlation_paths
from aws_lambda_powertools.utilities.data_classes import APIGatewayProxyEventV2
from aws_lambda_powertools.utilities.typing import LambdaContext
from pydantic import Field
from pydantic.json_schema import SkipJsonSchema

from orderflow.auth import caller_of
from orderflow.http_api import (
    BODY,
    DEFAULT_LIMIT,
    ID_TOKEN,
    PAGE,
    SIGNED_IN,
    Cursor,
    Limit,
    Problem,
    answer,
    documented,
    new_app,
    refuse,
)
from orderflow.observability import logger, metrics, tracer
from orderflow.pagination import decode_cursor, encode_cursor
from orderflow.settings import from_environment
from orders import domain, service
from orders.domain import OrderError, OrderStatus
from orders.models import OrderEvents, OrderPage, OrderResponse, PlaceOrderRequest, ProductPage, to_response
from orders.repository import Orders, Products, is_order_position, is_product_position


@dataclass(frozen=True)
class Settings:
    """OrderApiFunction's environment."""

    orders_table: str
    products_table: str


settings = from_environment(Settings)
dynamodb = boto3.resource("dynamodb")
orders = Orders(dynamodb, settings.orders_table)
products = Products(dynamodb, settings.products_table)

IdempotencyKey = Annotated[
    Annotated[str, Field(min_length=1, max_length=255, pattern="^[ -~]+$")] | SkipJsonSchema[None],
    Header(description="Makes a repeated request safe: the same key and body return the same order."),
]
NOT_PLACED: dict[type[OrderError], tuple[HTTPStatus, str]] = {
    domain.KeyReused: (HTTPStatus.UNPROCESSABLE_ENTITY, "idempotency-key-reused"),
    domain.StaffOnlyFields: (HTTPStatus.FORBIDDEN, "staff-only-fields"),
    domain.IncompleteCustomer: (HTTPStatus.UNPROCESSABLE_ENTITY, "invalid-body"),
    domain.EmailNotVerified: (HTTPStatus.FORBIDDEN, "email-not-verified"),
    domain.UnknownProducts: (HTTPStatus.UNPROCESSABLE_ENTITY, "unknown-product"),
    domain.PriceChanged: (HTTPStatus.CONFLICT, "price-changed"),
    domain.TotalTooLarge: (HTTPStatus.UNPROCESSABLE_ENTITY, "total-too-large"),
}
PROBLEMS = NOT_PLACED | {
    domain.UnknownOrder: (HTTPStatus.NOT_FOUND, "order-not-found"),
    domain.CannotCancel: (HTTPStatus.CONFLICT, "not-cancellable"),
}
REFUSED = (
    *BODY,
    SIGNED_IN,
    "400 malformed-idempotency-key",
    *(f"{code:d} {slug}" for code, slug in NOT_PLACED.values()),
)
NO_ORDER = ("404 order-not-found", "404 no-such-route")
PLACED = documented(201, "The order as it was placed.", *REFUSED, location="The path of the order.")
CANCELLED = documented(202, "The cancelled order.", SIGNED_IN, *NO_ORDER, "409 not-cancellable", "409 busy")
LISTED = documented(200, "A page of orders.", *PAGE, SIGNED_IN, "400 malformed-status")

app = new_app()


@logger.inject_lambda_context(correlation_id_path=correlation_paths.API_GATEWAY_HTTP, clear_state=True)
@tracer.capture_lambda_handler(capture_response=False)  # an order contains an address
@metrics.log_metrics
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Answers one HTTP request (payload format 2.0)."""
    return answer(app, event, context, require_caller)


def require_caller(request: APIGatewayProxyEventV2) -> None:
    """Refuses requests without an ID token, except for the public catalogue."""
    if request.path != "/products":
        caller_of(request)


@app.exception_handler(OrderError)  # type: ignore[untyped-decorator]
def on_order_error(error: OrderError) -> Response[str]:
    """Returns the problem of an error in the orders' rules."""
    status, slug = PROBLEMS[type(error)]
    return refuse(Problem(status, slug, str(error), error.errors))


@app.post("/orders", security=ID_TOKEN, responses=PLACED)
def place_order(body: PlaceOrderRequest, idempotency_key: IdempotencyKey = None) -> Response[OrderResponse]:
    """Places an order; with an Idempotency-Key, at most one per key."""
    caller = caller_of(app.current_event)
    order = service.place_order(orders, products, caller, body, idempotency_key, _request_id(), _now())
    location = {"Location": f"/orders/{order.content['orderId']}"}
    return Response(HTTPStatus.CREATED, "application/json", to_response(order), location)


@app.get("/orders", security=ID_TOKEN, responses=LISTED)
def list_orders(
    status: Annotated[OrderStatus | SkipJsonSchema[None], Query(description="Only orders in this status.")] = None,
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
) -> OrderPage:
    """Lists the caller's orders, newest first."""
    customer_id = caller_of(app.current_event).subject
    of_list = ("orders", customer_id, status or "")
    page = orders.list_for(customer_id, status, limit, decode_cursor(cursor, of_list, is_order_position, _now()))
    return OrderPage.model_validate({"items": page.items, "nextCursor": encode_cursor(page.last, of_list, _now())})


@app.get("/orders/<order_id>", security=ID_TOKEN, responses=documented(200, "The order.", SIGNED_IN, *NO_ORDER))
def get_order(order_id: str) -> OrderResponse:
    """Returns one order of the caller's."""
    return to_response(service.read_order(orders, caller_of(app.current_event), order_id))


@app.get("/orders/<order_id>/events", security=ID_TOKEN, responses=documented(200, "The events.", SIGNED_IN, *NO_ORDER))
def get_order_events(order_id: str) -> OrderEvents:
    """Returns the events of one order of the caller's, as they were published."""
    events = service.read_events(orders, caller_of(app.current_event), order_id)
    return OrderEvents.model_validate({"items": events})


@app.post("/orders/<order_id>/cancellation", security=ID_TOKEN, status_code=HTTPStatus.ACCEPTED, responses=CANCELLED)
def cancel_order(order_id: str) -> OrderResponse:
    """Cancels one order of the caller's. Cancelling it again changes nothing."""
    return to_response(service.cancel_order(orders, caller_of(app.current_event), order_id, _request_id(), _now()))


@app.get("/products", responses=documented(200, "A page of products.", *PAGE))
def list_products(limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None) -> ProductPage:
    """Lists the products for sale."""
    of_list = ("products",)
    page = products.page(limit, decode_cursor(cursor, of_list, is_product_position, _now()))
    return ProductPage.model_validate({"items": page.items, "nextCursor": encode_cursor(page.last, of_list, _now())})


def _request_id() -> str:
    return str(app.current_event.request_context.request_id)


def _now() -> datetime:
    return datetime.now(UTC)
