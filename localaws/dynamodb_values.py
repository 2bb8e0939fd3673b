"""DynamoDB's attribute values: which are valid, how they are stored, their size and their order.

A value is in DynamoDB JSON: {"S": "text"}. Stored values are never changed, so requests and records may share them.
Rules: https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/HowItWorks.NamingRulesDataTypes.html
"""

import base64
import re
from collections.abc import Callable, Mapping
from decimal import Context, Decimal
from typing import Any

from localaws.aws import ServiceError

Value = dict[str, Any]
Item = dict[str, Value]

_JSON_TYPES: dict[str, Any] = {"S": str, "N": str, "B": str, "BOOL": bool, "NULL": bool, "M": dict, "L": list}
_SETS = {"SS": ("S", "string"), "NS": ("N", "number"), "BS": ("B", "binary")}
TYPES = frozenset({*_JSON_TYPES, *_SETS})
NESTING_LEVELS = 32
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,6})?")
_STORED_NUMBER = re.compile(r"0|-?[1-9][0-9]{0,37}")  # these digits are already as DynamoDB stores them
_EXACT = Context(prec=400)  # more digits than any sum of two numbers of DynamoDB
_INVALID = "One or more parameter values were invalid: "


def invalid(message: str) -> ServiceError:
    return ServiceError("ValidationException", message)


def number(text: str) -> str:
    """Returns a number as DynamoDB stores it: without an exponent, a plus sign or superfluous zeros.

    Raises:
        ServiceError: it is not a number, has more than 38 significant digits, or its magnitude is out of range.
    """
    if _STORED_NUMBER.fullmatch(text):
        return text
    if not _NUMBER.fullmatch(text):
        raise invalid(f"The parameter cannot be converted to a numeric value: {text}")
    value = Decimal(text)
    if not value:
        return "0"
    if value.adjusted() > 125 or value.adjusted() < -130:
        problem, size = ("overflow", "larger") if value.adjusted() > 0 else ("underflow", "smaller")
        raise invalid(f"Number {problem}. Attempting to store a number with magnitude {size} than supported range")
    if len("".join(map(str, value.as_tuple().digits)).strip("0")) > 38:
        raise invalid("Attempting to store more than 38 significant digits in a Number")
    plain = format(value, "f")
    return plain.rstrip("0").rstrip(".") if "." in plain else plain


def add(left: Value, right: Value, sign: int = 1) -> Value:
    """Adds or subtracts two values of type N, exactly."""
    other = Decimal(right["N"]).copy_negate() if sign < 0 else Decimal(right["N"])
    return {"N": number(str(_EXACT.add(Decimal(left["N"]), other)))}


def checked(value: Any, level: int = 0) -> Value:
    """Returns a value as DynamoDB stores it: normalized numbers, sorted sets. Equal values are then equal dicts.

    Raises:
        ServiceError: the value is not valid.
    """
    if not isinstance(value, dict) or len(value) != 1 or not TYPES.issuperset(value):
        several = isinstance(value, dict) and len(value) > 1
        problem = "has more than one datatypes set" if several else "is empty"
        raise invalid(f"Supplied AttributeValue {problem}, must contain exactly one of the supported datatypes")
    if level > NESTING_LEVELS:
        raise invalid("Nesting Levels have exceeded supported limits")
    kind, content = next(iter(value.items()))
    if not isinstance(content, _JSON_TYPES.get(kind, list)):
        raise ServiceError("SerializationException", f"The value of an attribute of type {kind} has another JSON type")
    if kind == "N":
        return {"N": number(content)}
    if kind == "M":
        return {"M": {name: checked(member, level + 1) for name, member in content.items()}}
    if kind == "L":
        return {"L": [checked(member, level + 1) for member in content]}
    if kind in _SETS:
        member_kind, name = _SETS[kind]
        if not content:
            raise invalid(f"{_INVALID}An {name} set  may not be empty")
        members = [checked({member_kind: member})[member_kind] for member in content]
        if len(set(members)) < len(members):
            raise invalid(f"{_INVALID}Input collection [{', '.join(content)}] contains duplicates.")
        return set_of(kind, members)
    if kind == "NULL" and not content:
        raise invalid(f"{_INVALID}Null attribute value types must have the value of true")
    return value


def set_of(kind: str, members: Any) -> Value:
    """Returns a set in the order in which DynamoDB returns it."""
    return {kind: sorted(members, key=lambda member: comparable({kind[0]: member}))}


def checked_item(attributes: Mapping[str, Any]) -> Item:
    return {name: checked(value) for name, value in attributes.items()}


def comparable(value: Value) -> Any:
    """Returns what a string, number or binary value is sorted by; values of other types have no order."""
    [(kind, content)] = value.items()
    return Decimal(content) if kind == "N" else base64.b64decode(content) if kind == "B" else content


def _text_size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())


def _number_size(text: str) -> int:
    digits = len(text.replace(".", "").strip("-0"))
    return (digits + 1) // 2 + 1 + text.startswith("-")


_SIZES: dict[str, Callable[[Any], int]] = {
    "S": _text_size,
    "N": _number_size,
    "B": lambda text: len(text) * 3 // 4 - text.count("="),
    "SS": lambda members: sum(map(_text_size, members)),
    "NS": lambda members: sum(map(_number_size, members)),
    "BS": lambda members: sum(map(_SIZES["B"], members)),
    "M": lambda members: 3 + len(members) + item_size(members),
    "L": lambda members: 3 + len(members) + sum(map(size, members)),
    "BOOL": lambda _: 1,
    "NULL": lambda _: 1,
}


def size(value: Value) -> int:
    """Returns the bytes of a stored value.

    https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/CapacityUnitCalculations.html
    """
    for kind, content in value.items():
        return _SIZES[kind](content)
    return 0


def item_size(item: Item) -> int:
    """Returns the bytes of an item, with the names of its attributes."""
    return sum(_text_size(name) + size(value) for name, value in item.items())
