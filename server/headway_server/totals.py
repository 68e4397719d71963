"""How many jobs, and jobs of how many sessions, the database holds: counted now and then, and carried on in between.

The figures are exact where this server alone writes, but for sessions whose last job was removed since the count.
Servers that share a database learn of each other's jobs with the next count.
"""

from collections.abc import Iterable

from headway_server.change import Change
from headway_server.errors import ServerJobsLimit, ServerSessionsLimit
from headway_server.limits import Limits


class Totals:
    """The sweeper counts; the commit writer checks and carries on."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.jobs = 0
        self.sessions = 0

    def counted(self, jobs: int, sessions: int) -> None:
        """The database holds so many now."""
        self.jobs, self.sessions = jobs, sessions

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
