"""Text from other programs for a terminal: control characters are shown and have no effect."""

from __future__ import annotations

import json
import sys

_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t", "\x7f": "\\u007f"}
_HARMLESS = frozenset("\u00a0\u200c\u200d\u3000")
"""Not printable for Python, but part of ordinary text: spaces, and the joiners of Persian and of emoji."""


def safe(text: str, keep: str = "") -> str:
    """`text` with every character that could act on a terminal made visible, as JSON would write it.

    That is: control characters, escape sequences with them, and marks that turn the direction of writing. The
    characters in `keep` stay.
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char in keep or char in _HARMLESS else _escape(char) for char in text)


def warn(words: str) -> None:
    """Prints one line on standard error, if that is open."""
    if sys.stderr is not None:
        print(f"headway: {safe(words)}", file=sys.stderr, flush=True)


def _escape(char: str) -> str:
    return _SHORT.get(char) or json.dumps(char)[1:-1]
