"""The other services behave like AWS where moto does not: a test for each correction in localaws/other_services.py."""

import email
import email.policy
import io
import json
import threading
import zipfile
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError
from joserfc import jwt

from localaws.aws import ServiceError
from localaws.store import InvokeAnswer, Store
from localaws.tests.stock import put
from localaws.tests.support import code_of


def test_put_events_is_answered_by_the_bus(store: Store) -> None:
    taken: list[dict[str, Any]] = []

    def on_put_events(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
        taken.extend(entries)
        return [{"EventId": "1"}, {"ErrorCode": "MalformedDetail", "ErrorMessage": "no"}]

    store.on_put_events = on_put_events
    entries = [{"Source": "shop", "DetailType": "Sold", "Detail": "{}"}, {"Source": "shop", "Detail": "nonsense"}]

    answer = store.client("events").put_events(Entries=entries)

    assert taken == entries
    assert answer["FailedEntryCount"] == 1
    assert answer["Entries"] == [{"EventId": "1"}, {"ErrorCode": "MalformedDetail", "ErrorMessage": "no"}]


def test_an_error_of_the_bus_is_an_aws_error(store: Store) -> None:
    def refuse(_entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
        raise ServiceError("ValidationException", "too many entries")

    store.on_put_events = refuse

    with pytest.raises(ClientError, match="too many entries") as error:
        store.client("events").put_events(Entries=[{"Source": "shop"}])

    assert code_of(error) == "ValidationException"
    assert error.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400


def test_replays_are_answered_by_the_archives(store: Store) -> None:
    asked: list[tuple[str, dict[str, Any]]] = []

    def on_replay(action: str, request: dict[str, Any]) -> dict[str, Any]:
        asked.append((action, request))
        if action == "CancelReplay":
            raise ServiceError("IllegalStatusException", "it has ended")
        return {"State": "RUNNING", "ReplayStartTime": 1_795_262_400.5, "Replays": []}

    store.on_replay = on_replay
    events, noon = store.client("events"), datetime(2026, 11, 21, 12, tzinfo=UTC)
    window = {"EventStartTime": noon, "EventEndTime": noon + timedelta(seconds=1)}

    started = events.start_replay(ReplayName="again", EventSourceArn="arn", Destination={"Arn": "bus"}, **window)
    described, listed = events.describe_replay(ReplayName="again"), events.list_replays()
    with pytest.raises(ClientError, match="it has ended") as error:
        events.cancel_replay(ReplayName="again")

    assert [action for action, _ in asked] == ["StartReplay", "DescribeReplay", "ListReplays", "CancelReplay"]
    assert (asked[0][1]["EventStartTime"], asked[0][1]["EventEndTime"]) == (1_795_262_400, 1_795_262_401)
    assert started["ReplayStartTime"] == noon + timedelta(seconds=0.5)
    assert (described["State"], listed["Replays"], code_of(error)) == ("RUNNING", [], "IllegalStatusException")


@pytest.fixture
def function(store: Store) -> str:
    """A function's ARN."""
    role = store.client("iam").create_role(RoleName="role", AssumeRolePolicyDocument="{}")["Role"]["Arn"]
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as code:
        code.writestr("index.py", "")
    made = store.client("lambda").create_function(
        FunctionName="seller",
        Role=role,
        Runtime="python3.13",
        Handler="index.handler",
        Code={"ZipFile": archive.getvalue()},
    )
    return str(made["FunctionArn"])


def test_an_invocation_is_answered_by_on_invoke(store: Store, function: str) -> None:
    calls: list[tuple[Any, ...]] = []

    def on_invoke(name: str, qualifier: str | None, headers: Mapping[str, str], payload: bytes) -> InvokeAnswer:
        calls.append((name, qualifier, headers.get("X-Amz-Invocation-Type"), payload))
        return 202, {"x-amzn-requestid": "the-request"}, b""

    store.on_invoke = on_invoke

    answer = store.client("lambda").invoke(
        FunctionName=f"{function}:$LATEST", Qualifier="live", InvocationType="Event", Payload=b"\xff"
    )

    assert calls == [(f"{function}:$LATEST", "live", "Event", b"\xff")]
    assert (answer["StatusCode"], answer["Payload"].read()) == (202, b"")
    assert answer["ResponseMetadata"]["RequestId"] == "the-request"


def test_an_error_of_on_invoke_is_an_aws_error(store: Store, function: str) -> None:
    error_type = {"x-amzn-errortype": "TooManyRequestsException"}
    store.on_invoke = lambda *_: (429, error_type, b'{"message": "Rate Exceeded."}')

    with pytest.raises(ClientError, match=r"Rate Exceeded\.") as error:
        store.client("lambda").invoke(FunctionName="seller")

    assert code_of(error) == "TooManyRequestsException"
    assert error.value.response["ResponseMetadata"]["HTTPStatusCode"] == 429


def test_a_topic_invokes_its_function_asynchronously(store: Store, function: str) -> None:
    calls: list[tuple[str, str | None]] = []

    def on_invoke(name: str, _qualifier: str | None, headers: Mapping[str, str], payload: bytes) -> InvokeAnswer:
        calls.append((json.loads(payload)["Records"][0]["Sns"]["Message"], headers.get("X-Amz-Invocation-Type")))
        return 202, {}, b""

    store.on_invoke = on_invoke
    topics = store.client("sns")
    topic = topics.create_topic(Name="sold")["TopicArn"]
    topics.subscribe(TopicArn=topic, Protocol="lambda", Endpoint=function)

    topics.publish(TopicArn=topic, Message="one")

    assert calls == [("one", "Event")]


def test_a_change_of_reserved_concurrency_is_reported(store: Store, function: str) -> None:
    told: list[tuple[str, int | None]] = []
    store.on_concurrency = lambda *change: told.append(change)
    client = store.client("lambda")

    client.put_function_concurrency(FunctionName="seller", ReservedConcurrentExecutions=0)
    client.delete_function_concurrency(FunctionName="seller")

    assert told == [("seller", 0), ("seller", None)]


def test_a_function_may_use_the_tables_while_it_is_invoked(store: Store, tables: Any, function: str) -> None:
    def on_invoke(*_: Any) -> InvokeAnswer:
        worker = threading.Thread(target=put, args=(tables, "cup"))
        worker.start()
        worker.join(5)
        return 200, {}, b"stuck" if worker.is_alive() else b"done"

    store.on_invoke = on_invoke

    answer = store.client("lambda").invoke(FunctionName="seller")

    assert answer["Payload"].read() == b"done"


def test_a_mapping_leaves_the_messages_in_the_queue_for_its_poller(store: Store, function: str) -> None:
    invoked: list[str] = []

    def on_invoke(name: str, *_: Any) -> InvokeAnswer:
        invoked.append(name)
        return 200, {}, b"{}"

    store.on_invoke = on_invoke
    queues = store.client("sqs")
    url = queues.create_queue(QueueName="orders")["QueueUrl"]
    arn = queues.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    store.client("lambda").create_event_source_mapping(FunctionName="seller", EventSourceArn=arn)

    queues.send_message(QueueUrl=url, MessageBody="one")

    assert [message["Body"] for message in queues.receive_message(QueueUrl=url)["Messages"]] == ["one"]
    assert invoked == []


def id_claims(store: Store, **client_settings: Any) -> dict[str, Any]:
    """Returns the claims of a new user's ID token after a check of the signature."""
    cognito = store.client("cognito-idp")
    pool = cognito.create_user_pool(PoolName="pool", UsernameAttributes=["email"])["UserPool"]["Id"]
    flows = ["ALLOW_ADMIN_USER_PASSWORD_AUTH"]
    client = cognito.create_user_pool_client(
        UserPoolId=pool, ClientName="shop", ExplicitAuthFlows=flows, **client_settings
    )["UserPoolClient"]["ClientId"]
    attributes = [{"Name": "email", "Value": "ann@example.com"}, {"Name": "email_verified", "Value": "true"}]
    cognito.create_group(UserPoolId=pool, GroupName="staff")
    cognito.admin_create_user(UserPoolId=pool, Username="ann@example.com", UserAttributes=attributes)
    cognito.admin_set_user_password(
        UserPoolId=pool, Username="ann@example.com", Password="Passw0rd!Passw0rd", Permanent=True
    )
    cognito.admin_add_user_to_group(UserPoolId=pool, Username="ann@example.com", GroupName="staff")
    tokens = cognito.admin_initiate_auth(
        UserPoolId=pool,
        ClientId=client,
        AuthFlow="ADMIN_USER_PASSWORD_AUTH",
        AuthParameters={"USERNAME": "ann@example.com", "PASSWORD": "Passw0rd!Passw0rd"},
    )["AuthenticationResult"]
    claims = jwt.decode(tokens["IdToken"], store.signing_keys()).claims
    assert claims["iss"] == f"https://cognito-idp.us-east-1.amazonaws.com/{pool}"
    assert claims["aud"] == client
    return dict(claims)


def test_an_id_token_carries_what_cognito_puts_into_it(store: Store) -> None:
    claims = id_claims(store)

    assert claims["email"] == "ann@example.com"
    assert claims["email_verified"] is True
    assert claims["cognito:groups"] == ["staff"]
    assert claims["cognito:username"] == claims["sub"]
    assert claims["token_use"] == "id"
    assert claims.keys() >= {"sub", "auth_time", "iat", "exp", "jti", "origin_jti", "event_id"}


def test_an_id_token_leaves_out_what_the_client_may_not_read(store: Store) -> None:
    claims = id_claims(store, ReadAttributes=["email"])

    assert claims["email"] == "ann@example.com"
    assert "email_verified" not in claims


def test_on_mail_gets_an_accepted_mail_as_its_recipient_gets_it(store: Store) -> None:
    handed_out: list[bytes] = []
    store.on_mail = handed_out.append
    ses = store.client("sesv2")
    ses.create_email_identity(EmailIdentity="shop@example.com")
    answer = ses.send_email(
        FromEmailAddress="shop@example.com",
        Destination={"ToAddresses": ["ann@example.com"]},
        Content={
            "Simple": {"Subject": {"Data": "Grüße"}, "Body": {"Text": {"Data": "Hej"}, "Html": {"Data": "<p>Hej</p>"}}}
        },
        EmailTags=[{"Name": "kind", "Value": "greeting"}],
    )

    (raw,) = handed_out
    mail = email.message_from_bytes(raw, policy=email.policy.default)
    assert (mail["From"], mail["To"], mail["Subject"]) == ("shop@example.com", "ann@example.com", "Grüße")
    assert mail["Message-ID"] == f"<{answer['MessageId']}@email.amazonses.com>"
    assert mail["X-SES-MESSAGE-TAGS"] == "kind=greeting"
    parts = [(part.get_content_type(), part.get_content().strip()) for part in mail.iter_parts()]
    assert parts == [("text/plain", "Hej"), ("text/html", "<p>Hej</p>")]


def test_on_mail_is_not_called_for_a_mail_that_ses_rejects(store: Store) -> None:
    handed_out: list[bytes] = []
    store.on_mail = handed_out.append

    with pytest.raises(ClientError) as error:
        store.client("sesv2").send_email(
            FromEmailAddress="nobody@example.com",
            Destination={"ToAddresses": ["ann@example.com"]},
            Content={"Simple": {"Subject": {"Data": "Hej"}, "Body": {"Text": {"Data": "Hej"}}}},
        )

    assert code_of(error) == "MessageRejected"
    assert handed_out == []
