"""Writes the API's OpenAPI document, and a page to read, from the code: its routes, models and problems."""

import argparse
import ast
import importlib
import inspect
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from http import HTTPStatus
from pathlib import Path
from textwrap import dedent
from types import FunctionType, ModuleType
from typing import Any, TypeAlias

from pydantic import BaseModel
from pydantic.alias_generators import to_camel
from pydantic.json_schema import models_json_schema
from samtranslator.yaml_helper import yaml_parse

from backoffice import domain
from orderflow import http_api

Json: TypeAlias = dict[str, Any]

DOCUMENT = Path("docs/openapi.json")
PAGE = Path("docs/api.md")
TEMPLATE = Path("template.yaml")
FIXTURES = Path("events")

SERVICES = {"orders": "Orders and products", "backoffice": "Back office"}
"""The services with an API, and what their operations are listed under."""
PROBLEM_TYPE = "application/problem+json"
REF = "#/components/schemas/"

DESCRIPTION = """\
Orders are placed here, and everything that follows from them happens through events.

- Send the ID token of a signed-in user as `Authorization: Bearer …`. Only `GET /products` needs none; `/admin` needs \
one of the group `staff`.
- What cannot be served is answered with a problem (RFC 9457). Its `type` says which, and never changes its meaning.
- Every answer of the application has a header `X-Correlation-Id`, by which its logs, events and traces are found.
- API Gateway's own answers are `{"message": …}`: 401 without a valid token, 404 for a path or method that is not in \
this document, 413 for bodies that are far too large, 429 when too many requests come, and 500 or 503 when the \
application fails.
- Texts in bodies are single lines: control characters, line breaks, and characters that embed, override or isolate \
the direction of text are refused. White space around a text is removed.
- Money is a number with two decimals at most. Times are RFC 3339, in UTC.
- Answers may get further fields in time; bodies with fields that are not in this document are refused."""

MESSAGE: Json = {
    "description": "An answer of API Gateway's own.",
    "type": "object",
    "properties": {"message": {"type": "string"}},
    "required": ["message"],
}
PROBLEM: Json = {
    "description": "Why a request cannot be served (RFC 9457).",
    "type": "object",
    "properties": {
        "type": {"type": "string", "description": "Tells problems apart: `/problems/…`."},
        "title": {"type": "string", "description": "The type in words."},
        "status": {"type": "integer", "description": "The HTTP status."},
        "detail": {"type": "string", "description": "What is wrong with this request."},
        "errors": {
            "description": "What is wrong, field by field.",
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"field": {"type": "string"}, "message": {"type": "string"}},
                "required": ["field", "message"],
            },
        },
    },
    "required": ["type", "title", "status", "detail"],
}
CORRELATION_ID: Json = {
    "description": "Leads to the request's logs, events and traces.",
    "schema": {"type": "string"},
    "required": True,
}
LOCATION: Json = {"description": "The path of what was made.", "schema": {"type": "string"}, "required": True}
GATEWAY_ANSWERS = {
    HTTPStatus.TOO_MANY_REQUESTS: "API Gateway: too many requests at a time.",
    HTTPStatus.INTERNAL_SERVER_ERROR: "API Gateway: the application has failed.",
    HTTPStatus.SERVICE_UNAVAILABLE: "API Gateway: the application is not available, or took too long.",
}


