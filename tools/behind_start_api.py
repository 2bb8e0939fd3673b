"""A handler for the order API behind `sam local start-api`, which leaves out what API Gateway does before a function.

`make test-sam-local` puts it beside the built code. Names of headers are in lower case then, and the claims of the
token come with the event, as texts. Nobody checks the token here.
"""

import base64
import json
from typing import Any

from orders.api_handler import handler as handle


def handler(event: dict[str, Any], context: Any) -> Any:
    """The order API's answer to a request."""
    event["headers"] = {name.lower(): value for name, value in event["headers"].items()}
    if "authorization" in event["headers"]:
        token = event["headers"]["authorization"].split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(token + "=="))
        texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in claims.items()}
        event["requestContext"]["authorizer"] = {"jwt": {"claims": texts}}
    return handle(event, context)
