"""Text and JSON values on their way to the server and back.

Nothing here raises: a tracker must not stop a worker because a title holds a stray byte or a result a datetime.
"""

import math
import numbers
from collections.abc import Mapping
from typing import TypeAlias

from google.protobuf import struct_pb2

Json: TypeAlias = bool | int | float | str | list["Json"] | dict[str, "Json"] | None

_EXACT = 2**53
_DEPTH = 32


def clean(text: object, limit: int) -> str:
    """The text as the server takes it: without U+0000 and lone surrogates, at most `limit` characters."""
    plain = str(text)[:limit]
    if plain.isascii() and "\0" not in plain:
        return plain
    return plain.encode("utf-8", "replace").decode().replace("\0", "\N{REPLACEMENT CHARACTER}")


def to_value(data: object, within: tuple[object, ...] = ()) -> struct_pb2.Value:
    """Any object as JSON. What JSON has no word for (dates, paths, integers beyond 2⁵³, NaN) becomes its text, and what
    stands `within` itself, or too deep, an ellipsis."""
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
    """The JSON value as Python has it; whole numbers as int."""
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
