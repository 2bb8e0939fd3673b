"""The check of the books: stock, orders, reservations and the bus's record must agree once a stack is idle."""

import json
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from rich.console import Console
from rich.markup import escape

from tools.arguments import Parser
from tools.errors import one_line_errors
from tools.stack import Stack, find

Item = Mapping[str, Any]

PRODUCT = "PRODUCT#"
RESERVATION = "RESERVATION#"
SOURCES = frozenset({"orders.service", "inventory.service"})
"""Whose events the tables hold. Other applications may put events of other sources on the bus."""

# What the reservation of an order must be once the order has come to an end
ENDS: Mapping[str, frozenset[str]] = {
    "CONFIRMED": frozenset({"RESERVED"}),
    "REJECTED": frozenset({"OUT_OF_STOCK"}),
    "CANCELLED": frozenset({"RELEASED", "OUT_OF_STOCK"}),
}


def check(
    orders: Sequence[Item],
    inventory: Sequence[Item],
    bus_events: Sequence[Item],
    initial: Mapping[str, int] | None,
    logged_since: datetime | None = None,
) -> list[str]:
    """Compare what is stored with itself, with the bus's record, and with the stock of the beginning.

    Args:
        orders: the items of the orders table.
        inventory: the items of the inventory table.
        bus_events: what was on the bus, as often as it was there.
        initial: the stock of each product before the first order; None if nobody knows any more.
        logged_since: the bus's record may lack events that were stored before this time; None if it is complete.

    Returns:
        The differences, a line each; none if the books balance.
    """
    products = {item["pk"].removeprefix(PRODUCT): item for item in inventory if item["pk"].startswith(PRODUCT)}
    reservations = {
        item["pk"].removeprefix(RESERVATION): item for item in inventory if item["pk"].startswith(RESERVATION)
    }
    stored = [*(("order", order["orderId"], order) for order in orders)]
    stored += [("reservation", order_id, item) for order_id, item in reservations.items()]
    return [
        *_stock_differences(products, reservations),
        *([] if initial is None else _initial_differences(products, initial)),
        *_order_differences({order["orderId"]: order for order in orders}, reservations),
        *(line for kind, name, item in stored for line in _version_differences(f"{kind} {name}", item)),
        *_event_differences([item for _, _, item in stored], bus_events, logged_since),
    ]


def _stock_differences(products: Mapping[str, Item], reservations: Mapping[str, Item]) -> Iterator[str]:
    held: Counter[str] = Counter()
    for reservation in reservations.values():
        if reservation["status"] == "RESERVED":
            for line in reservation["events"][0]["data"]["order"]["items"]:
                held[line["productId"]] += int(line["quantity"])
    for product_id, product in products.items():
        if product["available"] < 0 or product["reserved"] < 0:
            yield f"product {product_id}: {product['available']} available and {product['reserved']} reserved, below 0"
        if product["reserved"] != held[product_id]:
            yield f"product {product_id}: {product['reserved']} reserved, but the reservations hold {held[product_id]}"
    for product_id in held.keys() - products.keys():
        yield f"product {product_id}: the reservations hold {held[product_id]}, but it has no stock"


def _initial_differences(products: Mapping[str, Item], initial: Mapping[str, int]) -> Iterator[str]:
    now = {product_id: int(product["available"] + product["reserved"]) for product_id, product in products.items()}
    for product_id in sorted(now.keys() | initial.keys()):
        if now.get(product_id, 0) != initial.get(product_id, 0):
            have, had = now.get(product_id, 0), initial.get(product_id, 0)
            yield f"product {product_id}: {have} available and reserved together, {had} at the beginning"


def _order_differences(orders: Mapping[str, Item], reservations: Mapping[str, Item]) -> Iterator[str]:
    for order_id, order in orders.items():
        status = order["status"]
        if status not in ENDS:
            yield f"order {order_id}: not settled, {status}"
        elif order_id not in reservations:
            yield f"order {order_id}: {status} without a reservation"
        elif reservations[order_id]["status"] not in ENDS[status]:
            yield f"order {order_id}: {status}, but its reservation is {reservations[order_id]['status']}"
    for order_id in reservations.keys() - orders.keys():
        yield f"reservation {order_id}: of an order that does not exist"


def _version_differences(name: str, item: Item) -> Iterator[str]:
    if item["version"] != len(item["events"]):
        yield f"{name}: version {item['version']} with {len(item['events'])} events"


