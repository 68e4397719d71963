"""The recently committed jobs, as the database has them: most reports and reads need no query.

The cache is empty if other servers write to the same database. The commit writer's thread fills it after each commit,
before any call is answered. Any thread may read it.
"""

from collections import OrderedDict
from collections.abc import Iterable

from headway_server.domain.change import Change
from headway_server.domain.job import Job, Key, growth, weight

SESSIONS_COUNTED = 4096
"""Sessions whose number of jobs is cached."""


class JobCache:
    """A cache of jobs that take up to `room` bytes of memory in all. 0 disables it."""

    def __init__(self, room: int) -> None:
        self._room = room
        self._jobs: OrderedDict[Key, Job] = OrderedDict()
        self._weights: dict[Key, tuple[int, int]] = {}
        """The bytes of each job, and its `growth` when they were calculated."""
        self.bytes = 0
        """The bytes of all jobs in the cache."""
        self._counts: OrderedDict[str, int] = OrderedDict()

    def get(self, key: Key) -> Job | None:
        """The job, or None if it is not cached. It may exist nevertheless."""
        return self._jobs.get(key)

    def count(self, session_hash: str) -> int | None:
        """How many jobs the session has, or None if that is not cached."""
        return self._counts.get(session_hash)

    def counted(self, session_hash: str, count: int) -> None:
        """Cache how many jobs the session has."""
        if self._room:
            self._counts[session_hash] = count
            if len(self._counts) > SESSIONS_COUNTED:
                self._counts.popitem(last=False)

    def note(self, changes: Iterable[Change]) -> None:
        """Record these committed changes."""
        if not self._room:
            return
        for change in changes:
            job = change.job
            key = (job.session_hash, job.id)
            moved = change.created - change.removed
            if moved and job.session_hash in self._counts:
                self._counts[job.session_hash] += moved
            if change.removed:
                if self._jobs.pop(key, None) is not None:
                    self._unweigh(key)
            else:
                self._jobs[key] = job
                self._jobs.move_to_end(key)
                weighed = self._weights.get(key)
                if weighed is None or change.rewritten or growth(job) != weighed[1]:
                    self._weigh(key, job)
        while self.bytes > self._room:
            key, _ = self._jobs.popitem(last=False)
            self._unweigh(key)

    def _weigh(self, key: Key, job: Job) -> None:
        if key in self._weights:
            self._unweigh(key)
        taken = weight(job)
        self._weights[key] = taken, growth(job)
        self.bytes += taken

    def _unweigh(self, key: Key) -> None:
        self.bytes -= self._weights.pop(key)[0]

    def forget(self) -> None:
        """Drop everything: the cache may be wrong."""
        self._jobs.clear()
        self._weights.clear()
        self.bytes = 0
        self._counts.clear()
