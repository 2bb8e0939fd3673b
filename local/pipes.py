"""EventBridge Pipes from a table's stream to a target, each record as a text.

Sources: "Amazon EventBridge Pipes" (user guide): input transformation, error handling; Pipe (API reference).
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from local.bus import UnsupportedTarget, service_of
from local.delivery import Clock
from local.inputs import InvalidInput, JsonPath
from local.runtime import InvocationResult
from local.sources import Record, StreamMapping, StreamSources, read_mapping

TARGETS = ("sns", "sqs")
"""The services that a pipe delivers to. A function would get a list, and be waited for."""

_VARIABLE = re.compile(r"<([^<>]*)>")


@dataclass(frozen=True)
class Pipe:
    """A running pipe.

    Args:
        stream: what it reads, and how; its function is the pipe's own ARN.
        target: the target's ARN.
        template: texts, and paths into a record between them.
    """

    stream: StreamMapping
    target: str
    template: tuple[str | JsonPath, ...]

    def fill(self, record: Record) -> str:
        """What the target gets of a record. A path without a value leaves nothing behind."""
        return "".join(part if isinstance(part, str) else _text(part.find(record, "")) for part in self.template)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def read_pipe(arn: str, properties: Mapping[str, Any]) -> Pipe:
    """A pipe from the resolved properties of an `AWS::Pipes::Pipe`.

    Args:
        arn: the pipe's.
        properties: of the resource.

    Raises:
        InvalidEventPattern: a filter is not one that Pipes takes.
        UnsupportedTarget: it has another source than a table's stream, an enrichment, another target, or another
            template than a text with paths.
    """
    source, target = properties["Source"], properties["Target"]
    if service_of(source) != "dynamodb" or service_of(target) not in TARGETS or "Enrichment" in properties:
        raise UnsupportedTarget(f"pipe {arn}: no delivery from {source} to {target}")
    parameters = properties.get("SourceParameters", {})
    stream = parameters.get("DynamoDBStreamParameters", {})
    mapping = {
        "FunctionName": arn,
        "EventSourceArn": source,
        "FilterCriteria": parameters.get("FilterCriteria", {}),
        "DestinationConfig": {"OnFailure": {"Destination": stream.get("DeadLetterConfig", {}).get("Arn")}},
    }
    text = properties.get("TargetParameters", {}).get("InputTemplate", "")
    try:
        return Pipe(read_mapping(mapping | stream), target, tuple(_read_template(text)))
    except InvalidInput as error:
        raise UnsupportedTarget(f"pipe {arn}: {error}") from error


def _read_template(text: str) -> Iterable[str | JsonPath]:
    if not text or text.lstrip().startswith("{"):
        raise InvalidInput("only an InputTemplate that is a text is supported")
    for place, part in enumerate(_VARIABLE.split(text)):
        yield JsonPath(part) if place % 2 else part


def pipe_sources(
    pipes: Iterable[Pipe],
    *,
    clock: Clock,
    hand_over: Callable[[str, str, str | None], None],
    send: Callable[[str, str], None],
    on_failure: Callable[[str, str], None],
) -> StreamSources:
    """What feeds pipes: stream mappings that invoke a pipe where others invoke a function.

    Args:
        pipes: from `read_pipe`.
        clock: what a second is.
        hand_over: gives a payload to a target, by its ARN; it may raise.
        send: hands a message to a queue by its ARN; it may raise.
        on_failure: is told the pipe's ARN, and in a line what failed and what happens next.
    """
    by_arn = {pipe.stream.function: pipe for pipe in pipes}

    def run(arn: str, payload: bytes) -> InvocationResult:
        for record in json.loads(payload)["Records"]:
            hand_over(by_arn[arn].target, by_arn[arn].fill(record), None)
        return InvocationResult(b"null", None, 0.0)

    streams = [pipe.stream for pipe in by_arn.values()]
    return StreamSources(streams, clock=clock, invoke=run, send=send, on_failure=on_failure)
