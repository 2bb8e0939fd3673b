"""The rules of the sales figures: what an event counts for, how facts are summed and split into transactions."""

import json
from collections import defaultdict
from collections.abc import Callable
from datetime import date, timedelta
from decimal import Decimal
from itertools import chain, cycle, pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analytics.domain import (
    MAX_FACTS,
    MAX_OPERATIONS,
    Counter,
    Fact,
    Kind,
    Tally,
    chunks,
    fact_of,
    months,
    sum_by_counter,
)

FIXTURES = Path(__file__).parents[2] / "events/email"
DAY = date(2026, 11, 21)


def facts_of(number: int, days: int, quantities: list[int]) -> list[Fact]:
    """Returns facts of all kinds, with and without promotions, on at most so many days."""
    kinds, promotions = list(Kind), [None, "SPRING10"]
    return [
        Fact(
            event_id=f"event-{n}",
            day=DAY + timedelta(days=n * 7 % days),
            promotion=promotions[n % 5 % 2],
            kind=kinds[n % 3],
            tally=Tally(1, quantity, Decimal("0.07") * quantity),
        )
        for n, quantity in zip(range(number), cycle(quantities), strict=False)
    ]


many_facts = st.builds(
    facts_of, st.integers(0, 250), st.integers(1, 60), st.lists(st.integers(0, 10_000), min_size=1, max_size=9)
)


def event(name: str, **metadata: Any) -> dict[str, Any]:
    """Returns an order's event with changed metadata."""
    found: dict[str, Any] = json.loads((FIXTURES / f"{name}.json").read_text(), parse_float=Decimal)
    found["detail"]["metadata"].update(metadata)
    return found


def test_a_confirmed_order_counts_as_one_sale_with_its_quantities_and_its_total() -> None:
    assert fact_of(event("order_confirmed")) == Fact(
        event_id="01M7ZP9MY7KDH09ZCE2Z1T0QTD",
        day=DAY,
        promotion=None,
        kind=Kind.CONFIRMED,
        tally=Tally(1, 5, Decimal("189.77")),
    )


@pytest.mark.parametrize(
    ("name", "kind"), [("high_value_order_placed", Kind.PLACED), ("order_confirmed", Kind.CONFIRMED)]
)
def test_an_order_with_a_promotion_counts_for_it(name: str, kind: Kind) -> None:
    fact = fact_of(event(name, promotionCode="SPRING10"))
    assert fact is not None
    assert (fact.promotion, fact.kind) == ("SPRING10", kind)


def test_an_order_placed_without_a_promotion_is_not_counted() -> None:
    assert fact_of(event("high_value_order_placed")) is None


@pytest.mark.parametrize(("sequence", "kind"), [(2, None), (3, Kind.CANCELLED)])
def test_a_cancellation_counts_only_after_a_confirmation(sequence: int, kind: Kind | None) -> None:
    fact = fact_of(event("order_cancelled", sequence=sequence))
    assert (fact and fact.kind) == kind


def test_other_types_of_events_are_not_counted() -> None:
    assert fact_of(event("order_rejected")) is None
    assert fact_of({"detail-type": "Daily Report"}) is None


@pytest.mark.parametrize(
    ("time", "day"),
    [
        ("2026-11-30T23:59:59.999Z", date(2026, 11, 30)),
        ("2026-12-01T00:00:00.000Z", date(2026, 12, 1)),
        ("2026-12-01T00:30:00+01:00", date(2026, 11, 30)),
    ],
)
def test_the_day_is_that_of_the_event_in_utc_and_not_of_its_publication(time: str, day: date) -> None:
    fact = fact_of({**event("order_confirmed", timestamp=time), "time": "2027-01-01T00:00:00Z"})
    assert fact is not None
    assert fact.day == day


def without_items(detail: dict[str, Any]) -> None:
    del detail["items"]


def with_total(total: Any) -> Callable[[dict[str, Any]], None]:
    return lambda detail: detail.update(totalAmount=total)


def with_quantity(quantity: Any) -> Callable[[dict[str, Any]], None]:
    return lambda detail: detail["items"][0].update(quantity=quantity)


def with_metadata(**metadata: Any) -> Callable[[dict[str, Any]], None]:
    return lambda detail: detail["metadata"].update(metadata)


