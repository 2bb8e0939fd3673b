"""Runs every fixture through the real SAM CLI and through localaws/, and compares: `make test-sam-local`.

There are two seeded stacks: the containers of `sam local` use one, the functions of localaws/ the other. Both receive
each fixture, the events of `sam local generate-event`, and a few HTTP requests. The responses must be equal, and at the
end the content of the tables and the events on the bus. Without a Docker engine, the command is skipped.

Environment variables, in addition to Docker's:
    LAMBDA_IMAGE: the image of the functions; default: the SAM CLI's.
    LAMBDA_HOST: the address by which a container reaches this machine; default: host.docker.internal. On Linux it is
        the address of the bridge, usually 172.17.0.1.
"""

import json
import os
import platform
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from samtranslator.yaml_helper import yaml_parse

from tools.demo import request_of
from tools.http import Api
from tools.own_stack import PREPARE
from tools.stack import Stack, local_stack

TEMPLATE = Path("template.yaml")
EVENTS = Path("events")
SAM = Path(".venv-sam/bin/sam").absolute()
# Separate from the build of `sam deploy`, because it is built for the architecture of this machine.
BUILD = Path(".aws-sam/sam-local")
BUILT = BUILD / "build/template.yaml"
BUILT_API = BUILT.with_name("api.json")
IMAGE = "orderflow/sam-local"
# `sam local` sets the logical id of a topic instead of its ARN.
VARIABLES = BUILD / "variables.json"
# samconfig.toml sets the same option, but the SAM CLI does not find it from the folder of the built template.
SAM_ENVIRONMENT = {"SAM_CLI_TELEMETRY": "0", "SAM_CLI_ENABLE_LANGUAGE_EXTENSIONS": "1"}

# The fixtures of one order, in the order of its events. The other fixtures follow, sorted by name.
FLOW = (
    "order_api/place_order_with_idempotency_key",
    "event_publisher/order_placed",
    "inventory/order_placed",
    "event_publisher/inventory_reserved",
    "order_status/inventory_reserved",
    "event_publisher/order_confirmed",
    "email/order_confirmed",
    "analytics/order_confirmed",
    "sales_report/daily",
    # Records for the fixtures of the back office
    "dlq_processor/failed_invocation",
    "dlq_processor/non_retryable_email",
    "dlq_processor/undelivered_to_a_log",
    "order_api/get_order",
    "order_api/get_order_events",
    "order_api/list_orders",
    "order_api/place_order_out_of_stock",
)
# One fixture per function, run again by `sam local invoke`, which starts a new container.
SINGLE = FLOW[0], FLOW[1], FLOW[2], FLOW[4], FLOW[6], FLOW[7], FLOW[8], FLOW[9], "backoffice_api/get_stock"

# Generated events, which are not events of this application: both sides must respond with the same error or result.
GENERATED = {
    "OrderApiFunction": ("apigateway", "http-api-proxy"),
    "BackofficeApiFunction": ("apigateway", "http-api-proxy"),
    "EventPublisherFunction": ("dynamodb", "update"),
    "InventoryFunction": ("cloudwatch", "scheduled-event"),
    "OrderStatusFunction": ("cloudwatch", "scheduled-event"),
    "EmailFunction": ("cloudwatch", "scheduled-event"),
    "SalesReportFunction": ("cloudwatch", "scheduled-event"),
    "AnalyticsFunction": ("sqs", "receive-message"),
    "DlqProcessorFunction": ("sqs", "receive-message"),
}
# Sent over HTTP, as the request of the fixture.
REQUESTS = "order_api/list_products", "order_api/place_order", "order_api/list_orders"
BEHIND_START_API = Path(__file__).with_name("behind_start_api.py")

