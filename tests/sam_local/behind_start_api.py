"""A handler for the order API behind `sam local start-api`, which adds what API Gateway would add to the event.

`make test-sam-local` copies it into the built code. It converts header names to lower case, and adds the claims of the
token as strings. The token is not verified.
"""

import base64
import json
from typing import Any

from orders.api_handler import handler as handle


def handler(event: dict[str, Any], context: Any) -> Any:
    """Returns the order API's response to a request."""
    event["headers"] = {name.lower(): value for name, value in event["headers"].items()}
    if "authorization" in event["headers"]:
        token = event["headers"]["authorization"].split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(token + "=="))
        texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in claims.items()}
        event["requestContext"]["authorizer"] = {"jwt": {"claims": texts}}
    return handle(event, context)
