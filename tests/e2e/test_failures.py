"""Each kind of failure, end to end: a failed event names consumer and reason, other orders are not affected, and one
redrive completes the order.

The application that runs here has the bugs of tests/layer/bugs/failures.py. A bug affects the orders for a product with
its name, from `plant` until `fix`. Local only: it needs fast time.
"""

import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from localaws.tests.runner import running
from tests.customer import ADDRESS
from tests.e2e.conftest import Shop, eventually
from tests.variants import Template, add_bugs, variant
from tools.http import Api
from tools.own_stack import PREPARE
from tools.seed import seed
from tools.stack import local_stack
from tools.unpark import unpark

TIME_SCALE = 50
TIMEOUTS = {
    "OrderApiFunction": 180,
    "OrderStatusFunction": 180,
    "InventoryFunction": 180,
    "EmailFunction": 180,
    "SalesReportFunction": 180,
    "AnalyticsFunction": 180,  # as long as its queue hides a message
    "EventPublisherFunction": 900,
    "DlqProcessorFunction": 900,
    "BackofficeApiFunction": 900,
}
"""Seconds. A function does not run faster in fast time, so it needs a longer timeout. Functions that invoke others need
the longest, because they wait until those have started."""


def for_fast_time(template: Template) -> None:
    resources = template["Resources"]
    for name, seconds in TIMEOUTS.items():
        resources[name]["Properties"]["Timeout"] = seconds
    dlq = resources["OrderEventsDlq"]["Properties"]
    dlq["VisibilityTimeout"] = TIMEOUTS["DlqProcessorFunction"]
    dlq["RedrivePolicy"]["maxReceiveCount"] = 1


class Bugs:
    """The bugs of the application; each has a file in the folder while it is planted."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def plant(self, name: str) -> None:
        (self._folder / name).touch()

    def fix(self, name: str) -> None:
        (self._folder / name).unlink()


@dataclass
class Failing:
    """The application with bugs, running.

    Args:
        shop: as its users see it.
        bugs: the bugs of the functions.
        faults: SES fails as long as this file exists.
    """

    shop: Shop
    bugs: Bugs
    faults: Path

    def product(self, bug: str = "GOOD") -> str:
        """The id of a new product with a stock of 10. Its name selects the bug."""
        product_id = f"{bug}-{uuid.uuid4().hex[:12]}"
        seed(self.shop.stack, [{"productId": product_id, "name": "Thing", "price": Decimal("10.00"), "stock": 10}])
        return product_id

    def order(self, product_id: str, promotion: str | None = None) -> str:
        """The id of a new order for one piece."""
        body: dict[str, Any] = {"items": [{"productId": product_id, "quantity": 1}], "shippingAddress": ADDRESS}
        if promotion:
            body["promotionCode"] = promotion
        headers = {"content-type": "application/json"}
        answer = self.shop.call("POST", "/orders", headers=headers, body=json.dumps(body))
        assert answer.status == 201
        return str(answer.body["orderId"])

    def records(self, consumer: str, order_id: str) -> list[dict[str, Any]]:
        """A consumer's failed events about an order."""
        found: list[dict[str, Any]] = []
        cursor = ""
        while True:
            path = f"/admin/failed-events?consumer={consumer}&limit=100{cursor}"
            page = self.shop.call("GET", path, user="staff").body
            found += [item for item in page["items"] if item.get("orderId") == order_id]
            if "nextCursor" not in page:
                return found
            cursor = f"&cursor={page['nextCursor']}"

    def record(self, consumer: str, order_id: str, *statuses: str) -> dict[str, Any]:
        """The one failed event of a consumer about an order, once it has one of these statuses."""

        def reached() -> dict[str, Any] | None:
            found = self.records(consumer, order_id)
            return found[0] if found and found[0]["status"] in statuses else None

        record: dict[str, Any] = eventually(reached)
        assert len(self.records(consumer, order_id)) == 1
        return record

    def both_records(self, consumer: str, order_id: str, status: str) -> list[dict[str, Any]]:
        """The two failed events of a consumer about an order, once they have this status."""

        def reached() -> list[dict[str, Any]] | None:
            found = self.records(consumer, order_id)
            return found if [record["status"] for record in found] == [status, status] else None

        records: list[dict[str, Any]] = eventually(reached)
        return records

    def redrive(self, record: dict[str, Any]) -> str:
        """Redrives a failed event. Returns the outcome."""
        answer = self.shop.call("POST", f"/admin/failed-events/{record['id']}/redrive", user="staff")
        assert answer.status == 200, answer.body
        return str(answer.body["outcome"])

    def assert_confirmed_once(self, order_id: str, product_id: str) -> None:
        """Asserts that the order was confirmed, once."""
        assert self.shop.outcome(order_id)["status"] == "CONFIRMED"
        assert self.shop.stock(product_id) == (9, 1)
        events = self.shop.call("GET", f"/orders/{order_id}/events").body["items"]
        assert [event["detail-type"] for event in events] == ["Order Placed", "Order Confirmed"]

    def is_parked(self, order_id: str) -> bool:
        """Whether a message about an order is in the parking queue."""
        url, sqs = self.shop.stack.outputs["OrderEventsParkingUrl"], self.shop.stack.client("sqs")
        answer = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, VisibilityTimeout=0)
        return any(order_id in message["Body"] for message in answer.get("Messages", []))

    def promoted(self, promotion: str) -> tuple[int, int]:
        """How many orders of a promotion were counted as placed, and as confirmed."""
        items = self.shop.call("GET", "/admin/promotions", user="staff").body["items"]
        counted = [item for item in items if item["promotionCode"] == promotion]
        return (counted[0]["placed"]["orders"], counted[0]["confirmed"]["orders"]) if counted else (0, 0)


