"""The template after SAM's transform. The tests of this folder must not change it."""

from copy import deepcopy
from typing import Any

import pytest
from samtranslator.translator.transform import transform

from tests.contract.source import application


class NoManagedPolicies:
    """In place of the managed policies that SAM requests from AWS; the template uses none."""

    def load(self) -> dict[str, str]:
        return {}


def translated(stage: str = "sandbox", *, layers: str = "layer", **parameters: str) -> dict[str, Any]:
    """The template that CloudFormation receives for a stage.

    Args:
        layers: the name of the layers' content, which `sam package` derives from the content's hash.
        parameters: values of further parameters of the template.
    """
    written = deepcopy(application())
    written["Globals"]["Function"]["CodeUri"] = "s3://a-bucket/functions.zip"
    for resource in written["Resources"].values():
        if resource["Type"] == "AWS::Serverless::LayerVersion":
            resource["Properties"]["ContentUri"] = f"s3://a-bucket/{layers}.zip"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        given = {"Stage": stage, **parameters}
        result: dict[str, Any] = transform(written, given, NoManagedPolicies())  # type: ignore[arg-type]
    return result


@pytest.fixture(scope="session")
def template() -> dict[str, Any]:
    """The template that CloudFormation receives."""
    return translated()
