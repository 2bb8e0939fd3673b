"""The published form of an order's events."""

from collections.abc import Mapping
from typing import Any

from orderflow.events import StoredEvent, compose_detail

SOURCE = "orders.service"


def compose(item: Mapping[str, Any], event: StoredEvent) -> dict[str, Any]:
    """The self-contained detail of one of an order's events.

    Args:
        item: the order as it is stored.
        event: one of its events, with its sequence.
    """
    more = {"reason": event.data["reason"]} if "reason" in event.data else {}
    return compose_detail(item["events"][0]["data"]["order"], event, **more)
