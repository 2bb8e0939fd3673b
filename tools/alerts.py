"""Lists the alerts and sales reports that a local stack has published. They stay in a queue of the local stack."""

import json
import sys
import textwrap
from collections.abc import Iterator
from typing import Any

from tools.arguments import Parser
from tools.errors import CommandError, one_line_errors
from tools.stack import Stack, find

QUEUE = "alerts-of-make-run"
TOPICS = ("AlertTopicArn", "SalesReportTopicArn")
"""The outputs with the topics."""


def record_alerts(stack: Stack) -> None:
    """Subscribes a new queue to the topics of a local stack."""
    queues, topics = stack.client("sqs"), stack.client("sns")
    url = queues.create_queue(QueueName=QUEUE)["QueueUrl"]
    arn = queues.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    for topic in TOPICS:
        topics.subscribe(TopicArn=stack.outputs[topic], Protocol="sqs", Endpoint=arn)


def alerts(stack: Stack) -> list[dict[str, Any]]:
    """Returns the notifications in the queue of `record_alerts`, sorted by time. They stay in the queue."""
    queues = stack.client("sqs")
    url = queues.get_queue_url(QueueName=QUEUE)["QueueUrl"]
    messages = list(_receive_all(queues, url))
    for message in messages:  # only now, so that none is received twice
        queues.change_message_visibility(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"], VisibilityTimeout=0)
    return sorted((json.loads(message["Body"]) for message in messages), key=lambda alert: str(alert["Timestamp"]))


def _receive_all(queues: Any, url: str) -> Iterator[dict[str, Any]]:
    while messages := queues.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages"):
        yield from messages


@one_line_errors
def main(arguments: list[str] | None = None) -> int:
    """`python -m tools.alerts [--stack NAME]`."""
    parser = Parser(prog="python -m tools.alerts", description=__doc__)
    parser.add_stack()
    options = parser.parse_args(arguments)
    stack = find(options.stack)
    if options.stack:
        raise CommandError(
            "a deployed stack sends its alerts to the subscribers of its topic: aws sns subscribe"
            f" --topic-arn {stack.outputs['AlertTopicArn']} --protocol email --notification-endpoint YOU@…"
        )
    found = alerts(stack)
    for alert in found:
        text = textwrap.indent(alert["Message"].strip(), "    ")
        print(f"{alert['Timestamp']}  {alert.get('Subject', '')}\n{text}\n")
    if not found:
        print("no alert and no sales report was published")
    return 0


if __name__ == "__main__":
    sys.exit(main())
