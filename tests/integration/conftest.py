"""Each function against moto: the template's own tables, queue and bus, and the environment that the template gives."""

import sys
import traceback
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from botocore.client import BaseClient

from localaws.cloudformation import deploy
from localaws.iam_recorder import Calls
from localaws.not_honoured import Report
from localaws.store import Store
from tests.customer import PERSONAL
from tests.integration.support import Api, Aws, module
from tools.personal_data import personal_data_in

ROOT = Path(__file__).parents[2]
CALL = "_make_api_call"
"""Botocore's method by which every client calls, and every resource."""


@pytest.fixture(scope="package")
def deployed(calls: Path) -> Iterator[Aws]:
    """The template's stack, and its functions' environment in this process. Moto holds one store at a time."""
    store = Store()
    store.start()
    with pytest.MonkeyPatch.context() as environment:
        for name, value in store.function_environment().items():
            environment.setenv(name, value)
        stack = deploy(ROOT / "template.yaml", store, stack_name="test", parameters={}, report=Report())
        for function in stack.of_type("AWS::Lambda::Function"):
            for name, value in function.properties["Environment"]["Variables"].items():
                environment.setenv(name, value)
        aws = Aws(store, stack)
        environment.setattr(BaseClient, CALL, _noting(calls / "integration.jsonl", aws))
        store.on_stream_record = lambda stream, record: aws.records.append((stream, record))
        store.on_put_events = aws.put_events
        yield aws
    store.stop()


def _noting(file: Path, aws: Aws) -> Callable[[BaseClient, str, dict[str, Any]], Any]:
    """A client's way to AWS that notes whose call it is: the function's whose handler is on the call stack."""
    stack = aws.stack
    calls = Calls(file, {resource.physical_id: resource.logical_id for resource in stack.resources.values()})
    handlers = {
        str(ROOT / "functions" / function.properties["Handler"].rpartition(".")[0].replace(".", "/")) + ".py": name
        for name, function in stack.resources.items()
        if function.type == "AWS::Lambda::Function"
    }
    call: Any = getattr(BaseClient, CALL)

    def noted(client: BaseClient, operation: str, parameters: dict[str, Any]) -> Any:
        files = {frame.f_code.co_filename for frame, _ in traceback.walk_stack(None)}
        for file in files & handlers.keys():
            calls.note(handlers[file], f"{client.meta.service_model.service_name}.{operation}", parameters)
            aws.requests.append((operation, parameters))
        return call(client, operation, parameters)

    return noted


@pytest.fixture
def aws(deployed: Aws) -> Aws:
    """The stack with nothing recorded yet; its tables keep what earlier tests wrote, under other ids."""
    deployed.records.clear()
    deployed.published.clear()
    deployed.requests.clear()
    deployed.answer = lambda _: {}
    deployed.dlq()
    return deployed


@pytest.fixture
def api(aws: Aws) -> Api:
    """The order API, called by a customer that no other test knows."""
    claims = {
        "sub": f"customer-{uuid.uuid4()}",
        "token_use": "id",
        "email": "ada@example.com",
        "email_verified": "true",
    }
    return Api(module("orders.api_handler"), claims)


class _Stdout:
    """The standard output of the moment: pytest changes it, and the logger holds the one it was made with."""

    def write(self, text: str) -> int:
        return sys.stdout.write(text)

    def flush(self) -> None:
        sys.stdout.flush()


@dataclass
class _Printed:
    """What a test's functions print: to standard output their logs and metrics, to standard error warnings."""

    capsys: pytest.CaptureFixture[str]
    lines: list[str] = field(default_factory=list)

    def new(self) -> str:
        """Return the standard output since the last call."""
        captured = self.capsys.readouterr()
        self.lines += captured.out.splitlines() + captured.err.splitlines()
        return captured.out


@pytest.fixture(autouse=True)
def printed(deployed: Aws, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[_Printed]:
    """Fails every test in which a function prints personal data of the test."""
    monkeypatch.setattr(module("orderflow.observability").logger.registered_handler, "stream", _Stdout())
    found = _Printed(capsys)
    yield found
    found.new()
    assert personal_data_in(found.lines, PERSONAL) == []


@pytest.fixture
def output(printed: _Printed) -> Callable[[], str]:
    """Returns what the functions have logged and measured since the last call: lines of JSON."""
    return printed.new
