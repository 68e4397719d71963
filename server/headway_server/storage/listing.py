"""Reads many jobs in pages: every scan consists of chunks with a limited number of rows, whatever the filter.

A page is a range of an index, in the index's order. So nothing is sorted, no table is read from end to end, and a scan
can stop anywhere and continue there. Filters without an index are applied to the rows of a chunk.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple  # Any: what a database driver returns has no other type

import peewee
from peewee import Expression

from headway_server.domain.job import Job, Status
from headway_server.domain.limits import INT64_MAX
from headway_server.storage import rows
from headway_server.storage.change_log import Snapshot, unseen
from headway_server.storage.compiled_sql import Statement, any_of, fetch, named
from headway_server.storage.database import Engine
from headway_server.storage.models import JobRow, LabelRow, RemovedRow

SCANNED = 1024
"""The most rows of the index that one statement scans. Fewer if the filter has labels."""

ROWS = 64
"""The most rows that one statement returns. A scan holds no more than this beyond the requested rows."""

ROW_BYTES = 1024
"""Bytes that a row counts, without its text."""

SHAPES = 256
"""The most kinds of filters whose statements are cached."""

Position = tuple[int, str, str]
"""A place in a list: (time, id, session_hash). Lists of jobs are ordered by create_time, newest first."""

LAST_ID = "g"
"""Greater than all ids."""

NEWEST: Position = (INT64_MAX, LAST_ID, "")
OLDEST: Position = (-1, "", "")
"""The ends of a list: before and after all possible jobs."""


@dataclass(frozen=True, slots=True)
class Filter:
    """Which jobs to list. Fields that are empty or None match all jobs. A `session_hash` of None means all sessions."""

    session_hash: str | None
    statuses: frozenset[Status] = frozenset()
    name: str = ""
    invoker: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    stalled: bool | None = None
    changed_from: int = 0
    """The lowest update_time (µs)."""
    unseen_by: Snapshot | None = None
    """Only jobs that were changed by a commit that this snapshot does not see. For servers that share a database."""

    @property
    def selective(self) -> bool:
        """Whether some jobs may not match."""
        return self != Filter(self.session_hash)


@dataclass(frozen=True, slots=True)
class Removal:
    """A job that was removed, and when (µs)."""

    session_hash: str
    id: str
    update_time: int


JobEvent = Job | Removal
"""A committed change of a job, as watchers get it: its new state, or its removal."""


@dataclass(frozen=True, slots=True)
class Found:
    """The result of a scan."""

    jobs: list[Job]
    end: Position | None
    """Where the scan stopped: the next one continues after it. None if nothing is left."""


def position(job: Job) -> Position:
    """The place of a job in lists."""
    return job.create_time, job.id, job.session_hash


def _never() -> bool:
    return False


class Listing:
    """Pages of one database. `after` and `until` are positions: pages contain rows after `after`, up to `until`."""

    def __init__(self, engine: Engine) -> None:
        self._database = engine.database
        self._select = lru_cache(SHAPES)(self._compile_select)
        self._skip = lru_cache(self._compile_skip)
        self._select_removals = lru_cache(self._compile_removals)

    def jobs(
        self,
        wanted: Filter,
        after: Position,
        limit: int,
        *,
        until: Position = OLDEST,
        room: int = INT64_MAX,
        stop: Callable[[], bool] = _never,
    ) -> Found:
        """Jobs, newest first. Ends after `limit` jobs, after `room` bytes of text, or when `stop` returns True.

        `stop` is called after each chunk of a filter, so every scan makes progress, even if it finds no job.
        """
        jobs: list[Job] = []
        of_session = wanted.session_hash is not None
        select = self._select(_shape(wanted))
        scanned = max(SCANNED // (1 + len(wanted.labels)), 1)
        values = _values(wanted)
        while True:
            end = until
            if wanted.selective:
                skip = values | _range(after, until) | {"limit": 1, "offset": scanned - 1}
                for row in self._fetch(self._skip(of_session), skip):
                    end = row
            # Read the part that ends at `end`.
            while True:
                chunk = min(ROWS, limit - len(jobs))
                found = self._fetch(select, values | _range(after, end) | {"limit": chunk})
                for row in found:
                    job = rows.from_row(row)
                    jobs.append(job)
                    after = position(job)
                    room -= rows.text_length(row) + ROW_BYTES
                    if len(jobs) == limit or room <= 0:
                        return Found(jobs, after)
                if len(found) < chunk:
                    break
            if end == until:
                return Found(jobs, None)
            after = end
            if stop():
                return Found(jobs, after)

    def removals(
        self, session_hash: str | None, after: Position, limit: int, unseen_by: Snapshot | None = None
    ) -> list[Removal]:
        """Removals of a session's jobs (None: of all), oldest first. With a snapshot: only those it does not see."""
        time, job_id, of_session = after
        values: dict[str, rows.SqlValue] = {
            "time": time,
            "id": job_id,
            "session_hash": session_hash or of_session,
            "limit": limit,
        }
        if unseen_by is not None:
            values |= unseen_by.values
        statement = self._select_removals(session_hash is not None, unseen_by is not None)
        return [Removal(*row) for row in self._fetch(statement, values)]

    # Statements depend on the shape of a filter, not on its values.

    def _compile_select(self, shape: "_Shape") -> Statement:
        query = JobRow.select().where(*_range_of_jobs(shape.of_session), *_conditions(shape))
        return Statement(self._database, query.order_by(*_newest_first(shape.of_session)).limit(named("limit")))

    def _compile_skip(self, of_session: bool) -> Statement:
        query = JobRow.select(JobRow.create_time, JobRow.id, JobRow.session_hash).where(*_range_of_jobs(of_session))
        query = query.order_by(*_newest_first(of_session)).limit(named("limit")).offset(named("offset"))
        return Statement(self._database, query)

    def _compile_removals(self, of_session: bool, unseen_alone: bool) -> Statement:
        columns = [RemovedRow.remove_time, RemovedRow.job_id, RemovedRow.session_hash]
        after = [named("time"), named("id"), named("session_hash")]
        query = RemovedRow.select(RemovedRow.session_hash, RemovedRow.job_id, RemovedRow.remove_time)
        if of_session:
            query = query.where(columns.pop() == after.pop())
        query = query.where(peewee.Tuple(*columns) > peewee.Tuple(*after))
        if unseen_alone:
            query = query.where(unseen())
        return Statement(self._database, query.order_by(*columns).limit(named("limit")))

    def _fetch(self, statement: Statement, values: Mapping[str, rows.SqlValue]) -> list[tuple[Any, ...]]:
        return fetch(self._database, statement.sql, statement.parameters(values))