@dataclass(frozen=True)
class Operation:
    """One route, and what its code says.

    Args:
        service: the folder in functions/.
        module: its API.
        method: the HTTP method.
        path: with parameters as `{orderId}`.
        function: answers it.
        around: what is called for every route: middlewares, and the router's own answer if it knows no route.
    """

    service: str
    module: ModuleType
    method: str
    path: str
    function: Callable[..., Any]
    around: tuple[Callable[..., Any], ...]

    @property
    def name(self) -> str:
        return self.function.__name__

    @property
    def path_parameters(self) -> list[str]:
        return [part.strip("{}") for part in self.path.split("/") if part.startswith("{")]

    @cached_property
    def calls(self) -> list[ast.Call]:
        """Every call in the function, and in those of ours that it calls by their names."""
        return [node for tree in reached(self.function, *self.around) for node in _calls(tree)]

    @cached_property
    def problems(self) -> dict[HTTPStatus, list[str]]:
        """The types of problems that the code can raise, by status."""
        found: dict[HTTPStatus, set[str]] = {}
        for call in self.calls:
            if ast.unparse(call.func) == "Problem":
                status, slug = _status(call.args[0]), ast.literal_eval(call.args[1])
                found.setdefault(status, set()).add(f"/problems/{slug}")
        return {status: sorted(found[status]) for status in sorted(found)}

    @cached_property
    def success(self) -> HTTPStatus:
        """The status when all is well."""
        (status,) = {_status(call.args[0]) for call in self.calls if ast.unparse(call.func) == "json_response"}
        return status

    @cached_property
    def needs_token(self) -> bool:
        """Whether the code asks who is calling."""
        return any(ast.unparse(call.func) == "caller_of" for call in self.calls)

    def read(self, *mappings: str) -> list[str]:
        """The names that the code gets out of a mapping, in the order of the alphabet."""
        names = {
            ast.literal_eval(call.args[0])
            for call in self.calls
            if isinstance(call.func, ast.Attribute)
            and call.func.attr == "get"
            and ast.unparse(call.func.value).endswith(mappings)
        }
        return sorted(names)

    @cached_property
    def bodies(self) -> list[type[BaseModel]]:
        """The models that a body is read with; several if that depends on the caller."""
        names = dict.fromkeys(
            node.id
            for call in _calls(_tree(self.function))
            if ast.unparse(call.func) == "read_body"
            for node in ast.walk(call)
            if isinstance(node, ast.Name)
        )
        found = [getattr(self.module, name, None) for name in names]
        return [model for model in found if isinstance(model, type) and issubclass(model, BaseModel)]

    @cached_property
    def fixture(self) -> Json:
        """The request in events/ that is named after the function."""
        (path,) = FIXTURES.glob(f"*_api/{self.name}.json")
        found: Json = json.loads(path.read_text())
        return found

    @property
    def answer(self) -> type[BaseModel]:
        """The model of the answer when all is well."""
        answers = importlib.import_module(f"{self.service}.answers").ANSWERS
        model: type[BaseModel] = answers[self.name]
        return model


def reached(*functions: Callable[..., Any]) -> Iterator[ast.Module]:
    """The source of functions, and of those that they call by their names as far as they are in our code."""
    waiting, seen = list(functions), set(functions)
    while waiting:
        function = waiting.pop()
        tree = _tree(function)
        yield tree
        for node in ast.walk(tree):
            called = function.__globals__.get(node.id) if isinstance(node, ast.Name) else None
            if isinstance(called, FunctionType) and called not in seen and _is_ours(called):
                seen.add(called)
                waiting.append(called)


def _tree(function: Callable[..., Any]) -> ast.Module:
    return ast.parse(dedent(inspect.getsource(function)))


def _calls(tree: ast.AST) -> list[ast.Call]:
    return [node for node in ast.walk(tree) if isinstance(node, ast.Call)]


def _is_ours(function: FunctionType) -> bool:
    return function.__module__.partition(".")[0] in {"orderflow", *SERVICES}


def _status(node: ast.expr) -> HTTPStatus:
    """The status that an expression `HTTPStatus.X` names."""
    return HTTPStatus[ast.unparse(node).removeprefix("HTTPStatus.")]


