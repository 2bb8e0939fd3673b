"""A template with much that cannot run here starts: what can run runs, and the rest is named."""

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from localaws.runner import PYTHON
from localaws.tests.runner import RunningStack, read_stack, running

TEMPLATE = """
Transform: AWS::Serverless-2016-10-31
Globals: {Function: {CodeUri: code}}
Resources:
  Inline:
    Type: AWS::Serverless::Function
    Properties:
      Handler: index.handler
      Runtime: python3.8
      InlineCode: !Sub |
        import os
        def handler(event, context):
            return [os.environ["SWITCH"], "${AWS::Region}"]
      Environment: {Variables: {SWITCH: true}}
      Events:
        Get: {Type: HttpApi, Properties: {ApiId: !Ref Open, Method: get, Path: /}}
  Broken:
    Type: AWS::Serverless::Function
    Properties: {Handler: broken.handler, Runtime: python3.8}
  Node:
    Type: AWS::Serverless::Function
    Properties: {Handler: index.handler, Runtime: nodejs22.x}
  Image:
    Type: AWS::Serverless::Function
    Properties: {PackageType: Image}
    Metadata: {Dockerfile: Dockerfile}
  Layered:
    Type: AWS::Serverless::Function
    Properties: {Handler: works.handler, Runtime: python3.8, Layers: ["arn:aws:lambda:us-east-1:1:layer:other:1"]}
  Kafka:
    Type: AWS::Lambda::EventSourceMapping
    Properties: {FunctionName: !Ref Inline, Topics: [a], SelfManagedEventSource: {Endpoints: {}}}
  Rule:
    Type: AWS::Events::Rule
    Properties:
      EventPattern: {source: [shop]}
      Targets:
        - {Id: machine, Arn: "arn:aws:states:us-east-1:123456789012:stateMachine:flow"}
        - {Id: queue, Arn: !GetAtt Queue.Arn}
  Queue: {Type: AWS::SQS::Queue}
  Open: {Type: AWS::Serverless::HttpApi}
  Second:
    Type: AWS::Serverless::HttpApi
    Properties: {DefinitionBody: {openapi: 3.0.1, paths: {}}}
  Socket:
    Type: AWS::ApiGatewayV2::Api
    Properties: {Name: socket, ProtocolType: WEBSOCKET, RouteSelectionExpression: $request.body.action}
"""


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("output") / "lines"


@pytest.fixture(scope="module")
def port() -> int:
    """A free port."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@pytest.fixture(scope="module")
def folder(output: Path, port: int) -> Iterator[Path]:
    """The folder of the running template."""
    folder = output.parent
    (folder / "code").mkdir()
    (folder / "code" / "works.py").write_text("def handler(event, context):\n    return event\n")
    (folder / "code" / "broken.py").write_text("import a_package_that_is_not_installed\n")
    (folder / "template.yaml").write_text(TEMPLATE)
    more = ("--verbose", "--port", str(port))
    with output.open("w") as lines, running(folder / "template.yaml", *more, output=lines):
        yield folder


@pytest.fixture(scope="module")
def stack(folder: Path) -> RunningStack:
    return read_stack(folder / "state")


def test_code_in_the_template_runs_with_texts_in_its_environment(stack: RunningStack) -> None:
    answer = stack.client("lambda").invoke(FunctionName=stack.functions["Inline"], Payload=b"{}")

    assert json.loads(answer["Payload"].read()) == ["true", "us-east-1"]


@pytest.mark.parametrize(
    ("function", "kind", "reason"),
    [
        ("Broken", "Runtime.ImportModuleError", "No module named 'a_package_that_is_not_installed'"),
        ("Node", "Runtime.NotRunHere", "runtime nodejs22.x is not run here"),
        ("Image", "Runtime.NotRunHere", "container images are not run here"),
    ],
)
def test_a_function_that_cannot_run_fails_when_it_is_invoked(
    stack: RunningStack, folder: Path, function: str, kind: str, reason: str
) -> None:
    answer = stack.client("lambda").invoke(FunctionName=stack.functions[function], Payload=b"{}")

    error = json.loads(answer["Payload"].read())
    assert (answer["FunctionError"], error["errorType"]) == ("Unhandled", kind)
    assert reason in error["errorMessage"]
    assert reason in json.loads((folder / "state" / "stack.json").read_text())["failed"][function]


def test_the_start_names_what_is_not_run(stack: RunningStack, output: Path) -> None:
    lines = {line.partition(" ")[2] for line in output.read_text().splitlines()}

    assert lines >= {
        "Node: runtime nodejs22.x is not run here",
        "Image: container images are not run here",
        f"Layered: runs on {PYTHON} instead of python3.8",
        "Layered.Layers: arn:aws:lambda:us-east-1:1:layer:other:1 is not on this machine",
        "Kafka: events of this source are not read here",
        "Socket: not run here: only HTTP APIs with their routes in Body are served",
    }
    assert any(line.startswith("Broken: cannot import handler broken.handler: ModuleNotFound") for line in lines)
    assert any(line.startswith("Rule.machine: not run here: ") for line in lines)
    assert any(line.startswith("another API of the template is at http://127.0.0.1:") for line in lines)


def test_the_other_targets_of_a_rule_get_its_events(stack: RunningStack) -> None:
    queues = stack.client("sqs")
    [url] = queues.list_queues()["QueueUrls"]

    stack.client("events").put_events(Entries=[{"Source": "shop", "DetailType": "Sold", "Detail": "{}"}])

    [message] = queues.receive_message(QueueUrl=url, WaitTimeSeconds=10)["Messages"]
    assert json.loads(message["Body"])["detail-type"] == "Sold"


def test_the_first_api_has_the_port_of_the_command_line(stack: RunningStack, port: int) -> None:
    assert stack.api_url == f"http://127.0.0.1:{port}"
