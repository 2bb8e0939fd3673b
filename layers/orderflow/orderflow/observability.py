"""Powertools' logger, tracer and metrics, created once per process. POWERTOOLS_SERVICE_NAME names the service."""

import os
import traceback
import warnings

from aws_lambda_powertools import Logger, Metrics, Tracer

from orderflow.events import Cause

logger = Logger()
tracer = Tracer(patch_modules=["botocore"])  # without a list, the X-Ray SDK imports every library it can patch
metrics = Metrics()

# Many invocations add no metric. Powertools would log a warning each time.
warnings.filterwarnings("ignore", "No application metrics to publish")

CORRELATION_PATH = "detail.metadata.correlationId"


def safe_traceback(error: Exception) -> str:
    """Returns where an error was raised, without its message: a message can quote personal data from an event."""
    return "".join(traceback.format_tb(error.__traceback__))


def new_cause(correlation_id: str, causation_id: str) -> Cause:
    """Returns the cause of the events that this invocation stores, with its X-Ray trace header."""
    return Cause(correlation_id, causation_id, os.environ.get("_X_AMZN_TRACE_ID"))
