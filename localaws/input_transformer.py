"""Input of a rule's target: the whole event, a constant, a part of the event, or a filled input template.

Sources: "Amazon EventBridge input transformation" (user guide), Target and InputTransformer (API reference).
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from localaws.delivery import Undelivered

MAX_PATHS = 100
MAX_NAME = 256
MAX_PATH = 256
MAX_TEMPLATE = 8192
"""Limits in characters; MAX_PATHS is the limit of entries in InputPathsMap (API reference)."""

_NAME = re.compile(r"[A-Za-z0-9_-]+")
_STEP = re.compile(r"\.([A-Za-z0-9_/-]+)|\[(\d+)\]|\.\*|\[\*\]")
_PATH = re.compile(rf"\$(?:{_STEP.pattern})*")
# A variable, or a character that decides whether a variable is inside quotes.
_TOKEN = re.compile(r'<([A-Za-z0-9_.-]+)>|\\.|"')
_EVENT_VARIABLES = {"aws.events.event", "aws.events.event.json"}
_RESERVED = _EVENT_VARIABLES | {"aws.events.rule-arn", "aws.events.rule-name", "aws.events.event.ingestion-time"}


class InvalidInput(ValueError):
    """EventBridge would reject the input of a target."""


@dataclass(frozen=True)
class Match:
    """An event, the rule that it matched, and the ingestion time (ISO 8601)."""

    event: dict[str, Any]
    rule_name: str
    rule_arn: str
    ingestion_time: str


Input = Callable[[Match], str]


def whole_event(match: Match) -> str:
    """Returns the whole event as JSON, the default input."""
    return _dump(match.event)


def read_input(target: Mapping[str, Any]) -> Input:
    """Returns a function that makes a target's input from an event.

    The function raises Undelivered if a filled template is not valid JSON.

    Raises:
        InvalidInput: EventBridge would reject the target.
    """
    given = [name for name in ("Input", "InputPath", "InputTransformer") if name in target]
    match given:
        case []:
            return whole_event
        case ["Input"]:
            return _read_constant(target["Input"])
        case ["InputPath"]:
            path = JsonPath(target["InputPath"])
            return lambda match: _dump(
                path.find(match.event, None)
            )  # the guide does not document a path without a match
        case ["InputTransformer"]:
            transformer = target["InputTransformer"]
            return _Template(transformer["InputTemplate"], _read_paths(transformer.get("InputPathsMap", {}))).fill
    raise InvalidInput(f"only one of Input, InputPath and InputTransformer may be given, not {' and '.join(given)}")


def _read_constant(text: str) -> Input:
    try:
        json.loads(text)
    except ValueError as error:
        raise InvalidInput(f"Input is not valid JSON: {error}") from error
    return lambda _match: text


def _read_paths(paths: Mapping[str, str]) -> dict[str, "JsonPath"]:
    if len(paths) > MAX_PATHS:
        raise InvalidInput(f"InputPathsMap has {len(paths)} entries, the limit is {MAX_PATHS}")
    for name in paths:
        if not _NAME.fullmatch(name) or len(name) > MAX_NAME:
            raise InvalidInput(f"InputPathsMap: {name} is not a valid variable name")
    return {name: JsonPath(path) for name, path in paths.items()}


def _dump(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


class JsonPath:
    """A JSON path as EventBridge accepts it: names after dots, indices and wildcards, no quotes."""

    def __init__(self, text: str) -> None:
        if not _PATH.fullmatch(text) or len(text) > MAX_PATH:
            raise InvalidInput(f"{text} is not a path that EventBridge accepts")
        self._steps: list[str | int | None] = [
            step[1] or (int(step[2]) if step[2] else None) for step in _STEP.finditer(text)
        ]

    def find(self, event: dict[str, Any], missing: Any) -> Any:
        """Returns the value at the path, or `missing`. A path with a wildcard returns the list of matching values."""
        values: list[Any] = [event]
        for step in self._steps:
            values = [child for value in values for child in _children(value, step)]
        if not values:
            return missing
        return values if None in self._steps else values[0]


def _children(value: Any, step: str | int | None) -> list[Any]:
    match value, step:
        case dict(), str():
            return [value[step]] if step in value else []
        case list(), int():
            return value[step : step + 1]
        case dict(), None:
            return list(value.values())
        case list(), None:
            return value
    return []


@dataclass(frozen=True)
class _Variable:
    name: str
    quoted: bool


class _Template:
    """An input template: a JSON object, filled to an object in one line, or quoted strings, one per line."""

    def __init__(self, text: str, paths: Mapping[str, JsonPath]) -> None:
        self._paths = paths
        self._is_object = text.lstrip().startswith("{")
        self._parts = _split(text)
        if not 1 <= len(text) <= MAX_TEMPLATE:
            raise InvalidInput(f"InputTemplate has {len(text)} characters, the limit is {MAX_TEMPLATE}")
        for variable in self._parts:
            if isinstance(variable, _Variable):
                self._check(variable)
        try:
            self._check_json(self._join(lambda variable: "" if variable.quoted else "0"))
        except ValueError as error:
            raise InvalidInput(f"InputTemplate is neither an object nor quoted strings: {error}") from error

    def fill(self, match: Match) -> str:
        """Returns the template filled with values of an event.

        A value inside quotes is not escaped ("Common issues with transforming input" in the guide). For an object or an
        array this makes the template invalid JSON, unless the template is a string: there its quotes are removed.

        Raises:
            Undelivered: an unescaped value made the object invalid JSON.
        """
        values = {name: path.find(match.event, "") for name, path in self._paths.items()} | _reserved(match)
        text = self._join(lambda variable: self._place(values[variable.name], variable.quoted))
        if not self._is_object:
            return text
        try:
            return _dump(json.loads(text))
        except ValueError as error:
            reason = f"the filled InputTemplate is not valid JSON ({error}): only a variable without quotes is escaped"
            raise Undelivered("INVALID_JSON", reason, retriable=False) from error

    def _join(self, place: Callable[[_Variable], str]) -> str:
        return "".join(part if isinstance(part, str) else place(part) for part in self._parts)

    def _place(self, value: Any, quoted: bool) -> str:
        text = _dump(value)
        if not quoted:
            return text
        return value if isinstance(value, str) else text if self._is_object else text.replace('"', "")

    def _check(self, variable: _Variable) -> None:
        if variable.name not in self._paths.keys() | _RESERVED:
            raise InvalidInput(f"InputTemplate contains invalid placeholder {variable.name}")
        if variable.name in _EVENT_VARIABLES and (variable.quoted or not self._is_object):
            raise InvalidInput(f"InputTemplate: {variable.name} can only be the value of an object's field")

    def _check_json(self, text: str) -> None:
        """Raises ValueError if the text is not a JSON object or a sequence of JSON values."""
        if self._is_object:
            json.loads(text)
            return
        rest = text.strip()
        while rest:
            _, end = json.JSONDecoder().raw_decode(rest)
            rest = rest[end:].lstrip()


def _split(template: str) -> list[str | _Variable]:
    parts: list[str | _Variable] = []
    quoted, begin = False, 0
    for token in _TOKEN.finditer(template):
        if token[1]:
            parts += [template[begin : token.start()], _Variable(token[1], quoted)]
            begin = token.end()
        elif token[0] == '"':
            quoted = not quoted
    return [*parts, template[begin:]]


def _reserved(match: Match) -> dict[str, Any]:
    # As recorded in AWS: aws.events.event has no detail, and has detailType in place of detail-type.
    envelope = {name: value for name, value in match.event.items() if name not in ("detail", "detail-type")}
    return {
        "aws.events.rule-arn": match.rule_arn,
        "aws.events.rule-name": match.rule_name,
        "aws.events.event": envelope | {"detailType": match.event["detail-type"]},
        "aws.events.event.json": match.event,
        "aws.events.event.ingestion-time": match.ingestion_time,
    }
