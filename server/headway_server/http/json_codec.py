"""Conversion between JSON and serialized protobuf by protobuf's JSON mapping. JSON from callers is checked strictly."""

import json
import math
import re
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any, NoReturn

from google.protobuf import json_format, message, message_factory
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor

from headway_server.domain.errors import Fault, InvalidRequest, MalformedMessage
from headway_server.resources.cache import Cache
from headway_server.rpc.from_proto import DETAIL_TYPES, MUST_BE_DETAIL
from headway_server.rpc.json_values import EXACT_INTEGERS, Json, entry, wire

DEPTH_MAX = 100
"""The deepest nesting of objects and lists: protobuf's own limit."""

TOO_DEEP = f"The JSON is nested deeper than protobuf's limit of {DEPTH_MAX} levels; a list in a list takes two levels."

JSON_BYTES = 8 * 1024 * 1024
"""Bytes of cached JSON replies. Replies that are requested often are among the latest."""

JSON_LENGTH_MAX = 4096
"""The largest reply (bytes) that is looked up in the cache: look-ups take time too."""

TEXT_LENGTH = 64 * 1024
"""The longest text that is passed to json_format, in characters."""

_BLANKS = b" \t\r\n"
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_LEVELS = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}

_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")

_TOO_MANY = "The JSON has more than {} values; send less at once."
_FAILED = re.compile(r"Failed to parse (\w+) field: ")
_UNKNOWN = re.compile(r'Message type "[\w.]+" has no field named "(.*?)" at ', re.DOTALL)

_TWICE = re.compile(r'Message type "[\w.]+" should not have multiple "(\w+)" oneof fields')

_WANTED = {
    "google.protobuf.Duration": 'must be a time in seconds, for example "60s"',
    "google.protobuf.Timestamp": 'must be a time, for example "2027-01-31T12:00:00Z"',
    "google.protobuf.Value": "must be a value of JSON, and one that protobuf can hold",
    "google.protobuf.FieldMask": 'must be names of fields in one text, for example "name,size"',
}

_Place = tuple[str | int, ...]
"""The path of a value in a message: names of fields, and indexes of lists."""

_Taken = tuple[_Place, bytes | str]
"""A serialized message or a text, and its path."""

_kept: Cache[tuple[str, bytes], bytes] = Cache(JSON_BYTES)


