"""Event patterns of rules, event source mappings and pipes.

Sources:
- AWS, "Comparison operators for use in event patterns" and "Event pattern syntax" (EventBridge user guide);
- where the guide says nothing: the README and rule compiler of aws/event-ruler, the engine of EventBridge.

A pattern is compiled once, into one alternative for each combination of its `$or` branches. An alternative is a list of
conditions that must all be true, each on one path of the event. An event is flattened to its leaves along these paths.
"""

import ipaddress
import itertools
import operator
import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from typing import Any

Matcher = Callable[[object], bool]
# The array elements that contain a leaf, from the outermost: (number of the array in the event, index of the element).
Membership = tuple[tuple[int, int], ...]
# The conditions that must all be true, by path. The names of a path are joined by dots, as EventBridge does.
Alternative = dict[str, "Condition"]

# Maximum combinations of the `$or` branches of a pattern (user guide on `$or`; more is a LimitExceededException).
MOST_ALTERNATIVES = 1000
# Maximum number of prefixes of a field's wildcards that match one text. The user guide calls more "too complex" without
# a number; 10 is the example in the README of aws/event-ruler, and agrees with patterns that EventBridge refused.
MOST_PREFIXES = 10


class InvalidEventPattern(ValueError):
    """EventBridge would reject the pattern. The message names the place (`$` is the root) and the reason."""

    def __init__(self, where: str, reason: str) -> None:
        super().__init__(f"{where}: {reason}")


class EventPattern:
    """A compiled event pattern. Thread-safe."""

    def __init__(self, pattern: dict[str, Any]) -> None:
        """Compile a pattern, parsed from JSON.

        Raises:
            InvalidEventPattern: EventBridge would reject it.
        """
        alternatives = _compile_object(pattern, prefix="", where="$", inside_or=False)
        # Ruler sorts the fields by name. This matters in arrays of objects: an `exists: false` that comes first applies
        # to all objects; after another field it applies to the object in which that field matched.
        self._alternatives = [tuple(each for _, each in sorted(alternative.items())) for alternative in alternatives]
        # The paths and their parents: a, a.b and a.b.c for a.b.c
        steps = [itertools.accumulate(path.split("."), "{}.{}".format) for each in alternatives for path in each]
        self._wanted = frozenset(itertools.chain.from_iterable(steps))

    def matches(self, event: dict[str, Any]) -> bool:
        """Returns whether an event, or a record of an event source mapping, parsed from JSON, matches the pattern."""
        leaves = _Leaves(event, self._wanted)
        return any(_hold(conditions, leaves, {}) for conditions in self._alternatives)


# Matching: compares the leaves of an event with the conditions of an alternative.


@dataclass(frozen=True)
class Condition:
    """The condition on one path: one of the exact values, or one of the operators, must match."""

    path: str
    exact: frozenset[object]
    matchers: tuple[Matcher, ...]

    def accepts(self, value: object) -> bool:
        return _identity(value) in self.exact or any(match(value) for match in self.matchers)

    def accepts_absence(self) -> bool:
        return _absent in self.matchers


class _Leaves:
    """The values of an event that are neither objects nor arrays, by path.

    Arrays do not appear in a path: their elements are values of the field that contains the array.
    """

    def __init__(self, event: dict[str, Any], wanted: frozenset[str]) -> None:
        self._wanted = wanted
        self._arrays = itertools.count()
        self._by_path: dict[str, list[tuple[object, Membership]]] = {}
        self._add_fields(event, "", ())

    def consistent(self, path: str, entered: dict[int, int]) -> list[tuple[object, Membership]]:
        """Returns the values at a path, except those in other elements of arrays that previous fields `entered`."""
        return [leaf for leaf in self._by_path.get(path, ()) if _fits(leaf[1], entered)]

    def _add_fields(self, fields: dict[str, Any], prefix: str, membership: Membership) -> None:
        for name, value in fields.items():
            path = f"{prefix}{name}"
            if path in self._wanted:
                self._add(value, path, membership)

    def _add(self, value: object, path: str, membership: Membership) -> None:
        if isinstance(value, dict):
            self._add_fields(value, f"{path}.", membership)
        elif isinstance(value, list):
            array = next(self._arrays)
            for index, element in enumerate(value):
                # Array consistency applies to values in the same object or array, not to plain values.
                nested = isinstance(element, dict | list)
                self._add(element, path, (*membership, (array, index)) if nested else membership)
        else:
            self._by_path.setdefault(path, []).append((value, membership))


