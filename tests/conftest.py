"""Options of all tests, and what the shared layer reads when it is imported."""

import os
from pathlib import Path, PurePath
from typing import Any

import pytest
from hypothesis import settings
from xdist.scheduler import LoadScopeScheduling

settings.register_profile("orderflow", deadline=None)  # a busy machine is no failure
settings.load_profile("orderflow")

os.environ.update(
    {
        "POWERTOOLS_METRICS_NAMESPACE": "Orderflow",
        "POWERTOOLS_SERVICE_NAME": "test",
        "AWS_SAM_LOCAL": "true",  # no traces
    }
)

PERMISSIONS = "tests/contract/test_permissions.py"
CALLERS = ("tests/e2e/*", "tests/integration/*", PERMISSIONS)
NO_CALLERS = [f"tests/e2e/test_{name}.py" for name in ("faults", "neighbours", "replay", "runner*", "targets")]
"""They run stacks of their own, whose calls of AWS nobody looks at."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--stack", help="run the e2e tests against the deployed stack of this name")


@pytest.hookimpl(tryfirst=True)  # before tests/e2e/conftest.py looks for the stack
def pytest_configure(config: pytest.Config) -> None:
    """Give the local tests a region. A deployed stack is in the region that the caller's environment selects."""
    if not config.getoption("--stack"):
        os.environ["AWS_DEFAULT_REGION"] = "us-east-1"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest comes first, what compares the other tests' calls of AWS with the template last."""
    items.sort(key=lambda item: (item.path.match(PERMISSIONS), not _is_caller(item.path)))


def _is_caller(file: PurePath) -> bool:
    return any(map(file.match, CALLERS)) and not any(map(file.match, NO_CALLERS))


class SideBySide(LoadScopeScheduling):
    """Runs files side by side, but one after the other those whose calls of AWS are compared at last."""

    def _split_scope(self, nodeid: str) -> str:
        file = PurePath(nodeid.partition("::")[0])
        if _is_caller(file):
            return "calls"
        return nodeid if file.match("tests/chaos/*") else str(file)  # a run of chaos takes as long as many files


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> SideBySide:
    """How `--numprocesses` shares the tests out."""
    return SideBySide(config, log)


@pytest.fixture(scope="session")
def calls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with a file for each way in which tests run the functions: what these called, see local/calls.py."""
    return tmp_path_factory.mktemp("calls")
