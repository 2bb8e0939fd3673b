"""What is sent again, and how: from stored items to stream records and batches."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tools import republish
from tools.republish import EVER, MAX_BYTES, Images, Table, Window, batches, images, main, record

TABLE = Table("orders", "orderId", "arn:aws:dynamodb:us-east-1:123456789012:table/orders/stream/1")
NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)


def item(*minutes: int) -> dict[str, Any]:
    """An item with an event so many minutes after noon each."""
    times = [(NOON + timedelta(minutes=minute)).isoformat().replace("+00:00", "Z") for minute in minutes]
    events = [{"M": {"eventId": {"S": f"event-{time}"}, "time": {"S": time}}} for time in times]
    return {"orderId": {"S": "ORD-1"}, "status": {"S": "CONFIRMED"}, "events": {"L": events}}


def after_noon(begin: int, end: int) -> Window:
    return Window(NOON + timedelta(minutes=begin), NOON + timedelta(minutes=end))


def test_without_a_window_all_events_are_new() -> None:
    assert images(item(1, 2, 3), EVER) == Images(new=item(1, 2, 3), old=None)


def test_events_before_the_window_are_in_the_old_image_and_later_ones_in_neither() -> None:
    assert images(item(1, 2, 3, 4), after_noon(2, 3)) == Images(new=item(1, 2, 3), old=item(1))


def test_the_ends_of_the_window_belong_to_it() -> None:
    assert images(item(1), after_noon(1, 1)) == Images(new=item(1), old=None)


@pytest.mark.parametrize("window", [after_noon(3, 9), after_noon(-9, 0)])
def test_an_item_without_an_event_in_the_window_is_left_out(window: Window) -> None:
    assert images(item(1, 2), window) is None


def test_an_item_that_holds_no_events_is_left_out() -> None:
    assert images({"pk": {"S": "PRODUCT#PEN"}}, EVER) is None


def test_a_record_reads_like_one_of_the_tables_stream() -> None:
    made = record(TABLE, Images(new=item(1, 2), old=item(1)), 7)

    assert made["eventName"] == "MODIFY"
    assert made["eventSourceARN"] == TABLE.stream
    assert made["dynamodb"] == {
        "Keys": {"orderId": {"S": "ORD-1"}},
        "NewImage": item(1, 2),
        "OldImage": item(1),
        "SequenceNumber": "7",
        "StreamViewType": "NEW_AND_OLD_IMAGES",
    }


def test_a_record_of_all_events_is_an_insertion() -> None:
    made = record(TABLE, Images(new=item(1), old=None), 1)

    assert made["eventName"] == "INSERT"
    assert "OldImage" not in made["dynamodb"]


def test_a_batch_has_a_hundred_records_at_most() -> None:
    records = [record(TABLE, Images(item(1), None), number) for number in range(250)]

    made = list(batches(records))

    assert [len(batch) for batch in made] == [100, 100, 50]
    assert [entry for batch in made for entry in batch] == records


def test_a_batch_fits_an_invocation() -> None:
    large = {"padding": "x" * (MAX_BYTES // 2)}

    assert [len(batch) for batch in batches([large, large, large])] == [1, 1, 1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name either --order, or --from and --to"),
        (["--order", "ORD-1", "--to", "2026-11-21T12:00:00Z"], "name either --order, or --from and --to"),
        (["--from", "2026-11-21T12:00:00Z"], "--from and --to go together"),
        (["--from", "2026-11-21T12:00:01Z", "--to", "2026-11-21T12:00:00Z"], "--from is later than --to"),
        (["--from", "noon", "--to", "2026-11-21T12:00:00Z"], "'noon' is not a time like"),
        (["--from", "2026-11-21T12:00:00", "--to", "2026-11-21T12:00:00Z"], "lacks its offset from UTC"),
    ],
)
def test_bad_arguments_are_refused_in_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)

    assert stopped.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert message in line


def test_without_a_stack_one_line_says_so(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.setenv("STACK_FILE", str(tmp_path / "stack.json"))

    assert republish.main(["--order", "ORD-1"]) == 1
    assert capsys.readouterr().err.startswith("error: there is no ")
