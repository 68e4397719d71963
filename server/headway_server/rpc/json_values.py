"""Conversion between google.protobuf.Value and JSON text: variables and results are stored as JSON text."""

import json
import math
import struct
from collections.abc import Mapping

from google.protobuf import struct_pb2

from headway_server.domain.errors import FAULTS_SHOWN, FIELD_SHOWN, Fault

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]

EXACT_INTEGERS = 2**53
"""Doubles represent integers up to this exactly."""


_DOUBLE = struct.Struct("<d")
_SIZES = [bytes([size]) for size in range(128)]

Path = tuple["Path | None", str | int]
"""The path of a value: the path of its container, and its own name or index. It is formatted only for faults, because
that is slow."""


class _TooManyFaults(Exception):
    """There are more faults than a reply names: the rest is not checked."""


def to_text(value: struct_pb2.Value, field: str, faults: list[Fault]) -> str:
    """The value as JSON text. Adds a fault for each part that JSON or a database cannot represent, up to a limit."""
    try:
        plain = _to_plain(value, (None, field), faults)
    except _TooManyFaults:
        return ""
    return json.dumps(plain, ensure_ascii=False, separators=(",", ":"), sort_keys=True)


def _to_plain(value: struct_pb2.Value, path: Path, faults: list[Fault]) -> Json:
    match value.WhichOneof("kind"):
        case "null_value":
            return None
        case "bool_value":
            return value.bool_value
        case "number_value":
            return _number(value.number_value, path, faults)
        case "string_value":
            return _text(value.string_value, path, faults)
        case "list_value":
            items = value.list_value.values
            return [_to_plain(item, (path, index), faults) for index, item in enumerate(items)]
        case "struct_value":
            return {
                _text(name, path, faults): _to_plain(item, (path, name), faults)
                for name, item in value.struct_value.fields.items()
            }
        case _:
            _add(faults, path, "must have a value of some kind; null is one")
            return None


def _number(number: float, path: Path, faults: list[Fault]) -> int | float:
    if not math.isfinite(number):
        _add(faults, path, "must be a finite number; JSON has no NaN or infinity")
        return 0
    # -0.0 stays a float: as an int it would be 0.
    if number.is_integer() and abs(number) < EXACT_INTEGERS and (number or math.copysign(1, number) > 0):
        return int(number)
    return number


def _text(text: str, path: Path, faults: list[Fault]) -> str:
    if "\0" in text:
        _add(faults, path, "must not contain U+0000")
    return text


def _add(faults: list[Fault], path: Path, description: str) -> None:
    if len(faults) >= FAULTS_SHOWN:
        faults.append(Fault("", description))
        raise _TooManyFaults
    names: list[str | int] = []
    here: Path | None = path
    while here is not None:
        here, name = here
        names.append(name)
    field = str(names.pop())
    for name in reversed(names):
        field += f"[{name}]" if isinstance(name, int) else f".{name[:FIELD_SHOWN]}"
    faults.append(Fault(field, description))


def value_on_wire(text: str) -> bytes:
    """The serialized google.protobuf.Value of JSON text."""
    return wire(json.loads(text))


def struct_on_wire(texts: Mapping[str, str]) -> bytes:
    """The serialized google.protobuf.Struct of JSON texts by name."""
    return b"".join(entry(name, json.loads(text)) for name, text in texts.items())


def wire(plain: Json) -> bytes:
    """A plain value as a serialized google.protobuf.Value.

    Encoded by hand: protobuf's Python objects and json_format take ten times as long, and quadratic time for some
    values. Raises RecursionError if the value is nested too deep.
    """
    match plain:
        case str():
            return delimited(b"\x1a", plain.encode())
        case bool():
            return b"\x20\x01" if plain else b"\x20\x00"
        case int() | float():
            return b"\x11" + _DOUBLE.pack(plain)
        case list():
            return delimited(b"\x32", b"".join([delimited(b"\x0a", wire(item)) for item in plain]))
        case dict():
            return delimited(b"\x2a", b"".join([entry(name, item) for name, item in plain.items()]))
        case None:
            return b"\x08\x00"


def entry(name: str, plain: Json) -> bytes:
    """A name and a plain value as an entry of a serialized google.protobuf.Struct."""
    return delimited(b"\x0a", delimited(b"\x0a", name.encode()) + delimited(b"\x12", wire(plain)))


def tag(number: int) -> bytes:
    """The tag of a length-delimited field with this number, as on the wire."""
    return _varint(number << 3 | 2)


def delimited(tag: bytes, content: bytes) -> bytes:
    """A length-delimited field with this tag, as on the wire."""
    size = len(content)
    return (tag + _SIZES[size] if size < 128 else tag + _varint(size)) + content


def _varint(number: int) -> bytes:
    digits = bytearray()
    while number > 127:
        digits.append(number & 127 | 128)
        number >>= 7
    digits.append(number)
    return bytes(digits)
