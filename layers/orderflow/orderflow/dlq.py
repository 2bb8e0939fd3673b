"""Sends non-retryable failures to the DLQ, with the reason as message attributes."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mypy_boto3_sqs.client import SQSClient

MAX_MESSAGE = 1000
"""Characters. The attributes count towards the size of the message (SQS developer guide)."""


def send_to_dlq(
    sqs: "SQSClient", url: str, body: str, code: str, message: str, target_arn: str, redrive_payload: str | None = None
) -> None:
    """Sends an event to the DLQ. If this raises, the caller must fail too, so that the event is not lost.

    Args:
        body: the event as it was received.
        code: the reason as an error code.
        target_arn: the function that failed. EventBridge uses the same attribute.
        redrive_payload: JSON with which a redrive invokes the function; None if it is the body.
    """
    attributes = {"ERROR_CODE": code, "ERROR_MESSAGE": message[:MAX_MESSAGE], "TARGET_ARN": target_arn}
    if redrive_payload:
        attributes["REDRIVE_PAYLOAD"] = redrive_payload
    sqs.send_message(
        QueueUrl=url,
        MessageBody=body,
        MessageAttributes={name: {"DataType": "String", "StringValue": text} for name, text in attributes.items()},
    )
