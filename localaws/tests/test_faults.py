"""Fault injection: faults affect only what their file names, as often as it says, and are logged."""

import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, ConnectionClosedError, HTTPClientError

from localaws.delivery import Clock, Scheduler
from localaws.eventbridge import Bus, read_rules
from localaws.faults import KINDS, NO_FAULTS, Faults, FaultyCalls, InvalidFaults, read_faults, repeating
from localaws.lambda_runtime import FunctionConfig, InvocationResult, Runtime, Throttled
from localaws.store import Store
from localaws.tests.support import PATIENCE, RecordingTargets, wait_until

NAMES = {
    "function": {"shop-taker-1X": "TakerFunction", "shop-mailer-2Y": "MailFunction"},
    "rule": {"all-shop": "all-shop"},
    "queue": {"shop-jobs": "JobsQueue"},
    "stream": {"shop-stock": "StockTable"},
}
ADDRESS = "ann@example.com"


class World:
    """A fault file and its log."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "faults.json"
        self.log = folder / "faults.jsonl"

    def faults(self, *entries: dict[str, Any], seed: int = 7) -> Faults:
        self.file.write_text(json.dumps({"seed": seed, "faults": [{"probability": 1} | entry for entry in entries]}))
        return read_faults(self.file, NAMES, self.log)

    def lines(self) -> list[dict[str, Any]]:
        """Returns the log without the times and the call IDs."""
        lines = [json.loads(line) for line in self.log.read_text().splitlines()]
        return [{key: value for key, value in line.items() if key not in ("time", "call_id")} for line in lines]

    def call_ids(self) -> list[str]:
        return [json.loads(line)["call_id"] for line in self.log.read_text().splitlines()]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


# ------------------------------------------------------------------------------------------- the random draws


def draws(faults: Faults, selector: str = "rule", name: str = "all-shop", times: int = 1000) -> list[str | None]:
    drawn = [faults.draw(selector, name) for _ in range(times)]
    return [fault.kind if fault else None for fault in drawn]


def test_the_same_seed_draws_the_same_faults_and_another_seed_draws_others(world: World) -> None:
    entries: list[dict[str, Any]] = [{"rule": "*", "kind": kind, "probability": 0.1} for kind in ("error", "duplicate")]
    first, again, other = (draws(world.faults(*entries, seed=seed)) for seed in (1, 1, 2))

    assert first == again
    assert first != other
    assert 70 < first.count("error") < 130
    assert 60 < first.count("duplicate") < 120  # its own random numbers: it is also drawn where the first entry is not


def test_a_fault_is_injected_at_most_its_number_of_times(world: World) -> None:
    faults = world.faults({"rule": "all-shop", "kind": "error", "times": 3})

    assert draws(faults, times=10) == ["error"] * 3 + [None] * 7


def test_a_persistent_fault_is_injected_into_retries_until_the_file_is_deleted(world: World) -> None:
    faults = world.faults({"call": "sqs.*", "kind": "error", "persistent": True, "times": 1})

    def drawn(call_id: str) -> str | None:
        fault = faults.draw("call", "sqs.SendMessage", ("error",), call_id=call_id)
        return fault.kind if fault else None

    assert [drawn("first"), drawn("second"), drawn("first")] == ["error", None, "error"]
    assert faults.draw("call", "sqs.SendMessage", ("crash",), call_id="first") is None

    world.file.unlink()

    assert drawn("first") is None


def test_only_named_functions_and_calls_are_affected(world: World) -> None:
    faults = world.faults({"function": "TakerFunction", "kind": "error"}, {"call": "sqs.*", "kind": "error"})

    assert draws(faults, "function", "shop-taker-1X", 1) == ["error"]
    assert draws(faults, "function", "shop-mailer-2Y", 1) == [None]
    assert draws(faults, "call", "sqs.SendMessage", 1) == ["error"]
    assert draws(faults, "call", "sns.Publish", 1) == [None]
    assert draws(faults, "rule", "all-shop", 1) == [None]


def test_no_fault_is_injected_after_the_file_is_deleted(world: World) -> None:
    faults = world.faults({"rule": "*", "kind": "error"})
    assert draws(faults, times=1) == ["error"]

    world.file.unlink()

    assert draws(faults, times=1) == [None]


def test_the_log_has_a_line_per_fault_with_the_names_of_the_file(world: World) -> None:
    world.log.write_text("of the run before\n")
    faults = world.faults({"call": "*", "kind": "error", "by": "TakerFunction"})

    faults.inject("call", "sqs.SendMessage", by="shop-mailer-2Y", effect=False)
    faults.inject("call", "sqs.SendMessage", by="shop-taker-1X", effect=False)

    assert world.lines() == [{"kind": "error", "call": "sqs.SendMessage", "by": "TakerFunction", "effect": False}]
    assert json.loads(world.log.read_text())["time"].endswith("+00:00")


def test_without_faults_nothing_is_drawn_and_no_file_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    assert [NO_FAULTS.inject(selector, "any") for selector in KINDS] == [None] * len(KINDS)
    assert not list(tmp_path.iterdir())


# ----------------------------------------------------------------------------------------------- the file


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ("error", "must name one of function, call, rule, queue, stream"),
        ({"kind": "error", "probability": 1}, "must name one of"),
        ({"rule": "*", "queue": "*", "kind": "duplicate", "probability": 1}, "must name one of"),
        ({"rule": "*", "kind": "crash", "probability": 1}, "the kinds of a rule are duplicate, delay, error"),
        ({"rule": "*", "probability": 1}, "the kinds of a rule are"),
        ({"rule": "*", "kind": "error"}, "probability must be greater than 0"),
        ({"rule": "*", "kind": "error", "probability": 0}, "probability must be greater than 0"),
        ({"rule": "*", "kind": "error", "probability": 1.01}, "probability must be greater than 0"),
        ({"rule": "*", "kind": "error", "probability": True}, "probability must be greater than 0"),
        ({"rule": "*", "kind": "delay", "probability": 1}, "seconds must be"),
        ({"rule": "*", "kind": "error", "probability": 1, "seconds": 1}, "seconds is not a field of this entry"),
        ({"rule": "*", "kind": "error", "probability": 1, "by": "*"}, "by is not a field of this entry"),
        (
            {"rule": "*", "kind": "error", "probability": 1, "persistent": True},
            "persistent is not a field of this entry",
        ),
        ({"call": "*", "kind": "error", "probability": 1, "persistent": 1}, "persistent must be true or false"),
        ({"rule": "*", "kind": "error", "probability": 1, "times": 1.5}, "times must be"),
        ({"rule": "*", "kind": "error", "probability": 1, "often": 2}, "often is not a field of this entry"),
        ({"rule": "none-shop", "kind": "error", "probability": 1}, "there is no rule none-shop"),
        ({"rule": 5, "kind": "error", "probability": 1}, "there is no rule 5"),
        ({"function": "shop-taker-1X", "kind": "error", "probability": 1}, "there is no function shop-taker-1X"),
        ({"queue": "Jobs", "kind": "duplicate", "probability": 1}, "there is no queue Jobs"),
        ({"stream": "Stock", "kind": "duplicate", "probability": 1}, "there is no stream Stock"),
        ({"call": "dynamo.GetItem", "kind": "error", "probability": 1}, "there is no call dynamo.GetItem"),
        ({"call": "cloudwatch.*", "kind": "error", "probability": 1}, "there is no call cloudwatch.*"),
        ({"call": "dynamodb.GetItems", "kind": "error", "probability": 1}, "there is no call dynamodb.GetItems"),
        (
            {"call": "sqs.*", "kind": "stale", "probability": 1, "seconds": 5},
            "only dynamodb.GetItem, dynamodb.BatchGet",
        ),
        ({"call": "dynamodb.GetItem", "kind": "stale", "probability": 1}, "seconds must be"),
        ({"call": "dynamodb.Query", "kind": "conflict", "probability": 1}, "only dynamodb.TransactWriteItems"),
        ({"call": "*", "by": "Taker", "kind": "error", "probability": 1}, "there is no function Taker"),
    ],
)
def test_the_error_for_an_invalid_entry_names_the_entry_and_the_reason(world: World, entry: Any, reason: str) -> None:
    right = {"rule": "*", "kind": "error", "probability": 1}
    world.file.write_text(json.dumps({"seed": 1, "faults": [right, entry]}))

    with pytest.raises(InvalidFaults) as error:
        read_faults(world.file, NAMES, world.log)

    assert str(error.value).startswith(f"{world.file}: faults[1] {json.dumps(entry)}: {reason}")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"seed": 1}', '{"seed": "1", "faults": []}', '{"seed": 1, "faults": [], "x": 1}']
)
def test_a_file_in_another_format_is_rejected(world: World, text: str) -> None:
    world.file.write_text(text)

    with pytest.raises(InvalidFaults, match=r"faults\.json: "):
        read_faults(world.file, NAMES, world.log)


def test_a_missing_file_is_rejected(world: World) -> None:
    with pytest.raises(InvalidFaults, match=r"No such file.*faults\.json"):
        read_faults(world.file, NAMES, world.log)


# ------------------------------------------------------------------------------------------- invocations

COUNTING = """
import boto3, os
from pathlib import Path

