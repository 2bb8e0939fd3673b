"""InventoryFunction against moto."""

import threading
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from types import ModuleType
from typing import Any

import pytest

from dlq_processor.retries import is_transient
from inventory.domain import refuse, reserve
from inventory.repository import Contention, Inventory, TransactionRejected
from orderflow.dynamodb import ATTEMPTS, ConcurrentUpdate
from orderflow.events import Cause, OrderEvent
from orderflow.ids import derived_ulid
from tests.integration.support import Aws, Context, measured, module, order_event

PLACED, CANCELLED = "Order Placed", "Order Cancelled"


@pytest.fixture
def stock(aws: Aws) -> ModuleType:
    return module("inventory.handler")


def new_order() -> str:
    return f"ORD-{derived_ulid(str(uuid.uuid4()))}"


def tell(stock: ModuleType, detail_type: str, order_id: str, items: list[tuple[str, int]]) -> dict[str, Any]:
    event = order_event(detail_type, order_id, items)
    stock.handler(event, Context())
    return event


def types(aws: Aws, order_id: str) -> list[str]:
    item = aws.reservation(order_id)
    return [event["type"] for event in item["events"]] if item else []


def test_all_items_of_an_order_are_reserved(aws: Aws, stock: ModuleType) -> None:
    first, second, order_id = aws.add_product(stock=5), aws.add_product(stock=3), new_order()
    event = tell(stock, PLACED, order_id, [(first, 2), (second, 3)])
    assert (aws.stock(first), aws.stock(second)) == ((3, 2), (0, 3))
    item = aws.reservation(order_id)
    assert item is not None
    assert (item["status"], item["version"]) == ("RESERVED", 1)
    stored = item["events"][0]
    assert (stored["type"], stored["causationId"]) == ("Inventory Reserved", event["detail"]["metadata"]["eventId"])
    assert stored["correlationId"] == "correlation-1"


def test_one_lacking_item_leaves_everything_as_it_was_and_is_named(aws: Aws, stock: ModuleType) -> None:
    enough, lacking, order_id = aws.add_product(stock=5), aws.add_product(stock=1), new_order()
    unknown = "PROD-NOWHERE"
    tell(stock, PLACED, order_id, [(enough, 2), (lacking, 3), (unknown, 1)])
    assert (aws.stock(enough), aws.stock(lacking)) == ((5, 0), (1, 0))
    item = aws.reservation(order_id)
    assert item is not None
    assert item["status"] == "OUT_OF_STOCK"
    assert item["events"][0]["data"]["shortages"] == [
        {"productId": lacking, "asked": 3, "available": 1},
        {"productId": unknown, "asked": 1, "available": 0},
    ]


def test_reservations_and_shortages_are_counted_once_per_order(
    aws: Aws, stock: ModuleType, output: Callable[[], str]
) -> None:
    product, reserved, short = aws.add_product(stock=1), new_order(), new_order()
    for order_id in (reserved, reserved, short, short):
        tell(stock, PLACED, order_id, [(product, 1)])
    printed = output()
    assert (measured(printed, "StockReserved"), measured(printed, "StockShortages")) == ([1.0], [1.0])


def test_a_repeated_order_is_reserved_once(aws: Aws, stock: ModuleType) -> None:
    product, order_id = aws.add_product(stock=5), new_order()
    for _ in range(3):
        tell(stock, PLACED, order_id, [(product, 2)])
    assert aws.stock(product) == (3, 2)
    assert types(aws, order_id) == ["Inventory Reserved"]


def test_an_order_that_was_out_of_stock_stays_so_when_stock_comes_back(aws: Aws, stock: ModuleType) -> None:
    product, order_id = aws.add_product(stock=1), new_order()
    tell(stock, PLACED, order_id, [(product, 2)])
    aws.table("InventoryTableName").update_item(
        Key={"pk": f"PRODUCT#{product}"},
        UpdateExpression="SET available = :n",
        ExpressionAttributeValues={":n": 9},
    )
    tell(stock, PLACED, order_id, [(product, 2)])
    assert aws.stock(product) == (9, 0)
    assert types(aws, order_id) == ["Inventory Out-Of-Stock"]


