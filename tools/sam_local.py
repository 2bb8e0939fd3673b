"""Runs every fixture through the real SAM CLI and through local/, and compares: `make test-sam-local`.

Two stores stand side by side, each filled from the seed: the containers of `sam local` work on one, the functions of
local/ on the other. A fixture goes to both, so does what `sam local generate-event` makes, and a few requests come in
by `sam local start-api` and by the HTTP API of local/. The answers must be alike, and in the end what is in the tables
and on the bus. Where no Docker engine answers there is nothing to compare with, and the command says so.

Environment, besides Docker's own:
    LAMBDA_IMAGE: the image in which functions run; by default the one that the SAM CLI takes.
    LAMBDA_HOST: the address under which a container reaches this machine, if that is not what Docker Desktop calls
        host.docker.internal. On Linux it is the address of the bridge, mostly 172.17.0.1.
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
from collections.abc import Callable, Iterator, Sequence
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
# Apart from what `sam deploy` takes: this is built for the architecture of this machine.
BUILD = Path(".aws-sam/sam-local")
BUILT = BUILD / "build/template.yaml"
BUILT_API = BUILT.with_name("api.json")
IMAGE = "orderflow/sam-local"
# `sam local` takes a topic's name for its ARN, which only publishing needs.
VARIABLES = BUILD / "variables.json"

# One order on its way, as its fixtures tell it; the other fixtures follow by name.
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
    # What the back office acts on
    "dlq_processor/failed_invocation",
    "dlq_processor/non_retryable_email",
    "dlq_processor/undelivered_to_a_log",
    "order_api/get_order",
    "order_api/get_order_events",
    "order_api/list_orders",
    "order_api/place_order_out_of_stock",
)
# One of each function, run a second time through `sam local invoke`, which starts a container for it alone.
SINGLE = FLOW[0], FLOW[1], FLOW[2], FLOW[4], FLOW[6], FLOW[7], FLOW[8], FLOW[9], "backoffice_api/get_stock"

# What others send to functions like these; that it is none of our events is something to say, and nothing to break on.
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
# Sent over HTTP, as the request that the fixture came from.
REQUESTS = "order_api/list_products", "order_api/place_order", "order_api/list_orders"
BEHIND_START_API = Path(__file__).with_name("behind_start_api.py")

# `sam local` gives functions the logical id of what the template leaves CloudFormation to name.
NAMED = {
    "AWS::DynamoDB::Table": "TableName",
    "AWS::SQS::Queue": "QueueName",
    "AWS::Serverless::Function": "FunctionName",
}
CHANGING = (  # what differs from run to run, and what stands for it in a comparison
    (re.compile(r"\b[0-7][0-9A-HJKMNP-TV-Z]{25}\b"), "<ulid>"),
    (re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)"), "<time>"),
    (re.compile(r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b"), "<uuid>"),
)
SECONDS_TO_START = 60
SECONDS_TO_SETTLE = 10

Answer = Any
Invoke = Callable[[str, bytes], Answer]
"""Gives a function, by its logical id, a payload."""


class SamLocalError(Exception):
    """The comparison cannot be made; the message says why."""


def main() -> int:
    """Run the comparison.

    Returns:
        The exit code: 0 if all is alike, or if there is no Docker engine; else 1.
    """
    if not _docker_answers():
        print("skipped: no Docker engine answers, and `sam local` needs one")
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
        template = Path(folder, "template.json")
        template.write_text(json.dumps(quiet_template(yaml_parse(TEMPLATE.read_text()))))  # type: ignore[no-untyped-call]
        with (
            _stack(template, Path(folder, "sam"), host or "127.0.0.1") as of_sam,
            _stack(template, Path(folder, "local"), "127.0.0.1") as of_local,
            _image(of_sam, host or "host.docker.internal"),
            _start_lambda(of_sam) as sam,
        ):
            through_sam, through_local = _invoker(sam), _invoker(of_local.client("lambda"))
            print(f"{'fixture':<52}{'answer':<28}same as local")
            alike = [_same_fixture(name, through_sam, through_local) for name in fixtures()]
            print("\nwhat sam local generate-event makes")
            alike += [_same_generated(function, through_sam, through_local) for function in GENERATED]
            print("\nonce more, through sam local invoke")
            alike += [_same_fixture(name, _sam_invoke, through_local) for name in SINGLE]
            print("\nthrough sam local start-api")
            with _start_api(of_sam) as api:
                alike += [_same_request(name, Api(api), Api(of_local)) for name in REQUESTS]
            print()
            alike += _same_data(of_sam, of_local)
    print(f"\n{alike.count(False)} of {len(alike)} differ" if not all(alike) else f"\nall {len(alike)} alike")
    return 0 if all(alike) else 1


def fixtures() -> list[str]:
    """The fixtures' names, such as order_api/get_order, in the order in which they are run."""
    found = sorted(f"{path.parent.name}/{path.stem}" for path in EVENTS.glob("*/*.json"))
    functions = {name for name in found if not name.startswith("schemas/")}
    return [*FLOW, *sorted(functions - set(FLOW))]


