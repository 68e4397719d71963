"""What a call that fails answers, checked for what every refusal owes its caller."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any  # arguments that are passed on as they are

import grpc
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from headway.v1 import error_reason_pb2

DOMAIN = "headway"

INSIDES = re.compile(
    r"Traceback|File \"|\.py\b|/(?:home|usr|tmp|var)/|site-packages|object at 0x"
    r"|\b(?:SELECT|INSERT INTO|UPDATE \w+ SET|DELETE FROM)\b|sqlite|psycopg|peewee|postgres|headway_server|_pb2"
    r"|\b[A-Z]\w*(?:Error|Exception|Row)\b"
)
"""What a message for callers must not hold: tracebacks, paths, SQL, names of classes and libraries."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A failed call: the canonical code's name, the message, and the details as they came."""

    code: str
    message: str
    details: tuple[Message, ...]
    trailers: tuple[tuple[str, str | bytes], ...] = ()

    @property
    def reason(self) -> str:
        """The ErrorInfo's reason."""
        (info,) = (d for d in self.details if isinstance(d, error_details_pb2.ErrorInfo))
        return info.reason

    @property
    def fields(self) -> set[str]:
        """The fields that BadRequest names."""
        return {
            violation.field
            for detail in self.details
            if isinstance(detail, error_details_pb2.BadRequest)
            for violation in detail.field_violations
        }

    @property
    def retry_after(self) -> float | None:
        """Seconds of RetryInfo."""
        for detail in self.details:
            if isinstance(detail, error_details_pb2.RetryInfo):
                return detail.retry_delay.ToTimedelta().total_seconds()
        return None


_DETAILS: tuple[type[Message], ...] = (
    error_details_pb2.ErrorInfo,
    error_details_pb2.BadRequest,
    error_details_pb2.RetryInfo,
)


def _unpack(status: status_pb2.Status) -> tuple[Message, ...]:
    details: list[Message] = []
    for packed in status.details:
        kind = next((kind for kind in _DETAILS if packed.TypeName() == kind.DESCRIPTOR.full_name), None)
        assert kind is not None, f"unexpected detail {packed.type_url}"
        details.append(kind.FromString(packed.value))
    return tuple(details)


def from_status(status: status_pb2.Status) -> Refusal:
    """The refusal in a google.rpc.Status, checked."""
    code = next(code.name for code in grpc.StatusCode if code.value[0] == status.code)
    return _checked(Refusal(code, status.message, _unpack(status)))


def from_error(error: grpc.RpcError) -> Refusal:
    """The refusal that a call raised, checked."""
    assert isinstance(error, grpc.Call)
    trailers = tuple((key, value) for key, value in error.trailing_metadata() or ())
    packed = [value for key, value in trailers if key == "grpc-status-details-bin"]
    assert len(packed) == 1, f"{error.code().name} without details: {error.details()}"
    assert isinstance(packed[0], bytes)
    status = status_pb2.Status.FromString(packed[0])
    assert status.code == error.code().value[0]
    assert status.message == (error.details() or "")
    return _checked(Refusal(error.code().name, status.message, _unpack(status), trailers))


def _checked(refusal: Refusal) -> Refusal:
    assert refusal.code not in ("OK", "INTERNAL", "UNKNOWN"), refusal
    infos = [detail for detail in refusal.details if isinstance(detail, error_details_pb2.ErrorInfo)]
    assert len(infos) == 1, refusal
    assert infos[0].domain == DOMAIN
    assert infos[0].reason in error_reason_pb2.ErrorReason.DESCRIPTOR.values_by_name
    assert infos[0].reason != "ERROR_REASON_UNSPECIFIED"
    assert refusal.message, "a refusal says what to do"
    for text in (refusal.message, *refusal.fields):
        assert not INSIDES.search(text), f"shows insides: {text}"
    if refusal.reason == "INVALID_REQUEST":
        assert refusal.fields, "a field is at fault, but none is named"
    if refusal.code == "RESOURCE_EXHAUSTED" and refusal.reason != "MESSAGE_TOO_LARGE":
        assert refusal.retry_after is not None and refusal.retry_after > 0
    return refusal


def refused(call: Callable[..., object], *arguments: Any, **named: Any) -> Refusal:
    """How the call was refused; it is an error if it was not."""
    try:
        answer = call(*arguments, **named)
    except grpc.RpcError as error:
        return from_error(error)
    raise AssertionError(f"not refused, but answered: {str(answer)[:300]}")


def refused_with(reason: str, call: Callable[..., object], *arguments: Any, **named: Any) -> Refusal:
    """How the call was refused, which must be for this reason."""
    refusal = refused(call, *arguments, **named)
    assert refusal.reason == reason, refusal
    return refusal


def faults(call: Callable[..., object], *arguments: Any, **named: Any) -> set[str]:
    """The fields that an INVALID_ARGUMENT names."""
    refusal = refused_with("INVALID_REQUEST", call, *arguments, **named)
    assert refusal.code == "INVALID_ARGUMENT"
    return refusal.fields


def outcome(call: Callable[..., object], *arguments: Any, **named: Any) -> str:
    """ "OK", or the reason of the refusal: for tables of what is allowed when."""
    try:
        call(*arguments, **named)
    except grpc.RpcError as error:
        return from_error(error).reason
    return "OK"


def only(items: Sequence[status_pb2.Status]) -> Refusal:
    """The one refusal among a stream's failures."""
    (status,) = items
    return from_status(status)