@pytest.mark.parametrize(
    "spoil",
    [
        without_items,
        *(with_total(total) for total in (None, "189.77", Decimal("0.001"), -1, 10**12, float("nan"), float("inf"))),
        *(with_total(Decimal(total)) for total in ("1E+999999", "0.1234567890123456789012345678901234567890")),
        *(with_quantity(quantity) for quantity in ("2", Decimal("1.5"), -5, 10**40)),
        with_metadata(eventId=None),
        with_metadata(eventId=""),
        with_metadata(eventId="x" * 1001),
        with_metadata(eventId="\ud800"),
        with_metadata(promotionCode=None),
        with_metadata(promotionCode="ü" * 501),
        with_metadata(timestamp="yesterday"),
    ],
)
def test_values_that_dynamodb_would_reject_raise_before_they_join_a_transaction(
    spoil: Callable[[dict[str, Any]], None],
) -> None:
    spoilt = event("order_confirmed")
    spoil(spoilt["detail"])
    with pytest.raises((ArithmeticError, AttributeError, LookupError, TypeError, ValueError)):
        fact_of(spoilt)


@pytest.mark.parametrize("total", ["0", "999999999999.99"])
def test_totals_from_zero_to_the_limit_are_counted(total: str) -> None:
    found = event("order_confirmed")
    found["detail"]["totalAmount"] = Decimal(total)
    fact = fact_of(found)
    assert fact is not None
    assert fact.tally.revenue == Decimal(total)


def test_an_id_and_a_promotion_of_1000_bytes_are_counted() -> None:
    fact = fact_of(event("order_confirmed", eventId="x" * 1000, promotionCode="ü" * 500))
    assert fact is not None
    assert (fact.event_id, fact.promotion) == ("x" * 1000, "ü" * 500)


def test_an_event_without_a_detail_raises() -> None:
    with pytest.raises(KeyError):
        fact_of({"detail-type": "Order Confirmed"})


@settings(max_examples=50)
@given(many_facts)
def test_every_fact_is_in_one_chunk_in_its_order(some: list[Fact]) -> None:
    assert [fact for chunk in chunks(some) for fact in chunk] == some


@settings(max_examples=50)
@given(many_facts)
def test_a_chunk_fits_into_a_transaction(some: list[Fact]) -> None:
    for chunk in chunks(some):
        assert 1 <= len(chunk) <= MAX_FACTS
        assert len(chunk) + len(sum_by_counter(chunk)) <= MAX_OPERATIONS


@settings(max_examples=50)
@given(many_facts)
def test_a_chunk_ends_only_where_the_next_fact_would_not_fit(some: list[Fact]) -> None:
    for chunk, following in pairwise(chunks(some)):
        longer = [*chunk, following[0]]
        assert len(longer) > MAX_FACTS or len(longer) + len(sum_by_counter(longer)) > MAX_OPERATIONS


@settings(max_examples=50)
@given(many_facts)
def test_the_sums_of_all_chunks_add_up_to_the_sums_of_the_facts(some: list[Fact]) -> None:
    expected: dict[tuple[Counter, Kind], list[Tally]] = defaultdict(list)
    for fact in some:
        expected[fact.counter, fact.kind].append(fact.tally)
    found: dict[tuple[Counter, Kind], Tally] = defaultdict(Tally)
    for counter, sums in chain.from_iterable(sum_by_counter(chunk).items() for chunk in chunks(some)):
        for kind, tally in sums.items():
            found[counter, kind] += tally
    assert found == {
        where: Tally(
            sum(tally.orders for tally in same),
            sum(tally.items for tally in same),
            sum((tally.revenue for tally in same), Decimal(0)),
        )
        for where, same in expected.items()
    }


@pytest.mark.parametrize(
    ("number", "days", "sizes"),
    [(0, 1, []), (90, 10, [90]), (91, 1, [90, 1]), (90, 11, [89, 1]), (101, 101, [50, 50, 1])],
)
def test_a_transaction_is_filled_up_to_its_limits(number: int, days: int, sizes: list[int]) -> None:
    some = [Fact(str(n), DAY + timedelta(days=n % days), None, Kind.CONFIRMED, Tally(1)) for n in range(number)]
    assert [len(chunk) for chunk in chunks(some)] == sizes


def test_a_kind_without_facts_has_no_sum() -> None:
    fact = Fact("event-1", DAY, None, Kind.CONFIRMED, Tally(1, 2, Decimal("3.50")))
    assert sum_by_counter([fact]) == {(DAY, None): {Kind.CONFIRMED: fact.tally}}


@pytest.mark.parametrize(
    ("first", "last", "expected"),
    [
        (date(2026, 11, 30), date(2026, 11, 30), ["2026-11"]),
        (date(2026, 11, 30), date(2027, 2, 1), ["2026-11", "2026-12", "2027-01", "2027-02"]),
        (date(2026, 12, 1), date(2026, 11, 30), []),
        (date(9999, 12, 31), date.max, ["9999-12"]),
        (date.min, date.min, ["0001-01"]),
    ],
)
def test_months_are_those_of_the_days_in_between(first: date, last: date, expected: list[str]) -> None:
    assert list(months(first, last)) == expected
