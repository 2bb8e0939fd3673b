"""The streams of DynamoDB report each change once and can be read with the API."""

import gc
import json
from dataclasses import dataclass
from typing import Any

import pytest
from botocore.exceptions import ClientError

from localaws import dynamodb_streams
from localaws.aws import SHARD_ID
from localaws.store import Store
from localaws.tests.stock import item, put, taking
from localaws.tests.support import code_of


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


def test_a_record_keeps_both_images_of_a_nested_change_and_counts_them_with_the_keys(
    tables: Any, records: list[dict[str, Any]]
) -> None:
    tables.put_item(TableName="stock", Item=item("cup") | {"m": {"M": {"l": {"L": [{"S": "a"}]}}}})

    tables.update_item(
        TableName="stock",
        Key=item("cup"),
        UpdateExpression="SET m.l[0] = :b",
        ExpressionAttributeValues={":b": {"S": "bc"}},
    )

    change = records[1]["dynamodb"]
    assert change["OldImage"]["m"]["M"]["l"]["L"] == [{"S": "a"}]
    assert change["NewImage"]["m"]["M"]["l"]["L"] == [{"S": "bc"}]
    old = len("pkcup") + len("m") + (3 + 1 + len("l")) + (3 + 1 + len("a"))
    assert change["SizeBytes"] == len("pkcup") + old + (old + 1)


def test_a_write_that_changes_nothing_is_not_reported(tables: Any, records: list[dict[str, Any]]) -> None:
    put(tables, "cup", n=1)
    put(tables, "cup", n=1)
    tables.delete_item(TableName="stock", Key=item("nothing"))

    assert len(records) == 1


def test_binary_values_are_base64_in_a_record(tables: Any, records: list[dict[str, Any]]) -> None:
    tables.put_item(TableName="stock", Item=item("cup") | {"image": {"B": b"\x00\xff"}})

    assert records[0]["dynamodb"]["NewImage"]["image"] == {"B": "AP8="}


def test_writes_of_the_same_items_do_not_take_memory(
    store: Store, tables: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dynamodb_streams, "STREAM_RECORDS", 10)

    def objects_after_writes() -> int:
        for number in range(100):
            put(tables, f"cup-{number % 5}", n=number)
            tables.update_item(**taking(f"cup-{number % 5}", ConditionExpression="n >= :one OR n < :one"))
        gc.collect()
        return len(gc.get_objects())

    objects_after_writes()
    before = objects_after_writes()
    after = objects_after_writes()

    assert after - before < 50


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
    monkeypatch.setattr(dynamodb_streams, "STREAM_RECORDS", 2)
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
