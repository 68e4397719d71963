"""Reads and writes jobs. Reads of many jobs are in listing.py, writes in writes.py.

peewee compiles frequent statements once, and the store reuses them: compiling costs more than running them.
"""

import json
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any  # what a database driver returns has no other type

import peewee
from peewee import Expression, Query, Value, fn

from headway_server.domain.change import Change
from headway_server.domain.job import Job, Key
from headway_server.domain.limits import MICROSECONDS
from headway_server.domain.report import RecordError
from headway_server.storage import rows
from headway_server.storage.change_log import Snapshot, current_snapshot
from headway_server.storage.compiled_sql import Statement, any_of, belongs, fetch, is_key, named, to_power_of_two
from headway_server.storage.database import Engine
from headway_server.storage.database_errors import DATABASE_ERRORS
from headway_server.storage.listing import JobEvent, Listing, Removal
from headway_server.storage.models import (
    FactRow,
    JobRow,
    OpenKeyRow,
    RecordErrorRow,
    RemovedRow,
    ResultsRow,
    VariablesRow,
    WebhookRow,
)
from headway_server.storage.writes import Writes

KEYS_A_QUERY = 128

REMOVALS_FORGOTTEN = "removals_forgotten"
"""The fact with the time (µs) up to which removals may have been deleted."""


class CommitFailed(Exception):
    """The COMMIT itself failed. It is not known whether it took effect. The cause is the database's error."""


