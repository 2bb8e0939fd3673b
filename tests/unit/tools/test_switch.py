"""`make switch-off` sets a function's reserved concurrency to 0, `make switch-on` removes it."""

import json
from typing import Any

import pytest

from tools import switch
from tools.stack import Stack


class FakeLambda:
    """Records the reserved concurrency by function."""

    def __init__(self) -> None:
        self.reserved: dict[str, int] = {}

    def put_function_concurrency(self, *, FunctionName: str, ReservedConcurrentExecutions: int) -> None:  # noqa: N803
        self.reserved[FunctionName] = ReservedConcurrentExecutions

    def delete_function_concurrency(self, *, FunctionName: str) -> None:  # noqa: N803
        del self.reserved[FunctionName]

    def get_function_configuration(self, *, FunctionName: str) -> dict[str, Any]:  # noqa: N803
        return {"Environment": {"Variables": {"POWERTOOLS_SERVICE_NAME": FunctionName.removeprefix("shop-")}}}


class FakeCloudFormation:
    """Two pages of the resources of the stack `shop`."""

    def get_paginator(self, _: str) -> Any:
        return self

    def paginate(self, *, StackName: str) -> list[dict[str, Any]]:  # noqa: N803
        assert StackName == "shop"
        return [
            {"StackResourceSummaries": [resource("Table", "AWS::DynamoDB::Table")]},
            {"StackResourceSummaries": [resource("InventoryFunction", "AWS::Lambda::Function")]},
        ]


def resource(logical_id: str, kind: str) -> dict[str, str]:
    return {"LogicalResourceId": logical_id, "PhysicalResourceId": "shop-inventory", "ResourceType": kind}


@pytest.fixture(params=[None, "shop"], ids=["local", "deployed"])
def name(request: pytest.FixtureRequest) -> str | None:
    found: str | None = request.param
    return found


@pytest.fixture
def functions(name: str | None, monkeypatch: pytest.MonkeyPatch) -> FakeLambda:
    fake = FakeLambda()
    clients = {"lambda": fake, "cloudformation": FakeCloudFormation()}
    stack = Stack("http://api", {}, "us-east-1", functions={} if name else {"InventoryFunction": "shop-inventory"})
    monkeypatch.setattr(Stack, "client", lambda _, service: clients[service])
    monkeypatch.setattr(switch, "find", lambda _: stack)
    return fake


def command(state: str, function: str, name: str | None) -> int:
    return switch.main([state, "--function", function, *(["--stack", name] if name else [])])


def test_a_function_is_switched_off_and_on_by_its_logical_id(functions: FakeLambda, name: str | None) -> None:
    assert command("off", "InventoryFunction", name) == 0
    assert functions.reserved == {"shop-inventory": 0}

    assert command("on", "InventoryFunction", name) == 0
    assert functions.reserved == {}


def test_switching_on_says_how_to_redrive_what_the_function_missed(
    functions: FakeLambda, name: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    functions.reserved["shop-inventory"] = 0

    command("on", "InventoryFunction", name)

    text = capsys.readouterr().out
    body = text.partition(" -d '")[2].partition("'")[0]
    assert json.loads(body) == {"consumer": "inventory"}
    assert f"$(make -s token AS=staff{' STACK=shop' if name else ''})" in text
    assert max(map(len, text.splitlines())) <= 80


def test_a_function_that_the_stack_lacks_is_named_with_those_that_it_has(
    functions: FakeLambda, name: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("off", "Table", name) == 1
    assert capsys.readouterr().err == "error: the stack has no function Table; it has InventoryFunction\n"
    assert functions.reserved == {}
