"""What can be asked of a job. Times and spans are microseconds."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from headway_server.domain.gaps import Gap
from headway_server.domain.job import Error, Key
from headway_server.domain.limits import INT64_MAX
from headway_server.domain.report import Report


@dataclass(frozen=True, slots=True)
class Create:
    """A new job. `digest` stands for all parameters of the call, so that a repeat can be told from another job."""

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
    """The id of the job of the session whose work this one carries on."""
    key: str = ""
    key_if_free: bool = False
    """The job is made in any case, without its key if another job has that."""


@dataclass(frozen=True, slots=True)
class Start:
    take_over: bool = False


@dataclass(frozen=True, slots=True)
class Update:
    """New values of what describes a job; None leaves a field as it is. `revision` 0 is not checked."""

    name: str | None = None
    invoker: str | None = None
    size: int | None = None
    unit: str | None = None
    labels: Mapping[str, str] | None = None
    revision: int = 0


@dataclass(frozen=True, slots=True)
class Finish:
    """Ends as COMPLETED. `results` is JSON text, or None; `digest` tells equal results from others."""

    results: str | None
    digest: str
    attempt: int = 0


@dataclass(frozen=True, slots=True)
class Fail:
    """Ends as FAILED, or as CANCELLED if the error's code says so."""

    error: Error
    attempt: int = 0


@dataclass(frozen=True, slots=True)
class Cancel:
    reason: str
    grace_period: int


@dataclass(frozen=True, slots=True)
class SetVariables:
    """Variables to set (name to JSON text) after those named in `remove` are gone."""

    variables: Mapping[str, str]
    remove: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Clear:
    pass


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed: do what is due. A silence counts only while a worker could have been heard."""

    listening_since: int = 0
    """Nobody could be heard before."""
    heard_until: int = INT64_MAX
    """What was sent later may not be known yet."""
    gaps: tuple[Gap, ...] = ()
    """When nobody could be heard."""

    def silence_over(self, since: int, span: int) -> int:
        """When a silence has lasted so long, not counting the time in which nobody could be heard."""
        start = max(since, self.listening_since)
        return start + span + sum(max(gap.end - max(gap.start, start), 0) for gap in self.gaps)


Command = Create | Start | Report | Update | Finish | Fail | Cancel | SetVariables | Clear | Tick


def affected_keys(key: Key, command: Command) -> tuple[Key, ...]:
    """The jobs that a command on this one may change."""
    if isinstance(command, Create) and command.continues:
        return key, (key[0], command.continues)
    return (key,)


def needs_variables(command: Command) -> bool:
    """Whether `step` needs the job's variables for this command."""
    return command.variables is not None if isinstance(command, Report) else isinstance(command, SetVariables)
