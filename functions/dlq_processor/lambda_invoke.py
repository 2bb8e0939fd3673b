"""Redrives failed events: invokes the one consumer that failed, and waits for its result."""

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from dlq_processor.domain import MAX_MESSAGE, FailedEvent, RedriveOutcome, as_reason

if TYPE_CHECKING:
    from mypy_boto3_lambda.client import LambdaClient

ANSWER_SECONDS = 35
"""How long to wait for a consumer: longer than the 30 s after which consumers time out, and short enough for a batch of
five redrives within the DLQ processor's own timeout of 180 s."""
ALIAS = "live"
CLIENT = Config(connect_timeout=2, read_timeout=ANSWER_SECONDS, retries={"total_max_attempts": 1})
"""One attempt: if an answer is lost, the consumer may have succeeded."""


@dataclass(frozen=True)
class Redriver:
    """Invokes the consumers of a stack, with a Lambda client that has the configuration CLIENT."""

    functions: "LambdaClient"
    stack_name: str

    def redrive(self, record: FailedEvent) -> RedriveOutcome:
        """Invokes the consumer of a redrivable record with its payload."""
        try:
            answer = self.functions.invoke(
                FunctionName=f"{self.stack_name}-{record.consumer}", Qualifier=ALIAS, Payload=record.payload or "null"
            )
            result = json.loads(answer["Payload"].read() or "null")
        except ClientError as error:
            return _failed(error.response["Error"]["Code"], error.response["Error"]["Message"])
        except BotoCoreError as error:
            return _failed(type(error).__name__, str(error))
        if "FunctionError" in answer:
            return _failed(result.get("errorType", answer["FunctionError"]), result.get("errorMessage", ""))
        if isinstance(result, dict) and result.get("batchItemFailures"):
            return _failed("BatchItemFailure", "the function reported a batch item failure")
        return RedriveOutcome(succeeded=True)


def _failed(reason: str, message: str) -> RedriveOutcome:
    return RedriveOutcome(succeeded=False, reason=as_reason(reason), message=message[:MAX_MESSAGE])
