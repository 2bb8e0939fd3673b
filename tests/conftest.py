"""Options of all tests, and what the shared layer reads when it is imported."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("orderflow", deadline=None)  # a busy machine is no failure
settings.load_profile("orderflow")

os.environ.update(
    {
        "POWERTOOLS_METRICS_NAMESPACE": "Orderflow",
        "POWERTOOLS_SERVICE_NAME": "test",
        "AWS_SAM_LOCAL": "true",  # no traces
        "AWS_DEFAULT_REGION": "us-east-1",
    }
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--stack", help="run the e2e tests against the deployed stack of this name")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What compares the other tests' calls of AWS with the template comes last."""
    items.sort(key=lambda item: item.path.name == "test_permissions.py")


@pytest.fixture(scope="session")
def calls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with a file for each way in which tests run the functions: what these called, see local/calls.py."""
    return tmp_path_factory.mktemp("calls")
