"""OrderApiFunction: the HTTP API of orders and products."""

from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

import boto3
from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.logging import correlation_paths
from aws_lambda_powertools.utilities.idempotency import idempotent_function
from aws_lambda_powertools.utilities.idempotency.exceptions import (
    IdempotencyAlreadyInProgressError,
    IdempotencyValidationError,
)
from aws_lambda_powertools.utilities.typing import LambdaContext

from orderflow import idempotency
from orderflow.auth import Caller, caller_of
from orderflow.event_store import Stream, VersionConflict
from orderflow.events import OrderMetadata
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
from orderflow.observability import amount, count, logger, metrics, new_cause, tracer
from orderflow.settings import from_environment
from orders import domain as rules
from orders.domain import SOURCE, InvalidProduct, Order, OrderStatus, compose
from orders.models import PlaceOrderRequest, StaffPlaceOrderRequest
from orders.repository import Orders, Products, is_order_position, is_product_position

MAX_KEY_LENGTH = 255
KEEP_ANSWERS_SECONDS = 24 * 60 * 60
CANCEL_ATTEMPTS = 5


@dataclass(frozen=True)
class Settings:
    """OrderApiFunction's environment."""

    orders_table: str
    products_table: str
    idempotency_table: str


def report_invalid_product(invalid: InvalidProduct) -> None:
    """Log and count a row of the products table that does not describe a product."""
    logger.warning("invalid product left out", product_id=invalid.product_id, problems=invalid.problems)
    count("InvalidProducts")


settings = from_environment(Settings)
dynamodb = boto3.resource("dynamodb")
orders = Orders(dynamodb, settings.orders_table)
products = Products(dynamodb, settings.products_table, report_invalid_product)
persistence = idempotency.persistence(settings.idempotency_table, boto3.client("dynamodb"))
app = new_app()


@logger.inject_lambda_context(correlation_id_path=correlation_paths.API_GATEWAY_HTTP, clear_state=True)
@tracer.capture_lambda_handler(capture_response=False)  # an order holds an address
@metrics.log_metrics
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Answer one HTTP request (payload format 2.0)."""
    return answer(app, event, context)


@app.post("/orders")
def place_order() -> Response[str]:
    """Place an order; with an Idempotency-Key, at most one per key."""
    caller = caller_of(app.current_event)
    request = read_body(app.current_event, StaffPlaceOrderRequest if caller.is_staff else PlaceOrderRequest)
    key = _idempotency_key()
    placed = _place(caller, request, rules.new_order_id(_now())) if key is None else _place_once(caller, request, key)
    order_id = placed.content["orderId"]
    return json_response(HTTPStatus.CREATED, _shown(placed), {"Location": f"/orders/{order_id}"})


def _place_once(caller: Caller, request: PlaceOrderRequest, key: str) -> Order:
    """The order of this key: placed now, or by an earlier call that this one repeats."""

    @idempotent_function(  # type: ignore[untyped-decorator]
        data_keyword_argument="call",
        persistence_store=persistence,
        config=idempotency.configuration("[caller, key]", "request", KEEP_ANSWERS_SECONDS, app.lambda_context),
    )
    def once(*, call: dict[str, str]) -> dict[str, str]:
        order_id = rules.order_id_for_key(call["caller"], call["key"])
        # Looked up before prices are: the order of a call that crashed, or was forgotten, is still the answer.
        if orders.load(order_id) is None:
            _place(caller, request, order_id)
        return {"orderId": order_id}

    try:
        placed = once(call={"caller": caller.subject, "key": key, "request": request.fingerprint()})
    except IdempotencyAlreadyInProgressError as error:
        raise Problem(
            HTTPStatus.CONFLICT, "request-in-progress", "a request with this Idempotency-Key is still running"
        ) from error
    except IdempotencyValidationError as error:
        raise _key_reused() from error
    return _as_placed(placed["orderId"], request)


def _as_placed(order_id: str, request: PlaceOrderRequest) -> Order:
    """The order as it was when it was placed: a repeated call gets the answer that the first one got."""
    stream = orders.load(order_id)
    if stream is None:
        raise LookupError(f"{order_id} is in the idempotency record but not in the orders table")
    order = rules.fold(stream.events[:1])
    if order.request_hash != request.fingerprint():
        raise _key_reused()
    return order


def _key_reused() -> Problem:
    return Problem(
        HTTPStatus.UNPROCESSABLE_ENTITY, "idempotency-key-reused", "this Idempotency-Key came with another body before"
    )


def _place(caller: Caller, request: PlaceOrderRequest, order_id: str) -> Order:
    """Price and store a new order; if the id is taken, the call repeats another that runs beside it."""
    lines = request.lines()
    try:
        items = rules.price_items(lines, products.get(line.product_id for line in lines))
    except rules.UnknownProducts as error:
        errors = [{"field": "items", "message": f"{product_id} is not for sale"} for product_id in error.product_ids]
        raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, "unknown-product", str(error), errors) from error
    except rules.PriceChanged as error:
        errors = [
            {"field": "items", "message": f"{change['productId']} costs {change['price']}, not {change['seen']}"}
            for change in error.changes
        ]
        raise Problem(HTTPStatus.CONFLICT, "price-changed", str(error), errors) from error
    except rules.TotalTooLarge as error:
        errors = [{"field": "items", "message": str(error)}]
        raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, "total-too-large", str(error), errors) from error
    request_id = app.current_event.request_context.request_id
    customer_id, customer_email = _customer(caller, request)
    event = rules.place(
        order_id=order_id,
        customer_id=customer_id,
        customer_email=customer_email,
        items=items,
        shipping_address=request.shipping_address.model_dump(by_alias=True),
        metadata=_metadata(request),
        request_hash=request.fingerprint(),
        cause=new_cause(request_id, request_id),
        now=_now(),
    )
    try:
        placed = orders.append(None, event)
    except VersionConflict as conflict:
        return rules.fold(conflict.stream.events[:1])
    logger.info("order placed", order_id=order_id, event_id=event.event_id)
    count("OrdersPlaced")
    amount("OrderValue", float(placed.content["totalAmount"]))
    return placed


def _customer(caller: Caller, request: PlaceOrderRequest) -> tuple[str, str]:
    if isinstance(request, StaffPlaceOrderRequest) and request.customer_id and request.customer_email:
        return request.customer_id, request.customer_email
    if caller.email is None:
        raise Problem(HTTPStatus.FORBIDDEN, "email-not-verified", "verify your e-mail address before you order")
    return caller.subject, caller.email


def _metadata(request: PlaceOrderRequest) -> OrderMetadata:
    metadata: OrderMetadata = {"source": request.source}
    return metadata if request.promotion_code is None else {**metadata, "promotionCode": request.promotion_code}


@app.get("/orders")
def list_orders() -> Response[str]:
    """The caller's orders, newest first."""
    caller = caller_of(app.current_event)
    status = status_parameter(app.current_event, OrderStatus)
    of_list = ("orders", caller.subject, status or "")
    start = cursor_parameter(app.current_event, of_list, is_order_position, _now())
    page = orders.list_for(caller.subject, status, limit_parameter(app.current_event), start)
    return page_response(page.items, page.last, of_list, _now())


