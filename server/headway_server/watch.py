"""The hub: hands every committed change to those who watch. A slow reader holds one state of each job, the latest.

All of it runs in the event loop; only the snapshots are read from the database.
"""

import asyncio
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from headway_server.budget import Budget
from headway_server.errors import JobError, ShuttingDown, StreamExpired, WatchesLimit
from headway_server.job import Job, Key
from headway_server.limits import INT64_MAX, MICROSECONDS, Limits
from headway_server.store import Removal

OVERLAP = 5 * MICROSECONDS
"""Servers that share a database commit out of the order of their clocks; this span (µs) is looked at again."""

Seen = Job | Removal

ALL = None
"""In the place of a session: all sessions."""


def moment(seen: Seen) -> tuple[int, int]:
    """Orders what is seen of one id: states by time and revision, a removal behind all that it removed."""
    return (seen.update_time, seen.revision if isinstance(seen, Job) else INT64_MAX)


class Inbox:
    """What one watcher has yet to see: of each job its latest state, oldest change first."""

    def __init__(self) -> None:
        self._waiting: dict[tuple[type[Seen], Key], Seen] = {}
        self._wake = asyncio.Event()
        self._failure: JobError | None = None

    def put(self, seen: Seen) -> None:
        """Take a state in. It goes to the end, so that states leave in the order of their update_time."""
        key = (seen.session_hash, seen.id)
        waiting = self._waiting.pop((Job, key), None)
        if waiting is not None and moment(waiting) > moment(seen):
            seen = waiting
        # A job that is created anew stands behind its removal, not in its place.
        self._waiting.pop((type(seen), key), None)
        self._waiting[type(seen), key] = seen
        self._wake.set()

    def fail(self, error: JobError) -> None:
        """End the watch with this error."""
        self._failure = error
        self._wake.set()

    async def get(self) -> Seen:
        """The next state; waits for it. Raises what `fail` was given."""
        while True:
            if self._failure is not None:
                raise self._failure
            if self._waiting:
                return self._waiting.pop(next(iter(self._waiting)))
            self._wake.clear()
            await self._wake.wait()


@dataclass(frozen=True, slots=True)
class Watched:
    """What is being watched, for the look at what other servers have written."""

    jobs: frozenset[Key]
    sessions: frozenset[str | None]


class Hub:
    """Everybody who watches at this server."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._jobs: defaultdict[Key, set[Inbox]] = defaultdict(set)
        self._sessions: defaultdict[str | None, set[Inbox]] = defaultdict(set)
        self._per_session: defaultdict[str | None, int] = defaultdict(int)
        self._watches = Budget(limits.watches, WatchesLimit)
        self._closed = False

    def publish(self, changes: Sequence[Seen]) -> None:
        """Hand on what a commit changed, in the order of its changes."""
        for seen in changes:
            for watchers in (
                self._jobs.get((seen.session_hash, seen.id), ()),
                self._sessions.get(seen.session_hash, ()),
                self._sessions.get(ALL, ()),
            ):
                for inbox in watchers:
                    inbox.put(seen)

    @property
    def watches(self) -> int:
        """How many are open."""
        return self._watches.used

    def watched(self, key: Key) -> bool:
        """Whether somebody looks at this job now."""
        return key in self._jobs or key[0] in self._sessions or ALL in self._sessions

    def everything_watched(self) -> Watched:
        """All jobs and sessions that are watched now."""
        return Watched(frozenset(self._jobs), frozenset(self._sessions))

    @contextmanager
    def job(self, key: Key, life: float, connection: str) -> Iterator[Inbox]:
        """Watch one job; after `life` seconds the inbox fails with StreamExpired. Raises WatchesLimit, ShuttingDown."""
        with self._counted(key[0], life, connection) as inbox:
            self._jobs[key].add(inbox)
            try:
                yield inbox
            finally:
                self._jobs[key].discard(inbox)
                if not self._jobs[key]:
                    del self._jobs[key]

    @contextmanager
    def session(self, session_hash: str | None, life: float, connection: str) -> Iterator[Inbox]:
        """Watch all jobs of a session, or of ALL, in the same way."""
        with self._counted(session_hash, life, connection) as inbox:
            self._sessions[session_hash].add(inbox)
            try:
                yield inbox
            finally:
                self._sessions[session_hash].discard(inbox)
                if not self._sessions[session_hash]:
                    del self._sessions[session_hash]

    @contextmanager
    def _counted(self, session_hash: str | None, life: float, connection: str) -> Iterator[Inbox]:
        if self._closed:
            raise ShuttingDown
        if self._per_session[session_hash] >= self._limits.session_watches:
            raise WatchesLimit
        self._watches.take(connection, 1)
        inbox = Inbox()
        expiry = asyncio.get_running_loop().call_later(life, inbox.fail, StreamExpired())
        self._per_session[session_hash] += 1
        try:
            yield inbox
        finally:
            expiry.cancel()
            self._watches.give_back(connection, 1)
            self._per_session[session_hash] -= 1
            if not self._per_session[session_hash]:
                del self._per_session[session_hash]

    def close(self) -> None:
        """End all watches, so that their callers go elsewhere, and refuse new ones."""
        self._closed = True
        for watchers in (*self._jobs.values(), *self._sessions.values()):
            for inbox in watchers:
                inbox.fail(ShuttingDown())
