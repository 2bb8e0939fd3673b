"""The local runner and the application import nothing of each other. Tests may import both."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.source import ROOT

RUNNER = "localaws"
APPLICATION = ("functions", "layers", "tools", "bench")
SOURCE_FOLDERS = ("functions", "layers/orderflow")
"""Folders on the import path: their packages are imported by their own names."""


def imported(code: str) -> Iterator[str]:
    """Yields the top-level modules that a module imports, at any place in it."""
    for node in ast.walk(ast.parse(code)):
        match node:
            case ast.Import(names=names):
                yield from (name.name.partition(".")[0] for name in names)
            case ast.ImportFrom(module=str(module), level=0):
                yield module.partition(".")[0]
            case ast.Call(args=[ast.Constant(value=str(name)), *_], func=ast.Attribute(attr="import_module")):
                yield name.partition(".")[0]


def imports_between(folder: Path, forbidden: set[str], leave_out: Path | None = None) -> list[str]:
    """Returns the imports of forbidden modules, as `file imports module`."""
    files = [path for path in sorted(folder.rglob("*.py")) if leave_out is None or leave_out not in path.parents]
    assert files, folder
    found = {(path, name) for path in files for name in imported(path.read_text()) if name in forbidden}
    return [f"{path} imports {name}" for path, name in sorted(found)]


def test_the_runner_imports_nothing_of_the_application() -> None:
    packages = {path.stem for folder in SOURCE_FOLDERS for path in (ROOT / folder).iterdir()}

    found = imports_between(ROOT / RUNNER, {*APPLICATION, "tests", *packages}, leave_out=ROOT / RUNNER / "tests")

    assert "orderflow" in packages
    assert not found


@pytest.mark.parametrize("folder", APPLICATION)
def test_the_application_imports_nothing_of_the_runner(folder: str) -> None:
    assert not imports_between(ROOT / folder, {RUNNER})


def test_an_import_at_any_place_of_a_module_is_found(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner/module.py").write_text(
        "import json, tools.seed\n"
        "def later():\n"
        "    from functions.orders import domain\n"
        "    from . import bench\n"
        "    importlib.import_module('layers.orderflow')\n"
    )

    found = imports_between(tmp_path, set(APPLICATION))

    assert [line.rpartition(" ")[2] for line in found] == ["functions", "layers", "tools"]
