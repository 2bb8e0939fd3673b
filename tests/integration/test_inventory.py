"""InventoryFunction with the template's table in moto."""

import threading
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from types import ModuleType
from typing import Any

import pytest

from inventory.domain import refuse, reserve
from inventory.repository import Contention, Inventory, TransactionRejected
from orderflow.dynamodb import ATTEMPTS, ConcurrentUpdate
from orderflow.events import Cause, OrderEvent
from orderflow.ids import derived_ulid
from tests.integration.support import Aws, Context, measured, module, order_event

PLACED, CANCELLED = "Order Placed", "Order Cancelled"


@pytest.fixture
def function(aws: Aws) -> ModuleType:
    return module("inventory.handler")


def new_order() -> str:
    return f"ORD-{derived_ulid(str(uuid.uuid4()))}"


def send(function: ModuleType, detail_type: str, order_id: str, items: list[tuple[str, int]]) -> dict[str, Any]:
    event = order_event(detail_type, order_id, items)
    function.handler(event, Context())
    return event


def types(aws: Aws, order_id: str) -> list[str]:
    item = aws.reservation(order_id)
    return [event["type"] for event in item["events"]] if item else []


def test_all_items_of_an_order_are_reserved(aws: Aws, function: ModuleType) -> None:
    first, second, order_id = aws.add_product(stock=5), aws.add_product(stock=3), new_order()
    event = send(function, PLACED, order_id, [(first, 2), (second, 3)])
    assert (aws.stock(first), aws.stock(second)) == ((3, 2), (0, 3))
    item = aws.reservation(order_id)
    assert item is not None
    assert (item["status"], item["version"]) == ("RESERVED", 1)
    stored = item["events"][0]
    assert (stored["type"], stored["causationId"]) == ("Inventory Reserved", event["detail"]["metadata"]["eventId"])
    assert stored["correlationId"] == "correlation-1"


def test_one_product_out_of_stock_reserves_nothing_and_is_recorded(aws: Aws, function: ModuleType) -> None:
    enough, lacking, order_id = aws.add_product(stock=5), aws.add_product(stock=1), new_order()
    unknown = "PROD-NOWHERE"
    send(function, PLACED, order_id, [(enough, 2), (lacking, 3), (unknown, 1)])
    assert (aws.stock(enough), aws.stock(lacking)) == ((5, 0), (1, 0))
    item = aws.reservation(order_id)
    assert item is not None
    assert item["status"] == "OUT_OF_STOCK"
    assert item["events"][0]["data"]["shortages"] == [
        {"productId": lacking, "asked": 3, "available": 1},
        {"productId": unknown, "asked": 1, "available": 0},
    ]


def test_reservations_and_shortages_are_counted_once_per_order(
    aws: Aws, function: ModuleType, output: Callable[[], str]
) -> None:
    product, reserved, short = aws.add_product(stock=1), new_order(), new_order()
    for order_id in (reserved, reserved, short, short):
        send(function, PLACED, order_id, [(product, 1)])
    printed = output()
    assert (measured(printed, "StockReserved"), measured(printed, "StockShortages")) == ([1.0], [1.0])


def test_a_repeated_order_is_reserved_once(aws: Aws, function: ModuleType) -> None:
    product, order_id = aws.add_product(stock=5), new_order()
    for _ in range(3):
        send(function, PLACED, order_id, [(product, 2)])
    assert aws.stock(product) == (3, 2)
    assert types(aws, order_id) == ["Inventory Reserved"]


def test_an_order_that_was_out_of_stock_is_not_reserved_when_stock_is_added(aws: Aws, function: ModuleType) -> None:
    product, order_id = aws.add_product(stock=1), new_order()
    send(function, PLACED, order_id, [(product, 2)])
    aws.table("InventoryTableName").update_item(
        Key={"pk": f"PRODUCT#{product}"},
        UpdateExpression="SET available = :n",
        ExpressionAttributeValues={":n": 9},
    )
    send(function, PLACED, order_id, [(product, 2)])
    assert aws.stock(product) == (9, 0)
    assert types(aws, order_id) == ["Inventory Out-Of-Stock"]


def test_a_cancellation_returns_the_items_to_stock_once(aws: Aws, function: ModuleType) -> None:
    product, order_id = aws.add_product(stock=5), new_order()
    send(function, PLACED, order_id, [(product, 2)])
    for _ in range(2):
        send(function, CANCELLED, order_id, [(product, 2)])
    assert aws.stock(product) == (5, 0)
    assert types(aws, order_id) == ["Inventory Reserved", "Inventory Released"]