def load() -> list[Operation]:
    """Every operation of the code, in the order in which a service declares them."""
    _set_environment()
    operations = []
    for service in SERVICES:
        module = importlib.import_module(f"{service}.api")
        # Powertools has no public way to its routes but a document that lacks all that is not in a signature
        routes = [*module.app._static_routes, *module.app._dynamic_routes]
        middlewares = tuple(module.app._router_middlewares)
        for route in sorted(routes, key=lambda route: inspect.getsourcelines(route.func)[1]):
            path = "/".join(
                f"{{{to_camel(part.strip('<>'))}}}" if part.startswith("<") else part for part in route.path.split("/")
            )
            # A parameter may hold characters that Powertools' routes do not match
            around = (*middlewares, http_api.new_app) if "{" in path else middlewares
            operations.append(Operation(service, module, route.method, path, route.func, around))
    return operations


def _set_environment() -> None:
    """What the functions' modules want when they are imported; nothing is called."""
    resources: Json = yaml_parse(TEMPLATE.read_text())["Resources"]  # type: ignore[no-untyped-call]
    for resource in resources.values():
        if resource["Type"] == "AWS::Serverless::Function":
            for name in resource["Properties"]["Environment"]["Variables"]:
                os.environ.setdefault(name, "none")
    os.environ.setdefault("AWS_DEFAULT_REGION", "us-east-1")


def document(operations: Iterable[Operation]) -> Json:
    """The OpenAPI document."""
    operations = list(operations)
    answers = {operation.answer: operation for operation in operations}
    paths: dict[str, Json] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Orderflow", "version": "1.0.0", "description": DESCRIPTION},
        "servers": [
            {"url": "http://127.0.0.1:3000", "description": "`make run`"},
            {"url": "{apiUrl}", "description": "a deployed stack", "variables": {"apiUrl": _api_url()}},
        ],
        "tags": [{"name": name} for name in SERVICES.values()],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "idToken": {
                    "type": "http",
                    "scheme": "bearer",
                    "bearerFormat": "JWT",
                    "description": "An ID token of the stack's Cognito user pool.",
                }
            },
            "schemas": {
                "Problem": PROBLEM,
                "Message": MESSAGE,
                **_schemas(dict.fromkeys(model for operation in operations for model in operation.bodies), _request),
                **_schemas(answers, _answer),
            },
        },
    }


def _api_url() -> Json:
    return {"default": "https://example.execute-api.us-east-1.amazonaws.com", "description": "the output `ApiUrl`"}


def _schemas(models: Iterable[type[BaseModel]], tidy: Callable[[Any], Any]) -> Json:
    _, schema = models_json_schema([(model, "validation") for model in models], ref_template=REF + "{model}")
    return {name: tidy(found) for name, found in sorted(schema["$defs"].items())}


def _request(node: Any) -> Any:
    """A schema without the titles that repeat its fields' names."""
    if isinstance(node, list):
        return [_request(entry) for entry in node]
    if not isinstance(node, dict):
        return node
    return {
        name: {field: _request(schema) for field, schema in value.items()} if name == "properties" else _request(value)
        for name, value in node.items()
        if name != "title"
    }


def _answer(node: Any) -> Any:
    """A schema of what is sent: a value that is not there is left out, never null; further fields may come in time."""
    if isinstance(node, list):
        return [_answer(entry) for entry in node]
    if not isinstance(node, dict):
        return node
    if {"type": "null"} in node.get("anyOf", ()):
        (node,) = [schema for schema in node["anyOf"] if schema != {"type": "null"}]
    return {
        name: {field: _answer(schema) for field, schema in value.items()} if name == "properties" else _answer(value)
        for name, value in node.items()
        if name not in ("title", "additionalProperties", "default")
    }


def _operation(operation: Operation) -> Json:
    described: Json = {
        "tags": [SERVICES[operation.service]],
        "operationId": to_camel(operation.name),
        "summary": inspect.getdoc(operation.function),
        "security": [{"idToken": []}] if operation.needs_token else [],
        "parameters": _parameters(operation),
        "responses": _responses(operation),
    }
    if operation.bodies:
        schemas = [{"$ref": REF + model.__name__} for model in operation.bodies]
        described["requestBody"] = {
            "required": True,
            "content": {
                "application/json": {
                    "schema": schemas[0] if len(schemas) == 1 else {"anyOf": schemas},
                    "examples": {operation.name: {"value": json.loads(operation.fixture["body"])}},
                }
            },
        }
    return described


