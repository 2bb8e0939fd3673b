"""The rules of reservations: their states, and which event an order's event leads to. No input or output."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any, TypedDict

from orderflow.events import Cause, CorruptStream, OrderContent, StoredEvent, compose_detail, folded, new_event

SOURCE = "inventory.service"
RESERVED = "Inventory Reserved"
OUT_OF_STOCK = "Inventory Out-Of-Stock"
RELEASED = "Inventory Released"


class ReservationStatus(StrEnum):
    """The status of a reservation. Only RESERVED holds stock."""

    RESERVED = "RESERVED"
    OUT_OF_STOCK = "OUT_OF_STOCK"
    RELEASED = "RELEASED"


STATUS_AFTER: Mapping[str, ReservationStatus] = {
    RESERVED: ReservationStatus.RESERVED,
    OUT_OF_STOCK: ReservationStatus.OUT_OF_STOCK,
    RELEASED: ReservationStatus.RELEASED,
}


class Shortage(TypedDict):
    """A product that is out of stock, with the quantity that was ordered and the quantity that is available."""

    productId: str
    asked: int
    available: int


@dataclass(frozen=True)
class Reservation:
    """The reservation of an order, folded from its events. Its version is their number."""

    order: OrderContent
    status: ReservationStatus
    version: int


def fold(events: Iterable[StoredEvent]) -> Reservation:
    """Returns the reservation after its events.

    Raises:
        CorruptStream: the first event is not a reservation's, or a later one is not the release of reserved stock.
    """
    return folded(events, _start, apply)


def _start(event: StoredEvent) -> Reservation:
    if event.type not in STATUS_AFTER:
        raise CorruptStream(f"begins with {event.type}")
    return Reservation(event.data["order"], STATUS_AFTER[event.type], 1)


def apply(reservation: Reservation, event: StoredEvent) -> Reservation:
    """Returns the reservation after one more event, which must be the release of reserved stock."""
    if event.type != RELEASED or reservation.status is not ReservationStatus.RESERVED:
        raise CorruptStream(f"{event.type} in state {reservation.status}")
    return replace(reservation, status=ReservationStatus.RELEASED, version=reservation.version + 1)


def reserve(order: OrderContent, cause: Cause, now: datetime) -> StoredEvent:
    """Returns the event that reserves all items of an order."""
    return new_event(RESERVED, {"order": order}, cause, now)


def refuse(order: OrderContent, shortages: Sequence[Shortage], cause: Cause, now: datetime) -> StoredEvent:
    """Returns the event that records why no item of an order is reserved."""
    return new_event(OUT_OF_STOCK, {"order": order, "shortages": list(shortages)}, cause, now)


def release(reservation: Reservation | None, order: OrderContent, cause: Cause, now: datetime) -> StoredEvent | None:
    """Returns the event that releases a cancelled order's reservation, or None if the reservation holds no stock."""
    if reservation is None:
        # The cancellation arrived before the order. A release of nothing keeps the order from reserving stock later.
        return new_event(RELEASED, {"order": order, "released": []}, cause, now)
    if reservation.status is not ReservationStatus.RESERVED:
        return None
    released = [{"productId": item["productId"], "quantity": item["quantity"]} for item in reservation.order["items"]]
    return new_event(RELEASED, {"released": released}, cause, now)


def compose(item: Mapping[str, Any], event: StoredEvent) -> dict[str, Any]:
    """Returns the published detail of one event of a stored reservation."""
    return compose_detail(item, event, "shortages", "released")
