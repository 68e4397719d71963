"""Changes by time alone: lost workers, deadlines, stalls, retention, and news from other servers.

Plain functions of the time; the loop at the end only calls them.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from functools import partial

from headway_server.domain.change import Rules
from headway_server.domain.commands import Tick
from headway_server.domain.errors import DatabaseUnavailable, JobError
from headway_server.domain.gaps import Gap
from headway_server.domain.limits import MICROSECONDS
from headway_server.resources.clock import Clock, SteadyClock
from headway_server.service.commit_writer import CommitWriter
from headway_server.service.job_events import publish_states
from headway_server.service.other_servers import OtherServers
from headway_server.service.watch_hub import WatchHub
from headway_server.storage.read_pool import ANSWER_TIMEOUT, Readers, within_timeout
from headway_server.storage.server_facts import NOTE_INTERVAL, note_applied, note_time, rules_applied
from headway_server.storage.store import Store

SWEEP_INTERVAL = 1.0
"""Seconds between two rounds."""

LATE_ROUND_MIN = 3 * MICROSECONDS
"""A round that is later than this (µs) means that this process did not run for a while."""

PROBE_INTERVAL = 3.0
"""Seconds without a commit after which the sweeper tries one: together with the interval, it finds a fault within
5 s."""

SWEEP_TIME_MAX = 2.0
"""Seconds after which a sweep with a backlog pauses for other work."""

RULES_TIME_MAX = 0.25
"""Seconds of each round for applying changed rules to jobs."""

RULES_BATCH = 50
"""Jobs in one commit that applies changed rules: it writes their whole rows."""

SWEEP_BATCH = 200
"""Jobs in one commit of the sweep: few, so that reports hardly wait for them."""

REMOVALS_KEPT = 86_400 * MICROSECONDS
"""How long removals are kept for watches that resume (µs)."""

log = logging.getLogger(__name__)


class Sweeper:
    """Updates jobs that are due."""

    def __init__(
        self,
        store: Store,
        readers: Readers,
        writer: CommitWriter,
        hub: WatchHub,
        clock: Clock,
        rules: Rules,
        others: OtherServers | None,
        gaps: Callable[[int], tuple[Gap, ...]],
    ) -> None:
        self._store = store
        self._readers = readers
        self._writer = writer
        self._hub = hub
        self._clock = clock
        self._rules = rules
        self._rules_applied = False
        self._listening_since = clock.now()
        self._last_forget = 0
        self._time_noted = 0
        self._others = others
        self._gaps = gaps
        self._trouble: JobError | None = None

    async def sweep(self) -> None:
        """Update every job that is due now."""
        now = self._clock.now()
        # A long commit may be running: it becomes a gap only in the next round.
        heard_until = now if self._others is None else min(self._others.heard_until, now)
        tick = Tick(self._listening_since, heard_until, self._gaps(now))
        end = asyncio.get_running_loop().time() + SWEEP_TIME_MAX
        while due := await within_timeout(self._readers.sweep(partial(self._store.due, now, SWEEP_BATCH))):
            outcomes = await within_timeout(self._writer.submit([(key, tick) for key in due], urgent=True))
            if len(due) < SWEEP_BATCH or all(isinstance(outcome, JobError) for outcome in outcomes):
                break
            if asyncio.get_running_loop().time() > end:
                # A backlog: news from other servers come first, then the next round continues.
                break
        if now - self._last_forget > REMOVALS_KEPT // 24:
            self._last_forget = now
            await within_timeout(self._writer.run_task(partial(self._store.forget_removals, now - REMOVALS_KEPT)))
        await self._apply_rules(tick)
        # It was not known whether these jobs were committed, so they were not published.
        await publish_states(self._store, self._readers.sweep, self._hub, self._writer.take_uncertain())

    async def _apply_rules(self, tick: Tick) -> None:
        """Apply rules that have changed since the last start to all jobs, some of them in each commit."""
        end = asyncio.get_running_loop().time() + RULES_TIME_MAX
        while not self._rules_applied:
            last = await within_timeout(self._readers.sweep(partial(rules_applied, self._store, self._rules)))
            if last is None:
                self._rules_applied = True
                return
            keys = await within_timeout(self._readers.sweep(partial(self._store.keys_after, last, RULES_BATCH)))
            await within_timeout(self._writer.submit([(key, tick) for key in keys], urgent=True))
            note = partial(note_applied, self._store, self._rules, keys[-1] if keys else None)
            await within_timeout(self._writer.run_task(note))
            if asyncio.get_running_loop().time() > end:
                return

    async def probe(self) -> None:
        """Check that the database can be written, because nothing else detects a full disk. Raises JobError."""
        await asyncio.to_thread(self._store.engine.check_files)
        now = self._clock.now()
        silence = time.monotonic() - self._writer.succeeded_at
        failing = self._writer.failure is not None or self._store.engine.unusable
        if failing or silence >= PROBE_INTERVAL or now - self._time_noted >= NOTE_INTERVAL:
            await within_timeout(self._writer.run_task(partial(note_time, self._store, now)))
            self._time_noted = now

    def restart_timeouts(self) -> None:
        """Restart all timeouts of workers now, because the server could not receive reports until now."""
        self._listening_since = self._clock.now()

    async def run(self, ready: Callable[[JobError | None], Awaitable[None]]) -> None:
        """Sweep until cancelled. After each round, `ready` is called with the database's error, or None."""
        while True:
            before = SteadyClock.elapsed()
            await asyncio.sleep(SWEEP_INTERVAL)
            if SteadyClock.elapsed() - before > LATE_ROUND_MIN:
                # This process was stopped, or the machine was asleep.
                self.restart_timeouts()
            trouble = await self._round()
            if trouble is not None:
                # The server refused reports meanwhile.
                self.restart_timeouts()
            self._log_change(trouble)
            await ready(trouble)

    async def _round(self) -> JobError | None:
        """Run one round. Returns its error, or None."""
        try:
            # First, because time does not count for jobs while the database cannot be written.
            await self.probe()
            if self._others is not None:
                await self._others.exchange()
            await self.sweep()
        except TimeoutError:
            self._readers.give_up()
            self._writer.give_up()
            return DatabaseUnavailable(f"The database has not answered for {ANSWER_TIMEOUT:g} s; try again.")
        except JobError as error:
            return error
        except Exception:
            log.exception("a sweep failed; the next round tries again")
            return DatabaseUnavailable()
        return None

    def _log_change(self, trouble: JobError | None) -> None:
        if trouble is not None and (self._trouble is None or self._trouble.message != trouble.message):
            why = self._store.engine.unusable or trouble.message
            log.warning("not ready, %s: %s", trouble.reason, why)
        elif trouble is None and self._trouble is not None:
            log.warning("ready again: the database can be written")
        self._trouble = trouble
