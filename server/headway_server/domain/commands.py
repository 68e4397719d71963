"""The commands that a job accepts. Times and spans are microseconds."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from headway_server.domain.gaps import Gap
from headway_server.domain.job import Error, Key
from headway_server.domain.limits import INT64_MAX
from headway_server.domain.report import Report


@dataclass(frozen=True, slots=True)
class Create:
    """Create a job. `digest` is a hash of all parameters of the call: it tells a repeated call from another job."""

    digest: str
    pending: bool = False
    name: str = ""
    invoker: str = ""
    size: int = 0
    unit: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    heartbeat_timeout: int = 0
    stall_timeout: int = 0
    retention: int = 0
    continues: str = ""
    """The id of the job that this one continues. It belongs to the same session."""
    key: str = ""
    key_if_free: bool = False
    """If another unfinished job has the key, create the job without a key."""


@dataclass(frozen=True, slots=True)
class Start:
    take_over: bool = False


@dataclass(frozen=True, slots=True)
class Update:
    """Change fields of a job. None leaves a field as it is. A `revision` of 0 is not checked."""

    name: str | None = None
    invoker: str | None = None
    size: int | None = None
    unit: str | None = None
    labels: Mapping[str, str] | None = None
    revision: int = 0


@dataclass(frozen=True, slots=True)
class Finish:
    """End the job as COMPLETED. `results` is JSON text or None. `digest` is a hash that tells whether results are
    equal."""

    results: str | None
    digest: str
    attempt: int = 0


@dataclass(frozen=True, slots=True)
class Fail:
    """End the job as FAILED, or as CANCELLED if the error has that code."""

    error: Error
    attempt: int = 0


@dataclass(frozen=True, slots=True)
class Cancel:
    reason: str
    grace_period: int


@dataclass(frozen=True, slots=True)
class SetVariables:
    """Remove the variables named in `remove`, then set `variables` (name to JSON text)."""

    variables: Mapping[str, str]
    remove: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Clear:
    pass


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed: do what is due. Silence counts only while the server could receive reports."""

    listening_since: int = 0
    """The server could not receive reports before this time."""
    heard_until: int = INT64_MAX
    """Reports that were sent later may not be committed yet."""
    gaps: tuple[Gap, ...] = ()
    """Times in which the server could not receive reports."""

    def silence_over(self, since: int, span: int) -> int:
        """When a silence that began at `since` has lasted `span`, not counting the gaps."""
        start = max(since, self.listening_since)
        return start + span + sum(max(gap.end - max(gap.start, start), 0) for gap in self.gaps)


Command = Create | Start | Report | Update | Finish | Fail | Cancel | SetVariables | Clear | Tick


def affected_keys(key: Key, command: Command) -> tuple[Key, ...]:
    """The keys of the jobs that a command on this job may change."""
    if isinstance(command, Create) and command.continues:
        return key, (key[0], command.continues)
    return (key,)


def needs_variables(command: Command) -> bool:
    """Whether `step` needs the variables of the job for this command."""
    return command.variables is not None if isinstance(command, Report) else isinstance(command, SetVariables)
