"""Fixtures of the tests of localaws/."""

from collections.abc import Iterator

import pytest

from localaws.store import Store


@pytest.fixture
def store() -> Iterator[Store]:
    """A new store."""
    running = Store()
    running.start()
    yield running
    running.stop()
