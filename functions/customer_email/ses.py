"""Sends e-mails through SES."""

from typing import Any

from botocore.config import Config
from botocore.exceptions import ClientError

from customer_email.domain import Mail

CLIENT = Config(connect_timeout=2, read_timeout=5, retries={"total_max_attempts": 1})
"""One attempt: SendEmail knows no token that makes it idempotent, and the SDK would repeat a call whose answer was
lost. Lambda repeats what failed, a minute later."""

PERMANENT = frozenset(
    {
        "AccountSuspendedException",
        "BadRequestException",
        "MailFromDomainNotVerifiedException",
        "MessageRejected",
        "NotFoundException",
    }
)
"""Error codes of SendEmail that no retry mends (SES API v2 reference). A paused account is not among them: it may be
resumed within the hour that Lambda tries."""


class Rejected(Exception):
    """SES will never take this mail.

    Attributes:
        code: SES's.
        reason: SES's own sentence. It may hold addresses, and so is no part of the exception's text, which is logged.
    """

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(code)
        self.code = code
        self.reason = reason


class NotAccepted(Exception):
    """SES did not take the mail this time; the text is its error code."""


class Mailer:
    """SES, as one sender uses it.

    Args:
        ses: the SES client (API v2).
        sender: the address that the mails come from, or "" if there is none.
        configuration_set: reports what becomes of them.
    """

    def __init__(self, ses: Any, sender: str, configuration_set: str) -> None:
        self._ses = ses
        self.sender = sender
        self._configuration_set = configuration_set

    def send(self, mail: Mail, event_id: str) -> str:
        """Hand a mail over.

        Args:
            mail: the mail.
            event_id: of the event that it tells of; SES's reports carry it.

        Returns:
            SES's id of the message.

        Raises:
            Rejected: for good.
            NotAccepted: for now.
        """
        try:
            answer = self._ses.send_email(
                FromEmailAddress=self.sender,
                Destination={"ToAddresses": [mail.to]},
                Content={
                    "Simple": {
                        "Subject": _utf8(mail.subject),
                        "Body": {"Text": _utf8(mail.text), "Html": _utf8(mail.html)},
                    }
                },
                ConfigurationSetName=self._configuration_set,
                EmailTags=[{"Name": "kind", "Value": mail.kind}, {"Name": "event_id", "Value": event_id}],
            )
        except ClientError as error:
            code = error.response["Error"]["Code"]
            # Without the cause: its text may name addresses, and a traceback ends in the log
            if code in PERMANENT:
                raise Rejected(code, error.response["Error"]["Message"]) from None
            raise NotAccepted(code) from None
        return str(answer["MessageId"])


def _utf8(text: str) -> dict[str, str]:
    return {"Data": text, "Charset": "UTF-8"}