class Store:
    """One database. Each thread that calls it has its own connection."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.database = engine.database
        self.listing = Listing(engine)
        self._writes = Writes(engine)
        self._select_job = Statement(self.database, JobRow.select().where(is_key(JobRow, "id")))
        self._select_variables = Statement(
            self.database, VariablesRow.select(VariablesRow.variables).where(is_key(VariablesRow, "job_id"))
        )
        self._select_by_key = Statement(
            self.database,
            OpenKeyRow.select(OpenKeyRow.job_id).where(
                (OpenKeyRow.session_hash == named("session_hash")) & (OpenKeyRow.key == named("key"))
            ),
        )
        self._by_count: dict[int, Statement] = {}
        self._removed = cache(self._compile_removed)
        self._states = cache(self._compile_states)
        self._prepared = threading.local()
        """The connection of each thread that was prepared for lists."""

    # Connections and transactions.

    def now(self) -> int:
        """The database's time in µs since the epoch. All servers of the database share this clock."""
        if not self.engine.shared:
            return time.time_ns() // 1000
        ((seconds,),) = self._fetch(peewee.Select(columns=[peewee.SQL("extract(epoch from clock_timestamp())")]))
        return int(seconds * MICROSECONDS)

    def prepare_for_lists(self, timeout: int) -> None:
        """Make this thread's statements use only index scans, for at most `timeout` ms.

        PostgreSQL estimates how many rows of a range a filter leaves, and would sometimes read and sort the whole range
        instead. It would also compile (JIT) statements that it considers expensive, which takes a second and does not
        help here. SQLite needs no such settings.
        """
        if not self.engine.shared:
            return
        connection = self.database.connection()
        if getattr(self._prepared, "connection", None) is not connection:
            for setting in ("enable_seqscan = off", "enable_bitmapscan = off", "enable_sort = off", "jit = off"):
                self.database.execute_sql(f"SET {setting}")
            self.database.execute_sql(f"SET statement_timeout = {timeout}")
            self._prepared.connection = connection

    def snapshot(self) -> Snapshot:
        """What is committed and visible now. For servers that share the database."""
        return current_snapshot(self.database)

    def connect(self) -> None:
        """Connect this thread if it has no connection. Raises OperationalError if nothing may be written now."""
        if self.engine.unusable:
            raise peewee.OperationalError(self.engine.unusable)
        self.database.connect(reuse_if_open=True)

    def disconnect(self) -> None:
        """Drop this thread's connection. The next call makes a new one."""
        try:
            self.database.close()
        except DATABASE_ERRORS:
            self.database.dispose()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """A write transaction. It is committed at the end of the block, or rolled back after an exception."""
        database = self.database
        self.connect()
        database.begin()
        try:
            yield
            try:
                database.commit()
            except DATABASE_ERRORS as error:
                raise CommitFailed from error
        except BaseException:
            # After a full disk the rollback may have happened already, and a lost connection cannot roll back. Neither
            # must hide the original error.
            try:
                database.rollback()
            except DATABASE_ERRORS:
                self.disconnect()
            raise

    def fact(self, name: str) -> str | None:
        """The fact with this name, or None."""
        for (value,) in self._fetch(FactRow.select(FactRow.value).where(FactRow.name == name)):
            return str(value)
        return None

    def remember(self, name: str, value: str) -> None:
        """Store a fact, in the caller's transaction."""
        self.forget(name)
        self.database.execute(FactRow.insert(name=name, value=value))

    def forget(self, name: str) -> None:
        """Delete the fact with this name, in the caller's transaction."""
        self.database.execute(FactRow.delete().where(FactRow.name == name))

    def latest_times(self) -> tuple[int, int]:
        """When the newest job was created and when the last one was removed (µs); 0 = never."""
        ((created,),) = self._fetch(JobRow.select(fn.MAX(JobRow.create_time)))
        ((removed,),) = self._fetch(RemovedRow.select(fn.MAX(RemovedRow.remove_time)))
        return created or 0, removed or 0

    def later_than(self, now: int) -> list[Key]:
        """The jobs that were changed after `now` (µs)."""
        query = JobRow.select(JobRow.session_hash, JobRow.id).where(JobRow.update_time > now)
        return [(session_hash, job_id) for session_hash, job_id in self._fetch(query)]

    def bring_back(self, now: int) -> None:
        """Set later times to `now` (µs), except for those that `save` stores, in the caller's transaction."""
        for column in (JobRow.create_time, RemovedRow.remove_time, WebhookRow.create_time, WebhookRow.next_time):
            self.database.execute(column.model.update({column: now}).where(column > now))
        if self.removals_forgotten() > now:
            self.remember(REMOVALS_FORGOTTEN, str(now))

    # For the commit writer, within its transaction.

    def load(self, keys: Sequence[Key]) -> dict[Key, Job]:
        """The existing jobs with these keys. No other server changes them before the transaction ends."""
        jobs: dict[Key, Job] = {}
        for start in range(0, len(keys), KEYS_A_QUERY):
            chunk = keys[start : start + KEYS_A_QUERY]
            padded = to_power_of_two(chunk)
            select = self._select_by_keys(len(padded))
            for row in self._fetch_sql(select.sql, [part for key in padded for part in key]):
                job = rows.from_row(row)
                jobs[job.session_hash, job.id] = job
        return jobs

    def ids_by_key(self, keys: Sequence[tuple[str, str]]) -> dict[tuple[str, str], str]:
        """The unfinished jobs with these keys: (session_hash, key) to id."""
        found: dict[tuple[str, str], str] = {}
        for session_hash, key in keys:
            parameters = self._select_by_key.parameters({"session_hash": session_hash, "key": key})
            for (job_id,) in self._fetch_sql(self._select_by_key.sql, parameters):
                found[session_hash, key] = job_id
        return found

    def _select_by_keys(self, count: int) -> Statement:
        if count not in self._by_count:
            query = JobRow.select().where(_one_of(JobRow, "id", count))
            if self.engine.shared:
                # All servers lock rows in the same order, so that they cannot deadlock.
                query = query.order_by(JobRow.session_hash, JobRow.id).for_update()
            self._by_count[count] = Statement(self.database, query)
        return self._by_count[count]

    def count_jobs(self, session_hash: str, limit: int) -> int:
        """How many jobs a session has. Counting stops at `limit`."""
        some = JobRow.select(Value(1)).where(JobRow.session_hash == session_hash).limit(limit)
        ((count,),) = self._fetch(peewee.Select([some], [fn.COUNT(peewee.SQL("*"))]))
        return int(count)

    def count_all(self) -> tuple[int, int]:
        """The number of jobs, and of sessions that have any. Reads an index from end to end."""
        sessions = JobRow.select(JobRow.session_hash).distinct()
        ((jobs,),) = self._fetch(JobRow.select(fn.COUNT(peewee.SQL("*"))))
        ((count,),) = self._fetch(peewee.Select([sessions], [fn.COUNT(peewee.SQL("*"))]))
        return int(jobs), int(count)

    def save(self, changes: Sequence[Change]) -> None:
        """Write the changes, in the caller's transaction."""
        self._writes.save(changes)

    def save_at_once(self, changes: Sequence[Change]) -> bool:
        """Write and commit the changes in a single statement if they are few and simple. Returns whether it did."""
        try:
            return self._writes.save_at_once(changes)
        except DATABASE_ERRORS as error:
            raise CommitFailed from error

    def forget_removals(self, before: int) -> None:
        """Delete the removals before that time (µs), in the caller's transaction."""
        old = RemovedRow.remove_time < before
        ((latest,),) = self._fetch(RemovedRow.select(fn.MAX(RemovedRow.remove_time)).where(old))
        if latest is None:
            return
        self.database.execute(RemovedRow.delete().where(old))
        self.remember(REMOVALS_FORGOTTEN, str(latest))

    # Reads.

    def removals_forgotten(self) -> int:
        """The time (µs) up to which some removals are no longer known; 0 = all are known."""
        return int(self.fact(REMOVALS_FORGOTTEN) or 0)

    def get(self, key: Key) -> Job | None:
        session_hash, job_id = key
        parameters = self._select_job.parameters({"session_hash": session_hash, "id": job_id})
        for row in self._fetch_sql(self._select_job.sql, parameters):
            return rows.from_row(row)
        return None

    def states_of(self, keys: Sequence[Key]) -> list[JobEvent]:
        """The state of these jobs, at most KEYS_A_QUERY: removals, then the jobs that exist."""
        padded = to_power_of_two(keys)
        parameters = [part for key in padded for part in key]
        removed = fetch(self.database, self._removed(len(padded)).sql, parameters)
        jobs = fetch(self.database, self._states(len(padded)).sql, parameters)
        return [*[Removal(*row) for row in removed], *map(rows.from_row, jobs)]

    def _compile_removed(self, count: int) -> Statement:
        columns = (RemovedRow.session_hash, RemovedRow.job_id, RemovedRow.remove_time)
        return Statement(self.database, RemovedRow.select(*columns).where(_one_of(RemovedRow, "job_id", count)))

    def _compile_states(self, count: int) -> Statement:
        return Statement(self.database, JobRow.select().where(_one_of(JobRow, "id", count)))

    def sessions_with(self, job_id: str) -> list[str]:
        """The sessions that have a job with this id: none, one, or the first two."""
        query = JobRow.select(JobRow.session_hash).where(JobRow.id == job_id).limit(2)
        return [session_hash for (session_hash,) in self._fetch(query)]

    def variables(self, key: Key) -> dict[str, str]:
        """The variables of a job, name to JSON text; {} if it has none."""
        return self.variables_of([key]).get(key, {})

    def variables_of(self, keys: Sequence[Key]) -> dict[Key, dict[str, str]]:
        """The variables of each of these jobs that has any."""
        found: dict[Key, dict[str, str]] = {}
        for key in keys:
            parameters = self._select_variables.parameters({"session_hash": key[0], "id": key[1]})
            for (text,) in self._fetch_sql(self._select_variables.sql, parameters):
                found[key] = json.loads(text)
        return found

    def results(self, key: Key) -> str | None:
        """The results of a job as JSON text, or None if it has none."""
        query = ResultsRow.select(ResultsRow.results).where(belongs(ResultsRow, key))
        for (text,) in self._fetch(query):
            return str(text)
        return None

    def record_errors(self, key: Key) -> list[tuple[int, RecordError]]:
        """The stored record errors with their numbers, in order."""
        query = (
            RecordErrorRow.select(
                RecordErrorRow.number, RecordErrorRow.record, RecordErrorRow.code, RecordErrorRow.message
            )
            .where(belongs(RecordErrorRow, key))
            .order_by(RecordErrorRow.number)
        )
        return [(number, RecordError(*rest)) for number, *rest in self._fetch(query)]

    def due(self, now: int, limit: int) -> list[Key]:
        """Jobs that time alone may change until `now` (µs), longest overdue first."""
        query = (
            JobRow.select(JobRow.session_hash, JobRow.id)
            .where(JobRow.wake_time <= now)
            .order_by(JobRow.wake_time)
            .limit(limit)
        )
        return [(session_hash, job_id) for session_hash, job_id in self._fetch(query)]

    def keys_after(self, key: Key, limit: int) -> list[Key]:
        """The next jobs after this key, in the order of keys."""
        session_hash, job_id = key
        query = (
            JobRow.select(JobRow.session_hash, JobRow.id)
            .where(JobRow.session_hash >= session_hash)
            .where((JobRow.session_hash > session_hash) | (JobRow.id > job_id))
            .order_by(JobRow.session_hash, JobRow.id)
            .limit(limit)
        )
        return [(session_hash, job_id) for session_hash, job_id in self._fetch(query)]

    def _fetch(self, query: Query) -> list[tuple[Any, ...]]:
        return self._fetch_sql(*self.database.get_sql_context().sql(query).query())

    def _fetch_sql(self, sql: str, parameters: Sequence[rows.SqlValue]) -> list[tuple[Any, ...]]:
        return fetch(self.database, sql, parameters)


def _one_of(model: type[peewee.Model], id_column: str, count: int) -> Expression:
    """The condition that a row belongs to one of `count` jobs."""
    return any_of([is_key(model, id_column) for _ in range(count)])
