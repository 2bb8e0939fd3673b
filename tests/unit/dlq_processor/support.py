"""What the tests of the DLQ's message formats share: messages, and strategies for their parts."""

import json
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from dlq_processor.domain import Failure, FailureKind
from dlq_processor.messages import classify

FIXTURES = Path(__file__).parents[3] / "events/dlq_processor"
STACK = "orderflow"
"""The stack's name in the fixtures."""
ACCOUNT = "us-east-1:123456789012"
QUEUE = f"arn:aws:sqs:{ACCOUNT}:{STACK}-analytics"


def fixture(name: str) -> dict[str, Any]:
    (message,) = json.loads((FIXTURES / f"{name}.json").read_text())["Records"]
    return dict(message)


def function_arn(consumer: str) -> str:
    return f"arn:aws:lambda:{ACCOUNT}:function:{STACK}-{consumer}"


def message(body: Any, attributes: dict[str, str] | None = None, **system: str) -> dict[str, Any]:
    return {
        "messageId": "message-1",
        "body": body if isinstance(body, str) else json.dumps(body),
        "attributes": {"ApproximateReceiveCount": "1", **system},
        "messageAttributes": {
            name: {"stringValue": value, "dataType": "String"} for name, value in (attributes or {}).items()
        },
        "eventSourceARN": f"arn:aws:sqs:{ACCOUNT}:the-dlq",
    }


def event_of(event_id: str, **detail: Any) -> dict[str, Any]:
    return {
        "id": "envelope-1",
        "source": "orders.service",
        "detail-type": "Order Placed",
        "time": "2026-11-21T18:36:00Z",
        "detail": {"orderId": "ORD-1", "metadata": {"eventId": event_id, "sequence": 1}, **detail},
    }


def undelivered(target: str, rule: str, error: str = "TIMEOUT", **attributes: str) -> dict[str, str]:
    return {
        "RULE_ARN": f"arn:aws:events:{ACCOUNT}:rule/orders-event-bus/{rule}",
        "TARGET_ARN": target,
        "ERROR_CODE": error,
        "ERROR_MESSAGE": "no",
        **attributes,
    }


def failure(found: dict[str, Any]) -> Failure:
    classified = classify(found, STACK)
    assert isinstance(classified, Failure)
    return classified


def summary(found: Failure) -> tuple[FailureKind, str, str, str]:
    return found.kind, found.consumer, found.reason, found.event_id


ids = st.text("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_", min_size=1, max_size=30)
consumers = ids.filter(lambda name: not name.startswith(f"{STACK}-"))
words = st.text("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._", min_size=1, max_size=40)
sentences = st.text(max_size=40)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=10,
)
extra = st.dictionaries(st.sampled_from(["requestContext", "requestPayload", "DDBStreamBatchInfo", "x"]), json_values)
"""Additional fields of an event."""