def handler(event, context):
    with (Path(__file__).parent / "ran").open("a") as ran:
        ran.write(context.aws_request_id + " ")
    if event:
        answer = getattr(boto3.client(event["service"]), event["operation"])(**event["parameters"])
        return answer["ResponseMetadata"]["HTTPStatusCode"]
    return os.environ.get("AWS_ACCESS_KEY_ID")
"""


class Functions:
    """A runtime with one function that records its runs and calls AWS if the event says so."""

    def __init__(self, folder: Path, faults: Faults, environment: dict[str, str]) -> None:
        (folder / "counting.py").write_text(COUNTING)
        self._ran = folder / "ran"
        config = FunctionConfig(
            name="shop-taker-1X",
            arn="arn:aws:lambda:us-east-1:123456789012:function:shop-taker-1X",
            handler="counting.handler",
            timeout=20,
            memory=128,
            code=folder,
            layers=(),
            environment={},
        )
        self.runtime = Runtime([config], environment=environment, on_log=lambda *_: None, faults=faults)
        self.runtime.start()
        assert self.runtime.failed_imports() == {}

    def invoke(self, event: Any = None) -> InvocationResult:
        return self.runtime.invoke("shop-taker-1X", json.dumps(event).encode())

    def ran(self) -> list[str]:
        """Returns the request IDs of the runs."""
        return self._ran.read_text().split() if self._ran.exists() else []


@pytest.fixture
def functions(tmp_path: Path) -> Iterator[Callable[..., Functions]]:
    made: list[Functions] = []

    def make(faults: Faults, environment: dict[str, str] | None = None) -> Functions:
        made.append(Functions(tmp_path, faults, environment or {}))
        return made[-1]

    yield make
    for each in made:
        each.runtime.stop()


def error_of(result: InvocationResult) -> Any:
    assert result.function_error == "Unhandled"
    return json.loads(result.payload)


def test_an_invocation_is_throttled_for_every_caller(world: World, functions: Callable[..., Functions]) -> None:
    taker = functions(world.faults({"function": "TakerFunction", "kind": "throttle", "times": 2}))
    done: SimpleQueue[Any] = SimpleQueue()

    with pytest.raises(Throttled):
        taker.invoke()
    taker.runtime.invoke_async("shop-taker-1X", b"null", done.put)

    assert isinstance(done.get(timeout=PATIENCE), Throttled)
    assert taker.ran() == []
    assert taker.invoke().function_error is None


@pytest.mark.parametrize(
    ("kind", "error_type", "message"),
    [("error", "FaultInjected", "injected fault"), ("time-out", "Sandbox.Timedout", "Task timed out after 20.00 s")],
)
def test_an_invocation_fails_without_running_the_function(
    world: World, functions: Callable[..., Functions], kind: str, error_type: str, message: str
) -> None:
    taker = functions(world.faults({"function": "*", "kind": kind}))

    result = taker.invoke()

    assert error_of(result)["errorType"] == error_type
    assert message in error_of(result)["errorMessage"]
    assert result.duration < 5
    assert taker.ran() == []


def test_a_function_crashes_after_its_end_and_runs_again(world: World, functions: Callable[..., Functions]) -> None:
    taker = functions(world.faults({"function": "*", "kind": "crash", "times": 1}))

    error = error_of(taker.invoke())

    (request_id,) = taker.ran()
    text = f"RequestId: {request_id} Error: Runtime exited with error: signal: killed"
    assert error == {"errorType": "Runtime.ExitError", "errorMessage": text}
    assert world.lines() == [{"kind": "crash", "function": "TakerFunction", "request": request_id}]
    assert taker.invoke().function_error is None
    assert len(taker.ran()) == 2


def test_each_process_is_found_by_its_own_access_key(functions: Callable[..., Functions]) -> None:
    taker = functions(NO_FAULTS, {"AWS_ACCESS_KEY_ID": "local"})

    key = json.loads(taker.invoke().payload)

    process = taker.runtime.caller(key)
    assert process is not None
    assert process.function == "shop-taker-1X"
    assert taker.runtime.caller("local") is None


# -------------------------------------------------------------------------------------------------- calls

KEY = "LOCALTAKER"


class Taker:
    """A fake process of a function."""

    function = "shop-taker-1X"

    def __init__(self) -> None:
        self.killed = 0

    def kill(self) -> None:
        self.killed += 1


class Calls:
    """A store with faults for the calls of one access key."""

    def __init__(self, world: World, store: Store) -> None:
        self._world = world
        self._store = store
        self.taker = Taker()
        self.waited: list[float] = []
        self.put: list[dict[str, Any]] = []
        store.on_put_events = self._put_events

    def hit(self, *entries: dict[str, Any]) -> None:
        def outside(seconds: float) -> float:
            self.waited.append(seconds)
            return seconds / 1000

        callers = {KEY: self.taker}
        self._store.on_call = FaultyCalls(
            self._world.faults(*entries), callers.get, outside, self._store.stale_reads
        ).answer
        self._store.keeps_previous_images = True

    def client(self, service: str, key: str = KEY, attempts: int = 1) -> Any:
        return boto3.Session(region_name=self._store.region).client(
            service,  # type: ignore[call-overload]
            endpoint_url=self._store.endpoint,
            aws_access_key_id=key,
            aws_secret_access_key="local",
            config=Config(retries={"total_max_attempts": attempts}, account_id_endpoint_mode="disabled"),
        )

    def _put_events(self, entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
        self.put += entries
        return [{"EventId": f"id-{entry['DetailType']}"} for entry in entries]


@pytest.fixture
def calls(world: World, store: Store) -> Calls:
    store.client("dynamodb").create_table(
        TableName="stock",
        KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )
    return Calls(world, store)


def failure(call: Callable[..., Any], **parameters: Any) -> tuple[str, int]:
    """Returns the error code and the status of a call's response."""
    with pytest.raises(ClientError) as error:
        call(**parameters)
    response = error.value.response
    return str(response["Error"]["Code"]), int(response["ResponseMetadata"]["HTTPStatusCode"])