def test_a_cancelled_order_gives_its_items_back_once(aws: Aws, stock: ModuleType) -> None:
    product, order_id = aws.add_product(stock=5), new_order()
    tell(stock, PLACED, order_id, [(product, 2)])
    for _ in range(2):
        tell(stock, CANCELLED, order_id, [(product, 2)])
    assert aws.stock(product) == (5, 0)
    assert types(aws, order_id) == ["Inventory Reserved", "Inventory Released"]


def test_what_was_reserved_is_given_back_whatever_the_cancellation_lists(aws: Aws, stock: ModuleType) -> None:
    product, order_id = aws.add_product(stock=5), new_order()
    tell(stock, PLACED, order_id, [(product, 2)])
    tell(stock, CANCELLED, order_id, [(product, 1)])
    assert aws.stock(product) == (5, 0)


def test_a_cancellation_that_comes_first_keeps_the_late_order_from_reserving(aws: Aws, stock: ModuleType) -> None:
    product, order_id = aws.add_product(stock=5), new_order()
    tell(stock, CANCELLED, order_id, [(product, 2)])
    tell(stock, PLACED, order_id, [(product, 2)])
    tell(stock, CANCELLED, order_id, [(product, 2)])
    assert aws.stock(product) == (5, 0)
    item = aws.reservation(order_id)
    assert item is not None
    assert item["status"] == "RELEASED"
    assert types(aws, order_id) == ["Inventory Released"]
    assert item["events"][0]["data"]["released"] == []


def test_an_order_that_got_nothing_gives_nothing_back(aws: Aws, stock: ModuleType) -> None:
    product, order_id = aws.add_product(stock=1), new_order()
    tell(stock, PLACED, order_id, [(product, 2)])
    tell(stock, CANCELLED, order_id, [(product, 2)])
    assert aws.stock(product) == (1, 0)
    assert types(aws, order_id) == ["Inventory Out-Of-Stock"]


def test_many_orders_at_once_never_sell_more_than_there_is(aws: Aws, stock: ModuleType) -> None:
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


