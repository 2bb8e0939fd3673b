"""The rules of the back office: the days of a report, and why a request is refused."""

from datetime import date

MAX_DAYS = 366
DEFAULT_DAYS = 7


class RefusedRequest(Exception):
    """A request that cannot be served. The text says why."""


class MalformedRange(RefusedRequest):
    """The query parameters `from` and `to` are not a valid range of days."""


class UnknownFailedEvent(RefusedRequest):
    """There is no failed event with this id."""


class AlreadyResolved(RefusedRequest):
    """The consumer of the failed event has succeeded."""


class NotRedrivable(RefusedRequest):
    """The failed event has no payload, but a command to run instead."""


class UnknownProduct(RefusedRequest):
    """The catalogue has no valid product with this id."""


class StaleCount(RefusedRequest):
    """The stock has changed since it was counted."""


def date_range(first: str | None, last: str | None, today: date) -> tuple[date, date]:
    """Returns the first and last day of a report, or raises MalformedRange. By default, it has seven days to today."""
    end = today if last is None else _day("to", last)
    # No date is earlier than day 1 of year 1
    begin = date.fromordinal(max(end.toordinal() - DEFAULT_DAYS + 1, 1)) if first is None else _day("from", first)
    if begin > end:
        raise MalformedRange(f"from {begin} is after to {end}")
    if (end - begin).days >= MAX_DAYS:
        raise MalformedRange(f"from {begin} to {end} is more than {MAX_DAYS} days")
    return begin, end


def _day(name: str, text: str) -> date:
    try:
        day = date.fromisoformat(text)
    except ValueError as error:
        raise MalformedRange(f"{name} is not a date, such as 2026-11-21") from error
    if day.isoformat() != text:  # fromisoformat also reads 20261121 and 2026-W47-6
        raise MalformedRange(f"{name} is not written as 2026-11-21")
    return day