def put_item(client: Any, **more: Any) -> Any:
    return client.put_item(TableName="stock", Item={"pk": {"S": "a"}}, **more)


def items(store: Store) -> int:
    return int(store.client("dynamodb").scan(TableName="stock")["Count"])


@pytest.mark.parametrize(
    ("service", "operation", "parameters", "throttle", "error"),
    [
        (
            "dynamodb",
            "put_item",
            {"TableName": "stock", "Item": {"pk": {"S": "a"}}},
            ("ProvisionedThroughputExceededException", 400),
            "InternalServerError",
        ),
        ("dynamodbstreams", "list_streams", {}, ("ThrottlingException", 400), "InternalFailure"),
        ("sqs", "send_message", {"QueueUrl": "q", "MessageBody": "b"}, ("RequestThrottled", 400), "InternalFailure"),
        ("sns", "publish", {"TopicArn": "arn:t", "Message": "m"}, ("Throttled", 429), "InternalError"),
        ("lambda", "invoke", {"FunctionName": "f"}, ("TooManyRequestsException", 429), "ServiceException"),
        ("sesv2", "get_account", {}, ("TooManyRequestsException", 429), "InternalFailure"),
        (
            "stepfunctions",
            "start_execution",
            {"stateMachineArn": "arn:s"},
            ("ThrottlingException", 400),
            "InternalFailure",
        ),
        ("secretsmanager", "get_secret_value", {"SecretId": "s"}, ("ThrottlingException", 400), "InternalFailure"),
    ],
)
def test_each_service_has_its_own_error_codes(
    calls: Calls,
    world: World,
    service: str,
    operation: str,
    parameters: dict[str, Any],
    throttle: tuple[str, int],
    error: str,
) -> None:
    client = calls.client(service)
    name = f"{service}.{client.meta.method_to_api_mapping[operation]}"
    calls.hit({"call": name, "kind": "throttle", "times": 1}, {"call": f"{service}.*", "kind": "error"})

    assert failure(getattr(client, operation), **parameters) == throttle
    assert failure(getattr(client, operation), **parameters) == (error, 500)
    logged = {"call": name, "by": "TakerFunction", "effect": False}
    assert world.lines() == [{"kind": "throttle"} | logged, {"kind": "error"} | logged]


