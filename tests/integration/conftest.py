"""Each function against moto: the template's own tables, queue and bus, and the environment that the template gives."""

import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from local.store import Store
from local.template import deploy
from tests.integration.support import Api, Aws, module

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="package")
def deployed() -> Iterator[Aws]:
    """The template's stack, and its functions' environment in this process. Moto holds one store at a time."""
    store = Store()
    store.start()
    with pytest.MonkeyPatch.context() as environment:
        for name, value in store.function_environment().items():
            environment.setenv(name, value)
        stack = deploy(ROOT / "template.yaml", store, stack_name="test", parameters={})
        for function in stack.of_type("AWS::Lambda::Function"):
            for name, value in function.properties["Environment"]["Variables"].items():
                environment.setenv(name, value)
        aws = Aws(store, stack)
        store.on_stream_record = lambda stream, record: aws.records.append((stream, record))
        store.on_put_events = aws.put_events
        yield aws
    store.stop()


@pytest.fixture
def aws(deployed: Aws) -> Aws:
    """The stack with nothing recorded yet; its tables keep what earlier tests wrote, under other ids."""
    deployed.records.clear()
    deployed.published.clear()
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
    return Api(module("orders.api"), claims)


class _Stdout:
    """The standard output of the moment: pytest changes it, and the logger holds the one it was made with."""

    def write(self, text: str) -> int:
        return sys.stdout.write(text)

    def flush(self) -> None:
        sys.stdout.flush()


@pytest.fixture
def output(aws: Aws, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[[], str]:
    """Gives what the functions have logged and measured since it was last asked: lines of JSON."""
    monkeypatch.setattr(module("orderflow.observability").logger.registered_handler, "stream", _Stdout())
    return lambda: capsys.readouterr().out