def _parameters(operation: Operation) -> list[Json]:
    examples = operation.fixture.get("pathParameters", {}).values()
    in_path = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}, "example": example}
        for name, example in zip(operation.path_parameters, examples, strict=True)
    ]
    known = _known_parameters(operation.module)
    in_query = [
        {"name": name, "in": "query", **known[name]} for name in operation.read("query_string_parameters", "query")
    ]
    in_headers = [
        {"name": "Idempotency-Key", "in": "header", **known[name]}
        for name in operation.read("headers")
        if name != "content-type"
    ]
    return [*in_path, *in_query, *in_headers]


def _known_parameters(module: ModuleType) -> dict[str, Json]:
    """By name; one that the code reads and that is not here is an error."""
    day = {"type": "string", "format": "date"}
    key = {"type": "string", "minLength": 1, "maxLength": getattr(module, "MAX_KEY_LENGTH", 0), "pattern": "^[ -~]+$"}
    limit = {"type": "integer", "minimum": 1, "maximum": http_api.MAX_LIMIT, "default": http_api.DEFAULT_LIMIT}
    return {
        "limit": {"description": "The most entries in a page.", "schema": limit},
        "cursor": {
            "description": "`nextCursor` of the page before; good for a day, and for the same caller and filters only.",
            "schema": {"type": "string"},
        },
        "status": {
            "description": "Only those.",
            "schema": {"type": "string", "enum": [*getattr(module, "Status", ())]},
        },
        "consumer": {"description": "Only those that this consumer did not handle.", "schema": {"type": "string"}},
        "from": {
            "description": f"The first of up to {domain.MAX_DAYS} days; without it there are {domain.DEFAULT_DAYS}.",
            "schema": day,
        },
        "to": {"description": "The last day, which is included; without it, today in UTC.", "schema": day},
        "idempotency-key": {
            "description": "Makes a repeated call safe for a day: the same key and body get the same answer and order.",
            "schema": key,
        },
    }


def _responses(operation: Operation) -> Json:
    headers = {"X-Correlation-Id": CORRELATION_ID}
    if operation.success is HTTPStatus.CREATED:
        headers["Location"] = LOCATION
    responses: Json = {
        str(operation.success.value): {
            "description": inspect.getdoc(operation.answer),
            "headers": headers,
            "content": {"application/json": {"schema": {"$ref": REF + operation.answer.__name__}}},
        }
    }
    for status, types in operation.problems.items():
        properties = {"type": {"enum": types}, "status": {"const": status.value}}
        responses[str(status.value)] = {
            "description": ", ".join(f"`{name}`" for name in types),
            "headers": {"X-Correlation-Id": CORRELATION_ID},
            "content": {
                PROBLEM_TYPE: {"schema": {"allOf": [{"$ref": REF + "Problem"}, {"properties": properties}]}},
            },
        }
    message = {"application/json": {"schema": {"$ref": REF + "Message"}}}
    for status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.REQUEST_ENTITY_TOO_LARGE):
        if str(status.value) in responses:  # API Gateway's own comes first, and has no id
            responses[str(status.value)]["content"] |= message
            del responses[str(status.value)]["headers"]
    for status, description in GATEWAY_ANSWERS.items():
        responses[str(status.value)] = {"description": description, "content": message}
    return responses


def page(described: Json) -> str:
    """The document as Markdown."""
    lines = [
        "<!-- Generated by `make openapi` from the code. Do not edit. -->",
        "# API",
        described["info"]["description"],
        "The same as an OpenAPI document: [openapi.json](openapi.json).",
        "The examples go with [events/seed.json](../events/seed.json). `make run` prints the tokens.",
    ]
    for tag in described["tags"]:
        lines.append(f"## {tag['name']}")
        for path, methods in described["paths"].items():
            for method, operation in methods.items():
                if tag["name"] in operation["tags"]:
                    lines += _operation_lines(method.upper(), path, operation)
    lines.append("## Schemas")
    for name, schema in described["components"]["schemas"].items():
        lines += [f"### {name}", str(schema["description"]), _fields(schema) or _type(schema)]
    return "\n\n".join(line for line in lines if line) + "\n"


