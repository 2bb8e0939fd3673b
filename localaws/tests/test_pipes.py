"""Pipes: which records are sent to the target, their text, and failed deliveries."""

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localaws.delivery import Clock, Undelivered
from localaws.pipes import pipe_poller, read_pipe
from localaws.targets import UnsupportedTarget
from localaws.tests.support import RecordingTargets, wait_until

ACCOUNT = "us-east-1:123456789012"
PIPE = f"arn:aws:pipes:{ACCOUNT}:pipe/parked"
STREAM = f"arn:aws:dynamodb:{ACCOUNT}:table/failed/stream/2026"
TOPIC = f"arn:aws:sns:{ACCOUNT}:alerts"
DLQ = f"arn:aws:sqs:{ACCOUNT}:dlq"
PARKED = {"NewImage": {"status": {"S": ["PARKED"]}}, "OldImage": {"status": {"S": [{"anything-but": ["PARKED"]}]}}}
NEW = {"NewImage": {"status": {"S": ["PARKED"]}}, "OldImage": {"status": {"S": [{"exists": False}]}}}


def properties(template: str = "<$.dynamodb.NewImage.id.S> parked", **stream: Any) -> dict[str, Any]:
    return {
        "Source": STREAM,
        "SourceParameters": {
            "DynamoDBStreamParameters": {"BatchSize": 1, "DeadLetterConfig": {"Arn": DLQ}, **stream},
            "FilterCriteria": {"Filters": [{"Pattern": json.dumps({"dynamodb": each})} for each in (PARKED, NEW)]},
        },
        "Target": TOPIC,
        "TargetParameters": {"InputTemplate": template},
    }


def record(number: int, before: str | None, after: str | None) -> dict[str, Any]:
    change: dict[str, Any] = {"SequenceNumber": str(number), "ApproximateCreationDateTime": time.time()}
    for name, status in (("OldImage", before), ("NewImage", after)):
        if status is not None:
            change[name] = {"id": {"S": f"record-{number}"}, "status": {"S": status}}
    return {"eventID": str(number), "eventName": "MODIFY", "dynamodb": change}


class RunningPipe:
    """A pipe with a topic as its target. Records its messages and the discarded records."""

    def __init__(self, handle: Callable[[str], None], **stream: Any) -> None:
        self.failures: list[str] = []
        self._targets = RecordingTargets(lambda _arn, payload: handle(payload))
        self.poller = pipe_poller(
            read_pipe(PIPE, properties(**stream)),
            clock=Clock(1000),
            targets=self._targets,
            on_failure=lambda pipe, text: self.failures.append(f"{pipe}: {text}"),
        )
        self.poller.start()

    @property
    def got(self) -> list[str]:
        assert {arn for arn, _ in self._targets.delivered} <= {TOPIC}
        return [payload for _, payload in self._targets.delivered]

    @property
    def sent(self) -> list[dict[str, Any]]:
        assert {arn for arn, *_ in self._targets.sent} <= {DLQ}
        return [json.loads(body) for _, body, _ in self._targets.sent]


Make = Callable[..., RunningPipe]


@pytest.fixture
def make_pipe() -> Iterator[Make]:
    made: list[RunningPipe] = []

    def make(handle: Callable[[str], None] = lambda _: None, **stream: Any) -> RunningPipe:
        made.append(RunningPipe(handle, **stream))
        return made[-1]

    yield make
    for each in made:
        each.poller.stop()


def test_only_the_change_to_a_status_is_sent_and_not_later_changes(make_pipe: Make) -> None:
    pipe = make_pipe()
    changes = [(None, "NEW"), ("NEW", "PARKED"), ("PARKED", "PARKED"), ("PARKED", "RESOLVED"), ("PARKED", None)]
    for number, (before, after) in enumerate([*changes, (None, "PARKED"), ("RETRYING", "PARKED")]):
        pipe.poller.on_record(STREAM, record(number, before, after))
    wait_until(lambda: len(pipe.got) == 3)
    assert pipe.got == ["record-1 parked", "record-5 parked", "record-6 parked"]


def test_a_failed_delivery_is_retried(make_pipe: Make) -> None:
    errors = iter([Undelivered("NO_RESOURCE", "gone", retriable=False), RuntimeError("no")])

    def handle(_: str) -> None:
        for error in errors:
            raise error

    pipe = make_pipe(handle, MaximumRetryAttempts=5)
    pipe.poller.on_record(STREAM, record(1, "NEW", "PARKED"))
    wait_until(lambda: pipe.got)
    assert pipe.failures == [
        f"{PIPE}: Undelivered: NO_RESOURCE: gone; 1 records, next attempt in 0.0 s",
        f"{PIPE}: RuntimeError: no; 1 records, next attempt in 0.0 s",
    ]


def test_a_record_without_retries_left_goes_to_the_dlq_as_a_pointer(make_pipe: Make) -> None:
    def refuse(text: str) -> None:
        if text.startswith("record-1"):
            raise RuntimeError("no")

    pipe = make_pipe(refuse, MaximumRetryAttempts=2)
    for number in (1, 2):
        pipe.poller.on_record(STREAM, record(number, "NEW", "PARKED"))
    wait_until(lambda: pipe.got)
    assert pipe.got == ["record-2 parked"]
    (pointer,) = pipe.sent
    assert pointer["context"] == {"partnerResourceArn": PIPE, "condition": "RetryAttemptsExhausted"}
    assert pointer["DDBStreamBatchInfo"]["startSequenceNumber"] == "1"
    assert "requestContext" not in pointer


@given(st.text())
def test_a_value_is_inserted_unchanged_and_a_missing_value_is_empty(value: str) -> None:
    pipe = read_pipe(PIPE, properties("a <$.dynamodb.NewImage.id.S>, <$.dynamodb.NewImage.order.S>; <$.size> b"))
    found = pipe.fill({"dynamodb": {"NewImage": {"id": {"S": value}}}, "size": 3})
    assert found == f"a {value}, ; 3 b"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"Source": DLQ}, "delivery from arn:aws:sqs"),
        ({"Target": f"arn:aws:lambda:{ACCOUNT}:function:counter"}, "delivery from .* to arn:aws:lambda"),
        ({"Enrichment": "arn"}, "delivery"),
        ({"TargetParameters": {}}, "only an InputTemplate of plain text"),
        ({"TargetParameters": {"InputTemplate": '{"id": <$.id>}'}}, "only an InputTemplate of plain text"),
        ({"TargetParameters": {"InputTemplate": "by <aws.pipes.pipe-name>"}}, "aws.pipes.pipe-name is not a path"),
    ],
)
def test_the_error_for_an_unsupported_pipe_names_it(change: dict[str, Any], said: str) -> None:
    with pytest.raises(UnsupportedTarget, match=f"pipe {PIPE}: {said}"):
        read_pipe(PIPE, properties() | change)
