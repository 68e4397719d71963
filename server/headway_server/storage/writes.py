"""The writes of a commit: every statement that changes the tables of jobs.

peewee compiles frequent statements once, and they are reused: compiling costs more than running them.
"""

import json
from collections.abc import Mapping, Sequence

from peewee import EXCLUDED, SQL, Query, ValuesList
from peewee import __exception_wrapper__ as exception_wrapper  # type: ignore[attr-defined]  # its stubs lack it

from headway_server.domain.change import Change
from headway_server.storage import rows
from headway_server.storage.compiled_sql import Statement, is_key, named, to_power_of_two
from headway_server.storage.database import Engine
from headway_server.storage.models import (
    JobRow,
    LabelRow,
    OpenKeyRow,
    RecordErrorRow,
    RemovedRow,
    ResultsRow,
    VariablesRow,
)

RECORD_ERRORS_KEPT = 100
"""This many record errors are kept from the beginning of a job, and as many from its end."""

AT_ONCE = 256
"""Jobs with plain reports that one statement can store."""


class Writes:
    """Writes to one database."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.database = engine.database
        columns = JobRow._meta.columns
        compiled = self.database
        self._insert_job = Statement(compiled, JobRow.insert({columns[c]: named(c) for c in rows.COLUMNS}))
        self._update_reported = Statement(compiled, self._update(rows.REPORTED))
        self._update_all = Statement(
            compiled, self._update([c for c in rows.COLUMNS if c not in (*rows.KEY, "create_time")])
        )
        self._save_variables = Statement(
            compiled,
            VariablesRow.insert(
                session_hash=named("session_hash"), job_id=named("id"), variables=named("variables")
            ).on_conflict(
                conflict_target=[VariablesRow.session_hash, VariablesRow.job_id],
                update={VariablesRow.variables: EXCLUDED.variables},
            ),
        )
        self._remove_labels = Statement(compiled, LabelRow.delete().where(is_key(LabelRow, "job_id")))
        self._insert_label = Statement(
            compiled,
            LabelRow.insert(
                session_hash=named("session_hash"), job_id=named("id"), key=named("key"), value=named("value")
            ),
        )
        self._insert_key = Statement(
            compiled,
            OpenKeyRow.insert(session_hash=named("session_hash"), key=named("key"), job_id=named("id")),
        )
        self._free_key = Statement(
            compiled,
            OpenKeyRow.delete().where(is_key(OpenKeyRow, "job_id") & (OpenKeyRow.key == named("key"))),
        )
        self._insert_results = Statement(
            compiled,
            ResultsRow.insert(session_hash=named("session_hash"), job_id=named("id"), results=named("results")),
        )
        self._insert_record_error = Statement(
            compiled,
            RecordErrorRow.insert(
                session_hash=named("session_hash"),
                job_id=named("id"),
                number=named("number"),
                record=named("record"),
                code=named("code"),
                message=named("message"),
            ),
        )
        self._drop_record_errors = Statement(
            compiled,
            RecordErrorRow.delete().where(
                is_key(RecordErrorRow, "job_id")
                & (RecordErrorRow.number >= named("first"))
                & (RecordErrorRow.number <= named("last"))
            ),
        )
        self._removals = [
            self._remove_labels,
            *(
                Statement(compiled, model.delete().where(is_key(model, column)))
                for model, column in (
                    (VariablesRow, "job_id"),
                    (ResultsRow, "job_id"),
                    (RecordErrorRow, "job_id"),
                    (JobRow, "id"),
                )
            ),
        ]
        self._note_removal = Statement(
            compiled,
            RemovedRow.insert(
                session_hash=named("session_hash"), job_id=named("id"), remove_time=named("update_time")
            ).on_conflict(
                conflict_target=[RemovedRow.session_hash, RemovedRow.job_id],
                update={RemovedRow.remove_time: EXCLUDED.remove_time},
            ),
        )
        self._at_once: dict[int, Statement] = {}

    def _update(self, names: Sequence[str]) -> Query:
        columns = JobRow._meta.columns
        return JobRow.update({columns[name]: named(name) for name in names}).where(is_key(JobRow, "id"))

    def _update_at_once(self, count: int) -> Statement:
        if count not in self._at_once:
            columns = JobRow._meta.columns
            given = [*rows.KEY, *rows.REPORTED]
            values = ValuesList([[named(name) for name in given] for _ in range(count)]).alias("given")
            # SQLite names the columns of a list of values itself.
            column = {name: SQL(f'"given"."column{number}"') for number, name in enumerate(given, 1)}
            query = (
                JobRow.update({columns[name]: column[name] for name in rows.REPORTED})
                .from_(values)
                .where((JobRow.session_hash == column["session_hash"]) & (JobRow.id == column["id"]))
            )
            self._at_once[count] = Statement(self.database, query)
        return self._at_once[count]

    def save_at_once(self, changes: Sequence[Change]) -> bool:
        """Write and commit the changes in a single statement if they are few and simple. Returns whether it did.

        For SQLite only: each call to the database releases the interpreter's lock, and BEGIN, the statement and COMMIT
        would each have to wait for it again."""
        if self._engine.shared or not 0 < len(changes) <= AT_ONCE or not all(map(_only_reported, changes)):
            return False
        padded = to_power_of_two([rows.reported(change.job) for change in changes])
        statement = self._update_at_once(len(padded))
        self.database.execute_sql(statement.sql, statement.parameters_of_many(padded))
        return True

    def save(self, changes: Sequence[Change]) -> None:
        """Write the changes, in the caller's transaction."""
        gone: list[dict[str, rows.SqlValue]] = [
            {**_key(c), "update_time": c.job.update_time} for c in changes if c.removed and not c.created
        ]
        if gone:
            for statement in (*self._removals, self._note_removal):
                self._run_many(statement, gone)
        kept = [change for change in changes if not change.removed]
        keyed = [change for change in changes if change.job.key]
        freed = [c for c in keyed if not c.created and (c.removed or c.job.ended)]
        self._run_many(self._free_key, [{**_key(c), "key": c.job.key} for c in freed])
        taken = [c for c in keyed if c.created and not (c.removed or c.job.ended)]
        self._run_many(self._insert_key, [{**_key(c), "key": c.job.key} for c in taken])
        self._run_many(self._insert_job, [rows.to_row(c.job) for c in kept if c.created])
        stored = [c for c in kept if not c.created]
        self._run_many(self._update_all, [rows.to_row(c.job) for c in stored if c.rewritten])
        self._run_many(self._update_reported, [rows.reported(c.job) for c in stored if c.changed and not c.rewritten])
        self._run_many(self._save_variables, [self._variables_row(c) for c in kept if c.variables_changed])
        relabelled = [c for c in kept if c.relabelled]
        self._run_many(self._remove_labels, [_key(c) for c in relabelled if not c.created])
        self._run_many(
            self._insert_label,
            [{**_key(c), "key": key, "value": value} for c in relabelled for key, value in c.job.labels.items()],
        )
        self._run_many(self._insert_results, [{**_key(c), "results": c.results} for c in kept if c.results is not None])
        failed = [c for c in kept if c.record_errors]
        self._run_many(self._insert_record_error, [row for c in failed for row in _record_errors(c)])
        self._run_many(self._drop_record_errors, [row for c in failed for row in _superseded(c)])

    def _variables_row(self, change: Change) -> dict[str, rows.SqlValue]:
        assert change.variables is not None
        text = json.dumps(change.variables.texts, separators=(",", ":"), ensure_ascii=False)
        return {**_key(change), "variables": text}

    def _run_many(self, statement: Statement, many: Sequence[Mapping[str, rows.SqlValue]]) -> None:
        if many:
            with exception_wrapper:
                self.database.cursor().executemany(statement.sql, [statement.parameters(row) for row in many])


def _key(change: Change) -> dict[str, rows.SqlValue]:
    return {"session_hash": change.job.session_hash, "id": change.job.id}


def _record_errors(change: Change) -> list[dict[str, rows.SqlValue]]:
    """The rows for the new record errors that are kept."""
    total = change.job.error_count
    key = _key(change)
    return [
        {**key, "number": number, "record": error.record, "code": error.code, "message": error.message}
        for number, error in enumerate(change.record_errors, total - len(change.record_errors) + 1)
        if number <= RECORD_ERRORS_KEPT or number > total - RECORD_ERRORS_KEPT
    ]


def _superseded(change: Change) -> list[dict[str, rows.SqlValue]]:
    """The range of stored record errors that are no longer among the last, or nothing."""
    stored = change.job.error_count - len(change.record_errors)
    first, last = RECORD_ERRORS_KEPT + 1, min(stored, change.job.error_count - RECORD_ERRORS_KEPT)
    return [{**_key(change), "first": first, "last": last}] if first <= last else []


def _only_reported(change: Change) -> bool:
    """Whether the change contains only what plain reports change."""
    return not (
        change.rewritten
        or change.created
        or change.removed
        or change.variables_changed
        or change.relabelled
        or change.record_errors
        or change.results is not None
    )