def test_a_failed_call_has_no_effect(calls: Calls, store: Store) -> None:
    calls.hit({"call": "dynamodb.PutItem", "kind": "error"})

    assert failure(put_item, client=calls.client("dynamodb")) == ("InternalServerError", 500)

    assert items(store) == 0


def test_calls_of_other_clients_are_not_affected(calls: Calls, store: Store, world: World) -> None:
    calls.hit({"call": "*", "kind": "error"}, {"call": "*", "kind": "crash"})

    put_item(calls.client("dynamodb", key="local"))

    assert items(store) == 1
    assert world.lines() == []


def test_calls_of_an_unknown_service_are_not_affected(calls: Calls) -> None:
    calls.hit({"call": "*", "kind": "error"})

    answer = calls.client("cloudwatch").list_metrics()  # signs for `monitoring`

    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 200


def test_calls_of_other_functions_are_not_affected(calls: Calls, store: Store) -> None:
    calls.hit({"call": "*", "kind": "error", "by": "MailFunction"})

    put_item(calls.client("dynamodb"))

    assert items(store) == 1


@pytest.mark.parametrize("exists", [False, True])
def test_an_answer_is_lost_after_the_effect_if_there_was_one(
    calls: Calls, store: Store, world: World, exists: bool
) -> None:
    if exists:
        put_item(calls.client("dynamodb", key="local"))
    calls.hit({"call": "dynamodb.PutItem", "kind": "lost-answer"})

    condition = {"ConditionExpression": "attribute_not_exists(pk)"}
    with pytest.raises(ConnectionClosedError):
        put_item(calls.client("dynamodb"), **condition)

    assert items(store) == 1
    assert world.lines() == [
        {"kind": "lost-answer", "call": "dynamodb.PutItem", "by": "TakerFunction", "effect": not exists}
    ]


