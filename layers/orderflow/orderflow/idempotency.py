"""Powertools idempotency on the application's table, for effects outside DynamoDB such as an e-mail."""

from typing import TYPE_CHECKING

from aws_lambda_powertools.utilities.idempotency import DynamoDBPersistenceLayer, IdempotencyConfig

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient

RETENTION_SECONDS = 180 * 24 * 60 * 60
"""Longer than an event can come back: the archive keeps it for 90 days, and a queue keeps a replayed event for 14."""


def persistence_layer(table: str, client: "DynamoDBClient") -> DynamoDBPersistenceLayer:
    """Returns the store of idempotency records: a table with the key `id` and the TTL attribute `expiration`.

    Args:
        client: without it, Powertools creates a boto3 session, which adds 0.1 s to a cold start.
    """
    return DynamoDBPersistenceLayer(table_name=table, key_attr="id", expiry_attr="expiration", boto3_client=client)


def idempotency_config(key: str = "", retention_seconds: int = RETENTION_SECONDS) -> IdempotencyConfig:
    """Returns the configuration for `@idempotent_function`.

    The handler must call `register_lambda_context` in every invocation. The lock of an invocation that crashes or times
    out then ends with the time that the invocation had left.

    Args:
        key: JMESPath to what identifies a call in its data; without it, the data as a whole does.
    """
    return IdempotencyConfig(
        event_key_jmespath=key, expires_after_seconds=retention_seconds, raise_on_no_idempotency_key=True
    )
