"""Writes docs/openapi.json and docs/api.md from the routes and models of the two APIs."""

import argparse
import importlib
import json
import os
import re
import sys
from http import HTTPStatus
from pathlib import Path
from typing import Any, TypeAlias

from aws_lambda_powertools.event_handler.openapi.models import HTTPBearer
from pydantic.alias_generators import to_camel
from samtranslator.yaml_helper import yaml_parse

Json: TypeAlias = dict[str, Any]

DOCUMENT = Path("docs/openapi.json")
PAGE = Path("docs/api.md")
APIS = {"Orders and products": "orders.api_handler", "Back office": "backoffice.handler"}
"""The tag of an API's operations, and its module."""

DESCRIPTION = """\
Orders are placed with this API. Everything that follows from an order happens through events.

- Send the ID token of a signed-in user as `Authorization: Bearer …`. Only `GET /products` needs none; `/admin` needs \
a user of the group `staff`.
- Errors are problems (RFC 9457). The `type` of a problem identifies it and never changes its meaning.
- Every response of the application has the header `X-Correlation-Id`, which leads to its logs, events and traces.
- API Gateway's own responses are `{"message": …}`: 401 without a valid token, 404 for a path or method that is not in \
this document, 413 for a body above API Gateway's limit, 429 for throttled requests, and 500 or 503 when the \
application fails.
- Texts in bodies are single lines: control characters, line breaks, and characters that embed, override or isolate \
the direction of text are refused. White space around a text is removed.
- Money is a number with at most two decimals. Times are RFC 3339, in UTC.
- Responses may get further fields in the future. Bodies with fields that are not in this document are refused."""

