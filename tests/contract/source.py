"""Templates as they are written, each read once: it takes half a second. Nobody changes what this gives."""

from functools import cache
from pathlib import Path
from typing import Any

from samtranslator.yaml_helper import yaml_parse

ROOT = Path(__file__).parents[2]


@cache
def source(template: str = "template.yaml") -> dict[str, Any]:
    """A template, by its path in the repository."""
    return dict(yaml_parse((ROOT / template).read_text()))  # type: ignore[no-untyped-call]
