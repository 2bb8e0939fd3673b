"""Powertools' logger, tracer and metrics, created once per process. POWERTOOLS_SERVICE_NAME names the service."""

import os
import traceback
import warnings

from aws_lambda_powertools import Logger, Metrics, Tracer
from aws_lambda_powertools.metrics import MetricUnit

from orderflow.events import Cause

logger = Logger()
tracer = Tracer(patch_modules=["botocore"])  # without a list, the X-Ray SDK imports every library it can patch
metrics = Metrics()

# Many invocations add no metric. Powertools would log a warning each time.
warnings.filterwarnings("ignore", "No application metrics to publish")

CORRELATION_PATH = "detail.metadata.correlationId"


def count(name: str, value: float = 1) -> None:
    """Add to a business metric; it leaves with the invocation's log (EMF), in dimension `service`."""
    metrics.add_metric(name=name, unit=MetricUnit.Count, value=value)


def amount(name: str, value: float) -> None:
    """Add a sum of money to a business metric. It is a statistic, not a book: a float will do."""
    metrics.add_metric(name=name, unit=MetricUnit.NoUnit, value=value)


def duration(name: str, seconds: float) -> None:
    """Add to a business metric how long something took."""
    metrics.add_metric(name=name, unit=MetricUnit.Seconds, value=seconds)


def safe_traceback(error: Exception) -> str:
    """Returns where an error was raised, without its message: a message can quote personal data from an event."""
    return "".join(traceback.format_tb(error.__traceback__))


stack = safe_traceback  # kept until its last callers use the new name


def new_cause(correlation_id: str, causation_id: str) -> Cause:
    """Returns the cause of the events that this invocation stores, with its X-Ray trace header."""
    return Cause(correlation_id, causation_id, os.environ.get("_X_AMZN_TRACE_ID"))
