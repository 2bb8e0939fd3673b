"""Publishes stored events again: of one order with its reservation, or of a span of time.

Only the event publisher may put events on the bus, so it is invoked with one request per order or reservation.
"""

import argparse
import json
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

from tools.arguments import Parser, moment
from tools.errors import CommandError, one_line_errors
from tools.stack import Stack, find

Item = dict[str, Any]
"""An item in DynamoDB's own notation."""
Request = dict[str, Any]
"""A request that EventPublisherFunction takes: table, key and fromSequence."""

WORKERS = 4
RESERVATION = "RESERVATION#"


class RepublishError(CommandError):
    """Not all events were published; the message says why."""


@dataclass(frozen=True)
class Window:
    """A span of time that includes both its ends."""

    begin: datetime
    end: datetime


EVER = Window(datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC))


def first_sequence(item: Item, window: Window) -> int | None:
    """Returns the sequence of an item's first event in a window, or None if it has none."""
    for sequence, event in enumerate(item.get("events", {"L": []})["L"], 1):
        if window.begin <= datetime.fromisoformat(event["M"]["time"]["S"]) <= window.end:
            return sequence
    return None


def republish(stack: Stack, order: str | None, window: Window) -> int:
    """Publishes events again.

    Of each order and reservation with an event in the window, that event and all later ones are published: consumers
    ignore events that they have handled.

    Args:
        order: only this order and its reservation; None for all.

    Returns:
        The number of events that were published.

    Raises:
        RepublishError: there is no such order, or some events were not published. The others were.
    """
    dynamodb = stack.client("dynamodb")
    tables = [stack.outputs[name] for name in ("OrdersTableName", "InventoryTableName")]
    requests = [request for table in tables for request in _requests(dynamodb, table, order, window)]
    if order and not any("orderId" in request["key"] for request in requests):
        raise RepublishError(f"there is no order {order}")
    invoke = partial(_invoke, stack.client("lambda"), stack.outputs["EventPublisherFunctionName"])
    with ThreadPoolExecutor(WORKERS) as workers:
        answers = list(workers.map(invoke, requests))
    published = sum(answer for answer in answers if isinstance(answer, int))
    failed = {
        next(iter(request["key"].values())).removeprefix(RESERVATION): answer
        for request, answer in zip(requests, answers, strict=True)
        if isinstance(answer, str)
    }
    if failed:
        reasons = ", ".join(sorted(set(failed.values())))
        raise RepublishError(f"{published} events published, but not all of {', '.join(sorted(failed))}: {reasons}")
    return published


def _invoke(client: Any, function: str, request: Request) -> int | str:
    """Returns the number of events that the publisher has published, or the reason of its failure."""
    answer = client.invoke(FunctionName=function, Payload=json.dumps(request))
    result = json.loads(answer["Payload"].read())
    if "FunctionError" in answer:
        return f"{result.get('errorType')}: {result.get('errorMessage')}"
    return int(result["published"])


def _requests(dynamodb: Any, table: str, order: str | None, window: Window) -> Iterator[Request]:
    name = dynamodb.describe_table(TableName=table)["Table"]["KeySchema"][0]["AttributeName"]
    for item in _items(dynamodb, table, name, order):
        sequence = first_sequence(item, window)
        if sequence is not None:
            yield {"table": table, "key": {name: item[name]["S"]}, "fromSequence": sequence}


def _items(dynamodb: Any, table: str, name: str, order: str | None) -> Iterable[Item]:
    """Returns the items that hold events, of all orders or of one."""
    if order is None:
        pages = dynamodb.get_paginator("scan").paginate(
            TableName=table, FilterExpression="attribute_exists(events)", ConsistentRead=True
        )
        return (item for page in pages for item in page["Items"])
    key = order if name == "orderId" else RESERVATION + order
    found = dynamodb.get_item(TableName=table, Key={name: {"S": key}}, ConsistentRead=True).get("Item")
    return [found] if found else []


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = Parser(prog="python -m tools.republish", description=__doc__)
    parser.add_argument("--order", metavar="ORD-…", help="all events of this order and of its reservation")
    parser.add_argument("--from", dest="begin", type=moment, metavar="TIME", help="events from this time …")
    parser.add_argument("--to", dest="end", type=moment, metavar="TIME", help="… to this time, both included")
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
    published = republish(find(options.stack), options.order, window)
    print(f"{published} events published again")
    return 0


if __name__ == "__main__":
    sys.exit(main())
