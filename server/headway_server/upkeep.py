"""What time alone brings: lost workers, deadlines, stalls, retention, and news from other servers.

Plain functions of the time they are given; the loop at the end only calls them.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

from headway_server.actions import Tick
from headway_server.clock import Clock, SteadyClock
from headway_server.errors import JobError
from headway_server.facts import NOTE_INTERVAL, note_time
from headway_server.limits import MICROSECONDS
from headway_server.listing import NEWEST, Filter, Position
from headway_server.readers import Readers
from headway_server.store import Store
from headway_server.watch import OVERLAP, Hub
from headway_server.writer import Writer

INTERVAL = 1.0
"""Seconds between two sweeps."""

LATE = 3 * MICROSECONDS
"""A round later than this (µs) means that this server could not listen for a while."""

PATIENCE = 4.0
"""Seconds after which a database that does not answer counts as away."""

ROUND = 2.0
"""Seconds after which a sweep with a backlog lets other work pass."""

BATCH = 200
"""Jobs in one commit of the sweep: few enough that no report waits for them."""

REMOVALS_KEPT = 86_400 * MICROSECONDS
"""How long removals are remembered for watches that are taken up again (µs)."""

LOOK_ROWS = 256
LOOK_BYTES = 1024 * 1024
"""Changes, and bytes of their text, that a look at what other servers wrote holds at once."""

LOOK_REST = 4
"""A look at all jobs is followed by a rest that is so many times longer than the look."""

T = TypeVar("T")

log = logging.getLogger(__name__)


class Upkeep:
    """Sweeps jobs whose time has come."""

    def __init__(self, store: Store, readers: Readers, writer: Writer, hub: Hub, clock: Clock) -> None:
        self._store = store
        self._readers = readers
        self._writer = writer
        self._hub = hub
        self._clock = clock
        self._listening_since = clock.now()
        self._last_forget = 0
        self._time_noted = 0
        self._looked_until = clock.now()

    async def sweep(self) -> None:
        """Bring every job up to the present time."""
        now = self._clock.now()
        tick = Tick(self._listening_since)
        end = asyncio.get_running_loop().time() + ROUND
        while due := await _patiently(self._readers.sweep(partial(self._store.due, now, BATCH))):
            outcomes = await _patiently(self._writer.submit([(key, tick) for key in due], urgent=True))
            if len(due) < BATCH or all(isinstance(outcome, JobError) for outcome in outcomes):
                break
            if asyncio.get_running_loop().time() > end:
                # A backlog: the next round goes on, and news from other servers has its turn before.
                break
        if now - self._time_noted >= NOTE_INTERVAL:
            self._time_noted = now
            await _patiently(self._writer.chore(partial(note_time, self._store, now)))
        if now - self._last_forget > REMOVALS_KEPT // 24:
            self._last_forget = now
            await _patiently(self._writer.chore(partial(self._store.forget_removals, now - REMOVALS_KEPT)))

    def deaf_until_now(self) -> None:
        """Nobody could be heard until now: grant every worker its full timeout from here."""
        self._listening_since = self._clock.now()

    async def look_around(self) -> None:
        """Tell those who watch what other servers have written since the last look that succeeded."""
        now = self._clock.now()
        since = self._looked_until - OVERLAP
        watched = self._hub.everything_watched()
        sessions = watched.sessions | {session_hash for session_hash, _ in watched.jobs}
        for session_hash in {None} if None in sessions else sessions:
            await self._look_at(session_hash, since)
        self._looked_until = now
        self._hub.looked(now - OVERLAP)

    async def _look_at(self, session_hash: str | None, since: int) -> None:
        listing = self._store.listing
        # Removals first: a job that was made anew since comes behind the one that was removed.
        removed: Position | None = (since, "", "")
        while removed is not None:
            query = partial(listing.removals, session_hash, removed, LOOK_ROWS)
            removals = await _patiently(self._readers.look(query))
            self._hub.publish(removals)
            removed = None
            if len(removals) == LOOK_ROWS:
                last = removals[-1]
                removed = (last.update_time, last.id, last.session_hash)
        wanted = Filter(session_hash, changed_from=since)
        after: Position | None = NEWEST
        while after is not None:
            scan = partial(listing.jobs, wanted, after, LOOK_ROWS, room=LOOK_BYTES, stop=lambda: True)
            found = await _patiently(self._readers.look(scan))
            self._hub.publish(found.jobs)
            after = found.end

    async def run_looks(self) -> None:
        """Look around for ever, beside the sweep: what it finds can be much."""
        while True:
            began = SteadyClock.elapsed()
            try:
                await self.look_around()
            except (JobError, TimeoutError):
                # The database is away, which the sweep tells of.
                pass
            except Exception:
                log.exception("the look at what other servers wrote failed; the next one tries again")
            took = (SteadyClock.elapsed() - began) / MICROSECONDS
            everything = None in self._hub.everything_watched().sessions
            await asyncio.sleep(max(INTERVAL, took * LOOK_REST) if everything else INTERVAL)

    async def run(self, healthy: Callable[[bool], Awaitable[None]]) -> None:
        """Sweep for ever; `healthy` is told after each round whether the database answered."""
        while True:
            before = SteadyClock.elapsed()
            await asyncio.sleep(INTERVAL)
            if SteadyClock.elapsed() - before > LATE:
                # This process was stopped, or the machine slept.
                self.deaf_until_now()
            try:
                await self.sweep()
                await healthy(True)
            except TimeoutError:
                await healthy(False)
                log.warning("the database has not answered for %g s", PATIENCE)
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


async def _patiently(work: Awaitable[T]) -> T:
    """The result of the work. Raises TimeoutError if the database does not answer."""
    async with asyncio.timeout(PATIENCE):
        return await work