@app.get("/orders/<order_id>")
def get_order(order_id: str) -> Response[str]:
    """One order of the caller's."""
    return json_response(HTTPStatus.OK, _shown(_readable(order_id)[0]))


@app.get("/orders/<order_id>/events")
def get_order_events(order_id: str) -> Response[str]:
    """What happened to one order of the caller's, as it was published."""
    _, stream = _readable(order_id)
    events = [
        {
            "source": SOURCE,
            "detail-type": event.type,
            "time": event.time,
            "detail": compose(stream.item, event),
        }
        for event in stream.events
    ]
    return json_response(HTTPStatus.OK, {"items": events})


@app.post("/orders/<order_id>/cancellation")
def cancel_order(order_id: str) -> Response[str]:
    """Cancel one order of the caller's, if it still can be; cancelling it again changes nothing."""
    for _ in range(CANCEL_ATTEMPTS):
        order, stream = _readable(order_id)
        by_owner = caller_of(app.current_event).subject == order.content["customerId"]
        reason = rules.CANCELLED_BY_CUSTOMER if by_owner else rules.CANCELLED_BY_STAFF
        request_id = app.current_event.request_context.request_id
        correlation_id = stream.events[0].cause.correlation_id
        try:
            event = rules.cancel(order, reason, new_cause(correlation_id, request_id), _now())
            if event is None:
                return json_response(HTTPStatus.ACCEPTED, _shown(order))
            cancelled = orders.append(order, event)
        except rules.CannotCancel as error:
            raise Problem(HTTPStatus.CONFLICT, "not-cancellable", str(error)) from error
        except VersionConflict:
            continue  # another writer was quicker: decide anew on what it wrote
        logger.info("order cancelled", order_id=order_id, event_id=event.event_id)
        count("OrdersCancelled")
        return json_response(HTTPStatus.ACCEPTED, _shown(cancelled))
    raise Problem(HTTPStatus.CONFLICT, "busy", "the order is changing right now; try again")


@app.get("/products")
def list_products() -> Response[str]:
    """The catalogue."""
    of_list = ("products",)
    start = cursor_parameter(app.current_event, of_list, is_product_position, _now())
    page = products.page(limit_parameter(app.current_event), start)
    return page_response(page.items, page.last, of_list, _now())


def _idempotency_key() -> str | None:
    key = app.current_event.headers.get("idempotency-key")
    if key is not None and not (0 < len(key) <= MAX_KEY_LENGTH and key.isascii() and key.isprintable()):
        raise Problem(
            HTTPStatus.BAD_REQUEST,
            "malformed-idempotency-key",
            f"an Idempotency-Key has 1 to {MAX_KEY_LENGTH} printable ASCII characters",
        )
    return key


def _readable(order_id: str) -> tuple[Order, Stream]:
    """An order that the caller may see; somebody else's is not found."""
    caller = caller_of(app.current_event)
    stream = orders.load(order_id) if is_id(order_id) else None
    if stream is not None:
        order = rules.fold(stream.events)
        if caller.is_staff or order.content["customerId"] == caller.subject:
            logger.append_keys(order_id=order_id)
            return order, stream
    raise Problem(HTTPStatus.NOT_FOUND, "order-not-found", "you have no order of this id")


def _shown(order: Order) -> dict[str, Any]:
    """An order as the API shows it."""
    shown = {
        **order.content,
        "status": order.status.value,
        "placedAt": order.placed_at,
        "updatedAt": order.updated_at,
        "version": order.version,
    }
    return shown if order.reason is None else {**shown, "reason": order.reason}


def _now() -> datetime:
    return datetime.now(UTC)