def decoder(descriptor: Descriptor, values: int) -> Callable[[bytes], bytes]:
    """A function from JSON of at most `values` values to this serialized message. It raises MalformedMessage for
    invalid or too large JSON, and InvalidRequest for JSON that does not match the schema."""
    kind = message_factory.GetMessageClass(descriptor)

    def decode(body: bytes) -> bytes:
        plain = _loads(body, values)
        if not isinstance(plain, dict):
            raise MalformedMessage(f"The body must be a JSON object: the fields of {descriptor.name}.")
        taken: list[_Taken] = []
        try:
            _prepare(descriptor, plain, (), taken)
            made = json_format.ParseDict(plain, kind())
            for place, given in taken:
                _put(made, place, given)
            return made.SerializeToString()
        except (message.EncodeError, message.DecodeError):
            raise MalformedMessage(TOO_DEEP) from None
        # json_format raises ParseError, and the others for JSON of an unexpected shape.
        except (json_format.ParseError, AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
            if isinstance(error, RecursionError) or "Max recursion depth" in str(error):
                raise MalformedMessage(TOO_DEEP) from None
            raise InvalidRequest(_fault(descriptor, str(error))) from None

    return decode


def encoder(descriptor: Descriptor) -> Callable[[message.Message | bytes], bytes]:
    """A function from this message, or its serialized bytes, to JSON. Unset fields are included with their defaults."""
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

    def encode_once(raw: bytes) -> bytes:
        if len(raw) > JSON_LENGTH_MAX:
            return encode(kind.FromString(raw))
        key = (descriptor.full_name, raw)
        made = _kept.get(key)
        if made is None:
            made = encode(kind.FromString(raw))
            _kept.put(key, made, len(raw) + len(made))
        return made

    return lambda answer: encode_once(answer) if isinstance(answer, bytes) else encode(answer)


def _loads(body: bytes, values: int) -> Json:
    try:
        text = body.decode()
    except UnicodeDecodeError:
        raise MalformedMessage("The body must be JSON in UTF-8.") from None
    _check_extent(body, values)
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
        raise MalformedMessage(f"The body is not valid JSON at line {error.lineno}, column {error.colno}.") from None
    except RecursionError:
        raise MalformedMessage(TOO_DEEP) from None
    except UnicodeEncodeError:
        raise MalformedMessage(
            "A text in the JSON contains half of a surrogate pair, which is not a character."
        ) from None
    return plain


def _check_extent(body: bytes, values: int) -> None:
    """Raise MalformedMessage for too many or too deep values, before the body is parsed.

    Every step runs in C and once over the body. Regular expressions are avoided, because many take quadratic time.
    """
    # Without escapes, every quote begins or ends a string: every other piece is outside of strings.
    plain = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    if plain.count(b'"') > 4 * values:
        raise MalformedMessage(_TOO_MANY.format(values))
    outside = b'"'.join(plain.split(b'"')[::2]).translate(None, _BLANKS)
    opened = outside.count(b"[") + outside.count(b"{")
    empty = outside.count(b"[]") + outside.count(b"{}")
    if max(1 + outside.count(b",") + opened - empty, opened) > values:
        raise MalformedMessage(_TOO_MANY.format(values))
    if opened <= DEPTH_MAX:
        return
    brackets = outside.translate(None, _NO_BRACKETS)
    if len(brackets) != 2 * opened:
        raise MalformedMessage("The body is not JSON: its brackets do not match.")
    if max(accumulate(map(_LEVELS.__getitem__, brackets))) > DEPTH_MAX:
        raise MalformedMessage(TOO_DEEP)


def _once(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise MalformedMessage("An object in the JSON has a key twice.")
    return found


def _no_number(_: str) -> NoReturn:
    raise MalformedMessage("JSON has no NaN and no Infinity.")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise MalformedMessage("A number in the JSON is larger than a double can be.")
    return number


def _exact(text: str) -> int:
    # Many JSON libraries only have doubles: a larger integer may have lost its last digits.
    if len(text) > 17 or abs(int(text)) > EXACT_INTEGERS:
        raise MalformedMessage(
            "Write integers beyond 2^53 as text: JSON's numbers are doubles, which cannot hold them."
        )
    return int(text)


def _whole_numbers(plain: Json) -> Json:
    """The value with whole doubles as integers."""
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


def _prepare(descriptor: Descriptor, plain: dict[str, Json], path: _Place, taken: list[_Taken]) -> None:
    """Check what json_format does not check, and move values for which it is slow from `plain` to `taken`.

    A field has two names in JSON, and a request must not use both. json_format needs quadratic time for a long list
    below a long name. It also searches every text for halves of surrogate pairs, which takes half a second for 4 MB.
    """
    seen = set()
    for name, item in list(plain.items()):
        field = _field(descriptor, name)
        if field is None:
            continue
        here = (*path, field.name)
        if field.number in seen:
            raise InvalidRequest(Fault(_dotted(here), "is given twice, under both of its names"))
        seen.add(field.number)
        inner = field.message_type
        kind = None if inner is None else inner.full_name
        if kind == "google.protobuf.Value":
            taken.append((here, wire(plain.pop(name))))
        elif kind == "google.protobuf.Struct" and isinstance(item, dict):
            taken.append((here, b"".join(entry(key, value) for key, value in item.items())))
            del plain[name]
        elif inner is None and isinstance(item, str) and len(item) > TEXT_LENGTH and _is_one_text(field):
            taken.append((here, item))
            del plain[name]
        elif inner is None or inner.GetOptions().map_entry or kind in _WANTED:
            _check_texts(item, here)
        else:
            parts = enumerate(item) if isinstance(item, list) else ((None, item),)
            for index, part in parts:
                if isinstance(part, dict):
                    _prepare_message(inner, part, here if index is None else (*here, index), taken)


def _prepare_message(descriptor: Descriptor, plain: dict[str, Json], path: _Place, taken: list[_Taken]) -> None:
    if descriptor.full_name != "google.protobuf.Any":
        _prepare(descriptor, plain, path, taken)
        return
    kind = plain.get("@type")
    if not isinstance(kind, str) or kind not in DETAIL_TYPES:
        # Messages that can contain any value would make json_format slow again.
        raise InvalidRequest(Fault(_dotted(path), MUST_BE_DETAIL))
    # The limit is for all details together, so blame the field and not one detail.
    _check_texts(plain, [step for step in path if isinstance(step, str)])


def _is_one_text(field: FieldDescriptor) -> bool:
    return field.type == FieldDescriptor.TYPE_STRING and not field.is_repeated


def _check_texts(plain: Json, path: Sequence[str | int]) -> None:
    """Raise InvalidRequest if a text or a name is longer than any legal one."""
    match plain:
        case str() if len(plain) > TEXT_LENGTH:
            raise InvalidRequest(Fault(_dotted(path), f"must have no text of more than {TEXT_LENGTH} characters"))
        case list():
            for item in plain:
                _check_texts(item, path)
        case dict():
            for name, item in plain.items():
                _check_texts(name, path)
                _check_texts(item, path)


def _put(made: message.Message, place: _Place, given: bytes | str) -> None:
    """Set a field of the message or of a nested message: a text, or a serialized message."""
    here: Any = made  # a message or a list of some, by turns
    *steps, last = place
    for step in steps:
        here = getattr(here, step) if isinstance(step, str) else here[step]
    if isinstance(given, str):
        setattr(here, str(last), given)
    else:
        part: message.Message = getattr(here, str(last))
        part.SetInParent()
        part.MergeFromString(given)


def _dotted(path: Sequence[str | int]) -> str:
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path).removeprefix(".")


def _fault(descriptor: Descriptor, text: str) -> Fault:
    """The invalid field, from json_format's message, and what it must be. Contains no data of the caller."""
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
        return Fault(".".join([*path, unknown[1]]), "is not a field of the schema")
    if here is not None and (twice := _TWICE.match(text, start)):
        choices = " and ".join(choice.name for choice in here.oneofs_by_name[twice[1]].fields)
        return Fault(".".join([*path, twice[1]]), f"is given twice: {choices} exclude each other")
    if field is None:
        return Fault("", "does not match the schema")
    return Fault(".".join(path), _must(field))


def _must(field: FieldDescriptor) -> str:
    kind = field.message_type
    if kind is not None and kind.GetOptions().map_entry:
        return "must be an object, its values of the type that the schema says"
    if field.is_repeated and field.enum_type is not None:
        return f"must be a list, each item one of {_names(field.enum_type)}"
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
            return f"must be one of {_names(field.enum_type)}"
        case FieldDescriptor.CPPTYPE_DOUBLE | FieldDescriptor.CPPTYPE_FLOAT:
            return "must be a number"
        case _:
            return "must be a whole number in the field's range"


def _names(enum: EnumDescriptor) -> str:
    return ", ".join(value.name for value in enum.values)
