"""EmailFunction: tells customers what became of their orders, and the sales team of orders of high value."""

import os
from dataclasses import dataclass
from typing import Any

import boto3
from aws_lambda_powertools.utilities.idempotency import idempotent_function
from aws_lambda_powertools.utilities.typing import LambdaContext

from customer_email.domain import Mail, mail_for
from customer_email.ses import CLIENT, Mailer, Rejected
from orderflow import idempotency
from orderflow.dlq import send_to_dlq
from orderflow.observability import CORRELATION_PATH, count, logger, metrics, tracer
from orderflow.serialization import to_json, with_decimals
from orderflow.settings import from_environment


@dataclass(frozen=True)
class Settings:
    """EmailFunction's environment."""

    idempotency_table: str
    configuration_set: str
    unsendable_queue_url: str


settings = from_environment(Settings)
# These two are no settings, because they may be empty: then mails are skipped.
mailer = Mailer(boto3.client("sesv2", config=CLIENT), os.environ["SENDER_EMAIL"], settings.configuration_set)
sales = os.environ["SALES_EMAIL"]
queue = boto3.client("sqs")
persistence = idempotency.persistence(settings.idempotency_table, boto3.client("dynamodb"))


@logger.inject_lambda_context(correlation_id_path=CORRELATION_PATH, clear_state=True)
@tracer.capture_lambda_handler(capture_response=False)
@metrics.log_metrics
def handler(event: dict[str, Any], context: LambdaContext) -> None:
    """Tell of one event of an order: Order Placed, Confirmed, Rejected or Cancelled.

    Raises:
        NotAccepted: SES did not take the mail this time.
        IdempotencyAlreadyInProgressError: another invocation is sending it, or died while it did. The retry finds out.
    """
    detail = with_decimals(event["detail"])
    event_id = detail["metadata"]["eventId"]
    mail = mail_for(event["detail-type"], detail, sales)
    logger.append_keys(order_id=detail["orderId"], event_id=event_id, kind=mail.kind)
    if not (mailer.sender and mail.to):
        logger.info("mail skipped", lacking="recipient" if mailer.sender else "sender")
        count("EmailsSkipped")
        return
    try:
        _send_once(mail, event_id, context)
    except Rejected as rejection:
        logger.error("mail can never be sent", error=rejection.code)
        count("EmailsRejected")
        body, url = to_json(event), settings.unsendable_queue_url
        send_to_dlq(queue, url, body, rejection.code, rejection.reason, context.invoked_function_arn)


def _send_once(mail: Mail, event_id: str, context: LambdaContext) -> None:
    """Send a mail unless it was sent for this event before.

    The record is written after SES has accepted the mail, and holds SES's id of it. A mail is sent twice only if its
    first answer or its record is lost: the process dies in between, or DynamoDB or the network fails at that moment.
    """

    @idempotent_function(  # type: ignore[untyped-decorator]
        data_keyword_argument="told",
        persistence_store=persistence,
        config=idempotency.configuration("[event_id, kind]", "", idempotency.KEEP_SECONDS, context),
        key_prefix="email",  # and not the function's name, which changes sooner than the records expire
    )
    def once(*, told: dict[str, str]) -> str:
        message_id = mailer.send(mail, told["event_id"])
        logger.info("mail sent", message_id=message_id)
        count("EmailsSent")
        return message_id

    once(told={"event_id": event_id, "kind": mail.kind})
