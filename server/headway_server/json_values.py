"""google.protobuf.Value as JSON text, and back: variables and results are stored as the text."""

import json
import math
from collections.abc import Mapping

from google.protobuf import struct_pb2

from headway_server.errors import FAULTS_SHOWN, FIELD_SHOWN, Fault

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]

EXACT_INTEGERS = 2**53
"""Doubles hold integers up to here exactly."""


Path = tuple["Path | None", str]
"""Where a value stands: the path of what holds it, and its own name. Written out for a fault alone: that is slow."""


def to_text(value: struct_pb2.Value, field: str, faults: list[Fault]) -> str:
    """The value as JSON text; what JSON or a database cannot hold is added to `faults`."""
    plain = _to_plain(value, (None, field), faults)
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
            return [_to_plain(item, (path, f"[{index}]"), faults) for index, item in enumerate(items)]
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
    # -0.0 is no integer that an int could tell from 0.
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
        return
    names: list[str] = []
    here: Path | None = path
    while here is not None:
        here, name = here
        names.append(name[:FIELD_SHOWN])
    field = names.pop()
    for name in reversed(names):
        field += name if name.startswith("[") else f".{name}"
    faults.append(Fault(field, description))


def to_value(text: str) -> struct_pb2.Value:
    """The value of JSON text that `to_text` made."""
    return to_struct({"value": text}).fields["value"]


def to_struct(texts: Mapping[str, str]) -> struct_pb2.Struct:
    """The values of JSON texts by name."""
    struct = struct_pb2.Struct()
    for name, text in texts.items():
        struct[name] = json.loads(text)
    return struct
