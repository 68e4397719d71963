"""The operations on jobs, in domain terms. Every transport calls them. Rules of a single job are in domain."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from headway_server.domain.commands import Command, Create
from headway_server.domain.errors import (
    Fault,
    InvalidRequest,
    JobIdAmbiguous,
    JobNotFound,
    StreamExpired,
)
from headway_server.domain.job import Job, Key, Status
from headway_server.domain.limits import MICROSECONDS
from headway_server.domain.report import RecordError
from headway_server.resources.clock import Clock
from headway_server.service.commit import Outcome, Step
from headway_server.service.commit_writer import CommitWriter, StreamOrder
from headway_server.service.ids import Ids
from headway_server.service.job_cache import JobCache
from headway_server.service.sealed_tokens import Sealer
from headway_server.service.session_watch import SessionWatches
from headway_server.service.watch_hub import WatchHub, moment
from headway_server.storage.listing import NEWEST, Filter, JobEvent, Position, Removal, position
from headway_server.storage.read_pool import Readers
from headway_server.storage.store import Store
from headway_server.storage.writes import RECORD_ERRORS_KEPT

WATCHED_REPORT_INTERVAL = MICROSECONDS // 4
"""µs between the reports of a watched job."""

UNWATCHED_REPORT_INTERVAL = 2 * MICROSECONDS
"""µs between the reports of a job that nobody watches."""

LONGEST_REPORT_INTERVAL = 30 * MICROSECONDS
"""µs between the reports of a job while the server is at its limit of load."""

LIST_PAGE_BYTES = 4 * 1024 * 1024
"""The text of a page's jobs takes this many bytes, or a little more: about as much as a reply can hold."""


T = TypeVar("T")

EVERYWHERE = None
"""Instead of a session: the job with an id in any session, or the jobs of all sessions."""


Name = tuple[str | None, str]
"""How a caller names a job: (session_hash, job_id), or (EVERYWHERE, job_id) for the id alone."""


@dataclass(frozen=True, slots=True)
class Page:
    """A page of a list. It may have no jobs although more follow. `token(position)` continues after a position."""

    jobs: Sequence[Job]
    end: Position | None
    """Where the page ends, or None if it is the last."""
    token: Callable[[Position], str]

    def next_token(self, shown: int) -> str:
        """The token that continues after the first `shown` jobs, for a reply that holds no more; "" if none is left."""
        end = position(self.jobs[shown - 1]) if shown < len(self.jobs) else self.end
        return "" if end is None else self.token(end)


@dataclass(frozen=True, slots=True)
class RecordErrors:
    """The first and the last record errors of a job, and their total number."""

    first: Sequence[RecordError]
    last: Sequence[RecordError]
    total: int