def test_a_cancellation_returns_what_was_reserved_and_not_what_it_lists(aws: Aws, function: ModuleType) -> None:
    product, order_id = aws.add_product(stock=5), new_order()
    send(function, PLACED, order_id, [(product, 2)])
    send(function, CANCELLED, order_id, [(product, 1)])
    assert aws.stock(product) == (5, 0)


def test_an_order_that_arrives_after_its_cancellation_reserves_nothing(aws: Aws, function: ModuleType) -> None:
    product, order_id = aws.add_product(stock=5), new_order()
    send(function, CANCELLED, order_id, [(product, 2)])
    send(function, PLACED, order_id, [(product, 2)])
    send(function, CANCELLED, order_id, [(product, 2)])
    assert aws.stock(product) == (5, 0)
    item = aws.reservation(order_id)
    assert item is not None
    assert item["status"] == "RELEASED"
    assert types(aws, order_id) == ["Inventory Released"]
    assert item["events"][0]["data"]["released"] == []


def test_the_cancellation_of_an_order_that_was_out_of_stock_changes_no_stock(aws: Aws, function: ModuleType) -> None:
    product, order_id = aws.add_product(stock=1), new_order()
    send(function, PLACED, order_id, [(product, 2)])
    send(function, CANCELLED, order_id, [(product, 2)])
    assert aws.stock(product) == (1, 0)
    assert types(aws, order_id) == ["Inventory Out-Of-Stock"]


