"""A function's settings: one frozen dataclass, read from the environment once, at import."""

import os
from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import TypeVar

SettingsT = TypeVar("SettingsT")


class MissingSettings(Exception):
    """Required environment variables are absent or empty."""


def from_environment(settings: type[SettingsT], environment: Mapping[str, str] = os.environ) -> SettingsT:
    """Returns a dataclass of strings, filled from the environment.

    A field's upper-cased name is its variable (`orders_table` ← `ORDERS_TABLE`). A field without a default is required.
    An empty variable is treated as absent.
    """
    known = fields(settings)  # type: ignore[arg-type]
    values = {field.name: environment.get(field.name.upper()) for field in known}
    missing = [field.name.upper() for field in known if field.default is MISSING and not values[field.name]]
    if missing:
        raise MissingSettings(f"{settings.__name__} needs the environment variables {', '.join(missing)}")
    return settings(**{name: value for name, value in values.items() if value})
