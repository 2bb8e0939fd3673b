"""The characters that a text from a request or from the catalogue may not contain."""

import re

UNSAFE = r"\u0000-\u001F\u007F-\u009F\u2028-\u202E\u2066-\u2069"
"""For a class of a regular expression: control characters (C0, DEL, C1), line and paragraph separators, and the
bidirectional embeddings, overrides and isolates, which can reorder the text around them in a mail, a log or a terminal.

The marks U+061C, U+200E and U+200F are allowed. Arabic and Hebrew addresses contain them, and they do not reorder text
beyond their neighbours.
"""
_UNSAFE = re.compile(f"[{UNSAFE}]")


def unsafe_character(text: str) -> str | None:
    """The first character that a text may not contain, as a code point such as `U+202E`; None if there is none."""
    found = _UNSAFE.search(text)
    return f"U+{ord(found[0]):04X}" if found else None
