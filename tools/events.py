"""Lists the events of an order and of its reservation, as they were on the bus, from the log of all events."""

import sys
from collections.abc import Iterator
from datetime import UTC, datetime

from tools.arguments import Parser
from tools.errors import CommandError, one_line_errors
from tools.reconcile import event_in
from tools.stack import Stack, find


def events_of(stack: Stack, order: str) -> Iterator[str]:
    """Yields a line per event: when it was logged, detail-type, eventId and sequence. A masked value is `?`."""
    pages = stack.client("logs").get_paginator("filter_log_events")
    for page in pages.paginate(logGroupName=stack.outputs["EventLogGroupName"], filterPattern=f'"{order}"'):
        for line in page["events"]:
            event = event_in(line["message"])
            logged = datetime.fromtimestamp(line["timestamp"] / 1000, UTC).isoformat(timespec="milliseconds")
            own = event["detail"].get("metadata", {})
            name, event_id, sequence = event.get("detail-type", "?"), own.get("eventId", "?"), own.get("sequence", "?")
            yield f"{logged.removesuffix('+00:00')}Z  {name:22}  {event_id:26}  {sequence}"


@one_line_errors
def main(arguments: list[str] | None = None) -> int:
    """`python -m tools.events --order ORD-… [--stack NAME]`."""
    parser = Parser(prog="python -m tools.events", description=__doc__)
    parser.add_argument("--order", metavar="ORD-…", required=True, help="the order's id")
    parser.add_stack()
    options = parser.parse_args(arguments)
    stack = find(options.stack)
    lines = sorted(events_of(stack, options.order), key=lambda line: line.partition(" ")[0])
    if not lines:
        raise CommandError(f"no event of {options.order} is in the log {stack.outputs['EventLogGroupName']}")
    print(f"{'logged at':24}  {'event':22}  {'eventId':26}  no.", *lines, sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
