"""EmailFunction against moto: its e-mails, its idempotency records and its messages in the DLQ."""

import dataclasses
import email
import email.policy
import json
import time
import traceback
import uuid
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest
from aws_lambda_powertools.utilities.idempotency.exceptions import IdempotencyAlreadyInProgressError
from botocore.exceptions import ClientError, ConnectionClosedError

from tests.chaos.check import record_id
from tests.customer import PERSONAL
from tests.integration.support import Aws, Context, log_lines, measured, module, order_event
from tools.personal_data import personal_data_in

SENDER, SALES, CUSTOMER = "shop@example.com", "sales@example.com", "ada@example.com"
ORDER = "ORD-6V5P7GG0RPDMGJQ01WCPTTA70T"


def set_addresses(
    function: ModuleType, monkeypatch: pytest.MonkeyPatch, *, sender: str = SENDER, sales: str = SALES
) -> None:
    """Sets the addresses of the function's settings."""
    settings = dataclasses.replace(function.settings, sender_email=sender, sales_email=sales)
    mailer = function.Mailer(function.mailer._ses, sender, settings.configuration_set)
    monkeypatch.setattr(function, "settings", settings)
    monkeypatch.setattr(function, "mailer", mailer)


@pytest.fixture
def function(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The function with both addresses."""
    found = module("customer_email.handler")
    aws.store.client("sesv2").create_email_identity(EmailIdentity=SENDER)
    set_addresses(found, monkeypatch)
    return found


@pytest.fixture
def mails(aws: Aws) -> Iterator[list[Any]]:
    """The e-mails that SES has accepted."""
    accepted: list[Any] = []
    aws.store.on_mail = lambda raw: accepted.append(email.message_from_bytes(raw, policy=email.policy.default))
    yield accepted
    aws.store.on_mail = lambda _: None


def event_of_type(detail_type: str) -> dict[str, Any]:
    event = order_event(detail_type, ORDER, [("PROD-1", 2)])
    event["detail"]["metadata"]["eventId"] = uuid.uuid4().hex
    return event


class FailingSes:
    """SES that fails a number of times with an error code, and then succeeds."""

    def __init__(self, ses: Any, code: str, message: str, times: int) -> None:
        self._ses = ses
        self._error = ClientError({"Error": {"Code": code, "Message": message}}, "SendEmail")
        self._times = times

    def send_email(self, **request: Any) -> Any:
        self._times -= 1
        if self._times >= 0:
            raise self._error
        return self._ses.send_email(**request)


def fail(
    function: ModuleType, monkeypatch: pytest.MonkeyPatch, code: str, message: str = f"no mail for {CUSTOMER}"
) -> None:
    """Makes SES fail once."""
    monkeypatch.setattr(function.mailer, "_ses", FailingSes(function.mailer._ses, code, message, times=1))


def test_a_confirmed_order_is_mailed_to_the_customer_as_text_and_html(function: ModuleType, mails: list[Any]) -> None:
    event = event_of_type("Order Confirmed")
    function.handler(event, Context())
    (mail,) = mails
    assert (mail["From"], mail["To"], mail["Subject"]) == (SENDER, CUSTOMER, f"Your order {ORDER} is confirmed")
    assert [part.get_content_type() for part in mail.iter_parts()] == ["text/plain", "text/html"]
    assert all("Total: 21.00 USD" in part.get_content() for part in mail.iter_parts())


def test_a_high_value_order_is_mailed_to_the_sales_address(function: ModuleType, mails: list[Any]) -> None:
    function.handler(event_of_type("Order Placed"), Context())
    assert [mail["To"] for mail in mails] == [SALES]


def test_a_mail_carries_its_kind_and_event_id_as_tags(function: ModuleType, mails: list[Any]) -> None:
    event = event_of_type("Order Rejected")
    function.handler(event, Context())
    tags = f"kind=order-rejected, event_id={event['detail']['metadata']['eventId']}"
    assert [mail["X-SES-MESSAGE-TAGS"] for mail in mails] == [tags]


def test_a_mail_is_sent_in_utf_8_and_through_the_configuration_set(
    aws: Aws, function: ModuleType, mails: list[Any]
) -> None:
    event = event_of_type("Order Confirmed")
    event["detail"]["items"][0]["name"] = "Crème 東京"
    function.handler(event, Context())
    (request,) = [request for operation, request in aws.requests if operation == "SendEmail"]
    assert request["ConfigurationSetName"] == aws.stack.resources["EmailConfigurationSet"].physical_id
    content = request["Content"]["Simple"]
    texts = [content["Subject"], content["Body"]["Text"], content["Body"]["Html"]]
    assert [text["Charset"] for text in texts] == ["UTF-8"] * 3
    assert all("Crème 東京" in part.get_content() for part in mails[0].iter_parts())


def test_a_call_of_ses_ends_before_the_function_times_out(aws: Aws, function: ModuleType) -> None:
    config = function.mailer._ses.meta.config
    time_out = aws.stack.resources["EmailFunction"].properties["Timeout"]
    assert config.connect_timeout + config.read_timeout < time_out


def test_a_repeated_event_sends_one_mail_and_another_event_its_own(function: ModuleType, mails: list[Any]) -> None:
    event = event_of_type("Order Confirmed")
    for _ in range(3):
        function.handler(event, Context())
    assert len(mails) == 1
    function.handler(event_of_type("Order Confirmed"), Context())
    assert len(mails) == 2


def test_two_events_of_the_same_kind_and_time_send_two_mails(function: ModuleType, mails: list[Any]) -> None:
    one, other = event_of_type("Order Confirmed"), event_of_type("Order Confirmed")
    other["detail"]["orderId"] = "ORD-7V5P7GG0RPDMGJQ01WCPTTA70T"
    other["detail"]["metadata"]["timestamp"] = one["detail"]["metadata"]["timestamp"]
    for event in (one, other):
        function.handler(event, Context())
    assert [other["detail"]["orderId"] in mail["Subject"] for mail in mails] == [False, True]


def test_a_republished_event_with_another_envelope_sends_no_second_mail(function: ModuleType, mails: list[Any]) -> None:
    event = event_of_type("Order Confirmed")
    function.handler(event, Context())
    function.handler({**event, "id": str(uuid.uuid4())}, Context())
    assert len(mails) == 1


def test_two_kinds_of_mail_for_one_event_are_both_sent(function: ModuleType, mails: list[Any]) -> None:
    event = event_of_type("Order Placed")
    function.handler(event, Context())
    function.handler({**event, "detail-type": "Order Confirmed"}, Context())
    assert [mail["To"] for mail in mails] == [SALES, CUSTOMER]


def test_the_idempotency_record_contains_only_the_message_id_and_outlives_archive_and_dlq(
    aws: Aws, function: ModuleType, mails: list[Any]
) -> None:
    before = {item["id"] for item in aws.idempotency_table().scan()["Items"]}
    function.handler(event_of_type("Order Confirmed"), Context())
    (record,) = [item for item in aws.idempotency_table().scan()["Items"] if item["id"] not in before]
    assert record["status"] == "COMPLETED"
    assert f"<{json.loads(record['data'])}@email.amazonses.com>" == mails[0]["Message-ID"]
    assert record["expiration"] > time.time() + 104 * 24 * 60 * 60


def test_the_chaos_check_computes_the_id_of_the_idempotency_record(
    aws: Aws, function: ModuleType, mails: list[Any]
) -> None:
    event = event_of_type("Order Confirmed")
    function.handler(event, Context())
    key = {"id": record_id("order-confirmed", event["detail"]["metadata"]["eventId"])}
    assert aws.idempotency_table().get_item(Key=key)["Item"]["status"] == "COMPLETED"


def test_a_concurrent_copy_of_an_event_fails_so_that_lambda_retries_it(
    function: ModuleType, mails: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    event, send = event_of_type("Order Confirmed"), function.mailer.send

    def send_slowly(*arguments: Any) -> Any:
        with pytest.raises(IdempotencyAlreadyInProgressError):
            function.handler(event, Context())
        return send(*arguments)

    monkeypatch.setattr(function.mailer, "send", send_slowly)
    function.handler(event, Context())
    assert len(mails) == 1


def test_a_mail_whose_response_is_lost_is_not_sent_again_by_the_sdk(
    aws: Aws, function: ModuleType, mails: list[Any]
) -> None:
    with aws.lost_answers("/v2/email/"), pytest.raises(ConnectionClosedError):
        function.handler(event_of_type("Order Confirmed"), Context())
    assert len(mails) == 1


def test_a_long_reason_of_ses_is_cut_to_1000_characters(
    aws: Aws, function: ModuleType, mails: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    fail(function, monkeypatch, "MessageRejected", "no" * 1000)
    function.handler(event_of_type("Order Confirmed"), Context())
    (message,) = aws.dlq()
    assert message["MessageAttributes"]["ERROR_MESSAGE"]["StringValue"] == "no" * 500


class Killed(BaseException):
    """The process ends: no exception handler runs."""


def test_a_mail_whose_process_was_killed_is_sent_by_the_retry_after_the_function_timed_out(
    function: ModuleType, mails: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lock ends with the time that the invocation had left, which is none here."""
    event = event_of_type("Order Confirmed")

    def die(*_: Any) -> None:
        raise Killed

    with monkeypatch.context() as killed:
        killed.setattr(function.mailer, "send", die)
        with pytest.raises(Killed):
            function.handler(event, Context(remaining_milliseconds=0))
    function.handler(event, Context())
    assert len(mails) == 1


@pytest.mark.parametrize(
    "code",
    [
        "MessageRejected",
        "MailFromDomainNotVerifiedException",
        "NotFoundException",
        "BadRequestException",
        "AccountSuspendedException",
    ],
)
def test_an_event_whose_mail_ses_rejects_goes_to_the_dlq_unchanged(
    aws: Aws, function: ModuleType, mails: list[Any], monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    event = event_of_type("Order Confirmed")
    fail(function, monkeypatch, code)
    function.handler(event, Context())
    assert mails == []
    (message,) = aws.dlq()
    assert json.loads(message["Body"]) == event
    attributes = {name: value["StringValue"] for name, value in message["MessageAttributes"].items()}
    assert attributes == {
        "ERROR_CODE": code,
        "ERROR_MESSAGE": f"no mail for {CUSTOMER}",
        "TARGET_ARN": Context.invoked_function_arn,
    }


def test_a_rejected_mail_is_sent_when_its_event_is_redriven_after_the_cause_is_fixed(
    aws: Aws, function: ModuleType, mails: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    set_addresses(function, monkeypatch, sender="nobody@unverified.example.com")
    function.handler(event_of_type("Order Confirmed"), Context())
    (message,) = aws.dlq()
    assert message["MessageAttributes"]["ERROR_CODE"]["StringValue"] == "MessageRejected"
    set_addresses(function, monkeypatch)
    function.handler(json.loads(message["Body"]), Context())
    assert [mail["To"] for mail in mails] == [CUSTOMER]


@pytest.mark.parametrize("code", ["TooManyRequestsException", "LimitExceededException", "SendingPausedException"])
def test_a_mail_that_ses_cannot_accept_now_is_sent_by_lambdas_retry(
    aws: Aws, function: ModuleType, mails: list[Any], monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    event = event_of_type("Order Confirmed")
    fail(function, monkeypatch, code)
    with pytest.raises(module("customer_email.ses").NotAccepted, match=f"^{code}$"):
        function.handler(event, Context())
    assert mails == []
    function.handler(event, Context())
    assert len(mails) == 1
    assert aws.dlq() == []


def test_without_a_sender_mails_are_skipped_and_counted(
    function: ModuleType, mails: list[Any], monkeypatch: pytest.MonkeyPatch, output: Callable[[], str]
) -> None:
    event = event_of_type("Order Confirmed")
    with monkeypatch.context() as without:
        set_addresses(function, without, sender="")
        function.handler(event, Context())
    assert mails == []
    assert measured(output(), "EmailsSkipped") == [1.0]
    function.handler(event, Context())
    assert len(mails) == 1, "a skipped e-mail is sent if its event comes again once there is a sender"


def test_without_a_sales_address_a_high_value_order_is_skipped_and_customers_get_their_mail(
    function: ModuleType, mails: list[Any], monkeypatch: pytest.MonkeyPatch, output: Callable[[], str]
) -> None:
    set_addresses(function, monkeypatch, sales="")
    function.handler(event_of_type("Order Placed"), Context())
    function.handler(event_of_type("Order Confirmed"), Context())
    assert [mail["To"] for mail in mails] == [CUSTOMER]
    assert measured(output(), "EmailsSkipped") == [1.0]


def test_mails_are_counted_and_logged_with_their_order_and_never_with_an_address(
    function: ModuleType, mails: list[Any], monkeypatch: pytest.MonkeyPatch, output: Callable[[], str]
) -> None:
    event = event_of_type("Order Confirmed")
    function.handler(event, Context())
    fail(function, monkeypatch, "MessageRejected")
    function.handler(event_of_type("Order Cancelled"), Context())
    fail(function, monkeypatch, "AccessDeniedException")
    with pytest.raises(module("customer_email.ses").NotAccepted) as raised:
        function.handler(event_of_type("Order Rejected"), Context())
    printed = output()
    assert (measured(printed, "EmailsSent"), measured(printed, "EmailsRejected")) == ([1.0], [1.0])
    (sent,) = [line for line in log_lines(printed) if line.get("message") == "mail sent"]
    assert {name: sent[name] for name in ("order_id", "event_id", "correlation_id", "kind")} == {
        "order_id": ORDER,
        "event_id": event["detail"]["metadata"]["eventId"],
        "correlation_id": "correlation-1",
        "kind": "order-confirmed",
    }
    # Lambda logs the exception that a handler raises
    assert personal_data_in(traceback.format_exception(raised.value), PERSONAL) == []
