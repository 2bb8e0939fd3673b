"""The fixtures in events/ have the formats of AWS, and those of one order fit together from request to e-mail."""

import hashlib
import json
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from analytics.domain import fact_of
from event_publisher.domain import EventEntry, EventSource, PublishRequest, build_entries
from inventory import domain as inventory
from orderflow.contracts import DETAILS
from orderflow.dynamodb import deserialize
from orders import domain as orders
from orders.domain import order_id_for_key
from orders.models import PlaceOrderRequest
from tests.contract.source import source

ROOT = Path(__file__).parents[2]
EVENTS = ROOT / "events"
FIXTURES = sorted(
    f"{path.parent.name}/{path.stem}" for path in EVENTS.glob("*/*.json") if path.parent.name != "schemas"
)
SOURCES = {
    "OrdersTable": EventSource(orders.SOURCE, orders.compose),
    "InventoryTable": EventSource(inventory.SOURCE, inventory.compose),
}


def read(name: str) -> Any:
    return json.loads((EVENTS / f"{name}.json").read_text())


def functions() -> Mapping[str, Any]:
    return {
        name: found for name, found in source()["Resources"].items() if found["Type"] == "AWS::Serverless::Function"
    }


def logical_id(folder: str) -> str:
    return "".join(part.capitalize() for part in folder.split("_")) + "Function"


def triggers(folder: str, trigger: str) -> list[dict[str, Any]]:
    """The properties of a function's events of a type."""
    function = functions().get(logical_id(folder), {"Properties": {}})
    events = function["Properties"].get("Events", {}).values()
    return [event.get("Properties", {}) for event in events if event["Type"] == trigger]


FOLDERS = sorted({name.split("/")[0] for name in FIXTURES})
APIS = [folder for folder in FOLDERS if triggers(folder, "HttpApi")]


def for_trigger(trigger: str) -> list[str]:
    """The fixtures of the functions that have an event of a type."""
    return [name for name in FIXTURES if triggers(name.split("/")[0], trigger)]


def messages(name: str) -> list[dict[str, Any]]:
    """The messages of a queue's fixture."""
    found: list[dict[str, Any]] = read(name)["Records"]
    return found


def entries_of(record: dict[str, Any]) -> list[EventEntry]:
    """The events that the publisher publishes for a stream record."""
    request = PublishRequest.from_record(record)
    return build_entries(request, deserialize(record["dynamodb"]["NewImage"]), SOURCES[request.table], "a-bus")


def published(name: str) -> list[EventEntry]:
    """The events that the publisher publishes for a stream fixture."""
    return [entry for record in read(name)["Records"] for entry in entries_of(record)]


def only_detail(name: str) -> dict[str, Any]:
    """The detail of the only event in a stream fixture."""
    (entry,) = published(name)
    detail: dict[str, Any] = json.loads(entry.entry["Detail"])
    return detail


def test_every_folder_has_a_function() -> None:
    assert {logical_id(folder) for folder in FOLDERS} <= set(functions())


@pytest.mark.parametrize("name", for_trigger("EventBridgeRule"))
def test_an_event_matches_its_contract(name: str) -> None:
    event = read(name)
    DETAILS[event["source"], event["detail-type"]].model_validate(event["detail"])


@pytest.mark.parametrize("name", for_trigger("EventBridgeRule"))
def test_an_event_has_every_field_of_the_envelope(name: str) -> None:
    expected = {"version", "id", "detail-type", "source", "account", "time", "region", "resources", "detail"}
    assert set(read(name)) == expected


@pytest.mark.parametrize("name", for_trigger("DynamoDB"))
def test_a_stream_record_becomes_events_that_match_their_contracts(name: str) -> None:
    entries = published(name)
    assert entries
    for entry in entries:
        model = DETAILS[entry.entry["Source"], entry.entry["DetailType"]]
        model.model_validate_json(entry.entry["Detail"])


@pytest.mark.parametrize("name", for_trigger("DynamoDB"))
def test_a_batch_comes_from_one_table(name: str) -> None:
    assert len({record["eventSourceARN"] for record in read(name)["Records"]}) == 1


@pytest.mark.parametrize("name", for_trigger("SQS"))
def test_a_message_has_the_form_that_lambda_passes_to_a_function(name: str) -> None:
    queue = {"analytics": "AnalyticsQueue", "dlq_processor": "OrderEventsDlq"}[name.split("/")[0]]
    for message in messages(name):
        assert set(message) == {
            *("messageId", "receiptHandle", "body", "attributes", "messageAttributes", "md5OfBody"),
            *("eventSource", "eventSourceARN", "awsRegion"),
        }
        assert message["eventSourceARN"] == f"arn:aws:sqs:us-east-1:123456789012:{queue}"
        assert message["md5OfBody"] == hashlib.md5(message["body"].encode(), usedforsecurity=False).hexdigest()
        assert int(message["attributes"]["SentTimestamp"]) <= int(
            message["attributes"]["ApproximateFirstReceiveTimestamp"]
        )


