"""How many jobs and sessions the database holds: counted regularly, and updated with each commit in between.

If only this server writes, the numbers are exact, except for sessions whose last job was removed since the count.
Servers that share a database see each other's jobs with the next count.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress

from headway_server.domain.change import Change
from headway_server.domain.errors import JobError, ServerJobsLimit, ServerSessionsLimit
from headway_server.domain.limits import Limits

COUNT_INTERVAL = 60.0
"""Seconds between two counts. Each reads an index from end to end."""


class Totals:
    """A task counts. The commit writer checks and updates."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.jobs = 0
        self.sessions = 0

    async def recount(self, count: Callable[[], Awaitable[tuple[int, int]]]) -> None:
        """Count the jobs in the database, and the sessions that have any."""
        jobs, sessions = self.jobs, self.sessions
        counted_jobs, counted_sessions = await count()
        # The count may miss jobs that were committed meanwhile: add them. The next count corrects jobs counted twice.
        self.jobs = counted_jobs + max(0, self.jobs - jobs)
        self.sessions = counted_sessions + max(0, self.sessions - sessions)

    async def run(self, count: Callable[[], Awaitable[tuple[int, int]]]) -> None:
        """Count regularly until cancelled. If a count fails, the next one tries again."""
        while True:
            with suppress(JobError):
                await self.recount(count)
            await asyncio.sleep(COUNT_INTERVAL)

    def check(self, new_jobs: int, new_sessions: int) -> None:
        """Raise ServerJobsLimit or ServerSessionsLimit if this many more would exceed the limits."""
        if new_jobs and self.jobs + new_jobs > self._limits.jobs:
            raise ServerJobsLimit
        if new_sessions and self.sessions + new_sessions > self._limits.sessions:
            raise ServerSessionsLimit

    def note(self, changes: Iterable[Change], new_sessions: int) -> None:
        """Record committed changes. `new_sessions`: how many sessions had no job before them."""
        for change in changes:
            self.jobs += change.created - change.removed
        self.sessions += new_sessions
