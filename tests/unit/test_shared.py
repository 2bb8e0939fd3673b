"""The shared layer's small parts: settings, ids, JSON, cursors."""

import base64
import json
import sys
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from http import HTTPStatus
from typing import Any

import boto3
import pytest
from aws_lambda_powertools.utilities.data_classes import APIGatewayProxyEventV2
from aws_lambda_powertools.utilities.idempotency.exceptions import IdempotencyKeyError
from hypothesis import given
from hypothesis import strategies as st
from ulid import ULID

from orderflow import dynamodb, pagination
from orderflow.auth import caller_of
from orderflow.http_api import Problem
from orderflow.idempotency import idempotency_config, persistence_layer
from orderflow.ids import derived_ulid, new_ulid
from orderflow.plain_text import unsafe_character
from orderflow.serialization import timestamp, to_json, with_decimals
from orderflow.settings import MissingSettings, from_environment

NOW = datetime(2026, 11, 21, 18, 36, 0, 123_000, tzinfo=UTC)
MONEY = st.decimals(min_value=0, max_value=10**12, places=2)


@dataclass(frozen=True)
class Settings:
    orders_table: str
    event_bus_name: str


def test_settings_come_from_the_upper_cased_names() -> None:
    environment = {"ORDERS_TABLE": "orders", "EVENT_BUS_NAME": "bus", "OTHER": "x"}
    assert from_environment(Settings, environment) == Settings("orders", "bus")


def test_every_missing_or_empty_setting_is_named() -> None:
    with pytest.raises(MissingSettings, match="ORDERS_TABLE, EVENT_BUS_NAME"):
        from_environment(Settings, {"ORDERS_TABLE": ""})


@dataclass(frozen=True)
class OptionalSetting:
    orders_table: str
    sender_email: str = ""


@pytest.mark.parametrize("environment", [{}, {"SENDER_EMAIL": ""}])
def test_a_setting_with_a_default_may_be_absent_or_empty(environment: dict[str, str]) -> None:
    assert from_environment(OptionalSetting, {"ORDERS_TABLE": "orders", **environment}) == OptionalSetting("orders")


def test_a_setting_with_a_default_comes_from_the_environment() -> None:
    environment = {"ORDERS_TABLE": "orders", "SENDER_EMAIL": "shop@example.com"}
    assert from_environment(OptionalSetting, environment) == OptionalSetting("orders", "shop@example.com")


@given(MONEY)
def test_money_is_a_json_number_that_reads_back_exactly(amount: Decimal) -> None:
    text = to_json({"amount": amount})
    assert json.loads(text, parse_float=Decimal, parse_int=Decimal)["amount"] == amount
    assert "e" not in text.removeprefix('{"amount"').lower()


@given(MONEY)
def test_floats_of_an_event_become_the_decimals_that_were_written(amount: Decimal) -> None:
    assert with_decimals(json.loads(to_json([amount]))) == [amount]


def test_a_whole_number_has_no_fraction_in_json() -> None:
    assert to_json([Decimal(2), Decimal("20.00"), Decimal("0.50")]) == "[2,20,0.5]"


def test_a_call_without_its_idempotency_key_is_refused() -> None:
    store = persistence_layer("table", boto3.client("dynamodb"))
    store.configure(idempotency_config("day"), "report")
    with pytest.raises(IdempotencyKeyError):
        store.get_record({"week": "1"})


def test_a_value_without_a_json_form_is_refused_with_its_type() -> None:
    with pytest.raises(TypeError, match="object"):
        to_json({"at": object()})


def test_times_are_utc_with_milliseconds() -> None:
    assert timestamp(NOW.astimezone()) == "2026-11-21T18:36:00.123Z"


def test_ulids_carry_their_time_and_differ() -> None:
    first, second = new_ulid(NOW), new_ulid(NOW)
    assert ULID.from_str(first).datetime == NOW
    assert first != second
    assert first[:10] == second[:10]
    assert new_ulid(NOW + timedelta(milliseconds=1)) > max(first, second)


@given(st.text(max_size=5), st.text(max_size=5), st.text(max_size=5))
def test_derived_ids_differ_if_the_parts_are_split_differently(a: str, b: str, c: str) -> None:
    assert derived_ulid(a + b, c) == derived_ulid(a + b, c)
    if b:
        assert derived_ulid(a + b, c) != derived_ulid(a, b + c)


def test_derived_ids_are_the_same_in_every_release() -> None:
    """They identify the order of an Idempotency-Key, and failed events."""
    assert derived_ulid("caller-1", "key-1") == "4B3T9CJ6JX1GGDW8JG9JDJF6J0"


def is_position(position: Mapping[str, str]) -> bool:
    return set(position) == {"orderId"}


def test_a_cursor_leads_back_to_its_position() -> None:
    cursor = pagination.encode_cursor({"orderId": "ORD-1"}, ("orders", "ada"), NOW)
    last_moment = NOW + timedelta(days=1, seconds=-1)
    assert pagination.decode_cursor(cursor, ("orders", "ada"), is_position, last_moment) == {"orderId": "ORD-1"}


def test_the_beginning_and_the_end_of_a_list_have_no_cursor() -> None:
    assert pagination.encode_cursor(None, ("orders", "ada"), NOW) is None
    assert pagination.decode_cursor(None, ("orders", "ada"), is_position, NOW) is None


def test_a_cursor_of_another_list_is_refused() -> None:
    cursor = pagination.encode_cursor({"orderId": "ORD-1"}, ("orders", "ada"), NOW)
    with pytest.raises(pagination.InvalidCursor, match="not one of this list"):
        pagination.decode_cursor(cursor, ("orders", "bob"), is_position, NOW)


