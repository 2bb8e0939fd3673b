"""Event patterns: the language in which rules, event source mappings and pipes say which events they want.

The meaning is EventBridge's. Sources:
- AWS, "Comparison operators for use in event patterns" and "Event pattern syntax" (EventBridge user guide);
- the README and rule compiler of aws/event-ruler, the engine inside EventBridge, where the guide is silent.

A pattern is compiled once, into the alternatives its `$or`s allow. An alternative is a list of conditions, all of
which must hold, each on one path of the event. An event is flattened to its leaves, and only along those paths.
"""

import ipaddress
import itertools
import operator
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from typing import Any

Matcher = Callable[[object], bool]
# The elements of arrays a leaf lies in, from the outermost: (number of the array in the event, index of the element).
Membership = tuple[tuple[int, int], ...]
# What must hold together, by path; a path's names are joined by dots, as EventBridge does.
Alternative = dict[str, "Condition"]

# Numbers are compared from -5e9 to 5e9, at six digits after the point (README of aws/event-ruler, "Numeric matching").
NUMBER_LIMIT = 5 * 10**9
NUMBER_SCALE = 10**6
# The most combinations the `$or`s of a pattern may multiply to (user guide, on `$or`: past it LimitExceededException).
MOST_ALTERNATIVES = 1000


class InvalidEventPattern(ValueError):
    """A pattern that EventBridge refuses; the message says where in the pattern (`$` is its root), and why."""

    def __init__(self, where: str, reason: str) -> None:
        super().__init__(f"{where}: {reason}")


class EventPattern:
    """A compiled event pattern, safe to share between threads."""

    def __init__(self, pattern: dict[str, Any]) -> None:
        """Compile a pattern.

        Args:
            pattern: the pattern, parsed from JSON.

        Raises:
            InvalidEventPattern: EventBridge would refuse it.

        Not refused, unlike EventBridge: a wildcard "too complex" for it, for the measure is not published.
        """
        alternatives = _compile_object(pattern, prefix="", where="$", inside_or=False)
        self._alternatives = [_in_order(alternative) for alternative in alternatives]
        self._wanted = frozenset(step for alternative in alternatives for path in alternative for step in _steps(path))

    def matches(self, event: dict[str, Any]) -> bool:
        """Tell whether an event, or the record of an event source mapping, parsed from JSON, is wanted."""
        leaves = _Leaves(event, self._wanted)
        return any(_hold(conditions, leaves, {}) for conditions in self._alternatives)


# Matching: the leaves of an event against the conditions of an alternative.


@dataclass(frozen=True)
class Condition:
    """What a pattern asks of one path: any of some exact values, or of some operators."""

    path: str
    exact: frozenset[object]
    matchers: tuple[Matcher, ...]

    def accepts(self, value: object) -> bool:
        return _identity(value) in self.exact or any(match(value) for match in self.matchers)

    def accepts_absence(self) -> bool:
        return _absent in self.matchers


class _Leaves:
    """The values of an event that are neither objects nor arrays, by path.

    Arrays leave no trace in a path: what they hold counts as the value of the field that holds them.
    """

    def __init__(self, event: dict[str, Any], wanted: frozenset[str]) -> None:
        self._wanted = wanted
        self._arrays = itertools.count()
        self._by_path: dict[str, list[tuple[object, Membership]]] = {}
        self._add_fields(event, "", ())

    def consistent(self, path: str, entered: dict[int, int]) -> list[tuple[object, Membership]]:
        """Return the values at a path, but for those in another element of an array already entered.

        Args:
            path: where the values are.
            entered: by array, the index of the element where the fields tried before were found.
        """
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
            self._add_elements(value, path, membership)
        else:
            self._by_path.setdefault(path, []).append((value, membership))

    def _add_elements(self, elements: list[Any], path: str, membership: Membership) -> None:
        array = next(self._arrays)
        for index, element in enumerate(elements):
            # A plain value stands alone: only within an object or an array can two values belong together.
            nested = isinstance(element, dict | list)
            self._add(element, path, (*membership, (array, index)) if nested else membership)


def _hold(conditions: tuple[Condition, ...], leaves: _Leaves, entered: dict[int, int]) -> bool:
    """Tell whether all conditions hold, and hold in the same element of every array ("array consistency")."""
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


def _in_order(alternative: Alternative) -> tuple[Condition, ...]:
    # Ruler takes the fields by name. It shows in arrays of objects: an `exists: false` before any other field of the
    # objects is about all of them, and after one about the object that field was found in.
    return tuple(alternative[path] for path in sorted(alternative))


def _steps(path: str) -> list[str]:
    """Return every path on the way to a path: a, a.b and a.b.c for a.b.c."""
    return [path[:end] for end, character in enumerate(path) if character == "."] + [path]


def _identity(value: object) -> object:
    """Return a key that is the same for equal JSON values only: 1 and 1.0 are, 1 and true are not.

    The user guide says that 300 and 300.0 differ; EventBridge takes them for equal, as its engine's compiler does.
    """
    number = _comparable(value)
    return value if number is None else ("number", number)


