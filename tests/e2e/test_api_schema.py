"""The running API conforms to docs/openapi.json. Local only: the tests change stock and redrive failed events."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.documented import COMPONENTS, DOCUMENT
from tests.e2e.conftest import Shop
from tools.http import TIMEOUT
from tools.stack import Stack

CONFIGURATION = """
[generation]
max-examples = 5  # for each operation, beside those that are derived from each keyword of the document
deterministic = true
[checks]
unsupported_method.enabled = false  # API Gateway answers another method with 404, as it does another path
positive_data_acceptance.enabled = false  # whether an order is taken depends on more than its form, such as the prices
[phases.coverage]
unexpected-methods = []
"""


@pytest.fixture
def local(stack: Stack) -> Stack:
    if stack.aws_endpoint is None:
        pytest.skip("not against a deployed stack")
    return stack


@pytest.mark.parametrize(("method", "path"), [("post", "/orders"), ("put", "/admin/products/{productId}/stock")])
def test_the_examples_of_the_document_work_with_the_seed(local: Stack, shop: Shop, method: str, path: str) -> None:
    operation = DOCUMENT["paths"][path][method]
    (example,) = operation["requestBody"]["content"]["application/json"]["examples"].values()
    for parameter in operation["parameters"]:
        path = path.replace(f"{{{parameter['name']}}}", parameter.get("example", ""))
    headers = {"content-type": "application/json"}
    answer = shop.call(method.upper(), path, user="staff", headers=headers, body=json.dumps(example["value"]))
    assert answer.status in (200, 201)


@pytest.mark.parametrize(
    ("user", "operations"),
    [("customer", "--exclude-path-regex"), ("staff", "--include-path-regex")],
)
def test_no_request_gets_an_undocumented_response_or_a_server_error(
    local: Stack, tmp_path: Path, user: str, operations: str
) -> None:
    document = tmp_path / "openapi.json"
    document.write_text(json.dumps({**DOCUMENT, "components": COMPONENTS}))
    (tmp_path / "schemathesis.toml").write_text(CONFIGURATION)
    done = subprocess.run(
        [
            *(str(Path(sys.executable).with_name("schemathesis")), "run", str(document), "--no-color"),
            *("--url", local.api_url, "--header", f"Authorization: Bearer {local.tokens[user]}"),
            *(operations, "^/admin/", "--continue-on-failure", "--request-timeout", str(TIMEOUT)),
        ],
        cwd=tmp_path,  # where it finds its configuration, and leaves files
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