@pytest.mark.parametrize("name", [name for name in FIXTURES if name.startswith("analytics/")])
def test_a_message_for_analytics_contains_an_event_that_matches_its_contract(name: str) -> None:
    for message in messages(name)[1 if name == "analytics/poison_message" else 0 :]:
        event = json.loads(message["body"])
        DETAILS[event["source"], event["detail-type"]].model_validate(event["detail"])
        assert fact_of(json.loads(message["body"], parse_float=Decimal)) is not None


def test_a_poison_message_is_not_valid_json_and_a_batch_contains_a_duplicate() -> None:
    with pytest.raises(json.JSONDecodeError):
        json.loads(messages("analytics/poison_message")[0]["body"])
    events = [json.loads(message["body"]) for message in messages("analytics/batch")]
    assert len({event["id"] for event in events}) == 3
    assert len({event["detail"]["metadata"]["eventId"] for event in events}) == 2


@pytest.mark.parametrize("name", for_trigger("ScheduleV2"))
def test_the_input_of_a_schedule_is_that_of_the_template(name: str) -> None:
    (schedule,) = triggers(name.split("/")[0], "ScheduleV2")
    (time,) = read(name).values()
    assert json.loads(schedule["Input"].replace("<aws.scheduler.scheduled-time>", time)) == read(name)
    assert datetime.fromisoformat(time).strftime("cron(%-M %-H * * ? *)") == schedule["ScheduleExpression"]


def routes(folder: str) -> dict[str, Any]:
    """The routes of an API's function, by route key."""
    return {f"{route['Method']} {route['Path']}": route for route in triggers(folder, "HttpApi")}


@pytest.mark.parametrize("folder", APIS)
def test_every_route_of_an_api_has_a_request(folder: str) -> None:
    requests = [read(name) for name in FIXTURES if name.startswith(f"{folder}/")]
    assert {request["routeKey"] for request in requests} == set(routes(folder))


@pytest.mark.parametrize("name", for_trigger("HttpApi"))
def test_a_request_is_for_a_route_of_the_api(name: str) -> None:
    request = read(name)
    context = request["requestContext"]
    assert request["routeKey"] == context["routeKey"]
    method, path = request["routeKey"].split(" ")
    assert method == context["http"]["method"]
    assert path.format(**request.get("pathParameters", {})) == request["rawPath"] == context["http"]["path"]
    is_public = routes(name.split("/")[0])[request["routeKey"]].get("Auth") == {"Authorizer": "NONE"}
    assert ("authorizer" in context) is not (is_public or name.endswith("/without_claims"))


@pytest.mark.parametrize("name", for_trigger("HttpApi"))
def test_claims_are_strings_as_api_gateway_passes_them(name: str) -> None:
    claims = read(name)["requestContext"].get("authorizer", {"jwt": {"claims": {}}})["jwt"]["claims"]
    assert all(isinstance(value, str) for value in claims.values())


@pytest.mark.parametrize("name", for_trigger("HttpApi"))
def test_the_content_length_is_the_length_of_the_body(name: str) -> None:
    request = read(name)
    assert request["headers"].get("content-length") == (str(len(request["body"])) if "body" in request else None)


@pytest.mark.parametrize("name", for_trigger("EventBridgeRule"))
def test_orders_are_for_products_of_the_seed_at_its_prices(name: str) -> None:
    seed = json.loads((EVENTS / "seed.json").read_text(), parse_float=Decimal)["products"]
    catalogue = {product["productId"]: (product["name"], product["price"]) for product in seed}
    detail = json.loads((EVENTS / f"{name}.json").read_text(), parse_float=Decimal)["detail"]
    assert all(catalogue[item["productId"]] == (item["name"], item["price"]) for item in detail["items"])
    assert detail["totalAmount"] == sum(item["price"] * item["quantity"] for item in detail["items"])


