"""What time alone brings: lost workers, deadlines, stalls, retention, and news from other servers.

Plain functions of the time they are given; the loop at the end only calls them.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial

from headway_server.actions import Tick
from headway_server.clock import Clock, SteadyClock
from headway_server.errors import JobError
from headway_server.facts import NOTE_INTERVAL, note_time
from headway_server.limits import INT64_MAX, MICROSECONDS
from headway_server.other_servers import OtherServers
from headway_server.readers import ANSWER_TIMEOUT, Readers, within_timeout
from headway_server.store import Store
from headway_server.tell import tell
from headway_server.watch import Hub
from headway_server.writer import Writer

INTERVAL = 1.0
"""Seconds between two sweeps."""

LATE = 3 * MICROSECONDS
"""A round later than this (µs) means that this server could not listen for a while."""

ROUND = 2.0
"""Seconds after which a sweep with a backlog lets other work pass."""

BATCH = 200
"""Jobs in one commit of the sweep: few enough that no report waits for them."""

REMOVALS_KEPT = 86_400 * MICROSECONDS
"""How long removals are remembered for watches that are taken up again (µs)."""

Gaps = tuple[tuple[int, int], ...]
"""Spans (µs) in which the event loop did not run: start and end of each."""

log = logging.getLogger(__name__)


class Upkeep:
    """Sweeps jobs whose time has come."""

    def __init__(
        self,
        store: Store,
        readers: Readers,
        writer: Writer,
        hub: Hub,
        clock: Clock,
        others: OtherServers | None,
        gaps: Callable[[int], Gaps],
    ) -> None:
        self._store = store
        self._readers = readers
        self._writer = writer
        self._hub = hub
        self._clock = clock
        self._listening_since = clock.now()
        self._last_forget = 0
        self._time_noted = 0
        self._others = others
        self._gaps = gaps

    async def sweep(self) -> None:
        """Bring every job up to the present time."""
        now = self._clock.now()
        heard_until = INT64_MAX if self._others is None else self._others.heard_until
        tick = Tick(self._listening_since, heard_until, self._gaps(now))
        end = asyncio.get_running_loop().time() + ROUND
        while due := await within_timeout(self._readers.sweep(partial(self._store.due, now, BATCH))):
            outcomes = await within_timeout(self._writer.submit([(key, tick) for key in due], urgent=True))
            if len(due) < BATCH or all(isinstance(outcome, JobError) for outcome in outcomes):
                break
            if asyncio.get_running_loop().time() > end:
                # A backlog: the next round goes on, and news from other servers has its turn before.
                break
        if now - self._time_noted >= NOTE_INTERVAL:
            self._time_noted = now
            await within_timeout(self._writer.chore(partial(note_time, self._store, now)))
        if now - self._last_forget > REMOVALS_KEPT // 24:
            self._last_forget = now
            await within_timeout(self._writer.chore(partial(self._store.forget_removals, now - REMOVALS_KEPT)))
        # Whether these were committed was not known, and so nobody was told.
        await tell(self._store, self._readers.sweep, self._hub, self._writer.take_uncertain())

    def deaf_until_now(self) -> None:
        """Nobody could be heard until now: grant every worker its full timeout from here."""
        self._listening_since = self._clock.now()

    async def run(self, healthy: Callable[[bool], Awaitable[None]]) -> None:
        """Sweep for ever; `healthy` is told after each round whether the database answered."""
        while True:
            before = SteadyClock.elapsed()
            await asyncio.sleep(INTERVAL)
            if SteadyClock.elapsed() - before > LATE:
                # This process was stopped, or the machine slept.
                self.deaf_until_now()
            try:
                if self._others is not None:
                    await self._others.meet()
                await self.sweep()
                await healthy(True)
            except TimeoutError:
                await healthy(False)
                log.warning("the database has not answered for %g s", ANSWER_TIMEOUT)
                self._readers.give_up()
                self._writer.give_up()
                self.deaf_until_now()
            except JobError as error:
                await healthy(False)
                log.warning("upkeep: %s", error)
                # Reports were refused meanwhile.
                self.deaf_until_now()
            except Exception:
                log.exception("upkeep failed; the next round tries again")
