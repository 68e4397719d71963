"""What a job is. Times and spans are microseconds; a span of 0 means "never" or "the server's setting"."""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from operator import attrgetter

from headway_server.domain import estimate

BASE_BYTES = 2048
"""What a job takes in memory beside its text and what it has any number of."""

NUMBER_BYTES = 768
"""What a part or a counter takes: its name, twice in a dict, and its number."""


class Status(enum.StrEnum):
    """Where a job stands; protos/headway/v1/job.proto draws the picture."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    LOST = "LOST"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


Key = tuple[str, str]
"""What names a job: (session_hash, id)."""

ENDED = frozenset({Status.COMPLETED, Status.FAILED, Status.CANCELLED})


@dataclass(frozen=True, slots=True)
class Error:
    """Why a job ended: a google.rpc.Code, words for people, and details (type URL, bytes) that are never opened."""

    code: int
    message: str
    details: tuple[tuple[str, bytes], ...] = ()
    reason: str = ""
    """The ErrorReason, where the server itself ended the job."""


@dataclass(frozen=True, slots=True)
class Cancellation:
    """The wish to cancel: why, when the server ends the job itself, and whether its worker was told."""

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
    """A job as it stands. Committed jobs are shared between readers: copy before you change one."""

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
    """The id of the job whose work this one carries on; it may be gone."""
    continued_by: str = ""
    """The id of the job that carries this one's work on; it may be gone."""
    key: str = ""
    create_digest: str = ""
    results_digest: str = ""

    @property
    def ended(self) -> bool:
        return self.end_time is not None

    def copy(self) -> "Job":
        """The same again: to be changed, while others go on reading this one."""
        return Job(*_values(self))

    @property
    def estimate(self) -> estimate.Estimate | None:
        """How long it may still take, or None rather than a guess."""
        if self.status is not Status.RUNNING or self.stalled:
            return None
        return estimate.estimate(self.pace, self.size, self.progress, self.last_progress_time)


_values = attrgetter(*[field.name for field in fields(Job)])


def weight(job: Job) -> int:
    """How many bytes of memory a job takes at most. Reckoned by numbers where the text is short, for speed."""
    # Text can have four bytes a character.
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
    """Changes whenever a report lets a job take more memory; all else that does is a rewrite of its row."""
    return len(job.parts) + len(job.sequences) + len(job.counters) + len(job.message)


def no_later_than(job: Job, now: int) -> Job:
    """The job as it would be if nothing had happened to it after `now`: for one whose times a wrong clock has set."""
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
        # The worker keeps what it has left of the grace period.
        deadline = job.cancellation.deadline - max(job.update_time - now, 0)
        copy.cancellation = replace(job.cancellation, deadline=deadline)
    return copy


def _earlier(time: int | None, now: int) -> int | None:
    return None if time is None else min(time, now)
