"""docs/openapi.json: it matches the code and the template's routes, and its examples are valid."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
from openapi_spec_validator import OpenAPIV31SpecValidator

from tests.contract.source import source
from tests.documented import COMPONENTS, DOCUMENT, assert_documented

ROOT = Path(__file__).parents[2]
OPERATIONS = {
    (method.upper(), path): operation
    for path, methods in DOCUMENT["paths"].items()
    for method, operation in methods.items()
}


def nameless(path: str) -> str:
    """Returns a path without the names of its parameters."""
    return re.sub(r"\{\w+\}", "{}", path)


def problems(operation: dict[str, Any]) -> set[tuple[str, str]]:
    """Returns an operation's documented problems: (status, type)."""
    return {
        (status, name)
        for status, response in operation["responses"].items()
        if (content := response["content"].get("application/problem+json"))
        for name in content["schema"]["allOf"][1]["properties"]["type"]["enum"]
    }


def test_the_committed_files_match_the_code() -> None:
    paths = os.pathsep.join([str(ROOT / "functions"), str(ROOT / "layers/orderflow")])
    # A process of its own: the functions' modules read their settings when they are imported
    checked = subprocess.run(
        [sys.executable, "-m", "tools.openapi", "--check"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (checked.returncode, checked.stderr) == (0, "")


def test_the_document_is_an_openapi_document() -> None:
    OpenAPIV31SpecValidator(DOCUMENT).validate()


def test_the_documented_routes_are_those_of_the_template_with_their_authorizers() -> None:
    deployed = {
        (event["Properties"]["Method"], nameless(event["Properties"]["Path"])): event["Properties"].get("Auth")
        for resource in source()["Resources"].values()
        for event in resource["Properties"].get("Events", {}).values()
        if event["Type"] == "HttpApi"
    }
    public = {route for route, authorizer in deployed.items() if authorizer == {"Authorizer": "NONE"}}
    documented = {(method, nameless(path)): operation for (method, path), operation in OPERATIONS.items()}
    assert set(documented) == set(deployed)
    assert {route for route, operation in documented.items() if operation["security"] == []} == public


def test_an_operation_documents_its_problems() -> None:
    assert problems(OPERATIONS["POST", "/orders/{orderId}/cancellation"]) == {
        ("401", "/problems/unauthorized"),
        ("404", "/problems/order-not-found"),
        ("404", "/problems/no-such-route"),
        ("409", "/problems/not-cancellable"),
        ("409", "/problems/busy"),
    }


def test_parameters_are_documented() -> None:
    found = {
        route: {parameter["name"] for parameter in operation.get("parameters", ())}
        for route, operation in OPERATIONS.items()
    }
    assert found["GET", "/orders"] == {"status", "limit", "cursor"}
    assert found["GET", "/products"] == {"limit", "cursor"}
    assert found["POST", "/orders"] == {"idempotency-key"}
    assert found["GET", "/orders/{orderId}"] == {"orderId"}
    assert found["GET", "/admin/sales"] == {"from", "to"}
    assert found["GET", "/admin/failed-events"] == {"status", "consumer", "limit", "cursor"}


def test_responses_allow_further_fields_and_bodies_do_not() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    closed = {name for name, schema in schemas.items() if schema.get("additionalProperties") is False}
    assert closed == {name for name in schemas if name.endswith("Request")}


def test_every_body_has_a_valid_example_with_products_of_the_seed() -> None:
    seed = json.loads((ROOT / "events/seed.json").read_text())["products"]
    for route, operation in OPERATIONS.items():
        if "requestBody" in operation:
            content = operation["requestBody"]["content"]["application/json"]
            (example,) = (entry["value"] for entry in content["examples"].values())
            assert Draft202012Validator({**content["schema"], "components": COMPONENTS}).is_valid(example), route
            ordered = {item["productId"] for item in example.get("items", [])}
            assert ordered <= {product["productId"] for product in seed}


CATALOGUE = {"items": [{"productId": "PROD-MOUSE", "name": "Mouse", "price": 24.5}]}
HEADERS = {"content-type": "application/json", "x-correlation-id": "1"}


def test_a_documented_response_is_accepted() -> None:
    assert_documented("GET", "/products", 200, HEADERS, CATALOGUE)


@pytest.mark.parametrize(
    ("path", "status", "headers", "body"),
    [
        ("/nothing", 200, HEADERS, {}),
        ("/products", 418, HEADERS, CATALOGUE),
        ("/products", 200, {"content-type": "application/json"}, CATALOGUE),
        ("/products", 200, HEADERS, {"items": [{**CATALOGUE["items"][0], "cost": 1}]}),
        ("/products", 200, HEADERS, {"items": [{**CATALOGUE["items"][0], "price": "24.50"}]}),
        ("/products", 200, HEADERS, {**CATALOGUE, "nextCursor": None}),
    ],
)
def test_an_undocumented_response_fails_the_test_that_receives_it(
    path: str, status: int, headers: dict[str, str], body: Any
) -> None:
    with pytest.raises(AssertionError, match=path):
        assert_documented("GET", path, status, headers, body)


def test_a_problem_of_another_route_fails_the_test_that_receives_it() -> None:
    headers = {"content-type": "application/problem+json", "x-correlation-id": "1"}
    problem = {"type": "/problems/malformed-status", "title": "Malformed status", "status": 400, "detail": "?"}
    assert_documented("GET", "/orders", 400, headers, problem)
    with pytest.raises(AssertionError, match="malformed-status"):
        assert_documented("GET", "/products", 400, headers, problem)
