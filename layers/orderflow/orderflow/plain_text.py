"""The characters that a text in a request or in the catalogue must not contain."""

import re

UNSAFE = r"\u0000-\u001F\u007F-\u009F\u2028-\u202E\u2066-\u2069"
"""For a class of a regular expression: control characters (C0, DEL, C1), line and paragraph separators, and the
bidirectional embeddings, overrides and isolates, which can reorder the text around them in a mail, a log or a terminal.

The marks U+061C, U+200E and U+200F are allowed: Arabic and Hebrew addresses contain them, and they reorder only the
characters next to them.
"""
_UNSAFE = re.compile(f"[{UNSAFE}]")


def unsafe_character(text: str) -> str | None:
    """Returns the first unsafe character of a text as a code point such as `U+202E`, or None."""
    found = _UNSAFE.search(text)
    return f"U+{ord(found[0]):04X}" if found else None
