"""Orders and products in DynamoDB."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from aws_lambda_powertools.metrics import MetricUnit
from boto3.dynamodb.conditions import Attr, Key

from orderflow.dynamodb import is_id, load_decide_save, read_batch
from orderflow.event_store import EventStore, Stream
from orderflow.observability import logger, metrics
from orderflow.pagination import Page, Position, read_limit, read_page
from orders.domain import Order, OrderStatus, Product, UnknownOrder, advance, fold, product_problems

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient
    from mypy_boto3_dynamodb.service_resource import DynamoDBServiceResource, Table

    from orderflow.events import StoredEvent

INDEX = "customer-orders"
LIST_FIELDS = ("orderId", "status", "placedAt", "totalAmount", "currency", "version")
POSITION = ("orderId", "placedAt")


class Orders:
    """The orders table."""

    def __init__(self, dynamodb: "DynamoDBServiceResource", table: str) -> None:
        self._table: Table = dynamodb.Table(table)
        self._store = EventStore(dynamodb.meta.client, table, "orderId")

    def load(self, order_id: str) -> Stream | None:
        """Returns one order's stream, or None if there is no such order."""
        return self._store.load(order_id) if is_id(order_id) else None

    def append(self, order: Order | None, event: "StoredEvent") -> Order:
        """Stores the next event of an order, or the first one of a new order, and returns the order with it.

        Raises:
            VersionConflict: another writer stored an event first; nothing was stored.
        """
        changed = fold([event]) if order is None else advance(order, event)
        self._store.append(changed.content["orderId"], [event], changed.version - 1, index_attributes(changed))
        return changed

    def update(
        self, order_id: str, decide: "Callable[[Order], StoredEvent | None]"
    ) -> "tuple[Order, StoredEvent | None]":
        """Stores the event that `decide` returns, if any, and returns the order afterwards, with that event.

        Decides again when another writer was first.

        Raises:
            UnknownOrder: there is no such order.
            ConcurrentUpdate: other writers were first at each attempt.
        """

        def load() -> Order:
            stream = self.load(order_id)
            if stream is None:
                raise UnknownOrder(order_id)
            return fold(stream.events)

        return load_decide_save(load, decide, self.append)

    def list_for(self, customer_id: str, status: OrderStatus | None, limit: int, after: dict[str, str] | None) -> Page:
        """Returns a customer's orders, newest first, in one status or in any."""
        query: dict[str, Any] = {
            "IndexName": INDEX,
            "KeyConditionExpression": Key("customerId").eq(customer_id),
            "ScanIndexForward": False,
            "Limit": read_limit(limit, filtered=status is not None),
        }
        if status:
            query["FilterExpression"] = Attr("status").eq(status.value)

        def read(start: Position | None) -> tuple[list[dict[str, Any]], Position | None]:
            answer = self._table.query(**query, **_start(start))
            items = [{name: item[name] for name in LIST_FIELDS} for item in answer["Items"]]
            return items, answer.get("LastEvaluatedKey")

        return read_page(read, {**after, "customerId": customer_id} if after else None, limit, POSITION)


def _start(position: Position | None) -> Any:
    return {"ExclusiveStartKey": position} if position else {}


def is_order_position(position: Mapping[str, str]) -> bool:
    """Whether a page of a customer's orders can end at this position."""
    return set(position) == set(POSITION)


def index_attributes(order: Order) -> dict[str, Any]:
    """Returns the attributes stored next to the events for the index and the list; the store adds the version."""
    return {
        "status": order.status.value,
        "customerId": order.content["customerId"],
        "placedAt": order.placed_at,
        "totalAmount": order.content["totalAmount"],
        "currency": order.content["currency"],
    }


class Products:
    """The products table. Rows that do not describe a product are left out, logged and counted."""

    def __init__(self, dynamodb: "DynamoDBServiceResource", table: str) -> None:
        self._client: DynamoDBClient = dynamodb.meta.client
        self._table = dynamodb.Table(table)

    def get(self, product_ids: Iterable[str]) -> dict[str, Product]:
        """Returns those of 1 to 100 products that exist, by id.

        Raises:
            IncompleteRead: DynamoDB left keys unprocessed several times.
        """
        keys = [{"productId": product_id} for product_id in product_ids]
        rows = read_batch(self._client, self._table.name, keys)
        return {product.product_id: product for product in _valid(rows)}

    def page(self, limit: int, after: dict[str, str] | None) -> Page:
        """Returns products for sale, unordered: at most `limit`, because it reads that many rows."""
        # Rows without a valid `active` are read too, so that they are reported
        not_inactive = Attr("active").not_exists() | Attr("active").ne(False)
        answer = self._table.scan(Limit=limit, FilterExpression=not_inactive, **_start(after))
        last = answer.get("LastEvaluatedKey")
        items = [{"productId": row.product_id, "name": row.name, "price": row.price} for row in _valid(answer["Items"])]
        return Page(items, {"productId": str(last["productId"])} if last else None)


def _valid(rows: Iterable[Mapping[str, Any]]) -> Iterator[Product]:
    for row in rows:
        if problems := list(product_problems(row)):
            logger.warning("invalid product left out", product_id=row["productId"], problems=problems)
            metrics.add_metric(name="InvalidProducts", unit=MetricUnit.Count, value=1)
        else:
            yield Product(row["productId"], row["name"], row["price"], row["active"])


def is_product_position(position: Mapping[str, str]) -> bool:
    """Whether a page of products can end at this position."""
    return set(position) == {"productId"}
