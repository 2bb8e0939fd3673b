"""The store behaves like AWS where moto does not: a contract test for each correction in localaws/store.py."""

import email
import email.policy
import io
import itertools
import json
import sys
import threading
import time
import zipfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import md5
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError, EndpointConnectionError
from joserfc import jwt
from moto.dynamodb.models import dynamodb_backends
from moto.dynamodb.models.dynamo_type import Item
from moto.sqs.models import sqs_backends

from localaws import dynamodb
from localaws.aws import SHARD_ID, ServiceError
from localaws.store import InvokeAnswer, Store, require_moto
from localaws.tests.support import PATIENCE, exchange, hang_up, wait_until


@pytest.fixture
def records(store: Store) -> list[dict[str, Any]]:
    """The records of the streams."""
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
    """Returns an update that removes one unit if one is in stock."""
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
    with pytest.raises(RuntimeError, match=r"requires moto 5\.2\.5 and found moto 5\.2\.6"):
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


@pytest.mark.parametrize(
    ("rest", "status"),
    [
        (b"Content-Length: many\r\n\r\n{}", b"400"),
        (b"Content-Length: -1\r\n\r\n{}", b"400"),
        (b"Content-Length: 999999999999999\r\n\r\n{}", b"413"),
        (b"Transfer-Encoding: chunked\r\n\r\nmany\r\n{}\r\n0\r\n\r\n", b"400"),
    ],
)
def test_a_body_without_a_usable_length_is_refused(
    store: Store, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture, rest: bytes, status: bytes
) -> None:
    answer = exchange(store.endpoint, b"POST / HTTP/1.1\r\nHost: localhost\r\n" + rest)

    assert answer.split()[1] == status
    assert answer.count(b"HTTP/1.1 ") == 1  # the body is not read as a second request
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []


