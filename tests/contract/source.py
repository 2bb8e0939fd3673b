"""Templates as they are written, each read once: it takes half a second. Nobody changes what this gives."""

from functools import cache
from pathlib import Path
from typing import Any

from samtranslator.yaml_helper import yaml_parse

from local.nested import inline

ROOT = Path(__file__).parents[2]


@cache
def source(template: str = "template.yaml") -> dict[str, Any]:
    """A template, by its path in the repository."""
    return dict(yaml_parse((ROOT / template).read_text()))  # type: ignore[no-untyped-call]


@cache
def application() -> dict[str, Any]:
    """template.yaml with the resources of infrastructure/integrations.yaml and alerting.yaml in it."""
    return inline(source(), ROOT, _read, lambda kind: kind == "AWS::SNS::Topic")


def _read(path: Path) -> dict[str, Any]:
    return source(str(path.relative_to(ROOT)))