def _comparable(value: object) -> int | None:
    """Return a number in millionths, as EventBridge compares it; None for anything it doesn't compare as a number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not -NUMBER_LIMIT <= value <= NUMBER_LIMIT:
        return None
    return value * NUMBER_SCALE if isinstance(value, int) else int(Decimal(repr(value)) * NUMBER_SCALE)


# Compiling: from the pattern to alternatives of conditions.


def _compile_object(pattern: object, prefix: str, where: str, inside_or: bool) -> list[Alternative]:
    """Compile an object of the pattern, whose fields' paths start with `prefix`, into its alternatives."""
    if not isinstance(pattern, dict) or not pattern:
        raise InvalidEventPattern(where, "must be a non-empty object")
    alternatives: list[Alternative] = [{}]
    for name, value in pattern.items():
        here = f"{where}.{name}"
        branches = _compile_field(name, value, prefix, here, inside_or)
        if len(alternatives) * len(branches) > MOST_ALTERNATIVES:
            raise InvalidEventPattern(here, f"more than {MOST_ALTERNATIVES} combinations of $or")
        # The same field named again replaces what was asked of it, as in EventBridge: hence the merge.
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
    exact, matchers = set(), []
    for index, value in enumerate(values):
        here = f"{where}[{index}]"
        if isinstance(value, dict):
            name, argument = _only_operator(value, OPERATORS, here)
            matchers.append(OPERATORS[name](argument, f"{here}.{name}"))
        elif value is None or isinstance(value, str | bool | int | float):
            exact.add(_identity(value))
        else:
            raise InvalidEventPattern(here, "must be a string, a number, true, false, null or an operator")
    return Condition(path, frozenset(exact), tuple(matchers))


# The operators: each turns its argument into a function that tells whether a leaf's value is wanted.


def _compile_affix(test: Callable[[str, str], bool], argument: object, where: str) -> Matcher:
    """Compile `prefix` or `suffix`, by `str.startswith` or `str.endswith`."""
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

    def match(value: object) -> bool:
        if not isinstance(value, str) or not value.startswith(first) or not value.endswith(last):
            return False
        start, end = len(first), len(value) - len(last)
        for part in middle:
            # The leftmost occurrence leaves the most for the parts to come, so there is nothing to try again.
            found = value.find(part, start)
            if found < 0:
                return False
            start = found + len(part)
        return start <= end

    return match


def _split_wildcard(text: str, where: str) -> list[str]:
    r"""Return the literal parts between the stars; `\*` and `\\` stand for a star and a backslash."""
    parts = [""]
    characters = iter(text)
    for character in characters:
        if character == "\\":
            escaped = next(characters, None)
            if escaped not in ("*", "\\"):
                raise InvalidEventPattern(where, r"a backslash must come before * or \ ")
            parts[-1] += escaped
        elif character != "*":
            parts[-1] += character
        elif len(parts) > 1 and not parts[-1]:
            raise InvalidEventPattern(where, "consecutive wildcard characters")
        else:
            parts.append("")
    return parts


def _compile_numeric(argument: object, where: str) -> Matcher:
    match argument:
        case ["=", number]:
            wanted = _number(number, where)
            return lambda value: _comparable(value) == wanted
        case [(">" | ">=") as above, bottom]:
            return _range(above, bottom, "<=", NUMBER_LIMIT, where)
        case [("<" | "<=") as below, top]:
            return _range(">=", -NUMBER_LIMIT, below, top, where)
        case [(">" | ">=") as above, bottom, ("<" | "<=") as below, top]:
            return _range(above, bottom, below, top, where)
    raise InvalidEventPattern(where, "must be [operator, number], or a range from > or >= to < or <=")


def _range(above: str, bottom: object, below: str, top: object, where: str) -> Matcher:
    low, high = _number(bottom, where), _number(top, where)
    if low >= high:
        raise InvalidEventPattern(where, "the bottom of the range must be less than its top")
    over = operator.gt if above == ">" else operator.ge
    under = operator.lt if below == "<" else operator.le

    def match(value: object) -> bool:
        number = _comparable(value)
        return number is not None and over(number, low) and under(number, high)

    return match


def _compile_cidr(argument: object, where: str) -> Matcher:
    text = _string(argument, where)
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError as error:
        raise InvalidEventPattern(where, str(error)) from error
    # Ruler takes the bits as a number only, and neither /32 nor /128: for one address there is the exact value.
    if not text.partition("/")[2].isdecimal() or network.prefixlen == network.max_prefixlen:
        raise InvalidEventPattern(where, "must end in / and fewer bits than the address has")

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
    # No value is absent. `Condition.accepts_absence` knows this function by name.
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
        raise InvalidEventPattern(here, "must not be empty, for it would exclude nothing or everything")
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


def _number(argument: object, where: str) -> int:
    number = _comparable(argument)
    if number is None:
        raise InvalidEventPattern(where, f"must be a number from -{NUMBER_LIMIT} to {NUMBER_LIMIT}")
    return number
