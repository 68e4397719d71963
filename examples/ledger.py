"""What an import has done so far, in the same database as what it imports.

Records, position and counters are committed in one transaction, so that this database is the truth about an
import, whatever becomes of the process or of the tracker; the tracker shows it.
"""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import peewee

from headway.ids import uuid7


class Fault(NamedTuple):
    """A record that could not be imported: which, what kind of fault, and the reason in words."""

    record: str
    code: str
    message: str


class TakenOverError(Exception):
    """Another process works on this run."""


class Run(peewee.Model):
    """One import of certain files, from its first record to its last, however many processes that takes."""

    id = peewee.AutoField()
    source = peewee.TextField(index=True)
    """Path, size in bytes and modification time of each file: a file that changed makes another import."""
    job_id = peewee.CharField(32)
    """Its job in Headway. Chosen before the first record, so that a successor finds the job."""
    attempt = peewee.IntegerField(default=0)
    """Which worker has the job, as Headway counts; 0 until Headway said."""
    size = peewee.BigIntegerField()
    """Records in all files."""
    file = peewee.IntegerField(default=0)
    """Index of the file that the next record comes from."""
    offset = peewee.BigIntegerField(default=0)
    """Where the next record begins in that file, as its reader counts."""
    added = peewee.BigIntegerField(default=0)
    updated = peewee.BigIntegerField(default=0)
    skipped = peewee.BigIntegerField(default=0)
    """Records that were there already, unchanged."""
    failed = peewee.BigIntegerField(default=0)
    """Records that could not be imported; each has its row in FaultRow."""
    told = peewee.BooleanField(default=False)
    """All is imported, and the tracker knows it."""

    class Meta:
        table_name = "import_run"

    @property
    def done(self) -> int:
        """Records behind us, the failed ones included."""
        return self.added + self.updated + self.skipped + self.failed

    @property
    def file_name(self) -> str:
        """The file that the next record comes from."""
        path: str = json.loads(self.source)[self.file][0]
        return path

    @property
    def checkpoint(self) -> dict[str, object]:
        """Where the next record is, for people to read; the run itself is what a successor goes by."""
        return {"file": self.file_name, "offset": self.offset, "records": self.done}

    @property
    def counters(self) -> dict[str, int]:
        """The counters, as Headway's counters have them; the failed ones are its record errors."""
        return {"added": self.added, "updated": self.updated, "skipped": self.skipped}


class FaultRow(peewee.Model):
    """A record that could not be imported, in the order that they came."""

    id = peewee.AutoField()
    run = peewee.ForeignKeyField(Run)
    record = peewee.TextField()
    code = peewee.TextField()
    message = peewee.TextField()

    class Meta:
        table_name = "import_fault"


def open_ledger(path: Path, table: type[peewee.Model]) -> peewee.SqliteDatabase:
    """The database at `path`, with the given table and the ledger's; made where it is missing."""
    # FULL: after a power cut too, nothing that the tracker was told may be missing here.
    database = peewee.SqliteDatabase(str(path), pragmas={"journal_mode": "wal", "synchronous": "full"}, timeout=30)
    models: list[type[peewee.Model]] = [table, Run, FaultRow]
    database.bind(models)
    database.create_tables(models)
    return database


def source_of(files: Sequence[Path]) -> str:
    """What `Run.source` holds for these files. Raises OSError where one cannot be read."""
    stats = [(str(file.resolve()), file.stat()) for file in files]
    return json.dumps([(path, stat.st_size, stat.st_mtime_ns) for path, stat in stats])


def find_run(source: str) -> Run | None:
    """The run over these files that is not over yet, or None."""
    return Run.get_or_none((Run.source == source) & (Run.told == False))  # noqa: E712 (peewee's ==)


def advance(run: Run, file: int, offset: int, counts: Counter[str], faults: Sequence[Fault]) -> None:
    """Moves the run on to the next record's place; call it within the transaction that stores the records.

    Raises TakenOverError, which undoes that transaction, if another process has moved the run on meanwhile.
    """
    values: dict[str, int] = {name: getattr(run, name) + counts[name] for name in ("added", "updated", "skipped")}
    values |= {"failed": run.failed + len(faults), "file": file, "offset": offset}
    here = (Run.id == run.id) & (Run.file == run.file) & (Run.offset == run.offset)
    if not Run.update(values).where(here).execute():
        raise TakenOverError("another process imports these files; this one stops")
    FaultRow.insert_many([{"run": run, **fault._asdict()} for fault in faults]).execute()
    for name, value in values.items():
        setattr(run, name, value)


def new_run(source: str, size: int) -> Run:
    """A run over files that hold so many records."""
    return Run.create(source=source, job_id=uuid7(), size=size)


def store(table: type[peewee.Model], records: Sequence[NamedTuple]) -> Counter[str]:
    """Adds or updates records; tells how many were added, updated, and skipped as they were there already."""
    if not records:
        return Counter()
    columns = records[0]._fields
    key = getattr(table, columns[0])
    rows = table.select().where(key.in_([record[0] for record in records]))
    known = {getattr(row, columns[0]): tuple(getattr(row, column) for column in columns) for row in rows}
    counts: Counter[str] = Counter()
    changed: dict[str, NamedTuple] = {}
    for record in records:
        before = known.get(record[0])
        counts["added" if before is None else "skipped" if before == record else "updated"] += 1
        if before != record:
            known[record[0]] = changed[record[0]] = record
    if changed:
        table.insert_many([record._asdict() for record in changed.values()]).on_conflict_replace().execute()
    return counts


def faults_of(run: Run, after: int = 0) -> list[Fault]:
    """The run's faults in the order that they came, without the first `after`."""
    rows = FaultRow.select().where(FaultRow.run == run).order_by(FaultRow.id)
    return [Fault(row.record, row.code, row.message) for row in rows.offset(after)]
