"""Prints an ID token of a test user of a stack; whoever asks for it needs the stack's AWS credentials."""

import argparse

from tools.stack import USERS, find, sign_in


def main() -> None:
    """`python -m tools.token [--as staff] [--stack NAME]`."""
    parser = argparse.ArgumentParser(prog="python -m tools.token", description=__doc__)
    parser.add_argument("--as", dest="user", choices=USERS, default="customer")
    parser.add_argument("--stack", help="name of a deployed stack; without it, the one on this machine")
    options = parser.parse_args()
    print(sign_in(find(options.stack), options.user))


if __name__ == "__main__":
    main()