UPDATE = {
    "TableName": "stock",
    "Key": {"pk": {"S": "a"}},
    "UpdateExpression": "SET n = :n",
    "ExpressionAttributeValues": {":n": {"N": "1"}},
}
STRUCK = {"call": "dynamodb.UpdateItem", "by": "TakerFunction", "key": {"pk": "a"}}


def test_the_sdk_retries_a_call_until_it_takes_effect(calls: Calls, store: Store, world: World) -> None:
    calls.hit({"call": "dynamodb.*", "kind": "error", "times": 1})

    calls.client("dynamodb", attempts=3).update_item(**UPDATE)

    assert items(store) == 1
    assert world.lines() == [
        {"kind": "error", **STRUCK, "effect": False},
        {"kind": "recovered", **STRUCK, "effect": True},
    ]
    assert len(set(world.call_ids())) == 1


def test_a_persistent_fault_outlasts_the_retries_of_the_sdk(calls: Calls, store: Store, world: World) -> None:
    calls.hit({"call": "dynamodb.*", "kind": "error", "persistent": True, "times": 1})
    client = calls.client("dynamodb", attempts=3)

    assert failure(client.update_item, **UPDATE) == ("InternalServerError", 500)

    assert items(store) == 0
    assert world.lines() == [{"kind": "error", **STRUCK, "persistent": True, "effect": False}] * 3
    assert len(set(world.call_ids())) == 1
    client.update_item(**UPDATE)
    assert items(store) == 1


def test_every_answer_to_a_call_can_be_lost(calls: Calls, store: Store, world: World) -> None:
    calls.hit({"call": "dynamodb.*", "kind": "lost-answer", "persistent": True, "times": 1})

    with pytest.raises(ConnectionClosedError):
        calls.client("dynamodb", attempts=3).update_item(**UPDATE)

    assert items(store) == 1
    assert world.lines() == [{"kind": "lost-answer", **STRUCK, "persistent": True, "effect": True}] * 3


def test_the_caller_is_killed_after_the_effect_and_gets_no_answer(calls: Calls, store: Store) -> None:
    calls.hit({"call": "dynamodb.PutItem", "kind": "crash", "times": 1})

    with pytest.raises(HTTPClientError):
        put_item(calls.client("dynamodb"))

    assert calls.taker.killed == 1
    assert items(store) == 1


def test_a_delay_uses_the_runners_clock(calls: Calls, store: Store) -> None:
    calls.hit({"call": "dynamodb.PutItem", "kind": "delay", "seconds": 20})

    answer = put_item(calls.client("dynamodb"))

    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 200
    assert calls.waited == [20]
    assert items(store) == 1


def test_a_mail_is_logged_by_its_tags_and_without_its_address(calls: Calls, store: Store, world: World) -> None:
    sent: list[bytes] = []
    store.on_mail = sent.append
    ses = calls.client("sesv2")
    ses.create_email_identity(EmailIdentity=ADDRESS)
    calls.hit({"call": "sesv2.SendEmail", "kind": "lost-answer", "times": 1}, {"call": "*", "kind": "throttle"})
    mail = {
        "FromEmailAddress": ADDRESS,
        "Destination": {"ToAddresses": [ADDRESS]},
        "Content": {"Simple": {"Subject": {"Data": "Hej"}, "Body": {"Text": {"Data": "Hej"}}}},
        "EmailTags": [{"Name": "kind", "Value": "greeting"}],
    }

    codes = [failure(ses.send_email, **mail)]
    codes.append(failure(ses.send_email, **mail))

    # A fault that replaces the call has precedence over an earlier entry
    assert codes == [("TooManyRequestsException", 429)] * 2
    assert sent == []
    what = {"call": "sesv2.SendEmail", "by": "TakerFunction", "tags": {"kind": "greeting"}, "effect": False}
    assert world.lines() == [{"kind": "throttle"} | what] * 2
    assert ADDRESS not in world.log.read_text()


