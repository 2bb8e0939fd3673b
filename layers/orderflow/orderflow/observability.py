"""Logs, traces and metrics of a function: Powertools, set up once. The service's name comes from the template."""

import os
import traceback
import warnings

from aws_lambda_powertools import Logger, Metrics, Tracer
from aws_lambda_powertools.metrics import MetricUnit

from orderflow.events import Cause

logger = Logger()
tracer = Tracer(patch_modules=["botocore"])  # the SDK alone: patching everything imports everything
metrics = Metrics()

# Most invocations have nothing to count, and Powertools would say so each time.
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


def stack(error: Exception) -> str:
    """Where an error was raised: what a log may tell of one whose text may quote what an event contains."""
    return "".join(traceback.format_tb(error.__traceback__))


def new_cause(correlation_id: str, causation_id: str) -> Cause:
    """The cause of what this invocation stores, with its trace."""
    return Cause(correlation_id, causation_id, os.environ.get("_X_AMZN_TRACE_ID"))
