"""The use cases of orders: place, cancel, settle and read an order."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from aws_lambda_powertools.metrics import MetricUnit

from orderflow.event_store import Stream, VersionConflict
from orderflow.observability import logger, metrics, new_cause
from orders import domain
from orders.domain import SOURCE, Order, OrderStatus, compose

if TYPE_CHECKING:
    from orderflow.auth import Caller
    from orderflow.events import OrderEvent, OrderMetadata, StoredEvent
    from orders.models import PlaceOrderRequest
    from orders.repository import Orders, Products

SETTLED_METRICS = {domain.CONFIRMED: "OrdersConfirmed", domain.REJECTED: "OrdersRejected"}


def place_order(
    orders: Orders,
    products: Products,
    caller: Caller,
    request: PlaceOrderRequest,
    key: str | None,
    request_id: str,
    now: datetime,
) -> Order:
    """Places an order and returns it; with an Idempotency-Key, at most one order per caller and key.

    The id of the order is derived from caller and key, and the write succeeds only if the id is free. If it is taken,
    the request is a repetition: it returns the order as it was placed, even when prices have changed since.

    Raises:
        OrderRefused: the rules do not allow the order now, and it was not placed earlier.
        KeyReused: an order was placed with this key and another body.
        StaffOnlyFields: a customer named a customer.
        IncompleteCustomer: staff named only an id or only an e-mail address.
    """
    _check_customer_fields(caller, request)
    order_id = domain.new_order_id(now) if key is None else domain.order_id_for_key(caller.subject, key)
    try:
        event = _order_placed(products, caller, request, order_id, request_id, now)
    except domain.OrderRefused:
        if key and (earlier := orders.load(order_id)):
            return _as_placed(earlier, request)
        raise
    try:
        order = orders.append(None, event)
    except VersionConflict as conflict:
        return _as_placed(conflict.stream, request)
    logger.info("order placed", order_id=order_id, event_id=event.event_id)
    metrics.add_metric(name="OrdersPlaced", unit=MetricUnit.Count, value=1)
    metrics.add_metric(name="OrderValue", unit=MetricUnit.NoUnit, value=float(order.content["totalAmount"]))
    return order


def _check_customer_fields(caller: Caller, request: PlaceOrderRequest) -> None:
    customer = {"customerId": request.customer_id, "customerEmail": request.customer_email}
    named = [field for field, value in customer.items() if value is not None]
    if named and not caller.is_staff:
        errors = [(field, "only staff may send this field") for field in named]
        raise domain.StaffOnlyFields(f"only staff may send {' and '.join(named)}", *errors)
    if len(named) == 1:
        text = "customerId and customerEmail go together"
        raise domain.IncompleteCustomer(text, ("body", text))


def _order_placed(
    products: Products, caller: Caller, request: PlaceOrderRequest, order_id: str, request_id: str, now: datetime
) -> StoredEvent:
    lines = request.lines()
    items = domain.price_items(lines, products.get(line.product_id for line in lines))
    customer_email = request.customer_email or caller.email
    if customer_email is None:
        raise domain.EmailNotVerified("verify your e-mail address before you order")
    metadata: OrderMetadata = {"source": request.source}
    if request.promotion_code is not None:
        metadata["promotionCode"] = request.promotion_code
    return domain.place(
        order_id=order_id,
        customer_id=request.customer_id or caller.subject,
        customer_email=customer_email,
        items=items,
        shipping_address=request.shipping_address.model_dump(by_alias=True),
        metadata=metadata,
        request_hash=request.fingerprint(),
        cause=new_cause(request_id, request_id),
        now=now,
    )


def _as_placed(stream: Stream, request: PlaceOrderRequest) -> Order:
    order = domain.fold(stream.events[:1])
    if order.request_hash != request.fingerprint():
        raise domain.KeyReused("this Idempotency-Key was sent before with another body")
    return order


def cancel_order(orders: Orders, caller: Caller, order_id: str, request_id: str, now: datetime) -> Order:
    """Cancels an order of the caller's and returns it. Cancelling it again changes nothing.

    Raises:
        UnknownOrder: there is no such order, or the caller may not see it.
        CannotCancel: its status does not allow a cancellation.
        ConcurrentUpdate: other writers were first at each attempt.
    """

    def decide(order: Order) -> StoredEvent | None:
        if not _may_read(caller, order):
            return None
        by_owner = order.content["customerId"] == caller.subject
        reason = domain.CANCELLED_BY_CUSTOMER if by_owner else domain.CANCELLED_BY_STAFF
        return domain.cancel(order, reason, new_cause(order.correlation_id, request_id), now)

    order, event = orders.update(order_id, decide)
    if not _may_read(caller, order):
        raise domain.UnknownOrder(order_id)
    logger.append_keys(order_id=order_id)
    if order.status is not OrderStatus.CANCELLED:
        raise domain.CannotCancel(f"the order is {order.status} and can no longer be cancelled")
    if event is not None:
        logger.info("order cancelled", event_id=event.event_id)
        metrics.add_metric(name="OrdersCancelled", unit=MetricUnit.Count, value=1)
    return order


def settle_order(orders: Orders, report: OrderEvent, now: datetime) -> None:
    """Confirms or rejects an order after an event of the inventory. A late or repeated event changes nothing."""
    cause = new_cause(report.correlation_id, report.event_id)
    order, event = orders.update(report.order_id, lambda order: domain.settle(order, report.detail_type, cause, now))
    if event is None:
        logger.info("nothing to do", status=order.status, inventory_event=report.detail_type)
        return
    logger.info("order settled", order_event=event.type)
    metrics.add_metric(name=SETTLED_METRICS[event.type], unit=MetricUnit.Count, value=1)
    metrics.add_metric(name="OrderProcessingSeconds", unit=MetricUnit.Seconds, value=domain.seconds_to_settle(order))


def read_order(orders: Orders, caller: Caller, order_id: str) -> Order:
    """Returns an order, or raises UnknownOrder if there is none that the caller may see."""
    return _read(orders, caller, order_id)[0]


def read_events(orders: Orders, caller: Caller, order_id: str) -> list[dict[str, Any]]:
    """Returns an order's events as they were published, oldest first; raises the same errors as `read_order`."""
    _, stream = _read(orders, caller, order_id)
    return [
        {"source": SOURCE, "detail-type": event.type, "time": event.time, "detail": compose(stream.item, event)}
        for event in stream.events
    ]


def _read(orders: Orders, caller: Caller, order_id: str) -> tuple[Order, Stream]:
    stream = orders.load(order_id)
    if stream is None:
        raise domain.UnknownOrder(order_id)
    order = domain.fold(stream.events)
    if not _may_read(caller, order):
        raise domain.UnknownOrder(order_id)
    logger.append_keys(order_id=order_id)
    return order, stream


def _may_read(caller: Caller, order: Order) -> bool:
    return caller.is_staff or order.content["customerId"] == caller.subject
