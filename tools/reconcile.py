"""Checks an idle stack: stock, orders, reservations and the events on the bus must be consistent."""

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
"""The sources of this application's events. Other applications can put events on the same bus."""

ENDS: Mapping[str, frozenset[str]] = {
    "CONFIRMED": frozenset({"RESERVED"}),
    "REJECTED": frozenset({"OUT_OF_STOCK"}),
    "CANCELLED": frozenset({"RELEASED", "OUT_OF_STOCK"}),
}
"""The statuses that a reservation can have, by the final status of its order."""


def check(
    orders: Sequence[Item],
    inventory: Sequence[Item],
    bus_events: Sequence[Item],
    initial: Mapping[str, int] | None,
    logged_since: datetime | None = None,
) -> list[str]:
    """Compares the tables with each other, with the events on the bus, and with the initial stock.

    Args:
        orders: the items of the orders table.
        inventory: the items of the inventory table.
        bus_events: the events on the bus; an event that was published twice is in it twice.
        initial: the stock of each product before the first order; None if it is unknown.
        logged_since: events that were stored before this time can be missing from the log; None if it is complete.

    Returns:
        The differences, one line each.
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
    """Reads the events on a stack's bus from the log group of the rule all-events-log."""

    def __init__(self, stack: Stack) -> None:
        self._logs = stack.client("logs")
        self._pages = self._logs.get_paginator("filter_log_events")
        self._group = stack.outputs["EventLogGroupName"]
        self._since = 0
        self._read: set[str] = set()

    def new(self) -> list[dict[str, Any]]:
        """Returns the events since the last call. The first call returns all."""
        pages = self._pages.paginate(logGroupName=self._group, startTime=self._since)
        lines = [line for page in pages for line in page["events"] if line["eventId"] not in self._read]
        self._read |= {line["eventId"] for line in lines}
        self._since = max([self._since, *(line["timestamp"] for line in lines)])
        return [event_in(line["message"]) for line in lines]

    def logged_since(self) -> datetime | None:
        """Returns the time since which the log is complete: it deletes events that are older than its retention.

        Call it after `new`, so that no event expires in between. Returns None if the log keeps events forever.
        """
        groups = self._logs.describe_log_groups(logGroupNamePrefix=self._group)["logGroups"]
        (days,) = [group.get("retentionInDays") for group in groups if group["logGroupName"] == self._group]
        return None if days is None else datetime.now(UTC) - timedelta(days=days)


def event_in(message: str) -> dict[str, Any]:
    """Returns the event in a line of the log.

    Data protection replaces characters of the line by asterisks, including the quotes and commas between fields. Such a
    line is not valid JSON, and only the fields that identify the event are read from it.
    """
    try:
        event: dict[str, Any] = json.loads(message)
    except ValueError:
        names = ("source", "detail-type", "eventId")
        found = {name: match[1] for name in names if (match := re.search(rf'"{name}":\s*"([^"*]+)"', message))}
        event = {**found, "detail": {"metadata": found}}
    return event


def identified(events: Iterable[Item]) -> tuple[list[Item], int]:
    """Selects the events of this application.

    Args:
        events: all events on the bus, from any source.

    Returns:
        The application's events, and the number of events whose source or eventId is masked.
    """
    ours = [event for event in events if event.get("source") in (None, *SOURCES)]
    known = [event for event in ours if "source" in event and event["detail"].get("metadata", {}).get("eventId")]
    return known, len(ours) - len(known)


def read_tables(stack: Stack) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Returns all items of the orders table and of the inventory table."""
    scan = scanner(stack)
    return read_table(scan, stack.outputs["OrdersTableName"]), read_table(scan, stack.outputs["InventoryTableName"])


def scanner(stack: Stack) -> Any:
    """Returns a paginator that scans the stack's tables."""
    return stack.resource("dynamodb").meta.client.get_paginator("scan")


def read_table(scan: Any, table: str) -> list[dict[str, Any]]:
    """Returns all items of a table.

    Args:
        scan: from `scanner`.
        table: the table's name.
    """
    return [item for page in scan.paginate(TableName=table, ConsistentRead=True) for item in page["Items"]]


def report(differences: Sequence[str], orders: int, events: int) -> int:
    """Prints the result of a check.

    Args:
        differences: the lines that `check` returned.
        orders: the number of orders.
        events: the number of events on the bus.

    Returns:
        The exit code: 0, or 1 if there are differences.
    """
    console = Console(highlight=False, soft_wrap=True)
    for line in differences:
        console.print(f"[red]difference[/] {escape(line)}")
    if differences:
        console.print(f"[red]Not consistent: {len(differences)} differences[/]")
        return 1
    console.print(f"[green]Consistent[/]: {orders} orders, {events} events on the bus")
    return 0


@one_line_errors
def main(arguments: list[str] | None = None) -> int:
    """`python -m tools.reconcile [--stack NAME]`, on a stack that has processed all of its events."""
    parser = Parser(prog="python -m tools.reconcile", description=__doc__)
    parser.add_stack()
    stack = find(parser.parse_args(arguments).stack)
    orders, inventory = read_tables(stack)
    record = BusRecord(stack)
    events, masked = identified(record.new())
    differences = check(orders, inventory, events, None, record.logged_since())
    if masked:
        print(f"note: masking hides the source or eventId of {masked} events in the log; they count as not published")
    return report(differences, len(orders), len(events))


if __name__ == "__main__":
    sys.exit(main())
