"""A watch of the jobs of a session, or of all jobs: it reads the database page by page, and sends changes meanwhile.

The watch walks along the jobs, newest first. At each position it keeps up to which change its caller knows the jobs
before the position, and the jobs after it. It sends a change of a job before the position at once. It skips a change of
a job after the position, because the walk will read that job's state later. The resume token holds all of this: an
interrupted watch continues where it stopped, and sends nothing twice.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator
from dataclasses import dataclass

from headway_server.domain.errors import Fault, InvalidRequest, ResumeTokenExpired
from headway_server.domain.job import Key
from headway_server.resources.clock import Clock
from headway_server.service.sealed_tokens import Sealer
from headway_server.service.watch_hub import NEVER, Behind, Moment, SessionInbox, WatchHub, moment
from headway_server.service.watch_positions import NOTHING_KNOWN, Known, Marks, SnapshotMarks, TimeMarks
from headway_server.storage.listing import NEWEST, OLDEST, ROWS, Found, JobEvent, Position, Removal, position
from headway_server.storage.read_pool import Readers, Stop
from headway_server.storage.store import Store

REMOVALS_A_READ = 256
"""Removals that one query reads."""

BOUNDARIES_MAX = 4
"""How often a watch may be interrupted before its walk is complete without sending anything twice."""

PUBLISH_TIME = 0.02
"""Seconds within which a change in the database is usually published."""

EARLY_EVENTS_MAX = 4096
"""How many events a watch remembers that it sent from the database before they were published."""


@dataclass(frozen=True, slots=True)
class Progress:
    """What a caller knows: removals, jobs before the first boundary (`top`), and the jobs after each boundary."""

    removals: Known
    top: Known
    boundaries: tuple[tuple[Position, Known], ...] = ()

    def segments(self) -> Iterator[tuple[Position, Position, Known]]:
        """The segments (after, until, known) whose jobs are known up to the same change, newest first."""
        after, known = NEWEST, self.top
        for place, behind in self.boundaries:
            yield after, place, known
            after, known = place, behind
        yield after, OLDEST, known

    def segment(self, place: Position) -> tuple[Position, Position, Known]:
        """The rest of the segment that contains this place."""
        return next((min(after, place), until, known) for after, until, known in self.segments() if until < place)

    def passed(self, removals: Known, place: Position, known: Known) -> "Progress":
        """The progress after everything up to this place is `known`."""
        _, _, here = self.segment(place)
        boundaries = [(place, here), *[boundary for boundary in self.boundaries if boundary[0] < place]]
        while len(boundaries) > BOUNDARIES_MAX:
            # Claim too little rather than too much.
            known = min(known, boundaries.pop(0)[1])
        return Progress(removals, known, tuple(boundaries))

    def to_token(self) -> list[int | str]:
        """The content of a resume token."""
        parts = [self.top] if self.removals == self.top else [self.removals, self.top]
        for boundary in self.boundaries:
            parts += boundary
        return [item for part in parts for item in part]

    @classmethod
    def from_token(cls, given: list[int | str]) -> "Progress":
        """Parse the result of `to_token`. Raises ValueError for anything else."""
        parts = [
            (int(time), str(job_id), str(session)) for time, job_id, session in zip(*[iter(given)] * 3, strict=True)
        ]
        removals = parts[0]
        top, *boundaries = parts[1:] if len(parts) % 2 == 0 else parts
        return cls(removals, top, tuple(zip(boundaries[::2], boundaries[1::2], strict=True)))


@dataclass(slots=True)
class _Page:
    removals: list[Removal]
    found: Found
    newest: int
    """The latest time of change (µs) on the page."""


class SessionWatches:
    """Watches of the jobs of a session, or of all sessions."""

    def __init__(self, store: Store, readers: Readers, hub: WatchHub, clock: Clock, sealer: Sealer) -> None:
        self._store = store
        self._readers = readers
        self._hub = hub
        self._clock = clock
        self._sealer = sealer
        self._unpublished = 0
        """The time (µs) of changes that are never published: their commit seemed to fail, but is in the database."""

    async def watch(
        self, session_hash: str | None, resume_token: str, life: float, connection: str
    ) -> AsyncGenerator[tuple[JobEvent, str], None]:
        """What the caller does not know yet, then every change, each with its resume token. Raises StreamExpired after
        `life` seconds, InvalidRequest and ResumeTokenExpired."""
        scope = session_hash or "-"
        marks = self._marks(session_hash)
        resumed = await self._resumed(scope, resume_token, marks) if resume_token else None
        with self._hub.session(session_hash, life, connection) as inbox:
            walk = _Walk(marks, resumed)
            while True:
                try:
                    event = inbox.take()
                except Behind:
                    inbox.skip()
                    walk.begin_again()
                    continue
                if event is not None:
                    if walk.is_news(event):
                        yield event, self._token(scope, walk)
                    continue
                walk.nothing_waits()
                if walk.done:
                    await inbox.wait()
                    continue
                with self._hub.room(session_hash) as room:
                    page = await self._readers.snapshot(connection, self._page(session_hash, walk, room))
                    await self._published(page)
                    for event in walk.pass_over(page, inbox):
                        yield event, self._token(scope, walk)

    def _marks(self, session_hash: str | None) -> Marks:
        if self._store.engine.shared:
            return SnapshotMarks(self._hub, self._clock, session_hash)
        return TimeMarks(self._hub, session_hash)

    async def _resumed(self, scope: str, token: str, marks: Marks) -> Progress:
        given = self._sealer.open("resume", scope, token)
        if given is None:
            raise InvalidRequest(Fault("resume_token", "is not the resume_token of a watch of this session"))
        try:
            progress = Progress.from_token(given)
        except ValueError:
            # A token of an earlier version.
            raise ResumeTokenExpired from None
        if max(progress.removals, progress.top)[0] > await self._latest():
            # The database was restored from a backup that is older than the token.
            raise ResumeTokenExpired
        if marks.time(progress.removals) < await self._readers.read(self._store.removals_forgotten):
            raise ResumeTokenExpired
        return progress

    async def _latest(self) -> int:
        """The largest number with which a mark of this database can begin."""
        if self._store.engine.shared:
            return (await self._readers.read(self._store.snapshot)).xmax
        return max(self._clock.now(), self._hub.settled)

    def _token(self, scope: str, walk: "_Walk") -> str:
        return self._sealer.seal("resume", scope, walk.progress().to_token())

    def _page(self, session_hash: str | None, walk: "_Walk", room: int) -> Callable[[Stop], _Page]:
        """Make a query for the next page of the walk."""
        listing, removals_after, removals_unseen_by = self._store.listing, walk.removals_place, walk.removals_unseen_by
        wants_removals = not walk.removals_passed
        after, until, known = walk.segment()
        wanted = walk.marks.wanted(known)

        def read(stop: Stop) -> _Page:
            removals: list[Removal] = []
            if wants_removals:
                removals = listing.removals(session_hash, removals_after, REMOVALS_A_READ, removals_unseen_by)
            found = Found([], after)
            if len(removals) < REMOVALS_A_READ:
                found = listing.jobs(wanted, after, ROWS, until=until, room=room, stop=stop)
            changed: list[JobEvent] = [*removals, *found.jobs]
            return _Page(removals, found, max([event.update_time for event in changed], default=0))

        return read

    async def _published(self, page: _Page) -> None:
        """Wait until the changes of the page are published: a query can see a change before the hub does."""
        if self._store.engine.shared:
            return
        for _ in range(20):
            if page.newest <= max(self._hub.settled, self._unpublished):
                return
            await asyncio.sleep(PUBLISH_TIME / 20)
        self._unpublished = page.newest


class _Walk:
    """The position of a watch."""

    def __init__(self, marks: Marks, resumed: Progress | None) -> None:
        self.marks = marks
        self.done = False
        """Whether the walk has passed all jobs."""
        self.removals_passed = resumed is None
        """Whether removals from before the watch were sent. A new watch does not need them."""
        self._live = marks.published()
        """What the caller knows of the jobs before the position."""
        self._before = resumed or Progress(self._live, NOTHING_KNOWN)
        """What the caller knew when the walk began."""
        self._place = NEWEST
        """The position: everything up to and including this place was passed."""
        self._told: dict[Key, tuple[Moment, int]] = {}
        """Events that were sent before they were published, and when they will be."""
        self._begin_removals()

    def _begin_removals(self) -> None:
        self.removals = self._before.removals
        """What the caller knows of removals."""
        self.removals_unseen_by = self.marks.wanted(self.removals).unseen_by
        self.removals_place: Position = NOTHING_KNOWN if self.removals_unseen_by else self.removals
        """All removals up to this place were passed, in the order of (remove_time, id, session_hash)."""

    def progress(self) -> Progress:
        """What the caller knows at present."""
        if self.done:
            return Progress(self.removals, self._live)
        if self._place == NEWEST:
            return Progress(self.removals, self._before.top, self._before.boundaries)
        return self._before.passed(self.removals, self._place, self._live)

    def segment(self) -> tuple[Position, Position, Known]:
        """What to read next: after which place, until which place, and what is known there."""
        return self._before.segment(self._place)

    def begin_again(self) -> None:
        """Start again at the newest job: the watch missed changes, which are in the database."""
        self._before = self.progress()
        self.removals_passed = self.done = False
        self._place = NEWEST
        self._begin_removals()

    def nothing_waits(self) -> None:
        """The watch has taken all published events."""
        self._advance(self.marks.published())
        if self._told:
            reached = self.marks.reached()
            self._told = {key: told for key, told in self._told.items() if told[1] > reached}

    def is_news(self, event: JobEvent) -> bool:
        """Whether to send this event."""
        self._advance(self.marks.of(event))
        if not self._passed(event):
            # The walk will reach it.
            return False
        return not self._told or moment(event) > self._told.get((event.session_hash, event.id), (NEVER, 0))[0]

    def _passed(self, event: JobEvent) -> bool:
        if isinstance(event, Removal):
            return self.removals_passed
        return self.done or position(event) >= self._place

    def pass_over(self, page: _Page, inbox: SessionInbox) -> Iterator[JobEvent]:
        """The events of a page to send. Consumes the page."""
        _, until, known = self.segment()
        gone: dict[Key, Moment] = {}
        for removal in page.removals:
            self.removals_place = (removal.update_time, removal.id, removal.session_hash)
            if self.removals_unseen_by is None:
                self.removals = max(self.removals, self.marks.of(removal))
            gone[removal.session_hash, removal.id] = moment(removal)
            if not self.marks.is_known(removal, self._live):
                self._remember(removal)
            yield removal
        if len(page.removals) < REMOVALS_A_READ and not self.removals_passed:
            self.removals_passed = True
            self.removals = max(self.removals, self._live)
        page.found.jobs.reverse()
        while page.found.jobs:
            job = page.found.jobs.pop()
            self._place = position(job)
            if self.marks.is_known(job, known) or moment(job) <= gone.get((job.session_hash, job.id), NEVER):
                continue
            if not self.marks.is_known(job, self._live):
                if inbox.holds(job):
                    continue
                self._remember(job)
            yield job
        self._place = until if page.found.end is None else page.found.end
        self.done = self._place == OLDEST

    def _advance(self, known: Known) -> None:
        self._live = max(self._live, known)
        if self.removals_passed:
            self.removals = max(self.removals, self._live)

    def _remember(self, event: JobEvent) -> None:
        if len(self._told) >= EARLY_EVENTS_MAX:
            self._told.clear()
        self._told[event.session_hash, event.id] = moment(event), self.marks.due(event)
