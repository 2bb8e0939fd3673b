"""Powertools idempotency on the application's table."""

from typing import TYPE_CHECKING

from aws_lambda_powertools.utilities.idempotency import DynamoDBPersistenceLayer, IdempotencyConfig
from aws_lambda_powertools.utilities.typing import LambdaContext

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient

KEEP_SECONDS = 180 * 24 * 60 * 60
"""For what is told once. Longer than an event can come back: an archive keeps it 90 days, a queue 14, and a redrive may
start at their end."""


def persistence(table: str, client: "DynamoDBClient") -> DynamoDBPersistenceLayer:
    """The store of idempotency records; the attribute names are the template's.

    Args:
        table: its name.
        client: Powertools would make one by a session of its own, which costs a cold start 0.1 s.
    """
    return DynamoDBPersistenceLayer(table_name=table, key_attr="id", expiry_attr="expiration", boto3_client=client)


def configuration(key: str, payload: str, seconds: int, context: LambdaContext) -> IdempotencyConfig:
    """How one operation is told apart and for how long it is remembered.

    Args:
        key: JMESPath to what makes two calls the same operation.
        payload: JMESPath to what must then be equal, or the call is refused; empty if nothing has to.
        seconds: how long the answer is kept.
        context: the invocation's. Its remaining time is registered, so that a call that crashed or timed out does
            not keep its lock.
    """
    config = IdempotencyConfig(
        event_key_jmespath=key,
        payload_validation_jmespath=payload,
        expires_after_seconds=seconds,
        raise_on_no_idempotency_key=True,
    )
    config.register_lambda_context(context)
    return config
