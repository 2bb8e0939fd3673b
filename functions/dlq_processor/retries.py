"""Which failures pass by themselves, and when they are tried again."""

import re

DELAYS = (15, 60, 300)
"""Seconds before the first, second and third automatic retry; SQS takes 900 at most (SQS developer guide)."""

TRANSIENT = frozenset(
    {
        # Lambda: the event waited too long for a free function, the function for something else, or its process died.
        # ZeroReservedConcurrency is not among them: somebody has switched the function off, and will switch it on.
        "EventAgeExceeded",
        "Sandbox.Timedout",
        "Runtime.ExitError",
        # Our functions' own
        "Contention",
        "IdempotencyAlreadyInProgressError",
        "IdempotencyPersistenceLayerError",  # its text names no code if the connection to DynamoDB failed
        "NotAccepted",
        # The SDK never got through (botocore.exceptions)
        "ConnectTimeoutError",
        "ConnectionClosedError",
        "EndpointConnectionError",
        "ReadTimeoutError",
        # AWS is busy or has failed: what the SDK itself retries, which it had given up (botocore/retries/standard.py)
        "BandwidthLimitExceeded",
        "InternalError",
        "InternalException",
        "InternalFailure",
        "InternalServerError",
        "LimitExceededException",
        "PriorRequestNotComplete",
        "ProvisionedThroughputExceededException",
        "RequestLimitExceeded",
        "RequestThrottled",
        "RequestThrottledException",
        "RequestTimeout",
        "RequestTimeoutException",
        "ServiceException",
        "ServiceUnavailable",
        "ServiceUnavailableException",
        "SlowDown",
        "Throttling",
        "ThrottledException",
        "ThrottlingException",
        "TooManyRequestsException",
        # A single write met a transaction on its item (DynamoDB), which the SDK does not retry
        "TransactionConflictException",
        "TransactionInProgressException",
        "500",
        "502",
        "503",
        "504",
    }
)
CODE = re.compile(r"An error occurred \(([^)]+)\) when calling")
"""How botocore says the code of a ClientError, also inside the text of an exception that wraps it."""


def is_transient(reason: str, message: str) -> bool:
    """Whether a function's failure may pass by itself. An error that nobody has thought of does not.

    Args:
        reason: the error's type, or Lambda's condition if the function was never run.
        message: the error's own text.
    """
    return not TRANSIENT.isdisjoint({reason, *CODE.findall(message)})
