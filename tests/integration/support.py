"""Helpers of the integration tests: the template's resources in moto, and calls of the APIs in API Gateway's format."""

import importlib
import json
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from types import ModuleType
from typing import Any

import boto3

from localaws.aws import ServiceError
from localaws.cloudformation import Stack
from localaws.lambda_runtime import function_name
from localaws.store import Store
from tests.customer import ADDRESS
from tests.documented import assert_documented


@dataclass
class Aws:
    """The template's resources in moto, with a record of streams, events and requests.

    Args:
        store: moto.
        stack: the template's resources.
        records: all stream records: pairs of the stream's ARN and the record.
        published: all entries that PutEvents accepted.
        answer: returns the result of PutEvents for an entry; tests replace it.
        requests: all requests of the functions to AWS: pairs of the operation and its parameters.
    """

    store: Store
    stack: Stack
    records: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    published: list[dict[str, Any]] = field(default_factory=list)
    answer: Callable[[dict[str, Any]], dict[str, str]] = lambda _: {}
    requests: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    @property
    def resource(self) -> Any:
        return boto3.resource("dynamodb")

    def table(self, output: str) -> Any:
        return self.resource.Table(self.stack.outputs[output])

    def idempotency_table(self) -> Any:
        return self.resource.Table(self.stack.resources["IdempotencyTable"].physical_id)

    @contextmanager
    def lost_answers(self, path: str) -> Iterator[None]:
        """Execute the calls of a path, but close the connection without a response."""
        before = self.store.on_call

        def hang_up(request: Any, execute: Any) -> Any:
            found = execute(request)
            return None if request.path.startswith(path) else found

        self.store.on_call = hang_up
        try:
            yield
        finally:
            self.store.on_call = before

    def put_events(self, entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
        answers = [self.answer(entry) for entry in entries]
        self.published += [entry for entry, answer in zip(entries, answers, strict=True) if "ErrorCode" not in answer]
        return [answer or {"EventId": str(uuid.uuid4())} for answer in answers]

    def records_of(self, key: str) -> list[dict[str, Any]]:
        """Returns the stream records of an item, given by its partition key."""
        return [record for _, record in self.records if {"S": key} in record["dynamodb"]["Keys"].values()]

    def dlq(self) -> list[dict[str, Any]]:
        """Receives and deletes the messages in the DLQ."""
        queue = boto3.client("sqs")
        url = self.stack.outputs["OrderEventsDlqUrl"]
        found: list[dict[str, Any]] = []
        while batch := queue.receive_message(QueueUrl=url, MaxNumberOfMessages=10, MessageAttributeNames=["All"]).get(
            "Messages"
        ):
            found += [dict(message) for message in batch]
            for message in batch:
                queue.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
        return found

    def add_product(self, price: str = "10.00", stock: int | None = 100, *, active: bool = True) -> str:
        """Creates a product with a new ID. If `stock` is None, it has no inventory item."""
        product_id = f"PROD-{uuid.uuid4().hex[:12].upper()}"
        product = {"productId": product_id, "name": "Thing", "price": Decimal(price), "active": active}
        self.table("ProductsTableName").put_item(Item=product)
        if stock is not None:
            item = {"pk": f"PRODUCT#{product_id}", "available": stock, "reserved": 0}
            self.table("InventoryTableName").put_item(Item=item)
        return product_id

    def spoil_product(self, product_id: str, **changes: Any) -> None:
        """Changes attributes of a product's item in the products table. None removes an attribute."""
        table = self.table("ProductsTableName")
        row = {**table.get_item(Key={"productId": product_id})["Item"], **changes}
        table.put_item(Item={name: value for name, value in row.items() if value is not None})

    def stock(self, product_id: str) -> tuple[int, int]:
        """Returns (available, reserved) of a product."""
        item = self.table("InventoryTableName").get_item(Key={"pk": f"PRODUCT#{product_id}"})["Item"]
        return int(item["available"]), int(item["reserved"])

    def reservation(self, order_id: str) -> dict[str, Any] | None:
        found = self.table("InventoryTableName").get_item(Key={"pk": f"RESERVATION#{order_id}"})
        item: dict[str, Any] | None = found.get("Item")
        return item


def module(name: str) -> ModuleType:
    """Imports a module of a function. It reads its settings during the import."""
    return importlib.import_module(name)


@dataclass
class Context:
    """The part of the Lambda context that Powertools and the functions read."""

    function_name: str = "test"
    memory_limit_in_mb: int = 512
    invoked_function_arn: str = "arn:aws:lambda:us-east-1:123456789012:function:test"
    aws_request_id: str = "00000000-0000-0000-0000-000000000000"
    remaining_milliseconds: int = 29_000

    def get_remaining_time_in_millis(self) -> int:
        return self.remaining_milliseconds


@dataclass
class Answer:
    """An HTTP response."""

    status: int
    headers: dict[str, str]
    body: Any


@dataclass
class Api:
    """Calls an API's function with API Gateway's events. Checks every response against the OpenAPI document."""

    module: ModuleType
    claims: dict[str, str]
    context: Context = field(default_factory=Context)

    def as_(self, subject: str, **claims: str) -> "Api":
        """Returns the same API with another caller."""
        return Api(self.module, {**self.claims, "sub": subject, **claims})

    def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        headers: dict[str, str] | None = None,
        query: dict[str, str] | None = None,
        claims: dict[str, str] | None = None,
    ) -> Answer:
        event: dict[str, Any] = {
            "version": "2.0",
            "routeKey": f"{method} {path}",
            "rawPath": path,
            "rawQueryString": "",
            "headers": {"content-type": "application/json", **(headers or {})},
            "requestContext": {
                "http": {"method": method, "path": path},
                "requestId": str(uuid.uuid4()),
                "stage": "$default",
                "authorizer": {"jwt": {"claims": self.claims if claims is None else claims}},
            },
            "isBase64Encoded": False,
        }
        if query:
            event["queryStringParameters"] = query
        if body is not None:
            event["body"] = body if isinstance(body, str) else json.dumps(body)
        answer = self.module.handler(event, self.context)
        headers = {name.lower(): value for name, value in answer["headers"].items()}
        found = Answer(answer["statusCode"], headers, json.loads(answer["body"]))
        assert_documented(method, path, found.status, found.headers, found.body)
        return found

    def place(self, *items: dict[str, Any], key: str | None = None, **more: Any) -> Answer:
        headers = {} if key is None else {"idempotency-key": key}
        body = {"items": list(items), "shippingAddress": ADDRESS, **more}
        return self.call("POST", "/orders", body, headers=headers)


