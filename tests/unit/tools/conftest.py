"""The environment of the commands' tests."""

from pathlib import Path

import boto3
import pytest


@pytest.fixture(autouse=True)
def _not_under_make(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let messages name options, as without `make`; `make test` sets this variable."""
    monkeypatch.delenv("MAKELEVEL", raising=False)


@pytest.fixture
def no_account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Remove region, credentials and profiles from the environment. Returns the path of the empty AWS configuration."""
    for name in ("REGION", "DEFAULT_REGION", "PROFILE", "DEFAULT_PROFILE", "ACCESS_KEY_ID", "SECRET_ACCESS_KEY"):
        monkeypatch.delenv(f"AWS_{name}", raising=False)
    monkeypatch.delenv("AWS_SESSION_TOKEN", raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    configuration = tmp_path / "aws-config"
    configuration.write_text("")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(configuration))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "aws-credentials"))
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    return configuration
