"""google.protobuf.Value as JSON text, and back: variables and results are stored as the text."""

import json
import math
from collections.abc import Mapping

from google.protobuf import struct_pb2

from headway_server.errors import Fault

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]

EXACT_INTEGERS = 2**53
"""Doubles hold integers up to here exactly."""


def to_text(value: struct_pb2.Value, field: str, faults: list[Fault]) -> str:
    """The value as JSON text; what JSON or a database cannot hold is added to `faults`."""
    plain = _to_plain(value, field, faults)
    return json.dumps(plain, ensure_ascii=False, separators=(",", ":"), sort_keys=True)


def _to_plain(value: struct_pb2.Value, field: str, faults: list[Fault]) -> Json:
    match value.WhichOneof("kind"):
        case "null_value":
            return None
        case "bool_value":
            return value.bool_value
        case "number_value":
            return _number(value.number_value, field, faults)
        case "string_value":
            return _text(value.string_value, field, faults)
        case "list_value":
            return [_to_plain(item, f"{field}[{index}]", faults) for index, item in enumerate(value.list_value.values)]
        case "struct_value":
            return {
                _text(name, field, faults): _to_plain(item, f"{field}.{name}", faults)
                for name, item in value.struct_value.fields.items()
            }
        case _:
            faults.append(Fault(field, "must have a value of some kind; null is one"))
            return None


def _number(number: float, field: str, faults: list[Fault]) -> int | float:
    if not math.isfinite(number):
        faults.append(Fault(field, "must be a finite number; JSON has no NaN or infinity"))
        return 0
    if number.is_integer() and abs(number) < EXACT_INTEGERS and math.copysign(1, number) > 0:
        return int(number)
    return number


def _text(text: str, field: str, faults: list[Fault]) -> str:
    if "\0" in text:
        faults.append(Fault(field, "must not contain U+0000"))
    return text


def to_value(text: str) -> struct_pb2.Value:
    """The value of JSON text that `to_text` made."""
    return to_struct({"value": text}).fields["value"]


def to_struct(texts: Mapping[str, str]) -> struct_pb2.Struct:
    """The values of JSON texts by name."""
    struct = struct_pb2.Struct()
    for name, text in texts.items():
        struct[name] = json.loads(text)
    return struct