class _Shape(NamedTuple):
    of_session: bool
    statuses: int
    name: bool
    invoker: bool
    stalled: bool
    labels: int
    changed_from: bool
    unseen_alone: bool


def _shape(wanted: Filter) -> _Shape:
    return _Shape(
        wanted.session_hash is not None,
        len(wanted.statuses),
        bool(wanted.name),
        bool(wanted.invoker),
        wanted.stalled is not None,
        len(wanted.labels),
        bool(wanted.changed_from),
        wanted.unseen_by is not None,
    )


def _values(wanted: Filter) -> dict[str, rows.SqlValue]:
    values: dict[str, rows.SqlValue] = {
        "session_hash": wanted.session_hash,
        "name": wanted.name,
        "invoker": wanted.invoker,
        "stalled": wanted.stalled,
        "changed_from": wanted.changed_from,
    }
    if wanted.unseen_by is not None:
        values |= wanted.unseen_by.values
    for number, status in enumerate(sorted(wanted.statuses)):
        values[f"status{number}"] = str(status)
    for number, (key, value) in enumerate(sorted(wanted.labels.items())):
        values[f"key{number}"], values[f"value{number}"] = key, value
    return values


def _range(after: Position, until: Position) -> dict[str, rows.SqlValue]:
    return {
        "after_time": after[0],
        "after_id": after[1],
        "after_session": after[2],
        "until_time": until[0],
        "until_id": until[1],
        "until_session": until[2],
    }


def _range_of_jobs(of_session: bool) -> Iterator[Expression]:
    columns, names = [JobRow.create_time, JobRow.id], ["time", "id"]
    if of_session:
        yield JobRow.session_hash == named("session_hash")
    else:
        columns.append(JobRow.session_hash)
        names.append("session")
    place = peewee.Tuple(*columns)
    yield place < peewee.Tuple(*[named(f"after_{name}") for name in names])
    yield place >= peewee.Tuple(*[named(f"until_{name}") for name in names])


def _newest_first(of_session: bool) -> list[peewee.Ordering]:
    columns: list[peewee.Field] = [JobRow.create_time, JobRow.id, JobRow.session_hash]
    return [column.desc() for column in (columns[:2] if of_session else columns)]


def _conditions(shape: _Shape) -> Iterator[Expression]:
    if shape.statuses:
        yield JobRow.status.in_([named(f"status{number}") for number in range(shape.statuses)])
    if shape.name:
        yield JobRow.name == named("name")
    if shape.invoker:
        yield JobRow.invoker == named("invoker")
    if shape.stalled:
        yield JobRow.stalled == named("stalled")
    if shape.changed_from:
        yield JobRow.update_time >= named("changed_from")
    if shape.unseen_alone:
        yield unseen()
    of_job = (LabelRow.session_hash == JobRow.session_hash) & (LabelRow.job_id == JobRow.id)
    if shape.labels:
        # Use scalar subqueries: no planner turns them into a join that begins with all labels.
        label = LabelRow.select(LabelRow.value).where(of_job & (LabelRow.key == named("key0")))
        yield Expression(label, peewee.OP.EQ, named("value0"))
    if shape.labels > 1:
        # Use one count for all other labels: with a subquery for each, PostgreSQL would plan for seconds.
        pairs = [
            (LabelRow.key == named(f"key{number}")) & (LabelRow.value == named(f"value{number}"))
            for number in range(1, shape.labels)
        ]
        count = LabelRow.select(peewee.fn.COUNT(LabelRow.key)).where(of_job & any_of(pairs))
        yield Expression(count, peewee.OP.EQ, peewee.SQL(str(shape.labels - 1)))
