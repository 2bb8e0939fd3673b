"""Sends each fixture of events/order_api/ to a temporary local stack, and shows responses, outcomes and events."""

import base64
import json
import sys
import textwrap
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tools.errors import CommandError, one_line_errors
from tools.http import Answer, Api
from tools.own_stack import local_stack_of_own
from tools.reconcile import BusRecord

CASES = Path("events/order_api")
OUTCOME_SECONDS = 30
SENT_HEADERS = ("content-type", "idempotency-key")
"""The headers of a fixture that are sent. The others were added by API Gateway."""

FIXTURE_ORDER = "ORD-6V5P7GG0RPDMGJQ01WCPTTA70T"
"""The order that fixtures read and cancel. The demo sends the latest order of the same user instead."""

OUTCOMES = (
    {"Order Placed", "Inventory Reserved", "Order Confirmed"},
    {"Order Placed", "Inventory Out-Of-Stock", "Order Rejected"},
    {"Order Cancelled", "Inventory Released"},
)
"""The detail-types after which an order is settled: confirmed, rejected or cancelled."""

WIDTH = 80


@dataclass(frozen=True)
class Request:
    """The HTTP request of a fixture."""

    method: str
    path: str
    user: str | None
    headers: Mapping[str, str]
    body: bytes | None


@dataclass(frozen=True)
class Result:
    """The result of a case.

    Args:
        answer: the response.
        events: the detail-types of the events that followed, in the order in which they were on the bus.
        seconds: from the request until the order was settled; None if it was not.
    """

    answer: Answer
    events: list[str] = field(default_factory=list)
    seconds: float | None = None

    @property
    def unsettled(self) -> bool:
        """Whether the order that was placed or cancelled was not settled in time."""
        return self.answer.status in (201, 202) and self.seconds is None


def request_of(event: Mapping[str, Any]) -> Request:
    """Returns the request of an API Gateway event (payload format 2.0)."""
    query, body = event.get("rawQueryString"), event.get("body")
    if body is not None:
        body = base64.b64decode(body) if event.get("isBase64Encoded") else body.encode()
    headers = {name.lower(): value for name, value in event["headers"].items()}
    return Request(
        method=event["requestContext"]["http"]["method"],
        path=event["rawPath"] + (f"?{query}" if query else ""),
        user=_user_of(event["requestContext"]),
        headers={name: headers[name] for name in SENT_HEADERS if name in headers},
        body=body,
    )


def _user_of(context: Mapping[str, Any]) -> str | None:
    """Returns the test user for the claims of a fixture. The claims are of a user pool that does not exist."""
    claims = (context.get("authorizer") or {}).get("jwt", {}).get("claims")
    if not claims:
        return None
    groups = claims.get("cognito:groups", "").strip("[]").split()  # API Gateway writes a list as [a b]
    return "staff" if "staff" in groups else "customer"


def in_order(cases: Mapping[str, Request]) -> list[str]:
    """Returns the names of the cases: public data, new orders, what reads them, and at last what changes them."""

    def step(name: str) -> tuple[int, str]:
        request = cases[name]
        if request.method == "GET":
            return (0 if request.user is None and FIXTURE_ORDER not in request.path else 2), name
        return (1 if request.path == "/orders" else 3), name

    return sorted(cases, key=step)


def send(api: Api, record: BusRecord, request: Request) -> Result:
    """Sends a request. If it places or cancels an order, waits for the events until the order is settled."""
    answer = api.call(request.method, request.path, user=request.user, headers=request.headers, body=request.body)
    events: list[str] = []
    while answer.status in (201, 202) and time.time() < answer.sent_at + OUTCOME_SECONDS:
        events += [event["detail-type"] for event in record.new()]
        if any(outcome <= set(events) for outcome in OUTCOMES):
            return Result(answer, events, time.time() - answer.sent_at)
        time.sleep(0.02)
    return Result(answer, events)


def run(api: Api, record: BusRecord, cases: Mapping[str, Request]) -> list[str]:
    """Sends the cases and prints their results. Returns the names of those whose order was not settled."""
    print(f"\n{'case':37} HTTP     ms  outcome")
    unsettled: list[str] = []
    latest: dict[str | None, str] = {}
    for name in in_order(cases):
        request = cases[name]
        order = latest.get(request.user) or latest.get("customer", FIXTURE_ORDER)
        result = send(api, record, replace(request, path=request.path.replace(FIXTURE_ORDER, order)))
        print("\n".join(lines(name, result)))
        if result.unsettled:
            unsettled.append(name)
        if result.answer.status == 201:
            latest[request.user] = str(result.answer.body["orderId"])
    return unsettled


def lines(name: str, result: Result) -> Iterator[str]:
    """Yields the lines of a case, 80 characters at most."""
    answer, order = result.answer, result.answer.body
    seconds = result.seconds or answer.seconds
    yield f"{name:37} {answer.status:4} {seconds * 1000:6.0f}  {_outcome(result)}"
    items = (
        ", ".join(f"{item['quantity']} x {item['productId']}" for item in order["items"]) if "orderId" in order else ""
    )
    for text in filter(None, (items and f"{order['orderId']}: {items}", ", ".join(result.events))):
        yield textwrap.fill(text, WIDTH, initial_indent="    ", subsequent_indent="    ", break_on_hyphens=False)


def _outcome(result: Result) -> str:
    body = result.answer.body
    if result.answer.status >= 400:
        return str(body.get("title") or body.get("message") or "")
    if "orderId" not in body:
        return f"{len(body['items'])} items"
    if result.unsettled:
        return f"not settled after {OUTCOME_SECONDS} s"
    changes = [event.removeprefix("Order ").upper() for event in result.events if event.startswith("Order ")]
    return f"{[body['status'], *changes][-1]}, {body['totalAmount']:,.2f} {body['currency']}"


@one_line_errors
def main() -> int:
    """`python -m tools.demo`."""
    cases = {fixture.stem: request_of(json.loads(fixture.read_text())) for fixture in CASES.glob("*.json")}
    if not cases:
        raise CommandError(f"there are no fixtures in {CASES}")
    with local_stack_of_own() as stack:
        unsettled = run(Api(stack), BusRecord(stack), cases)
    if unsettled:
        raise CommandError(f"not settled after {OUTCOME_SECONDS} s: {', '.join(unsettled)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
