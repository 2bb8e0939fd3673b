"""Tells people of failures: once per consumer, reason and hour, and never what an event contains."""

from typing import Any
from urllib.parse import quote

from aws_lambda_powertools.utilities.idempotency import DynamoDBPersistenceLayer, idempotent_function
from aws_lambda_powertools.utilities.typing import LambdaContext

from dlq_processor.repository import FailedEvent
from orderflow import idempotency

KEEP_SECONDS = 2 * 60 * 60
"""An alert is told apart by its hour, so that its record may go an hour after that."""
MAX_SUBJECT = 100
"""Characters, of ASCII (SNS API reference, Publish)."""


class Alerts:
    """The alert topic.

    Args:
        sns: the SNS client.
        topic: the topic's ARN.
        persistence: remembers which alerts were sent.
    """

    def __init__(self, sns: Any, topic: str, persistence: DynamoDBPersistenceLayer) -> None:
        self._sns = sns
        self._topic = topic
        self._persistence = persistence

    def send(self, record: FailedEvent, *, retried: bool, context: LambdaContext) -> None:
        """Send an alert, unless one of the same consumer and reason was sent within this hour.

        Args:
            record: the first failure of this kind within the hour.
            retried: whether it is tried again automatically.
            context: the invocation's.
        """

        @idempotent_function(  # type: ignore[untyped-decorator]
            data_keyword_argument="alert",
            persistence_store=self._persistence,
            config=idempotency.configuration("[consumer, reason, hour]", "", KEEP_SECONDS, context),
            key_prefix="alert",
        )
        def once(*, alert: dict[str, str]) -> None:
            self._sns.publish(TopicArn=self._topic, Subject=subject(record), Message=text(record, retried=retried))

        hour = record.last_failed_at[: len("2026-11-21T18")]
        once(alert={"consumer": record.consumer, "reason": record.reason, "hour": hour})


def subject(record: FailedEvent) -> str:
    """The alert in a line."""
    return f"Failed event: {record.consumer}, {record.reason}"[:MAX_SUBJECT]


def text(record: FailedEvent, *, retried: bool) -> str:
    """The alert's text: what failed, and what to do."""
    return "\n".join(
        (
            f"Consumer: {record.consumer}",
            f"Reason:   {record.reason}",
            f"Record:   {record.id}",
            f"Order:    {record.order_id or 'not known'}",
            f"Status:  {record.status}, after {record.failures} failures and {record.attempts} automatic retries",
            "",
            _next_step(record, retried=retried),
            "",
            f"All of this consumer's: GET /admin/failed-events?consumer={quote(record.consumer)}",
            "What each reason means and what to do about it: docs/operations.md",
            "More failures of this consumer for this reason are stored, and not told of within this hour.",
        )
    )


def _next_step(record: FailedEvent, *, retried: bool) -> str:
    if retried:
        return "It is tried again automatically. If that does not help either, it is PARKED: look at it in ten minutes."
    if record.mend:
        return f"No invocation mends it. Once the cause is gone: {record.mend}"
    return f"Once the cause is gone: POST /admin/failed-events/{quote(record.id)}/redrive"
