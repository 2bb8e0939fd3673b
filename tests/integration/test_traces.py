"""Traces in X-Ray must not contain the responses of the APIs, which contain addresses and messages of failures."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.customer import ADDRESS, PERSONAL
from tests.integration.support import Aws, line
from tools.personal_data import personal_data_in

ROOT = Path(__file__).parents[2]
CALL = """
import importlib, json, sys
from tests.integration.support import Context
handler = importlib.import_module(sys.argv[1]).handler
print(json.dumps(handler(json.load(sys.stdin), Context())))
"""
TRACE = "Root=1-6b01e544-5759e988bd91ab50ec34b09a;Parent=53995c3f42cd8ad8;Sampled=1"


def called_with_traces(module: str, event: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Call a function in a process of its own, as Lambda does with active tracing.

    Returns:
        What the function answers, and what it has sent to the X-Ray daemon.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as daemon:
        daemon.bind(("127.0.0.1", 0))
        daemon.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        environment = {
            **{name: value for name, value in os.environ.items() if name != "AWS_SAM_LOCAL"},
            "PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "functions", ROOT / "layers/orderflow"))),
            "LAMBDA_TASK_ROOT": str(ROOT / "functions"),
            "AWS_XRAY_DAEMON_ADDRESS": f"127.0.0.1:{daemon.getsockname()[1]}",
            "_X_AMZN_TRACE_ID": TRACE,
        }
        done = subprocess.run(
            [sys.executable, "-c", CALL, module],
            input=json.dumps(event),
            env=environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        daemon.setblocking(False)  # the process has ended: what it sent is here
        sent: list[str] = []
        while True:
            try:
                sent.append(daemon.recv(1 << 16).decode())
            except BlockingIOError:
                return json.loads(done.stdout.splitlines()[-1]), sent


def request(method: str, path: str, claims: dict[str, str], **more: Any) -> dict[str, Any]:
    return {
        "version": "2.0",
        "rawPath": path,
        "rawQueryString": "",
        "headers": {"content-type": "application/json"},
        "requestContext": {
            "http": {"method": method, "path": path},
            "requestId": "request-1",
            "stage": "$default",
            "authorizer": {"jwt": {"claims": {"token_use": "id", "sub": "ada", **claims}}},
        },
        "isBase64Encoded": False,
        **more,
    }


def test_the_trace_of_a_placed_order_does_not_contain_its_address(aws: Aws) -> None:
    body = {"items": [line(aws.add_product())], "shippingAddress": ADDRESS}
    claims = {"email": "ada@example.com", "email_verified": "true"}

    answer, sent = called_with_traces("orders.api_handler", request("POST", "/orders", claims, body=json.dumps(body)))

    assert answer["statusCode"] == 201
    assert personal_data_in([answer["body"]], PERSONAL)
    assert any('"name":"dynamodb"' in segment.lower().replace(" ", "") for segment in sent)
    assert personal_data_in(sent, PERSONAL) == []


def test_the_trace_of_listed_failed_events_does_not_contain_their_messages(aws: Aws) -> None:
    record = {"id": "traced:1", "consumer": "traced", "eventId": "1", "kind": "INVOCATION"}
    times = {"firstFailedAt": "2026-11-21T18:36:00.123Z", "lastFailedAt": "2026-11-21T18:36:00.123Z"}
    counts = {"status": "PARKED", "failures": 1, "attempts": 0, "version": 1}
    text = {"reason": "KeyError", "message": f"cannot deliver to {ADDRESS['street']}"}
    aws.table("FailedEventsTableName").put_item(Item={**record, **times, **counts, **text})

    claims, query = {"cognito:groups": "[staff]"}, {"consumer": record["consumer"]}
    event = request("GET", "/admin/failed-events", claims, queryStringParameters=query)
    answer, sent = called_with_traces("backoffice.handler", event)

    assert personal_data_in([answer["body"]], PERSONAL)
    assert any('"name":"dynamodb"' in segment.lower().replace(" ", "") for segment in sent)
    assert personal_data_in(sent, PERSONAL) == []
