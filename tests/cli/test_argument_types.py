"""What can be written on the command line, and what it means."""

from argparse import ArgumentTypeError
from collections.abc import Callable

import pytest

from headway.cli import argument_types


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("90s", 90), ("5m", 300), ("2h", 7200), ("7d", 604800), ("1.5m", 90), ("0", 0), ("0.25s", 0.25)],
)
def test_durations(text: str, seconds: float) -> None:
    assert argument_types.seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "s", "-1", "1w", "1 s", "1h30m", "nan", "inf", "1e3", "٣s", "9" * 20])
def test_no_durations(text: str) -> None:
    with pytest.raises(ArgumentTypeError):
        argument_types.seconds(text)


def test_durations_become_protobuf_to_the_microsecond() -> None:
    duration = argument_types.to_duration(1.000001)
    assert (duration.seconds, duration.nanos) == (1, 1000)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("k=1", 1),
        ("k=1.5", 1.5),
        ("k=true", True),
        ("k=null", None),
        ('k="1"', "1"),
        ('k={"a": [1, {}]}', {"a": [1, {}]}),
        ("k=plain text", "plain text"),
        ("k=", ""),
        ("k=NaN", "NaN"),
        ("k={broken", "{broken"),
        ("k=a=b", "a=b"),
        ("k=ünï📚", "ünï📚"),
    ],
)
def test_variables(text: str, value: argument_types.Json) -> None:
    assert argument_types.variable(text) == ("k", value)


@pytest.mark.parametrize("text", ["k", "=1", "", "k=9007199254740993", "k=1e400", "k=" + "[" * 100_000])
def test_no_variables(text: str) -> None:
    with pytest.raises(ArgumentTypeError):
        argument_types.variable(text)


@pytest.mark.parametrize("value", ["\ud800", ["\udfff"], {"\ud800": 1}])
def test_text_that_is_no_unicode_cannot_be_sent(value: argument_types.Json) -> None:
    with pytest.raises(ArgumentTypeError):
        argument_types.to_struct({"k": value})


def test_nesting_is_bounded() -> None:
    deep = argument_types.parse_json("[" * 95 + "]" * 95)
    with pytest.raises(ArgumentTypeError):
        argument_types.to_struct({"k": deep})


def test_results_are_json_and_nothing_else() -> None:
    assert argument_types.results("[1, null]") == [1, None]
    with pytest.raises(ArgumentTypeError, match="not JSON"):
        argument_types.results("plain text")


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("r1", ("r1", "", "")),
        ("r1:BAD", ("r1", "BAD", "")),
        ("r1:BAD:it is: bad", ("r1", "BAD", "it is: bad")),
        ("r1::why", ("r1", "", "why")),
    ],
)
def test_record_errors(text: str, error: tuple[str, str, str]) -> None:
    assert argument_types.record_error(text) == error


@pytest.mark.parametrize(
    ("read", "text"),
    [
        (argument_types.amount, "-1"),
        (argument_types.amount, "1.5"),
        (argument_types.whole, str(2**63)),
        (argument_types.whole, "9" * 5000),
        (argument_types.small, str(2**31)),
        (argument_types.counter, "added"),
        (argument_types.counter, "added=x"),
        (argument_types.pair, "=x"),
        (argument_types.record_error, ":BAD"),
    ],
)
def test_bad_values(read: Callable[[str], object], text: str) -> None:
    with pytest.raises(ArgumentTypeError):
        read(text)
