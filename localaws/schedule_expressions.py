"""Schedule expressions of EventBridge Scheduler and of scheduled rules: rate(…), cron(…) and at(…).

Unlike the other waits in localaws/, schedules are not shortened by `--time-scale`: they refer to the real time of day.
Sources: "Schedule types" (Scheduler user guide), "Creating a rule that runs on a schedule" (EventBridge user guide).
"""

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from itertools import count, islice

from cronsim import CronSim, CronSimError

from localaws.delivery import Scheduler

LOOK_SECONDS = 60.0
"""A waiting schedule reads the clock at least this often: its maximum delay after the machine slept."""

_EXPRESSION = re.compile(r"(cron|rate|at)\((.+)\)")
_RATE = re.compile(r"([1-9]\d*) (minute|hour|day)(s?)")
_YEARS = re.compile(r"(?:\*|(\d{4})(?:-(\d{4}))?)(?:/([1-9]\d*))?")
_DAYS = "x0123456xx"
"""CronSim's number of a weekday, indexed by EventBridge's number: 1 is Sunday, and 0, 8 and 9 are not valid."""

Times = Callable[[datetime], Iterator[datetime]]
"""Returns the times of a schedule from a start time on."""


def read_times(expression: str, zone: tzinfo) -> Times:
    """Returns the times of a schedule of EventBridge Scheduler. The first time of a rate is the start time.

    Raises:
        ValueError: the expression is not valid.
    """
    match = _EXPRESSION.fullmatch(expression)
    if match is None:
        raise ValueError(f"{expression} must be cron(…), rate(…) or at(…)")
    kind, text = match.groups()
    if kind == "cron":
        return _cron(text, zone)
    if kind == "rate":
        return _rate(text)
    if not re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", text):
        raise ValueError(f"{expression} must be at(yyyy-mm-ddThh:mm:ss), without a time zone")
    moment = datetime.fromisoformat(text).replace(tzinfo=zone)
    return lambda begin: iter([moment] if moment >= begin else [])


def read_rule_times(expression: str) -> Times:
    """Returns the times of a scheduled rule, in UTC. The first run of a rate is one period after the start time.

    Raises:
        ValueError: the expression is not valid for a rule: it has at(…), or a unit like `1 hours` or `5 hour`.
    """
    times = read_times(expression, UTC)
    rate = _RATE.fullmatch(expression[len("rate(") : -1])
    if expression.startswith("at(") or (rate and (rate[1] == "1") == bool(rate[3])):
        raise ValueError(f"{expression} must be cron(…), or rate(…) with a singular unit for 1 and a plural for more")
    return (lambda begin: islice(times(begin), 1, None)) if rate else times


def _cron(text: str, zone: tzinfo) -> Times:
    *start, day, month, weekday, year = text.split() if len(text.split()) == 6 else [""] * 6
    if (day == "?") == (weekday == "?"):
        raise ValueError(f"cron({text}): must have six fields, with ? for one of the days")
    # CronSim has five fields: no year, and Sunday is 0.
    weekday = re.sub(r"(?<![#/\d])\d", lambda number: _DAYS[int(number[0])], weekday)
    fields = " ".join((*start, day, month, weekday)).replace("?", "*")
    years = sorted({number for item in year.split(",") for number in _read_years(item)})
    try:
        CronSim(fields, datetime.now(zone))
    except CronSimError as error:
        raise ValueError(f"cron({text}): {error}") from error

    def times(begin: datetime) -> Iterator[datetime]:
        begin = begin.astimezone(zone)
        for number in years:
            if number >= begin.year:
                start = max(begin, datetime(number, 1, 1, tzinfo=zone) - timedelta(seconds=1))  # CronSim excludes it
                for time in CronSim(fields, start):
                    if time.year != number:
                        break
                    yield time

    return times


def _read_years(item: str) -> range:
    match = _YEARS.fullmatch(item)
    if match is None:
        raise ValueError(f"{item} must be *, a year or a range of years")
    first, last, step = match.groups()
    bottom, top = int(first or 1970), int(last or (first if first and not step else 2199))
    if not 1970 <= bottom <= top <= 2199:
        raise ValueError(f"{item} must be within the years 1970 to 2199")
    return range(bottom, top + 1, int(step or 1))


def _rate(text: str) -> Times:
    match = _RATE.fullmatch(text)
    if match is None:
        raise ValueError(f"rate({text}): must be a number of minutes, hours or days")
    period = timedelta(**{f"{match[2]}s": int(match[1])})
    return lambda begin: (begin + number * period for number in count())


def run_at(
    times: Times,
    run: Callable[[datetime], None],
    scheduler: Scheduler,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> None:
    """Call `run` with each time of a schedule from now on, until the scheduler stops.

    Times that passed while the machine slept are skipped, except the first of them.
    """
    planned = times(now())

    def wait(due: datetime | None) -> None:
        if due is not None:
            left = max((due - now()).total_seconds(), 0)
            scheduler.after(min(left, LOOK_SECONDS) * scheduler.clock.scale, lambda: look(due))

    def look(due: datetime) -> None:
        current = now()
        if current < due:
            wait(due)
            return
        wait(next((time for time in planned if time > current), None))  # first, because the run may fail
        run(due)

    wait(next(planned, None))
