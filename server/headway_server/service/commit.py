"""One commit: applies the steps of all calls that share it to copies of the jobs."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from headway_server.domain import state_machine
from headway_server.domain.change import Change, Rules
from headway_server.domain.commands import Command, Create, affected_keys, needs_variables
from headway_server.domain.errors import JobAlreadyContinued, JobAlreadyExists, JobError, JobNotFound, SessionJobsLimit
from headway_server.domain.job import Job, Key
from headway_server.domain.report import Report, Variables
from headway_server.service.job_cache import JobCache
from headway_server.service.totals import Totals
from headway_server.storage.store import Store

Step = tuple[Key, Command]
"""One command on one job."""

Outcome = Job | JobError
"""The result of a step: the job after the step, or the error that refused it."""


class Commit:
    """Runs within the store's transaction. `now` (µs) is the time of all its steps."""

    def __init__(
        self,
        store: Store,
        job_cache: JobCache,
        totals: Totals,
        rules: Rules,
        now: int,
        steps: Iterable[Sequence[Step]],
    ) -> None:
        self._store = store
        self._job_cache = job_cache
        self._totals = totals
        self._rules = rules
        self._now = now
        self._counts: dict[str, int] = {}
        """The number of jobs of each session in which this commit creates jobs, including those jobs."""
        self._created = 0
        self.new_sessions = 0
        """Sessions that had no job before this commit."""
        self._removed = False
        keys: set[Key] = set()
        touched: set[Key] = set()
        named: set[tuple[str, str]] = set()
        for of_a_call in steps:
            keys.update([key for key, _ in of_a_call])
            touched.update([key for key, command in of_a_call if needs_variables(command)])
            for key, create in [(key, command) for key, command in of_a_call if isinstance(command, Create)]:
                keys.update(affected_keys(key, create))
                touched.update(affected_keys(key, create)[1:])
                named.update([(key[0], create.key)] if create.key else ())
        self._ids = store.ids_by_key(sorted(named)) if named else {}
        """The id of the last known job with a key, by (session_hash, key)."""
        keys.update([(session_hash, job_id) for (session_hash, _), job_id in self._ids.items()])
        self._changes = self._copies(keys)
        touched &= self._changes.keys()
        if touched:
            variables = store.variables_of(sorted(touched))
            for key in touched:
                self._changes[key].variables = Variables.of(variables.get(key, {}))

    def changed(self) -> list[Change]:
        """The changes to store."""
        return [change for change in self._changes.values() if change.changed or change.rewritten]

    def must_wait(self, steps: Sequence[Step]) -> bool:
        """Whether these steps must wait for the next commit: one commit cannot remove a job and create it again."""
        return self._removed and any(
            isinstance(command, Create) and key in self._changes and self._changes[key].removed
            for key, command in steps
        )

    def apply(self, steps: Sequence[Step]) -> list[Outcome]:
        """Apply the steps in their order. Each step is all or nothing.

        The outcome of a step is the job after that step. Consecutive reports share one outcome: the job after the
        last of them.
        """
        outcomes: list[Outcome] = []
        for key, command in steps:
            try:
                change = self._changes.get(key)
                if change is None:
                    change = self._find_or_create(key, command)
                elif change.removed:
                    raise JobNotFound
                else:
                    if change.answered is not None and not _share_an_answer(change.answered, command):
                        change.job = change.job.copy()
                    state_machine.step(change, command, self._now, self._rules)
                    change.answered = command
                    if change.removed:
                        self._removed = True
                outcomes.append(change.job)
            except JobError as error:
                # Drop the traceback: it refers to this list.
                outcomes.append(error.with_traceback(None))
        return outcomes

    def _find_or_create(self, key: Key, command: Command) -> Change:
        if not isinstance(command, Create):
            raise JobNotFound
        holder = self._holder(key[0], command.key)
        if holder is None or holder.job.id == command.continues:
            change = self._create(key, command)
        elif command.key_if_free:
            change = self._create(key, replace(command, key=""))
        elif command.continues not in ("", holder.job.continues):
            raise JobAlreadyExists(
                f"The unfinished job {holder.job.id} has this key, but does not continue the job that you named.",
                {"job_id": holder.job.id},
            )
        else:
            change = holder
        change.answered = command
        return change

    def _holder(self, session_hash: str, key: str) -> Change | None:
        """The unfinished job with this key."""
        change = self._changes.get((session_hash, self._ids.get((session_hash, key), "")))
        return None if change is None or change.removed or change.job.ended else change

    def _create(self, key: Key, command: Create) -> Change:
        session_hash, job_id = key
        if session_hash not in self._counts:
            self._counts[session_hash] = self._count(session_hash)
        count = self._counts[session_hash]
        if count >= self._rules.limits.session_jobs:
            raise SessionJobsLimit
        new_sessions = self.new_sessions + (count == 0)
        self._totals.check(self._created + 1, new_sessions)
        before = self._to_continue((session_hash, command.continues)) if command.continues else None
        change = state_machine.create(session_hash, job_id, command, self._now, self._rules, before)
        self._counts[session_hash] += 1
        self._created += 1
        self.new_sessions = new_sessions
        self._changes[key] = change
        if command.key:
            self._ids[session_hash, command.key] = job_id
        return change

    def _to_continue(self, key: Key) -> Change:
        """The job that a new job continues."""
        change = self._changes.get(key)
        if change is None or change.removed:
            raise JobNotFound("This session has no job with the id in `continues`.")
        successor = change.job.continued_by
        if successor and self._exists((key[0], successor)):
            raise JobAlreadyContinued(
                f"The job {successor} already continues this one; take over that job, or continue it.",
                {"job_id": successor},
            )
        if change.answered is not None:
            change.job, change.answered = change.job.copy(), None
        return change

    def _exists(self, key: Key) -> bool:
        change = self._changes.get(key)
        if change is not None:
            return not change.removed
        return (self._job_cache.get(key) or self._store.get(key)) is not None

    def _count(self, session_hash: str) -> int:
        """How many jobs the session has. Counting stops at the limit."""
        count = self._job_cache.count(session_hash)
        if count is None:
            limit = self._rules.limits.session_jobs
            count = self._store.count_jobs(session_hash, limit)
            if count < limit:
                self._job_cache.counted(session_hash, count)
        return count

    def _copies(self, keys: set[Key]) -> dict[Key, Change]:
        copies = {}
        missing = []
        for key in sorted(keys):
            job = self._job_cache.get(key)
            if job is None:
                missing.append(key)
            else:
                copies[key] = state_machine.working_copy(job)
        for key, job in self._store.load(missing).items():
            copies[key] = state_machine.working_copy(job)
        return copies


def _share_an_answer(before: Command, command: Command) -> bool:
    """Whether the earlier call may be answered with the job after the later one."""
    return type(before) is Report and type(command) is Report
