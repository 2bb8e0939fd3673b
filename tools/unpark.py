"""Moves all messages of the parking queue back to the DLQ, where the DLQ processor processes them again."""

import sys
from typing import Any

from tools.arguments import Parser
from tools.errors import one_line_errors
from tools.stack import Stack, find


def unpark(stack: Stack) -> int:
    """Moves all messages. A message that two calls move at the same time is processed twice, which does no harm.

    Returns:
        The number of messages.
    """
    queue = stack.client("sqs")
    parking, dlq = stack.outputs["OrderEventsParkingUrl"], stack.outputs["OrderEventsDlqUrl"]
    moved = 0
    while messages := _receive(queue, parking):
        for message in messages:
            # The attributes contain the reason why EventBridge or a function sent the message
            attributes = message.get("MessageAttributes", {})
            queue.send_message(QueueUrl=dlq, MessageBody=message["Body"], MessageAttributes=attributes)
            queue.delete_message(QueueUrl=parking, ReceiptHandle=message["ReceiptHandle"])
            moved += 1
    return moved


def _receive(queue: Any, url: str) -> list[dict[str, Any]]:
    answer = queue.receive_message(
        QueueUrl=url, MaxNumberOfMessages=10, MessageAttributeNames=["All"], WaitTimeSeconds=1
    )
    messages: list[dict[str, Any]] = answer.get("Messages", [])
    return messages


@one_line_errors
def main(arguments: list[str] | None = None) -> int:
    """`python -m tools.unpark [--stack NAME]`."""
    parser = Parser(prog="python -m tools.unpark", description=__doc__)
    parser.add_stack()
    options = parser.parse_args(arguments)
    moved = unpark(find(options.stack))
    print(f"{moved} messages moved back to the DLQ")
    return 0


if __name__ == "__main__":
    sys.exit(main())