def answering(run: Callable[[str, bytes], Any]) -> Callable[..., tuple[int, dict[str, str], bytes]]:
    """Returns a value for Store.on_invoke.

    Args:
        run: gets the function's name and the payload. Returns an object with `payload` and `function_error`, or raises
            ServiceError.
    """

    def answer(
        function: str, _qualifier: str | None, headers: Mapping[str, str], payload: bytes
    ) -> tuple[int, dict[str, str], bytes]:
        assert headers.get("X-Amz-Invocation-Type", "RequestResponse") == "RequestResponse"
        try:
            result = run(function_name(function), payload)
        except ServiceError as error:
            return error.status, {"x-amzn-errortype": error.code}, json.dumps({"message": error.message}).encode()
        return 200, {"x-amz-function-error": result.function_error} if result.function_error else {}, result.payload

    return answer


def line(product_id: str, quantity: int = 1, **more: Any) -> dict[str, Any]:
    return {"productId": product_id, "quantity": quantity, **more}


def event_of(entry: dict[str, Any]) -> dict[str, Any]:
    """Returns the event that a consumer gets for an entry of PutEvents."""
    return {
        "version": "0",
        "id": str(uuid.uuid4()),
        "source": entry["Source"],
        "detail-type": entry["DetailType"],
        "time": "2026-11-21T18:36:00Z",
        "detail": json.loads(entry["Detail"]),
    }


def order_event(detail_type: str, order_id: str, items: list[tuple[str, int]]) -> dict[str, Any]:
    """Returns an order event as EventBridge delivers it."""
    return {
        "version": "0",
        "id": str(uuid.uuid4()),
        "source": "orders.service",
        "detail-type": detail_type,
        "time": "2026-11-21T18:36:00Z",
        "detail": {
            "version": "1.0",
            "orderId": order_id,
            "customerId": "customer-1",
            "customerEmail": "ada@example.com",
            "items": [
                {"productId": product_id, "name": "Thing", "quantity": quantity, "price": 10.5}
                for product_id, quantity in items
            ],
            "totalAmount": 10.5 * sum(quantity for _, quantity in items),
            "currency": "USD",
            "shippingAddress": ADDRESS,
            "metadata": {
                "source": "web",
                "eventId": f"event-{uuid.uuid4()}",
                "sequence": 1,
                "correlationId": "correlation-1",
                "causationId": "cause-1",
                "timestamp": "2026-11-21T18:36:00.123Z",
            },
        },
    }


def log_lines(output: str) -> list[dict[str, Any]]:
    """Parses the output of functions: one JSON object per line."""
    return [json.loads(text) for text in output.splitlines()]


def measured(output: str, name: str) -> list[float]:
    """Returns the values of a metric in the output of functions."""
    return [value for line in log_lines(output) if name in line for value in line[name]]


@contextmanager
def subscribed(topic: str) -> Iterator[Callable[[], list[dict[str, str]]]]:
    """Subscribes to a topic, given by its ARN. Yields a function that returns the messages since its last call."""
    topics, queues = boto3.client("sns"), boto3.client("sqs")
    url = queues.create_queue(QueueName=f"subscriber-{uuid.uuid4().hex}")["QueueUrl"]
    arn = queues.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    subscription = topics.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn)["SubscriptionArn"]

    def received() -> list[dict[str, str]]:
        messages = queues.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages", [])
        for message in messages:
            queues.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
        return [json.loads(message["Body"]) for message in messages]

    yield received
    topics.unsubscribe(SubscriptionArn=subscription)
    queues.delete_queue(QueueUrl=url)
