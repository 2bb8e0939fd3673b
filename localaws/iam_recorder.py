"""Records the IAM actions that the functions' AWS calls need, to compare them with what their roles allow."""

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote

from localaws.faults import Caller, OnCall, caller_and_call
from localaws.http_server import Answer, Request
from localaws.lambda_runtime import function_name

RESOURCES = {"lambda": "FunctionName", "sesv2": "ConfigurationSetName", "sns": "TopicArn", "sqs": "QueueUrl"}
"""The request parameter that names the resource, by service."""


class Calls:
    """A file with one JSON line for each combination of function, action and resource. Thread-safe.

    Args:
        file: lines are appended to it.
        names: logical IDs of the stack's resources, by the value of `!Ref`.
    """

    def __init__(self, file: Path, names: Mapping[str, str]) -> None:
        self._file = file
        self._names = names
        self._seen: set[tuple[str, str, str]] = set()
        self._lock = threading.Lock()

    def note(self, function: str, call: str, request: Mapping[str, Any]) -> None:
        """Record the permissions that a call needs.

        Args:
            function: physical or logical ID.
            call: service and operation with boto3's names, like `dynamodb.PutItem`.
            request: parameters of the call.
        """
        by = self._names.get(function, function)
        for action, resource in needs(call, request):
            name, slash, rest = resource.partition("/") if resource not in self._names else (resource, "", "")
            use = (by, action, self._names.get(name, name) + slash + rest)
            with self._lock:
                if use not in self._seen:
                    self._seen.add(use)
                    with self._file.open("a") as lines:
                        lines.write(json.dumps(use) + "\n")

    def noting(self, caller: Callable[[str], Caller | None], answer: OnCall) -> OnCall:
        """Wraps a function for Store.on_call: records the functions' requests, then calls `answer`."""

        def noted(request: Request, execute: Callable[[Request], Answer]) -> Answer | None:
            process, call = caller_and_call(request, caller)
            if process and call:
                self.note(process.function, call, _parameters(call, request.path, request.body))
            return answer(request, execute)

        return noted


def needs(call: str, request: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Returns the permissions that a call needs: pairs of an action and a resource, as the request names it.

    The Service Authorization Reference has one action for each operation, except transactions: they need the actions
    of their operations.
    """
    service, _, operation = call.partition(".")
    if operation == "TransactWriteItems":
        for item in request["TransactItems"]:
            for kind, what in item.items():
                yield f"dynamodb:{kind}Item", what["TableName"]
    elif operation == "BatchGetItem":
        yield from (("dynamodb:BatchGetItem", table) for table in request["RequestItems"])
    elif service == "dynamodb":
        yield f"dynamodb:{operation}", "/index/".join(filter(None, (request["TableName"], request.get("IndexName"))))
    elif service == "dynamodbstreams":
        arn = request["StreamArn"] if "StreamArn" in request else request["ShardIterator"]
        yield f"dynamodb:{operation}", arn.split("/")[1] + "/stream"
    elif call == "events.PutEvents":
        yield from (("events:PutEvents", entry["EventBusName"]) for entry in request["Entries"])
    elif call == "lambda.Invoke":
        yield "lambda:InvokeFunction", function_name(request["FunctionName"])
    else:
        yield f"{service.removesuffix('v2')}:{operation}", request.get(RESOURCES.get(service, ""), "*")


def _parameters(call: str, path: str, body: bytes) -> dict[str, Any]:
    """Returns the request's parameters that name resources."""
    if call == "lambda.Invoke":  # the body is the function's event
        return {"FunctionName": unquote(path.split("/")[3])}
    text = body.decode()
    found: dict[str, Any] = json.loads(text) if text.startswith("{") else dict(parse_qsl(text))
    return found
