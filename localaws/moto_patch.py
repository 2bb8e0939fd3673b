"""Replaces parts of moto while a store runs."""

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any
from unittest.mock import patch


def replace_method(replaced: ExitStack, owner: Any, name: str, correction: Callable[..., Any]) -> None:
    """Replaces a method by a correction until `replaced` is closed."""

    def method(*args: Any, **kwargs: Any) -> Any:  # a plain function: a bound method would not get the instance
        return correction(*args, **kwargs)

    replaced.enter_context(patch.object(owner, name, method))
