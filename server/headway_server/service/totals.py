"""How many jobs, and jobs of how many sessions, the database holds: counted now and then, and carried on in between.

The figures are exact where this server alone writes, but for sessions whose last job was removed since the count.
Servers that share a database learn of each other's jobs with the next count.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress

from headway_server.domain.change import Change
from headway_server.domain.errors import JobError, ServerJobsLimit, ServerSessionsLimit
from headway_server.domain.limits import Limits

COUNT_INTERVAL = 60.0
"""Seconds between two counts: each reads an index from end to end."""


class Totals:
    """A task counts; the commit writer checks and carries on."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.jobs = 0
        self.sessions = 0

    async def recount(self, count: Callable[[], Awaitable[tuple[int, int]]]) -> None:
        """Take over what the database holds: jobs, and sessions that have any."""
        jobs, sessions = self.jobs, self.sessions
        counted_jobs, counted_sessions = await count()
        # What was committed meanwhile may not have been counted. What was counted twice is put right the next time.
        self.jobs = counted_jobs + max(0, self.jobs - jobs)
        self.sessions = counted_sessions + max(0, self.sessions - sessions)

    async def run(self, count: Callable[[], Awaitable[tuple[int, int]]]) -> None:
        """Count again and again; a count that fails is left to the next."""
        while True:
            with suppress(JobError):
                await self.recount(count)
            await asyncio.sleep(COUNT_INTERVAL)

    def check(self, new_jobs: int, new_sessions: int) -> None:
        """Raise ServerJobsLimit or ServerSessionsLimit if so many more may not be stored."""
        if new_jobs and self.jobs + new_jobs > self._limits.jobs:
            raise ServerJobsLimit
        if new_sessions and self.sessions + new_sessions > self._limits.sessions:
            raise ServerSessionsLimit

    def note(self, changes: Iterable[Change], new_sessions: int) -> None:
        """These changes are committed, and with them jobs of so many new sessions."""
        for change in changes:
            self.jobs += change.created - change.removed
        self.sessions += new_sessions
