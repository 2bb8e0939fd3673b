"""Reads the templates, without SAM's transform. Each is read once, which takes half a second."""

from functools import cache
from pathlib import Path
from typing import Any

from samtranslator.yaml_helper import yaml_parse

from localaws.nested_stacks import inline

ROOT = Path(__file__).parents[2]


@cache
def source(template: str = "template.yaml") -> dict[str, Any]:
    """Returns a template, which callers must not change.

    Args:
        template: the path in the repository.
    """
    return dict(yaml_parse((ROOT / template).read_text()))  # type: ignore[no-untyped-call]


@cache
def application() -> dict[str, Any]:
    """template.yaml with the resources of infrastructure/integrations.yaml and alerting.yaml in it."""
    return inline(source(), ROOT, _read, lambda kind: kind == "AWS::SNS::Topic")


def _read(path: Path) -> dict[str, Any]:
    return source(str(path.relative_to(ROOT)))
