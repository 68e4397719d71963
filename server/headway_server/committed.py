"""The jobs that were written last, as the database has them, so that most reports and reads need not ask it.

Only where no other server writes to the database; elsewhere it holds nothing. The writer's thread fills it after each
commit and before anybody is answered; any thread may look.
"""

from collections import OrderedDict
from collections.abc import Iterable

from headway_server.change import Change
from headway_server.job import Job, Key

JOBS = 16_384
"""Jobs that are held at most; some 2 KiB each, as a rule."""

SESSIONS = 4096
"""Sessions whose jobs are counted."""


class Committed:
    """`jobs` = 0 holds nothing."""

    def __init__(self, jobs: int = JOBS) -> None:
        self._room = jobs
        self._jobs: OrderedDict[Key, Job] = OrderedDict()
        self._counts: OrderedDict[str, int] = OrderedDict()

    def get(self, key: Key) -> Job | None:
        """The job, or None if it is not held, whether it exists or not."""
        return self._jobs.get(key)

    def count(self, session_hash: str) -> int | None:
        """How many jobs the session has, or None if that is not held."""
        return self._counts.get(session_hash)

    def counted(self, session_hash: str, count: int) -> None:
        """So many jobs the session has."""
        if self._room:
            self._counts[session_hash] = count
            if len(self._counts) > SESSIONS:
                self._counts.popitem(last=False)

    def note(self, changes: Iterable[Change]) -> None:
        """These changes are committed."""
        if not self._room:
            return
        for change in changes:
            job = change.job
            key = (job.session_hash, job.id)
            moved = change.created - change.removed
            if moved and job.session_hash in self._counts:
                self._counts[job.session_hash] += moved
            if change.removed:
                self._jobs.pop(key, None)
            else:
                self._jobs[key] = job
                self._jobs.move_to_end(key)
        while len(self._jobs) > self._room:
            self._jobs.popitem(last=False)

    def forget(self) -> None:
        """What is held may be wrong."""
        self._jobs.clear()
        self._counts.clear()
