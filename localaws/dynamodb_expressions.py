"""DynamoDB's expressions: parses them, checks the names and values of a request, and evaluates them on items.

A parsed expression is a tree of tuples: ("AND", left, right), ("=", ("path", ("address", "city")), ("value", ":city")).
Grammar: https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Expressions.html
"""

import functools
import itertools
import operator
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from moto.dynamodb.parsing.reserved_keywords import ReservedKeywords

from localaws.aws import ServiceError
from localaws.dynamodb_values import TYPES, Item, Value, add, checked, comparable, invalid, set_of

Node = tuple[Any, ...]
Path = tuple[str | int, ...]
_TOKEN = re.compile(r"\s*([#:]?\w+|<>|<=|>=|\S)", re.ASCII)
_RESERVED = frozenset(ReservedKeywords.get_reserved_keywords())
_ORDER = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
# Number of operands by function. The functions of a test return a truth value.
_TEST_FUNCTIONS = {**dict.fromkeys(["attribute_exists", "attribute_not_exists"], 1), "attribute_type": 2}
_TEST_FUNCTIONS |= dict.fromkeys(["begins_with", "contains"], 2)
_UPDATE_FUNCTIONS = {"if_not_exists": 2, "list_append": 2}
# The types that a value of the request may have as an operand; other operators and functions take all types.
_OPERAND_TYPES = {
    **dict.fromkeys([*_ORDER, "BETWEEN"], ("S", "N", "B")),
    **dict.fromkeys("+-", ("N",)),
    "begins_with": ("S", "B"),
    "list_append": ("L",),
    "ADD": ("N", "SS", "NS", "BS"),
    "DELETE": ("SS", "NS", "BS"),
}
_WRONG_TYPE = "An operand in the update expression has an incorrect data type"
_NO_ATTRIBUTE = "The provided expression refers to an attribute that does not exist in the item"
_INVALID_PATH = "The document path provided in the update expression is invalid for update"
_NOT_DEFINED = "An expression attribute {} is not defined; attribute {}: {}"


class Parsed(NamedTuple):
    """An expression without its values."""

    tree: Any  # a condition; the changes of an update; the paths of a projection as nested dicts
    nodes: list[Node]  # all operators and functions of the tree
    paths: list[Path]  # the attributes that the expression reads or, in an update, writes
    used: set[str]  # the placeholders of names and values


@functools.lru_cache(4096)
def _parse(parameter: str, text: str, names: tuple[tuple[str, str], ...]) -> Parsed:
    return _Parser(parameter, text, dict(names)).parse()


