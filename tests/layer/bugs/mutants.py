"""The mutants of tests/chaos/test_chaos.py: functions without what keeps them from losing or repeating something."""

import os
import re
from collections.abc import Callable
from typing import Any

from . import wrap

CALL = "botocore.client:BaseClient._make_api_call"
"""The method by which every AWS client calls, and every resource."""
FUNCTION = os.environ["_HANDLER"].partition(".")[0]


def reserve_unconditionally(call: Callable[..., Any], client: Any, operation: str, parameters: dict[str, Any]) -> Any:
    """Let a transaction create a reservation that exists already."""

    def loosened(write: dict[str, Any]) -> dict[str, Any]:
        condition = write.get("ConditionExpression", "")
        created = re.fullmatch(r"attribute_not_exists\((\S+)\)", condition)
        return {**write, "ConditionExpression": f"{condition} OR attribute_exists({created[1]})"} if created else write

    if operation == "TransactWriteItems":
        items = [{kind: loosened(write) for kind, write in item.items()} for item in parameters["TransactItems"]]
        parameters = {**parameters, "TransactItems": items}
    return call(client, operation, parameters)


def ignore_failed_entries(call: Callable[..., Any], client: Any, operation: str, parameters: dict[str, Any]) -> Any:
    """Take every entry of a PutEvents request for accepted."""
    answer = call(client, operation, parameters)
    if operation == "PutEvents":
        entries = [{"EventId": entry.get("EventId", "lost")} for entry in answer["Entries"]]
        return {**answer, "FailedEntryCount": 0, "Entries": entries}
    return answer


def report_no_failures(handler: Callable[..., Any], event: dict[str, Any], context: Any) -> Any:
    """Tell Lambda that all messages of the batch were processed."""
    handler(event, context)
    return {"batchItemFailures": []}


for mutant in os.environ["MUTANTS"].split(", "):
    match mutant, FUNCTION:
        case "no condition on the reservation", "inventory":
            wrap(CALL, reserve_unconditionally)
        case "no idempotency on e-mail", "customer_email":
            os.environ["POWERTOOLS_IDEMPOTENCY_DISABLED"] = "true"
        case "a publisher that ignores FailedEntryCount", "event_publisher":
            wrap(CALL, ignore_failed_entries)
        case "a counter that drops the events it could not count", "analytics":
            wrap("analytics.counting_handler:handler", report_no_failures)
