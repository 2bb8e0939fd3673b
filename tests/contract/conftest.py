"""The template as SAM makes it, which the tests of this folder look at and leave as it is."""

from pathlib import Path
from typing import Any

import pytest
from samtranslator.translator.transform import transform
from samtranslator.yaml_helper import yaml_parse

ROOT = Path(__file__).parents[2]


class NoManagedPolicies:
    """What SAM would ask AWS for; the template names no managed policy."""

    def load(self) -> dict[str, str]:
        return {}


def translated(stage: str = "sandbox") -> dict[str, Any]:
    """The template as CloudFormation gets it for a stage."""
    source = yaml_parse((ROOT / "template.yaml").read_text())  # type: ignore[no-untyped-call]
    source["Globals"]["Function"]["CodeUri"] = "s3://a-bucket/functions.zip"
    for resource in source["Resources"].values():
        if resource["Type"] == "AWS::Serverless::LayerVersion":
            resource["Properties"]["ContentUri"] = "s3://a-bucket/layer.zip"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        result: dict[str, Any] = transform(source, {"Stage": stage}, NoManagedPolicies())  # type: ignore[arg-type]
    return result


@pytest.fixture(scope="session")
def template() -> dict[str, Any]:
    """The template as CloudFormation gets it."""
    return translated()
