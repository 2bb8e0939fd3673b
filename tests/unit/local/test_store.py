"""The store behaves like AWS where moto does not: a contract test for each correction in local/store.py."""

import email
import email.policy
import io
import json
import sys
import threading
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError, EndpointConnectionError
from joserfc import jwt
from moto.dynamodb.models import dynamodb_backends
from moto.dynamodb.models.dynamo_type import Item

from local.store import ServiceError, Store, require_moto


@pytest.fixture
def records(store: Store) -> list[dict[str, Any]]:
    """What the streams reported."""
    seen: list[dict[str, Any]] = []
    store.on_stream_record = lambda _arn, record: seen.append(record)
    return seen


@pytest.fixture
def tables(store: Store) -> Any:
    """A DynamoDB client, with an empty table `stock` that has a stream."""
    client = store.client("dynamodb")
    client.create_table(
        TableName="stock",
        KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name in ("pk", "owner", "at")],
        GlobalSecondaryIndexes=[
            {
                "IndexName": "by-owner",
                "KeySchema": [
                    {"AttributeName": "owner", "KeyType": "HASH"},
                    {"AttributeName": "at", "KeyType": "RANGE"},
                ],
                "Projection": {"ProjectionType": "ALL"},
            }
        ],
        BillingMode="PAY_PER_REQUEST",
        StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"},
    )
    return client


def put(tables: Any, pk: str, **numbers: int) -> None:
    tables.put_item(TableName="stock", Item=item(pk, **numbers))


def item(pk: str, **numbers: int) -> dict[str, Any]:
    return {"pk": {"S": pk}} | {name: {"N": str(number)} for name, number in numbers.items()}


def stored(tables: Any, pk: str) -> Any:
    return tables.get_item(TableName="stock", Key=item(pk)).get("Item")


def taking(pk: str, **more: Any) -> dict[str, Any]:
    """An update that takes one if there is one."""
    return {
        "TableName": "stock",
        "Key": item(pk),
        "UpdateExpression": "SET n = n - :one",
        "ConditionExpression": "n >= :one",
        "ExpressionAttributeValues": {":one": {"N": "1"}},
    } | more


def code_of(error: pytest.ExceptionInfo[ClientError]) -> str:
    return str(error.value.response["Error"]["Code"])


# ------------------------------------------------------------------------------------------------ the server


def test_another_version_of_moto_is_refused_with_the_version_to_install() -> None:
    with pytest.raises(RuntimeError, match=r"corrects moto 5\.2\.5 and found moto 5\.2\.6"):
        require_moto("5.2.6")


