"""Sends e-mails through Amazon SES."""

from typing import TYPE_CHECKING

from botocore.config import Config
from botocore.exceptions import ClientError

from customer_email.domain import Mail

if TYPE_CHECKING:
    from mypy_boto3_sesv2.client import SESV2Client
    from mypy_boto3_sesv2.type_defs import BodyTypeDef, ContentTypeDef

CLIENT = Config(connect_timeout=2, read_timeout=5, retries={"total_max_attempts": 1})
"""One attempt: SendEmail has no idempotency token, so the SDK could send an e-mail twice if a response is lost. Lambda
retries the invocation instead."""

PERMANENT_ERRORS = (
    "AccountSuspendedException",
    "BadRequestException",
    "MailFromDomainNotVerifiedException",
    "MessageRejected",
    "NotFoundException",
)
"""Error codes of SendEmail that a retry cannot clear (SES API v2 reference). SendingPausedException is not one of them:
sending can resume while Lambda retries."""


class Rejected(Exception):
    """SES rejected the e-mail permanently. The text is SES's error code.

    Attributes:
        reason: SES's error message. It can contain addresses, so it must not be logged.
    """

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(code)
        self.code = code
        self.reason = reason


class NotAccepted(Exception):
    """SES failed with an error that a retry can clear. The text is SES's error code."""


class Mailer:
    """Sends e-mails from one address, by a client made with CLIENT.

    Args:
        configuration_set: publishes the sending events, such as bounces.
    """

    def __init__(self, ses: "SESV2Client", sender: str, configuration_set: str) -> None:
        self._ses = ses
        self._sender = sender
        self._configuration_set = configuration_set

    def send(self, mail: Mail) -> str:
        """Sends an e-mail and returns SES's message id, or raises Rejected or NotAccepted."""
        body: BodyTypeDef = {"Text": _utf8(mail.text), "Html": _utf8(mail.html)}
        try:
            response = self._ses.send_email(
                FromEmailAddress=self._sender,
                Destination={"ToAddresses": [mail.to]},
                Content={"Simple": {"Subject": _utf8(mail.subject), "Body": body}},
                ConfigurationSetName=self._configuration_set,
                EmailTags=[{"Name": "kind", "Value": mail.kind}, {"Name": "event_id", "Value": mail.event_id}],
            )
        except ClientError as error:
            code = error.response["Error"]["Code"]
            # "from None": the traceback is logged, and the text of the ClientError can contain addresses
            if code in PERMANENT_ERRORS:
                raise Rejected(code, error.response["Error"]["Message"]) from None
            raise NotAccepted(code) from None
        return response["MessageId"]


def _utf8(text: str) -> "ContentTypeDef":
    return {"Data": text, "Charset": "UTF-8"}