@pytest.fixture(scope="module")
def failing(tmp_path_factory: pytest.TempPathFactory, calls: Path) -> Iterator[Failing]:
    folder = tmp_path_factory.mktemp("failing")
    flags, faults = folder / "bugs", folder / "faults.json"
    flags.mkdir()

    def change(template: Template) -> None:
        for_fast_time(template)
        add_bugs(template, "bugs.failures", PLANTED_BUGS=str(flags))

    down = {"call": "sesv2.SendEmail", "kind": "error", "probability": 1}
    faults.write_text(json.dumps({"seed": 1, "faults": [down]}))
    options = ["--quiet", "--time-scale", str(TIME_SCALE), "--fault", str(faults), "--prepare", PREPARE]
    options += ["--calls", str(calls / "failures.jsonl")]
    with running(variant(folder, change), *options, "--parameter", "SenderEmail=shop@example.com"):
        stack = local_stack(folder / "state" / "stack.json")
        yield Failing(Shop(stack, Api(stack, connections=4)), Bugs(flags), faults)


def test_a_function_that_always_raises(failing: Failing) -> None:
    failing.bugs.plant("RAISES")
    product, good_product = failing.product("RAISES"), failing.product()
    order, good = failing.order(product), failing.order(good_product)
    record = failing.record("inventory", order, "NEW")
    assert (record["kind"], record["reason"], record["failures"]) == ("INVOCATION", "ValueError", 1)
    assert failing.shop.call("GET", f"/orders/{order}").body["status"] == "PENDING"
    failing.assert_confirmed_once(good, good_product)
    assert failing.redrive(record) == "FAILED"  # as long as the bug is there
    failing.bugs.fix("RAISES")
    assert failing.redrive(record) == "RESOLVED"
    failing.assert_confirmed_once(order, product)


def test_a_function_that_times_out(failing: Failing) -> None:
    failing.bugs.plant("SLEEPS")
    product = failing.product("SLEEPS")
    order = failing.order(product)
    record = failing.record("inventory", order, "PARKED")  # after three retries of the processor's own
    assert (record["kind"], record["reason"], record["attempts"]) == ("INVOCATION", "Sandbox.Timedout", 3)
    failing.bugs.fix("SLEEPS")
    assert failing.redrive(record) == "RESOLVED"
    failing.assert_confirmed_once(order, product)


