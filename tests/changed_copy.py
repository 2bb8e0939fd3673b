"""A copy of the application with some of its text changed: bugs to find, and waits to shorten."""

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]


class Change(NamedTuple):
    """A text that stands once in a file, and what stands there instead."""

    file: str
    old: str
    new: str


def changed_copy(folder: Path, changes: Iterable[Change]) -> Path:
    """Copy the application.

    Args:
        folder: where to.
        changes: what is different there.

    Returns:
        The copy's template.
    """
    for name in ("functions", "infrastructure", "layers"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "template.yaml", folder)
    for file, old, new in changes:
        text = (folder / file).read_text()
        assert text.count(old) == 1, f"{file} has {text.count(old)} times: {old}"
        (folder / file).write_text(text.replace(old, new))
    return folder / "template.yaml"