def quiet_template(template: dict[str, Any]) -> dict[str, Any]:
    """The template as `sam local` sees it: resources bear their logical ids, and no function sets off another.

    Args:
        template: as it was read; it is changed.
    """
    template["Globals"]["Function"]["CodeUri"] = str(Path(template["Globals"]["Function"]["CodeUri"]).absolute())
    for logical_id, resource in template["Resources"].items():
        properties = resource["Properties"]
        if resource["Type"] in NAMED:
            properties[NAMED[resource["Type"]]] = logical_id
        if resource["Type"] == "AWS::Serverless::LayerVersion":
            properties["ContentUri"] = str(Path(properties["ContentUri"]).absolute())
        if "Events" in properties:
            properties["Events"] = {
                name: event for name, event in properties["Events"].items() if event["Type"] == "HttpApi"
            }
    return template


# ------------------------------------------------------------------------------------------ what is compared


def _same_fixture(name: str, through_sam: Invoke, through_local: Invoke) -> bool:
    """Run a fixture on both sides; an error is never right, even if both make the same."""
    function, payload = _function(name), _fixture(name).read_bytes()
    by_sam = through_sam(function, payload)
    return _same(name, by_sam, through_local(function, payload)) and not _is_error(by_sam)


def _same_generated(function: str, through_sam: Invoke, through_local: Invoke) -> bool:
    """Run what the SAM CLI makes for a function's kind of trigger. The same error on both sides is right."""
    payload = _run([str(SAM), "local", "generate-event", *GENERATED[function]]).encode()
    by_sam, by_local = (_without_stack_trace(through(function, payload)) for through in (through_sam, through_local))
    return _same(f"{function}: {' '.join(GENERATED[function])}", by_sam, by_local)


def _same_request(name: str, through_sam: Api, through_local: Api) -> bool:
    """Send a fixture's request to both APIs, by a signed-in customer."""
    request = request_of(json.loads(_fixture(name).read_text()))
    by_sam, by_local = (
        api.call(request.method, request.path, user="customer", headers=request.headers, body=request.body)
        for api in (through_sam, through_local)
    )
    return _same(name, *({"statusCode": answer.status, "body": answer.body} for answer in (by_sam, by_local)))


def _same(what: str, by_sam: Answer, by_local: Answer) -> bool:
    """Whether two answers are alike; prints a line that says so."""
    same = comparable(by_sam) == comparable(by_local)
    print(f"{what:<52}{_shown(by_sam):<28}{'yes' if same else 'no'}", flush=True)
    if not same:
        print(f"  sam:   {json.dumps(by_sam)}\n  local: {json.dumps(by_local)}")
    return same


def _same_data(of_sam: Stack, of_local: Stack) -> Iterator[bool]:
    """Compare what all the fixtures together have left behind; the bus takes a moment to write its log."""
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
    """JSON text in which ids and times are alike, and without what only one side traces."""
    text = json.dumps(_without_traces(value), sort_keys=True, default=str)
    for pattern, name in CHANGING:
        text = pattern.sub(name, text)
    return text


def _without_traces(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_traces(member) for name, member in value.items() if name != "traceHeader"}
    return [_without_traces(member) for member in value] if isinstance(value, list) else value


def _without_stack_trace(answer: Answer) -> Answer:
    """An answer without the lines of code, whose paths are another machine's in a container."""
    return {name: answer[name] for name in answer if name != "stackTrace"} if _is_error(answer) else answer


def _orders(stack: Stack) -> list[str]:
    return _items(stack, "OrdersTableName")


def _inventory(stack: Stack) -> list[str]:
    return _items(stack, "InventoryTableName")


def _analytics(stack: Stack) -> list[str]:
    return _items(stack, "AnalyticsTableName")


def _failed_events(stack: Stack) -> list[str]:
    return _items(stack, "FailedEventsTableName", without="expiration")  # a time, in seconds of the epoch


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
    """The logical id of a fixture's function."""
    return "".join(part.capitalize() for part in name.split("/")[0].split("_")) + "Function"


def _fixture(name: str) -> Path:
    return EVENTS / f"{name}.json"


def _invoker(client: Any) -> Invoke:
    """Invokes through Lambda's API, which the SAM CLI and local/ both offer."""

    def invoke(function: str, payload: bytes) -> Answer:
        answer = client.invoke(FunctionName=function, Payload=payload)
        return _parsed(answer["Payload"].read().decode())

    return invoke


def _sam_invoke(function: str, payload: bytes) -> Answer:
    """Invokes by `sam local invoke`, whose last line is the answer."""
    output = _run(_sam("local", "invoke", function, "--event", "-", *_invoking(BUILT)), given=payload.decode())
    return _parsed(output.strip().rpartition("\n")[2])


