"""DynamoDB answers as in AWS: one test or more for each rule of localaws/dynamodb*.py."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from botocore.exceptions import ClientError
from moto.dynamodb.models import dynamodb_backends

from localaws.store import Store
from localaws.tests.stock import item, put, stored, taking
from localaws.tests.support import code_of

KB = 1024


def large(size: int, pk: str = "cup") -> dict[str, Any]:
    """Returns an item with this size in bytes: `pk` and its value, `text` and its value."""
    return {**item(pk), "text": {"S": "x" * (size - len("pk") - len(pk) - len("text"))}}


def replacing(size: int) -> dict[str, Any]:
    """Returns an update of the text of `cup`, after which the item has this size. The number `n` takes two bytes."""
    return {
        "TableName": "stock",
        "Key": item("cup"),
        "UpdateExpression": "SET n = :n, #text = :text",
        "ExpressionAttributeNames": {"#text": "text"},
        "ExpressionAttributeValues": {":n": {"N": "1"}, ":text": {"S": "x" * (size - len("pkcuptextn") - 2)}},
    }


def test_an_item_may_have_400_kb_and_be_replaced_by_one_of_that_size(tables: Any) -> None:
    tables.put_item(TableName="stock", Item=large(400 * KB))
    tables.update_item(**replacing(400 * KB))
    tables.transact_write_items(TransactItems=[{"Update": replacing(399 * KB)}])

    assert len(stored(tables, "cup")["text"]["S"]) == 399 * KB - len("pkcuptextn") - 2


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


# --------------------------------------------------------------------------------- values, keys and expressions


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("10.00", "10"),
        ("1E5", "100000"),
        ("+5", "5"),
        ("007", "7"),
        ("-0.0", "0"),
        (".50", "0.5"),
        ("1e-3", "0.001"),
        ("9" * 38 + "000", "9" * 38 + "000"),
        ("-1E125", "-1" + "0" * 125),
    ],
)
def test_a_number_is_stored_without_exponent_sign_and_superfluous_zeros(tables: Any, sent: str, kept: str) -> None:
    tables.put_item(TableName="stock", Item=item("cup") | {"n": {"N": sent}, "set": {"NS": [sent, "3"]}})

    assert stored(tables, "cup")["n"] == {"N": kept}
    assert sorted(stored(tables, "cup")["set"]["NS"]) == sorted([kept, "3"])


def test_equal_numbers_are_one_key(tables: Any) -> None:
    tables.create_table(
        TableName="numbers",
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "N"}],
        BillingMode="PAY_PER_REQUEST",
    )
    for number in ("1", "1.0", "10E-1"):
        tables.put_item(TableName="numbers", Item={"id": {"N": number}})

    assert tables.scan(TableName="numbers")["Items"] == [{"id": {"N": "1"}}]
    assert tables.describe_table(TableName="numbers")["Table"]["ItemCount"] == 1


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"N": "1" * 39}, "more than 38 significant digits"),
        ({"N": "1E126"}, "Number overflow"),
        ({"N": "1E-131"}, "Number underflow"),
        ({"N": "one"}, "cannot be converted to a numeric value: one"),
        ({"N": "NaN"}, "cannot be converted"),
        ({"M": {"deep": {"L": [{"N": ""}]}}}, "cannot be converted"),
        ({"SS": []}, "An string set  may not be empty"),
        ({"NS": ["1", "1.0"]}, r"Input collection \[1, 1.0\] contains duplicates"),
        ({"NULL": False}, "must have the value of true"),
        ({}, "must contain exactly one of the supported datatypes"),
    ],
)
def test_an_invalid_value_is_refused(tables: Any, value: dict[str, Any], message: str) -> None:
    with pytest.raises(ClientError, match=message) as error:
        tables.put_item(TableName="stock", Item=item("cup") | {"value": value})

    assert code_of(error) == "ValidationException"
    assert stored(tables, "cup") is None


UPDATE = {"TableName": "stock", "Key": item("cup")}
ONE = {":v": {"N": "1"}}
ONE_AND_TWO = ONE | {":w": {"N": "2"}}
QUERY = {"TableName": "stock", "KeyConditionExpression": "pk = :v", "ExpressionAttributeValues": {":v": {"S": "cup"}}}


@pytest.mark.parametrize(
    ("operation", "request_", "message"),
    [
        ("put_item", {"Item": {"n": {"N": "1"}}}, "Missing the key pk in the item"),
        ("put_item", {"Item": {"pk": {"N": "1"}}}, "Type mismatch for key pk expected: S actual: N"),
        ("put_item", {"Item": item("")}, "cannot contain an empty string value. Key: pk"),
        ("put_item", {"Item": item("k" * 2049)}, "Size of hashkey has exceeded"),
        (
            "put_item",
            {"Item": item("cup") | {"at": {"N": "1"}}},
            "Type mismatch for Index Key at Expected: S Actual: N",
        ),
        ("put_item", {"Item": item("cup") | {"at": {"S": ""}}}, "IndexName: by-owner, IndexKey: at"),
        ("put_item", {"Item": item("cup"), "ReturnValues": "ALL_NEW"}, "Return values set to invalid value"),
        ("put_item", {"Item": item("cup"), "Expected": {}}, "does not support the legacy parameter Expected"),
        ("get_item", {"Key": {"other": {"S": "x"}}}, "The provided key element does not match the schema"),
        ("update_item", {"UpdateExpression": "SET pk = :v", "ExpressionAttributeValues": ONE}, "part of the key"),
        (
            "update_item",
            {
                "UpdateExpression": "SET #at = :v",
                "ExpressionAttributeNames": {"#at": "at"},
                "ExpressionAttributeValues": ONE,
            },
            "Type mismatch for Index Key at Expected: S Actual: N",
        ),
        (
            "update_item",
            {"UpdateExpression": "SET q = :v", "ExpressionAttributeValues": ONE_AND_TWO},
            r"unused .*\{:w\}",
        ),
        ("update_item", {"UpdateExpression": "REMOVE q", "ExpressionAttributeNames": {"#n": "n"}}, r"unused .*\{#n\}"),
        ("update_item", {"UpdateExpression": "SET #q = :v", "ExpressionAttributeValues": ONE}, "attribute name: #q"),
        ("update_item", {"UpdateExpression": "SET q = :x"}, "not defined; attribute value: :x"),
        (
            "update_item",
            {"UpdateExpression": "SET q = ", "ExpressionAttributeValues": ONE},
            'token: "<EOF>", near: "="',
        ),
        ("update_item", {"UpdateExpression": "SET q = n", "ExpressionAttributeValues": {}}, "Values must not be empty"),
        ("update_item", {"UpdateExpression": "SET status = :v", "ExpressionAttributeValues": ONE}, "keyword: status"),
        ("update_item", {"UpdateExpression": "SET q = :v SET r = :v", "ExpressionAttributeValues": ONE}, "used once"),
        ("update_item", {"UpdateExpression": "SET q = :v, q.r = :v", "ExpressionAttributeValues": ONE}, "overlap"),
        ("update_item", {"UpdateExpression": "SET q.r = :v", "ExpressionAttributeValues": ONE}, "path .* is invalid"),
        ("update_item", {"UpdateExpression": "SET q = nothing"}, "does not exist in the item"),
        ("update_item", {"UpdateExpression": "SET n = n - pk"}, "incorrect data type"),
        (
            "update_item",
            {"UpdateExpression": "SET n = :v + n", "ExpressionAttributeValues": {":v": {"S": "1"}}},
            "type: S",
        ),
        ("update_item", {"UpdateExpression": "DELETE n :v", "ExpressionAttributeValues": ONE}, "operator: DELETE"),
        ("delete_item", {"ConditionExpression": ""}, "The expression can not be empty"),
        ("delete_item", {"ConditionExpression": "n"}, "Syntax error"),
        ("delete_item", {"ConditionExpression": "pk = attribute_exists(n)"}, "not allowed to be used this way"),
        ("delete_item", {"ConditionExpression": "exists(n)"}, "Invalid function name; function: exists"),
        ("delete_item", {"ConditionExpression": "attribute_exists(n, n)"}, "number of operands: 2"),
        (
            "delete_item",
            {"ConditionExpression": "n BETWEEN :w AND :v", "ExpressionAttributeValues": ONE_AND_TWO},
            "requires upper bound to be greater than or equal to lower bound",
        ),
        ("delete_item", {"ExpressionAttributeValues": ONE}, "can only be specified when using expressions"),
        ("query", QUERY | {"FilterExpression": "pk = :v"}, "can only contain non-primary key attributes"),
        ("query", QUERY | {"IndexName": "by-nobody"}, "does not have the specified index: by-nobody"),
        ("query", QUERY | {"IndexName": "by-owner"}, "missed key schema element: owner"),
        ("query", QUERY | {"KeyConditionExpression": "pk > :v"}, "Query key condition not supported"),
        ("query", QUERY | {"KeyConditionExpression": "pk = :v OR pk = :v"}, "KeyConditionExpression: OR"),
        ("query", QUERY | {"ExpressionAttributeValues": ONE}, "does not match schema type"),
        ("query", QUERY | {"ExclusiveStartKey": {"n": {"N": "1"}}}, "The provided starting key is invalid"),
        *(
            ("query", QUERY | {"ExclusiveStartKey": item(other)}, "outside query boundaries")
            for other in ("plate", "pot", "spoon", "fork")  # before and after the partition of "cup"
        ),
    ],
)
def test_an_invalid_request_is_refused_and_changes_nothing(
    tables: Any, records: list[dict[str, Any]], operation: str, request_: dict[str, Any], message: str
) -> None:
    put(tables, "cup", n=1)
    key = {"Key": item("cup")} if operation in ("update_item", "delete_item") else {}

    with pytest.raises(ClientError, match=message) as error:
        getattr(tables, operation)(TableName="stock", **(key | {k: v for k, v in request_.items() if k != "TableName"}))

    assert code_of(error) == "ValidationException"
    assert len(records) == 1


@pytest.mark.parametrize(
    ("condition", "value", "holds"),
    [
        ("pk < :v", {"N": "1"}, False),
        ("pk <> :v", {"N": "1"}, True),
        ("n BETWEEN :v AND :v", {"N": "5.0"}, True),
        ("n BETWEEN :v AND :v", {"S": "5"}, False),
        ("nothing <> :v", {"N": "1"}, True),
        ("nothing = :v", {"N": "1"}, False),
        ("n IN (:v)", {"N": "5.00"}, True),
        ("tags = :v", {"SS": ["b", "a"]}, True),
        ("contains(tags, :v)", {"S": "a"}, True),
        ("contains(n, :v)", {"S": "5"}, False),
        ("begins_with(pk, :v)", {"S": "cu"}, True),
        ("size(tags) = :v", {"N": "2"}, True),
        ("size(n) = :v", {"N": "1"}, False),
        ("attribute_type(parcels[0].sku, :v)", {"S": "S"}, True),
        ("parcels[1].sku = :v", {"S": "x"}, False),
        ("NOT n = :v AND pk <> :v", {"N": "6"}, True),
        ("n = :v OR pk = :v AND pk <> pk", {"N": "5"}, True),
        ("(n = :v OR pk = :v) AND pk <> pk", {"N": "5"}, False),
    ],
)
def test_a_condition_on_other_types_or_missing_attributes_is_decided(
    tables: Any, condition: str, value: dict[str, Any], holds: bool
) -> None:
    parcels = {"L": [{"M": {"sku": {"S": "x"}}}]}
    tables.put_item(TableName="stock", Item=item("cup", n=5) | {"tags": {"SS": ["a", "b"]}, "parcels": parcels})

    found = tables.scan(TableName="stock", FilterExpression=condition, ExpressionAttributeValues={":v": value})

    assert found["Count"] == holds


def test_an_update_reads_the_item_before_its_changes_and_removes_list_elements_by_their_old_index(tables: Any) -> None:
    letters = {"L": [{"S": letter} for letter in "abcd"]}
    tables.put_item(TableName="stock", Item=item("cup", n=5, m=1) | {"letters": letters, "tags": {"SS": ["x", "y"]}})

    answer = tables.update_item(
        TableName="stock",
        Key=item("cup"),
        UpdateExpression="REMOVE letters[0], letters[2] SET n = m, m = n, letters[9] = :e DELETE tags :x ADD added :o",
        ExpressionAttributeValues={":e": {"S": "e"}, ":x": {"SS": ["x", "y"]}, ":o": {"N": "1"}},
        ReturnValues="UPDATED_NEW",
    )

    assert stored(tables, "cup") == item("cup", n=1, m=5, added=1) | {"letters": {"L": [{"S": s} for s in "bde"]}}
    assert answer["Attributes"].keys() == {"n", "m", "added", "letters"}


def test_pages_continue_after_the_last_item_even_if_it_is_deleted(tables: Any) -> None:
    for number in range(5):
        owner = {"owner": {"S": "ann"}, "at": {"S": str(number)}}
        tables.put_item(TableName="stock", Item=item(f"cup-{number}") | owner)
    request = {
        "TableName": "stock",
        "IndexName": "by-owner",
        "KeyConditionExpression": "#o = :o AND #at >= :at",
        "ExpressionAttributeNames": {"#o": "owner", "#at": "at"},
        "ExpressionAttributeValues": {":o": {"S": "ann"}, ":at": {"S": "1"}},
        "Limit": 2,
    }

    first = tables.query(**request)
    tables.delete_item(TableName="stock", Key=item("cup-2"))
    second = tables.query(**request, ExclusiveStartKey=first["LastEvaluatedKey"])
    third = tables.query(**request, ExclusiveStartKey=second["LastEvaluatedKey"])

    pages = [[found["at"]["S"] for found in page["Items"]] for page in (first, second, third)]
    assert pages == [["1", "2"], ["3", "4"], []]
    assert "LastEvaluatedKey" not in third


def test_a_scan_gives_every_item_once_over_pages_and_segments(tables: Any) -> None:
    for number in range(30):
        put(tables, f"cup-{number}")
    seen: list[list[str]] = []

    for segment in range(3):
        pages = tables.get_paginator("scan").paginate(
            TableName="stock", TotalSegments=3, Segment=segment, PaginationConfig={"PageSize": 2}
        )
        seen.append([found["pk"]["S"] for page in pages for found in page["Items"]])

    assert sorted(pk for segment_keys in seen for pk in segment_keys) == sorted(f"cup-{number}" for number in range(30))
    assert all(seen)


def test_a_page_ends_at_1_mb_and_a_batch_of_reads_at_16_mb(tables: Any) -> None:
    for number in range(42):
        tables.put_item(TableName="stock", Item=large(395 * KB, f"cup-{number}"))

    page = tables.scan(TableName="stock")
    keys = [item(f"cup-{number}") for number in range(42)]
    batch = tables.batch_get_item(RequestItems={"stock": {"Keys": keys}})

    assert page["Count"] == 3
    assert "LastEvaluatedKey" in page
    assert len(batch["Responses"]["stock"]) == 41
    assert batch["UnprocessedKeys"] == {"stock": {"Keys": [item("cup-41")]}}


def test_an_index_that_is_added_later_has_the_existing_items(tables: Any) -> None:
    tables.put_item(TableName="stock", Item=item("cup") | {"hue": {"S": "red"}, "n": {"N": "1"}})
    key = [{"AttributeName": "hue", "KeyType": "HASH"}]

    tables.update_table(
        TableName="stock",
        AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name in ("pk", "owner", "at", "hue")],
        GlobalSecondaryIndexUpdates=[
            {"Create": {"IndexName": "by-hue", "KeySchema": key, "Projection": {"ProjectionType": "KEYS_ONLY"}}}
        ],
    )
    values = {":v": {"S": "red"}}
    found = tables.query(
        TableName="stock", IndexName="by-hue", KeyConditionExpression="hue = :v", ExpressionAttributeValues=values
    )

    assert found["Items"] == [item("cup") | {"hue": {"S": "red"}}]


@pytest.mark.parametrize(
    ("operations", "message"),
    [
        ([{"PutRequest": {"Item": item(f"cup-{number}")}} for number in range(26)], "Too many items"),
        ([{"PutRequest": {"Item": item("cup")}}, {"DeleteRequest": {"Key": item("cup")}}], "contains duplicates"),
        ([{"PutRequest": {"Item": item("cup")}}, {"PutRequest": {"Item": item("")}}], "empty string value"),
    ],
)
def test_an_invalid_batch_is_refused_and_changes_nothing(tables: Any, operations: list[Any], message: str) -> None:
    with pytest.raises(ClientError, match=message) as error:
        tables.batch_write_item(RequestItems={"stock": operations})

    assert code_of(error) == "ValidationException"
    assert tables.scan(TableName="stock")["Count"] == 0


def test_a_transaction_of_more_than_4_mb_is_refused(tables: Any) -> None:
    puts = [{"Put": {"TableName": "stock", "Item": large(390 * KB, f"cup-{number}")}} for number in range(11)]

    with pytest.raises(ClientError, match="exceeds 4 MB") as error:
        tables.transact_write_items(TransactItems=puts)

    assert code_of(error) == "ValidationException"
    assert tables.scan(TableName="stock")["Count"] == 0


def test_the_consumed_capacity_follows_the_size_of_the_item(tables: Any) -> None:
    tables.put_item(TableName="stock", Item=large(9 * KB))

    def units(**request: Any) -> float:
        answer = tables.get_item(TableName="stock", Key=item("cup"), ReturnConsumedCapacity="TOTAL", **request)
        return float(answer["ConsumedCapacity"]["CapacityUnits"])

    assert (units(), units(ConsistentRead=True)) == (1.5, 3)


def test_an_operation_that_is_not_supported_is_refused_by_name(tables: Any) -> None:
    with pytest.raises(ClientError, match="localaws does not support ExecuteStatement") as error:
        tables.execute_statement(Statement="SELECT * FROM stock")

    assert code_of(error) == "UnknownOperationException"


def test_the_items_of_a_deleted_table_are_gone(store: Store, tables: Any) -> None:
    put(tables, "cup")
    described = tables.describe_table(TableName="stock")["Table"]
    tables.delete_table(TableName="stock")

    wanted = ("TableName", "KeySchema")
    definitions = [{"AttributeName": "pk", "AttributeType": "S"}]
    tables.create_table(
        **{k: described[k] for k in wanted}, AttributeDefinitions=definitions, BillingMode="PAY_PER_REQUEST"
    )

    assert tables.scan(TableName="stock")["Count"] == 0
