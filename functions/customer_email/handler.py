"""EmailFunction: e-mails customers about their orders, and the sales team about high-value orders."""

from dataclasses import dataclass

import boto3
from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.data_classes import EventBridgeEvent, event_source
from aws_lambda_powertools.utilities.idempotency import idempotent_function
from aws_lambda_powertools.utilities.typing import LambdaContext

from customer_email.domain import Mail, mail_for
from customer_email.ses import CLIENT, Mailer, Rejected
from orderflow.dlq import send_to_dlq
from orderflow.events import OrderEvent
from orderflow.idempotency import idempotency_config, persistence_layer
from orderflow.observability import CORRELATION_PATH, logger, metrics, tracer
from orderflow.serialization import to_json
from orderflow.settings import from_environment


@dataclass(frozen=True)
class Settings:
    """EmailFunction's environment."""

    idempotency_table: str
    configuration_set: str
    dlq_url: str
    sender_email: str = ""
    sales_email: str = ""


settings = from_environment(Settings)
mailer = Mailer(boto3.client("sesv2", config=CLIENT), settings.sender_email, settings.configuration_set)
sqs = boto3.client("sqs")
idempotency = idempotency_config("[event_id, kind]")


@idempotent_function(  # type: ignore[untyped-decorator]
    data_keyword_argument="mail",
    config=idempotency,
    persistence_store=persistence_layer(settings.idempotency_table, boto3.client("dynamodb")),
    key_prefix="email",  # the default is the function's name: after a change of name, each e-mail could be sent again
)
def send_once(*, mail: Mail) -> str:
    """Sends an e-mail unless it was sent before, and returns SES's message id.

    The idempotency record is completed after SES has accepted the e-mail. An e-mail is sent twice only if SES's
    response or the record is lost: the process ends in between, or the network or DynamoDB fails at that moment.
    """
    message_id = mailer.send(mail)
    logger.info("mail sent", message_id=message_id)
    metrics.add_metric(name="EmailsSent", unit=MetricUnit.Count, value=1)
    return message_id


@logger.inject_lambda_context(correlation_id_path=CORRELATION_PATH, clear_state=True)
@tracer.capture_lambda_handler(capture_response=False)
@metrics.log_metrics
@event_source(data_class=EventBridgeEvent)
def handler(event: EventBridgeEvent, context: LambdaContext) -> None:
    """Sends the e-mail for one event: Order Placed, Order Confirmed, Order Rejected or Order Cancelled.

    Lambda retries the invocation after NotAccepted, and after IdempotencyAlreadyInProgressError: another invocation is
    sending the e-mail, or stopped while it did.
    """
    idempotency.register_lambda_context(context)
    order_event = OrderEvent.from_envelope(event.detail_type, event.detail)
    mail = mail_for(order_event, settings.sales_email)
    logger.append_keys(order_id=order_event.order_id, event_id=mail.event_id, kind=mail.kind)
    if not settings.sender_email or not mail.to:
        logger.info("mail skipped", missing="recipient" if settings.sender_email else "sender")
        metrics.add_metric(name="EmailsSkipped", unit=MetricUnit.Count, value=1)
        return
    try:
        send_once(mail=mail)
    except Rejected as error:
        logger.error("mail rejected", error=error.code)
        metrics.add_metric(name="EmailsRejected", unit=MetricUnit.Count, value=1)
        body, arn = to_json(event.raw_event), context.invoked_function_arn
        send_to_dlq(sqs, settings.dlq_url, body, error.code, error.reason, arn)
