"""One job's change within a commit: the job, what the commit stores beside its row, and the operator's rules."""

import enum
from dataclasses import dataclass, field

from headway_server.domain.commands import Command
from headway_server.domain.gaps import Gap
from headway_server.domain.job import Job
from headway_server.domain.limits import MICROSECONDS, Limits
from headway_server.domain.report import RecordError, Variables


class EventType(enum.StrEnum):
    """What webhooks can report."""

    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    LOST = "lost"
    STALLED = "stalled"


@dataclass(frozen=True, slots=True)
class Event:
    """Something happened to a job. `job` is the job right after it."""

    type: EventType
    job: Job


@dataclass(frozen=True, slots=True)
class Rules:
    """The operator's settings: limits, and the spans (µs) for jobs that set none of their own."""

    limits: Limits = field(default_factory=Limits)
    retention: int = 30 * 86_400 * MICROSECONDS
    abandon_after: int = 30 * 86_400 * MICROSECONDS
    wanted_events: frozenset[EventType] = frozenset()
    """The events that at least one webhook wants."""
    gaps: tuple[Gap, ...] = ()
    """Times when no server ran or the clock was wrong. They do not count towards retention."""


@dataclass(slots=True)
class Change:
    """A job within one commit, and what the commit stores beside the job's row."""

    job: Job
    created: bool = False
    removed: bool = False
    changed: bool = False
    """Whether callers can see the change."""
    rewritten: bool = False
    """Whether columns changed that plain reports leave alone. The whole row is written then."""
    relabelled: bool = False
    variables: Variables | None = None
    """Loaded if `needs_variables` says so for one of the commands."""
    variables_changed: bool = False
    results: str | None = None
    record_errors: list[RecordError] = field(default_factory=list)
    """New record errors. The last of them has the number `job.error_count`."""
    events: tuple[Event, ...] = ()
    """Events that webhooks want, in the order in which they happened."""
    answered: Command | None = None
    """The last command that is answered with `job`. None before the first one."""
