"""Patterns of answers.

A mapping must have at least the entries of its pattern, a list exactly as many items, anything else must be equal. A
mapping with only these words says more: `at_least`, `at_most` (numbers), `matches` (a regular expression within the
text), `not` (another pattern), `length` (of a list or text: a pattern), `any` (anything but null).
"""

import re
from collections.abc import Mapping, Sequence

from clients.conformance.case import Data

_WORDS = frozenset({"at_least", "at_most", "matches", "not", "length", "any"})


def difference(expected: Data, actual: object, place: str = "") -> str:
    """How the value differs from the pattern; empty if it does not."""
    where = f"{place}: " if place else ""
    if isinstance(expected, Mapping):
        if expected and set(expected) <= _WORDS:
            return _measure(expected, actual, where)
        if not isinstance(actual, Mapping):
            return f"{where}{actual!r} is no {dict(expected)!r}"
        found = (
            difference(value, actual.get(key), f"{place}.{key}" if place else str(key))
            for key, value in expected.items()
        )
        return next(filter(None, found), "")
    if isinstance(expected, Sequence) and not isinstance(expected, str):
        if not isinstance(actual, list | tuple) or len(actual) != len(expected):
            return f"{where}{actual!r} is not {list(expected)!r}"
        pairs = enumerate(zip(expected, actual, strict=True))
        return next(filter(None, (difference(one, other, f"{place}[{at}]") for at, (one, other) in pairs)), "")
    same = expected == actual and isinstance(expected, bool) == isinstance(actual, bool)
    return "" if same else f"{where}{_short(actual)} is not {_short(expected)}"


def _measure(words: Mapping[str, Data], actual: object, where: str) -> str:
    for word, bound in words.items():
        match word:
            case "at_least" | "at_most":
                if not isinstance(actual, int | float) or not isinstance(bound, int | float):
                    return f"{where}{actual!r} is no number"
                if (actual < bound) if word == "at_least" else (actual > bound):
                    return f"{where}{actual:g} is not {word.replace('_', ' ')} {bound:g}"
            case "matches":
                if not re.search(str(bound), str(actual)):
                    return f"{where}{_short(actual)} does not match {bound!r}"
            case "not":
                if not difference(bound, actual):
                    return f"{where}{_short(actual)} should be something else"
            case "length":
                if not isinstance(actual, Sequence) or (fault := difference(bound, len(actual))):
                    return f"{where}its length: {fault if isinstance(actual, Sequence) else 'none'}"
            case "any":
                if actual is None:
                    return f"{where}there is nothing"
    return ""


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 300 else f"{text[:300]}… ({len(text)} characters)"
