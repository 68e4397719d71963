"""OK survives the loss of power: what the real store writes and syncs is cut off at hundreds of points."""

import asyncio
import sqlite3
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import apsw
import pytest
from playhouse.apsw_ext import APSWDatabase

from headway_server.domain.change import Rules
from headway_server.domain.commands import Create
from headway_server.domain.limits import Limits
from headway_server.domain.report import Report
from headway_server.resources.clock import SteadyClock
from headway_server.service.commit_writer import CommitWriter
from headway_server.service.job_cache import JobCache
from headway_server.service.totals import Totals
from headway_server.storage.database import SQLITE_PRAGMAS, Engine, migrate
from headway_server.storage.store import Store
from tests.support.power import Event, Recorder, cut
from tests.support.seeds import seeded

CUTS = 400
CALLERS = 3
COMMITS_A_CALLER = 130

SESSION = "0" * 32


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """A job was told to be at this revision, when so many events had happened."""

    moment: int
    job_id: str
    revision: int


@dataclass(frozen=True, slots=True)
class Recording:
    """All that reached the files, and what was acknowledged when."""

    events: Sequence[Event]
    acknowledged: Sequence[Acknowledged]


class RecordedDatabase(APSWDatabase):
    """The engine's usual database, over apsw: it binds no dates by itself, as the table of migrations needs them."""

    def _add_conn_hooks(self, conn: apsw.Connection) -> None:
        conn.convert_binding = lambda cursor, number, value: str(value)
        super()._add_conn_hooks(conn)  # type: ignore[no-untyped-call]  # playhouse has no types


def record(folder: Path, synchronous: str) -> Recording:
    """Some hundred commits of the server's own store and writer, in two runs with a clean end between them."""
    folder.mkdir()
    recorder = Recorder(f"recorder-{synchronous}")
    acknowledged: list[Acknowledged] = []
    try:
        for run in range(2):
            database = RecordedDatabase(  # type: ignore[no-untyped-call]  # playhouse has no types
                str(folder / "headway.db"),
                vfs=f"recorder-{synchronous}",
                # Checkpoints come often, so that many cuts meet one.
                pragmas={**SQLITE_PRAGMAS, "synchronous": synchronous, "wal_autocheckpoint": 25},
                lock_type="IMMEDIATE",
            )
            engine = Engine(database, shared=False, name="recorded")
            database.connect()
            assert database.pragma("journal_mode") == "wal"
            assert database.pragma("synchronous") == {"normal": 1, "full": 2}[synchronous]
            migrate(engine)
            database.close()
            asyncio.run(commit_many(Store(engine), run, recorder, acknowledged))
    finally:
        recorder.unregister()
    return Recording(recorder.events, acknowledged)


async def commit_many(store: Store, run: int, recorder: Recorder, acknowledged: list[Acknowledged]) -> None:
    """A few callers at once, each with jobs of its own."""
    clock = SteadyClock(1_800_000_000_000_000)
    writer = CommitWriter(store, JobCache(1_000_000), Totals(Limits()), clock, Rules(), lambda _: None)

    async def caller(number: int) -> None:
        for count in range(COMMITS_A_CALLER):
            job_id = f"{run:08x}{number:08x}{count // 10:016x}"
            action = Report(advance=1, message="x" * (count % 400)) if count % 10 else Create(digest="")
            job = await writer.apply((SESSION, job_id), action)
            acknowledged.append(Acknowledged(len(recorder.events), job_id, job.revision))

    await asyncio.gather(*map(caller, range(CALLERS)))
    await writer.close()


def revisions(files: dict[str, bytes], folder: Path) -> dict[str, int]:
    """What SQLite finds when the power is back: job to revision. The files must be whole."""
    folder.mkdir(exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    with closing(sqlite3.connect(folder / "headway.db")) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        if not connection.execute("SELECT name FROM sqlite_master WHERE name = 'job'").fetchall():
            return {}
        return dict(connection.execute("SELECT id, revision FROM job").fetchall())


def cuts_that_lose(recording: Recording, folder: Path) -> int:
    """How many of the cuts lose something acknowledged. Half of them come right behind an acknowledgement."""
    chance = seeded("power")
    moments = chance.sample([a.moment for a in recording.acknowledged], CUTS // 2)
    moments += [chance.randrange(1, len(recording.events) + 1) for _ in range(CUTS - len(moments))]
    losing = 0
    for moment, files in cut(recording.events, moments, chance):
        stored = revisions(files, folder)
        told = {a.job_id: a.revision for a in recording.acknowledged if a.moment <= moment}
        losing += any(stored.get(job_id, 0) < revision for job_id, revision in told.items())
    return losing


def test_no_power_cut_loses_what_was_acknowledged(tmp_path: Path) -> None:
    assert SQLITE_PRAGMAS["synchronous"] == "full"
    recording = record(tmp_path / "live", "full")
    assert len(recording.acknowledged) == 2 * CALLERS * COMMITS_A_CALLER
    happened = Counter((event.file, event.kind) for event in recording.events)
    assert happened["headway.db", "sync"] > 10, "the cuts must meet checkpoints too"
    assert happened["headway.db-wal", "delete"], "the cuts must meet a clean end too"
    assert cuts_that_lose(recording, tmp_path / "after") == 0


def test_the_checker_sees_that_less_syncing_loses_commits(tmp_path: Path) -> None:
    """With synchronous=NORMAL a commit is not synced: had no cut lost anything, this test of ours would be blind."""
    assert cuts_that_lose(record(tmp_path / "live", "normal"), tmp_path / "after") > CUTS // 10


@pytest.mark.parametrize("fate", range(5))
def test_what_is_synced_stays_and_what_is_not_may_go(fate: int) -> None:
    """The simulation itself."""
    events = [
        Event("write", "file", 0, b"a" * 1024),
        Event("sync", "file"),
        Event("write", "file", 0, b"b" * 1024),
        Event("write", "new", 0, b"c" * 512),
    ]
    chance = seeded(f"simulation {fate}")
    seen = [files for _, files in cut(events, [4] * 200, chance)]
    assert {files["file"] for files in seen} == {x * 512 + y * 512 for x in (b"a", b"b") for y in (b"a", b"b")}
    assert {files.get("new") for files in seen} == {None, b"", b"c" * 512}
    assert [files for _, files in cut(events, [2], chance)] == [{"file": b"a" * 1024}]
