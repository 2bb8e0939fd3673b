"""Prints expected failures of the commands as one line that says what to do."""

import sys
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    NoCredentialsError,
    NoRegionError,
    PartialCredentialsError,
    ProfileNotFound,
    SSOError,
    TokenRetrievalError,
)

P = ParamSpec("P")

NO_REGION = "no AWS region: set AWS_REGION, or AWS_PROFILE to a profile that has a region"
NO_CREDENTIALS = "set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
SIGN_IN_AGAIN = "sign in again (`aws sso login`), or set new credentials"
REFUSED_CREDENTIALS = frozenset(
    {
        "ExpiredToken",
        "ExpiredTokenException",
        "InvalidClientTokenId",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
    }
)
"""Error codes of AWS services for invalid credentials."""


class CommandError(Exception):
    """An expected failure of a command. The message says what is wrong and, where possible, what to do."""


AWS_ERRORS = (CommandError, BotoCoreError, ClientError)
"""The errors that a command reports in one line."""


def explain(error: Exception) -> str:
    """Describes an error in one line.

    Args:
        error: one of AWS_ERRORS.
    """
    text = " ".join(str(error).split())
    match error:
        case NoRegionError():
            return NO_REGION
        case NoCredentialsError() | PartialCredentialsError():
            return f"no AWS credentials ({text}): {NO_CREDENTIALS}"
        case ProfileNotFound():
            return f"{text}: set AWS_PROFILE to a profile of your AWS configuration"
        case SSOError() | TokenRetrievalError():
            return f"{text}: {SIGN_IN_AGAIN}"
        case ClientError() if error.response["Error"]["Code"] in REFUSED_CREDENTIALS:
            return f"AWS refuses the credentials ({text}): {SIGN_IN_AGAIN}"
    return text


def one_line_errors(main: Callable[P, int]) -> Callable[P, int]:
    """Makes a command print AWS_ERRORS as one line `error: …` and return 1. Ctrl-C ends it without a traceback."""

    @wraps(main)
    def command(*args: P.args, **kwargs: P.kwargs) -> int:
        try:
            return main(*args, **kwargs)
        except AWS_ERRORS as error:
            print(f"error: {explain(error)}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            return 130  # the exit code of a command that was ended by Ctrl-C

    return command
