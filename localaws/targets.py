"""Where events and records are sent: functions, queues, topics, event buses, log groups and API destinations."""

import json
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from moto.sns.exceptions import SNSNotFoundError
from moto.sqs.exceptions import QueueDoesNotExist

from localaws.delivery import Undelivered
from localaws.lambda_runtime import UnknownFunction

if TYPE_CHECKING:
    from localaws.api_destinations import HttpTargets
    from localaws.store import Store

DELIVERED_TO = ("events", "lambda", "logs", "sns", "sqs")
"""The services that a rule can deliver to."""
LOG_STREAM = "local"

Attributes = Mapping[str, str | int]
"""Message attributes of SQS or SNS; an int has the type Number."""
NO_ATTRIBUTES: Attributes = MappingProxyType({})


class UnsupportedTarget(Exception):
    """A rule, pipe or schedule of the template has a target or setting that the runner does not support."""


def service_of(arn: str) -> str:
    """Returns the service in an ARN: `arn:aws:lambda:…` → `lambda`."""
    return arn.split(":")[2]


def is_bus(arn: str) -> bool:
    """Returns whether an ARN names an event bus."""
    return ":event-bus/" in arn


def is_http(arn: str) -> bool:
    """Returns whether an ARN names an API destination."""
    return ":api-destination/" in arn


class Targets:
    """Sends to the resources of one stack, each given by its ARN. `invoke` and `put_events` are set after the start."""

    invoke: Callable[[str, bytes, str | None], None]  # AsynchronousInvocations.accept
    put_events: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]

    def __init__(self, store: "Store", http: "HttpTargets") -> None:
        self.http = http
        self._store = store

    def deliver(self, arn: str, payload: str, trace_header: str | None = None) -> None:
        """Deliver the payload of an event to the target of a rule, pipe or schedule.

        Raises:
            Undelivered: the target does not exist, or it is a function and the payload is not valid JSON.
        """
        try:
            if service_of(arn) == "lambda":
                json.loads(payload)
            self.send(arn, payload, trace_header=trace_header)
        except json.JSONDecodeError as error:
            raise Undelivered("INVALID_JSON", f"a function accepts JSON only: {error}", retriable=False) from error
        except (UnknownFunction, KeyError, QueueDoesNotExist, SNSNotFoundError) as error:
            raise Undelivered("NO_RESOURCE", f"{arn} does not exist", retriable=False) from error

    def send(
        self, arn: str, body: str, attributes: Attributes = NO_ATTRIBUTES, *, trace_header: str | None = None
    ) -> None:
        """Send a message, with attributes for a queue or topic, and a trace header for a function. It may raise.

        A bus gets the message as an event: it must be an invocation record of Lambda.
        """
        typed = {
            name: {"DataType": "Number" if isinstance(value, int) else "String", "StringValue": str(value)}
            for name, value in attributes.items()
        }
        match service_of(arn):
            case "lambda":
                self.invoke(arn, body.encode(), trace_header)
            case "logs":
                self._store.log(arn.partition(":log-group:")[2].removesuffix(":*"), LOG_STREAM, body)
            case "sns":
                self._store.publish(arn, body, typed)
            case "sqs":
                self._store.send_message(arn, body, typed)
            case "events" if is_http(arn):
                self.http.call(arn, body)
            case "events" if is_bus(arn):
                self._put_record(arn, body)
            case _:
                raise UnsupportedTarget(f"delivery to {arn} is not supported")

    def send_to_failure_destination(
        self,
        what: str,
        arn: str | None,
        body: str,
        attributes: Attributes = NO_ATTRIBUTES,
        *,
        report: Callable[[str], None],
    ) -> None:
        """Send a failed event to its DLQ or OnFailure destination, and report the outcome in one line.

        Args:
            what: description of the event and the reason.
            arn: None means that the event is lost.
        """
        if arn is None:
            report(f"{what}; lost, there is no failure destination")
            return
        try:
            self.send(arn, body, attributes)
        except Exception as error:  # AWS loses the event as well; here it is reported
            report(f"{what}; lost, could not be sent to {arn}: {error}")
        else:
            report(f"{what}; sent to {arn}")

    def _put_record(self, bus: str, record: str) -> None:
        """Sends an invocation record as an event (Lambda developer guide, "Adding a destination")."""
        about = json.loads(record)["requestContext"]
        outcome = "Success" if about["condition"] == "Success" else "Failure"
        entry = {
            "EventBusName": bus,
            "Source": "lambda",
            "DetailType": f"Lambda Function Invocation Result - {outcome}",
            "Resources": [bus, about["functionArn"]],
            "Detail": record,
        }
        (answer,) = self.put_events([entry])
        if "ErrorCode" in answer:
            raise Undelivered(answer["ErrorCode"], answer["ErrorMessage"], retriable=False)
