"""A handler for the order API behind `sam local start-api`, which leaves out what API Gateway does before a function.

`make test-sam-local` puts it beside the built code. Names of headers are in lower case then, and the claims of the
token come with the event. Nobody checks the token here.
"""

import base64
import json
from typing import Any

from orders.api import handler as handle


def handler(event: dict[str, Any], context: Any) -> Any:
    """The order API's answer to a request."""
    event["headers"] = {name.lower(): value for name, value in event["headers"].items()}
    if "authorization" in event["headers"]:
        claims = event["headers"]["authorization"].split(".")[1]
        event["requestContext"]["authorizer"] = {"jwt": {"claims": json.loads(base64.urlsafe_b64decode(claims + "=="))}}
    return handle(event, context)
