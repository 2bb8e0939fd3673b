"""Replays the events of a time range from the archive to named rules only."""

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
"""Characters of a replay's name (StartReplay, EventBridge API reference)."""
LONGEST_PAUSE = 5.0
"""Seconds between two requests for the state of a replay, which takes minutes in AWS."""


class ReplayError(CommandError):
    """The replay did not start or did not complete. The message says why."""


def start(stack: Stack, begin: datetime, end: datetime, rules: Sequence[str], name: str) -> None:
    """Starts a replay.

    Args:
        stack: the stack with the archive, the bus and the rules.
        begin: the start of the time range.
        end: the end of the time range, exclusive.
        rules: the names of the rules that receive the events.
        name: the name of the replay, unique in the account.

    Raises:
        ReplayError: the pattern of a rule does not match replays of this name.
        ClientError: EventBridge rejects the replay, or a rule does not exist.
    """
    events, bus = stack.client("events"), stack.outputs["EventBusName"]
    found = [events.describe_rule(Name=rule, EventBusName=bus) for rule in rules]
    for rule in found:
        wanted = json.loads(rule["EventPattern"]).get("replay-name")
        if wanted is not None and not any(_takes(condition, name) for condition in wanted):
            raise ReplayError(
                f"rule {rule['Name']} does not accept the replay {name}: NAME= must match {json.dumps(wanted)}"
            )
    events.start_replay(
        ReplayName=name,
        EventSourceArn=stack.outputs["EventArchiveArn"],
        EventStartTime=begin,
        EventEndTime=end,
        Destination={"Arn": stack.outputs["EventBusArn"], "FilterArns": [rule["Arn"] for rule in found]},
    )


def _takes(condition: Any, name: str) -> bool:
    """Returns whether a replay's name matches a condition of a pattern. Unknown conditions count as matched."""
    match condition:
        case {"exists": present}:
            return bool(present)
        case {"prefix": str(prefix)}:
            return name.startswith(prefix)
        case str():
            return name == condition
    return True


def wait(stack: Stack, name: str, pause: Callable[[float], None] = time.sleep) -> datetime | None:
    """Waits for the end of a replay, and returns the time of the last replayed event, if any.

    Args:
        stack: the stack of the replay.
        name: the name of the replay.
        pause: sleeps for a number of seconds.

    Raises:
        ReplayError: the replay did not complete.
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
    parser.add_argument(
        "--from", dest="begin", type=moment, metavar="TIME", required=True, help="start of the time range"
    )
    parser.add_argument(
        "--to", dest="end", type=moment, metavar="TIME", required=True, help="end of the time range, exclusive"
    )
    parser.add_argument(
        "--rule",
        dest="rules",
        required=True,
        type=lambda text: text.split(","),
        help="a rule, or several separated by commas",
    )
    parser.add_argument("--name", help="name of the replay; default: a unique name that begins with the first rule's")
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
    print(f"replay {name} is running", flush=True)
    last = wait(stack, name)
    print("done: no event was in the archive for this time" if last is None else f"done: the last event was of {last}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
