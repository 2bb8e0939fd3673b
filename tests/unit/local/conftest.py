"""What the tests of local/ are given."""

from collections.abc import Iterator

import pytest

from local.store import Store


@pytest.fixture
def store() -> Iterator[Store]:
    """A store of the test's own."""
    running = Store()
    running.start()
    yield running
    running.stop()