def test_concurrent_orders_never_reserve_more_than_the_stock(aws: Aws, function: ModuleType) -> None:
    product = aws.add_product(stock=10)
    order_ids = [new_order() for _ in range(24)]
    barrier = threading.Barrier(8)

    def write(own: list[str]) -> None:
        inventory = Inventory(aws.resource, aws.stack.outputs["InventoryTableName"])
        cause, now = Cause("c", "e"), datetime.now(UTC)
        barrier.wait()
        for order_id in own:
            order = OrderEvent.from_envelope(PLACED, order_event(PLACED, order_id, [(product, 1)])["detail"]).order
            shortages = inventory.reserve(reserve(order, cause, now))
            if shortages:
                inventory.create(refuse(order, shortages, cause, now))

    threads = [threading.Thread(target=write, args=(order_ids[number::8],)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert aws.stock(product) == (0, 10)
    outcomes = [types(aws, order_id) for order_id in order_ids]
    assert outcomes.count(["Inventory Reserved"]) == 10
    assert outcomes.count(["Inventory Out-Of-Stock"]) == 14


def test_a_shortage_is_not_recorded_if_a_copy_of_the_event_has_reserved(
    aws: Aws, function: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One copy of Order Placed finds a shortage; stock is added; the other copy reserves; the first one records."""
    product, order_id = aws.add_product(stock=1), new_order()
    create = function.inventory.create

    def late_create(*arguments: Any) -> None:
        monkeypatch.setattr(function.inventory, "create", create)
        aws.table("InventoryTableName").update_item(
            Key={"pk": f"PRODUCT#{product}"},
            UpdateExpression="SET available = :n",
            ExpressionAttributeValues={":n": 2},
        )
        send(function, PLACED, order_id, [(product, 2)])
        create(*arguments)

    monkeypatch.setattr(function.inventory, "create", late_create)
    send(function, PLACED, order_id, [(product, 2)])
    assert aws.stock(product) == (0, 2)
    assert types(aws, order_id) == ["Inventory Reserved"]


class Conflicting:
    """A DynamoDB client whose first transactions are cancelled, as if other writers wrote the same items."""

    def __init__(self, client: Any, times: int, code: str) -> None:
        self._client = client
        self.times = times
        self.code = code

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def transact_write_items(self, TransactItems: list[Any]) -> Any:  # noqa: N803 - boto3's name
        if self.times:
            self.times -= 1
            reasons = [{"Code": "None"}, *({"Code": self.code} for _ in TransactItems[1:])]
            raise self._client.exceptions.TransactionCanceledException(
                {"Error": {"Code": "TransactionCanceledException", "Message": ""}, "CancellationReasons": reasons},
                "TransactWriteItems",
            )
        return self._client.transact_write_items(TransactItems=TransactItems)


def conflicting(
    function: ModuleType, monkeypatch: pytest.MonkeyPatch, times: int, code: str = "TransactionConflict"
) -> list[int]:
    pauses: list[int] = []
    monkeypatch.setattr(function.inventory, "_client", Conflicting(function.inventory._client, times, code))
    monkeypatch.setattr(function.inventory, "_pause", pauses.append)
    return pauses


@pytest.mark.parametrize("code", ["TransactionConflict", "ThrottlingError", "ProvisionedThroughputExceeded"])
def test_a_conflict_or_throttling_is_retried_and_is_not_a_shortage(
    aws: Aws, function: ModuleType, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    product, order_id = aws.add_product(stock=5), new_order()
    pauses = conflicting(function, monkeypatch, 3, code)
    send(function, PLACED, order_id, [(product, 2)])
    assert aws.stock(product) == (3, 2)
    assert pauses == [1, 2, 3]


def test_a_conflict_at_every_attempt_raises_contention(
    aws: Aws, function: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    product, order_id = aws.add_product(stock=5), new_order()
    pauses = conflicting(function, monkeypatch, ATTEMPTS)
    with pytest.raises(Contention, match=f"PRODUCT#{product}: TransactionConflict, after {ATTEMPTS} attempts"):
        send(function, PLACED, order_id, [(product, 2)])
    assert pauses == list(range(1, ATTEMPTS))
    assert aws.stock(product) == (5, 0)
    assert aws.reservation(order_id) is None


def test_a_malformed_product_item_fails_the_reservation_at_once_and_is_named(
    aws: Aws, function: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound, malformed, order_id = aws.add_product(stock=5), aws.add_product(stock=5), new_order()
    aws.table("InventoryTableName").update_item(Key={"pk": f"PRODUCT#{malformed}"}, UpdateExpression="REMOVE reserved")
    pauses = conflicting(function, monkeypatch, 0)
    with pytest.raises(TransactionRejected, match=f"^PRODUCT#{malformed}: ValidationError$") as raised:
        send(function, PLACED, order_id, [(sound, 2), (malformed, 2)])
    assert pauses == []
    assert aws.stock(sound) == (5, 0)
    assert aws.reservation(order_id) is None
    assert raised.typename == "TransactionRejected"  # the DLQ processor does not retry an error of this name


def test_a_release_of_more_than_is_reserved_fails_at_once_and_names_the_product(aws: Aws, function: ModuleType) -> None:
    product, order_id = aws.add_product(stock=5), new_order()
    send(function, PLACED, order_id, [(product, 2)])
    aws.table("InventoryTableName").put_item(Item={"pk": f"PRODUCT#{product}", "available": 9, "reserved": 1})
    with pytest.raises(TransactionRejected, match=f"^PRODUCT#{product}: ConditionalCheckFailed$"):
        send(function, CANCELLED, order_id, [(product, 2)])
    assert aws.stock(product) == (9, 1)
    assert types(aws, order_id) == ["Inventory Reserved"]


def race(function: ModuleType, monkeypatch: pytest.MonkeyPatch, event_type: str, items: list[tuple[str, int]]) -> None:
    """Handles another event of an order after the next read of its reservation, before the decision."""
    load = function.inventory.load
    before: Iterator[None] = iter([None])

    def raced_load(wanted: str) -> Any:
        stream = load(wanted)
        for _ in before:
            send(function, event_type, wanted, items)
        return stream

    monkeypatch.setattr(function.inventory, "load", raced_load)


def test_a_cancellation_that_is_handled_together_with_the_order_decides_again(
    aws: Aws, function: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    product, order_id = aws.add_product(stock=5), new_order()
    race(function, monkeypatch, PLACED, [(product, 2)])
    send(function, CANCELLED, order_id, [(product, 2)])
    assert aws.stock(product) == (5, 0)
    assert types(aws, order_id) == ["Inventory Reserved", "Inventory Released"]


def test_two_concurrent_copies_of_a_cancellation_return_the_items_once(
    aws: Aws, function: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reservation's version prevents the second release: enough of the product is reserved for it."""
    product, order_id = aws.add_product(stock=5), new_order()
    for each in (order_id, new_order()):
        send(function, PLACED, each, [(product, 2)])
    race(function, monkeypatch, CANCELLED, [(product, 2)])
    send(function, CANCELLED, order_id, [(product, 2)])
    assert aws.stock(product) == (3, 2)
    assert types(aws, order_id) == ["Inventory Reserved", "Inventory Released"]


def test_a_reservation_that_changes_at_every_attempt_raises_concurrent_update(
    aws: Aws, function: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    product, order_id = aws.add_product(stock=5), new_order()
    send(function, PLACED, order_id, [(product, 2)])
    monkeypatch.setattr(function.inventory, "load", lambda _: None)
    with pytest.raises(ConcurrentUpdate):
        send(function, CANCELLED, order_id, [(product, 2)])
    assert aws.stock(product) == (3, 2)


def test_an_event_of_another_type_fails_and_is_named(aws: Aws, function: ModuleType) -> None:
    product, order_id = aws.add_product(stock=5), new_order()
    with pytest.raises(ValueError, match="'Order Confirmed'"):
        send(function, "Order Confirmed", order_id, [(product, 2)])
    assert aws.stock(product) == (5, 0)
    assert aws.reservation(order_id) is None
