"""JSON and DynamoDB on the wire: money is a `Decimal` inside and a JSON number outside; times are RFC 3339 in UTC."""

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any


def timestamp(moment: datetime) -> str:
    """RFC 3339 in UTC with milliseconds: `2026-11-21T18:36:00.123Z`."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def to_json(value: Any) -> str:
    """JSON text, where a Decimal becomes a number.

    A number of at most 15 significant digits is exact: a float's shortest form is then the decimal itself. An order's
    total has 12 digits at most (`orders.domain.MAX_TOTAL`). The sums of the sales figures are exact below 10^13.
    """
    return json.dumps(value, default=_number, separators=(",", ":"), ensure_ascii=False)


def _number(value: object) -> int | float:
    if not isinstance(value, Decimal):
        raise TypeError(f"{type(value).__name__} has no JSON form")
    return int(value) if value == value.to_integral_value() else float(value)


def with_decimals(value: Any) -> Any:
    """A copy of parsed JSON with Decimals in place of floats, each exactly what the JSON text said."""
    return json.loads(json.dumps(value), parse_float=Decimal)