SCHEMAS: Json = {
    "Message": {
        "description": "A response of API Gateway.",
        "type": "object",
        "properties": {"message": {"type": "string"}},
        "required": ["message"],
    },
    "Problem": {
        "description": "Why a request cannot be served (RFC 9457).",
        "type": "object",
        "properties": {
            "type": {"type": "string", "description": "Identifies the problem: `/problems/…`."},
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
    },
}
CORRELATION_ID: Json = {
    "X-Correlation-Id": {
        "description": "Leads to the request's logs, events and traces.",
        "schema": {"type": "string"},
        "required": True,
    }
}
GATEWAY_MESSAGE: Json = {"application/json": {"schema": {"$ref": "#/components/schemas/Message"}}}
GATEWAY_RESPONSES = {
    HTTPStatus.TOO_MANY_REQUESTS: "API Gateway: the request was throttled.",
    HTTPStatus.INTERNAL_SERVER_ERROR: "API Gateway: the application has failed.",
    HTTPStatus.SERVICE_UNAVAILABLE: "API Gateway: the application is not available, or took too long.",
}


def document() -> Json:
    """Returns the OpenAPI document of both APIs."""
    _set_environment()
    api_url = {"default": "https://example.execute-api.us-east-1.amazonaws.com", "description": "the output `ApiUrl`"}
    merged: Json = {
        "openapi": "3.1.0",
        "info": {"title": "Orderflow", "version": "1.0.0", "description": DESCRIPTION},
        "servers": [
            {"url": "http://127.0.0.1:3000", "description": "`make run`"},
            {"url": "{apiUrl}", "description": "a deployed stack", "variables": {"apiUrl": api_url}},
        ],
        "tags": [{"name": tag} for tag in APIS],
        "paths": {},
        "components": {"schemas": dict(SCHEMAS)},
    }
    id_token = HTTPBearer(bearerFormat="JWT", description="An ID token of the stack's Cognito user pool.")
    for tag, module in APIS.items():
        api = importlib.import_module(module)
        found = json.loads(api.app.get_openapi_json_schema(security_schemes={"idToken": id_token}))
        for path, methods in sorted(found["paths"].items()):
            for method, operation in methods.items():
                _complete(operation, api, path, method, tag)
            merged["paths"][re.sub(r"\{(\w+)\}", lambda name: f"{{{to_camel(name[1])}}}", path)] = methods
        for name, schema in found["components"]["schemas"].items():
            if not name.endswith("Request"):
                schema.pop("additionalProperties", None)  # responses may get further fields
            if merged["components"]["schemas"].setdefault(name, schema) != schema:
                raise ValueError(f"two schemas have the name {name}")
        merged["components"]["securitySchemes"] = found["components"]["securitySchemes"]
    for unused in ("HTTPValidationError", "ValidationError", "ResponseValidationError"):
        del merged["components"]["schemas"][unused]  # Powertools' own
    return merged


def _set_environment() -> None:
    """Sets the variables that the modules read when they are imported. Nothing is called."""
    template: Json = yaml_parse(Path("template.yaml").read_text())  # type: ignore[no-untyped-call]
    functions = [found for found in template["Resources"].values() if found["Type"] == "AWS::Serverless::Function"]
    for section in (template["Globals"]["Function"], *(function["Properties"] for function in functions)):
        for name in section["Environment"]["Variables"]:
            if not name.startswith("POWERTOOLS_"):
                os.environ.setdefault(name, "none")
    os.environ.setdefault("AWS_DEFAULT_REGION", "us-east-1")


def _complete(operation: Json, api: Any, path: str, method: str, tag: str) -> None:
    """Adds what is not in a route's signature: the docstring, examples, and API Gateway's responses."""
    name = operation["operationId"].removesuffix(re.sub(r"\W", "_", path) + "_" + method)
    operation |= {"operationId": to_camel(name), "summary": getattr(api, name).__doc__, "tags": [tag]}
    operation.setdefault("security", [])
    (fixture,) = Path("events").glob(f"*_api/{name}.json")
    example = json.loads(fixture.read_text())
    for parameter in operation.get("parameters", ()):
        if parameter["in"] == "path":
            parameter["name"] = to_camel(parameter["name"])
            (parameter["example"],) = example["pathParameters"].values()
    if "requestBody" in operation:
        content = operation["requestBody"]["content"]["application/json"]
        content["examples"] = {name: {"value": json.loads(example["body"])}}
    for status, response in operation["responses"].items():
        if status in ("401", "413"):  # API Gateway answers these too, without the header
            response["content"] |= GATEWAY_MESSAGE
        else:
            response["headers"] = {**CORRELATION_ID, **response.get("headers", {})}
    for code, description in GATEWAY_RESPONSES.items():
        operation["responses"][str(code.value)] = {"description": description, "content": GATEWAY_MESSAGE}


def page(described: Json) -> str:
    """Returns the document as a Markdown page: a table of the operations for each API."""
    lines = [
        "<!-- Generated by `make openapi` from the code. Do not edit. -->",
        "# API",
        described["info"]["description"],
        "Parameters, bodies, responses and examples are in the OpenAPI document: [openapi.json](openapi.json).",
    ]
    for tag in described["tags"]:
        rows = [
            _row(method.upper(), path, operation)
            for path, methods in described["paths"].items()
            for method, operation in methods.items()
            if tag["name"] in operation["tags"]
        ]
        lines += [
            f"## {tag['name']}",
            "\n".join(["| request | what it does | success | problems |", "|---|---|---|---|", *rows]),
        ]
    return "\n\n".join(lines) + "\n"


def _row(method: str, path: str, operation: Json) -> str:
    success, *_ = [status for status in sorted(operation["responses"]) if status.startswith("2")]
    problems = [
        f"{status} {response['description'].replace('/problems/', '')}"
        for status, response in sorted(operation["responses"].items())
        if "application/problem+json" in response["content"]
    ]
    described = operation["responses"][success]["description"]
    summary = operation["summary"] + ("" if operation["security"] else " Public.")
    return f"| `{method} {path}` | {summary} | {success}: {described} | {'; '.join(problems)} |"


def stale(root: Path) -> dict[Path, str]:
    """Returns the files that differ from the code, with the content that they should have."""
    described = document()
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
            print(f"error: {path} differs from the code: make openapi", file=sys.stderr)
        else:
            path.write_text(text)
            print(f"written: {path}")
    return int(check and bool(files))


if __name__ == "__main__":
    sys.exit(main())
