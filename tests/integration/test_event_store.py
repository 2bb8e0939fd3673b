"""The event store with a table of the template in moto."""

import threading
import uuid
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orderflow.event_store import EventStore, VersionConflict
from orderflow.events import Cause, StoredEvent, new_event
from tests.integration.support import Aws

CAUSE = Cause("correlation-1", "cause-1", "Root=1-2-3")


def event(name: str = "Happened", **data: Any) -> StoredEvent:
    return new_event(name, data, CAUSE, datetime.now(UTC))


@pytest.fixture
def store(aws: Aws) -> EventStore:
    return EventStore(aws.resource.meta.client, aws.stack.outputs["OrdersTableName"], "orderId")


def append(store: EventStore, stream_id: str, events: list[StoredEvent], expected: int) -> None:
    store.append(stream_id, events, expected, {"status": events[-1].type})


@settings(deadline=None, max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(st.text(max_size=3), min_size=1, max_size=3), min_size=1, max_size=5))
def test_appended_events_are_loaded_in_order_with_the_version(store: EventStore, batches: list[list[str]]) -> None:
    stream_id = str(uuid.uuid4())
    appended: list[StoredEvent] = []
    for batch in batches:
        events = [event(text=text) for text in batch]
        append(store, stream_id, events, len(appended))
        appended += events
    stream = store.load(stream_id)
    assert stream is not None
    assert [stored.event_id for stored in stream.events] == [made.event_id for made in appended]
    assert [stored.data for stored in stream.events] == [made.data for made in appended]
    assert [stored.sequence for stored in stream.events] == list(range(1, len(appended) + 1))
    assert stream.version == stream.item["version"] == len(appended)
    assert stream.events[0].cause == CAUSE


def test_a_stream_without_events_does_not_exist(store: EventStore) -> None:
    assert store.load(str(uuid.uuid4())) is None


@pytest.mark.parametrize("expected", [0, 2])
def test_a_writer_that_expects_another_version_stores_nothing_and_gets_the_stored_stream(
    store: EventStore, expected: int
) -> None:
    stream_id = str(uuid.uuid4())
    first = event("First")
    append(store, stream_id, [first], 0)
    with pytest.raises(VersionConflict) as caught:
        append(store, stream_id, [event("Late")], expected)
    assert [stored.event_id for stored in caught.value.stream.events] == [first.event_id]
    stream = store.load(stream_id)
    assert stream is not None
    assert stream.version == 1


def test_a_repeated_write_whose_response_was_lost_succeeds_and_stores_nothing(store: EventStore) -> None:
    stream_id = str(uuid.uuid4())
    mine = event("Mine")
    append(store, stream_id, [mine], 0)
    append(store, stream_id, [event("Another's")], 1)
    append(store, stream_id, [mine], 0)
    stream = store.load(stream_id)
    assert stream is not None
    assert [stored.type for stored in stream.events] == ["Mine", "Another's"]


def test_of_several_writers_that_expect_the_same_version_one_succeeds(store: EventStore) -> None:
    stream_id = str(uuid.uuid4())
    append(store, stream_id, [event("First")], 0)
    barrier = threading.Barrier(8)
    outcomes: list[str] = []

    def write(name: str) -> None:
        barrier.wait()
        try:
            append(store, stream_id, [event(name)], 1)
            outcomes.append(name)
        except VersionConflict:
            outcomes.append("lost")

    threads = [threading.Thread(target=write, args=(f"writer {number}",)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    stream = store.load(stream_id)
    assert stream is not None
    assert outcomes.count("lost") == 7
    assert [stored.type for stored in stream.events][1:] == [name for name in outcomes if name != "lost"]


def test_an_error_other_than_a_failed_condition_is_raised_unchanged(aws: Aws) -> None:
    store = EventStore(aws.resource.meta.client, "no-such-table", "orderId")
    with pytest.raises(aws.resource.meta.client.exceptions.ResourceNotFoundException):
        append(store, "stream", [event()], 0)
