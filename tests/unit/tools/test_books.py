"""The check of the books finds each kind of error."""

import copy
from typing import Any

import pytest

from tools.books import check

INITIAL = {"PEN": 10, "BOOK": 5}


def stored(name: str, *event_ids: str, items: dict[str, int] | None = None) -> list[dict[str, Any]]:
    """Events as they stand in an item; the first holds the order."""
    lines = [{"productId": product, "quantity": quantity} for product, quantity in (items or {}).items()]
    data: dict[str, Any] = {"order": {"orderId": name, "items": lines}}
    return [{"eventId": event_id, "data": data if number == 0 else {}} for number, event_id in enumerate(event_ids)]


def order(name: str, status: str, *event_ids: str) -> dict[str, Any]:
    return {"orderId": name, "status": status, "version": len(event_ids), "events": stored(name, *event_ids)}


def reservation(name: str, status: str, *event_ids: str, items: dict[str, int]) -> dict[str, Any]:
    events = stored(name, *event_ids, items=items)
    return {"pk": f"RESERVATION#{name}", "status": status, "version": len(events), "events": events}


class Books:
    """Books that balance: one order confirmed, one rejected, one cancelled."""

    def __init__(self) -> None:
        self.orders = [
            order("A", "CONFIRMED", "a1", "a2"),
            order("B", "REJECTED", "b1", "b2"),
            order("C", "CANCELLED", "c1", "c2", "c3"),
        ]
        self.pens: dict[str, Any] = {"pk": "PRODUCT#PEN", "available": 7, "reserved": 3}
        self.books: dict[str, Any] = {"pk": "PRODUCT#BOOK", "available": 5, "reserved": 0}
        self.reservations = [
            reservation("A", "RESERVED", "ra", items={"PEN": 3}),
            reservation("B", "OUT_OF_STOCK", "rb", items={"BOOK": 6}),
            reservation("C", "RELEASED", "rc1", "rc2", items={"PEN": 1}),
        ]
        ids = ("a1", "ra", "a2", "b1", "rb", "b2", "c1", "rc1", "c2", "c3", "rc2")
        self.bus = [{"detail-type": "Some Event", "detail": {"metadata": {"eventId": event_id}}} for event_id in ids]

    def differences(self, initial: dict[str, int] | None = INITIAL) -> list[str]:
        return check(self.orders, [self.pens, self.books, *self.reservations], self.bus, initial)


@pytest.fixture
def books() -> Books:
    return Books()


def test_books_in_order_have_no_differences(books: Books) -> None:
    assert books.differences() == []


def test_an_event_that_was_on_the_bus_twice_is_no_difference(books: Books) -> None:
    books.bus.append(copy.deepcopy(books.bus[0]))

    assert books.differences() == []


def test_a_change_of_stock_by_hand_is_kept_beside_the_stock_and_is_no_difference(books: Books) -> None:
    books.books.update(version=3, changes=1)
    change = {"pk": "STOCK_CHANGE#BOOK#1", "productId": "BOOK", "before": 1, "after": 5, "version": 3}
    books.reservations.append(change)

    assert books.differences() == []


def test_stock_that_came_from_nowhere_is_found(books: Books) -> None:
    books.books["available"] = 6

    assert books.differences() == ["product BOOK: 6 available and reserved together, 5 at the beginning"]
    assert books.differences(initial=None) == []


def test_a_product_that_vanished_is_found(books: Books) -> None:
    books.reservations[0] = reservation("A", "RESERVED", "ra", items={})
    books.pens["pk"] = "PRODUCT#PENCIL"
    books.pens["reserved"], books.pens["available"] = 0, 10

    assert books.differences() == [
        "product PEN: 0 available and reserved together, 10 at the beginning",
        "product PENCIL: 10 available and reserved together, 0 at the beginning",
    ]


def test_stock_reserved_for_nobody_is_found(books: Books) -> None:
    books.pens.update(available=6, reserved=4)

    assert books.differences() == ["product PEN: 4 reserved, but the reservations hold 3"]


def test_a_reservation_of_a_product_without_stock_is_found(books: Books) -> None:
    books.reservations[0] = reservation("A", "RESERVED", "ra", items={"PEN": 3, "INK": 1})

    assert books.differences() == ["product INK: the reservations hold 1, but it has no stock"]


@pytest.mark.parametrize(("available", "reserved"), [(-1, 3), (13, -3)])
def test_stock_below_nothing_is_found(books: Books, available: int, reserved: int) -> None:
    books.pens.update(available=available, reserved=reserved)

    found = books.differences(initial=None)

    assert f"product PEN: {available} available and {reserved} reserved, below 0" in found


def test_an_order_that_never_ended_is_found(books: Books) -> None:
    books.orders[0]["status"] = "PENDING"

    assert books.differences() == ["order A: not settled, PENDING"]


def test_an_order_without_a_reservation_is_found(books: Books) -> None:
    books.orders.append(order("D", "REJECTED"))

    assert books.differences() == ["order D: REJECTED without a reservation"]


@pytest.mark.parametrize(
    ("status", "reserved"), [("CONFIRMED", "RELEASED"), ("REJECTED", "RELEASED"), ("CANCELLED", "RESERVED")]
)
def test_an_order_that_contradicts_its_reservation_is_found(books: Books, status: str, reserved: str) -> None:
    books.orders.append(order("D", status))
    books.reservations.append(reservation("D", reserved, "rd", items={}))
    books.bus.append({"detail-type": "Some Event", "detail": {"metadata": {"eventId": "rd"}}})

    assert books.differences() == [f"order D: {status}, but its reservation is {reserved}"]


def test_a_cancelled_order_that_found_no_stock_is_in_order(books: Books) -> None:
    books.orders[1]["status"] = "CANCELLED"

    assert books.differences() == []


def test_a_reservation_without_an_order_is_found(books: Books) -> None:
    books.reservations.append(
        {"pk": "RESERVATION#E", "status": "RELEASED", "version": 0, "events": []},
    )

    assert books.differences() == ["reservation E: of an order that does not exist"]


def test_a_version_that_does_not_count_the_events_is_found(books: Books) -> None:
    books.orders[0]["version"] = 3
    books.reservations[2]["version"] = 1

    assert books.differences() == ["order A: version 3 with 2 events", "reservation C: version 1 with 2 events"]


def test_an_event_stored_twice_is_found(books: Books) -> None:
    books.orders[0]["events"].append(books.orders[0]["events"][1])
    books.orders[0]["version"] = 3

    assert books.differences() == ["event a2: stored 2 times"]


def test_a_stored_event_that_was_never_published_is_found(books: Books) -> None:
    del books.bus[0]

    assert books.differences() == ["event a1: stored, but never on the bus"]


def test_a_published_event_that_is_not_stored_is_found(books: Books) -> None:
    books.bus.append({"detail-type": "Order Placed", "detail": {"metadata": {"eventId": "x1"}}})

    assert books.differences() == ["event x1: Order Placed was on the bus, but is not stored"]