def events(*names: str) -> list[dict[str, str]]:
    return [{"Source": "shop", "DetailType": name, "Detail": '{"who": "x"}'} for name in names]


def test_single_entries_are_rejected_and_the_others_are_accepted(calls: Calls, world: World) -> None:
    calls.hit(
        {"call": "events.PutEvents", "kind": "throttle", "times": 1},
        {"call": "events.*", "kind": "error", "times": 1},
    )

    answer = calls.client("events").put_events(Entries=events("A", "B", "C"))

    assert answer["FailedEntryCount"] == 2
    results = [entry.get("ErrorCode") or entry["EventId"] for entry in answer["Entries"]]
    assert results == ["ThrottlingException", "InternalFailure", "id-C"]
    assert [entry["DetailType"] for entry in calls.put] == ["C"]
    assert [(line["kind"], line["detail-type"]) for line in world.lines()] == [("throttle", "A"), ("error", "B")]


def test_all_entries_of_a_request_can_be_rejected_or_none(calls: Calls) -> None:
    calls.hit({"call": "events.PutEvents", "kind": "error", "times": 2})
    client = calls.client("events")

    assert client.put_events(Entries=events("A", "B"))["FailedEntryCount"] == 2
    assert calls.put == []
    assert client.put_events(Entries=events("A", "B"))["FailedEntryCount"] == 0
    assert [entry["DetailType"] for entry in calls.put] == ["A", "B"]


def test_the_answer_to_put_events_can_be_lost_as_a_whole(calls: Calls, world: World) -> None:
    calls.hit({"call": "events.PutEvents", "kind": "lost-answer"})

    with pytest.raises(ConnectionClosedError):
        calls.client("events").put_events(Entries=events("A"))

    assert [entry["DetailType"] for entry in calls.put] == ["A"]
    assert [line["effect"] for line in world.lines()] == [True]


def test_a_function_crashes_in_its_call_and_its_invocation_ends_with_it(
    world: World, store: Store, calls: Calls, functions: Callable[..., Functions]
) -> None:
    faults = world.faults({"call": "dynamodb.PutItem", "kind": "crash", "times": 1})
    taker = functions(faults, store.function_environment())
    store.on_call = FaultyCalls(faults, taker.runtime.caller, Clock(1000).real_seconds, store.stale_reads).answer
    event = {
        "service": "dynamodb",
        "operation": "put_item",
        "parameters": {"TableName": "stock", "Item": {"pk": {"S": "a"}}},
    }

    crashed, went_well = taker.invoke(event), taker.invoke(event)

    assert error_of(crashed)["errorType"] == "Runtime.ExitError"
    assert (went_well.function_error, went_well.payload) == (None, b"200")
    assert items(store) == 1
    assert world.lines() == [{"kind": "crash", "call": "dynamodb.PutItem", "by": "TakerFunction", "effect": True}]


KEY_A = {"pk": {"S": "a"}}
READ = {
    "get_item": lambda client, **more: client.get_item(TableName="stock", Key=KEY_A, **more).get("Item"),
    "batch_get_item": lambda client, **more: (
        client.batch_get_item(RequestItems={"stock": {"Keys": [KEY_A], **more}})["Responses"]["stock"] or [None]
    )[0],
    "query": lambda client, **more: (
        client.query(
            TableName="stock",
            KeyConditionExpression="pk = :pk",
            ExpressionAttributeValues={":pk": {"S": "a"}},
            **more,
        )["Items"]
        or [None]
    )[0],
}


def update_n(client: Any, n: int) -> None:
    client.update_item(
        TableName="stock",
        Key=KEY_A,
        UpdateExpression="SET n = :n",
        ExpressionAttributeValues={":n": {"N": str(n)}},
    )


