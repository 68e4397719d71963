"""Converts arguments of the command line into values. It imports heavy modules only when they are needed."""

from __future__ import annotations

import json
import re
from argparse import ArgumentTypeError
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from google.protobuf.duration_pb2 import Duration
    from google.protobuf.struct_pb2 import Struct, Value

_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,6})?)([smhd]?)")
_ID = re.compile("[0-9a-fA-F]{32}")
_WHOLE = 2**53
"""Doubles, and so the numbers of variables and results, hold every integer up to here."""

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]


def seconds(text: str) -> float:
    """`90`, `90s`, `1.5m`, `2h` or `7d` in seconds. Raises ArgumentTypeError for anything else."""
    match = _DURATION.fullmatch(text)
    if not match:
        raise ArgumentTypeError(f"{text!r} is not a duration; write 90, 90s, 5m, 2h or 7d")
    return float(match[1]) * _SECONDS[match[2]]


def whole(text: str) -> int:
    """An integer of 64 bits. Raises ArgumentTypeError for anything else."""
    try:
        number = int(text)
    except ValueError:
        number = 2**63
    if not -(2**63) <= number < 2**63:
        raise ArgumentTypeError(f"{text!r} is not a whole number of 64 bits")
    return number


def amount(text: str) -> int:
    """A whole number that is not negative. Raises ArgumentTypeError for anything else."""
    number = whole(text)
    if number < 0:
        raise ArgumentTypeError(f"{text!r} is negative; write 0 or more")
    return number


def small(text: str) -> int:
    """A whole number of 0 to 2³¹-1. Raises ArgumentTypeError for anything else."""
    number = amount(text)
    if number >= 2**31:
        raise ArgumentTypeError(f"{text!r} is too large")
    return number


def pair(text: str) -> tuple[str, str]:
    """`key=value`. Raises ArgumentTypeError for anything else."""
    key, equals, value = text.partition("=")
    if not (key and equals):
        if _ID.fullmatch(text):
            raise ArgumentTypeError(f"{text!r} is a job's id, not NAME=VALUE; write the id before the options")
        raise ArgumentTypeError(f"{text!r} is not key=value")
    return key, value


def counter(text: str) -> tuple[str, int]:
    """`name=N`. Raises ArgumentTypeError for anything else."""
    name, number = pair(text)
    return name, whole(number)


def variable(text: str) -> tuple[str, Json]:
    """`name=JSON`, or `name=text` if it is not JSON. ArgumentTypeError for a value that Headway cannot store."""
    name, value = pair(text)
    try:
        return name, parse_json(value)
    except json.JSONDecodeError:
        return name, value


def results(text: str) -> Json:
    """JSON, strictly. Raises ArgumentTypeError for anything else."""
    try:
        return parse_json(text)
    except json.JSONDecodeError as error:
        raise ArgumentTypeError(f"not JSON: {error.msg} in line {error.lineno}, column {error.colno}") from None


def record_error(text: str) -> tuple[str, str, str]:
    """`record:code:message`; the message may contain colons. Code and message may be missing."""
    record, _, rest = text.partition(":")
    code, _, message = rest.partition(":")
    if not record:
        raise ArgumentTypeError(f"{text!r} has no record; write record:code:message")
    return record, code, message


def parse_json(text: str) -> Json:
    """The JSON value in `text`. JSONDecodeError if it is not JSON, ArgumentTypeError if Headway cannot store it."""
    try:
        value: Json = json.loads(text, parse_int=_integer, parse_float=_finite, parse_constant=_constant)
    except RecursionError:
        raise ArgumentTypeError("the JSON is nested too deeply") from None
    return value


def to_struct(variables: dict[str, Json]) -> Struct:
    """As google.protobuf.Struct. ArgumentTypeError if it is nested too deeply or its text is not Unicode."""
    from google.protobuf.struct_pb2 import Struct

    return Struct(fields={name: to_value(value) for name, value in variables.items()})


def to_value(value: Json) -> Value:
    """As google.protobuf.Value. ArgumentTypeError if it is nested too deeply or its text is not Unicode."""
    from google.protobuf import json_format
    from google.protobuf.struct_pb2 import Value

    try:
        return json_format.Parse(json.dumps(value), Value(), max_recursion_depth=90)
    except (json_format.ParseError, ValueError, RecursionError) as error:
        raise ArgumentTypeError(f"the JSON cannot be sent: {error}") from None


def to_duration(length: float) -> Duration:
    """Seconds as google.protobuf.Duration."""
    from google.protobuf.duration_pb2 import Duration

    micros = round(length * 1_000_000)
    return Duration(seconds=micros // 1_000_000, nanos=micros % 1_000_000 * 1000)


def _integer(text: str) -> int:
    number = int(text) if len(text) < 30 else _WHOLE + 1
    if abs(number) > _WHOLE:
        raise ArgumentTypeError(f"{text[:30]} is beyond 2^53, where JSON numbers lose digits; write it as text")
    return number


def _finite(text: str) -> float:
    number = float(text)
    if abs(number) == float("inf"):
        raise ArgumentTypeError(f"{text[:30]} is too large for a number")
    return number


def _constant(text: str) -> Json:
    raise json.JSONDecodeError(f"{text} is not JSON", text, 0)
