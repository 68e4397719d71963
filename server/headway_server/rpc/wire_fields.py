"""How many fields a serialised message has, counted before protobuf makes an object of each."""

from collections.abc import Mapping
from functools import cache

from google.protobuf.descriptor import Descriptor

from headway_server.domain.errors import Fault, InvalidRequest

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
"""Types of fields on the wire."""

_MORE = 128
"""The bit of a varint's byte that says that another byte follows."""


def check(raw: bytes, descriptor: Descriptor, limit: int) -> None:
    """Raise InvalidRequest if the message, with the messages in it, has more than `limit` fields, known or not.

    What is malformed is left to protobuf. Each field is visited once.
    """
    count = 0
    ranges = [(0, len(raw), descriptor, 0)]
    try:
        while ranges:
            at, end, kind, first = ranges.pop()
            inner = _messages(kind)
            while at < end:
                tag = raw[at]
                at += 1
                if tag >= _MORE:
                    tag, at = _varint(raw, at - 1)
                number, wire_type = tag >> 3, tag & 7
                count += 1
                if count > limit:
                    raise InvalidRequest(_fault(descriptor, first or number, limit))
                if wire_type == _LENGTH:
                    size = raw[at]
                    at += 1
                    if size >= _MORE:
                        size, at = _varint(raw, at - 1)
                    message = inner.get(number)
                    if message is not None:
                        ranges.append((at, min(at + size, end), message, first or number))
                    at += size
                elif wire_type == _VARINT:
                    while raw[at] >= _MORE:
                        at += 1
                    at += 1
                elif wire_type == _FIXED64:
                    at += 8
                elif wire_type == _FIXED32:
                    at += 4
    except IndexError:
        return


def _fault(descriptor: Descriptor, number: int, limit: int) -> Fault:
    """`number` is that of the request's own field in which the counting ended."""
    field = descriptor.fields_by_number.get(number)
    name = "request" if field is None else field.name
    return Fault(name, f"must be smaller: a request may have at most {limit} fields, with those of the messages in it")


@cache
def _messages(descriptor: Descriptor) -> Mapping[int, Descriptor]:
    """The messages that a message can hold, by the number of their field."""
    return {field.number: field.message_type for field in descriptor.fields if field.message_type is not None}


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    """The number that begins there, and where it ends. Protobuf takes ten bytes at most; so does this."""
    number = 0
    for shift in range(0, 70, 7):
        byte = raw[at]
        at += 1
        number |= (byte & 127) << shift
        if byte < _MORE:
            break
    return number, at
