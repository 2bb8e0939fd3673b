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
    }
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--stack", help="run the e2e tests against the deployed stack of this name")
    parser.addoption("--calls", help="collect what the functions call in AWS in this folder, for test_permissions.py")


@pytest.hookimpl(tryfirst=True)  # before tests/e2e/conftest.py looks for the stack
def pytest_configure(config: pytest.Config) -> None:
    """Give the local tests a region. A deployed stack is in the region that the caller's environment selects."""
    if not config.getoption("--stack"):
        os.environ["AWS_DEFAULT_REGION"] = "us-east-1"


@pytest.fixture(scope="session")
def calls(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with a file for each way in which tests run the functions: what these called, see local/calls.py."""
    folder = Path(request.config.getoption("--calls") or tmp_path_factory.mktemp("calls")).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    return folder
