import datetime
import decimal
import math
from pathlib import Path

import pytest

from headway.values import clean, from_value, to_value


@pytest.mark.parametrize(
    "data", [None, True, False, 0, -3, 2**53, 0.25, "", "ä", [], [1, [None]], {}, {"a": {"b": [1, "x"]}}]
)
def test_json_comes_back_as_it_went(data: object) -> None:
    back = from_value(to_value(data))
    assert back == data
    assert type(back) is type(data)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (2**53 + 1, "9007199254740993"),
        (10**400, "1" + "0" * 400),
        (math.inf, "inf"),
        (math.nan, "nan"),
        (datetime.date(2026, 1, 2), "2026-01-02"),
        (Path("a/b"), "a/b"),
        (decimal.Decimal("1.10"), "1.10"),
        ("a\0b\ud800", "a\N{REPLACEMENT CHARACTER}b?"),
    ],
)
def test_what_json_has_no_word_for_becomes_text(data: object, text: str) -> None:
    assert from_value(to_value(data)) == text


def test_a_circle_ends() -> None:
    circle: list[object] = []
    circle.append(circle)
    to_value(circle).SerializeToString()


def test_keys_become_text() -> None:
    assert from_value(to_value({1: (1, 2), None: "x"})) == {"1": [1, 2], "None": "x"}


def test_clean_cuts_characters_and_not_bytes() -> None:
    assert clean("ä" * 10, 4) == "ä" * 4
    assert clean(None, 10) == "None"
