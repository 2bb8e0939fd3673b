"""HTTP in, outcome out: against a stack of the tests' own on this machine, or a deployed one (--stack NAME)."""

import json
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tools.http import Answer, Api
from tools.own_stack import local_stack_of_own
from tools.seed import seed
from tools.stack import USERS, Stack, deployed_stack, sign_in

ADDRESS = {"street": "1 Main St", "city": "Seattle", "state": "WA", "zipCode": "98101", "country": "US"}
PATIENCE = 60.0
"""Seconds after which an outcome counts as lost."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out, against a deployed stack, the tests that start runners of their own."""
    if config.getoption("--stack"):
        items[:] = [item for item in items if "stack" in getattr(item, "fixturenames", ())]


@pytest.fixture(scope="session")
def stack(request: pytest.FixtureRequest, calls: Path) -> Iterator[Stack]:
    """A running stack with signed-in users."""
    name = request.config.getoption("--stack")
    if name:
        deployed = deployed_stack(name)
        yield replace(deployed, tokens={user: sign_in(deployed, user) for user in USERS})
    else:
        with local_stack_of_own("--calls", calls / "e2e.jsonl") as own:
            yield own


def eventually(condition: Callable[[], Any], patience: float = PATIENCE) -> Any:
    """What the condition gives, as soon as that is true."""
    deadline = time.monotonic() + patience
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < deadline, f"not within {patience:.0f} s"
        time.sleep(0.02)


@dataclass
class Shop:
    """A running application, as its users see it."""

    stack: Stack
    api: Api

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
        return self.api.call(method, path, user=user, **more)

    def place(self, *items: tuple[str, int], user: str = "customer", key: str | None = None) -> Answer:
        lines = [{"productId": product_id, "quantity": quantity} for product_id, quantity in items]
        headers = {"content-type": "application/json"} | ({"idempotency-key": key} if key else {})
        body = json.dumps({"items": lines, "shippingAddress": ADDRESS})
        return self.api.call("POST", "/orders", user=user, headers=headers, body=body)

    def outcome(self, order_id: str) -> dict[str, Any]:
        """The order, once it is settled."""

        def settled() -> dict[str, Any] | None:
            order = self.call("GET", f"/orders/{order_id}").body
            return order if order["status"] != "PENDING" else None

        found: dict[str, Any] = eventually(settled)
        return found


@pytest.fixture(scope="session")
def shop(stack: Stack) -> Shop:
    return Shop(stack, Api(stack, connections=8))
