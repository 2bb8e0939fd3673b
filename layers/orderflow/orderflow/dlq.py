"""Sends to the DLQ what no retry mends: at once, whole, with the reason as message attributes."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mypy_boto3_sqs.client import SQSClient

MAX_MESSAGE = 1000
"""Characters of a reason. The attributes count towards the size of the message (SQS developer guide)."""


def send_to_dlq(
    queue: "SQSClient", url: str, body: str, code: str, message: str, target_arn: str | None = None
) -> None:
    """Send something to the DLQ. If that fails, so must the caller: nothing is dropped.

    Args:
        queue: the SQS client.
        url: the DLQ's.
        body: what could not be handled, as it came.
        code: the reason in a word.
        message: the reason in a sentence.
        target_arn: the function that could not handle it, in the attribute by which EventBridge names it too. An event
            has several consumers, and a redrive has to find the one that failed.
    """
    attributes = {"ERROR_CODE": code, "ERROR_MESSAGE": message[:MAX_MESSAGE]}
    if target_arn:
        attributes["TARGET_ARN"] = target_arn
    queue.send_message(
        QueueUrl=url,
        MessageBody=body,
        MessageAttributes={name: {"DataType": "String", "StringValue": text} for name, text in attributes.items()},
    )