def test_a_shortage_is_not_recorded_over_a_reservation_that_a_copy_of_the_event_made(
    aws: Aws, stock: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One copy of Order Placed finds a shortage; stock comes back; the other copy reserves; the first records."""
    product, order_id = aws.add_product(stock=1), new_order()
    create = stock.inventory.create

    def late_create(*arguments: Any) -> None:
        monkeypatch.setattr(stock.inventory, "create", create)
        aws.table("InventoryTableName").update_item(
            Key={"pk": f"PRODUCT#{product}"},
            UpdateExpression="SET available = :n",
            ExpressionAttributeValues={":n": 2},
        )
        tell(stock, PLACED, order_id, [(product, 2)])
        create(*arguments)

    monkeypatch.setattr(stock.inventory, "create", late_create)
    tell(stock, PLACED, order_id, [(product, 2)])
    assert aws.stock(product) == (0, 2)
    assert types(aws, order_id) == ["Inventory Reserved"]


class Conflicting:
    """A DynamoDB client whose first transactions are cancelled, as if by other writers of the same items."""

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
    stock: ModuleType, monkeypatch: pytest.MonkeyPatch, times: int, code: str = "TransactionConflict"
) -> list[int]:
    pauses: list[int] = []
    monkeypatch.setattr(stock.inventory, "_client", Conflicting(stock.inventory._client, times, code))
    monkeypatch.setattr(stock.inventory, "_pause", pauses.append)
    return pauses


@pytest.mark.parametrize("code", ["TransactionConflict", "ThrottlingError", "ProvisionedThroughputExceeded"])
def test_a_conflict_is_no_shortage_and_is_tried_again(
    aws: Aws, stock: ModuleType, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    product, order_id = aws.add_product(stock=5), new_order()
    pauses = conflicting(stock, monkeypatch, 3, code)
    tell(stock, PLACED, order_id, [(product, 2)])
    assert aws.stock(product) == (3, 2)
    assert pauses == [1, 2, 3]


def test_a_conflict_that_does_not_end_is_left_to_lambdas_retries(
    aws: Aws, stock: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    product, order_id = aws.add_product(stock=5), new_order()
    pauses = conflicting(stock, monkeypatch, ATTEMPTS)
    with pytest.raises(Contention, match=f"PRODUCT#{product}: TransactionConflict, after {ATTEMPTS} attempts"):
        tell(stock, PLACED, order_id, [(product, 2)])
    assert pauses == list(range(1, ATTEMPTS))
    assert aws.stock(product) == (5, 0)
    assert aws.reservation(order_id) is None


def test_a_malformed_product_item_fails_the_reservation_at_once_and_is_named(
    aws: Aws, stock: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound, malformed, order_id = aws.add_product(stock=5), aws.add_product(stock=5), new_order()
    aws.table("InventoryTableName").update_item(Key={"pk": f"PRODUCT#{malformed}"}, UpdateExpression="REMOVE reserved")
    pauses = conflicting(stock, monkeypatch, 0)
    with pytest.raises(TransactionRejected, match=f"^PRODUCT#{malformed}: ValidationError$") as raised:
        tell(stock, PLACED, order_id, [(sound, 2), (malformed, 2)])
    assert pauses == []
    assert aws.stock(sound) == (5, 0)
    assert aws.reservation(order_id) is None
    assert not is_transient(raised.typename, str(raised.value))


def test_a_release_of_more_than_is_reserved_fails_at_once_and_names_the_product(aws: Aws, stock: ModuleType) -> None:
    product, order_id = aws.add_product(stock=5), new_order()
    tell(stock, PLACED, order_id, [(product, 2)])
    aws.table("InventoryTableName").put_item(Item={"pk": f"PRODUCT#{product}", "available": 9, "reserved": 1})
    with pytest.raises(TransactionRejected, match=f"^PRODUCT#{product}: ConditionalCheckFailed$"):
        tell(stock, CANCELLED, order_id, [(product, 2)])
    assert aws.stock(product) == (9, 1)
    assert types(aws, order_id) == ["Inventory Reserved"]


def race(stock: ModuleType, monkeypatch: pytest.MonkeyPatch, event_type: str, items: list[tuple[str, int]]) -> None:
    """Let another event about an order be handled between the next read of its reservation and the decision on it."""
    load = stock.inventory.load
    before: Iterator[None] = iter([None])

    def raced_load(wanted: str) -> Any:
        stream = load(wanted)
        for _ in before:
            tell(stock, event_type, wanted, items)
        return stream

    monkeypatch.setattr(stock.inventory, "load", raced_load)


def test_a_cancellation_that_meets_the_order_decides_anew(
    aws: Aws, stock: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    product, order_id = aws.add_product(stock=5), new_order()
    race(stock, monkeypatch, PLACED, [(product, 2)])
    tell(stock, CANCELLED, order_id, [(product, 2)])
    assert aws.stock(product) == (5, 0)
    assert types(aws, order_id) == ["Inventory Reserved", "Inventory Released"]


def test_two_copies_of_a_cancellation_at_once_give_the_items_back_once(
    aws: Aws, stock: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A release depends on the version of the reservation: of this product, there is enough reserved for a second."""
    product, order_id = aws.add_product(stock=5), new_order()
    for each in (order_id, new_order()):
        tell(stock, PLACED, each, [(product, 2)])
    race(stock, monkeypatch, CANCELLED, [(product, 2)])
    tell(stock, CANCELLED, order_id, [(product, 2)])
    assert aws.stock(product) == (3, 2)
    assert types(aws, order_id) == ["Inventory Reserved", "Inventory Released"]


def test_a_reservation_that_changes_at_every_attempt_is_left_to_lambdas_retries(
    aws: Aws, stock: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    product, order_id = aws.add_product(stock=5), new_order()
    tell(stock, PLACED, order_id, [(product, 2)])
    monkeypatch.setattr(stock.inventory, "load", lambda _: None)
    with pytest.raises(ConcurrentUpdate):
        tell(stock, CANCELLED, order_id, [(product, 2)])
    assert aws.stock(product) == (3, 2)


def test_an_event_of_another_type_fails_and_is_named(aws: Aws, stock: ModuleType) -> None:
    product, order_id = aws.add_product(stock=5), new_order()
    with pytest.raises(ValueError, match="'Order Confirmed'"):
        tell(stock, "Order Confirmed", order_id, [(product, 2)])
    assert aws.stock(product) == (5, 0)
    assert aws.reservation(order_id) is None