def test_a_caller_that_closes_the_connection_early_causes_no_traceback(
    store: Store, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    gone = threading.Event()
    store.on_call = lambda _request, _execute: ("200", [], b"x" * 5_000_000 * gone.wait(PATIENCE))

    hang_up(store.endpoint, b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n", gone)

    assert capfd.readouterr() == ("", "")
    assert caplog.records == []


@pytest.mark.parametrize(
    "request_line",
    [
        b"POST /moto-api/reset",
        b"GET /moto-api/data.json",
        b"GET /moto-api/",
        b"POST //moto-api/reset",
    ],
)
def test_motos_own_api_is_not_reachable(store: Store, tables: Any, request_line: bytes) -> None:
    headers = b"Host: motoapi.amazonaws.com\r\nOrigin: https://evil.example\r\nContent-Length: 0\r\n\r\n"
    answer = exchange(store.endpoint, request_line + b" HTTP/1.1\r\n" + headers)

    assert answer.split()[1] == b"404"
    assert b"access-control-" not in answer.lower()
    assert tables.list_tables()["TableNames"] == ["stock"]


def test_after_stop_requests_fail_and_the_next_store_is_empty(store: Store, tables: Any) -> None:
    store.stop()

    with pytest.raises((EndpointConnectionError, ConnectionError)):
        tables.list_tables()
    store.start()
    assert store.client("dynamodb").list_tables()["TableNames"] == []


# -------------------------------------------------------------------------------------------------- the tables


def test_a_second_store_in_the_process_is_refused(store: Store) -> None:
    with pytest.raises(RuntimeError, match="another store"):
        Store().start()


KB = 1024


def large(size: int, pk: str = "cup") -> dict[str, Any]:
    """Returns an item with this size in bytes: `pk` and its value, `text` and its value."""
    return {**item(pk), "text": {"S": "x" * (size - len("pk") - len(pk) - len("text"))}}


def replacing(size: int) -> dict[str, Any]:
    """Returns an update of the text of `cup`, after which the item has this size."""
    return {
        "TableName": "stock",
        "Key": item("cup"),
        "UpdateExpression": "SET n = :n, #text = :text",
        "ExpressionAttributeNames": {"#text": "text"},
        "ExpressionAttributeValues": {":n": {"N": "1"}, ":text": {"S": "x" * (size - len("pkcuptextn1"))}},
    }


def test_an_item_may_have_400_kb_and_be_replaced_by_one_of_that_size(tables: Any) -> None:
    tables.put_item(TableName="stock", Item=large(400 * KB))
    tables.update_item(**replacing(400 * KB))
    tables.transact_write_items(TransactItems=[{"Update": replacing(399 * KB)}])

    assert len(stored(tables, "cup")["text"]["S"]) == 399 * KB - len("pkcuptextn1")


@pytest.mark.parametrize("known", [True, False])
def test_an_update_to_more_than_400_kb_is_refused_and_changes_nothing(
    tables: Any, records: list[dict[str, Any]], known: bool
) -> None:
    if known:
        tables.put_item(TableName="stock", Item=large(349 * KB))
    before = stored(tables, "cup")
    reported = len(records)

    with pytest.raises(ClientError, match="exceeded the maximum allowed size") as error:
        tables.update_item(**replacing(400 * KB + 1))

    assert code_of(error) == "ValidationException"
    assert stored(tables, "cup") == before
    assert len(records) == reported


def test_an_item_of_more_than_400_kb_is_refused(tables: Any) -> None:
    with pytest.raises(ClientError, match="exceeded the maximum allowed size") as error:
        tables.put_item(TableName="stock", Item=large(400 * KB + 1))

    assert code_of(error) == "ValidationException"
    assert stored(tables, "cup") is None


@pytest.fixture
def busy() -> Iterator[None]:
    """Makes Python switch threads much more often."""
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


def test_only_the_item_is_kept_of_a_write(store: Store, tables: Any, records: list[dict[str, Any]]) -> None:
    tracked = len(Item.instances_tracked)  # type: ignore[attr-defined]

    for number in range(5):
        put(tables, "cup", n=number)

    shard = dynamodb_backends[store.account_id][store.region].tables["stock"].stream_shard
    assert len(records) == 5
    assert shard is not None
    assert shard.items == []
    assert len(Item.instances_tracked) == tracked  # type: ignore[attr-defined]


@dataclass(frozen=True)
class Shard:
    """The only shard of the table's stream, read with the SDK."""

    client: Any
    stream: str

    def iterator(self, kind: str, number: str | None = None) -> str:
        request = {"StreamArn": self.stream, "ShardId": SHARD_ID, "ShardIteratorType": kind}
        answer = self.client.get_shard_iterator(**request, **({"SequenceNumber": number} if number else {}))
        return str(answer["ShardIterator"])

    def read(self, kind: str, number: str | None = None, **more: Any) -> list[dict[str, Any]]:
        return list(self.client.get_records(ShardIterator=self.iterator(kind, number), **more)["Records"])

    def amounts(self, kind: str, number: str | None = None) -> list[str]:
        return [record["dynamodb"]["NewImage"]["n"]["N"] for record in self.read(kind, number)]


@pytest.fixture
def shard(store: Store, tables: Any) -> Shard:
    return Shard(store.client("dynamodbstreams"), tables.describe_table(TableName="stock")["Table"]["LatestStreamArn"])


def test_what_a_stream_reported_can_be_read_from_it(tables: Any, shard: Shard, records: list[dict[str, Any]]) -> None:
    whole = {
        "pk": {"S": "cup"},
        "n": {"N": "12345678901234567890.5"},
        "image": {"B": b"\x00\xff"},
        "parts": {"BS": [b"\x01", b"\x02"]},
    }
    tables.put_item(TableName="stock", Item=whole)
    tables.delete_item(TableName="stock", Key=item("cup"))

    inserted, removed = shard.read("TRIM_HORIZON")

    change = inserted["dynamodb"]
    assert change["NewImage"] == whole
    assert (change["Keys"], removed["dynamodb"]["OldImage"]) == (item("cup"), change["NewImage"])
    assert change["ApproximateCreationDateTime"].timestamp() == records[0]["dynamodb"]["ApproximateCreationDateTime"]
    for name in ("eventID", "eventName", "eventVersion", "eventSource", "awsRegion"):
        assert inserted[name] == records[0][name]
    for name in ("SequenceNumber", "SizeBytes", "StreamViewType"):
        assert change[name] == records[0]["dynamodb"][name]
    assert inserted.keys() == {"eventID", "eventName", "eventVersion", "eventSource", "awsRegion", "dynamodb"}
    assert removed["eventName"] == "REMOVE"


def test_a_shard_is_read_from_its_start_a_number_or_its_end(
    tables: Any, shard: Shard, records: list[dict[str, Any]]
) -> None:
    latest = shard.iterator("LATEST")
    for number in range(1, 5):
        put(tables, "cup", n=number)
    second = records[1]["dynamodb"]["SequenceNumber"]

    assert shard.amounts("TRIM_HORIZON") == ["1", "2", "3", "4"]
    assert shard.amounts("AT_SEQUENCE_NUMBER", second) == ["2", "3", "4"]
    assert shard.amounts("AFTER_SEQUENCE_NUMBER", second) == ["3", "4"]
    assert shard.amounts("LATEST") == []
    assert len(shard.client.get_records(ShardIterator=latest)["Records"]) == 4


def test_a_shard_is_read_on_where_the_last_call_ended(tables: Any, shard: Shard) -> None:
    for number in range(1, 4):
        put(tables, "cup", n=number)

    first = shard.client.get_records(ShardIterator=shard.iterator("TRIM_HORIZON"), Limit=2)
    second = shard.client.get_records(ShardIterator=first["NextShardIterator"], Limit=2)
    put(tables, "cup", n=4)
    third = shard.client.get_records(ShardIterator=second["NextShardIterator"], Limit=2)

    assert [
        [record["dynamodb"]["NewImage"]["n"]["N"] for record in page["Records"]] for page in (first, second, third)
    ] == [
        ["1", "2"],
        ["3"],
        ["4"],
    ]


def test_a_record_that_is_no_longer_kept_is_trimmed(
    tables: Any, shard: Shard, records: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dynamodb, "STREAM_RECORDS", 2)
    put(tables, "cup", n=1)
    begin = shard.iterator("TRIM_HORIZON")
    for number in range(2, 5):
        put(tables, "cup", n=number)

    for read in (
        lambda: shard.read("AT_SEQUENCE_NUMBER", records[1]["dynamodb"]["SequenceNumber"]),
        lambda: shard.read("AFTER_SEQUENCE_NUMBER", records[0]["dynamodb"]["SequenceNumber"]),
        lambda: shard.client.get_records(ShardIterator=begin),
    ):
        with pytest.raises(ClientError) as error:
            read()
        assert code_of(error) == "TrimmedDataAccessException"
    assert shard.amounts("TRIM_HORIZON") == ["3", "4"]
    assert shard.amounts("AT_SEQUENCE_NUMBER", records[2]["dynamodb"]["SequenceNumber"]) == ["3", "4"]


def test_a_stream_has_one_shard_and_another_stream_or_shard_is_not_found(
    tables: Any, shard: Shard, records: list[dict[str, Any]]
) -> None:
    put(tables, "cup", n=1)

    described = shard.client.describe_stream(StreamArn=shard.stream)["StreamDescription"]

    numbers = {"StartingSequenceNumber": records[0]["dynamodb"]["SequenceNumber"]}
    assert described["Shards"] == [{"ShardId": SHARD_ID, "SequenceNumberRange": numbers}]
    assert (described["StreamArn"], described["TableName"]) == (shard.stream, "stock")
    for request in (
        {"StreamArn": shard.stream + "9", "ShardId": SHARD_ID},
        {"StreamArn": shard.stream, "ShardId": SHARD_ID + "9"},
    ):
        with pytest.raises(ClientError) as error:
            shard.client.get_shard_iterator(ShardIteratorType="LATEST", **request)
        assert code_of(error) == "ResourceNotFoundException"


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


def test_a_cancelled_transaction_has_a_reason_for_each_operation_and_changes_nothing(
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


# -------------------------------------------------------------------------------------------------- the queues


class Queues:
    """The queues of a store, by name."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.client = store.client("sqs")
        self.messages: list[str] = []
        store.on_message = self.messages.append

    def create(self, name: str, **attributes: str) -> None:
        self.client.create_queue(QueueName=name, Attributes=attributes)

    def url(self, name: str) -> str:
        return str(self.client.get_queue_url(QueueName=name)["QueueUrl"])

    def arn(self, name: str) -> str:
        return f"arn:aws:sqs:{self.store.region}:{self.store.account_id}:{name}"

    def send(self, name: str, body: str, **more: Any) -> str:
        return str(self.client.send_message(QueueUrl=self.url(name), MessageBody=body, **more)["MessageId"])

    def receive(self, name: str, **more: Any) -> list[dict[str, Any]]:
        return list(self.client.receive_message(QueueUrl=self.url(name), **more).get("Messages", []))

    def bodies(self, name: str, count: int = 10) -> list[str]:
        return [message.record["body"] for message in self.store.receive(self.arn(name), count)]

    def wait_until_visible(self, name: str) -> None:
        wait_until(lambda: self.store.next_visible(self.arn(name)) == 0)

    def counts(self, name: str) -> list[str]:
        """Returns the numbers of visible, delayed and in-flight messages."""
        names = [f"ApproximateNumberOfMessages{kind}" for kind in ("", "Delayed", "NotVisible")]
        attributes = self.client.get_queue_attributes(QueueUrl=self.url(name), AttributeNames=names)["Attributes"]
        return [attributes[name] for name in names]


@pytest.fixture
def queues(store: Store) -> Queues:
    """A fast clock, and a queue `orders` whose messages go to `dead` after two receives."""
    store.real_seconds = lambda seconds: seconds / 1000
    made = Queues(store)
    made.create("dead")
    policy = {"deadLetterTargetArn": made.arn("dead"), "maxReceiveCount": 2}
    made.create("orders", RedrivePolicy=json.dumps(policy), VisibilityTimeout="60")
    return made


def test_a_message_has_the_form_that_lambda_hands_on(queues: Queues) -> None:
    before = int(time.time() * 1000)
    attributes = {
        "REASON": {"DataType": "String", "StringValue": "no"},
        "raw": {"DataType": "Binary", "BinaryValue": b"\x00\xff"},
    }
    message_id = queues.send("orders", "{}", MessageAttributes=attributes)

    [received] = queues.store.receive(queues.arn("orders"), 10)

    record = received.record
    sent, first = (int(record["attributes"].pop(f"{kind}Timestamp")) for kind in ("Sent", "ApproximateFirstReceive"))
    assert before <= sent <= first <= time.time() * 1000
    assert record["attributes"].pop("SenderId")
    assert record.pop("receiptHandle")
    lists: dict[str, list[str]] = {"stringListValues": [], "binaryListValues": []}
    # The parts of each attribute with their lengths (SQS developer guide, "Calculating the MD5 message digest")
    parts = ((b"REASON", b"String", b"\x01", b"no"), (b"raw", b"Binary", b"\x02", b"\x00\xff"))
    digest = md5(usedforsecurity=False)
    for part in itertools.chain(*parts):
        digest.update(part if part in (b"\x01", b"\x02") else len(part).to_bytes(4, "big") + part)
    assert record.pop("md5OfMessageAttributes") == digest.hexdigest()
    assert record == {
        "messageId": message_id,
        "body": "{}",
        "attributes": {"ApproximateReceiveCount": "1"},
        "messageAttributes": {
            "REASON": {"stringValue": "no", "dataType": "String"} | lists,
            "raw": {"binaryValue": "AP8=", "dataType": "Binary"} | lists,
        },
        "md5OfBody": "99914b932bd37a50b983c5e7c90ae93b",
        "eventSource": "aws:sqs",
        "eventSourceARN": queues.arn("orders"),
        "awsRegion": "us-east-1",
    }


def test_waits_of_a_queue_use_the_clock_of_the_store(queues: Queues) -> None:
    queues.store.real_seconds = lambda seconds: seconds * 1000  # slow, so that the duration of the test does not matter
    queues.create("delaying", DelaySeconds="50")
    queues.send("delaying", "by its queue")
    queues.send("orders", "at once")
    [received] = queues.store.receive(queues.arn("orders"), 10)
    queues.send("dead", "by itself", DelaySeconds=100)

    assert 49_000 < (queues.store.next_visible(queues.arn("delaying")) or 0) <= 50_000
    assert 59_000 < received.visible_in <= 60_000
    assert 99_000 < (queues.store.next_visible(queues.arn("dead")) or 0) <= 100_000


def test_a_message_is_visible_once_its_wait_is_over(queues: Queues) -> None:
    queues.create("delaying", DelaySeconds="50")
    queues.send("delaying", "by its queue")
    queues.send("orders", "by itself", DelaySeconds=100)

    queues.wait_until_visible("orders")
    assert queues.bodies("orders") == ["by itself"]
    queues.wait_until_visible("orders")
    assert queues.bodies("orders") == ["by itself"]
    queues.wait_until_visible("delaying")
    assert queues.bodies("delaying") == ["by its queue"]


def test_messages_that_were_received_together_are_visible_together(queues: Queues) -> None:
    for body in ("one", "two", "three"):
        queues.send("orders", body)

    received = queues.store.receive(queues.arn("orders"), 10)

    assert len(received) == 3
    assert len({message.message.visible_at for message in received}) == 1


def test_messages_are_counted_by_whether_they_are_visible_delayed_or_in_flight(queues: Queues) -> None:
    queues.store.real_seconds = lambda seconds: seconds
    for body in ("one", "two", "three"):
        queues.send("orders", body)
    queues.send("orders", "later", DelaySeconds=900)
    queues.receive("orders")

    assert queues.counts("orders") == ["2", "1", "1"]


def test_a_message_that_was_received_too_often_moves_to_the_dead_letter_queue_and_names_its_source(
    queues: Queues,
) -> None:
    attributes = {"REASON": {"DataType": "String", "StringValue": "no"}}
    message_id = queues.send("orders", "poison", MessageAttributes=attributes)
    last = []
    for _ in range(2):
        queues.wait_until_visible("orders")
        last.append([received.dead_letters for received in queues.store.receive(queues.arn("orders"), 1)])

    queues.wait_until_visible("orders")

    assert last == [[None], [queues.arn("dead")]]
    assert queues.bodies("orders") == []
    [moved] = queues.receive("dead", MessageSystemAttributeNames=["All"], MessageAttributeNames=["All"])
    assert (moved["MessageId"], moved["Body"], moved["MessageAttributes"]) == (message_id, "poison", attributes)
    # The count goes on: "the number of times a message has been received across all queues" (API of ReceiveMessage).
    assert moved["Attributes"]["ApproximateReceiveCount"] == "3"
    assert moved["Attributes"]["DeadLetterQueueSourceArn"] == queues.arn("orders")
    queues.wait_until_visible("dead")
    [again] = queues.store.receive(queues.arn("dead"), 1)
    assert again.record["attributes"]["DeadLetterQueueSourceArn"] == queues.arn("orders")


def test_a_dead_letter_queue_with_a_redrive_policy_counts_its_own_receives(queues: Queues) -> None:
    queues.create("buried")
    policy = {"deadLetterTargetArn": queues.arn("buried"), "maxReceiveCount": 1}
    queues.client.set_queue_attributes(QueueUrl=queues.url("dead"), Attributes={"RedrivePolicy": json.dumps(policy)})
    queues.send("orders", "poison")

    received = []
    for name in ("orders", "orders", "orders", "dead", "dead", "buried"):
        queues.wait_until_visible(name)
        received.append(len(queues.bodies(name)))

    assert received == [1, 1, 0, 1, 0, 1]


def test_a_message_that_is_too_old_is_gone(queues: Queues) -> None:
    queues.create("short", MessageRetentionPeriod="60")
    queues.send("short", "old")
    sent = time.time()

    wait_until(lambda: time.time() - sent > 0.06)

    assert queues.bodies("short") == []
    assert queues.counts("short") == ["0", "0", "0"]


def test_on_message_is_called_for_new_moved_and_rescheduled_messages(queues: Queues) -> None:
    queues.send("orders", "poison")
    [message] = queues.receive("orders", VisibilityTimeout=43_200)
    assert queues.bodies("orders") == []

    queues.client.change_message_visibility(
        QueueUrl=queues.url("orders"), ReceiptHandle=message["ReceiptHandle"], VisibilityTimeout=0
    )
    assert queues.bodies("orders") == ["poison"]
    queues.wait_until_visible("orders")
    assert queues.bodies("orders") == []

    assert queues.messages == [queues.arn("orders"), queues.arn("orders"), queues.arn("dead")]


def test_a_receiver_gets_nothing_at_the_end_of_its_wait(queues: Queues) -> None:
    begun = time.monotonic()

    received = queues.receive("orders", WaitTimeSeconds=1)

    assert received == []
    assert time.monotonic() - begun >= 1


def test_a_receiver_that_waits_gets_a_message_as_soon_as_it_comes_or_is_visible(queues: Queues) -> None:
    queues.send("orders", "delayed", DelaySeconds=300)
    begun = time.monotonic()

    delayed = queues.receive("orders", WaitTimeSeconds=20)
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(queues.receive, "dead", WaitTimeSeconds=20)
        queues.send("dead", "new")

    assert [message["Body"] for message in (*delayed, *waiting.result())] == ["delayed", "new"]
    assert time.monotonic() - begun < 20  # no wait lasted until its timeout


@pytest.mark.usefixtures("busy")
def test_each_message_is_received_by_one_of_many_threads_and_deleted(queues: Queues) -> None:
    queues.store.real_seconds = lambda seconds: seconds
    bodies = [str(number) for number in range(100)]
    for body in bodies:
        queues.send("orders", body)

    def drain(_: int) -> list[str]:
        drained = []
        while messages := queues.receive("orders", MaxNumberOfMessages=3):
            for message in messages:
                queues.client.delete_message(QueueUrl=queues.url("orders"), ReceiptHandle=message["ReceiptHandle"])
                drained.append(message["Body"])
        return drained

    with ThreadPoolExecutor(8) as threads:
        drained = [body for part in threads.map(drain, range(8)) for body in part]

    assert sorted(drained, key=int) == bodies
    assert queues.counts("orders") == ["0", "0", "0"]


def test_a_deleted_message_may_be_deleted_again_but_not_one_that_never_was(queues: Queues) -> None:
    queues.send("orders", "one")
    [message] = queues.receive("orders")
    request = {"QueueUrl": queues.url("orders"), "ReceiptHandle": message["ReceiptHandle"]}

    queues.client.delete_message(**request)
    queues.client.delete_message(**request)

    queues.store.delete(queues.arn("orders"), ["unknown"])
    with pytest.raises(ClientError) as error:
        queues.client.delete_message(**request | {"ReceiptHandle": "unknown"})
    assert code_of(error) == "ReceiptHandleIsInvalid"


def test_a_queue_that_is_gone_is_empty(queues: Queues) -> None:
    queues.client.delete_queue(QueueUrl=queues.url("orders"))

    queues.store.delete(queues.arn("orders"), ["handle"])
    assert queues.store.receive(queues.arn("orders"), 1) == []
    assert queues.store.next_visible(queues.arn("orders")) is None


def test_a_fifo_queue_keeps_the_order_of_a_group(queues: Queues) -> None:
    queues.create("orders.fifo", FifoQueue="true", ContentBasedDeduplication="true")
    for body in ("one", "two"):
        queues.send("orders.fifo", body, MessageGroupId="cup")

    assert [message["Body"] for message in queues.receive("orders.fifo", VisibilityTimeout=43_200)] == ["one"]
    assert queues.receive("orders.fifo") == []


def test_a_long_queue_is_filled_and_drained_at_the_speed_of_a_short_one(queues: Queues) -> None:
    backend = sqs_backends[queues.store.account_id][queues.store.region]

    def seconds_of_the_next(count: int) -> float:
        """Returns the shortest of five measurements, to exclude other threads and the garbage collector."""
        return min(one_try(count) for _ in range(5))

    def one_try(count: int) -> float:
        begun = time.thread_time()
        for _ in range(count):
            backend.send_message("orders", "{}")
        for received in queues.store.receive(queues.arn("orders"), count):
            queues.store.delete(queues.arn("orders"), [received.record["receiptHandle"]])
        return time.thread_time() - begun

    queues.store.real_seconds = lambda seconds: seconds
    short = seconds_of_the_next(200)
    for _ in range(3000):
        backend.send_message("orders", "{}")
    long = seconds_of_the_next(200)

    assert long < 5 * short


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


# ---------------------------------------------------------------------------------------------------- sign-in


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


# ----------------------------------------------------------------------------------------------------- mails


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