def _hold(conditions: tuple[Condition, ...], leaves: _Leaves, entered: dict[int, int]) -> bool:
    """Returns whether all conditions are true in the same element of every array ("array consistency")."""
    if not conditions:
        return True
    condition, rest = conditions[0], conditions[1:]
    candidates = leaves.consistent(condition.path, entered)
    if not candidates:
        return condition.accepts_absence() and _hold(rest, leaves, entered)
    ways = {membership for value, membership in candidates if condition.accepts(value)}
    return any(_hold(rest, leaves, entered | dict(way)) for way in ways)


def _fits(membership: Membership, entered: dict[int, int]) -> bool:
    for array, index in membership:  # noqa: SIM110 - a loop, because all() takes twice as long and this runs most often
        if entered.get(array, index) != index:
            return False
    return True


def _identity(value: object) -> object:
    """Returns a key that is the same for equal JSON values only: 1 and 1.0 are equal, 1 and true are not.

    The user guide says that 300 and 300.0 differ. In EventBridge they are equal, as in the compiler of event-ruler.
    """
    number = _comparable(value)
    return value if number is None else ("number", number)


def _comparable(value: object) -> float | None:
    """Returns a number as EventBridge compares it, or None if it does not compare it as a number.

    The range and precision are those of a double (README of aws/event-ruler, "Numeric matching"). The user guide still
    has the limit of an earlier version, 5e9. An integer with more digits than a double has only equals itself.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if not abs(value) <= sys.float_info.max:  # also infinity and NaN
        return None
    number = float(value)
    return number if isinstance(value, float) or Decimal(repr(number)) == value else None


# Compiling: from the pattern to alternatives of conditions.


def _compile_object(pattern: object, prefix: str, where: str, inside_or: bool) -> list[Alternative]:
    """Compiles an object of the pattern into its alternatives. The paths of its fields start with `prefix`."""
    if not isinstance(pattern, dict) or not pattern:
        raise InvalidEventPattern(where, "must be a non-empty object")
    alternatives: list[Alternative] = [{}]
    for name, value in pattern.items():
        here = f"{where}.{name}"
        branches = _compile_field(name, value, prefix, here, inside_or)
        if len(alternatives) * len(branches) > MOST_ALTERNATIVES:
            raise InvalidEventPattern(here, f"more than {MOST_ALTERNATIVES} combinations of $or")
        # A second condition on the same field replaces the first, as in EventBridge.
        alternatives = [{**left, **right} for left, right in itertools.product(alternatives, branches)]
    return alternatives


def _compile_field(name: str, value: object, prefix: str, where: str, inside_or: bool) -> list[Alternative]:
    if name == "$or":
        return _compile_or(value, prefix, where)
    if inside_or and name in OPERATORS:
        raise InvalidEventPattern(where, "the name of an operator can't be a field inside $or")
    if isinstance(value, dict):
        return _compile_object(value, f"{prefix}{name}.", where, inside_or)
    if isinstance(value, list):
        path = f"{prefix}{name}"
        return [{path: _compile_leaf(path, value, where)}]
    raise InvalidEventPattern(where, "must be an object or an array")


def _compile_or(branches: object, prefix: str, where: str) -> list[Alternative]:
    if not isinstance(branches, list) or len(branches) < 2:
        raise InvalidEventPattern(where, "must be an array of at least two objects")
    return [
        alternative
        for index, branch in enumerate(branches)
        for alternative in _compile_object(branch, prefix, f"{where}[{index}]", inside_or=True)
    ]


def _compile_leaf(path: str, values: list[Any], where: str) -> Condition:
    if not values:
        raise InvalidEventPattern(where, "must not be an empty array")
    exact, matchers, wildcards = set(), [], []
    for index, value in enumerate(values):
        here = f"{where}[{index}]"
        if isinstance(value, dict):
            name, argument = _only_operator(value, OPERATORS, here)
            matchers.append(OPERATORS[name](argument, f"{here}.{name}"))
            wildcards += _wildcards(value)
        elif value is None or isinstance(value, str | bool | int | float):
            exact.add(_identity(value))
        else:
            raise InvalidEventPattern(here, "must be a string, a number, true, false, null or an operator")
    if _too_complex(wildcards):
        raise InvalidEventPattern(where, "the rule is too complex: too many or too similar wildcards")
    return Condition(path, frozenset(exact), tuple(matchers))


# The operators: each compiles its argument to a function that returns whether a leaf's value matches.


def _compile_affix(test: Callable[[str, str], bool], argument: object, where: str) -> Matcher:
    """Compiles `prefix` or `suffix`, with `str.startswith` or `str.endswith`."""
    if isinstance(argument, dict):
        name, affix = _only_operator(argument, ("equals-ignore-case",), where)
        lowered = _string(affix, f"{where}.{name}").lower()
        return lambda value: isinstance(value, str) and test(value.lower(), lowered)
    text = _string(argument, where)
    return lambda value: isinstance(value, str) and test(value, text)


def _compile_equals_ignore_case(argument: object, where: str) -> Matcher:
    lowered = _string(argument, where).lower()
    return lambda value: isinstance(value, str) and value.lower() == lowered


def _compile_wildcard(argument: object, where: str) -> Matcher:
    first, *others = _split_wildcard(_string(argument, where), where)
    if not others:
        return lambda value: value == first
    *middle, last = others
    # The leftmost occurrence of a part leaves the most text for the next parts, so no backtracking is needed.
    found = "".join(f"(?>.*?{re.escape(part)})" for part in middle)
    pattern = re.compile(f"{re.escape(first)}{found}.*{re.escape(last)}", re.DOTALL)
    return lambda value: isinstance(value, str) and pattern.fullmatch(value) is not None


def _split_wildcard(text: str, where: str) -> list[str]:
    r"""Returns the literal parts between the asterisks. `\*` and `\\` are an escaped asterisk and backslash."""
    pieces = re.findall(r"\\[*\\]|[*\\]|[^*\\]+", text)
    if "\\" in pieces:
        raise InvalidEventPattern(where, r"a backslash must come before * or \ ")
    if ("*", "*") in itertools.pairwise(pieces):
        raise InvalidEventPattern(where, "consecutive wildcard characters")
    parts = [""]
    for piece in pieces:
        if piece == "*":
            parts.append("")
        else:
            parts[-1] += piece.removeprefix("\\")
    return parts


def _wildcards(matcher: dict[str, Any]) -> list[list[str]]:
    """Returns the literal parts of each wildcard in a valid operator: `wildcard`, or `anything-but` of it."""
    argument = matcher.get("anything-but", matcher)
    texts = argument.get("wildcard", []) if isinstance(argument, dict) else []
    return [_split_wildcard(text, "") for text in (texts if isinstance(texts, list) else [texts])]


def _too_complex(wildcards: list[list[str]]) -> bool:
    """Returns whether a text exists that matches more than MOST_PREFIXES prefixes of the wildcards of one field.

    For example, any text that starts with a and ends with b matches two prefixes of a*bc: a* and a*b. This is the
    measure of MachineComplexityEvaluator in aws/event-ruler, which sees a text with its quotes.
    """
    # One element per letter; "" is a wildcard character, and among the letters any letter that is in no pattern.
    patterns = [['"', *[each for part in parts for each in ("", *part)][1:], '"'] for parts in wildcards]
    letters = {letter for pattern in patterns for letter in pattern}
    waiting: list[frozenset[tuple[int, int]]] = [frozenset((number, 0) for number in range(len(patterns)))]
    known = set(waiting)
    while waiting:
        prefixes = [(number, length, patterns[number]) for number, length in waiting.pop()]
        for letter in letters:
            reached = {(n, length) for n, length, pattern in prefixes if length and pattern[length - 1] == ""}
            reached |= {(n, length + 1) for n, length, pattern in prefixes if pattern[length : length + 1] == [letter]}
            reached |= {(n, length + 1) for n, length in reached if patterns[n][length : length + 1] == [""]}
            if len(reached) > MOST_PREFIXES:
                return True
            if (found := frozenset(reached)) not in known:
                known.add(found)
                waiting.append(found)
    return False


def _compile_numeric(argument: object, where: str) -> Matcher:
    match argument:
        case [("=" | ">" | ">=" | "<" | "<=") as sign, number]:
            return _comparison(sign, _number(number, where))
        case [(">" | ">=") as above, bottom, ("<" | "<=") as below, top]:
            low, high = _number(bottom, where), _number(top, where)
            if low >= high:
                raise InvalidEventPattern(where, "the bottom of the range must be less than its top")
            over, under = _comparison(above, low), _comparison(below, high)
            return lambda value: over(value) and under(value)
    raise InvalidEventPattern(where, "must be [operator, number], or a range from > or >= to < or <=")


_SIGNS = ("=", ">", ">=", "<", "<=")
_COMPARE = dict(zip(_SIGNS, (operator.eq, operator.gt, operator.ge, operator.lt, operator.le), strict=True))


def _comparison(sign: str, limit: float) -> Matcher:
    compare = _COMPARE[sign]
    return lambda value: (number := _comparable(value)) is not None and bool(compare(number, limit))


def _compile_cidr(argument: object, where: str) -> Matcher:
    text = _string(argument, where)
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError as error:
        raise InvalidEventPattern(where, str(error)) from error
    # Ruler accepts the prefix length as a number only, and not /32 or /128: an exact value matches a single address.
    if not text.partition("/")[2].isdecimal() or network.prefixlen == network.max_prefixlen:
        raise InvalidEventPattern(where, "must end with / and a prefix length less than the address length")

    def match(value: object) -> bool:
        if not isinstance(value, str):
            return False
        try:
            return ipaddress.ip_address(value) in network
        except ValueError:  # not an address, so not in the network
            return False

    return match


def _compile_exists(argument: object, where: str) -> Matcher:
    if not isinstance(argument, bool):
        raise InvalidEventPattern(where, "must be true or false")
    return _present if argument else _absent


def _present(_value: object) -> bool:
    return True


def _absent(_value: object) -> bool:
    # A value is never absent. `Condition.accepts_absence` looks for this function.
    return False


def _compile_anything_but(argument: object, where: str) -> Matcher:
    if isinstance(argument, dict):
        return _compile_anything_but_operator(argument, where)
    values = argument if isinstance(argument, list) else [argument]
    if values and all(isinstance(value, str) for value in values):
        excluded = frozenset(_identity(value) for value in values)
    elif values and all(isinstance(value, int | float) for value in values):
        excluded = frozenset(("number", _number(value, where)) for value in values)
    else:
        raise InvalidEventPattern(where, "must be a string, a number, or a list of only strings or only numbers")
    return lambda value: _identity(value) not in excluded


def _compile_anything_but_operator(argument: dict[str, Any], where: str) -> Matcher:
    name, excluded = _only_operator(argument, NEGATABLE, where)
    here = f"{where}.{name}"
    texts = [_string(text, here) for text in (excluded if isinstance(excluded, list) else [excluded])]
    if not texts or ("" in texts and name in ("prefix", "suffix")):
        raise InvalidEventPattern(here, "must not be empty: it would exclude nothing or everything")
    matchers = [OPERATORS[name](text, here) for text in texts]
    return lambda value: not any(match(value) for match in matchers)


OPERATORS: dict[str, Callable[[object, str], Matcher]] = {
    "prefix": partial(_compile_affix, str.startswith),
    "suffix": partial(_compile_affix, str.endswith),
    "equals-ignore-case": _compile_equals_ignore_case,
    "wildcard": _compile_wildcard,
    "numeric": _compile_numeric,
    "cidr": _compile_cidr,
    "exists": _compile_exists,
    "anything-but": _compile_anything_but,
}
NEGATABLE = ("prefix", "suffix", "equals-ignore-case", "wildcard")


def _only_operator(matcher: dict[str, Any], known: Iterable[str], where: str) -> tuple[str, Any]:
    if len(matcher) != 1:
        raise InvalidEventPattern(where, "must have exactly one operator")
    name, argument = next(iter(matcher.items()))
    if name not in known:
        raise InvalidEventPattern(where, f"unknown operator {name!r}, not one of {', '.join(known)}")
    return name, argument


def _string(argument: object, where: str) -> str:
    if not isinstance(argument, str):
        raise InvalidEventPattern(where, "must be a string")
    return argument


def _number(argument: object, where: str) -> float:
    number = _comparable(argument)
    if number is None:
        raise InvalidEventPattern(where, "must be a number that a double holds without loss")
    return number
