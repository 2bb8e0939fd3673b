"""The rules of orders."""

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orderflow.events import Cause, CorruptStream, StoredEvent, new_event
from orders import domain
from orders.domain import Line, Order, OrderStatus, Product

NOW = datetime(2026, 11, 21, 18, 36, tzinfo=UTC)
CAUSE = Cause("request-1", "request-1")
COMMANDS = st.lists(st.sampled_from(["reserved", "out of stock", "cancel"]), max_size=8)
KEYBOARD = Product("PROD-KEYBOARD", "Keyboard", Decimal("79.90"), active=True)


def placed() -> StoredEvent:
    return domain.place(
        order_id=domain.new_order_id(NOW),
        customer_id="customer-1",
        customer_email="ada@example.com",
        items=domain.price_items([Line("PROD-KEYBOARD", 2)], {"PROD-KEYBOARD": KEYBOARD}),
        shipping_address={"street": "1 Main St"},
        metadata={"source": "web"},
        request_hash="hash",
        cause=CAUSE,
        now=NOW,
    )


def decide(order: Order, command: str) -> StoredEvent | None:
    if command != "cancel":
        report = {"reserved": "Inventory Reserved", "out of stock": "Inventory Out-Of-Stock"}[command]
        return domain.settle(order, report, CAUSE, NOW)
    return domain.cancel(order, domain.CANCELLED_BY_CUSTOMER, CAUSE, NOW)


@given(COMMANDS)
def test_any_sequence_of_commands_folds_to_the_state_reached_step_by_step(commands: list[str]) -> None:
    events = [placed()]
    order = domain.fold(events)
    for command in commands:
        event = decide(order, command)
        if event is not None:
            events.append(event)
            order = domain.advance(order, event)
    assert domain.fold(events) == order
    assert order.version == len(events)


@given(COMMANDS)
def test_an_order_never_moves_backwards(commands: list[str]) -> None:
    rank = {OrderStatus.PENDING: 0, OrderStatus.CONFIRMED: 1, OrderStatus.REJECTED: 2, OrderStatus.CANCELLED: 2}
    order = domain.fold([placed()])
    for command in commands:
        event = decide(order, command)
        if event is not None:
            later = domain.advance(order, event)
            assert rank[later.status] > rank[order.status]
            order = later


@given(COMMANDS)
def test_a_repeated_command_changes_nothing(commands: list[str]) -> None:
    order = domain.fold([placed()])
    for command in commands:
        event = decide(order, command)
        if event is not None:
            order = domain.advance(order, event)
        assert decide(order, command) is None


def test_a_rejected_order_cannot_be_cancelled() -> None:
    order = domain.fold([placed()])
    rejection = domain.settle(order, "Inventory Out-Of-Stock", CAUSE, NOW)
    assert rejection is not None
    rejected = domain.advance(order, rejection)
    assert rejected.reason == "OUT_OF_STOCK"
    assert domain.cancel(rejected, domain.CANCELLED_BY_CUSTOMER, CAUSE, NOW) is None


@pytest.mark.parametrize("types", [[], ["Order Confirmed"], ["Order Placed", "Order Placed"]])
def test_impossible_sequences_of_events_are_refused(types: list[str]) -> None:
    first = placed()
    events = [new_event(event_type, first.data, CAUSE, NOW) for event_type in types]
    with pytest.raises(CorruptStream):
        domain.fold(events)


def test_an_order_is_priced_by_the_catalogue_and_its_total_is_exact() -> None:
    cable = Product("PROD-CABLE", "Cable", Decimal("0.10"), active=True)
    items = domain.price_items(
        [Line("PROD-KEYBOARD", 3, Decimal("79.9")), Line("PROD-CABLE", 3)],
        {"PROD-KEYBOARD": KEYBOARD, "PROD-CABLE": cable},
    )
    assert domain.total(items) == Decimal("240.00")
    assert items[0] == {"productId": "PROD-KEYBOARD", "name": "Keyboard", "quantity": 3, "price": Decimal("79.90")}


def test_an_order_costs_at_most_the_limit() -> None:
    house = Product("PROD-HOUSE", "House", domain.MAX_TOTAL / 1000, active=True)
    catalogue = {"PROD-HOUSE": house, "PROD-KEYBOARD": KEYBOARD}
    assert domain.total(domain.price_items([Line("PROD-HOUSE", 1000)], catalogue)) == domain.MAX_TOTAL
    with pytest.raises(
        domain.TotalTooLarge, match=r"total of 1000000079\.90 USD exceeds the limit of 1000000000\.00 USD"
    ):
        domain.price_items([Line("PROD-HOUSE", 1000), Line("PROD-KEYBOARD", 1)], catalogue)


def test_a_price_that_differs_from_the_expected_one_is_named() -> None:
    with pytest.raises(domain.PriceChanged) as caught:
        domain.price_items([Line("PROD-KEYBOARD", 1, Decimal("75.00"))], {"PROD-KEYBOARD": KEYBOARD})
    assert caught.value.errors == [{"field": "items", "message": "PROD-KEYBOARD costs 79.90, not 75.00"}]


def test_products_that_are_unknown_or_not_for_sale_are_named_together() -> None:
    gone = Product("PROD-GONE", "Gone", Decimal(1), active=False)
    with pytest.raises(domain.UnknownProducts) as caught:
        domain.price_items([Line("PROD-GONE", 1), Line("PROD-NONE", 1)], {"PROD-GONE": gone})
    messages = [error["message"] for error in caught.value.errors or []]
    assert messages == ["PROD-GONE is not for sale", "PROD-NONE is not for sale"]


def test_a_key_names_one_order_per_caller() -> None:
    first = domain.order_id_for_key("caller-1", "key")
    assert first == domain.order_id_for_key("caller-1", "key")
    others = {
        domain.order_id_for_key("caller-2", "key"),
        domain.order_id_for_key("caller-1", "key2"),
        domain.order_id_for_key("caller-1k", "ey"),
    }
    assert first not in others
    assert len(others) == 3


def test_order_ids_sort_by_time_and_do_not_repeat() -> None:
    ids = [domain.new_order_id(NOW) for _ in range(1000)]
    assert len(set(ids)) == 1000
    later = domain.new_order_id(datetime(2026, 11, 21, 18, 37, tzinfo=UTC))
    assert all(order_id < later for order_id in ids)