class _Parser:
    """Parses one expression. `parameter` is the request's parameter: ConditionExpression, UpdateExpression."""

    def __init__(self, parameter: str, text: str, names: Mapping[str, str]) -> None:
        self._parameter, self._names = parameter, names
        self._is_update = parameter == "UpdateExpression"
        self._tokens: list[str] = [*_TOKEN.findall(text), "", ""]
        self._at = 0
        self._nodes: list[Node] = []
        self._paths: list[Path] = []
        self._used: set[str] = set()

    def parse(self) -> Parsed:
        if not self._token:
            raise self._error("The expression can not be empty;")
        if self._parameter == "ProjectionExpression":
            self._paths = self._list(self._path)
            self._check_overlaps()
            tree: Any = tree_of(self._paths)
        else:
            tree = self._update() if self._is_update else self._condition()
        if self._token:
            raise self._syntax_error()
        return Parsed(tree, self._nodes, self._paths, self._used)

    @property
    def _token(self) -> str:
        return self._tokens[self._at]

    def _error(self, message: str) -> ServiceError:
        return invalid(f"Invalid {self._parameter}: {message}")

    def _syntax_error(self) -> ServiceError:
        near = " ".join(self._tokens[max(self._at - 1, 0) : self._at + 2]).strip()
        return self._error(f'Syntax error; token: "{self._token or "<EOF>"}", near: "{near}"')

    def _take(self, *wanted: str) -> str:
        """Takes the next token if it is one of these keywords or signs, and returns it in upper case, otherwise ''."""
        token = self._token.upper()
        self._at += token in wanted
        return token if token in wanted else ""

    def _expect(self, *wanted: str) -> str:
        token = self._take(*wanted)
        if not token:
            raise self._syntax_error()
        return token

    def _list(self, member: Callable[[], Any]) -> list[Any]:
        members = [member()]
        while self._take(","):
            members.append(member())
        return members

    def _operands(self) -> list[Node]:
        self._expect("(")
        operands = self._list(self._operand)
        self._expect(")")
        return operands

    def _node(self, *node: Any) -> Node:
        self._nodes.append(node)
        return node

    def _condition(self, level: int = 0) -> Node:
        if level == 2:
            return self._node("NOT", self._condition(2)) if self._take("NOT") else self._comparison()
        keyword = ("OR", "AND")[level]
        left = self._condition(level + 1)
        while self._take(keyword):
            left = self._node(keyword, left, self._condition(level + 1))
        return left

    def _comparison(self) -> Node:
        if self._take("("):
            inner = self._condition()
            self._expect(")")
            return inner
        if self._tokens[self._at + 1] == "(" and self._token in _TEST_FUNCTIONS:
            return self._function(_TEST_FUNCTIONS)
        left = self._operand()
        sign = self._expect("=", "<>", *_ORDER, "BETWEEN", "IN")
        operands = self._operands() if sign == "IN" else [self._operand()]
        if sign == "BETWEEN":
            self._expect("AND")
            operands.append(self._operand())
        return self._node(sign, left, *operands)

    def _function(self, known: Mapping[str, int]) -> Node:
        name = self._token
        if name in _TEST_FUNCTIONS and name not in known:
            raise self._error(f"The function is not allowed to be used this way in an expression; function: {name}")
        if name not in known:
            raise self._error(f"Invalid function name; function: {name}")
        self._at += 1
        operands = self._operands()
        problem = f"operator or function: {name}"
        if len(operands) != known[name]:
            problem += f", number of operands: {len(operands)}"
            raise self._error(f"Incorrect number of operands for operator or function; {problem}")
        if name.endswith("_exists") and operands[0][0] != "path":
            raise self._error(f"Operator or function requires a document path; {problem}")
        return self._node(name, *operands)

    def _operand(self) -> Node:
        token = self._token
        if token.startswith(":") and len(token) > 1:
            self._at += 1
            self._used.add(token)
            return ("value", token)
        if self._tokens[self._at + 1] == "(":
            return self._function(_UPDATE_FUNCTIONS if self._is_update else {"size": 1})
        path = self._path()
        if not self._is_update:
            self._paths.append(path)
        return ("path", path)

    def _path(self) -> Path:
        path: list[str | int] = [self._name()]
        while sign := self._take(".", "["):
            if sign == ".":
                path.append(self._name())
                continue
            if not self._token.isdigit():
                raise self._syntax_error()
            path.append(int(self._token))
            self._at += 1
            self._expect("]")
        return tuple(path)

    def _name(self) -> str:
        token = self._token
        if token.startswith("#") and len(token) > 1:
            self._used.add(token)
            if token not in self._names:
                raise self._error(_NOT_DEFINED.format("name used in the document path", "name", token))
        elif not re.match("[A-Za-z_]", token):
            raise self._syntax_error()
        elif token.upper() in _RESERVED:
            raise self._error(f"Attribute name is a reserved keyword; reserved keyword: {token}")
        self._at += 1
        return self._names.get(token, token)

    def _update(self) -> list[Node]:
        """Returns the changes: ("SET", path, operand), ("REMOVE", path, None), ("ADD", path, value)."""
        changes: dict[str, list[Node]] = {}
        while section := self._take("SET", "ADD", "DELETE", "REMOVE"):
            if section in changes:
                raise self._error(f'The "{section}" section can only be used once in an update expression;')
            changes[section] = self._list(functools.partial(self._change, section))
        self._paths = [path for nodes in changes.values() for _, (_, path), _ in nodes]
        self._check_overlaps()
        for section, nodes in changes.items():
            # New list elements are appended in the order of their indexes; a removal must not move another element.
            nodes.sort(key=lambda node: [(isinstance(part, int), part) for part in node[1][1]])
            if section == "REMOVE":
                nodes.reverse()
        return [node for section in ("SET", "ADD", "DELETE", "REMOVE") for node in changes.get(section, [])]

    def _change(self, section: str) -> Node:
        path, operand = ("path", self._path()), None
        if section == "SET":
            self._expect("=")
        if section != "REMOVE":
            operand = self._operand()
        if section == "SET" and (sign := self._take("+", "-")):
            operand = self._node(sign, operand, self._operand())
        if section in ("ADD", "DELETE") and operand and operand[0] != "value":
            raise self._syntax_error()
        return self._node(section, path, operand)

    def _check_overlaps(self) -> None:
        for paths in itertools.combinations(self._paths, 2):
            if all(part == other for part, other in zip(*paths, strict=False)):
                one, two = (", ".join(map(str, path)) for path in paths)
                rule = "Two document paths overlap with each other; must remove or rewrite one of these paths"
                raise self._error(f"{rule}; path one: [{one}], path two: [{two}]")


