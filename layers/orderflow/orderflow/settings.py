"""A function's settings: one frozen dataclass, read from the environment once, at import."""

import os
from collections.abc import Mapping
from dataclasses import fields
from typing import TypeVar

SettingsT = TypeVar("SettingsT")


class MissingSettings(Exception):
    """Environment variables that the function needs and does not have."""


def from_environment(settings: type[SettingsT], environment: Mapping[str, str] = os.environ) -> SettingsT:
    """Fill a dataclass of strings from the environment.

    Args:
        settings: a dataclass; a field's upper-cased name is its variable (`orders_table` ← `ORDERS_TABLE`).
        environment: where to read from.

    Raises:
        MissingSettings: naming every variable that is absent or empty.
    """
    names = {field.name: field.name.upper() for field in fields(settings)}  # type: ignore[arg-type]
    missing = [variable for variable in names.values() if not environment.get(variable)]
    if missing:
        raise MissingSettings(f"{settings.__name__} needs the environment variables {', '.join(missing)}")
    return settings(**{name: environment[variable] for name, variable in names.items()})
