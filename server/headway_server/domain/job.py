"""The job. Times and spans are microseconds. A span of 0 means "never" or "the server's setting"."""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from operator import attrgetter

from headway_server.domain import estimate

BASE_BYTES = 2048
"""Bytes of memory that a job takes, without its text, parts, counters, labels and history."""

NUMBER_BYTES = 768
"""Bytes of memory that a part or a counter takes: its name, twice in a dict, and its number."""


class Status(enum.StrEnum):
    """The status of a job. protos/headway/v1/job.proto shows the transitions."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    LOST = "LOST"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


Key = tuple[str, str]
"""Identifies a job: (session_hash, id)."""

ENDED = frozenset({Status.COMPLETED, Status.FAILED, Status.CANCELLED})


@dataclass(frozen=True, slots=True)
class Error:
    """Why a job ended: a google.rpc.Code, a message for people, and details (type URL, bytes) that are never parsed."""

    code: int
    message: str
    details: tuple[tuple[str, bytes], ...] = ()
    reason: str = ""
    """The ErrorReason, if the server itself ended the job."""


@dataclass(frozen=True, slots=True)
class Cancellation:
    """A cancellation request: the reason, when the server ends the job itself, and whether the worker knows of it."""

    reason: str
    deadline: int
    seen: bool = False


@dataclass(frozen=True, slots=True)
class StatusChange:
    status: Status
    time: int
    revision: int
    reason: str


@dataclass(slots=True)
class Job:
    """The state of a job. Readers share committed jobs: copy a job before you change it."""

    session_hash: str
    id: str
    name: str = ""
    invoker: str = ""
    size: int = 0
    unit: str = ""
    status: Status = Status.PENDING
    message: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    parts: Mapping[str, int] = field(default_factory=dict)
    sequences: Mapping[str, int] = field(default_factory=dict)
    progress: int = 0
    counters: Mapping[str, int] = field(default_factory=dict)
    error_count: int = 0
    error: Error | None = None
    cancellation: Cancellation | None = None
    create_time: int = 0
    start_time: int | None = None
    end_time: int | None = None
    last_contact_time: int | None = None
    last_progress_time: int | None = None
    update_time: int = 0
    wake_time: int | None = None
    heartbeat_timeout: int = 0
    stall_timeout: int = 0
    retention: int = 0
    stalled: bool = False
    pace: estimate.Pace | None = None
    attempt: int = 1
    attempt_time: int | None = None
    history: tuple[StatusChange, ...] = ()
    revision: int = 0
    continues: str = ""
    """The id of the job that this one continues. That job may have been removed."""
    continued_by: str = ""
    """The id of the job that continues this one. That job may have been removed."""
    key: str = ""
    create_digest: str = ""
    results_digest: str = ""

    @property
    def ended(self) -> bool:
        return self.end_time is not None

    def copy(self) -> "Job":
        """A copy that can be changed while others read this job."""
        return Job(*_values(self))

    @property
    def estimate(self) -> estimate.Estimate | None:
        """How long the job may still take. None if that would be a guess."""
        if self.status is not Status.RUNNING or self.stalled:
            return None
        return estimate.estimate(self.pace, self.size, self.progress, self.last_progress_time)


_values = attrgetter(*[field.name for field in fields(Job)])


def weight(job: Job) -> int:
    """The most bytes of memory that a job takes. For speed, short texts are counted by their number alone."""
    # A character takes up to four bytes.
    text = len(job.name) + len(job.invoker) + len(job.message) + len(job.key)
    text += sum([len(key) + len(value) for key, value in job.labels.items()])
    text += sum([len(change.reason) for change in job.history])
    if job.cancellation is not None:
        text += len(job.cancellation.reason)
    if job.error is not None:
        text += len(job.error.message) + sum([len(url) + len(value) for url, value in job.error.details])
    numbers = max(len(job.parts), len(job.sequences)) + len(job.counters)
    return BASE_BYTES + 4 * text + 256 * (len(job.labels) + len(job.history)) + NUMBER_BYTES * numbers


def growth(job: Job) -> int:
    """Changes whenever a report lets a job take more memory. Everything else that does rewrites the whole row."""
    return len(job.parts) + len(job.sequences) + len(job.counters) + len(job.message)


def no_later_than(job: Job, now: int) -> Job:
    """The job with all times limited to `now`, for a job whose times came from a wrong clock."""
    copy = job.copy()
    copy.create_time, copy.update_time = min(job.create_time, now), min(job.update_time, now)
    copy.start_time = _earlier(job.start_time, now)
    copy.end_time = _earlier(job.end_time, now)
    copy.attempt_time = _earlier(job.attempt_time, now)
    copy.last_contact_time = _earlier(job.last_contact_time, now)
    copy.last_progress_time = _earlier(job.last_progress_time, now)
    copy.history = tuple(replace(change, time=min(change.time, now)) for change in job.history)
    if job.pace is not None:
        copy.pace = replace(job.pace, time=min(job.pace.time, now))
    if job.cancellation is not None:
        # The worker keeps the rest of its grace period.
        deadline = job.cancellation.deadline - max(job.update_time - now, 0)
        copy.cancellation = replace(job.cancellation, deadline=deadline)
    return copy


def _earlier(time: int | None, now: int) -> int | None:
    return None if time is None else min(time, now)
