"""JSON: money is a `Decimal` in our code and a number in JSON; times are RFC 3339 in UTC."""

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any


def timestamp(moment: datetime) -> str:
    """Returns RFC 3339 in UTC with milliseconds: `2026-11-21T18:36:00.123Z`."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def to_json(value: Any) -> str:
    """Returns JSON text, where a Decimal becomes a number and a datetime a timestamp.

    A number of at most 15 significant digits is exact: a float's shortest form is then the decimal itself. An order's
    total has 12 digits at most (`orders.domain.MAX_TOTAL`). The sums of the sales figures are exact below 10^13.
    """
    return json.dumps(value, default=_encode, separators=(",", ":"), ensure_ascii=False)


def _encode(value: object) -> int | float | str:
    match value:
        case Decimal():
            return int(value) if value == value.to_integral_value() else float(value)
        case datetime():
            return timestamp(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")


def with_decimals(value: Any) -> Any:
    """Returns a copy of parsed JSON with Decimals in place of floats, each exactly what the JSON text said."""
    return json.loads(json.dumps(value), parse_float=Decimal)
