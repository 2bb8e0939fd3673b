"""Sends each fixture of events/order_api/ to a temporary local stack, and shows the outcome of each order."""

import base64
import json
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table

from tools.http import Answer, Api
from tools.own_stack import StackDidNotStart, local_stack_of_own
from tools.reconcile import BusRecord
from tools.stack import Stack

CASES = Path("events/order_api")
OUTCOME_SECONDS = 30
SENT_HEADERS = ("content-type", "idempotency-key")
"""The headers of a fixture that are sent. The others were added by API Gateway."""

LOG_WIDTH = 180
"""Characters. Used if the output is not a terminal."""


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
    """The result of a fixture.

    Args:
        case: the fixture's name.
        answer: the response to its request.
        order: the latest state of the order that was placed, if any.
        seconds: from the POST until the order was settled; None if it was not.
        events: the detail-types of the order's events, in the order in which they were on the bus.
    """

    case: str
    answer: Answer
    order: Mapping[str, Any] | None = None
    seconds: float | None = None
    events: tuple[str, ...] = ()


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


def send(api: Api, fixture: Path) -> Result:
    """Sends a fixture. If it places an order, waits until the order is settled."""
    request = request_of(json.loads(fixture.read_text()))
    answer = api.call(request.method, request.path, user=request.user, headers=request.headers, body=request.body)
    result = Result(fixture.stem, answer)
    if (request.method, request.path, answer.status) != ("POST", "/orders", 201):
        return result
    deadline = answer.sent_at + OUTCOME_SECONDS
    while time.time() < deadline:
        # Staff can read orders that were placed for other customers
        order = api.call("GET", f"/orders/{answer.body['orderId']}", user="staff").body
        if order["status"] != "PENDING":
            return replace(result, order=order, seconds=time.time() - answer.sent_at)
        time.sleep(0.02)
    return replace(result, order=answer.body)


def with_events(stack: Stack, results: list[Result]) -> list[Result]:
    """Returns the results with the events of their orders, once the last events are in the log of all events."""
    record = BusRecord(stack)
    events: dict[str, list[str]] = {str(result.order["orderId"]): [] for result in results if result.order}
    settled = {str(result.order["orderId"]) for result in results if result.order and result.seconds}
    deadline = time.monotonic() + OUTCOME_SECONDS
    while True:
        for event in record.new():
            events.setdefault(event["detail"]["orderId"], []).append(event["detail-type"])
        # An order is settled by its second event; the events of its reservation come in addition
        waiting = [order for order in settled if sum(name.startswith("Order ") for name in events[order]) < 2]
        if not waiting or time.monotonic() > deadline:
            break
        time.sleep(0.02)
    return [
        replace(result, events=tuple(events[str(result.order["orderId"])])) if result.order else result
        for result in results
    ]


def show(results: list[Result]) -> None:
    """Prints a row per fixture."""
    table = Table("case", "HTTP", "order", "items", "total", "outcome", "ms", "events")
    for column in table.columns:
        column.overflow = "fold"  # a narrow terminal wraps long ids
    for number in (1, 4, 6):
        table.columns[number].justify = "right"
    for result in results:
        answer, order = result.answer, result.order
        if order is None:
            problem = str(answer.body.get("title") or answer.body.get("message") or "")
            table.add_row(result.case, str(answer.status), "", "", "", problem, f"{answer.seconds * 1000:.0f}", "")
            continue
        table.add_row(
            result.case,
            str(answer.status),
            order["orderId"],
            "\n".join(f"{item['quantity']} x {item['productId']}" for item in order["items"]),
            f"{order['totalAmount']:,.2f} {order['currency']}",
            order["status"],
            "" if result.seconds is None else f"{result.seconds * 1000:.0f}",
            "\n".join(result.events),
        )
    console = Console()
    if not console.is_terminal:
        console.width = LOG_WIDTH
    console.print(table)


def main() -> int:
    """`python -m tools.demo`."""
    fixtures = sorted(CASES.glob("*.json"))
    if not fixtures:
        print(f"error: there are no fixtures in {CASES}", file=sys.stderr)
        return 1
    try:
        with local_stack_of_own() as stack:
            api = Api(stack)
            results = with_events(stack, [send(api, fixture) for fixture in track(fixtures, "Sending")])
    except StackDidNotStart as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130  # the exit code of a command that was ended by Ctrl-C
    show(results)
    pending = [result.case for result in results if result.order and result.seconds is None]
    if pending:
        print(f"error: not settled after {OUTCOME_SECONDS} s: {', '.join(pending)}", file=sys.stderr)
    return 1 if pending else 0


if __name__ == "__main__":
    sys.exit(main())
