"""What a server does for and learns of the others that share its database.

Twice a second it looks at what they wrote and tells those who watch. Once a second it tells them up to when all that it
received is committed, and learns the same of them: a silence counts only as far as every server was heard. In the same
statement it compares its clock with the database's.
"""

import asyncio
import logging
from collections import deque
from contextlib import suppress
from functools import partial

from headway_server.domain.errors import JobError
from headway_server.domain.limits import INT64_MAX, MICROSECONDS
from headway_server.domain.shared_clock import SharedClock
from headway_server.resources.clock import Clock, SteadyClock
from headway_server.service.commit_writer import CommitWriter
from headway_server.service.job_events import publish_states
from headway_server.service.watch_hub import WatchHub
from headway_server.storage.change_log import ChangeLog, Snapshot
from headway_server.storage.read_pool import Readers, within_timeout
from headway_server.storage.servers import Servers
from headway_server.storage.store import Store

CHANGES_INTERVAL = 0.5
"""Seconds between two looks while somebody watches."""

IDLE_CHANGES_INTERVAL = 2.0
"""Seconds between two looks while nobody does."""

LOG_RETENTION = 300 * MICROSECONDS
"""How long entries of the change log are kept (µs). A server that did not look for longer lets its watchers begin
anew."""

LOG_DELETE_INTERVAL = 60 * MICROSECONDS
"""How often old entries are deleted (µs)."""

SLOW_COMMIT_ALLOWANCE = 60 * MICROSECONDS
"""How long (µs) the others allow for a slow commit here: until workers that waited for it have reported again."""

RESEND_TIME = 10.0
"""In so many seconds workers send again what a server refused while it could not commit."""

log = logging.getLogger(__name__)


class OtherServers:
    """The others, as this server sees them."""

    def __init__(
        self,
        store: Store,
        readers: Readers,
        writer: CommitWriter,
        hub: WatchHub,
        clock: Clock,
        change_log: ChangeLog,
        servers: Servers,
        seen: Snapshot,
    ) -> None:
        self._store = store
        self._readers = readers
        self._writer = writer
        self._hub = hub
        self._clock = clock
        self._change_log = change_log
        self._servers = servers
        self._seen = seen
        self._snapshots: deque[tuple[int, Snapshot]] = deque()
        """When which snapshot was looked at; the oldest is as old as what is kept of the log."""
        self._forgot = clock.now()
        self._committed_until = self._told_until = clock.now()
        self.heard_until = INT64_MAX
        """All that was sent until then (µs) to the other servers is committed."""

    async def publish_changes(self) -> None:
        """Tell those who watch what other servers have written since the last look that succeeded."""
        news = await within_timeout(self._readers.look(partial(self._change_log.look, self._seen)))
        if news.keys is None:
            self._hub.restart_watches()
        else:
            await publish_states(self._store, self._readers.look, self._hub, news.keys)
        self._seen = news.snapshot
        self._hub.looked(news.snapshot)

    async def exchange(self) -> None:
        """Tell the others what this server has heard, and learn it of them; follow the clock that all share."""
        # One round late: what arrived while the event loop stood still has been read by then.
        tell_until, self._told_until = self._told_until, self._committed_until
        asked_at = SteadyClock.elapsed()
        beat = await within_timeout(self._readers.sweep(partial(self._servers.beat, tell_until)))
        self.heard_until = INT64_MAX if beat.heard_until is None else beat.heard_until
        if isinstance(self._clock, SharedClock):
            correction = self._clock.follow(beat.database_time, beat.correction, asked_at)
            if correction is not None:
                log.warning("the database's clock was set by %.0f s", -correction.amount / MICROSECONDS)
                await self._writer.run_task(partial(self._servers.agree, beat.correction, correction))

    async def forget(self) -> None:
        """Delete what is old of the change log."""
        now = self._clock.now()
        if now - self._forgot < LOG_DELETE_INTERVAL:
            return
        self._forgot = now
        self._snapshots.append((now, self._seen))
        old = None
        while self._snapshots and self._snapshots[0][0] <= now - LOG_RETENTION:
            _, old = self._snapshots.popleft()
        if old is not None:
            await self._writer.run_task(partial(self._change_log.forget, old))

    async def leave(self) -> None:
        """This server ends: nobody need wait for it."""
        await self._writer.run_task(self._servers.leave)

    async def run_changes(self) -> None:
        """Look around for ever."""
        while True:
            try:
                await self.publish_changes()
                await self.forget()
            except (JobError, TimeoutError):
                # The database does not answer, which the sweep reports.
                pass
            except Exception:
                log.exception("looking at what other servers wrote failed; the next look tries again")
            await asyncio.sleep(CHANGES_INTERVAL if self._hub.watches else IDLE_CHANGES_INTERVAL)

    async def run_commits(self) -> None:
        """Find out for ever up to when all that was received is committed."""
        failures = self._writer.failures
        while True:
            began = self._clock.now()
            with suppress(JobError):
                await self._writer.barrier()
            if self._writer.failures != failures:
                failures = self._writer.failures
                await asyncio.sleep(RESEND_TIME)
            else:
                # Whoever waited for the slowest of the latest commits could say nothing meanwhile.
                self._committed_until = began - self._writer.slow_commits.longest(SLOW_COMMIT_ALLOWANCE)
                await asyncio.sleep(CHANGES_INTERVAL)
