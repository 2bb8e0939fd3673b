"""The rules of reservations: how their events fold, and what an order's events mean for them. No input, no output."""

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
    """Where a reservation stands."""

    RESERVED = "RESERVED"
    OUT_OF_STOCK = "OUT_OF_STOCK"
    RELEASED = "RELEASED"


class Shortage(TypedDict):
    """A product that lacked: how many were asked for, how many there were."""

    productId: str
    asked: int
    available: int


@dataclass(frozen=True)
class Reservation:
    """What inventory decided about an order, folded from its events.

    Args:
        order: the order.
        status: where it stands.
        version: the number of its events.
    """

    order: OrderContent
    status: ReservationStatus
    version: int


def fold(events: Iterable[StoredEvent]) -> Reservation:
    """The reservation that these events make.

    Raises:
        CorruptStream: something other than a release follows, or a release follows anything but a reservation.
    """
    return folded(events, _first, _released)


def _first(event: StoredEvent) -> Reservation:
    status = {
        RESERVED: ReservationStatus.RESERVED,
        OUT_OF_STOCK: ReservationStatus.OUT_OF_STOCK,
        RELEASED: ReservationStatus.RELEASED,
    }.get(event.type)
    if status is None:
        raise CorruptStream(f"begins with {event.type}")
    return Reservation(event.data["order"], status, 1)


def _released(reservation: Reservation, event: StoredEvent) -> Reservation:
    if event.type != RELEASED or reservation.status is not ReservationStatus.RESERVED:
        raise CorruptStream(f"{event.type} in state {reservation.status}")
    return replace(reservation, status=ReservationStatus.RELEASED, version=reservation.version + 1)


def content_of(detail: Mapping[str, Any]) -> OrderContent:
    """The order in an event's detail, without what belongs to that event alone."""
    metadata = {name: detail["metadata"][name] for name in ("source", "promotionCode") if name in detail["metadata"]}
    return {
        "orderId": detail["orderId"],
        "customerId": detail["customerId"],
        "customerEmail": detail["customerEmail"],
        "items": detail["items"],
        "totalAmount": detail["totalAmount"],
        "currency": detail["currency"],
        "shippingAddress": detail["shippingAddress"],
        "metadata": metadata,  # type: ignore[typeddict-item]  # the two names are all that OrderMetadata has
    }


def reserve(order: OrderContent, cause: Cause, now: datetime) -> StoredEvent:
    """All of the order's items are reserved."""
    return new_event(RESERVED, {"order": order}, cause, now)


def refuse(order: OrderContent, shortages: Sequence[Shortage], cause: Cause, now: datetime) -> StoredEvent:
    """Some of the order's items lack; none is reserved."""
    return new_event(OUT_OF_STOCK, {"order": order, "shortages": list(shortages)}, cause, now)


def release(reservation: Reservation | None, order: OrderContent, cause: Cause, now: datetime) -> StoredEvent | None:
    """What a cancellation means for a reservation.

    Args:
        reservation: as it stands; None if the cancellation came before the order did.
        order: the cancelled order.
        cause: the cancellation.
        now: the time.

    Returns:
        The release; for an order that never came, one that gives nothing back and keeps a late order from reserving.
        None if there is nothing to give back.
    """
    if reservation is None:
        return new_event(RELEASED, {"order": order, "released": []}, cause, now)
    if reservation.status is not ReservationStatus.RESERVED:
        return None
    released = [{"productId": item["productId"], "quantity": item["quantity"]} for item in reservation.order["items"]]
    return new_event(RELEASED, {"released": released}, cause, now)


def compose(item: Mapping[str, Any], event: StoredEvent) -> dict[str, Any]:
    """The self-contained detail of one of a reservation's events.

    Args:
        item: the reservation as it is stored.
        event: one of its events, with its sequence.
    """
    more = {name: event.data[name] for name in ("shortages", "released") if name in event.data}
    return compose_detail(item["events"][0]["data"]["order"], event, **more)
