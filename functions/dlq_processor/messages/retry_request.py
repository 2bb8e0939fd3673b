"""Reads and writes the requests for automatic retries, which the DLQ processor sends to its own queue."""

from collections.abc import Mapping

from dlq_processor.domain import RETRY_DELAYS, RetryRequest
from dlq_processor.messages.reading import Unclassified


def read(attributes: Mapping[str, str]) -> RetryRequest:
    """Reads a retry request."""
    attempt = attributes.get("ATTEMPT", "")
    if attempt not in {str(number) for number in range(1, len(RETRY_DELAYS) + 1)}:
        raise Unclassified(f"ATTEMPT is not a number from 1 to {len(RETRY_DELAYS)}")
    return RetryRequest(attributes["RETRY_OF"], int(attempt))