def _parsed(text: str) -> Answer:
    """An answer. It is empty where a function ran out of time, against which the SAM CLI counts the cold start too."""
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
    """What a command prints.

    Args:
        command: its arguments.
        given: its standard input.
        environment: variables beside ours.

    Raises:
        SamLocalError: it failed, with what it said.
    """
    done = subprocess.run(
        command,
        input=given,
        capture_output=True,
        text=True,
        env={**os.environ, "SAM_CLI_TELEMETRY": "0", **environment},
        check=False,
    )
    if done.returncode != 0:
        raise SamLocalError(f"`{' '.join(command)}` ended with code {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


@contextmanager
def _image(stack: Stack, host: str) -> Iterator[None]:
    """The image for the functions' containers, which knows where the store is: no option of the SAM CLI tells them."""
    port = str(stack.aws_endpoint).rpartition(":")[2]
    base = os.environ.get("LAMBDA_IMAGE", "public.ecr.aws/lambda/python:3.13")
    lines = (
        f"FROM {base}",
        f"ENV AWS_ENDPOINT_URL=http://{host}:{port}",
        # The SAM CLI names an account, which DynamoDB's client would put before the host's name
        "ENV AWS_ACCOUNT_ID_ENDPOINT_MODE=disabled",
    )
    _run(["docker", "build", "--tag", IMAGE, "-"], given="\n".join(lines))
    try:
        yield
    finally:
        _run(["docker", "image", "rm", "--force", IMAGE])


@contextmanager
def _stack(template: Path, state: Path, host: str) -> Iterator[Stack]:
    """A stack of local/, seeded, with tokens for both users."""
    command = [sys.executable, "-m", "local", "run", "--template", str(template), "--port", "0", "--store-host", host]
    command += ["--stop-at-eof"]
    with _started([*command, "--state", str(state), "--quiet", "--prepare", PREPARE], state.with_suffix(".log")) as run:
        run.wait_for((state / "stack.json").exists)
        yield local_stack(state / "stack.json")


@contextmanager
def _start_lambda(stack: Stack) -> Iterator[Any]:
    """A Lambda client of `sam local start-lambda`, whose functions work on a stack."""
    topics = {"ALERT_TOPIC_ARN": "AlertTopicArn", "SALES_REPORT_TOPIC_ARN": "SalesReportTopicArn"}
    parameters = {variable: stack.outputs[output] for variable, output in topics.items()}
    parameters["STACK_NAME"] = "orderflow"  # SAM CLI's own is "local"; the fixtures name functions of this stack
    VARIABLES.write_text(json.dumps({"Parameters": parameters}))
    with _sam_server("start-lambda", BUILT) as url:
        yield boto3.client(
            "lambda",
            endpoint_url=url,
            region_name="us-east-1",
            aws_access_key_id="local",
            aws_secret_access_key="local",  # noqa: S106 - made up, nobody checks it
            # A function's first call builds an image with its layers
            config=Config(retries={"total_max_attempts": 1}, read_timeout=180),
        )


@contextmanager
def _start_api(stack: Stack) -> Iterator[Stack]:
    """The stack as `sam local start-api` shows it, whose API is the SAM CLI's."""
    template = yaml_parse(BUILT.read_text())  # type: ignore[no-untyped-call]
    function = template["Resources"]["OrderApiFunction"]["Properties"]
    shutil.copy(BEHIND_START_API, Path(BUILT.parent, function["CodeUri"]))
    function["Handler"] = f"{BEHIND_START_API.stem}.handler"
    BUILT_API.write_text(json.dumps(template))
    with _sam_server("start-api", BUILT_API) as url:
        yield replace(stack, api_url=url)


@contextmanager
def _sam_server(kind: str, template: Path) -> Iterator[str]:
    """The URL of `sam local start-lambda` or `start-api`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = _sam("local", kind, "--port", str(port), "--warm-containers", "LAZY", *_invoking(template))
    with tempfile.TemporaryDirectory() as folder, _started(command, Path(folder, "log")) as run:
        run.wait_for(lambda: _listens(port))
        yield f"http://127.0.0.1:{port}"


class _Started:
    """A server in a process of its own, and what it prints."""

    def __init__(self, process: "subprocess.Popen[bytes]", log: Path) -> None:
        self._process = process
        self._log = log

    def wait_for(self, is_ready: Callable[[], bool]) -> None:
        """Wait until it is ready.

        Raises:
            SamLocalError: it ended, or took too long.
        """
        deadline = time.monotonic() + SECONDS_TO_START
        while not is_ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise SamLocalError(f"{self._process.args!r} did not start\n{self._log.read_text()}")
            time.sleep(0.05)


@contextmanager
def _started(command: list[str], log: Path) -> Iterator[_Started]:
    """Run a server meanwhile. It has a session of its own, or Ctrl-C would reach it before we let go of it."""
    environment = {**os.environ, "SAM_CLI_TELEMETRY": "0"}
    with log.open("w") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,  # the runner stops at its end, however this process ends
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
    try:
        yield _Started(process, log)
    finally:
        process.send_signal(signal.SIGINT)  # on which the SAM CLI removes its containers
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
