"""Finds personal data in logs. Tests use distinctive names, addresses and e-mails, which no log line may contain."""

import json
import re
from collections.abc import Iterable


def personal_data_in(lines: Iterable[str], personal: Iterable[str]) -> list[str]:
    """Return the lines that contain any of the texts, in any case, as they are or escaped as JSON.

    Args:
        lines: what was logged.
        personal: the texts that must not be logged. Each must be distinctive: it is found inside words too.
    """
    forms = {form.lower() for text in personal for form in (text, json.dumps(text)[1:-1])}
    return [line for line in lines if any(form in _unescaped_once(line.lower()) for form in forms)]


def _unescaped_once(line: str) -> str:
    """JSON inside JSON escapes each backslash again; one is enough to compare."""
    return re.sub(r"\\+", r"\\", line)
