"""Options of all tests."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--stack", help="run the e2e tests against the deployed stack of this name")