class Expressions:
    """The expressions of one request.

    Args:
        request: the request, or the part of it that has the expressions.
        parameters: the request's parameters that are expressions: ConditionExpression.

    Raises:
        ServiceError: an expression is not valid, or a name or value is not defined, not used or not valid.
    """

    def __init__(self, request: Mapping[str, Any], *parameters: str) -> None:
        names, values = request.get("ExpressionAttributeNames"), request.get("ExpressionAttributeValues")
        given = [parameter for parameter in parameters if request.get(parameter) is not None]
        for kind, sign, defined in (("Names", "#", names), ("Values", ":", values)):
            if defined is not None and not given:
                without = " and ".join(parameters) + (" is null" if len(parameters) == 1 else " are null")
                raise invalid(f"ExpressionAttribute{kind} can only be specified when using expressions: {without}")
            if defined is not None and not defined:
                raise invalid(f"ExpressionAttribute{kind} must not be empty")
            for name in defined or ():
                if not name.startswith(sign):
                    raise invalid(f'ExpressionAttribute{kind} contains invalid key: Syntax error; key: "{name}"')
        self._values = {name: checked(value) for name, value in (values or {}).items()}
        named = tuple((names or {}).items())
        self._parsed = {parameter: _parse(parameter, request[parameter], named) for parameter in given}
        used = set[str]().union(*(parsed.used for parsed in self._parsed.values()))
        for parameter, parsed in self._parsed.items():
            for name in sorted(parsed.used - self._values.keys() - (names or {}).keys()):
                raise invalid(f"Invalid {parameter}: " + _NOT_DEFINED.format("value used in expression", "value", name))
            for node in parsed.nodes:
                if mistake := self._mistake(node):
                    raise invalid(f"Invalid {parameter}: {mistake}")
        for kind, defined in (("Names", names), ("Values", values)):
            if unused := ", ".join(sorted((defined or {}).keys() - used)):
                raise invalid(f"Value provided in ExpressionAttribute{kind} unused in expressions: keys: {{{unused}}}")

    def _mistake(self, node: Node) -> str:
        """Returns what is wrong with the values of an operator or function whatever the item is, or ''."""
        kind = node[0]
        constants = [self._values[operand[1]] for operand in node[1:] if operand and operand[0] == "value"]
        for type_ in itertools.chain(*constants):
            if type_ not in _OPERAND_TYPES.get(kind, TYPES):
                name = "operator" if kind in ("ADD", "DELETE") else "operator or function"
                return f"Incorrect operand type for operator or function; {name}: {kind}, operand type: {type_}"
        if kind == "BETWEEN" and len(constants) > 1 and not _ordered(operator.le, *constants[-2:]):
            rule = "The BETWEEN operator requires upper bound to be greater than or equal to lower bound"
            return f"{rule}; lower bound operand: {constants[-2]}, upper bound operand: {constants[-1]}"
        if kind == "attribute_type" and constants and constants[0].get("S") not in TYPES:
            return f"Invalid attribute type name found; type: {constants[0]}, valid types: {', '.join(sorted(TYPES))}"
        return ""

    def tree(self, parameter: str) -> Any:
        """Returns the parsed expression, or None if the request does not have it."""
        return self._parsed[parameter].tree if parameter in self._parsed else None

    def attributes(self, parameter: str) -> set[str | int]:
        """Returns the names of the top-level attributes that the expression reads or, in an update, writes."""
        return {path[0] for path in self._parsed[parameter].paths} if parameter in self._parsed else set()

    def holds(self, parameter: str, item: Item) -> bool:
        """Evaluates a condition or a filter. It is true if the request does not have it."""
        return parameter not in self._parsed or self._is_true(self._parsed[parameter].tree, item)

    def projected(self, item: Item) -> Item:
        """Returns the attributes that ProjectionExpression selects, or the item without a ProjectionExpression."""
        tree = self.tree("ProjectionExpression")
        return select(item, tree) if tree else item

    def updated_attributes(self, item: Item) -> Item:
        """Returns the parts of an item that UpdateExpression writes, for ReturnValues."""
        paths = self._parsed["UpdateExpression"].paths if "UpdateExpression" in self._parsed else ()
        return select(item, tree_of(paths)) if paths else {}

    def changed(self, item: Item) -> Item:
        """Returns a changed copy of the item.

        Raises:
            ServiceError: UpdateExpression does not fit the item.
        """
        changed, changes = dict(item), self.tree("UpdateExpression") or []
        operands = [self.value(operand, item) if operand else None for _, _, operand in changes]
        for (section, (_, path), node), operand in zip(changes, operands, strict=True):
            if node and operand is None:
                raise invalid(_NO_ATTRIBUTE)
            holder, last = _copied_parent(changed, path), path[-1]
            exists = last in holder if isinstance(holder, dict) else last < len(holder)
            if operand and section in ("ADD", "DELETE"):
                operand = _combined(section, holder[last] if exists else None, operand)
            if operand and (exists or isinstance(holder, dict)):
                holder[last] = operand
            elif operand:
                holder.append(operand)
            elif exists:
                del holder[last]
        return changed

    def value(self, node: Node, item: Item) -> Value | None:
        """Returns the value of an operand, or None if it is an attribute that does not exist.

        Raises:
            ServiceError: the operands of an arithmetic operator or of list_append do not exist or have a wrong type.
        """
        kind, *operands = node
        if kind == "value":
            return self._values[operands[0]]
        if kind == "path":
            return _value_at(item, operands[0])
        left = self.value(operands[0], item)
        if kind == "size":
            return _length(left)
        if kind == "if_not_exists" and left:
            return left
        right = self.value(operands[1], item)
        if kind == "if_not_exists":
            return right
        if left is None or right is None:
            raise invalid(_NO_ATTRIBUTE)
        wanted = _OPERAND_TYPES[kind][0]
        if wanted not in left or wanted not in right:
            raise invalid(_WRONG_TYPE)
        return {"L": left["L"] + right["L"]} if wanted == "L" else add(left, right, -1 if kind == "-" else 1)

    def _is_true(self, node: Node, item: Item) -> bool:
        kind, *operands = node
        if kind == "AND":
            return self._is_true(operands[0], item) and self._is_true(operands[1], item)
        if kind == "OR":
            return self._is_true(operands[0], item) or self._is_true(operands[1], item)
        if kind == "NOT":
            return not self._is_true(operands[0], item)
        return _TESTS[kind](*[self.value(operand, item) for operand in operands])


