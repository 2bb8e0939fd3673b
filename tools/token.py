"""Prints an ID token of a test user. It needs AWS credentials for the account of the stack."""

import sys

from tools.arguments import Parser
from tools.errors import one_line_errors
from tools.stack import USERS, find, sign_in


@one_line_errors
def main(arguments: list[str] | None = None) -> int:
    """`python -m tools.token [--as staff] [--stack NAME]`."""
    parser = Parser(prog="python -m tools.token", description=__doc__)
    parser.add_argument("--as", dest="user", choices=USERS, default="customer")
    parser.add_stack()
    options = parser.parse_args(arguments)
    print(sign_in(find(options.stack), options.user))
    return 0


if __name__ == "__main__":
    sys.exit(main())
