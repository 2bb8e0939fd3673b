"""AnalyticsFunction against moto."""

import json
import threading
import uuid
from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import count
from types import ModuleType
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from analytics import repository
from analytics.domain import MAX_FACTS, Figures, Tally, fact_of
from orderflow.dynamodb import ATTEMPTS
from orderflow.ids import derived_ulid
from orderflow.serialization import with_decimals
from tests.integration.support import Aws, Context, log_lines, measured, module, order_event

PLACED, CONFIRMED, CANCELLED = "Order Placed", "Order Confirmed", "Order Cancelled"
SEQUENCES = {PLACED: 1, CONFIRMED: 2, CANCELLED: 3}
NONE = Tally()
PRICE = Decimal("10.10")  # which no binary fraction is
NOW = datetime(2026, 11, 21, 18, 36, tzinfo=UTC)
# Each test counts in a month of its own.
DAYS = (date(2030 + number // 12, number % 12 + 1, 1) for number in count())

Record = dict[str, Any]


@pytest.fixture
def counting(aws: Aws) -> ModuleType:
    return module("analytics.counting_handler")


@pytest.fixture
def day() -> date:
    return next(DAYS)


def sales_event(detail_type: str, day: date, promotion: str | None = None, quantity: int = 1) -> dict[str, Any]:
    """Returns an event of an order with one item of this quantity, at PRICE each."""
    event = order_event(detail_type, f"ORD-{derived_ulid(uuid.uuid4().hex)}", [("PROD-1", quantity)])
    event["detail"]["totalAmount"] = float(quantity * PRICE)
    metadata = event["detail"]["metadata"]
    metadata.update(sequence=SEQUENCES[detail_type], timestamp=f"{day}T12:00:00.000Z")
    if promotion:
        metadata["promotionCode"] = promotion
    return event


def message(event: dict[str, Any] | str) -> Record:
    """Returns a message of the queue, with the fields that the function reads."""
    return {"messageId": str(uuid.uuid4()), "body": event if isinstance(event, str) else json.dumps(event)}


def deliver(counting: ModuleType, records: Iterable[Record]) -> list[str]:
    """Returns the ids of the messages that the function reports as failed."""
    answer = counting.handler({"Records": list(records)}, Context())
    return [failure["itemIdentifier"] for failure in answer["batchItemFailures"]]


def ids(records: Iterable[Record]) -> list[str]:
    return [record["messageId"] for record in records]


def tally(orders: int, items: int) -> Tally:
    return Tally(orders, items, items * PRICE)


def confirmed_on(counting: ModuleType, day: date) -> Tally:
    """Returns the confirmed sales of a day without promotions."""
    figures: Figures
    (figures,) = counting.analytics.figures(day, day)
    assert (figures.day, figures.promotion) == (day, None)
    return figures.confirmed


def fact_item(aws: Aws, event: dict[str, Any]) -> dict[str, Any] | None:
    key = {"pk": f"FACT#{event['detail']['metadata']['eventId']}", "sk": "FACT"}
    item: dict[str, Any] | None = aws.table("AnalyticsTableName").get_item(Key=key).get("Item")
    return item


class Refusing:
    """A DynamoDB client whose first transactions fail.

    Args:
        client: executes the other requests.
        errors: the error of each of the first transactions; None for one that succeeds.
        written: whether these transactions are executed, and only their responses are lost.
    """

    def __init__(self, client: Any, errors: list[Exception | None], *, written: bool = False) -> None:
        self._client = client
        self._errors = errors
        self._written = written

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def transact_write_items(self, TransactItems: list[Any]) -> None:  # noqa: N803 - boto3's name
        error = self._errors.pop(0) if self._errors else None
        if error is None or self._written:
            self._client.transact_write_items(TransactItems=TransactItems)
        if error is not None:
            raise error


@pytest.fixture
def refuse(counting: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[int]]:
    """Lets transactions fail. Returns the numbers of failed attempts after which the repository paused."""

    def refusing(*errors: Exception | None, written: bool = False) -> list[int]:
        pauses: list[int] = []
        client = Refusing(counting.analytics._client, list(errors), written=written)
        monkeypatch.setattr(counting.analytics, "_client", client)
        monkeypatch.setattr(repository, "pause_after", pauses.append)
        return pauses

    return refusing


def cancelled(aws: Aws, *codes: str) -> Exception:
    """Returns the error of a cancelled transaction, with a reason code per operation."""
    response = {
        "Error": {"Code": "TransactionCanceledException", "Message": ""},
        "CancellationReasons": [{"Code": code} for code in codes],
    }
    error: Exception = aws.resource.meta.client.exceptions.TransactionCanceledException(response, "TransactWriteItems")
    return error


def denied() -> Exception:
    return ClientError({"Error": {"Code": "AccessDeniedException", "Message": "no"}}, "TransactWriteItems")


def test_orders_are_counted_by_day_promotion_and_outcome(counting: ModuleType, day: date) -> None:
    events = [
        sales_event(PLACED, day, "SPRING10", 2),
        sales_event(PLACED, day, "SPRING10", 3),
        sales_event(CONFIRMED, day, "SPRING10", 2),
        sales_event(CONFIRMED, day, None, 4),
        sales_event(CONFIRMED, day, None, 1),
        sales_event(CANCELLED, day, None, 4),
        sales_event(CONFIRMED, day + timedelta(days=1), "SPRING10", 3),
    ]
    assert deliver(counting, map(message, events)) == []
    assert list(counting.analytics.figures(day, day + timedelta(days=1))) == [
        Figures(day=day, promotion=None, placed=NONE, confirmed=tally(2, 5), cancelled=tally(1, 4)),
        Figures(day=day, promotion="SPRING10", placed=tally(2, 5), confirmed=tally(1, 2), cancelled=NONE),
        Figures(day=day + timedelta(days=1), promotion="SPRING10", placed=NONE, confirmed=tally(1, 3), cancelled=NONE),
    ]


def test_a_counted_event_is_stored_as_a_fact(aws: Aws, counting: ModuleType, day: date) -> None:
    event = sales_event(CONFIRMED, day, "SPRING10", 2)
    deliver(counting, [message(event)])
    item = fact_item(aws, event)
    assert item is not None
    assert item.pop("countedAt").endswith("Z")
    assert item == {
        "pk": f"FACT#{event['detail']['metadata']['eventId']}",
        "sk": "FACT",
        "day": day.isoformat(),
        "promotion": "SPRING10",
        "kind": "confirmed",
        "orders": 1,
        "items": 2,
        "revenue": 2 * PRICE,
    }


def test_an_event_that_is_not_counted_is_not_stored_and_not_delivered_again(
    aws: Aws, counting: ModuleType, day: date, output: Callable[[], str]
) -> None:
    never_sold, unknown = sales_event(CANCELLED, day), {**sales_event(PLACED, day), "detail-type": "Order Returned"}
    never_sold["detail"]["metadata"]["sequence"] = 2
    assert deliver(counting, [message(never_sold), message(unknown)]) == []
    assert list(counting.analytics.figures(day, day)) == []
    assert fact_item(aws, never_sold) is None
    ignored = [line["detail_type"] for line in log_lines(output()) if line.get("message") == "nothing to count"]
    assert ignored == [CANCELLED, "Order Returned"]


def test_an_event_that_is_in_a_batch_twice_is_counted_once(counting: ModuleType, day: date) -> None:
    event = sales_event(CONFIRMED, day)
    again = {**event, "id": str(uuid.uuid4()), "replay-name": "repair-of-november"}
    assert deliver(counting, [message(event), message(again)]) == []
    assert confirmed_on(counting, day) == tally(1, 1)


def test_a_batch_that_is_delivered_again_is_not_counted_again(
    counting: ModuleType, day: date, output: Callable[[], str]
) -> None:
    records = [message(sales_event(CONFIRMED, day)) for _ in range(3)]
    for _ in range(2):
        assert deliver(counting, records) == []
    assert confirmed_on(counting, day) == tally(3, 3)
    printed = output()
    assert measured(printed, "EventsCounted") == [3.0, 0.0]
    assert measured(printed, "DuplicatesSkipped") == [0.0, 3.0]


def test_the_rest_of_a_batch_that_was_counted_in_part_is_counted(counting: ModuleType, day: date) -> None:
    records = [message(sales_event(CONFIRMED, day)) for _ in range(5)]
    deliver(counting, records[1::2])
    assert deliver(counting, records) == []
    assert confirmed_on(counting, day) == tally(5, 5)


def test_a_batch_whose_response_was_lost_is_reported_and_counted_once(
    counting: ModuleType, day: date, refuse: Callable[..., list[int]]
) -> None:
    records = [message(sales_event(CONFIRMED, day))]
    refuse(EndpointConnectionError(endpoint_url="http://127.0.0.1"), written=True)
    assert deliver(counting, records) == ids(records)
    assert deliver(counting, records) == []
    assert confirmed_on(counting, day) == tally(1, 1)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    quantities=st.lists(st.integers(1, 50), min_size=1, max_size=12),
    batches=st.lists(st.lists(st.integers(0, 11), max_size=8), max_size=5),
)
def test_the_figures_are_those_of_the_distinct_events(
    counting: ModuleType, quantities: list[int], batches: list[list[int]]
) -> None:
    """Each batch contains some of the events, and can contain one several times."""
    day = next(DAYS)
    events = [sales_event(CONFIRMED, day, None, quantity) for quantity in quantities]
    chosen = [[number % len(events) for number in batch] for batch in [[0], *batches]]
    for batch in chosen:
        assert deliver(counting, [message(events[number]) for number in batch]) == []
    distinct = {number for batch in chosen for number in batch}
    assert confirmed_on(counting, day) == tally(len(distinct), sum(quantities[number] for number in distinct))


def test_one_event_that_two_invocations_count_at_once_is_counted_once(
    aws: Aws, counting: ModuleType, day: date
) -> None:
    events = [with_decimals(sales_event(CONFIRMED, day)) for _ in range(20)]
    facts = [fact for event in events if (fact := fact_of(event))]
    barrier = threading.Barrier(4)
    counted: list[int] = []

    def count_all() -> None:
        analytics = repository.Analytics(aws.resource, aws.stack.outputs["AnalyticsTableName"])
        barrier.wait()
        counted.extend(analytics.count(facts[start : start + 5], NOW) for start in range(0, 20, 5))

    threads = [threading.Thread(target=count_all) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(counted), sum(counted)) == (16, 20)
    assert confirmed_on(counting, day) == tally(20, 20)


QUOTED_IN_THE_ERROR = {"eventId": "event-1", "timestamp": "ada@example.com"}


@pytest.mark.parametrize(
    "body",
    [
        "ada@example.com: not valid JSON",
        "[]",
        json.dumps({"detail-type": CONFIRMED}),
        json.dumps({"detail": {"customerEmail": "ada@example.com"}}),
        json.dumps({"detail-type": CONFIRMED, "detail": {"customerEmail": "ada@example.com", "metadata": {}}}),
        json.dumps({"detail-type": CONFIRMED, "detail": {"items": [], "metadata": QUOTED_IN_THE_ERROR}}),
        "[" * 100_000,
    ],
    ids=range(7),
)
def test_a_message_that_cannot_be_read_is_reported_alone_and_kept_out_of_the_log(
    counting: ModuleType, day: date, body: str, output: Callable[[], str]
) -> None:
    poison = message(body)
    records = [message(sales_event(CONFIRMED, day)), poison, message(sales_event(CONFIRMED, day))]
    assert deliver(counting, records) == ids([poison])
    assert confirmed_on(counting, day) == tally(2, 2)
    printed = output()
    (line,) = [line for line in log_lines(printed) if line.get("level") == "ERROR"]
    assert (line["message"], line["message_id"]) == ("message cannot be read", poison["messageId"])
    assert "ada@example.com" not in printed


def test_a_failed_transaction_fails_its_own_messages_only(
    counting: ModuleType, day: date, refuse: Callable[..., list[int]], output: Callable[[], str]
) -> None:
    events = [sales_event(CONFIRMED, day) for _ in range(MAX_FACTS + 8)]
    records = [message(event) for event in events]
    copies = [message(events[0]), message(events[-1])]
    pauses = refuse(denied())
    assert deliver(counting, [*records, *copies]) == [*ids(records[:MAX_FACTS]), copies[0]["messageId"]]
    assert pauses == []
    assert confirmed_on(counting, day) == tally(8, 8)
    printed = output()
    assert (measured(printed, "EventsCounted"), measured(printed, "DuplicatesSkipped")) == ([8.0], [1.0])
    (line,) = [line for line in log_lines(printed) if line.get("level") == "ERROR"]
    assert line["error"] == "AccessDeniedException"
    assert line["event_ids"] == [event["detail"]["metadata"]["eventId"] for event in events[:MAX_FACTS]]
    assert deliver(counting, records) == []
    assert confirmed_on(counting, day) == tally(98, 98)


@pytest.mark.parametrize("code", ["TransactionConflict", "ThrottlingError", "ProvisionedThroughputExceeded"])
def test_a_transaction_conflict_is_retried_after_a_growing_pause(
    aws: Aws,
    counting: ModuleType,
    day: date,
    refuse: Callable[..., list[int]],
    code: str,
) -> None:
    pauses = refuse(*(cancelled(aws, "None", code) for _ in range(3)))
    assert deliver(counting, [message(sales_event(CONFIRMED, day))]) == []
    assert confirmed_on(counting, day) == tally(1, 1)
    assert pauses == [1, 2, 3]


def test_a_lasting_conflict_fails_the_messages_which_the_queue_delivers_again(
    aws: Aws, counting: ModuleType, day: date, refuse: Callable[..., list[int]], output: Callable[[], str]
) -> None:
    records = [message(sales_event(CONFIRMED, day))]
    pauses = refuse(*(cancelled(aws, "None", "TransactionConflict") for _ in range(ATTEMPTS)))
    assert deliver(counting, records) == ids(records)
    assert pauses == list(range(1, ATTEMPTS))
    assert '"error":"TransactionConflict"' in output()
    assert deliver(counting, records) == []
    assert confirmed_on(counting, day) == tally(1, 1)


def test_a_transaction_with_a_permanent_error_is_not_retried(
    aws: Aws, counting: ModuleType, day: date, refuse: Callable[..., list[int]], output: Callable[[], str]
) -> None:
    for codes in (("None", "ValidationError"), ("TransactionConflict", "ValidationError")):
        records = [message(sales_event(CONFIRMED, day))]
        pauses = refuse(cancelled(aws, *codes))
        assert deliver(counting, records) == ids(records)
        assert pauses == []
        assert "ValidationError" in output()


def test_figures_include_both_days_and_cross_the_ends_of_months(counting: ModuleType) -> None:
    first, second, third = next(DAYS), next(DAYS), next(DAYS)
    days = [first, second - timedelta(days=1), second, third - timedelta(days=1), third]
    for day in days:
        deliver(counting, [message(sales_event(CONFIRMED, day, code)) for code in ("zoo", "A1", None)])

    def found(start: date, end: date) -> list[tuple[date, str | None]]:
        return [(figures.day, figures.promotion) for figures in counting.analytics.figures(start, end)]

    def expected(some: list[date]) -> list[tuple[date, str | None]]:
        return [(day, code) for day in some for code in (None, "A1", "zoo")]

    assert found(first, third) == expected(days)
    assert found(first + timedelta(days=1), third - timedelta(days=1)) == expected(days[1:4])
    assert found(second, second) == expected([second])
    assert found(third, first) == []


def test_figures_of_a_month_are_read_from_all_pages(
    counting: ModuleType, day: date, monkeypatch: pytest.MonkeyPatch
) -> None:
    deliver(counting, [message(sales_event(CONFIRMED, day + timedelta(days=after))) for after in range(5)])
    query = counting.analytics._client.get_paginator("query")
    paginate, pages = query.paginate, []

    def in_small_pages(**request: Any) -> Any:
        for page in paginate(**request, PaginationConfig={"PageSize": 2}):
            pages.append(page)
            yield page

    query.paginate = in_small_pages
    monkeypatch.setattr(counting.analytics._client, "get_paginator", lambda _: query)
    figures = list(counting.analytics.figures(day, day + timedelta(days=9)))
    assert [found.day for found in figures] == [day + timedelta(days=after) for after in range(5)]
    assert len(pages) > 1
