"""Fixtures of the tests of localaws/."""

from collections.abc import Iterator

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