class TestAnOrderCanBeFollowed:
    """place_order_with_idempotency_key → … → order_confirmed. Only with a key is an order's id known in advance."""

    @pytest.mark.parametrize(
        ("request_name", "event_name"),
        [
            ("order_api/place_order_with_idempotency_key", "inventory/order_placed"),
            ("order_api/place_order_out_of_stock", "inventory/order_placed_out_of_stock"),
        ],
    )
    def test_from_the_request_to_the_order(self, request_name: str, event_name: str) -> None:
        request, detail = read(request_name), read(event_name)["detail"]
        subject = request["requestContext"]["authorizer"]["jwt"]["claims"]["sub"]
        assert detail["orderId"] == order_id_for_key(subject, request["headers"]["idempotency-key"])
        assert detail["customerId"] == subject
        assert detail["metadata"]["correlationId"] == request["requestContext"]["requestId"]
        lines = PlaceOrderRequest.model_validate_json(request["body"]).lines()
        assert [(line.product_id, line.quantity) for line in lines] == [
            (item["productId"], item["quantity"]) for item in detail["items"]
        ]

    def test_from_the_request_to_the_stored_event(self) -> None:
        request = PlaceOrderRequest.model_validate_json(read("order_api/place_order_with_idempotency_key")["body"])
        stored = read("event_publisher/order_placed")["Records"][0]["dynamodb"]["NewImage"]["events"]["L"][0]["M"]
        assert stored["data"]["M"]["requestHash"]["S"] == request.fingerprint()

    @pytest.mark.parametrize(
        ("stream_name", "event_name"),
        [
            ("event_publisher/order_placed", "inventory/order_placed"),
            ("event_publisher/inventory_reserved", "order_status/inventory_reserved"),
            ("event_publisher/order_confirmed", "email/order_confirmed"),
        ],
    )
    def test_from_the_stream_to_the_bus(self, stream_name: str, event_name: str) -> None:
        assert only_detail(stream_name) == read(event_name)["detail"]

    @pytest.mark.parametrize(
        ("queue_name", "place", "event_name"),
        [
            ("analytics/order_confirmed", 0, "email/order_confirmed"),
            ("analytics/batch", 1, "email/order_confirmed"),
            ("analytics/poison_message", 1, "email/order_cancelled"),
        ],
    )
    def test_from_the_bus_to_the_queue(self, queue_name: str, place: int, event_name: str) -> None:
        assert json.loads(messages(queue_name)[place]["body"]) == read(event_name)

    @pytest.mark.parametrize(
        ("failure_name", "event_name"),
        [
            ("undelivered", "inventory/order_placed"),
            ("undelivered_to_a_queue", "email/order_confirmed"),
            ("undelivered_to_a_log", "email/order_confirmed"),
            ("received_too_often", "email/order_cancelled"),
            ("non_retryable_email", "email/order_rejected"),
        ],
    )
    def test_from_the_bus_to_the_dlq(self, failure_name: str, event_name: str) -> None:
        (message,) = messages(f"dlq_processor/{failure_name}")
        assert json.loads(message["body"]) == read(event_name)

    def test_from_the_functions_to_the_dlq(self) -> None:
        by_lambda, by_publisher, record = (
            json.loads(messages(f"dlq_processor/{name}")[0]["body"])
            for name in ("failed_invocation", "non_retryable_event", "non_retryable_record")
        )
        assert by_lambda["requestPayload"] == read("email/order_confirmed")
        assert by_publisher["detail"] == only_detail("event_publisher/order_placed")
        (readable,) = read("event_publisher/order_confirmed")["Records"]
        assert record["dynamodb"]["Keys"] == readable["dynamodb"]["Keys"]
        with pytest.raises(KeyError, match="data"):
            entries_of(record)

    def test_from_the_schedule_to_the_dlq(self) -> None:
        (message,) = messages("dlq_processor/undelivered_by_schedule")
        assert json.loads(message["body"]) == read("sales_report/daily")

    def test_from_the_stream_to_the_dlq(self) -> None:
        (message,) = messages("dlq_processor/stream_batch")
        batch = json.loads(message["body"])["DDBStreamBatchInfo"]
        (record,) = read("event_publisher/order_confirmed")["Records"]
        assert batch["streamArn"] == record["eventSourceARN"]
        assert batch["startSequenceNumber"] == record["dynamodb"]["SequenceNumber"]

    def test_from_the_request_with_a_promotion_to_the_queue(self) -> None:
        request = read("order_api/place_order_with_promotion")
        body, detail = json.loads(request["body"]), json.loads(messages("analytics/batch")[0]["body"])["detail"]
        assert detail["customerId"] == request["requestContext"]["authorizer"]["jwt"]["claims"]["sub"]
        assert detail["metadata"]["correlationId"] == request["requestContext"]["requestId"]
        assert detail["metadata"]["promotionCode"] == body["promotionCode"]
        sold = [{name: item[name] for name in ("productId", "quantity", "price")} for item in detail["items"]]
        assert sold == body["items"]

    def test_each_event_names_the_event_that_caused_it(self) -> None:
        details = [
            only_detail(f"event_publisher/{name}") for name in ("order_placed", "inventory_reserved", "order_confirmed")
        ]
        placed, reserved, confirmed = (detail["metadata"] for detail in details)
        assert len({detail["orderId"] for detail in details}) == 1
        assert placed["correlationId"] == reserved["correlationId"] == confirmed["correlationId"]
        assert reserved["causationId"] == placed["eventId"]
        assert confirmed["causationId"] == reserved["eventId"]

    def test_the_cause_of_a_cancellation_is_the_request(self) -> None:
        request, detail = read("order_api/cancel_order"), read("inventory/order_cancelled")["detail"]
        assert (
            request["pathParameters"]["orderId"]
            == detail["orderId"]
            == only_detail("event_publisher/order_confirmed")["orderId"]
        )
        assert detail["metadata"]["causationId"] == request["requestContext"]["requestId"]
