"""Sends stored events again: of one order with its reservation, or of a span of time.

Only the event publisher may put events on the bus, so it is invoked with the stream records that it would have got.
"""

import argparse
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from tools.arguments import Parser, moment
from tools.errors import CommandError, one_line_errors
from tools.stack import Stack, find

Image = dict[str, Any]
"""An item in DynamoDB's own notation, as it stands in a stream record."""

MAX_RECORDS = 100
MAX_BYTES = 5_000_000
"""Of one invocation; Lambda takes 6 MB (Lambda quotas, synchronous invocation payload)."""
RESERVATION = "RESERVATION#"


class RepublishError(CommandError):
    """Nothing, or not everything, was sent again; the message says what."""


@dataclass(frozen=True)
class Window:
    """A span of time with both its ends in it: an event sent once too often does no harm, a missing one does."""

    begin: datetime
    end: datetime


EVER = Window(datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC))


@dataclass(frozen=True)
class Images:
    """An item as it was before the events to send and after them."""

    new: Image
    old: Image | None


def images(item: Image, window: Window) -> Images | None:
    """The change of an item in a window.

    Args:
        item: an item that may hold events.
        window: which of its events to send.

    Returns:
        The images, or None if the item has no event in the window.
    """
    times = [datetime.fromisoformat(event["M"]["time"]["S"]) for event in item.get("events", {"L": []})["L"]]
    inside = [index for index, time in enumerate(times) if window.begin <= time <= window.end]
    if not inside:
        return None
    first, last = inside[0], inside[-1] + 1
    return Images(_with_events(item, last), _with_events(item, first) if first else None)


def _with_events(item: Image, number: int) -> Image:
    return {**item, "events": {"L": item["events"]["L"][:number]}}


@dataclass(frozen=True)
class Table:
    """A table that holds events."""

    name: str
    key: str
    stream: str


def record(table: Table, change: Images, number: int) -> dict[str, Any]:
    """The stream record of a change, as the publisher reads it.

    Args:
        table: where the item is.
        change: the images.
        number: tells the records of one run apart.
    """
    old = {"OldImage": change.old} if change.old else {}
    return {
        "eventID": f"republish-{number}",
        "eventName": "MODIFY" if change.old else "INSERT",
        "eventSource": "aws:dynamodb",
        "eventSourceARN": table.stream,
        "dynamodb": {
            "Keys": {table.key: change.new[table.key]},
            "NewImage": change.new,
            **old,
            "SequenceNumber": str(number),
            "StreamViewType": "NEW_AND_OLD_IMAGES",
        },
    }


