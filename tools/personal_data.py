"""Finds personal data in logs. Tests use distinctive names and addresses, which no log line must contain."""

import json
import re
from collections.abc import Iterable


def personal_data_in(lines: Iterable[str], personal: Iterable[str]) -> list[str]:
    """Returns the lines that contain any of the texts, in upper or lower case, plain or escaped as JSON.

    Args:
        lines: the log lines.
        personal: the texts that must not be logged. They must be distinctive, because they are also found inside words.
    """
    forms = {form.lower() for text in personal for form in (text, json.dumps(text)[1:-1])}
    return [line for line in lines if any(form in _unescaped_once(line.lower()) for form in forms)]


def _unescaped_once(line: str) -> str:
    """Replaces repeated backslashes by one: JSON inside JSON escapes each backslash again."""
    return re.sub(r"\\+", r"\\", line)
