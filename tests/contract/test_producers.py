"""Every event that the services compose conforms to the contract, for all items, prices and metadata."""

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inventory import domain as inventory
from orderflow.contracts import DETAILS, OrderDetail
from orderflow.events import Cause, Item, OrderContent, OrderMetadata, StoredEvent, numbered, order_content
from orderflow.serialization import to_json, with_decimals
from orders import domain as orders

NOW = datetime(2026, 11, 21, 18, 36, 0, 123000, tzinfo=UTC)
CAUSE = Cause("VkQ3hj2aIAMESHA=", "VkQ3hj2aIAMESHA=", "Root=1-6b01e490-5759e988bd862e3fe1be46a9")
ADDRESS = {"street": "1 Main St", "city": "Seattle", "state": "WA", "zipCode": "98101", "country": "US"}

items = st.lists(
    st.builds(
        lambda number, price, quantity: Item(
            productId=f"PROD-{number}", name=f"Product {number}", quantity=quantity, price=price
        ),
        st.integers(1, 999),
        st.decimals(0, Decimal("999999.99"), places=2),
        st.integers(1, 10_000),
    ),
    min_size=1,
    max_size=5,
)
metadata = st.sampled_from(
    [OrderMetadata(source="web"), OrderMetadata(source="mobile", promotionCode="SPRING10"), OrderMetadata(source="api")]
)


def placed(ordered: list[Item], how: OrderMetadata) -> StoredEvent:
    return orders.place(
        order_id=orders.new_order_id(NOW),
        customer_id="8f6c2a34-5d1e-4b7a-9c0f-2e4d6b8a1c35",
        customer_email="ada@example.com",
        items=ordered,
        shipping_address=ADDRESS,
        metadata=how,
        request_hash="0" * 64,
        cause=CAUSE,
        now=NOW,
    )


def order_placed(first: StoredEvent) -> list[StoredEvent]:
    return [first]


def order_confirmed(first: StoredEvent) -> list[StoredEvent]:
    event = orders.settle(orders.fold([first]), "Inventory Reserved", CAUSE, NOW)
    assert event is not None
    return [first, event]


def order_rejected(first: StoredEvent) -> list[StoredEvent]:
    event = orders.settle(orders.fold([first]), "Inventory Out-Of-Stock", CAUSE, NOW)
    assert event is not None
    return [first, event]


def cancelled(by: str) -> Callable[[StoredEvent], list[StoredEvent]]:
    def order_cancelled(first: StoredEvent) -> list[StoredEvent]:
        event = orders.cancel(orders.fold([first]), by, CAUSE, NOW)
        assert event is not None
        return [first, event]

    return order_cancelled


def received(first: StoredEvent) -> OrderContent:
    """Returns the order as the inventory reads it from the published event."""
    detail = to_json(orders.compose({"events": [first.to_item()]}, first))
    return order_content(with_decimals(json.loads(detail)))


def inventory_reserved(first: StoredEvent) -> list[StoredEvent]:
    return [inventory.reserve(received(first), CAUSE, NOW)]


def inventory_out_of_stock(first: StoredEvent) -> list[StoredEvent]:
    order = received(first)
    shortages = [
        inventory.Shortage(productId=item["productId"], asked=item["quantity"], available=0) for item in order["items"]
    ]
    return [inventory.refuse(order, shortages, CAUSE, NOW)]


def inventory_released(first: StoredEvent) -> list[StoredEvent]:
    order = received(first)
    reserved = inventory.reserve(order, CAUSE, NOW)
    event = inventory.release(inventory.fold([reserved]), order, CAUSE, NOW)
    assert event is not None
    return [reserved, event]


def released_before_the_order(first: StoredEvent) -> list[StoredEvent]:
    event = inventory.release(None, received(first), CAUSE, NOW)
    assert event is not None
    return [event]


PRODUCERS: list[tuple[str, str, Callable[[StoredEvent], list[StoredEvent]]]] = [
    (orders.SOURCE, "Order Placed", order_placed),
    (orders.SOURCE, "Order Confirmed", order_confirmed),
    (orders.SOURCE, "Order Rejected", order_rejected),
    (orders.SOURCE, "Order Cancelled", cancelled(orders.CANCELLED_BY_CUSTOMER)),
    (orders.SOURCE, "Order Cancelled", cancelled(orders.CANCELLED_BY_STAFF)),
    (inventory.SOURCE, "Inventory Reserved", inventory_reserved),
    (inventory.SOURCE, "Inventory Out-Of-Stock", inventory_out_of_stock),
    (inventory.SOURCE, "Inventory Released", inventory_released),
    (inventory.SOURCE, "Inventory Released", released_before_the_order),
]
COMPOSE = {orders.SOURCE: orders.compose, inventory.SOURCE: inventory.compose}


def last_detail(source: str, events: Sequence[StoredEvent]) -> tuple[str, str]:
    """Returns the type and the published detail, as JSON text, of an aggregate's last event."""
    stored = {"events": [event.to_item() for event in events]}
    last = numbered(stored["events"])[-1]
    return last.type, to_json(COMPOSE[source](stored, last))


def validated(source: str, detail_type: str, detail: str) -> OrderDetail:
    return DETAILS[source, detail_type].model_validate_json(detail)


def leaves(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [leaf for member in value.values() for leaf in leaves(member)]
    if isinstance(value, list):
        return [leaf for member in value for leaf in leaves(member)]
    return [value]


def test_every_event_of_the_contract_has_a_producer() -> None:
    assert {(source, detail_type) for source, detail_type, _ in PRODUCERS} == set(DETAILS)


@pytest.mark.parametrize(("source", "detail_type", "produce"), PRODUCERS)
@settings(max_examples=30)  # for each of the producers
@given(ordered=items, how=metadata)
def test_a_published_detail_conforms_to_the_contract(
    source: str,
    detail_type: str,
    produce: Callable[[StoredEvent], list[StoredEvent]],
    ordered: list[Item],
    how: OrderMetadata,
) -> None:
    events = produce(placed(ordered, how))
    made, detail = last_detail(source, events)
    assert made == detail_type
    model = validated(source, detail_type, detail)
    assert model.metadata.sequence == len(events)
    assert None not in leaves(json.loads(detail))


@pytest.mark.parametrize(("source", "detail_type", "produce"), PRODUCERS)
@settings(max_examples=30)  # for each of the producers
@given(ordered=items, how=metadata)
def test_money_is_a_json_number_with_at_most_two_decimals(
    source: str,
    detail_type: str,
    produce: Callable[[StoredEvent], list[StoredEvent]],
    ordered: list[Item],
    how: OrderMetadata,
) -> None:
    _, text = last_detail(source, produce(placed(ordered, how)))
    detail = json.loads(text, parse_float=Decimal, parse_int=Decimal)
    assert [item["price"] for item in detail["items"]] == [item["price"] for item in ordered]
    assert detail["totalAmount"] == orders.total(ordered)
    numbers = [leaf for leaf in leaves(detail) if isinstance(leaf, Decimal)]
    assert all(number == round(number, 2) for number in numbers)


def test_the_total_of_the_largest_order_is_exact() -> None:
    dearest = Item(productId="PROD-1", name="Product 1", quantity=10_000, price=Decimal("999999.99"))
    _, detail = last_detail(orders.SOURCE, [placed([dearest] * 90, OrderMetadata(source="web"))])
    assert json.loads(detail, parse_int=Decimal, parse_float=Decimal)["totalAmount"] == Decimal("899999991000")
