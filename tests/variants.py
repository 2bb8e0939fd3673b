"""Variants of the application for tests: its template with other values, and its functions with bugs."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from samtranslator.yaml_helper import yaml_parse

from tests.contract.source import ROOT, source

Template = dict[str, Any]
LAYER = ROOT / "tests/layer"


def variant(folder: Path, change: Callable[[Template], None]) -> Path:
    """Writes a variant of template.yaml, next to links to the application's code.

    Args:
        folder: gets the template and the links.
        change: changes the template, in which intrinsic functions have their long form.

    Returns:
        The template's file.
    """
    template = json.loads(json.dumps(source(), default=str))  # no two places share an object, dates are strings
    change(template)
    file = folder / "template.yaml"
    file.write_text(yaml.dump(template, Dumper=yaml.CSafeDumper, sort_keys=False))
    for name in ("functions", "layers", "infrastructure"):
        (folder / name).symlink_to(ROOT / name)
    return file


def add(template: Template, text: str) -> None:
    """Adds resources and outputs to a template.

    Args:
        text: YAML with the sections that it adds to.
    """
    for section, entries in yaml_parse(text).items():  # type: ignore[no-untyped-call]
        template[section].update(entries)


def add_bugs(template: Template, module: str, **variables: str) -> None:
    """Lets all functions import bugs when they start.

    Args:
        module: of tests/layer/.
        variables: the environment variables that it reads.
    """
    layer = {"Type": "AWS::Serverless::LayerVersion", "Properties": {"ContentUri": str(LAYER)}}
    template["Resources"]["BugsLayer"] = layer
    template["Globals"]["Function"]["Layers"].append({"Ref": "BugsLayer"})
    template["Globals"]["Function"]["Environment"]["Variables"].update({"BUGS": module, **variables})
