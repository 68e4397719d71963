"""Conversion between jobs and rows of JobRow."""

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any  # what a database driver returns has no other type

from headway_server.domain import estimate
from headway_server.domain.job import Cancellation, Error, Job, Status, StatusChange
from headway_server.storage.models import JobRow

SqlValue = str | int | float | bool | None

COLUMNS: tuple[str, ...] = tuple(JobRow._meta.sorted_field_names)

KEY = ("session_hash", "id")

REPORTED: tuple[str, ...] = (
    "size",
    "message",
    "parts",
    "sequences",
    "progress",
    "counters",
    "error_count",
    "last_contact_time",
    "last_progress_time",
    "update_time",
    "stalled",
    "pace",
    "revision",
)
"""The columns that a report can change. Most commits write only these."""

_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, check_circular=False).encode
_decode = json.loads


def _numbers(named: Mapping[str, int]) -> str:
    return _encode(named) if named else "{}"


def reported(job: Job) -> dict[str, SqlValue]:
    """The columns REPORTED and the key."""
    pace = job.pace
    return {
        "session_hash": job.session_hash,
        "id": job.id,
        "size": job.size,
        "message": job.message,
        "parts": _numbers(job.parts),
        "sequences": _numbers(job.sequences),
        "progress": job.progress,
        "counters": _numbers(job.counters),
        "error_count": job.error_count,
        "last_contact_time": job.last_contact_time,
        "last_progress_time": job.last_progress_time,
        "update_time": job.update_time,
        "stalled": job.stalled,
        # JSON, but formatted by hand for speed: every report needs it.
        "pace": None
        if pace is None
        else f"[{pace.time},{pace.progress},{pace.elapsed},{pace.folds},{pace.rate!r},{pace.variance!r}]",
        "revision": job.revision,
    }


def to_row(job: Job) -> dict[str, SqlValue]:
    """All columns."""
    error, cancellation = job.error, job.cancellation
    return reported(job) | {
        "name": job.name,
        "invoker": job.invoker,
        "unit": job.unit,
        "status": str(job.status),
        "labels": _encode(job.labels),
        "error": None
        if error is None
        else _encode(
            [
                error.code,
                error.message,
                [[url, base64.b64encode(value).decode()] for url, value in error.details],
                error.reason,
            ]
        ),
        "cancellation": None
        if cancellation is None
        else _encode([cancellation.reason, cancellation.deadline, cancellation.seen]),
        "create_time": job.create_time,
        "start_time": job.start_time,
        "end_time": job.end_time,
        "wake_time": job.wake_time,
        "heartbeat_timeout": job.heartbeat_timeout,
        "stall_timeout": job.stall_timeout,
        "retention": job.retention,
        "attempt": job.attempt,
        "attempt_time": job.attempt_time,
        "history": _encode([[str(h.status), h.time, h.revision, h.reason] for h in job.history]),
        "continues": job.continues,
        "continued_by": job.continued_by,
        "key": job.key,
        "create_digest": job.create_digest,
        "results_digest": job.results_digest,
    }


def from_row(row: Sequence[Any]) -> Job:
    """The job of a row with COLUMNS in their order."""
    values = dict(zip(COLUMNS, row, strict=True))
    for name, decode in _DECODERS.items():
        if values[name] is not None:
            values[name] = decode(values[name])
    return Job(**values)


def text_length(row: Sequence[Any]) -> int:
    """The length of all text in a row, in characters."""
    return sum([len(value) for value in row if type(value) is str])


def _error(text: str) -> Error:
    code, message, details, reason = _decode(text)
    return Error(code, message, tuple((url, base64.b64decode(value)) for url, value in details), reason)


_DECODERS: Mapping[str, Callable[[Any], object]] = {
    "status": Status,
    "labels": _decode,
    "parts": _decode,
    "sequences": _decode,
    "counters": _decode,
    "error": _error,
    "cancellation": lambda text: Cancellation(*_decode(text)),
    "stalled": bool,
    "pace": lambda text: estimate.Pace(*_decode(text)),
    "history": lambda text: tuple(StatusChange(Status(status), *rest) for status, *rest in _decode(text)),
}
