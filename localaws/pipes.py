"""EventBridge Pipes from a table's stream to a target. Each record is sent as a text.

Sources: "Amazon EventBridge Pipes" (user guide): input transformation, error handling; Pipe (API reference).
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from localaws.delivery import Clock
from localaws.input_transformer import InvalidInput, JsonPath
from localaws.lambda_runtime import InvocationResult
from localaws.stream_poller import Record, StreamMapping, StreamPoller, read_mapping
from localaws.targets import Targets, UnsupportedTarget, service_of

SERVICES = ("sns", "sqs")
"""The supported target services. Lambda is not supported: a pipe invokes it synchronously with a list of records."""

_VARIABLE = re.compile(r"<([^<>]*)>")


@dataclass(frozen=True)
class Pipe:
    """A running pipe.

    Args:
        stream: the source stream and its settings; `function` is the ARN of the pipe.
        target: ARN of the target.
        template: texts and JSON paths into a record, in order.
    """

    stream: StreamMapping
    target: str
    template: tuple[str | JsonPath, ...]

    def fill(self, record: Record) -> str:
        """Returns the text for a record. A path without a value becomes an empty string."""
        return "".join(part if isinstance(part, str) else _text(part.find(record, "")) for part in self.template)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def read_pipe(arn: str, properties: Mapping[str, Any]) -> Pipe:
    """Returns the pipe with an ARN and the resolved properties of an `AWS::Pipes::Pipe`.

    Raises:
        InvalidEventPattern: Pipes would reject a filter.
        UnsupportedTarget: the source is not a table's stream, the pipe has an enrichment, the target is not supported,
            or the template is not a text with paths.
    """
    source, target = properties["Source"], properties["Target"]
    if service_of(source) != "dynamodb" or service_of(target) not in SERVICES or "Enrichment" in properties:
        raise UnsupportedTarget(f"pipe {arn}: delivery from {source} to {target} is not supported")
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
        raise InvalidInput("only an InputTemplate of plain text is supported")
    for place, part in enumerate(_VARIABLE.split(text)):
        yield JsonPath(part) if place % 2 else part


def pipe_poller(pipe: Pipe, *, clock: Clock, targets: Targets, on_failure: Callable[[str, str], None]) -> StreamPoller:
    """Returns the poller of a pipe. It delivers to the target in place of a function.

    `on_failure` is called with the pipe's ARN and one line about a failure and the next step.
    """

    def run(_arn: str, payload: bytes) -> InvocationResult:
        for record in json.loads(payload)["Records"]:
            targets.deliver(pipe.target, pipe.fill(record))
        return InvocationResult(b"null", None, 0.0)

    return StreamPoller(pipe.stream, clock, run, targets, on_failure)
