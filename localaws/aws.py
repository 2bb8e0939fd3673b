"""Facts that all AWS services of this machine share: account, region, errors."""

REGION = "us-east-1"
ACCOUNT_ID = "123456789012"
SHARD_ID = "shardId-00000000000000000000-00000000"
"""The ID of the only shard of each DynamoDB stream."""


class ServiceError(Exception):
    """An error response of an AWS API.

    Args:
        code: error code, `error.response["Error"]["Code"]` in boto3.
        message: error message.
        status: HTTP status.
    """

    def __init__(self, code: str, message: str, status: int = 400) -> None:
        super().__init__(f"{code}: {message}")
        self.code, self.message, self.status = code, message, status