def test_a_write_conflicts_with_another_transaction_and_has_no_effect(calls: Calls, world: World) -> None:
    calls.hit({"call": "dynamodb.*", "kind": "conflict", "times": 2})
    client, put = calls.client("dynamodb"), {"TableName": "stock", "Item": {"pk": {"S": "cup"}}}

    with pytest.raises(ClientError) as cancelled:
        client.transact_write_items(TransactItems=[{"Put": put}])
    alone = failure(client.put_item, **put)
    client.get_item(TableName="stock", Key=put["Item"])

    assert cancelled.value.response["Error"]["Code"] == "TransactionCanceledException"
    assert [reason["Code"] for reason in cancelled.value.response["CancellationReasons"]] == ["TransactionConflict"]
    assert alone == ("TransactionConflictException", 400)
    assert [(line["kind"], line["effect"]) for line in world.lines()] == [("conflict", False)] * 2


@pytest.mark.parametrize("read", READ.values(), ids=READ)
def test_a_stale_read_misses_the_last_write_unless_it_is_consistent(
    calls: Calls, store: Store, read: Callable[..., Any]
) -> None:
    calls.hit({"call": "dynamodb.*", "kind": "stale", "seconds": 3600_000})  # an hour, a thousand times as fast
    client = calls.client("dynamodb")
    seen, known = [], []

    for n in (1, 2):
        update_n(client, n)
        seen.append(read(client))
        known.append(read(client, ConsistentRead=True))
    client.delete_item(TableName="stock", Key=KEY_A)
    seen.append(read(client))
    known.append(read(client, ConsistentRead=True))

    assert [each and each["n"]["N"] for each in seen] == [None, "1", "2"]
    assert [each and each["n"]["N"] for each in known] == ["1", "2", None]
    assert read(store.client("dynamodb")) is None  # only reads of functions are stale


def test_a_stale_read_sees_what_was_written_long_enough_ago(calls: Calls, world: World) -> None:
    calls.hit({"call": "dynamodb.GetItem", "kind": "stale", "seconds": 0.001})
    client = calls.client("dynamodb")
    update_n(client, 1)

    wait_until(lambda: READ["get_item"](client))

    struck = {"call": "dynamodb.GetItem", "by": "TakerFunction", "key": {"pk": "a"}}
    assert world.lines()[-1] == {"kind": "stale", **struck, "effect": True}


def test_a_stale_read_misses_what_a_transaction_wrote_and_a_cancelled_one_changes_nothing(calls: Calls) -> None:
    calls.hit({"call": "dynamodb.GetItem", "kind": "stale", "seconds": 3600_000})
    client = calls.client("dynamodb")
    update_n(client, 1)
    client.transact_write_items(TransactItems=[{"Put": {"TableName": "stock", "Item": {**KEY_A, "n": {"N": "2"}}}}])
    with pytest.raises(ClientError, match="TransactionCanceled"):
        client.transact_write_items(
            TransactItems=[
                {
                    "Put": {
                        "TableName": "stock",
                        "Item": {**KEY_A, "n": {"N": "3"}},
                        "ConditionExpression": "attribute_not_exists(pk)",
                    }
                }
            ]
        )

    assert READ["get_item"](client)["n"]["N"] == "1"
    assert READ["get_item"](client, ConsistentRead=True)["n"]["N"] == "2"


def test_an_incomplete_request_of_a_killed_caller_is_not_executed(store: Store) -> None:
    seen: list[bytes] = []
    store.on_call = lambda request, _execute: seen.append(request.body)
    host, port = store.endpoint.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nContent-Length: 100\r\n\r\n{}")
        connection.shutdown(socket.SHUT_WR)

        answer = connection.recv(1000)

    assert answer.startswith(b"HTTP/1.1 400 ")
    assert seen == []


# -------------------------------------------------------------------------------------------------- rules


class Shop:
    """A bus with one rule, and its target."""

    def __init__(self, faults: Faults) -> None:
        self.taken: SimpleQueue[Any] = SimpleQueue()
        self.scheduler = Scheduler(Clock(1000), print)
        rule = {
            "Name": "all-shop",
            "EventPattern": {"source": ["shop"]},
            "Targets": [{"Id": "one", "Arn": "arn:aws:lambda:us-east-1:123456789012:function:shop-taker-1X"}],
        }
        self.bus = Bus(
            names=["default"],
            rules=read_rules([rule], ("lambda",)),
            scheduler=self.scheduler,
            targets=RecordingTargets(lambda _arn, payload: self.taken.put(json.loads(payload)["id"])),
            on_event=lambda _: None,
            on_failure=print,
            faults=faults,
        )
        self.scheduler.start()
        self.bus.start()

    def put(self, *names: str) -> list[str]:
        """Returns the IDs of the events."""
        return [entry["EventId"] for entry in self.bus.put_events(events(*names))]

    def next(self) -> Any:
        return self.taken.get(timeout=PATIENCE)


