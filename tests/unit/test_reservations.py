"""The rules of reservations."""

from datetime import UTC, datetime
from decimal import Decimal

import pytest

from inventory.domain import ReservationStatus, Shortage, fold, refuse, release, reserve
from orderflow.events import Cause, CorruptStream, OrderContent, compose_detail, new_event, order_content

NOW = datetime(2026, 11, 21, 18, 36, tzinfo=UTC)
CAUSE = Cause("request-1", "event-1")
ORDER: OrderContent = {
    "orderId": "ORD-01JDQ2W7X3V5T8Y9Z0A1B2C3D4",
    "customerId": "customer-1",
    "customerEmail": "ada@example.com",
    "items": [{"productId": "PROD-1", "name": "One", "quantity": 2, "price": Decimal("1.50")}],
    "totalAmount": Decimal("3.00"),
    "currency": "USD",
    "shippingAddress": {"street": "1 Main St"},
    "metadata": {"source": "web", "promotionCode": "SPRING10"},
}


def test_the_release_of_a_reserved_order_returns_its_items() -> None:
    reservation = fold([reserve(ORDER, CAUSE, NOW)])
    event = release(reservation, ORDER, CAUSE, NOW)
    assert event is not None
    assert event.data == {"released": [{"productId": "PROD-1", "quantity": 2}]}


def test_a_released_reservation_is_not_released_again() -> None:
    reserved = reserve(ORDER, CAUSE, NOW)
    event = release(fold([reserved]), ORDER, CAUSE, NOW)
    assert event is not None
    reservation = fold([reserved, event])
    assert (reservation.status, reservation.version) == (ReservationStatus.RELEASED, 2)
    assert release(reservation, ORDER, CAUSE, NOW) is None


def test_an_order_that_was_out_of_stock_has_nothing_to_release() -> None:
    shortage: Shortage = {"productId": "PROD-1", "asked": 2, "available": 1}
    reservation = fold([refuse(ORDER, [shortage], CAUSE, NOW)])
    assert reservation.status is ReservationStatus.OUT_OF_STOCK
    assert release(reservation, ORDER, CAUSE, NOW) is None


def test_a_cancellation_before_the_order_leaves_a_released_reservation_without_items() -> None:
    event = release(None, ORDER, CAUSE, NOW)
    assert event is not None
    assert event.data["released"] == []
    assert fold([event]).status is ReservationStatus.RELEASED


@pytest.mark.parametrize(
    "types",
    [
        [],
        ["Order Placed"],
        ["Inventory Reserved", "Inventory Reserved"],
        ["Inventory Out-Of-Stock", "Inventory Released"],
        ["Inventory Released", "Inventory Released"],
    ],
)
def test_events_in_an_order_that_the_rules_do_not_allow_are_refused(types: list[str]) -> None:
    events = [new_event(event_type, {"order": ORDER}, CAUSE, NOW) for event_type in types]
    with pytest.raises(CorruptStream):
        fold(events)


def test_the_order_in_a_detail_is_read_without_the_fields_of_the_event() -> None:
    event = new_event("Order Cancelled", {"reason": "CANCELLED_BY_CUSTOMER"}, CAUSE, NOW)
    detail = compose_detail({"events": [{"data": {"order": ORDER}}]}, event, "reason")
    assert order_content({**detail, "added": "by a later minor version"}) == ORDER
