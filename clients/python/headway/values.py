"""Converts text, numbers and JSON values for the server and back.

A title with a stray byte, a result with a datetime or a size of NaN must not stop a worker, so values are adjusted.
Only a value that is not a number where one is needed is an error of the program: TypeError at the call.
"""

import math
import numbers
from collections.abc import Mapping
from operator import index
from typing import TypeAlias

from google.protobuf import struct_pb2

Json: TypeAlias = bool | int | float | str | list["Json"] | dict[str, "Json"] | None

_INT64 = 2**63 - 1
_DIGITS = 6
"""Decimal digits that are kept before a fraction is cut off, so that ten times 0.1 is 1."""

_EXACT = 2**53
_DEPTH = 32


def clean(text: object, limit: int) -> str:
    """The text as the server accepts it: without U+0000 and lone surrogates, at most `limit` characters."""
    plain = str(text)[:limit]
    if plain.isascii() and "\0" not in plain:
        return plain
    return plain.encode("utf-8", "replace").decode().replace("\0", "\N{REPLACEMENT CHARACTER}")


def amount(number: float) -> float | None:
    """A number of units, between -2⁶³+1 and 2⁶³-1. None for NaN and infinity. TypeError if it is not a number."""
    if hasattr(number, "__index__"):
        # Not only int: the integers of NumPy stay exact too.
        fitting: float = index(number)
    elif hasattr(number, "__float__"):
        try:
            fitting = float(number)
        except OverflowError:
            fitting = int(number)
        except ValueError:
            # A signalling NaN.
            return None
        if isinstance(fitting, float) and not math.isfinite(fitting):
            return None
    else:
        raise TypeError(f"This must be a number, not {type(number).__name__}: {number!r}.")
    return min(max(fitting, -_INT64), _INT64)


def whole(number: float) -> int:
    """A sum of amounts for a report: without its fraction, between -2⁶³+1 and 2⁶³-1."""
    return min(max(int(round(number, _DIGITS)), -_INT64), _INT64)


def as_size(number: float | None) -> int:
    """A size: 0, not known, for None, NaN, infinity and negative numbers. TypeError if it is not a number."""
    return max(whole((amount(number) if number is not None else None) or 0), 0)


def to_value(data: object, within: tuple[object, ...] = ()) -> struct_pb2.Value:
    """Any object as JSON. A value that JSON does not have (dates, paths, integers beyond 2⁵³, NaN) becomes its text. A
    value that contains itself, or is nested too deeply, becomes an ellipsis. `within`: the objects around this one."""
    if data is None:
        return struct_pb2.Value(null_value=struct_pb2.NULL_VALUE)
    if isinstance(data, bool):
        return struct_pb2.Value(bool_value=data)
    if isinstance(data, numbers.Real):
        try:
            number = float(data)
        except (OverflowError, ValueError):
            return struct_pb2.Value(string_value=clean(data, _EXACT))
        exact = not isinstance(data, numbers.Integral) or abs(int(data)) <= _EXACT
        if math.isfinite(number) and exact:
            return struct_pb2.Value(number_value=number)
    elif isinstance(data, Mapping | list | tuple | set | frozenset):
        if len(within) == _DEPTH or any(outer is data for outer in within):
            return struct_pb2.Value(string_value="…")
        if isinstance(data, Mapping):
            return struct_pb2.Value(struct_value=to_struct(data, within))
        items = [to_value(item, (*within, data)) for item in data]
        return struct_pb2.Value(list_value=struct_pb2.ListValue(values=items))
    return struct_pb2.Value(string_value=clean(data, _EXACT))


def to_struct(data: Mapping[str, object], within: tuple[object, ...] = ()) -> struct_pb2.Struct:
    """A mapping as a JSON object; see `to_value`."""
    inner = (*within, data)
    return struct_pb2.Struct(fields={clean(key, _EXACT): to_value(value, inner) for key, value in data.items()})


def from_value(value: struct_pb2.Value) -> Json:
    """The JSON value as a Python object, with whole numbers as int."""
    match value.WhichOneof("kind"):
        case "bool_value":
            return value.bool_value
        case "number_value":
            number = value.number_value
            return int(number) if number.is_integer() else number
        case "string_value":
            return value.string_value
        case "list_value":
            return [from_value(item) for item in value.list_value.values]
        case "struct_value":
            return from_struct(value.struct_value)
        case _:
            return None


def from_struct(struct: struct_pb2.Struct) -> dict[str, Json]:
    """The JSON object as a dict."""
    return {key: from_value(value) for key, value in struct.fields.items()}
