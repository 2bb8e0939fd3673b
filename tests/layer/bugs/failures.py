"""The bugs of tests/e2e/test_failures.py. Each strikes what contains its name, while a file of that name exists."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from . import after_import, wrap

PLANTED = Path(os.environ["PLANTED_BUGS"])
Handler = Callable[[dict[str, Any], Any], Any]


def strikes(bug: str, what: object) -> bool:
    return (PLANTED / bug).exists() and f"{bug}-" in json.dumps(what, default=str)


def fail(handler: Handler, event: dict[str, Any], context: Any) -> Any:
    """InventoryFunction raises, or does not answer in time."""
    if strikes("SLEEPS", event):
        time.sleep(100)
    for bug in ("RAISES", "JAMS"):
        if strikes(bug, event):
            raise ValueError(bug)
    return handler(event, context)


def fail_to_compose(compose: Callable[..., Any], item: Any, event: Any) -> Any:
    """EventPublisherFunction cannot make an event of a stream record."""
    if strikes("POISON", item):
        raise ValueError("POISON")
    return compose(item, event)


def garble(handler: Handler, event: dict[str, Any], context: Any) -> Any:
    """AnalyticsFunction receives a message that is not valid JSON."""
    for record in event["Records"]:
        if strikes("UNCOUNTED", record):
            record["body"] = "{"
    return handler(event, context)


def refuse_the_record(call: Callable[..., Any], client: Any, operation: str, parameters: dict[str, Any]) -> Any:
    """DlqProcessorFunction cannot store a failed event."""
    if client.meta.service_model.service_name == "dynamodb" and strikes("JAMS", parameters):
        raise ValueError("JAMS")
    return call(client, operation, parameters)


def grow(module: ModuleType) -> None:
    """EventPublisherFunction makes an entry that is larger than PutEvents accepts."""
    size = module.EventEntry.size.fget
    module.EventEntry.size = property(
        lambda entry: module.MAX_BYTES + 1 if strikes("LARGE", vars(entry)) else size(entry)
    )


wrap("inventory.handler:handler", fail)
wrap("orders.domain:compose", fail_to_compose)
wrap("analytics.counting_handler:handler", garble)
after_import("event_publisher.domain", grow)
if os.environ["_HANDLER"].startswith("dlq_processor."):
    wrap("botocore.client:BaseClient._make_api_call", refuse_the_record)
