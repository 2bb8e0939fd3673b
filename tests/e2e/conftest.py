"""End-to-end tests of a local stack that they start, or of a deployed one (--stack NAME)."""

import json
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.customer import ADDRESS, PERSONAL
from tools.errors import AWS_ERRORS, explain
from tools.http import Answer, Api
from tools.own_stack import local_stack_of_own
from tools.personal_data import personal_data_in
from tools.seed import seed
from tools.stack import USERS, Stack, deployed_stack, sign_in

PATIENCE = 180.0
"""Seconds until a test of a local stack gives up waiting, long enough for a busy machine."""
DEPLOYED_PATIENCE = 300.0
"""Seconds until a test of a deployed stack gives up waiting: a new event source mapping needs minutes to start."""
DEPLOYED_PAUSE = 1.0
"""Seconds between two polls of a deployed stack; FilterLogEvents allows few calls per second and account."""
DEPLOYED_CALLERS = 3
"""Requests at a time to a deployed stack: all functions of a new account share ten concurrent executions."""
CLOCK_SKEW = 300.0
"""Seconds by which this machine's clock may differ from that of AWS; with more, AWS refuses requests."""
REASONS: Mapping[int, str] = {
    429: "the API throttles requests",
    500: "the function failed, which its log group shows, or Lambda throttled it",
    502: "API Gateway does not understand the function's answer",
    503: "API Gateway got no answer from the function, for example because the account's concurrency is used up",
    504: "the function did not answer within 30 seconds",
}
"""The usual causes of statuses that no test expects."""
DEPLOYED = pytest.StashKey[Stack]()


def pytest_configure(config: pytest.Config) -> None:
    """Find the deployed stack first, so that a missing region, credentials or stack is reported in one line."""
    if name := config.getoption("--stack"):
        try:
            config.stash[DEPLOYED] = deployed_stack(name)
        except AWS_ERRORS as error:
            raise pytest.UsageError(explain(error)) from error


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselects the tests that start runners of their own if the stack is deployed."""
    if config.getoption("--stack"):
        items[:] = [item for item in items if "stack" in getattr(item, "fixturenames", ())]


@pytest.fixture(scope="session")
def stack(request: pytest.FixtureRequest, calls: Path) -> Iterator[Stack]:
    """A running stack with signed-in users. At the end, no log of a stack on this machine may hold personal data."""
    deployed = request.config.stash.get(DEPLOYED, None)
    if deployed:
        yield replace(deployed, tokens={user: sign_in(deployed, user) for user in USERS})
    else:
        with local_stack_of_own("--calls", calls / "e2e.jsonl") as own:
            yield own
            assert own.logs is not None
            logged = [line for file in own.logs.iterdir() for line in file.read_text().splitlines()]
            assert logged, "the stack's functions have logged nothing"
            assert personal_data_in(logged, PERSONAL) == []


def eventually(condition: Callable[[], Any], patience: float = PATIENCE, pause: float = 0.02) -> Any:
    """Wait until a condition is true, and return its value.

    Args:
        condition: called until its value is true.
        patience: seconds after which the test fails.
        pause: seconds between two calls.
    """
    deadline = time.monotonic() + patience
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < deadline, f"not within {patience:.0f} s"
        time.sleep(pause)


@dataclass
class Shop:
    """A running application, as its users see it.

    Args:
        stack: the application.
        api: its HTTP API.
        begun: seconds since the epoch, before the first order of the tests.
    """

    stack: Stack
    api: Api
    begun: float = field(default_factory=time.time)

    @property
    def deployed(self) -> bool:
        """Whether the application runs in an account."""
        return self.stack.aws_endpoint is None

    def eventually(self, condition: Callable[[], Any]) -> Any:
        """Wait until a condition is true, with the patience that this stack needs, and return its value."""
        return eventually(condition, DEPLOYED_PATIENCE, DEPLOYED_PAUSE) if self.deployed else eventually(condition)

    def events_on_the_bus(self, order_id: str) -> list[dict[str, Any]]:
        """Return the events about an order that the bus has logged so far.

        The log masks e-mail and postal addresses; reading them needs the permission logs:Unmask.
        """
        pages = self.stack.client("logs").get_paginator("filter_log_events")
        lines = (
            line
            for page in pages.paginate(
                logGroupName=self.stack.outputs["EventLogGroupName"],
                filterPattern=f'"{order_id}"',
                startTime=int((self.begun - CLOCK_SKEW) * 1000),  # milliseconds
                unmask=True,
            )
            for line in page["events"]
        )
        events = (json.loads(line["message"]) for line in lines)
        return [event for event in events if event["detail"]["orderId"] == order_id]

    def product(self, stock: int, price: str = "10.00") -> str:
        """A product of the test's own."""
        product_id = f"TEST-{uuid.uuid4().hex[:12]}"
        product = {"productId": product_id, "name": "Thing", "price": Decimal(price), "stock": stock}
        seed(self.stack, [product])
        return product_id

    def stock(self, product_id: str) -> tuple[int, int]:
        """(available, reserved)."""
        table = self.stack.resource("dynamodb").Table(self.stack.outputs["InventoryTableName"])
        item = table.get_item(Key={"pk": f"PRODUCT#{product_id}"}, ConsistentRead=True)["Item"]
        return int(item["available"]), int(item["reserved"])

    def call(self, method: str, path: str, user: str | None = "customer", **more: Any) -> Answer:
        """Send a request. A test fails at once with the status and its usual reason if that is 429 or 5xx."""
        answer = self.api.call(method, path, user=user, **more)
        if answer.status == 429 or answer.status >= 500:
            reason = REASONS.get(answer.status, "the API failed")
            pytest.fail(f"{method} {path}: status {answer.status}; usually {reason}. The body: {answer.body}")
        return answer

    def place(self, *items: tuple[str, int], user: str = "customer", key: str | None = None) -> Answer:
        lines = [{"productId": product_id, "quantity": quantity} for product_id, quantity in items]
        headers = {"content-type": "application/json"} | ({"idempotency-key": key} if key else {})
        body = json.dumps({"items": lines, "shippingAddress": ADDRESS})
        return self.call("POST", "/orders", user, headers=headers, body=body)

    def outcome(self, order_id: str) -> dict[str, Any]:
        """The order, once it is settled."""

        def settled() -> dict[str, Any] | None:
            order = self.call("GET", f"/orders/{order_id}").body
            return order if order["status"] != "PENDING" else None

        found: dict[str, Any] = self.eventually(settled)
        return found


@pytest.fixture(scope="session")
def shop(stack: Stack) -> Shop:
    return Shop(stack, Api(stack, callers(stack)))


def callers(stack: Stack) -> int:
    """How many requests the tests may send to a stack at a time."""
    return 8 if stack.aws_endpoint else DEPLOYED_CALLERS
