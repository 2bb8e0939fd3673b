"""Replays events of a span of time from the archive: to the rules that are named, and to nobody else."""

import json
import sys
import time
import uuid
from argparse import Namespace
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from tools.arguments import Parser, moment
from tools.errors import CommandError, one_line_errors
from tools.stack import Stack, find

MAX_NAME = 64
"""Of a replay (StartReplay, EventBridge API reference)."""
LONGEST_PAUSE = 5.0
"""Seconds between two looks at a replay, which takes minutes in AWS."""


class ReplayError(CommandError):
    """Nothing, or not everything, was replayed; the message says why."""


def start(stack: Stack, begin: datetime, end: datetime, rules: Sequence[str], name: str) -> None:
    """Start a replay.

    Args:
        stack: whose archive, bus and rules.
        begin: events from this time on are replayed …
        end: … up to this one, which is not included.
        rules: the names of the rules that get them.
        name: the replay's; new in the account.

    Raises:
        ReplayError: a rule does not take a replay of this name.
        ClientError: EventBridge refuses it, or there is no such rule.
    """
    events, bus = stack.client("events"), stack.outputs["EventBusName"]
    found = [events.describe_rule(Name=rule, EventBusName=bus) for rule in rules]
    for rule in found:
        wanted = json.loads(rule["EventPattern"]).get("replay-name")
        if wanted is not None and not any(_takes(condition, name) for condition in wanted):
            raise ReplayError(f"rule {rule['Name']} takes no replay named {name}, but only {json.dumps(wanted)}")
    events.start_replay(
        ReplayName=name,
        EventSourceArn=stack.outputs["EventArchiveArn"],
        EventStartTime=begin,
        EventEndTime=end,
        Destination={"Arn": stack.outputs["EventBusArn"], "FilterArns": [rule["Arn"] for rule in found]},
    )


def _takes(condition: Any, name: str) -> bool:
    """Whether a condition of a rule's pattern is met by a replay's name. What is not known here counts as met."""
    match condition:
        case {"exists": present}:
            return bool(present)
        case {"prefix": str(prefix)}:
            return name.startswith(prefix)
        case str():
            return name == condition
    return True


def wait(stack: Stack, name: str, pause: Callable[[float], None] = time.sleep) -> datetime | None:
    """Wait until a replay has come to its end.

    Args:
        stack: whose.
        name: the replay's.
        pause: waits for so many seconds.

    Returns:
        The time of the last event that was replayed; None if there was none.

    Raises:
        ReplayError: it ended before its end.
    """
    events, seconds = stack.client("events"), 0.1
    while (replay := events.describe_replay(ReplayName=name))["State"] in ("STARTING", "RUNNING", "CANCELLING"):
        pause(seconds)
        seconds = min(2 * seconds, LONGEST_PAUSE)
    if replay["State"] != "COMPLETED":
        raise ReplayError(f"replay {name} is {replay['State']}: {replay.get('StateReason', 'no reason given')}")
    last: datetime | None = replay.get("EventLastReplayedTime")
    return last and last.astimezone(UTC)


def _options(arguments: list[str] | None) -> Namespace:
    parser = Parser(prog="python -m tools.replay", description=__doc__)
    parser.add_argument("--from", dest="begin", type=moment, metavar="TIME", required=True, help="events from here …")
    parser.add_argument("--to", dest="end", type=moment, metavar="TIME", required=True, help="… to before here")
    parser.add_argument("--rule", dest="rules", required=True, type=lambda text: text.split(","), help="one, or a,b")
    parser.add_argument("--name", help="the replay's; by default a new one that begins with the rule's")
    parser.add_stack()
    options = parser.parse_args(arguments)
    if options.begin >= options.end:
        parser.error("--from is not before --to")
    return options


@one_line_errors
def main(arguments: list[str] | None = None) -> int:
    """`python -m tools.replay --from TIME --to TIME --rule NAME[,NAME] [--name NAME] [--stack NAME]`."""
    options = _options(arguments)
    unique = f"-{uuid.uuid4().hex[:12]}"
    name = options.name or options.rules[0][: MAX_NAME - len(unique)] + unique
    stack = find(options.stack)
    start(stack, options.begin, options.end, options.rules, name)
    print(f"replay {name} is under way", flush=True)
    last = wait(stack, name)
    print("done: no event was in the archive for this time" if last is None else f"done: the last event was of {last}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
