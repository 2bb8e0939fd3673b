"""Checks the API's responses against docs/openapi.json, more strictly than clients should: no additional fields."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

DOCUMENT: dict[str, Any] = json.loads((Path(__file__).parents[1] / "docs/openapi.json").read_text())


def closed(node: Any) -> Any:
    """A schema, or several, that allow no other fields."""
    if isinstance(node, list):
        return [closed(entry) for entry in node]
    if not isinstance(node, dict):
        return node
    found = {name: closed(value) for name, value in node.items()}
    return {"additionalProperties": False, **found} if isinstance(node.get("properties"), dict) else found


COMPONENTS = closed(DOCUMENT["components"])


def operation_of(method: str, path: str) -> dict[str, Any] | None:
    """The documentation of a route."""
    for template, methods in DOCUMENT["paths"].items():
        if method.lower() in methods and re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", template), path):
            found: dict[str, Any] = methods[method.lower()]
            return found
    return None


def assert_documented(method: str, path: str, status: int, headers: Mapping[str, str], body: Any) -> None:
    """Fails if the status, content type, headers or body of a response are not documented.

    Args:
        method: of the request.
        path: of the request; what is at no documented path is a 404.
        status: of the answer.
        headers: of the answer, in lower case.
        body: the JSON of the answer.
    """
    operation = operation_of(method, path)
    if operation is None:
        assert status == 404, f"{method} {path} is not documented"
        return
    assert str(status) in operation["responses"], f"{status} of {method} {path} is not documented"
    response = operation["responses"][str(status)]
    schema = {**response["content"][headers["content-type"]]["schema"], "components": COMPONENTS}
    validator = Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER)
    errors = [f"{error.json_path}: {error.message}" for error in validator.iter_errors(body)]
    assert not errors, f"{status} of {method} {path} is not as documented: {errors}"
    lacking = {name.lower() for name in response.get("headers", {})} - set(headers)
    assert not lacking, f"{status} of {method} {path} lacks the headers {lacking}"
