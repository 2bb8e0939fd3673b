"""Options of all tests, and what the shared layer reads when it is imported."""

import os

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