@pytest.fixture
def shop() -> Iterator[Callable[[Faults], Shop]]:
    made: list[Shop] = []

    def make(faults: Faults) -> Shop:
        made.append(Shop(faults))
        return made[-1]

    yield make
    for each in made:
        each.bus.stop()
        each.scheduler.stop()


def test_an_event_reaches_its_target_twice(world: World, shop: Callable[[Faults], Shop]) -> None:
    bus = shop(world.faults({"rule": "all-shop", "kind": "duplicate", "times": 1}))

    first, second = bus.put("A", "B")

    assert [bus.next() for _ in range(3)] == [first, first, second]
    target = "arn:aws:lambda:us-east-1:123456789012:function:shop-taker-1X"
    assert world.lines() == [{"kind": "duplicate", "rule": "all-shop", "target": target, "event": first}]


def test_a_later_event_overtakes_a_delayed_one(world: World, shop: Callable[[Faults], Shop]) -> None:
    bus = shop(world.faults({"rule": "*", "kind": "delay", "seconds": 60, "times": 1}))

    first, second = bus.put("A", "B")

    assert [bus.next() for _ in range(2)] == [second, first]


def test_a_failed_delivery_is_retried(world: World, shop: Callable[[Faults], Shop]) -> None:
    bus = shop(world.faults({"rule": "*", "kind": "error", "times": 2}))

    (event,) = bus.put("A")

    assert bus.next() == event
    assert [(line["kind"], line["event"]) for line in world.lines()] == [("error", event)] * 2


# ----------------------------------------------------------------------------------- event source mappings

STREAM = "arn:aws:dynamodb:us-east-1:123456789012:table/shop-stock/stream/2026-11-21T00:00:00.000"
QUEUE = "arn:aws:sqs:us-east-1:123456789012:shop-jobs"
BATCHES = {
    "stream": [{"eventID": name, "eventSourceARN": STREAM} for name in "abc"],
    "queue": [{"messageId": name, "eventSourceARN": QUEUE} for name in "abc"],
}


class Mapping:
    """Invokes a function that returns the given results with a batch."""

    def __init__(self, *answers: InvocationResult) -> None:
        self.batches: list[str] = []
        self._answers = iter(answers)

    def invoke(self, _function: str, payload: bytes) -> InvocationResult:
        records = json.loads(payload)["Records"]
        self.batches.append("".join(record.get("eventID") or record["messageId"] for record in records))
        return next(self._answers)


SUCCESS = InvocationResult(b"null", None, 0.1)
ALSO_SUCCESS = InvocationResult(b'{"batchItemFailures": []}', None, 0.1)
PARTIAL = InvocationResult(b'{"batchItemFailures": [{"itemIdentifier": "b"}]}', None, 0.1)
FAILURE = InvocationResult(b'{"errorType": "E"}', "Unhandled", 0.1)


def hand_over(faults: Faults, selector: str, mapping: Mapping) -> InvocationResult:
    batch = json.dumps({"Records": BATCHES[selector]}).encode()
    return repeating(faults, selector, mapping.invoke)("shop-taker-1X", batch)


def test_a_batch_of_a_stream_is_delivered_twice(world: World) -> None:
    mapping = Mapping(SUCCESS, FAILURE)

    result = hand_over(world.faults({"stream": "StockTable", "kind": "duplicate"}), "stream", mapping)

    assert mapping.batches == ["abc", "abc"]
    assert result is FAILURE  # so the batch is retried, like any failed batch
    assert world.lines() == [{"kind": "duplicate", "stream": "StockTable", "records": ["a", "b", "c"]}]


def test_single_messages_of_a_queue_are_delivered_twice(world: World) -> None:
    mapping = Mapping(ALSO_SUCCESS, SUCCESS)

    hand_over(world.faults({"queue": "JobsQueue", "kind": "duplicate", "times": 2}), "queue", mapping)

    assert mapping.batches == ["abc", "ab"]
    assert world.lines() == [{"kind": "duplicate", "queue": "JobsQueue", "message": name} for name in "ab"]


@pytest.mark.parametrize("result", [FAILURE, PARTIAL])
def test_a_batch_that_failed_is_not_repeated_by_a_fault(world: World, result: InvocationResult) -> None:
    mapping = Mapping(result)

    answer = hand_over(world.faults({"queue": "*", "kind": "duplicate"}), "queue", mapping)

    assert answer is result
    assert mapping.batches == ["abc"]


def test_without_faults_a_batch_is_delivered_once() -> None:
    mapping = Mapping(SUCCESS)

    hand_over(NO_FAULTS, "stream", mapping)

    assert mapping.batches == ["abc"]
