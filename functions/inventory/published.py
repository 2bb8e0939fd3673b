"""The published form of a reservation's events."""

from collections.abc import Mapping
from typing import Any

from orderflow.events import StoredEvent, compose_detail

SOURCE = "inventory.service"


def compose(item: Mapping[str, Any], event: StoredEvent) -> dict[str, Any]:
    """The self-contained detail of one of a reservation's events.

    Args:
        item: the reservation as it is stored.
        event: one of its events, with its sequence.
    """
    more = {name: event.data[name] for name in ("shortages", "released") if name in event.data}
    return compose_detail(item["events"][0]["data"]["order"], event, **more)