def test_a_function_throttled_to_zero(failing: Failing) -> None:
    name = failing.shop.stack.outputs["InventoryFunctionName"]
    functions = failing.shop.stack.client("lambda")
    functions.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=0)
    product = failing.product()
    order = failing.order(product)
    record = failing.record("inventory", order, "NEW")
    assert (record["kind"], record["reason"]) == ("INVOCATION", "ZeroReservedConcurrency")
    functions.delete_function_concurrency(FunctionName=name)
    assert failing.redrive(record) == "RESOLVED"
    failing.assert_confirmed_once(order, product)


def test_a_poison_stream_record_between_good_ones(failing: Failing) -> None:
    failing.bugs.plant("POISON")
    product, good_product = failing.product("POISON"), failing.product()
    before, order, after = failing.order(good_product), failing.order(product), failing.order(good_product)
    record = failing.record("event-publisher", order, "NEW")
    assert (record["kind"], record["reason"]) == ("NON_RETRYABLE", "UnreadableRecord")
    assert {failing.shop.outcome(good)["status"] for good in (before, after)} == {"CONFIRMED"}
    failing.bugs.fix("POISON")
    assert failing.redrive(record) == "RESOLVED"
    failing.assert_confirmed_once(order, product)


def test_an_event_that_is_too_large(failing: Failing) -> None:
    failing.bugs.plant("LARGE")
    product = failing.product("LARGE")
    order = failing.order(product)
    record = failing.record("event-publisher", order, "NEW")
    assert (record["kind"], record["reason"]) == ("NON_RETRYABLE", "EventTooLarge")
    failing.bugs.fix("LARGE")
    assert failing.redrive(record) == "RESOLVED"
    failing.assert_confirmed_once(order, product)


def test_a_poison_message_in_a_batch(failing: Failing) -> None:
    failing.bugs.plant("UNCOUNTED")
    promotion = uuid.uuid4().hex
    order = failing.order(failing.product("UNCOUNTED"), promotion)
    failing.order(failing.product(), promotion)
    eventually(lambda: failing.promoted(promotion) == (1, 1))  # the good one's
    # The bad one was placed and confirmed; three retries of the processor's own did not help
    records = failing.both_records("analytics", order, "PARKED")
    assert {(record["kind"], record["reason"]) for record in records} == {("QUEUE", "BatchItemFailure")}
    failing.bugs.fix("UNCOUNTED")
    assert [failing.redrive(record) for record in records] == ["RESOLVED", "RESOLVED"]
    assert failing.promoted(promotion) == (2, 2)


def test_ses_down_and_up_again(failing: Failing) -> None:
    mails = failing.shop.stack.mails
    assert mails is not None
    order = failing.order(failing.product())
    record = failing.record("email", order, "PARKED")
    assert (record["kind"], record["reason"], record["attempts"]) == ("INVOCATION", "NotAccepted", 3)
    assert list(mails.glob(f"*{order.lower()}*")) == []
    failing.faults.unlink()
    assert failing.redrive(record) == "RESOLVED"
    assert len(list(mails.glob(f"*{order.lower()}*"))) == 1


def test_the_dlq_processor_itself_fails(failing: Failing) -> None:
    failing.bugs.plant("JAMS")
    product = failing.product("JAMS")
    order = failing.order(product)
    eventually(lambda: failing.is_parked(order))
    assert failing.records("inventory", order) == []
    failing.bugs.fix("JAMS")
    assert unpark(failing.shop.stack) >= 1
    record = failing.record("inventory", order, "NEW")
    assert record["reason"] == "ValueError"
    assert failing.redrive(record) == "RESOLVED"
    failing.assert_confirmed_once(order, product)


def test_a_missing_queue(failing: Failing) -> None:
    queue, url = failing.shop.stack.client("sqs"), failing.shop.stack.outputs["AnalyticsQueueUrl"]
    promotion = uuid.uuid4().hex
    queue.delete_queue(QueueUrl=url)  # the last test: nothing is counted by itself from here on
    order = failing.order(failing.product(), promotion)
    failing.shop.outcome(order)
    records = failing.both_records("analytics", order, "NEW")
    assert {(record["kind"], record["reason"]) for record in records} == {("UNDELIVERED", "NO_RESOURCE")}
    assert [failing.redrive(record) for record in records] == ["RESOLVED", "RESOLVED"]
    assert failing.promoted(promotion) == (1, 1)