def _ordered(order: Callable[[Any, Any], bool], left: Value | None, right: Value | None) -> bool:
    """Compares two values. The result is false if their types differ or have no order."""
    if not left or not right or left.keys() != right.keys() or not left.keys() & {"S", "N", "B"}:
        return False
    return order(comparable(left), comparable(right))


def _begins_with(left: Value | None, right: Value | None) -> bool:
    return (
        _ordered(lambda whole, part: bool(whole.startswith(part)), left, right) if left and "N" not in left else False
    )


def _contains(left: Value | None, right: Value | None) -> bool:
    if not left or not right:
        return False
    [(kind, content)], [(other_kind, other)] = left.items(), right.items()
    if kind == other_kind and kind in ("S", "B"):
        return comparable(right) in comparable(left)
    return right in content if kind == "L" else kind == f"{other_kind}S" and other in content


def _length(value: Value | None) -> Value | None:
    if not value or value.keys() & {"N", "BOOL", "NULL"}:
        return None
    return {"N": str(len(comparable(value)))}


_TESTS: dict[str, Callable[..., bool]] = {
    "attribute_exists": lambda value: value is not None,
    "attribute_not_exists": lambda value: value is None,
    "attribute_type": lambda value, type_: bool(value and type_) and type_.get("S") in value,
    "begins_with": _begins_with,
    "contains": _contains,
    "=": lambda left, right: left is not None and left == right,
    "<>": lambda left, right: left is None or left != right,
    "IN": lambda value, *members: value is not None and value in members,
    "BETWEEN": lambda value, low, high: _ordered(operator.ge, value, low) and _ordered(operator.le, value, high),
    **{sign: functools.partial(_ordered, order) for sign, order in _ORDER.items()},
}


