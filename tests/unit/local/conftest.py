"""Fixtures of the tests of local/."""

from collections.abc import Iterator

import pytest

from local.store import Store


@pytest.fixture
def store() -> Iterator[Store]:
    """A new store."""
    running = Store()
    running.start()
    yield running
    running.stop()