class Jobs:
    """The operations on jobs. They raise the errors of domain/errors.py."""

    def __init__(
        self,
        store: Store,
        job_cache: JobCache,
        readers: Readers,
        writer: CommitWriter,
        hub: WatchHub,
        clock: Clock,
        sealer: Sealer,
        longest_poll: int,
    ) -> None:
        self._store = store
        self._job_cache = job_cache
        self._readers = readers
        self._writer = writer
        self._hub = hub
        self._clock = clock
        self._sealer = sealer
        self._longest_poll = longest_poll
        self._session_watches = SessionWatches(store, readers, hub, clock, sealer)
        self._ids = Ids(clock)

    async def create(self, session_hash: str, job_id: str, command: Create, size: int) -> Job:
        """Create a job. Returns the existing job if an earlier call had the same id and parameters. `size` as for
        `apply`."""
        return await self._writer.apply((session_hash, job_id or self._ids()), command, size)

    async def apply(self, name: Name, command: Command, size: int) -> Job:
        """Apply a command to a job. Returns the job after it. `size` is the size of the command in bytes."""
        return await self._writer.apply(await self.locate(name), command, size)

    async def room(self) -> None:
        """Wait until the server can accept reports."""
        await self._writer.room()

    def report(self, steps: Sequence[Step], size: int, order: StreamOrder) -> "asyncio.Future[list[Outcome]]":
        """Apply reports in their order, in one commit. Returns the outcome of each. `size` is their size in bytes."""
        return self._writer.submit(steps, size, order=order)

    def report_interval(self, job: Job) -> int:
        """How long (µs) the worker of this job should wait before its next report."""
        watched = self._hub.watched((job.session_hash, job.id))
        wanted = WATCHED_REPORT_INTERVAL if watched else UNWATCHED_REPORT_INTERVAL
        interval = wanted + int((LONGEST_REPORT_INTERVAL - wanted) * min(self._writer.load, 1))
        return min(interval, job.heartbeat_timeout // 3) if job.heartbeat_timeout else interval

    async def get(self, name: Name, after_revision: int = 0, wait: int = 0, connection: str = "") -> Job:
        """The job. With `wait` (µs): as soon as it is newer than `after_revision` or has ended.

        A call that waits counts as a watch of its connection.
        """
        key = await self.locate(name)
        if not wait:
            return await self._get(key)
        with self._hub.job(key, min(wait, self._longest_poll) / MICROSECONDS, connection) as inbox:
            job = await self._get(key)
            with suppress(StreamExpired):
                while job.revision <= after_revision and not job.ended:
                    job = _newer(await inbox.get(), job)
            return job

    async def page(self, wanted: Filter, page_size: int, page_token: str) -> Page:
        """A page of jobs, the newest job first."""
        scope = repr((wanted.session_hash, sorted(wanted.statuses), wanted.name, wanted.invoker,
                      sorted(wanted.labels.items()), wanted.stalled))  # fmt: skip
        after = NEWEST
        if page_token:
            given = self._sealer.open("page", scope, page_token)
            if given is None:
                raise InvalidRequest(
                    Fault(
                        "page_token",
                        "is not the next_page_token of a list with the same session and filters",
                    )
                )
            create_time, job_id, session_hash = given
            after = (int(create_time), str(job_id), str(session_hash))
        # Read one more than requested: it shows whether this page is the last.
        query = partial(self._store.listing.jobs, wanted, after, page_size + 1, room=LIST_PAGE_BYTES)
        found = await self._readers.list(wanted.session_hash or "-", lambda stop: query(stop=stop))
        jobs, end = found.jobs[:page_size], found.end
        if len(found.jobs) > page_size:
            end = position(jobs[-1])

        def token(end: Position) -> str:
            return self._sealer.seal("page", scope, [*end])

        return Page(jobs, end, token)

    async def variables(self, name: Name, names: Sequence[str]) -> dict[str, str]:
        """Variables of a job, name to JSON text: the requested ones that are set, or all if `names` is empty."""
        _, variables = await self._with(name, self._store.variables)
        return {name: variables[name] for name in names if name in variables} if names else variables

    async def results(self, name: Name) -> str | None:
        """The results of a job as JSON text. None if it is not COMPLETED or has no results."""
        job, results = await self._with(name, self._store.results)
        return results if job.status is Status.COMPLETED else None

    async def record_errors(self, name: Name) -> RecordErrors:
        """The record errors of a job."""
        job, kept = await self._with(name, self._store.record_errors)
        total = max([job.error_count, *(number for number, _ in kept)])
        first = [error for number, error in kept if number <= RECORD_ERRORS_KEPT]
        last = [error for number, error in kept if number > total - RECORD_ERRORS_KEPT]
        return RecordErrors(first, last, total)

    async def watch(self, name: Name, after_revision: int, life: float, connection: str) -> AsyncGenerator[Job, None]:
        """The job if it is newer than `after_revision`, then each newer state. Ends with the final state, or with
        StreamExpired after `life` seconds."""
        key = await self.locate(name)
        with self._hub.job(key, life, connection) as inbox:
            job = await self._get(key)
            if after_revision > job.revision:
                raise InvalidRequest(
                    Fault("after_revision", f"is higher than the job's revision, which is {job.revision}")
                )
            seen = after_revision
            while True:
                if job.revision > seen or job.ended:
                    seen = job.revision
                    yield job
                if job.ended:
                    return
                job = _newer(await inbox.get(), job)

    def watch_all(
        self, session_hash: str | None, resume_token: str, life: float, connection: str
    ) -> AsyncGenerator[tuple[JobEvent, str], None]:
        """The jobs of a session (or of all): their present state, or their changes since the token; then every change.
        Ends with StreamExpired after `life` seconds.

        Each event comes with the token that resumes the watch after it.
        """
        return self._session_watches.watch(session_hash, resume_token, life, connection)

    async def _with(self, name: Name, query: Callable[[Key], T]) -> tuple[Job, T]:
        """A job, and the result of the query for it."""
        key = await self.locate(name)
        job, found = await self._readers.read(lambda: (self._store.get(key), query(key)))
        if job is None:
            raise JobNotFound
        return job, found

    async def _get(self, key: Key) -> Job:
        held = self._job_cache.get(key)
        if held is not None:
            return held
        job = await self._readers.read(partial(self._store.get, key))
        if job is None:
            raise JobNotFound
        return job

    async def locate(self, name: Name) -> Key:
        """The key of a job. Raises JobNotFound or JobIdAmbiguous if the name is (EVERYWHERE, job_id)."""
        session_hash, job_id = name
        if session_hash is not None:
            return session_hash, job_id
        sessions = await self._readers.read(partial(self._store.sessions_with, job_id))
        if not sessions:
            raise JobNotFound
        if len(sessions) > 1:
            raise JobIdAmbiguous
        return sessions[0], job_id


def _newer(event: JobEvent, job: Job) -> Job:
    """The newer of the two. Raises JobNotFound if the job was removed."""
    if moment(event) <= moment(job):
        return job
    if isinstance(event, Removal):
        raise JobNotFound
    return event
