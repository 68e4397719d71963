"""The exceptions of Headway. Creating and reading jobs raises them; reports never raise."""

import concurrent.futures
import os
import traceback
from asyncio import CancelledError
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import ClassVar

import grpc
from google.protobuf.message import DecodeError
from google.rpc import code_pb2, error_details_pb2, status_pb2

from headway.values import clean

TRACE_FRAMES = 20
"""Frames of a traceback that are sent with the failure of a job. These are the innermost frames."""
TRACE_LINE = 256
"""Characters of a line of it."""
TRACE_BYTES = 4096
"""Bytes of all its lines. Every reader of the job gets them."""

_CODES = {code.value[0]: code for code in grpc.StatusCode}


class HeadwayError(Exception):
    """The server refused a call, or the call did not reach the server."""

    kinds: ClassVar[dict[grpc.StatusCode, type["HeadwayError"]]] = {}

    def __init__(
        self,
        code: grpc.StatusCode,
        message: str,
        *,
        reason: str = "",
        fields: Iterable[tuple[str, str]] = (),
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message or code.name)
        self.code = code
        self.message = message
        """A sentence for people. It says what to do."""
        self.reason = reason
        """A name of headway.v1.ErrorReason, such as `JOB_ENDED`. It is empty if the error is not from a Headway
        server."""
        self.fields = list(fields)
        """The invalid fields: the path of each in the request, and what it must be."""
        self.retry_after = retry_after
        """Seconds to wait before a retry, if the server says so, or None."""


class NotFoundError(HeadwayError):
    """The session has no such job."""


class InvalidError(HeadwayError, ValueError):
    """The request is malformed; `fields` says where."""


class StateError(HeadwayError):
    """The job's state does not allow the call: it has ended, has not started, or another worker has it. See
    `reason`."""


class UnavailableError(HeadwayError):
    """The server or its database does not answer. Retry later."""


HeadwayError.kinds.update(
    {
        grpc.StatusCode.NOT_FOUND: NotFoundError,
        grpc.StatusCode.INVALID_ARGUMENT: InvalidError,
        grpc.StatusCode.FAILED_PRECONDITION: StateError,
        grpc.StatusCode.UNAVAILABLE: UnavailableError,
    }
)


class JobCancelled(Exception):
    """Somebody asked the job to end early. Do not catch this: the job ends as CANCELLED."""

    def __init__(self, reason: str = "", deadline: datetime | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        """The reason that was given with the request."""
        self.deadline = deadline
        """The time when the server ends the job itself, in UTC, or None if it is not known."""


_CANCELLATIONS = (KeyboardInterrupt, CancelledError, concurrent.futures.CancelledError, JobCancelled)


def from_status(status: status_pb2.Status) -> HeadwayError:
    """Decodes a google.rpc.Status and those of its details that are readable."""
    reason, fields, retry_after = "", list[tuple[str, str]](), None
    for detail in status.details:
        info, bad, retry = (
            error_details_pb2.ErrorInfo(),
            error_details_pb2.BadRequest(),
            error_details_pb2.RetryInfo(),
        )
        with suppress(DecodeError):
            if detail.Unpack(info) and info.domain == "headway":
                reason = info.reason
            elif detail.Unpack(bad):
                fields = [(violation.field, violation.description) for violation in bad.field_violations]
            elif detail.Unpack(retry):
                # A timedelta cannot hold every Duration.
                retry_after = retry.retry_delay.seconds + retry.retry_delay.nanos / 1e9
    code = _CODES.get(status.code, grpc.StatusCode.UNKNOWN)
    return HeadwayError.kinds.get(code, HeadwayError)(
        code, status.message, reason=reason, fields=fields, retry_after=retry_after
    )


@contextmanager
def translated() -> Iterator[None]:
    """Raises the errors of a stub as HeadwayError."""
    try:
        yield
    except grpc.RpcError as error:
        raise from_rpc_error(error) from None


def from_rpc_error(error: grpc.RpcError) -> HeadwayError:
    """Decodes the error of a stub, synchronous or asyncio."""
    if not isinstance(error, grpc.Call | grpc.aio.AioRpcError):
        return HeadwayError(grpc.StatusCode.UNKNOWN, str(error))
    # A call that was never sent has no trailing metadata at all.
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin" and isinstance(value, bytes):
            with suppress(DecodeError):
                status = status_pb2.Status.FromString(value)
                if status.code == error.code().value[0]:
                    return from_status(status)
    return from_status(status_pb2.Status(code=error.code().value[0], message=error.details() or ""))


def end_status(error: BaseException | None) -> status_pb2.Status | None:
    """The error with which the job ends, or None if it is COMPLETED."""
    if error is None or (isinstance(error, SystemExit) and error.code in (None, 0)):
        return None
    code = code_pb2.CANCELLED if isinstance(error, _CANCELLATIONS) else code_pb2.UNKNOWN
    return failure(error, code)


def failure(error: object, code: int = code_pb2.UNKNOWN) -> status_pb2.Status:
    """An exception, or any text, as the error of a job."""
    trace: list[str] = []
    if isinstance(error, BaseException):
        told = code != code_pb2.CANCELLED and not isinstance(error, SystemExit)
        if told and os.environ.get("HEADWAY_TRACEBACK") != "0":
            trace = _last_lines(error)
        text = str(error)
        error = f"{type(error).__name__}: {text}" if text else type(error).__name__
    status = status_pb2.Status(code=code, message=clean(error, 1024))
    if trace:
        status.details.add().Pack(error_details_pb2.DebugInfo(stack_entries=trace))
    return status


def _last_lines(error: BaseException) -> list[str]:
    """The last lines of the traceback, within TRACE_BYTES. They hold no values of variables."""
    lines: list[str] = []
    # The source is read from disk, and a frame can name anything as its file.
    with suppress(Exception):
        left = TRACE_BYTES
        for line in reversed("".join(traceback.format_tb(error.__traceback__, -TRACE_FRAMES)).splitlines()):
            line = clean(line, TRACE_LINE)
            left -= len(line.encode())
            if left < 0:
                break
            lines.insert(0, line)
    return lines
