"""What goes through one commit: a job, with what must be stored beside its row, and the operator's rules for it."""

import enum
from dataclasses import dataclass, field

from headway_server.domain.commands import Command
from headway_server.domain.gaps import Gap
from headway_server.domain.job import Job
from headway_server.domain.limits import MICROSECONDS, Limits
from headway_server.domain.report import RecordError, Variables


class EventType(enum.StrEnum):
    """What the operator can have told elsewhere."""

    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    LOST = "lost"
    STALLED = "stalled"


@dataclass(frozen=True, slots=True)
class Event:
    """Something happened to a job; `job` is the job as that left it."""

    type: EventType
    job: Job


@dataclass(frozen=True, slots=True)
class Rules:
    """What the operator has set: limits, and the spans (µs) that jobs without their own follow."""

    limits: Limits = field(default_factory=Limits)
    retention: int = 30 * 86_400 * MICROSECONDS
    abandon_after: int = 30 * 86_400 * MICROSECONDS
    wanted_events: frozenset[EventType] = frozenset()
    """What somebody wants to be told of."""
    gaps: tuple[Gap, ...] = ()
    """When no server ran, or the clock was wrong: such times do not count for retention."""


@dataclass(slots=True)
class Change:
    """A job on its way through one commit, with what the commit must store beside its row."""

    job: Job
    created: bool = False
    removed: bool = False
    changed: bool = False
    """Whether callers can see a difference."""
    rewritten: bool = False
    """Whether more changed than what every report changes."""
    relabelled: bool = False
    variables: Variables | None = None
    """Loaded for the commands that `needs_variables` names."""
    variables_changed: bool = False
    results: str | None = None
    record_errors: list[RecordError] = field(default_factory=list)
    """New ones; the last of them is number `job.error_count`."""
    events: tuple[Event, ...] = ()
    """What somebody wants to be told of, in the order in which it happened."""
    answered: Command | None = None
    """The last command whose answer is `job`; None before the first."""
