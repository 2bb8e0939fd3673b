"""Orders and products in DynamoDB."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from boto3.dynamodb.conditions import Attr, Key

from orderflow.dynamodb import read_batch
from orderflow.event_store import EventStore, Stream
from orderflow.pagination import Page, Position, read_limit, read_page
from orders.domain import InvalidProduct, Order, OrderStatus, Product, advance, fold, product_of

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient
    from mypy_boto3_dynamodb.service_resource import DynamoDBServiceResource, Table

    from orderflow.events import StoredEvent

INDEX = "customer-orders"
LIST_FIELDS = ("orderId", "status", "placedAt", "totalAmount", "currency", "version")
POSITION = ("orderId", "placedAt")


class Orders:
    """The orders table.

    Args:
        dynamodb: the DynamoDB resource.
        table: the table's name.
    """

    def __init__(self, dynamodb: "DynamoDBServiceResource", table: str) -> None:
        self._table: Table = dynamodb.Table(table)
        self._store = EventStore(dynamodb.meta.client, table, "orderId")

    def load(self, order_id: str) -> Stream | None:
        """One order's stream, or None."""
        return self._store.load(order_id)

    def append(self, order: Order | None, event: "StoredEvent") -> Order:
        """Store an order's next event.

        Args:
            order: the order that the event was decided on; None for a new one.
            event: the event.

        Returns:
            The order with the event.

        Raises:
            VersionConflict: another writer came first.
        """
        changed = fold([event]) if order is None else advance(order, event)
        self._store.append(changed.content["orderId"], [event], changed.version - 1, index_attributes(changed))
        return changed

    def list_for(self, customer_id: str, status: OrderStatus | None, limit: int, after: dict[str, str] | None) -> Page:
        """A customer's orders, newest first.

        Args:
            customer_id: whose.
            status: only those, or None for all.
            limit: the most to return.
            after: where an earlier page ended.
        """

        def read(start: Position | None) -> tuple[list[dict[str, Any]], Position | None]:
            answer = self._table.query(**_query(customer_id, status, limit, start))
            return _selected(answer["Items"], LIST_FIELDS), answer.get("LastEvaluatedKey")

        return read_page(read, {**after, "customerId": customer_id} if after else None, limit, POSITION)


def _query(customer_id: str, status: OrderStatus | None, limit: int, start: Position | None) -> dict[str, Any]:
    query: dict[str, Any] = {
        "IndexName": INDEX,
        "KeyConditionExpression": Key("customerId").eq(customer_id),
        "ScanIndexForward": False,
        "Limit": read_limit(limit, filtered=status is not None),
    }
    if status:
        query["FilterExpression"] = Attr("status").eq(status.value)
    if start:
        query["ExclusiveStartKey"] = start
    return query


def _selected(items: Iterable[Mapping[str, Any]], names: Iterable[str]) -> list[dict[str, Any]]:
    return [{name: item[name] for name in names} for item in items]


def is_order_position(position: Mapping[str, str]) -> bool:
    """Whether a page of a customer's orders can end there."""
    return set(position) == set(POSITION)


def index_attributes(order: Order) -> dict[str, Any]:
    """What stands beside an order's events, for the index, the list and its filter; the store adds the version."""
    return {
        "status": order.status.value,
        "customerId": order.content["customerId"],
        "placedAt": order.placed_at,
        "totalAmount": order.content["totalAmount"],
        "currency": order.content["currency"],
    }


class Products:
    """The catalogue. Rows that do not describe a product are left out.

    Args:
        dynamodb: the DynamoDB resource.
        table: the table's name.
        on_invalid: is called for each row that is left out.
    """

    def __init__(
        self, dynamodb: "DynamoDBServiceResource", table: str, on_invalid: Callable[[InvalidProduct], None]
    ) -> None:
        self._client: DynamoDBClient = dynamodb.meta.client
        self._table = dynamodb.Table(table)
        self._on_invalid = on_invalid

    def get(self, product_ids: Iterable[str]) -> dict[str, Product]:
        """Returns the products that exist, by id.

        Args:
            product_ids: at most 100, as many as BatchGetItem takes.

        Raises:
            IncompleteRead: DynamoDB was too busy to answer in full.
        """
        keys = [{"productId": product_id} for product_id in product_ids]
        rows = read_batch(self._client, self._table.name, keys)
        return {product.product_id: product for product in self._valid(rows)}

    def page(self, limit: int, after: dict[str, str] | None) -> Page:
        """Products for sale, in no order.

        Args:
            limit: the most to read; those not for sale are left out of the page.
            after: where an earlier page ended.
        """
        # Rows without a valid `active` are read too, so that they are reported
        not_inactive = Attr("active").not_exists() | Attr("active").ne(False)
        scan: Any = {"Limit": limit, "FilterExpression": not_inactive}
        if after:
            scan["ExclusiveStartKey"] = after
        answer = self._table.scan(**scan)
        last = answer.get("LastEvaluatedKey")
        items = [
            {"productId": product.product_id, "name": product.name, "price": product.price}
            for product in self._valid(answer["Items"])
        ]
        return Page(items, {"productId": str(last["productId"])} if last else None)

    def _valid(self, rows: Iterable[Mapping[str, Any]]) -> Iterator[Product]:
        for row in rows:
            try:
                yield product_of(row)
            except InvalidProduct as invalid:
                self._on_invalid(invalid)


def is_product_position(position: Mapping[str, str]) -> bool:
    """Whether a page of products can end there."""
    return set(position) == {"productId"}
