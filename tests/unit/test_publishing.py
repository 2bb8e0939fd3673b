"""The event publisher without AWS: explicit requests, the limits of PutEvents, retries and order."""

import json
import re
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError
from hypothesis import given
from hypothesis import strategies as st

from event_publisher import domain
from event_publisher.domain import MAX_BYTES, MAX_ENTRIES, EventEntry, InvalidRequest, PublishRequest
from event_publisher.put_events import ATTEMPTS, deliver

NOW = datetime(2026, 11, 21, 18, 36, tzinfo=UTC)
Answer = dict[str, str]


def entry(aggregate: str, number: int, detail: str = "{}") -> EventEntry:
    name = f"{aggregate}{number}"
    metadata = {"eventId": name, "correlationId": "correlation-1"}
    return EventEntry(
        request=PublishRequest("OrdersTable", {"orderId": aggregate}, number),
        record=name,
        event={"detail-type": name, "detail": {"orderId": aggregate, "metadata": metadata}},
        entry={"EventBusName": "bus", "Source": "s", "DetailType": name, "Time": NOW, "Detail": detail},
    )


class FakeEvents:
    """PutEvents whose result for each entry depends on its DetailType and the number of the attempt."""

    def __init__(self, answer: Callable[[str, int], Answer]) -> None:
        self.accepted: list[str] = []
        self.requests: list[list[str]] = []
        self._answer = answer
        self._tries: Counter[str] = Counter()

    def put_events(self, Entries: list[dict[str, Any]]) -> dict[str, Any]:  # noqa: N803 - boto3's name
        names = [str(sent["DetailType"]) for sent in Entries]
        self.requests.append(names)
        return {"Entries": [self._take(name) for name in names]}

    def _take(self, name: str) -> Answer:
        self._tries[name] += 1
        answer = self._answer(name, self._tries[name])
        if "ErrorCode" not in answer:
            self.accepted.append(name)
        return answer


def send(events: Any, entries: list[EventEntry]) -> Any:
    return deliver(events, entries, lambda _: None, lambda low, high: high)


def names(entries: list[EventEntry]) -> list[str]:
    return [sent.record for sent in entries]


def test_only_the_entries_that_failed_are_sent_again() -> None:
    events = FakeEvents(lambda name, tries: {"ErrorCode": "InternalFailure"} if name == "b1" and tries < 3 else {})
    outcome = send(events, [entry("a", 1), entry("b", 1), entry("c", 1)])
    assert events.requests == [["a1", "b1", "c1"], ["b1"], ["b1"]]
    assert sorted(names(outcome.published)) == ["a1", "b1", "c1"]
    assert outcome.failed == []


def test_later_events_of_an_aggregate_are_not_sent_before_one_that_fails() -> None:
    events = FakeEvents(lambda name, _: {"ErrorCode": "ThrottlingException"} if name == "a1" else {})
    outcome = send(events, [entry("a", 1), entry("a", 2), entry("b", 1), entry("b", 2)])
    assert events.accepted == ["b1", "b2"]
    assert names(outcome.failed) == ["a1", "a2"]
    assert events.requests.count(["a1"]) == ATTEMPTS - 1


def test_each_retry_waits_up_to_twice_as_long_and_all_of_them_at_most_1_4_seconds() -> None:
    pauses: list[float] = []
    events: Any = FakeEvents(lambda _, tries: {"ErrorCode": "InternalFailure"} if tries < 4 else {})
    outcome = deliver(events, [entry("a", 1)], pauses.append, lambda shortest, longest: shortest + longest)
    assert pauses == pytest.approx([0.2, 0.4, 0.8])
    assert names(outcome.published) == ["a1"]


def test_entries_that_are_accepted_at_once_are_sent_without_a_pause() -> None:
    pauses: list[float] = []
    events: Any = FakeEvents(lambda *_: {})
    deliver(events, [entry("a", 1)], pauses.append, lambda _, longest: longest)
    assert pauses == []


def test_an_entry_that_can_never_be_accepted_is_refused_and_does_not_block_later_ones() -> None:
    events = FakeEvents(lambda name, _: {"ErrorCode": "MalformedDetail", "ErrorMessage": "bad"} if name == "a1" else {})
    outcome = send(events, [entry("a", 1), entry("a", 2)])
    assert [(sent.record, code, message) for sent, code, message in outcome.refused] == [
        ("a1", "MalformedDetail", "bad")
    ]
    assert names(outcome.published) == ["a2"]


def test_an_entry_larger_than_a_request_is_refused_without_being_sent() -> None:
    events = FakeEvents(lambda *_: {})
    fitting = "x" * (MAX_BYTES - entry("a", 1, "").size)
    outcome = send(events, [entry("a", 1, fitting + "x"), entry("a", 2, fitting)])
    assert [(sent.record, code) for sent, code, _ in outcome.refused] == [("a1", "EventTooLarge")]
    assert events.accepted == ["a2"]


