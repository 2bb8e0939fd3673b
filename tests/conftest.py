"""Options of all tests, and the environment variables that the shared layer reads at import."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("orderflow", deadline=None)  # no failures on a slow machine
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
    parser.addoption("--calls", help="folder to record the functions' IAM actions in, for test_permissions.py")


@pytest.hookimpl(tryfirst=True)  # before tests/e2e/conftest.py looks for the stack
def pytest_configure(config: pytest.Config) -> None:
    """Set the region of local tests. For a deployed stack, the caller's environment selects the region."""
    if not config.getoption("--stack"):
        os.environ["AWS_DEFAULT_REGION"] = "us-east-1"


@pytest.fixture(scope="session")
def calls(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder for the IAM actions that localaws/iam_recorder.py records, one file per kind of test."""
    folder = Path(request.config.getoption("--calls") or tmp_path_factory.mktemp("calls")).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    return folder