def _event_differences(
    stored: Iterable[Item], bus_events: Iterable[Item], logged_since: datetime | None
) -> Iterator[str]:
    events = [event for item in stored for event in item["events"]]
    ids = Counter(event["eventId"] for event in events)
    expected = {
        event["eventId"]
        for event in events
        if logged_since is None or datetime.fromisoformat(event["time"]) >= logged_since
    }
    published = {event["detail"]["metadata"]["eventId"]: event for event in bus_events}
    yield from (f"event {event_id}: stored {times} times" for event_id, times in ids.items() if times > 1)
    yield from (f"event {event_id}: stored, but never on the bus" for event_id in sorted(expected - published.keys()))
    for event_id in sorted(published.keys() - ids.keys()):
        yield f"event {event_id}: {published[event_id].get('detail-type')} was on the bus, but is not stored"


class BusRecord:
    """What was on a stack's bus, from the log of all events.

    Args:
        stack: whose bus.
    """

    def __init__(self, stack: Stack) -> None:
        self._logs = stack.client("logs")
        self._pages = self._logs.get_paginator("filter_log_events")
        self._group = stack.outputs["EventLogGroupName"]
        self._since = 0
        self._read: set[str] = set()

    def new(self) -> list[dict[str, Any]]:
        """The events since the last call; all of them at the first one."""
        pages = self._pages.paginate(logGroupName=self._group, startTime=self._since)
        lines = [line for page in pages for line in page["events"] if line["eventId"] not in self._read]
        self._read |= {line["eventId"] for line in lines}
        self._since = max([self._since, *(line["timestamp"] for line in lines)])
        return [_event_in(line["message"]) for line in lines]

    def logged_since(self) -> datetime | None:
        """The time since when the log is complete: it deletes events that are older than its retention.

        Call it after `new`, so that no event expires in between. None if the log keeps events forever.
        """
        groups = self._logs.describe_log_groups(logGroupNamePrefix=self._group)["logGroups"]
        (days,) = [group.get("retentionInDays") for group in groups if group["logGroupName"] == self._group]
        return None if days is None else datetime.now(UTC) - timedelta(days=days)


def _event_in(message: str) -> dict[str, Any]:
    """The event in a line of the log.

    Data protection replaces characters of the line by asterisks, which may include the quotes and commas between
    fields. The rest of such a line is not valid JSON; only what identifies the event is read from it.
    """
    try:
        event: dict[str, Any] = json.loads(message)
    except ValueError:
        names = ("source", "detail-type", "eventId")
        found = {name: match[1] for name in names if (match := re.search(rf'"{name}":\s*"([^"*]+)"', message))}
        event = {**found, "detail": {"metadata": found}}
    return event


def identified(events: Iterable[Item]) -> tuple[list[Item], int]:
    """Select the events of this application from the bus's record.

    Args:
        events: all that was on the bus, also from other sources.

    Returns:
        The application's events, and the number of events whose source or eventId is masked.
    """
    ours = [event for event in events if event.get("source") in (None, *SOURCES)]
    known = [event for event in ours if "source" in event and event["detail"].get("metadata", {}).get("eventId")]
    return known, len(ours) - len(known)


def read_tables(stack: Stack) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """All items of the orders table and of the inventory table."""
    scan = scanner(stack)
    return read_table(scan, stack.outputs["OrdersTableName"]), read_table(scan, stack.outputs["InventoryTableName"])


def scanner(stack: Stack) -> Any:
    """Pages of a stack's tables, in Python values."""
    return stack.resource("dynamodb").meta.client.get_paginator("scan")


def read_table(scan: Any, table: str) -> list[dict[str, Any]]:
    """All items of a table.

    Args:
        scan: from `scanner`.
        table: its name.
    """
    return [item for page in scan.paginate(TableName=table, ConsistentRead=True) for item in page["Items"]]


def report(differences: Sequence[str], orders: int, events: int) -> int:
    """Print the result of a check.

    Args:
        differences: what it found.
        orders: how many orders there were.
        events: how many events were on the bus.

    Returns:
        The exit code: 0, or 1 if the books don't balance.
    """
    console = Console(highlight=False, soft_wrap=True)
    for line in differences:
        console.print(f"[red]difference[/] {escape(line)}")
    if differences:
        console.print(f"[red]The books don't balance: {len(differences)} differences[/]")
        return 1
    console.print(f"[green]The books balance[/]: {orders} orders, {events} events on the bus")
    return 0


@one_line_errors
def main(arguments: list[str] | None = None) -> int:
    """`python -m tools.books [--stack NAME]`, on a stack where nothing is on its way."""
    parser = Parser(prog="python -m tools.books", description=__doc__)
    parser.add_stack()
    stack = find(parser.parse_args(arguments).stack)
    orders, inventory = read_tables(stack)
    record = BusRecord(stack)
    events, masked = identified(record.new())
    differences = check(orders, inventory, events, None, record.logged_since())
    if masked:
        print(
            f"note: masking hides the source or eventId of {masked} events in the log; they count as never on the bus"
        )
    return report(differences, len(orders), len(events))


if __name__ == "__main__":
    sys.exit(main())