def _operation_lines(method: str, path: str, operation: Json) -> list[str]:
    rows = [
        f"| `{found['name']}` | {found['in']} | {_type(found['schema'])} | {found.get('description', '')} |"
        for found in operation["parameters"]
    ]
    body = operation.get("requestBody", {}).get("content", {}).get("application/json")
    answers = []
    for status, response in operation["responses"].items():
        schema = response["content"].get("application/json", {}).get("schema", {})
        if "API Gateway" not in response["description"]:
            what = _type(schema) + ": " if status.startswith("2") else ""
            answers.append(f"| {status} | {what}{response['description']} |")
    return [
        f"### {method} {path}",
        operation["summary"] + ("" if operation["security"] else " Public."),
        _table("| parameter | in | type | |", rows),
        f"Body: {_type(body['schema'])}" if body else "",
        "```sh\n" + _curl(method, path, operation) + "\n```",
        _table("| answer | |", answers),
    ]


def _curl(method: str, path: str, operation: Json) -> str:
    for parameter in operation["parameters"]:
        if parameter["in"] == "path":
            path = path.replace(f"{{{parameter['name']}}}", parameter["example"])
    words = ["curl", *(() if method == "GET" else ("-X", method)), f'"$API{path}"']
    if operation["security"]:
        words.append('-H "authorization: Bearer $TOKEN"')
    if "requestBody" in operation:
        (example,) = operation["requestBody"]["content"]["application/json"]["examples"].values()
        words.append(f"-H 'content-type: application/json' \\\n  -d '{json.dumps(example['value'])}'")
    return " ".join(words)


def _fields(schema: Json) -> str:
    required = schema.get("required", ())
    rows = [
        f"| `{name}` | {_type(field)}{'' if name in required else ', optional'} | {field.get('description', '')} |"
        for name, field in schema.get("properties", {}).items()
    ]
    return _table("| field | type | |", rows)


def _table(head: str, rows: list[str]) -> str:
    return "\n".join([head, "|" + "---|" * (head.count("|") - 1), *rows]) if rows else ""


def _type(schema: Json) -> str:
    """A schema in a few words."""
    if "$ref" in schema:
        name = schema["$ref"].removeprefix(REF)
        return f"[{name}](#{name.lower()})"
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(_type(choice) for choice in schema["anyOf"]))
    if "enum" in schema or "const" in schema:
        return ", ".join(f"`{value}`" for value in schema.get("enum") or [schema["const"]])
    if schema.get("type") == "array":
        return f"list of {_type(schema['items'])}"
    limits = [f"{word} {schema[keyword]}" for keyword, word in _LIMITS.items() if keyword in schema]
    return ", ".join([str(schema.get("format", schema["type"])), *limits])


_LIMITS = {"minimum": "from", "maximum": "to", "maxLength": "length to"}


def stale(root: Path) -> dict[Path, str]:
    """The files that are not what the code says, with what they should be."""
    described = document(load())
    wanted = {
        root / DOCUMENT: json.dumps(described, indent=2, ensure_ascii=False) + "\n",
        root / PAGE: page(described),
    }
    return {path: text for path, text in wanted.items() if not path.exists() or path.read_text() != text}


def main(arguments: list[str] | None = None) -> int:
    """`python -m tools.openapi [--check]`."""
    parser = argparse.ArgumentParser(prog="python -m tools.openapi", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if something would be written")
    check = parser.parse_args(arguments).check
    files = stale(Path())
    for path, text in files.items():
        if check:
            print(f"error: {path} is not what the code says: make openapi", file=sys.stderr)
        else:
            path.write_text(text)
            print(f"written: {path}")
    return int(check and bool(files))


if __name__ == "__main__":
    sys.exit(main())
