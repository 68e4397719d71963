"""Reports of workers, and their effect on parts, sequences, counters and variables.

Pure: every function returns new values or raises. No function changes its arguments.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from headway_server.domain.errors import Fault, InvalidRequest
from headway_server.domain.limits import INT64_MAX, Limits


@dataclass(frozen=True, slots=True)
class RecordError:
    """A record that failed: its name, a code, and what was wrong."""

    record: str
    code: str = ""
    message: str = ""


class Report(NamedTuple):
    """One report. It is a heartbeat if it has neither `progress` nor `advance`. An `attempt` or `sequence` of 0 is not
    checked."""

    part: str = ""
    attempt: int = 0
    sequence: int = 0
    progress: int | None = None
    advance: int | None = None
    size: int | None = None
    message: str | None = None
    counters: Mapping[str, int] | None = None
    record_errors: tuple[RecordError, ...] = ()
    variables: Mapping[str, str] | None = None
    """Variables to merge: name to JSON text."""


def apply_amount(before: int, total: int, report: Report) -> int | None:
    """The progress of the report's part after it, or None if the report has no amount. `before`: the part's progress
    now. `total`: the sum of all parts."""
    if report.progress is not None:
        after = report.progress
        fieldname = "progress"
    elif report.advance is not None:
        after = before + report.advance
        fieldname = "advance"
    else:
        return None
    if after < 0:
        raise InvalidRequest(Fault(fieldname, f"would take the part below 0; the part is at {before}"))
    if total - before + after > INT64_MAX:
        raise InvalidRequest(Fault(fieldname, "would take the job's progress beyond 2^63 - 1"))
    return after


def check_part(parts: Mapping[str, int], sequences: Mapping[str, int], part: str, limits: Limits) -> None:
    """Raise InvalidRequest if the job may have no further part."""
    if part in parts or part in sequences:
        return
    if len(parts.keys() | sequences.keys()) >= limits.parts:
        raise InvalidRequest(Fault("part", f"the job already has {limits.parts} parts, which is the limit"))


def add_counters(counters: Mapping[str, int], deltas: Mapping[str, int], limits: Limits) -> dict[str, int]:
    """The counters with the deltas added."""
    after = dict(counters)
    for name, delta in deltas.items():
        value = after.get(name, 0) + delta
        if not -INT64_MAX <= value <= INT64_MAX:
            raise InvalidRequest(Fault(f"counters[{name}]", "would go beyond 2^63 - 1"))
        after[name] = value
    if len(after) > limits.counters:
        raise InvalidRequest(Fault("counters", f"a job has at most {limits.counters} counters"))
    return after


@dataclass(frozen=True, slots=True)
class Variables:
    """The variables of a job: name to JSON text, and the bytes of all of them together."""

    texts: Mapping[str, str] = field(default_factory=dict)
    size: int = 0

    @classmethod
    def of(cls, texts: Mapping[str, str]) -> "Variables":
        return cls(texts, sum(_size(name, text) for name, text in texts.items()))


def merge_variables(
    variables: Variables, changes: Mapping[str, str], remove: Iterable[str], limits: Limits
) -> Variables:
    """The variables without those in `remove` and with `changes` set."""
    after = dict(variables.texts)
    size = variables.size
    for name in remove:
        if name in after:
            size -= _size(name, after.pop(name))
    # Measure only what changes: measuring all variables with every report would take long.
    for name, text in changes.items():
        if name in after:
            size -= _size(name, after[name])
        size += _size(name, text)
        after[name] = text
    if len(after) > limits.variables:
        raise InvalidRequest(Fault("variables", f"a job has at most {limits.variables} variables"))
    if size > limits.variables_bytes:
        raise InvalidRequest(
            Fault("variables", f"all variables of a job take at most {limits.variables_bytes} bytes, not {size}")
        )
    return Variables(after, size)


def _size(name: str, text: str) -> int:
    return len(name.encode()) + len(text.encode())