def _value_at(item: Item, path: Path) -> Value | None:
    value: Any = {"M": item}
    for part in path:
        holder = value.get("M" if isinstance(part, str) else "L", ())
        if part not in holder if isinstance(part, str) else part >= len(holder):
            return None
        value = holder[part]
    return value  # type: ignore[no-any-return]


def _copied_parent(item: Item, path: Path) -> Any:
    """Copies the maps and lists on a path, and returns the last one, which contains the path's last part.

    Raises:
        ServiceError: one does not exist.
    """
    holder: Any = item
    for part, next_part in itertools.pairwise(path):
        kind = "M" if isinstance(next_part, str) else "L"
        exists = part in holder if isinstance(holder, dict) else isinstance(part, int) and part < len(holder)
        if not exists or kind not in holder[part]:
            raise invalid(_INVALID_PATH)
        holder[part] = {kind: holder[part][kind].copy()}
        holder = holder[part][kind]
    return holder


def _combined(section: str, value: Value | None, operand: Value) -> Value | None:
    """Returns the result of ADD or DELETE, None if no element of the set remains.

    Raises:
        ServiceError: the attribute has another type.
    """
    if value is None:
        return operand if section == "ADD" else None
    if value.keys() != operand.keys():
        raise invalid(_WRONG_TYPE)
    if "N" in operand:
        return add(value, operand)
    [(kind, members)] = value.items()
    combined = {*members, *operand[kind]} if section == "ADD" else {*members} - {*operand[kind]}
    return set_of(kind, combined) if combined else None


def tree_of(paths: Iterable[Path]) -> dict[str | int, Any]:
    """Returns paths as nested dicts, for `select`."""
    tree: dict[str | int, Any] = {}
    for path in paths:
        functools.reduce(lambda branch, part: branch.setdefault(part, {}), path, tree)
    return tree


def select(item: Item, tree: Mapping[str | int, Any]) -> Item:
    """Returns the parts of an item on some paths. The elements of a list keep their order, but not their index."""
    return (_selected({"M": item}, tree) or {"M": {}})["M"]  # type: ignore[no-any-return]


def _selected(value: Value, tree: Mapping[Any, Any]) -> Value | None:
    if not tree:
        return value
    if "M" in value:
        held = value["M"]
        found: Any = {name: _selected(held[name], branch) for name, branch in tree.items() if name in held}
        found = {name: part for name, part in found.items() if part is not None}
        return {"M": found} if found else None
    held = value.get("L", [])
    indexes = sorted(index for index in tree if isinstance(index, int) and index < len(held))
    found = [part for index in indexes if (part := _selected(held[index], tree[index])) is not None]
    return {"L": found} if found else None
