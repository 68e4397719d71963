"""JSON to protobuf as it goes over the wire, and back, as protobuf's JSON mapping has it; strict on the way in."""

import json
import math
import re
from collections.abc import Callable
from functools import lru_cache
from typing import NoReturn

from google.protobuf import json_format, message, message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from headway_server.errors import Fault, InvalidRequest, MalformedMessage
from headway_server.json_values import EXACT_INTEGERS, Json

DEPTH = 100
"""So deep may objects and lists nest: protobuf reads no deeper."""

TOO_DEEP = f"The JSON is nested deeper than the {DEPTH} levels of protobuf, of which a list in a list takes two."

KEPT = 512
"""Answers that are kept as JSON: what many look at, or some again and again, is among the last."""

KEPT_BYTES = 4096
"""Larger ones are not kept."""

_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))

_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")

_STEEP = re.compile(rb"[\[{]{%d}" % (DEPTH + 1))

_FAILED = re.compile(r"Failed to parse (\w+) field: ")
_UNKNOWN = re.compile(r'Message type "[\w.]+" has no field named "(.*?)" at ', re.DOTALL)

_WANTED = {
    "google.protobuf.Duration": 'must be a time in seconds, for example "60s"',
    "google.protobuf.Timestamp": 'must be a time, for example "2027-01-31T12:00:00Z"',
    "google.protobuf.Value": "must be a value of JSON, and one that protobuf can hold",
    "google.protobuf.FieldMask": 'must be names of fields in one text, for example "name,size"',
}


