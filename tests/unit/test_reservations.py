"""The rules of reservations."""

from datetime import UTC, datetime
from decimal import Decimal

import pytest

from inventory import domain as rules
from orderflow.events import Cause, CorruptStream, OrderContent, new_event

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


def test_a_reserved_order_gives_back_what_it_held() -> None:
    reservation = rules.fold([rules.reserve(ORDER, CAUSE, NOW)])
    release = rules.release(reservation, ORDER, CAUSE, NOW)
    assert release is not None
    assert release.data == {"released": [{"productId": "PROD-1", "quantity": 2}]}


def test_a_released_reservation_is_not_released_again() -> None:
    reserved = rules.reserve(ORDER, CAUSE, NOW)
    release = rules.release(rules.fold([reserved]), ORDER, CAUSE, NOW)
    assert release is not None
    reservation = rules.fold([reserved, release])
    assert (reservation.status, reservation.version) == (rules.ReservationStatus.RELEASED, 2)
    assert rules.release(reservation, ORDER, CAUSE, NOW) is None


def test_an_order_that_was_out_of_stock_has_nothing_to_give_back() -> None:
    shortage: rules.Shortage = {"productId": "PROD-1", "asked": 2, "available": 1}
    reservation = rules.fold([rules.refuse(ORDER, [shortage], CAUSE, NOW)])
    assert reservation.status is rules.ReservationStatus.OUT_OF_STOCK
    assert rules.release(reservation, ORDER, CAUSE, NOW) is None


def test_a_cancellation_before_the_order_leaves_a_release_that_gives_nothing_back() -> None:
    release = rules.release(None, ORDER, CAUSE, NOW)
    assert release is not None
    assert release.data["released"] == []
    assert rules.fold([release]).status is rules.ReservationStatus.RELEASED


@pytest.mark.parametrize("types", [[], ["Order Placed"], ["Inventory Reserved", "Inventory Reserved"]])
def test_events_that_no_reservation_can_have_had_are_refused(types: list[str]) -> None:
    events = [new_event(event_type, {"order": ORDER}, CAUSE, NOW) for event_type in types]
    with pytest.raises(CorruptStream):
        rules.fold(events)


def test_the_order_in_a_detail_leaves_out_what_belongs_to_the_event_alone() -> None:
    detail = {
        **ORDER,
        "version": "1.0",
        "reason": "CANCELLED_BY_CUSTOMER",
        "added": "by a later minor version",
        "metadata": {**ORDER["metadata"], "eventId": "event-1", "sequence": 2},
    }
    assert rules.content_of(detail) == ORDER