# `sam local` sets the logical ids of resources that have no explicit name.
NAMED = {
    "AWS::DynamoDB::Table": "TableName",
    "AWS::SQS::Queue": "QueueName",
}
CHANGING = (  # values that differ from run to run, and their placeholders
    (re.compile(r"\b[0-7][0-9A-HJKMNP-TV-Z]{25}\b"), "<ulid>"),
    (re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)"), "<time>"),
    (re.compile(r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b"), "<uuid>"),
)
STACK_NAME = "orderflow"
"""The name of the stacks, which the fixtures contain."""
SECONDS_TO_START = 60
SECONDS_TO_SETTLE = 10

Answer = Any
Invoke = Callable[[str, bytes], Answer]
"""Invokes a function, by its logical id, with a payload."""


class SamLocalError(Exception):
    """The comparison failed to run. The message says why."""


def main() -> int:
    """Runs the comparison.

    Returns:
        The exit code: 0 if everything is equal or there is no Docker engine, else 1.
    """
    if not _docker_answers():
        print("skipped: `sam local` needs a running Docker engine")
        return 0
    try:
        return _compare()
    except SamLocalError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _compare() -> int:
    _build()
    host = os.environ.get("LAMBDA_HOST")
    with tempfile.TemporaryDirectory() as folder:
        parsed = quiet_template(yaml_parse(TEMPLATE.read_text()))  # type: ignore[no-untyped-call]
        template = Path(folder, "template.json")
        template.write_text(json.dumps(parsed))
        with (
            _stack(template, Path(folder, "sam"), host or "127.0.0.1") as of_sam,
            _stack(template, Path(folder, "local"), "127.0.0.1") as of_local,
            _image(of_sam, host or "host.docker.internal"),
            _start_lambda(of_sam) as sam,
        ):
            through_sam, through_local = _invoker(sam, {}), _invoker(of_local.client("lambda"), _function_names(parsed))
            print(f"{'fixture':<52}{'response':<28}same as local")
            alike = [_same_fixture(name, through_sam, through_local) for name in fixtures()]
            print("\nevents of sam local generate-event")
            alike += [_same_generated(function, through_sam, through_local) for function in GENERATED]
            print("\nagain, by sam local invoke")
            alike += [_same_fixture(name, _sam_invoke, through_local) for name in SINGLE]
            print("\nHTTP requests, by sam local start-api")
            with _start_api(of_sam) as api:
                alike += [_same_request(name, Api(api), Api(of_local)) for name in REQUESTS]
            print()
            alike += _same_data(of_sam, of_local)
    print(f"\n{alike.count(False)} of {len(alike)} differ" if not all(alike) else f"\nall {len(alike)} are equal")
    return 0 if all(alike) else 1


def fixtures() -> list[str]:
    """Returns the names of the fixtures, such as order_api/get_order, in the order in which they run."""
    found = sorted(f"{path.parent.name}/{path.stem}" for path in EVENTS.glob("*/*.json"))
    functions = {name for name in found if not name.startswith("schemas/")}
    return [*FLOW, *sorted(functions - set(FLOW))]


def quiet_template(template: dict[str, Any]) -> dict[str, Any]:
    """Returns the template for `sam local`: resources are named by their logical ids, and have no event sources.

    Args:
        template: the parsed template, which is changed.
    """
    template["Globals"]["Function"]["CodeUri"] = str(Path(template["Globals"]["Function"]["CodeUri"]).absolute())
    for logical_id, resource in template["Resources"].items():
        properties = resource["Properties"]
        if resource["Type"] in NAMED:
            properties.setdefault(NAMED[resource["Type"]], logical_id)
        if resource["Type"] == "AWS::Serverless::LayerVersion":
            properties["ContentUri"] = str(Path(properties["ContentUri"]).absolute())
        if resource["Type"] == "AWS::CloudFormation::Stack":
            properties["TemplateURL"] = str(Path(properties["TemplateURL"]).absolute())
        if "Events" in properties:
            properties["Events"] = {
                name: event for name, event in properties["Events"].items() if event["Type"] == "HttpApi"
            }
    return template


# ------------------------------------------------------------------------------------------ the comparisons


def _same_fixture(name: str, through_sam: Invoke, through_local: Invoke) -> bool:
    """Runs a fixture on both sides. An error is a difference, even if it is the same on both sides."""
    function, payload = _function(name), _fixture(name).read_bytes()
    by_sam = through_sam(function, payload)
    return _same(name, by_sam, through_local(function, payload)) and not _is_error(by_sam)


def _same_generated(function: str, through_sam: Invoke, through_local: Invoke) -> bool:
    """Runs a generated event on both sides. The same error on both sides is no difference."""
    payload = _run([str(SAM), "local", "generate-event", *GENERATED[function]]).encode()
    by_sam, by_local = (_without_stack_trace(through(function, payload)) for through in (through_sam, through_local))
    return _same(f"{function}: {' '.join(GENERATED[function])}", by_sam, by_local)


def _same_request(name: str, through_sam: Api, through_local: Api) -> bool:
    """Sends a fixture's request to both APIs, as a signed-in customer."""
    request = request_of(json.loads(_fixture(name).read_text()))
    by_sam, by_local = (
        api.call(request.method, request.path, user="customer", headers=request.headers, body=request.body)
        for api in (through_sam, through_local)
    )
    return _same(name, *({"statusCode": answer.status, "body": answer.body} for answer in (by_sam, by_local)))


def _same(what: str, by_sam: Answer, by_local: Answer) -> bool:
    """Prints and returns whether two responses are equal."""
    same = comparable(by_sam) == comparable(by_local)
    print(f"{what:<52}{_shown(by_sam):<28}{'yes' if same else 'no'}", flush=True)
    if not same:
        print(f"  sam:   {json.dumps(by_sam)}\n  local: {json.dumps(by_local)}")
    return same


def _same_data(of_sam: Stack, of_local: Stack) -> Iterator[bool]:
    """Compares the data after all fixtures. The log of the events is written asynchronously, so this waits."""
    for what, read in (
        ("orders", _orders),
        ("stock and reservations", _inventory),
        ("facts and figures", _analytics),
        ("failed events", _failed_events),
        ("events on the bus", _events),
    ):
        deadline = time.monotonic() + SECONDS_TO_SETTLE
        while (by_sam := read(of_sam)) != (by_local := read(of_local)) and time.monotonic() < deadline:
            time.sleep(0.1)
        same = by_sam == by_local and bool(by_sam)
        print(f"{what:<52}{len(by_sam):<28}{'yes' if same else 'no'}")
        for line in sorted(set(by_sam) ^ set(by_local)):
            print(f"  only {'sam' if line in by_sam else 'local'}: {line}")
        yield same


def comparable(value: Any) -> str:
    """Returns JSON text with placeholders for ids and times, and without trace headers."""
    text = json.dumps(_without_traces(value), sort_keys=True, default=str)
    for pattern, name in CHANGING:
        text = pattern.sub(name, text)
    return text


def _without_traces(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_traces(member) for name, member in value.items() if name != "traceHeader"}
    return [_without_traces(member) for member in value] if isinstance(value, list) else value


def _without_stack_trace(answer: Answer) -> Answer:
    """Returns a response without the stack trace, whose paths differ in a container."""
    return {name: answer[name] for name in answer if name != "stackTrace"} if _is_error(answer) else answer


def _orders(stack: Stack) -> list[str]:
    return _items(stack, "OrdersTableName")


def _inventory(stack: Stack) -> list[str]:
    return _items(stack, "InventoryTableName")


def _analytics(stack: Stack) -> list[str]:
    return _items(stack, "AnalyticsTableName")


def _failed_events(stack: Stack) -> list[str]:
    return _items(stack, "FailedEventsTableName", without="expiration")  # a time in epoch seconds


def _items(stack: Stack, table: str, without: str | None = None) -> list[str]:
    pages = stack.client("dynamodb").get_paginator("scan").paginate(TableName=stack.outputs[table])
    items = (item for page in pages for item in page["Items"])
    return sorted(comparable({name: item[name] for name in item if name != without}) for item in items)


def _events(stack: Stack) -> list[str]:
    pages = stack.client("logs").get_paginator("filter_log_events")
    found = pages.paginate(logGroupName=stack.outputs["EventLogGroupName"])
    events = [json.loads(line["message"]) for page in found for line in page["events"]]
    return sorted(comparable([event["source"], event["detail-type"], event["detail"]]) for event in events)


def _is_error(answer: Answer) -> bool:
    return isinstance(answer, dict) and "errorType" in answer


def _shown(answer: Answer) -> str:
    if _is_error(answer):
        return str(answer["errorType"])
    text = str(answer["statusCode"]) if isinstance(answer, dict) and "statusCode" in answer else json.dumps(answer)
    return text if len(text) < 26 else f"{text[:24]} …"


# ------------------------------------------------------------------------------------------ the two sides


def _function(name: str) -> str:
    """Returns the logical id of a fixture's function."""
    return "".join(part.capitalize() for part in name.split("/")[0].split("_")) + "Function"


def _fixture(name: str) -> Path:
    return EVENTS / f"{name}.json"


def _function_names(template: dict[str, Any]) -> dict[str, str]:
    """Returns the functions' names in the stack of localaws/, by logical id. The SAM CLI uses the logical ids."""
    return {
        logical_id: resource["Properties"]["FunctionName"]["Fn::Sub"].replace("${AWS::StackName}", STACK_NAME)
        for logical_id, resource in template["Resources"].items()
        if resource["Type"] == "AWS::Serverless::Function"
    }


def _invoker(client: Any, names: Mapping[str, str]) -> Invoke:
    """Returns a function that invokes through Lambda's API, which both the SAM CLI and localaws/ provide.

    Args:
        client: the Lambda client of one side.
        names: the functions' names on this side by logical id, where they differ from it.
    """

    def invoke(function: str, payload: bytes) -> Answer:
        answer = client.invoke(FunctionName=names.get(function, function), Payload=payload)
        return _parsed(answer["Payload"].read().decode())

    return invoke


def _sam_invoke(function: str, payload: bytes) -> Answer:
    """Invokes by `sam local invoke`, whose last line is the response."""
    output = _run(_sam("local", "invoke", function, "--event", "-", *_invoking(BUILT)), given=payload.decode())
    return _parsed(output.strip().rpartition("\n")[2])


def _parsed(text: str) -> Answer:
    """Parses a response. It is empty after a time-out, which in the SAM CLI includes the cold start."""
    try:
        return json.loads(text)
    except ValueError:
        return {"errorType": "NoAnswer", "errorMessage": text or "probably timed out: is the machine busy?"}


def _architecture() -> str:
    return "arm64" if platform.machine() in ("arm64", "aarch64") else "x86_64"


def _sam(*arguments: str) -> list[str]:
    return [str(SAM), *arguments, "--parameter-overrides", f"Architecture={_architecture()}"]


def _invoking(template: Path) -> Sequence[str]:
    return "--template", str(template), "--invoke-image", IMAGE, "--skip-pull-image", "--env-vars", str(VARIABLES)


def _build() -> None:
    if shutil.which("python3.13") is None:
        raise SamLocalError("`sam build` needs python3.13 on the PATH")
    folders = ("--build-dir", str(BUILT.parent), "--cache-dir", str(BUILD / "cache"))
    _run(_sam("build", *folders), ARCHITECTURE=_architecture())


def _docker_answers() -> bool:
    if shutil.which("docker") is None:
        return False
    return subprocess.run(["docker", "version"], capture_output=True, check=False).returncode == 0


def _run(command: list[str], given: str = "", **environment: str) -> str:
    """Runs a command and returns its standard output.

    Args:
        command: the command and its arguments.
        given: the standard input.
        environment: additional environment variables.

    Raises:
        SamLocalError: the command failed. The message contains its output.
    """
    done = subprocess.run(
        command,
        input=given,
        capture_output=True,
        text=True,
        env={**os.environ, **SAM_ENVIRONMENT, **environment},
        check=False,
    )
    if done.returncode != 0:
        raise SamLocalError(f"`{' '.join(command)}` ended with code {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


@contextmanager
def _image(stack: Stack, host: str) -> Iterator[None]:
    """Builds the functions' image with the endpoint of the store, for which the SAM CLI has no option."""
    port = str(stack.aws_endpoint).rpartition(":")[2]
    base = os.environ.get("LAMBDA_IMAGE", "public.ecr.aws/lambda/python:3.13")
    lines = (
        f"FROM {base}",
        f"ENV AWS_ENDPOINT_URL=http://{host}:{port}",
        # The SAM CLI sets an account id, which the DynamoDB client would add to the host name
        "ENV AWS_ACCOUNT_ID_ENDPOINT_MODE=disabled",
    )
    _run(["docker", "build", "--tag", IMAGE, "-"], given="\n".join(lines))
    try:
        yield
    finally:
        _run(["docker", "image", "rm", "--force", IMAGE])


@contextmanager
def _stack(template: Path, state: Path, host: str) -> Iterator[Stack]:
    """Provides a seeded stack of localaws/, with tokens for both test users."""
    command = [sys.executable, "-m", "localaws", "run", "--template", str(template), "--stack-name", STACK_NAME]
    command += ["--port", "0", "--store-host", host, "--stop-at-eof"]
    with _started([*command, "--state", str(state), "--quiet", "--prepare", PREPARE], state.with_suffix(".log")) as run:
        run.wait_for((state / "stack.json").exists)
        yield local_stack(state / "stack.json")


@contextmanager
def _start_lambda(stack: Stack) -> Iterator[Any]:
    """Provides a Lambda client for `sam local start-lambda`, whose functions use a stack."""
    topics = {"ALERT_TOPIC_ARN": "AlertTopicArn", "SALES_REPORT_TOPIC_ARN": "SalesReportTopicArn"}
    parameters = {variable: stack.outputs[output] for variable, output in topics.items()}
    parameters["STACK_NAME"] = STACK_NAME  # the SAM CLI's own is "local"
    VARIABLES.write_text(json.dumps({"Parameters": parameters}))
    with _sam_server("start-lambda", BUILT) as url:
        yield boto3.client(
            "lambda",
            endpoint_url=url,
            region_name="us-east-1",
            aws_access_key_id="local",
            aws_secret_access_key="local",
            # The first invocation of a function builds an image with its layers
            config=Config(retries={"total_max_attempts": 1}, read_timeout=180),
        )


@contextmanager
def _start_api(stack: Stack) -> Iterator[Stack]:
    """Provides the stack with the API of `sam local start-api`."""
    template = yaml_parse(BUILT.read_text())  # type: ignore[no-untyped-call]
    function = template["Resources"]["OrderApiFunction"]["Properties"]
    shutil.copy(BEHIND_START_API, Path(BUILT.parent, function["CodeUri"]))
    function["Handler"] = f"{BEHIND_START_API.stem}.handler"
    BUILT_API.write_text(json.dumps(template))
    with _sam_server("start-api", BUILT_API) as url:
        yield replace(stack, api_url=url)


@contextmanager
def _sam_server(kind: str, template: Path) -> Iterator[str]:
    """Runs `sam local start-lambda` or `start-api`, and provides its URL."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = _sam("local", kind, "--port", str(port), "--warm-containers", "LAZY", *_invoking(template))
    with tempfile.TemporaryDirectory() as folder, _started(command, Path(folder, "log")) as run:
        run.wait_for(lambda: _listens(port))
        yield f"http://127.0.0.1:{port}"


class _Started:
    """A server process and its log."""

    def __init__(self, process: "subprocess.Popen[bytes]", log: Path) -> None:
        self._process = process
        self._log = log

    def wait_for(self, is_ready: Callable[[], bool]) -> None:
        """Waits until the server is ready.

        Raises:
            SamLocalError: it ended, or was not ready after SECONDS_TO_START.
        """
        deadline = time.monotonic() + SECONDS_TO_START
        while not is_ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise SamLocalError(f"{self._process.args!r} did not start\n{self._log.read_text()}")
            time.sleep(0.05)


@contextmanager
def _started(command: list[str], log: Path) -> Iterator[_Started]:
    """Runs a server in its own session, so that Ctrl-C does not stop it before this process does."""
    environment = {**os.environ, **SAM_ENVIRONMENT}
    with log.open("w") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,  # the runner stops when the pipe is closed
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
    try:
        yield _Started(process, log)
    finally:
        process.send_signal(signal.SIGINT)  # the SAM CLI then removes its containers
        try:
            process.communicate(timeout=SECONDS_TO_START)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


if __name__ == "__main__":
    sys.exit(main())