def test_an_sdk_finds_the_store_by_the_environment_of_a_function(
    store: Store, tables: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in store.function_environment().items():
        monkeypatch.setenv(name, value)

    names = boto3.Session().client("dynamodb").list_tables()["TableNames"]

    assert names == ["stock"]


def test_an_error_inside_moto_reaches_the_caller_with_its_message(store: Store) -> None:
    with pytest.raises(ClientError, match="has not been implemented") as error:
        store.client("dynamodb").describe_contributor_insights(TableName="stock")

    assert code_of(error) == "InternalFailure"


def test_after_stop_nobody_is_served_and_the_next_store_is_empty(store: Store, tables: Any) -> None:
    store.stop()

    with pytest.raises((EndpointConnectionError, ConnectionError)):
        tables.list_tables()
    store.start()
    assert store.client("dynamodb").list_tables()["TableNames"] == []


# -------------------------------------------------------------------------------------------------- the tables


def test_a_second_store_in_the_process_is_refused(store: Store) -> None:
    with pytest.raises(RuntimeError, match="already"):
        Store().start()


@pytest.fixture
def busy() -> Iterator[None]:
    """Threads take turns far more often than they usually do."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(usual)


@pytest.mark.usefixtures("busy")
def test_sixteen_threads_sell_exactly_what_is_in_stock(tables: Any) -> None:
    put(tables, "cup", n=20)

    def sell(_: int) -> bool:
        try:
            tables.update_item(**taking("cup"))
        except ClientError as error:
            assert error.response["Error"]["Code"] == "ConditionalCheckFailedException"  # noqa: PT017
            return False
        return True

    with ThreadPoolExecutor(16) as threads:
        sold = list(threads.map(sell, range(60)))

    assert sum(sold) == 20
    assert stored(tables, "cup") == item("cup", n=0)


@pytest.mark.parametrize("operation", ["put_item", "update_item", "delete_item"])
def test_a_failed_condition_answers_with_the_item(tables: Any, operation: str) -> None:
    put(tables, "cup", n=0)
    request = {
        "put_item": {"Item": item("cup", n=5), "ConditionExpression": "attribute_not_exists(pk)"},
        "update_item": {k: v for k, v in taking("cup").items() if k != "TableName"},
        "delete_item": {"Key": item("cup"), "ConditionExpression": "attribute_not_exists(pk)"},
    }[operation]

    with pytest.raises(ClientError) as error:
        getattr(tables, operation)(TableName="stock", ReturnValuesOnConditionCheckFailure="ALL_OLD", **request)

    assert code_of(error) == "ConditionalCheckFailedException"
    assert error.value.response["Item"] == item("cup", n=0)  # type: ignore[typeddict-item]


def test_a_query_gives_the_items_of_its_partition_in_the_order_of_the_sort_key(tables: Any) -> None:
    for pk, owner, at in (("a", "ann", "3"), ("b", "bob", "1"), ("c", "ann", "1"), ("d", "ann", "2")):
        tables.put_item(TableName="stock", Item=item(pk) | {"owner": {"S": owner}, "at": {"S": at}})
    put(tables, "without-owner")

    def query(name: str, value: str, **more: Any) -> list[str]:
        values = {":value": {"S": value}}
        names = {"#name": name}
        answer = tables.query(
            TableName="stock",
            KeyConditionExpression="#name = :value",
            ExpressionAttributeNames=names,
            ExpressionAttributeValues=values,
            **more,
        )
        return [found["pk"]["S"] for found in answer["Items"]]

    assert query("owner", "ann", IndexName="by-owner") == ["c", "d", "a"]
    assert query("owner", "ann", IndexName="by-owner", ScanIndexForward=False, Limit=2) == ["a", "d"]
    assert query("pk", "b") == ["b"]
    assert query("pk", "nobody") == []


def test_a_query_on_a_table_with_a_sort_key_and_number_keys(tables: Any) -> None:
    tables.create_table(
        TableName="lines",
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}, {"AttributeName": "line", "KeyType": "RANGE"}],
        AttributeDefinitions=[{"AttributeName": name, "AttributeType": "N"} for name in ("id", "line", "group")],
        GlobalSecondaryIndexes=[
            {
                "IndexName": "by-group",
                "KeySchema": [{"AttributeName": "group", "KeyType": "HASH"}],
                "Projection": {"ProjectionType": "ALL"},
            }
        ],
        BillingMode="PAY_PER_REQUEST",
    )
    for id_, line, group in ((1, 2, 7), (1, 1, 8), (2, 1, 7)):
        numbers = {"id": id_, "line": line, "group": group}
        tables.put_item(TableName="lines", Item={name: {"N": str(number)} for name, number in numbers.items()})

    def query(name: str, value: str, **more: Any) -> list[tuple[str, str]]:
        answer = tables.query(
            TableName="lines",
            KeyConditionExpression="#n = :v",
            ExpressionAttributeNames={"#n": name},
            ExpressionAttributeValues={":v": {"N": value}},
            **more,
        )
        return [(found["id"]["N"], found["line"]["N"]) for found in answer["Items"]]

    assert query("id", "1") == [("1", "1"), ("1", "2")]
    assert sorted(query("group", "7.0", IndexName="by-group")) == [("1", "2"), ("2", "1")]


def test_binary_values_come_back_as_they_went_in(tables: Any) -> None:
    whole = {"pk": {"S": "cup"}, "image": {"B": b"\x00\xff"}, "parts": {"M": {"one": {"BS": [b"\x01", b"\x02"]}}}}

    tables.put_item(TableName="stock", Item=whole)

    assert stored(tables, "cup") == whole


# ------------------------------------------------------------------------------------------------- the streams


def test_a_stream_record_has_the_form_that_lambda_hands_on(store: Store, tables: Any) -> None:
    seen: list[tuple[str, dict[str, Any]]] = []
    store.on_stream_record = lambda arn, record: seen.append((arn, record))

    put(tables, "cup", n=1)

    [(arn, record)] = seen
    assert arn == tables.describe_table(TableName="stock")["Table"]["LatestStreamArn"]
    assert record["eventSourceARN"] == arn
    assert (record["eventSource"], record["awsRegion"], record["eventName"]) == ("aws:dynamodb", "us-east-1", "INSERT")
    change = record["dynamodb"]
    assert change["Keys"] == item("cup")
    assert change["NewImage"] == item("cup", n=1)
    assert "OldImage" not in change
    assert change["StreamViewType"] == "NEW_AND_OLD_IMAGES"
    assert isinstance(change["ApproximateCreationDateTime"], float)
    assert json.loads(json.dumps(record)) == record


def test_records_come_in_the_order_of_the_writes_with_rising_numbers(
    tables: Any, records: list[dict[str, Any]]
) -> None:
    put(tables, "cup", n=2)
    tables.update_item(**taking("cup"))
    tables.delete_item(TableName="stock", Key=item("cup"))

    assert [record["eventName"] for record in records] == ["INSERT", "MODIFY", "REMOVE"]
    assert records[1]["dynamodb"]["OldImage"] == item("cup", n=2)
    assert records[1]["dynamodb"]["NewImage"] == item("cup", n=1)
    assert records[2]["dynamodb"]["OldImage"] == item("cup", n=1)
    numbers = [int(record["dynamodb"]["SequenceNumber"]) for record in records]
    assert numbers == sorted(set(numbers))


def test_an_update_that_creates_its_item_is_one_insertion(tables: Any, records: list[dict[str, Any]]) -> None:
    tables.update_item(
        TableName="stock",
        Key=item("cup"),
        UpdateExpression="SET n = :one",
        ExpressionAttributeValues={":one": {"N": "1"}},
    )

    assert [record["eventName"] for record in records] == ["INSERT"]
    assert records[0]["dynamodb"]["NewImage"] == item("cup", n=1)


def test_a_write_that_changes_nothing_is_not_reported(tables: Any, records: list[dict[str, Any]]) -> None:
    put(tables, "cup", n=1)
    put(tables, "cup", n=1)
    tables.delete_item(TableName="stock", Key=item("nothing"))

    assert len(records) == 1


def test_binary_values_are_base64_in_a_record(tables: Any, records: list[dict[str, Any]]) -> None:
    tables.put_item(TableName="stock", Item=item("cup") | {"image": {"B": b"\x00\xff"}})

    assert records[0]["dynamodb"]["NewImage"]["image"] == {"B": "AP8="}


def test_nothing_is_kept_of_a_write_but_the_item(store: Store, tables: Any, records: list[dict[str, Any]]) -> None:
    tracked = len(Item.instances_tracked)  # type: ignore[attr-defined]

    for number in range(5):
        put(tables, "cup", n=number)

    shard = dynamodb_backends[store.account_id][store.region].tables["stock"].stream_shard
    assert len(records) == 5
    assert shard is not None
    assert shard.items == []
    assert len(Item.instances_tracked) == tracked  # type: ignore[attr-defined]


# -------------------------------------------------------------------------------------------- the transactions


def test_a_transaction_writes_all_its_items(tables: Any) -> None:
    put(tables, "cup", n=3)
    put(tables, "old", n=1)

    tables.transact_write_items(
        TransactItems=[
            {"Update": taking("cup")},
            {"Put": {"TableName": "stock", "Item": item("order", n=1)}},
            {"Delete": {"TableName": "stock", "Key": item("old")}},
            {
                "ConditionCheck": {
                    "TableName": "stock",
                    "Key": item("x"),
                    "ConditionExpression": "attribute_not_exists(pk)",
                }
            },
        ]
    )

    assert stored(tables, "cup") == item("cup", n=2)
    assert stored(tables, "order") == item("order", n=1)
    assert stored(tables, "old") is None


def test_a_cancelled_transaction_says_why_for_each_operation_and_changes_nothing(
    tables: Any, records: list[dict[str, Any]]
) -> None:
    put(tables, "cup", n=3)
    put(tables, "plate", n=0)
    records.clear()

    with pytest.raises(ClientError) as error:
        tables.transact_write_items(
            TransactItems=[
                {"Update": taking("cup")},
                {"Update": taking("plate", ReturnValuesOnConditionCheckFailure="ALL_OLD")},
                {"Update": taking("spoon", ReturnValuesOnConditionCheckFailure="ALL_OLD")},
            ]
        )

    failed = {"Code": "ConditionalCheckFailed", "Message": "The conditional request failed"}
    assert code_of(error) == "TransactionCanceledException"
    assert error.value.response["CancellationReasons"] == [
        {"Code": "None"},
        failed | {"Item": item("plate", n=0)},
        failed,
    ]
    assert "[None, ConditionalCheckFailed, ConditionalCheckFailed]" in error.value.response["Error"]["Message"]
    assert stored(tables, "cup") == item("cup", n=3)
    assert records == []


def test_the_stream_goes_on_after_a_cancelled_transaction(tables: Any, records: list[dict[str, Any]]) -> None:
    put(tables, "cup", n=0)
    with pytest.raises(ClientError):
        tables.transact_write_items(TransactItems=[{"Update": taking("cup")}])
    records.clear()

    put(tables, "cup", n=1)

    assert [record["dynamodb"]["OldImage"] for record in records] == [item("cup", n=0)]


def test_an_operation_that_does_not_fit_its_item_cancels_the_transaction(
    tables: Any, records: list[dict[str, Any]]
) -> None:
    put(tables, "cup", n=3)
    put(tables, "plate")
    records.clear()

    with pytest.raises(ClientError) as error:
        tables.transact_write_items(
            TransactItems=[
                {"Update": taking("cup")},
                {"Put": {"TableName": "stock", "Item": item("new")}},
                {"Update": {k: v for k, v in taking("plate").items() if k != "ConditionExpression"}},
            ]
        )

    reasons = error.value.response["CancellationReasons"]
    assert [reason["Code"] for reason in reasons] == ["None", "None", "ValidationError"]
    assert stored(tables, "cup") == item("cup", n=3)
    assert stored(tables, "new") is None
    assert records == []


def test_a_transaction_is_reported_when_all_of_it_is_written(store: Store, tables: Any) -> None:
    put(tables, "cup", n=1)
    table = dynamodb_backends[store.account_id][store.region].tables["stock"]
    lengths: list[int] = []
    store.on_stream_record = lambda _arn, _record: lengths.append(len(table))

    tables.transact_write_items(
        TransactItems=[{"Put": {"TableName": "stock", "Item": item(pk)}} for pk in ("a", "b", "c")]
    )

    assert lengths == [4, 4, 4]


@pytest.mark.parametrize(
    "keys", [["cup", "cup"], [f"cup-{number}" for number in range(101)]], ids=["one item twice", "101 operations"]
)
def test_a_transaction_that_breaks_the_rules_is_invalid(tables: Any, keys: list[str]) -> None:
    with pytest.raises(ClientError) as error:
        tables.transact_write_items(TransactItems=[{"Put": {"TableName": "stock", "Item": item(key)}} for key in keys])

    assert code_of(error) == "ValidationException"
    assert tables.scan(TableName="stock")["Count"] == 0


def test_a_transaction_with_a_known_token_succeeds_without_effect(tables: Any) -> None:
    put(tables, "cup", n=3)

    for _ in range(2):
        tables.transact_write_items(TransactItems=[{"Update": taking("cup")}], ClientRequestToken="token-1")

    assert stored(tables, "cup") == item("cup", n=2)


def test_a_known_token_with_another_request_is_refused(tables: Any) -> None:
    put(tables, "cup", n=3)
    put(tables, "plate", n=3)
    tables.transact_write_items(TransactItems=[{"Update": taking("cup")}], ClientRequestToken="token-1")

    with pytest.raises(ClientError) as error:
        tables.transact_write_items(TransactItems=[{"Update": taking("plate")}], ClientRequestToken="token-1")

    assert code_of(error) == "IdempotentParameterMismatchException"


def test_a_cancelled_transaction_may_be_tried_again_with_its_token(tables: Any) -> None:
    put(tables, "cup", n=0)
    request = {"TransactItems": [{"Update": taking("cup")}], "ClientRequestToken": "token-1"}
    with pytest.raises(ClientError):
        tables.transact_write_items(**request)

    put(tables, "cup", n=1)
    tables.transact_write_items(**request)

    assert stored(tables, "cup") == item("cup", n=0)


# ------------------------------------------------------------------------------------- the bus and the functions


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


@dataclass(frozen=True)
class Answer:
    payload: bytes
    function_error: str | None = None


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


@pytest.mark.parametrize("error", [None, "Unhandled"])
def test_invoke_answers_with_the_payload_and_the_error_of_the_function(
    store: Store, function: str, error: str | None
) -> None:
    calls: list[tuple[str, bytes, str]] = []

    def on_invoke(*call: Any) -> Answer:
        calls.append(call)
        return Answer(b'{"sold": 1}', error)

    store.on_invoke = on_invoke

    answer = store.client("lambda").invoke(FunctionName=function, Payload=b'{"n": 1}')

    assert calls == [("seller", b'{"n": 1}', "RequestResponse")]
    assert (answer["StatusCode"], answer["Payload"].read()) == (200, b'{"sold": 1}')
    assert answer.get("FunctionError") == error


def test_an_asynchronous_invocation_is_accepted_without_a_payload(store: Store, function: str) -> None:
    types: list[str] = []

    def on_invoke(_name: str, _payload: bytes, invocation_type: str) -> Answer:
        types.append(invocation_type)
        return Answer(b"")

    store.on_invoke = on_invoke

    answer = store.client("lambda").invoke(FunctionName="seller", InvocationType="Event", Payload=b"{}")

    assert types == ["Event"]
    assert (answer["StatusCode"], answer["Payload"].read()) == (202, b"")


def test_an_error_of_the_runtime_is_an_aws_error(store: Store, function: str) -> None:
    def refuse(*_: Any) -> Answer:
        raise ServiceError("TooManyRequestsException", "Rate Exceeded.", 429)

    store.on_invoke = refuse

    with pytest.raises(ClientError, match=r"Rate Exceeded\.") as error:
        store.client("lambda").invoke(FunctionName="seller")

    assert code_of(error) == "TooManyRequestsException"
    assert error.value.response["ResponseMetadata"]["HTTPStatusCode"] == 429


def test_an_unknown_function_is_not_found(store: Store) -> None:
    with pytest.raises(ClientError) as error:
        store.client("lambda").invoke(FunctionName="nobody")

    assert code_of(error) == "ResourceNotFoundException"


def test_a_function_may_use_the_tables_while_it_is_invoked(store: Store, tables: Any, function: str) -> None:
    def on_invoke(_name: str, _payload: bytes, _type: str) -> Answer:
        worker = threading.Thread(target=put, args=(tables, "cup"))
        worker.start()
        worker.join(5)
        return Answer(b"stuck" if worker.is_alive() else b"done")

    store.on_invoke = on_invoke

    answer = store.client("lambda").invoke(FunctionName="seller")

    assert answer["Payload"].read() == b"done"


def test_a_mapping_leaves_the_messages_in_the_queue_for_its_poller(store: Store, function: str) -> None:
    invoked: list[str] = []

    def on_invoke(name: str, _payload: bytes, _type: str) -> Answer:
        invoked.append(name)
        return Answer(b"{}")

    store.on_invoke = on_invoke
    queues = store.client("sqs")
    url = queues.create_queue(QueueName="orders")["QueueUrl"]
    arn = queues.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    store.client("lambda").create_event_source_mapping(FunctionName="seller", EventSourceArn=arn)

    queues.send_message(QueueUrl=url, MessageBody="one")

    assert [message["Body"] for message in queues.receive_message(QueueUrl=url)["Messages"]] == ["one"]
    assert invoked == []


# ---------------------------------------------------------------------------------------------------- sign-in


def id_claims(store: Store, **client_settings: Any) -> dict[str, Any]:
    """The claims of a new user's ID token, its signature checked."""
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


# ----------------------------------------------------------------------------------------------------- mails


def test_a_mail_that_ses_accepts_is_handed_out_as_its_recipient_gets_it(store: Store) -> None:
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


def test_a_mail_that_ses_refuses_is_handed_out_to_nobody(store: Store) -> None:
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
