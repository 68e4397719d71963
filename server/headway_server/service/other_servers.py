"""Cooperation of servers that share a database.

Twice a second this server reads what the others wrote, and publishes it to its watchers. Once a second it notes up to
when all that it received is committed, and reads the same of the others: silence of a worker counts only up to the
earliest of these times. The same statement compares its clock with the database's.
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
"""Seconds between two reads of the change log while somebody watches."""

IDLE_CHANGES_INTERVAL = 2.0
"""Seconds between two reads of the change log while nobody watches."""

LOG_RETENTION = 300 * MICROSECONDS
"""How long entries of the change log are kept (µs). A server that did not read it for longer restarts its watches."""

LOG_DELETE_INTERVAL = 60 * MICROSECONDS
"""How often old entries are deleted (µs)."""

SLOW_COMMIT_ALLOWANCE = 60 * MICROSECONDS
"""How long (µs) a slow commit counts: until the workers that waited for it have reported again."""

RESEND_TIME = 10.0
"""Seconds in which workers resend what a server refused while it could not commit."""

log = logging.getLogger(__name__)


class OtherServers:
    """The other servers of the database, as this server sees them."""

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
        """Snapshots and the times at which they were read. The oldest is as old as the oldest kept entry of the log."""
        self._forgot = clock.now()
        self._committed_until = self._told_until = clock.now()
        self.heard_until = INT64_MAX
        """The other servers have committed everything that they received until then (µs)."""

    async def publish_changes(self) -> None:
        """Publish what other servers have written since the last successful read."""
        news = await within_timeout(self._readers.look(partial(self._change_log.look, self._seen)))
        if news.keys is None:
            self._hub.restart_watches()
        else:
            await publish_states(self._store, self._readers.look, self._hub, news.keys)
        self._seen = news.snapshot
        self._hub.looked(news.snapshot)

    async def exchange(self) -> None:
        """Exchange with the other servers up to when everything is committed, and follow the shared clock."""
        # One round late: reports that arrived while the event loop did not run have been read by then.
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
        """Delete old entries of the change log."""
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
        """Remove this server from the list, because it ends: no other server waits for it then."""
        await self._writer.run_task(self._servers.leave)

    async def run_changes(self) -> None:
        """Publish changes of other servers until cancelled."""
        while True:
            try:
                await self.publish_changes()
                await self.forget()
            except (JobError, TimeoutError):
                # The database does not answer. The sweeper reports that.
                pass
            except Exception:
                log.exception("reading the changes of other servers failed; trying again")
            await asyncio.sleep(CHANGES_INTERVAL if self._hub.watches else IDLE_CHANGES_INTERVAL)

    async def run_commits(self) -> None:
        """Keep track of up to when all received reports are committed, until cancelled."""
        failures = self._writer.failures
        while True:
            began = self._clock.now()
            with suppress(JobError):
                await self._writer.barrier()
            if self._writer.failures != failures:
                failures = self._writer.failures
                await asyncio.sleep(RESEND_TIME)
            else:
                # Workers that waited for the slowest of the latest commits could not report meanwhile.
                self._committed_until = began - self._writer.slow_commits.longest(SLOW_COMMIT_ALLOWANCE)
                await asyncio.sleep(CHANGES_INTERVAL)