def test_an_old_cursor_is_refused() -> None:
    cursor = pagination.encode_cursor({"orderId": "ORD-1"}, ("orders", "ada"), NOW)
    with pytest.raises(pagination.InvalidCursor, match="expired"):
        pagination.decode_cursor(cursor, ("orders", "ada"), is_position, NOW + timedelta(days=1, seconds=2))


@given(st.text(max_size=60))
def test_any_other_text_is_an_invalid_cursor(text: str) -> None:
    with pytest.raises(pagination.InvalidCursor):
        pagination.decode_cursor(text, ("orders", "ada"), is_position, NOW)


@pytest.mark.parametrize(
    "position",
    [
        *('{"orderId": 1}', '{"orderId": ""}', '{"orderId": null}', '{"orderId": "\\ud800"}', '{"other": "ORD-1"}'),
        *("{}", "[]", "null", '"text"', '{"orderId": "ORD-1", "placedAt": "x"}', f'{{"orderId": "{"é" * 513}"}}'),
    ],
)
def test_a_forged_position_that_dynamodb_would_refuse_is_refused(position: str) -> None:
    genuine = pagination.encode_cursor({}, ("orders", "ada"), NOW) or ""
    content = base64.urlsafe_b64decode(genuine + "=" * (-len(genuine) % 4)).decode().replace("{}", position, 1)
    with pytest.raises(pagination.InvalidCursor, match="not one of this list"):
        pagination.decode_cursor(
            base64.urlsafe_b64encode(content.encode()).decode(), ("orders", "ada"), is_position, NOW
        )


@pytest.mark.parametrize("content", ["[]", "[1, 2, 3]", "null", '[{}, "x", Infinity]', "[" * 5000])
def test_json_that_is_not_a_cursor_is_refused(content: str) -> None:
    with pytest.raises(pagination.InvalidCursor, match="not one of this list"):
        pagination.decode_cursor(
            base64.urlsafe_b64encode(content.encode()).decode(), ("orders", "ada"), is_position, NOW
        )


def test_the_pause_after_a_conflict_grows_and_is_at_most_two_seconds_for_all_attempts() -> None:
    pauses: list[float] = []
    for attempt in range(1, dynamodb.ATTEMPTS):
        dynamodb.pause_after(attempt, pauses.append, lambda shortest, longest: shortest + longest)
    assert len(pauses) == dynamodb.ATTEMPTS - 1
    assert pauses == sorted(set(pauses))
    assert pauses[0] > 0
    assert sum(pauses) < 2


@pytest.mark.parametrize(
    ("codes", "retryable"),
    [
        (["None", "TransactionConflict"], True),
        (["ThrottlingError", "ProvisionedThroughputExceeded"], True),
        (["TransactionConflict", "ValidationError"], False),
        (["ConditionalCheckFailed", "TransactionConflict"], False),
        (["ItemCollectionSizeLimitExceeded"], False),
        (["None", "None"], False),
        ([], False),
    ],
)
def test_only_conflicts_and_throttling_make_a_cancelled_transaction_retryable(
    codes: list[str], retryable: bool
) -> None:
    assert dynamodb.is_retryable(codes) is retryable


def test_texts_may_contain_every_character_that_does_not_control_output_or_direction() -> None:
    embeddings_overrides_and_isolates = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
    for character in map(chr, range(sys.maxunicode + 1)):
        unsafe = (
            unicodedata.category(character) in {"Cc", "Zl", "Zp"}
            or unicodedata.bidirectional(character) in embeddings_overrides_and_isolates
        )
        assert unsafe_character(f"a{character}b") == (f"U+{ord(character):04X}" if unsafe else None)


def a_page(reads: list[list[str]], limit: int) -> tuple[pagination.Page, int]:
    """Read a page of a list that DynamoDB returns in these parts; return it with the number of reads."""
    count = 0

    def read(_: pagination.Position | None) -> tuple[list[dict[str, str]], pagination.Position | None]:
        nonlocal count
        count += 1
        names = reads[count - 1]
        return [{"orderId": name} for name in names], {"orderId": names[-1]} if count < len(reads) else None

    return pagination.read_page(read, None, limit, ("orderId",)), count


@pytest.mark.parametrize(
    ("reads", "shown", "last", "count"),
    [
        ([["a"], ["b"], ["c"]], ["a", "b"], "b", 2),  # as much as fits, and no read more
        ([["a"], ["b", "c"], ["d"]], ["a", "b"], "b", 2),  # what does not fit is for the next page
        ([["a", "b"]], ["a", "b"], None, 1),  # a full page at the end of the list is the last one
        ([["a"]], ["a"], None, 1),
    ],
)
def test_a_page_is_read_until_it_is_full_or_the_list_ends(
    reads: list[list[str]], shown: list[str], last: str | None, count: int
) -> None:
    page, number = a_page(reads, limit=2)
    assert [item["orderId"] for item in page.items] == shown
    assert page.last == ({"orderId": last} if last else None)
    assert number == count


def test_a_read_asks_for_no_more_than_the_page_unless_dynamodb_filters_it() -> None:
    assert pagination.read_limit(20, filtered=False) == 20
    assert pagination.read_limit(20, filtered=True) > 20


def test_a_request_without_claims_has_no_caller() -> None:
    contexts: list[dict[str, Any]] = [{}, {"authorizer": {}}, {"authorizer": {"iam": {"userId": "someone"}}}]
    for context in contexts:
        with pytest.raises(Problem) as refused:
            caller_of(APIGatewayProxyEventV2({"requestContext": context}))
        assert refused.value.status == HTTPStatus.UNAUTHORIZED
