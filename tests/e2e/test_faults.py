"""Faults that the runner injects, as the callers of a stack see them. Local only."""

import json
from pathlib import Path

import boto3

from localaws.tests.runner import running
from localaws.tests.test_commands import ECHO, FUNCTION, refusal, run
from tests.e2e.conftest import Shop, eventually
from tools.http import Api
from tools.own_stack import local_stack_of_own


def stack(folder: Path, *faults: dict[str, object]) -> tuple[Path, Path]:
    """A template with one function, and a file of faults."""
    (folder / "code").mkdir()
    (folder / "code" / "echo.py").write_text(ECHO)
    template, file = folder / "template.yaml", folder / "faults.json"
    template.write_text(FUNCTION.format(code="code/", handler="echo.handler"))
    file.write_text(json.dumps({"seed": 7, "faults": faults}))
    return template, file


def test_faults_strike_until_their_file_is_removed(tmp_path: Path) -> None:
    template, file = stack(tmp_path, {"function": "EchoFunction", "kind": "error", "probability": 1})
    invoke = ("invoke", "EchoFunction", "-e", "-", "--state", tmp_path / "state")
    with running(template, "--fault", str(file)):
        struck = run(*invoke, text="{}")
        file.unlink()
        spared = run(*invoke, text="{}")
    assert (struck.returncode, json.loads(struck.stdout)["errorType"]) == (1, "FaultInjected")
    assert spared.returncode == 0
    (line,) = (tmp_path / "state" / "faults.jsonl").read_text().splitlines()
    assert json.loads(line)["function"] == "EchoFunction"


QUEUE = """
  JobsQueue:
    Type: AWS::SQS::Queue
  TakerFunction:
    Type: AWS::Serverless::Function
    Properties:
      CodeUri: code/
      Handler: taker.handler
      Runtime: python3.13
      Timeout: 30 # for as long the queue hides a message
      Events:
        Job: {Type: SQS, Properties: {Queue: !GetAtt JobsQueue.Arn}}
Outputs:
  Queue: {Value: !Ref JobsQueue}
"""
TAKER = """
def handler(event, context):
    for record in event["Records"]:
        print("took", record["body"])
"""


def test_a_message_is_delivered_twice(tmp_path: Path) -> None:
    template, file = stack(tmp_path, {"queue": "JobsQueue", "kind": "duplicate", "probability": 1, "times": 1})
    (tmp_path / "code" / "taker.py").write_text(TAKER)
    template.write_text(template.read_text() + QUEUE)
    log = tmp_path / "state" / "logs" / "TakerFunction.log"
    with running(template, "--fault", str(file)):
        description = json.loads((tmp_path / "state" / "stack.json").read_text())
        queues = boto3.client(
            "sqs",
            endpoint_url=description["awsEndpoint"],
            region_name=description["region"],
            aws_access_key_id="local",
            aws_secret_access_key="local",
        )
        for body in ("one", "two"):
            queues.send_message(QueueUrl=description["outputs"]["Queue"], MessageBody=body)
        eventually(lambda: log.read_text().count("took") == 3)
    assert log.read_text().count("took one") == 2
    assert json.loads((tmp_path / "state" / "faults.jsonl").read_text())["queue"] == "JobsQueue"


def test_a_fault_for_a_queue_that_the_template_lacks_is_refused(tmp_path: Path) -> None:
    template, file = stack(tmp_path, {"queue": "JobsQueue", "kind": "duplicate", "probability": 0.5})
    assert "faults[0]" in refusal(template, "--port", "0", "--fault", str(file))
    file.unlink()
    assert "No such file" in refusal(template, "--port", "0", "--fault", str(file))


def test_strongly_consistent_reads_return_the_latest_write(tmp_path: Path) -> None:
    stale = {"call": "dynamodb.GetItem", "kind": "stale", "probability": 1, "seconds": 3600}
    (tmp_path / "faults.json").write_text(json.dumps({"seed": 7, "faults": [stale]}))
    with local_stack_of_own("--fault", tmp_path / "faults.json") as own:
        shop = Shop(own, Api(own))
        product = shop.product(stock=10)
        concurrency = {"FunctionName": own.outputs["InventoryFunctionName"]}
        own.client("lambda").put_function_concurrency(**concurrency, ReservedConcurrentExecutions=0)

        order_id = shop.place((product, 1)).body["orderId"]
        order = shop.call("GET", f"/orders/{order_id}")

        assert (order.status, order.body.get("status")) == (200, "PENDING")

        (failed,) = eventually(lambda: shop.call("GET", "/admin/failed-events", user="staff").body["items"])
        own.client("lambda").delete_function_concurrency(**concurrency)
        redriven = shop.call("POST", f"/admin/failed-events/{failed['id']}/redrive", user="staff")

        assert (redriven.status, redriven.body.get("outcome")) == (200, "RESOLVED")
        assert shop.outcome(order_id)["status"] == "CONFIRMED"