def decoder(descriptor: Descriptor) -> Callable[[bytes], bytes]:
    """From JSON to this message on the wire. The function raises MalformedMessage for what is no JSON, InvalidRequest
    for JSON that is not of the schema."""
    kind = message_factory.GetMessageClass(descriptor)

    def decode(body: bytes) -> bytes:
        plain = _loads(body)
        if not isinstance(plain, dict):
            raise MalformedMessage(f"The body must be a JSON object: the fields of {descriptor.name}.")
        _one_spelling(descriptor, plain, ())
        try:
            return json_format.ParseDict(plain, kind()).SerializeToString()
        except message.EncodeError:
            raise MalformedMessage(TOO_DEEP) from None
        # Besides its own, json_format raises these for JSON of an unexpected shape.
        except (json_format.ParseError, AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
            if isinstance(error, RecursionError) or "Max recursion depth" in str(error):
                raise MalformedMessage(TOO_DEEP) from None
            raise InvalidRequest(_fault(descriptor, str(error))) from None

    return decode


def encoder(descriptor: Descriptor) -> Callable[[message.Message | bytes], bytes]:
    """From this message, or its bytes on the wire, to JSON. Fields that are not set are there too, by their default."""
    kind = message_factory.GetMessageClass(descriptor)
    holds_values = any(
        field.message_type and field.message_type.file.name == "google/protobuf/struct.proto"
        for field in descriptor.fields
    )

    def encode(answer: message.Message) -> bytes:
        plain: Json = json_format.MessageToDict(answer, always_print_fields_with_no_presence=True)
        if holds_values:
            plain = _whole_numbers(plain)
        return json.dumps(plain, ensure_ascii=False, separators=(",", ":")).encode()

    @lru_cache(KEPT)
    def encode_once(raw: bytes) -> bytes:
        return encode(kind.FromString(raw))

    def of_either(answer: message.Message | bytes) -> bytes:
        if not isinstance(answer, bytes):
            return encode(answer)
        return encode_once(answer) if len(answer) <= KEPT_BYTES else encode(kind.FromString(answer))

    return of_either


def _loads(body: bytes) -> Json:
    try:
        text = body.decode()
    except UnicodeDecodeError:
        raise MalformedMessage("The body must be JSON in UTF-8.") from None
    brackets = _STRING.sub(b"", body).translate(None, _NO_BRACKETS)
    if _STEEP.search(brackets):
        raise MalformedMessage(TOO_DEEP)
    for _ in range(DEPTH):
        # One level less with each turn.
        before, brackets = len(brackets), brackets.replace(b"[]", b"").replace(b"{}", b"")
        if len(brackets) == before:
            break
    if brackets:
        raise MalformedMessage(f"The JSON is nested deeper than {DEPTH} levels, or its brackets do not match.")
    try:
        plain: Json = json.loads(
            text,
            object_pairs_hook=_once,
            parse_constant=_no_number,
            parse_float=_finite,
            parse_int=_exact,
        )
        if _SURROGATE.search(body):
            json.dumps(plain, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        raise MalformedMessage(f"The body is not JSON, from line {error.lineno}, column {error.colno} on.") from None
    except RecursionError:
        raise MalformedMessage(TOO_DEEP) from None
    except UnicodeEncodeError:
        raise MalformedMessage("A text of the JSON holds half of a surrogate pair, which is no character.") from None
    return plain


def _once(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise MalformedMessage("An object of the JSON names a key twice.")
    return found


def _no_number(_: str) -> NoReturn:
    raise MalformedMessage("JSON has no NaN and no Infinity.")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise MalformedMessage("A number of the JSON is larger than a double can be.")
    return number


def _exact(text: str) -> int:
    # Many readers and writers of JSON have doubles alone: a number that may have lost its last digits is no number.
    if len(text) > 17 or abs(int(text)) > EXACT_INTEGERS:
        raise MalformedMessage(
            "Write integers beyond 2^53 as text: JSON's numbers are doubles, which cannot hold them."
        )
    return int(text)


def _whole_numbers(plain: Json) -> Json:
    """Whole doubles written as integers, as they came in."""
    match plain:
        case dict():
            return {name: _whole_numbers(item) for name, item in plain.items()}
        case list():
            return [_whole_numbers(item) for item in plain]
        case float() if plain.is_integer() and abs(plain) < EXACT_INTEGERS and str(plain) != "-0.0":
            return int(plain)
    return plain


def _field(descriptor: Descriptor, name: str) -> FieldDescriptor | None:
    return descriptor.fields_by_camelcase_name.get(name) or descriptor.fields_by_name.get(name)


def _one_spelling(descriptor: Descriptor, plain: dict[str, Json], path: tuple[str, ...]) -> None:
    """A field has two names in JSON; given under both it is given twice."""
    seen = set()
    for name, item in plain.items():
        field = _field(descriptor, name)
        if field is None:
            continue
        here = (*path, field.name)
        if field.number in seen:
            raise InvalidRequest(Fault(".".join(here), "is given twice, under both of its names"))
        seen.add(field.number)
        inner = field.message_type
        if inner is None or inner.file.package == "google.protobuf" or inner.GetOptions().map_entry:
            continue
        for part in item if isinstance(item, list) else (item,):
            if isinstance(part, dict):
                _one_spelling(inner, part, here)


def _fault(descriptor: Descriptor, text: str) -> Fault:
    """Which field is at fault, from json_format's words, and what it must be; nothing of what was sent."""
    path: list[str] = []
    here: Descriptor | None = descriptor
    field: FieldDescriptor | None = None
    start = 0
    while here is not None and (match := _FAILED.match(text, start)):
        field = _field(here, match[1])
        if field is None:
            break
        path.append(field.name)
        here = field.message_type
        start = match.end()
    if unknown := _UNKNOWN.match(text, start):
        return Fault(".".join([*path, unknown[1]]), "is no field that the schema has")
    if field is None:
        return Fault("", "is not what the schema says")
    return Fault(".".join(path), _must(field))


def _must(field: FieldDescriptor) -> str:
    kind = field.message_type
    if kind is not None and kind.GetOptions().map_entry:
        return "must be an object, its values of the type that the schema says"
    if field.is_repeated:
        return "must be a list, its items of the type that the schema says"
    if kind is not None:
        return _WANTED.get(kind.full_name, "must be an object as the schema says")
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_STRING:
            return "must be text"
        case FieldDescriptor.CPPTYPE_BOOL:
            return "must be true or false"
        case FieldDescriptor.CPPTYPE_ENUM:
            assert field.enum_type is not None
            return f"must be one of {', '.join(value.name for value in field.enum_type.values)}"
        case FieldDescriptor.CPPTYPE_DOUBLE | FieldDescriptor.CPPTYPE_FLOAT:
            return "must be a number"
        case _:
            return "must be a whole number in the field's range"
