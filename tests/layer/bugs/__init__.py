"""Changes functions when they are imported, by the names of what they define, so that a test can plant bugs in them.

Only function processes import this package: from the layer that tests/variants.py adds to their template.
"""

import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

Change = Callable[[ModuleType], None]

_changes: dict[str, list[Change]] = {}


def after_import(module: str, change: Change) -> None:
    """Calls `change` with a module once it is imported, before any other module sees what it defines."""
    _changes.setdefault(module, []).append(change)


def wrap(name: str, wrapper: Callable[..., Any]) -> None:
    """Replaces a function or method.

    Args:
        name: like `inventory.handler:handler`.
        wrapper: is called with the original and the arguments of the call.
    """
    module, _, path = name.partition(":")

    def change(imported: ModuleType) -> None:
        *parents, attribute = path.split(".")
        owner: Any = imported
        for parent in parents:
            owner = getattr(owner, parent)
        original = getattr(owner, attribute)
        setattr(owner, attribute, lambda *arguments: wrapper(original, *arguments))

    after_import(module, change)


class _ChangingFinder(MetaPathFinder):
    """Finds modules where Python does, and changes those that have changes."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, path, target) if name in _changes else None
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def execute_and_change(module: ModuleType) -> None:
            execute(module)
            for change in _changes[name]:
                change(module)

        spec.loader.exec_module = execute_and_change  # type: ignore[method-assign]
        return spec


sys.meta_path.insert(0, _ChangingFinder())
