"""Fixtures of the tests of localaws/."""

import sys
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import settings

from localaws.store import Store

settings.register_profile("localaws", deadline=None, derandomize=True)  # no failures on a slow machine, nor by chance
settings.load_profile("localaws")


@pytest.fixture
def store() -> Iterator[Store]:
    """A new store."""
    running = Store()
    running.start()
    yield running
    running.stop()


@pytest.fixture
def records(store: Store) -> list[dict[str, Any]]:
    """The records of the streams."""
    seen: list[dict[str, Any]] = []
    store.on_stream_record = lambda _arn, record: seen.append(record)
    return seen


@pytest.fixture
def tables(store: Store) -> Any:
    """A DynamoDB client, with an empty table `stock` that has a stream."""
    client = store.client("dynamodb")
    client.create_table(
        TableName="stock",
        KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name in ("pk", "owner", "at")],
        GlobalSecondaryIndexes=[
            {
                "IndexName": "by-owner",
                "KeySchema": [
                    {"AttributeName": "owner", "KeyType": "HASH"},
                    {"AttributeName": "at", "KeyType": "RANGE"},
                ],
                "Projection": {"ProjectionType": "ALL"},
            }
        ],
        BillingMode="PAY_PER_REQUEST",
        StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"},
    )
    return client


@pytest.fixture
def busy() -> Iterator[None]:
    """Makes Python switch threads much more often."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(usual)
