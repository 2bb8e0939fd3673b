"""Prepares the stack of `make run`: seeds it, verifies its sender, signs the test users in, and prints an example."""

import json
import os
import sys
from pathlib import Path

from tools.alerts import record_alerts
from tools.seed import InvalidSeed, read_seed, seed
from tools.stack import USERS, Stack, local_stack, sign_in

EXAMPLE = """{products} products are in stock. Place an order (use token-staff for /admin):

curl -i {url}/orders -H 'Content-Type: application/json' \\
  -H "Authorization: Bearer $(cat {folder}/token-customer)" -d '{{
  "items": [{{"productId": "PROD-KEYBOARD", "quantity": 2}}],
  "shippingAddress": {{"street": "1 Main St", "city": "Seattle", "state": "WA",
                      "zipCode": "98101", "country": "US"}}}}'
"""


def main() -> None:
    """`python -m tools.prepare`, with the stack's description in the file that STACK_FILE names."""
    path = Path(os.environ["STACK_FILE"])
    stack = local_stack(path)
    try:
        products = read_seed()
    except InvalidSeed as error:
        sys.exit(f"error: {error}")
    seed(stack, products)
    verify_sender(stack)
    record_alerts(stack)
    tokens = {user: sign_in(stack, user) for user in USERS}
    path.write_text(json.dumps({**json.loads(path.read_text()), "tokens": tokens}, indent=2))
    for user, token in tokens.items():
        write_token(path.with_name(f"token-{user}"), token)
    here = Path.cwd()
    folder = path.parent.relative_to(here) if path.parent.is_relative_to(here) else path.parent
    print(EXAMPLE.format(products=len(products), url=stack.api_url, folder=folder))


def write_token(path: Path, token: str) -> None:
    """Writes a token into a new file that only this user can read."""
    path.unlink(missing_ok=True)
    path.touch(mode=0o600)
    path.write_text(token)


def verify_sender(stack: Stack) -> None:
    """Creates the SES identity of the sender. The local SES does not send a verification e-mail."""
    (described,) = stack.client("cloudformation").describe_stacks()["Stacks"]
    parameters = {parameter["ParameterKey"]: parameter["ParameterValue"] for parameter in described["Parameters"]}
    if parameters["SenderEmail"]:
        stack.client("sesv2").create_email_identity(EmailIdentity=parameters["SenderEmail"])


if __name__ == "__main__":
    main()