def batches(records: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """The records in as few invocations as the limits allow."""
    batch: list[dict[str, Any]] = []
    size = 0
    for entry in records:
        length = len(json.dumps(entry)) + 2  # and the comma that parts it from the next
        if batch and (len(batch) == MAX_RECORDS or size + length > MAX_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(entry)
        size += length
    if batch:
        yield batch


def republish(stack: Stack, order: str | None, window: Window) -> int:
    """Send events again.

    Args:
        stack: whose.
        order: only this order's and its reservation's; None for all.
        window: only those of this span of time.

    Returns:
        How many events were sent.

    Raises:
        RepublishError: there is no such order, or some events could not be sent. The others were.
    """
    dynamodb = stack.client("dynamodb")
    orders, inventory = (_table(dynamodb, stack.outputs[name]) for name in ("OrdersTableName", "InventoryTableName"))
    if order is None:
        items: Iterable[tuple[Table, Image]] = (
            (table, item) for table in (orders, inventory) for item in _scan(dynamodb, table)
        )
    else:
        placed, reservation = _get(dynamodb, orders, order), _get(dynamodb, inventory, RESERVATION + order)
        if placed is None:
            raise RepublishError(f"there is no order {order}")
        items = [(orders, placed), *([(inventory, reservation)] if reservation else [])]
    changes = ((table, change) for table, item in items if (change := images(item, window)) is not None)
    return _send_all(stack, (record(table, change, number) for number, (table, change) in enumerate(changes, 1)))


def _send_all(stack: Stack, records: Iterable[dict[str, Any]]) -> int:
    """Send every batch, also after one that failed."""
    client, function = stack.client("lambda"), stack.outputs["EventPublisherFunctionName"]
    sent, failed, reasons = 0, set[str](), set[str]()
    for batch in batches(records):
        failures = _send(client, function, batch)
        for entry in batch:
            reason = failures.get(entry["dynamodb"]["SequenceNumber"])
            if reason is None:
                sent += _events_in(entry)
            else:
                failed.add(_order_of(entry))
                reasons.add(reason)
    if failed:
        raise RepublishError(
            f"{sent} events sent, but not all of {', '.join(sorted(failed))}: {', '.join(sorted(reasons))}"
        )
    return sent


def _send(client: Any, function: str, batch: list[dict[str, Any]]) -> dict[str, str]:
    """Invoke the publisher: the sequence numbers of the records that failed, with the reason."""
    answer = client.invoke(FunctionName=function, Payload=json.dumps({"Records": batch}))
    result = json.loads(answer["Payload"].read())
    if "FunctionError" in answer:
        reason = f"{result.get('errorType')}: {result.get('errorMessage')}"
        return {entry["dynamodb"]["SequenceNumber"]: reason for entry in batch}
    return {failure["itemIdentifier"]: "not published" for failure in result["batchItemFailures"]}


def _events_in(entry: Mapping[str, Any]) -> int:
    change = entry["dynamodb"]
    return len(change["NewImage"]["events"]["L"]) - len(change.get("OldImage", {"events": {"L": []}})["events"]["L"])


def _order_of(entry: Mapping[str, Any]) -> str:
    (key,) = entry["dynamodb"]["Keys"].values()
    return str(key["S"]).removeprefix(RESERVATION)


def _table(dynamodb: Any, name: str) -> Table:
    found = dynamodb.describe_table(TableName=name)["Table"]
    return Table(name, found["KeySchema"][0]["AttributeName"], found["LatestStreamArn"])


def _scan(dynamodb: Any, table: Table) -> Iterator[Image]:
    """The items that hold events."""
    for page in dynamodb.get_paginator("scan").paginate(
        TableName=table.name, FilterExpression="attribute_exists(events)", ConsistentRead=True
    ):
        yield from page["Items"]


def _get(dynamodb: Any, table: Table, key: str) -> Image | None:
    item: Image | None = dynamodb.get_item(TableName=table.name, Key={table.key: {"S": key}}, ConsistentRead=True).get(
        "Item"
    )
    return item


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = Parser(prog="python -m tools.republish", description=__doc__)
    parser.add_argument("--order", metavar="ORD-…", help="all events of this order and of its reservation")
    parser.add_argument("--from", dest="begin", type=moment, metavar="TIME", help="events from here on …")
    parser.add_argument("--to", dest="end", type=moment, metavar="TIME", help="… up to here, both included")
    parser.add_stack()
    options = parser.parse_args(arguments)
    if bool(options.order) == bool(options.begin or options.end):
        parser.error("name either --order, or --from and --to")
    if not options.order and not (options.begin and options.end):
        parser.error("--from and --to go together")
    if not options.order and options.begin > options.end:
        parser.error("--from is later than --to")
    return options


@one_line_errors
def main(arguments: list[str] | None = None) -> int:
    """`python -m tools.republish (--order ORD-… | --from TIME --to TIME) [--stack NAME]`."""
    options = _options(arguments)
    window = EVER if options.order else Window(options.begin, options.end)
    sent = republish(find(options.stack), options.order, window)
    print(f"{sent} events sent again")
    return 0


if __name__ == "__main__":
    sys.exit(main())