def test_a_request_that_fails_as_a_whole_fails_each_of_its_entries() -> None:
    for failure in (
        ClientError({"Error": {"Code": "AccessDeniedException", "Message": "no"}}, "PutEvents"),
        EndpointConnectionError(endpoint_url="http://127.0.0.1"),
    ):

        class Broken:
            def put_events(self, Entries: Any, error: Exception = failure) -> Any:  # noqa: N803
                raise error

        outcome = send(Broken(), [entry("a", 1), entry("b", 1)])
        assert names(outcome.failed) == ["a1", "b1"]


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 3)), max_size=30),
    st.sets(st.sampled_from(["a0", "b1", "c2"])),
)
def test_whatever_fails_each_aggregate_keeps_its_order_and_nothing_is_lost(
    plan: list[tuple[str, int]], failing: set[str]
) -> None:
    counter: Counter[str] = Counter()
    entries = []
    for aggregate, _ in plan:
        entries.append(entry(aggregate, counter[aggregate]))
        counter[aggregate] += 1
    events = FakeEvents(lambda name, _: {"ErrorCode": "InternalFailure"} if name in failing else {})
    outcome = send(events, entries)
    for aggregate in counter:
        sent = [name for name in events.accepted if name.startswith(aggregate)]
        assert sent == [f"{aggregate}{number}" for number in range(len(sent))]
    assert sorted(names(outcome.published) + names(outcome.failed)) == sorted(names(entries))


@given(st.lists(st.integers(1, MAX_BYTES - 1000), max_size=40))
def test_requests_keep_to_both_limits_and_to_the_order(sizes: list[int]) -> None:
    entries = [entry("a", number, "x" * size) for number, size in enumerate(sizes)]
    requests = list(domain.requests(entries))
    assert [sent for request in requests for sent in request] == entries
    assert all(1 <= len(request) <= MAX_ENTRIES for request in requests)
    assert all(sum(sent.size for sent in request) <= MAX_BYTES for request in requests)


@pytest.mark.parametrize(("excess", "requests"), [(0, 1), (1, 2)])
def test_two_entries_share_a_request_up_to_one_mebibyte(excess: int, requests: int) -> None:
    empty = 2 * entry("a", 1, "").size
    entries = [entry("a", 1, "x" * 500_000), entry("a", 2, "x" * (1_048_576 - empty - 500_000 + excess))]
    assert len(list(domain.requests(entries))) == requests
    assert len(list(domain.requests(entries * 3))) == requests * 3


@pytest.mark.parametrize(("entries", "requests"), [(10, 1), (11, 2), (20, 2), (21, 3)])
def test_a_request_has_at_most_ten_entries(entries: int, requests: int) -> None:
    assert len(list(domain.requests([entry("a", number) for number in range(entries)]))) == requests


def test_sizes_are_bytes_and_not_characters() -> None:
    assert entry("a", 1, "é€").size == len("s") + len("a1") + 14 + 5


TABLES = {"OrdersTable", "InventoryTable"}
REQUEST = {"table": "OrdersTable", "key": {"orderId": "ORD-1"}, "fromSequence": 2}


def test_a_request_and_its_payload_are_the_same() -> None:
    request = PublishRequest.from_payload(REQUEST, TABLES)
    assert request == PublishRequest("OrdersTable", {"orderId": "ORD-1"}, 2)
    assert json.loads(request.to_payload()) == REQUEST


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        ({"table": "ProductsTable"}, "table is not one of InventoryTable, OrdersTable"),
        ({"table": None}, "table is not one of InventoryTable, OrdersTable"),
        *(
            ({"key": key}, 'key is not an object with one string, such as {"orderId": "ORD-…"}')
            for key in (None, "ORD-1", {}, {"orderId": 1}, {"orderId": "ORD-1", "pk": "RESERVATION#ORD-1"})
        ),
        *(
            ({"fromSequence": sequence}, "fromSequence is not an integer from 1")
            for sequence in (None, 0, -1, "1", 1.5, True)
        ),
    ],
)
def test_an_invalid_request_is_rejected_with_the_field_that_is_wrong(wrong: dict[str, Any], problem: str) -> None:
    with pytest.raises(InvalidRequest, match=f"^{re.escape(problem)}$"):
        PublishRequest.from_payload(REQUEST | wrong, TABLES)


@pytest.mark.parametrize("table", [[], {}])
def test_a_table_of_another_type_is_rejected(table: Any) -> None:
    with pytest.raises(InvalidRequest):
        PublishRequest.from_payload(REQUEST | {"table": table}, TABLES)
