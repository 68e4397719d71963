"""Both imports end to end: on real data, against a real server, killed at every interesting point."""

import os
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import pytest

import headway
from examples.ledger import Fault, Run, TakenOverError, advance, find_run, new_run, open_ledger, source_of, store
from examples.marc_import.catalogue import BiblioRow, MarcImport
from examples.marc_import.data import multiply
from examples.patron_import import patrons
from examples.worker import BATCH, import_files
from headway.v1 import job_pb2
from tests.support.server import ServerProcess

ROOT = Path(__file__).parents[2]
TRAP = Path(__file__).with_name("trap.py")
PATRONS = Path(patrons.__file__).with_name("patrons.csv")
MARC = ("examples.marc_import", "biblio")


@dataclass(frozen=True)
class Outcome:
    """What must not depend on how often an import was killed."""

    status: str
    size: int
    progress: int
    counters: dict[str, int]
    error_count: int
    errors: list[tuple[str, str, str]]
    results: object
    catalogue: list[tuple[object, ...]]


@dataclass(frozen=True)
class Bench:
    """A place to import into, and the server that follows."""

    server: ServerProcess
    session: str
    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("HEADWAY_")}
        return environment | {
            "HEADWAY_TARGET": self.server.address,
            "HEADWAY_SESSION": self.session,
            "PYTHONPATH": str(ROOT),
            "SERVER_PID": str(self.server.pid),
        }

    def command(self, program: str, catalogue: str, files: Sequence[Path], trap: Sequence[str] = ()) -> list[str]:
        start = [str(TRAP), *trap, "--", program] if trap else ["-m", program]
        return [sys.executable, *start, "--catalogue", str(self.folder / catalogue), *map(str, files)]

    def run(
        self, program: str, catalogue: str, files: Sequence[Path], trap: Sequence[str] = ()
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(program, catalogue, files, trap),
            cwd=ROOT,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def outcome(self, catalogue: str, table: str) -> Outcome:
        with closing(sqlite3.connect(self.folder / catalogue)) as database:
            rows = database.execute(f"SELECT * FROM {table} ORDER BY 1").fetchall()
            ((job_id, told),) = database.execute("SELECT job_id, told FROM import_run").fetchall()
            assert told
        with headway.connect(self.server.address, session=self.session) as client:
            job = client.get(None, job_id)
            listed = client.record_errors(None, job_id)
            assert listed.total == job.error_count
            return Outcome(
                status=job_pb2.JobStatus.Name(job.status),
                size=job.size,
                progress=job.progress,
                counters=dict(job.counters),
                error_count=job.error_count,
                errors=[(error.record, error.code, error.message) for error in (*listed.first, *listed.last)],
                results=client.results(None, job_id),
                catalogue=rows,
            )


@pytest.fixture
def bench(server: ServerProcess, session: str, tmp_path: Path) -> Bench:
    return Bench(server, session, tmp_path)


@pytest.fixture
def own_bench(own_server: ServerProcess, session: str, tmp_path: Path) -> Bench:
    return Bench(own_server, session, tmp_path)


@pytest.fixture(scope="session")
def marc_files(real_files: list[Path], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The 72 small records as they are, then again ten times with other control numbers, and a good many bad ones."""
    copies = multiply(real_files[:-1], 10, tmp_path_factory.mktemp("marc") / "copies.mrc")
    return [*real_files[:-1], copies]


def test_real_records(bench: Bench, marc_files: list[Path]) -> None:
    done = bench.run(MARC[0], "a.db", marc_files)
    assert (done.returncode, done.stderr) == (0, "")
    outcome = bench.outcome("a.db", MARC[1])
    assert (outcome.status, outcome.size, outcome.progress) == ("JOB_STATUS_COMPLETED", 11 * 72, 11 * 72)
    assert outcome.error_count == 11 * 10
    assert sum(outcome.counters.values()) == 11 * 62
    assert outcome.results == {**outcome.counters, "skipped": outcome.counters["skipped"], "failed": 110}
    assert len(outcome.catalogue) == outcome.counters["added"]
    assert ("bad_records.mrc, byte 381", "RECORD_DIRECTORY_INVALID", "Invalid directory") in outcome.errors
    again = bench.run(MARC[0], "a.db", marc_files)
    assert again.returncode == 0
    assert "added 0," in again.stdout


def test_the_sample_patrons(bench: Bench) -> None:
    done = bench.run("examples.patron_import", "p.db", [])
    assert (done.returncode, done.stderr) == (0, "")
    outcome = bench.outcome("p.db", "patron")
    assert outcome.counters == {"added": 9, "updated": 1, "skipped": 1}
    assert (outcome.status, outcome.error_count, len(outcome.catalogue)) == ("JOB_STATUS_COMPLETED", 7, 9)


POINTS = {
    "before the first batch is stored": ("examples.worker", "store", "1", "before"),
    "within the first transaction": ("examples.worker", "advance", "1", "after"),
    "within a later transaction": ("examples.worker", "advance", "5", "after"),
    "between commit and report": ("examples.tracker", "Tracker.tell", "4", "before"),
    "just after a report": ("examples.tracker", "Tracker.tell", "4", "after"),
    "before the end is told": ("headway", "Job.finish", "1", "before"),
    "after the end is told": ("headway", "Job.finish", "1", "after"),
    "before the job is known": ("examples.tracker", "Tracker._follow", "1", "before"),
}


@pytest.fixture(scope="session")
def undisturbed(server: ServerProcess, marc_files: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    bench = Bench(server, "undisturbed", tmp_path_factory.mktemp("undisturbed"))
    done = bench.run(MARC[0], "a.db", marc_files)
    assert (done.returncode, done.stderr) == (0, "")
    return bench.outcome("a.db", MARC[1])


@pytest.mark.parametrize("point", POINTS)
def test_killed_and_started_again(bench: Bench, marc_files: list[Path], undisturbed: Outcome, point: str) -> None:
    killed = bench.run(MARC[0], "a.db", marc_files, trap=["die", *POINTS[point]])
    assert killed.returncode == -9, killed.stderr
    again = bench.run(MARC[0], "a.db", marc_files)
    assert (again.returncode, again.stderr) == (0, "")
    assert bench.outcome("a.db", MARC[1]) == undisturbed


def test_killed_again_and_again(bench: Bench, marc_files: list[Path], undisturbed: Outcome) -> None:
    for function, when in (("advance", "after"), ("advance", "before"), ("import_files", "before")) * 2:
        trap = ["die", "examples.worker", function, "1" if function == "import_files" else "2", when]
        assert bench.run(MARC[0], "a.db", marc_files, trap=trap).returncode == -9
    done = bench.run(MARC[0], "a.db", marc_files)
    assert (done.returncode, done.stderr) == (0, "")
    assert bench.outcome("a.db", MARC[1]) == undisturbed
    with headway.connect(bench.server.address, session=bench.session) as client:
        (job,) = client.list()
        assert job.attempt == 7


def test_patrons_killed_and_started_again(bench: Bench) -> None:
    bench.run("examples.patron_import", "whole.db", [PATRONS])
    trap = ["die", "examples.tracker", "Tracker.tell", "1", "before"]
    assert bench.run("examples.patron_import", "killed.db", [PATRONS], trap=trap).returncode == -9
    assert bench.run("examples.patron_import", "killed.db", [PATRONS]).returncode == 0
    assert bench.outcome("killed.db", "patron") == bench.outcome("whole.db", "patron")


def test_without_a_server_all_is_imported_and_told_later(
    own_bench: Bench, marc_files: list[Path], undisturbed: Outcome
) -> None:
    own_bench.server.kill()
    alone = own_bench.run(MARC[0], "a.db", marc_files)
    assert alone.returncode == 0
    assert "the same command tells it" in alone.stderr
    own_bench.server.start()
    told = own_bench.run(MARC[0], "a.db", marc_files)
    assert (told.returncode, told.stderr) == (0, "")
    assert own_bench.outcome("a.db", MARC[1]) == undisturbed


def test_a_server_that_dies_midway(own_bench: Bench, marc_files: list[Path], undisturbed: Outcome) -> None:
    trap = ["server", "examples.worker", "advance", "4", "after"]
    command = own_bench.command(MARC[0], "a.db", marc_files, trap)
    worker = subprocess.Popen(
        command, cwd=ROOT, env=own_bench.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert worker.stdout is not None
    assert "the server is dead\n" in iter(worker.stdout.readline, "")
    own_bench.server.kill()
    own_bench.server.start()
    worker.communicate(timeout=60)
    assert worker.returncode == 0
    assert own_bench.outcome("a.db", MARC[1]) == undisturbed


def test_cancelled_and_started_again(bench: Bench, marc_files: list[Path], undisturbed: Outcome) -> None:
    cancelled = bench.run(MARC[0], "a.db", marc_files, ["cancel", "examples.tracker", "Tracker.tell", "3", "after"])
    assert (cancelled.returncode, cancelled.stderr) == (1, "Import MARC records: wrong file\n")
    with headway.connect(bench.server.address, session=bench.session) as client:
        (job,) = client.list()
        assert job.status == job_pb2.JOB_STATUS_CANCELLED
    done = bench.run(MARC[0], "a.db", marc_files)
    assert (done.returncode, done.stderr) == (0, "")
    assert bench.outcome("a.db", MARC[1]) == undisturbed


def test_files_that_cannot_be_imported(bench: Bench) -> None:
    for program, file in (("examples.patron_import", "README.md"), ("examples.marc_import", "missing.mrc")):
        done = bench.run(program, "a.db", [ROOT / file])
        assert done.returncode == 1
        assert done.stderr.count("\n") == 1


def test_two_processes_on_one_run(real_files: list[Path], tmp_path: Path) -> None:
    importer, files = MarcImport(), real_files[-2:-1]
    database = open_ledger(tmp_path / "a.db", BiblioRow)
    mine = new_run(source_of(files), 1)
    theirs = find_run(source_of(files))
    assert theirs is not None
    import_files(importer, files, theirs, database, lambda: None)
    rows = BiblioRow.select().count()
    with pytest.raises(TakenOverError):
        import_files(importer, files, mine, database, lambda: None)
    assert (BiblioRow.select().count(), Run.get().done, mine.done) == (rows, theirs.done, 0)
    database.close()


def test_a_batch_is_stored_with_its_counters_or_not_at_all(real_files: list[Path], tmp_path: Path) -> None:
    importer, files = MarcImport(), real_files[-1:]
    database = open_ledger(tmp_path / "a.db", BiblioRow)
    run = new_run(source_of(files), 40_000)
    told = 0

    def tell() -> None:
        nonlocal told
        told += 1
        assert run.done == BATCH * told == BiblioRow.select().count()
        if told == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_files(importer, files, run, database, tell)
    stored = find_run(source_of(files))
    assert stored is not None
    assert (stored.done, stored.offset, stored.added) == (run.done, run.offset, 3 * BATCH)
    first = islice(importer.read(files[0], 0), BATCH + 1)
    records = [record for _, record in first if not isinstance(record, Fault)]
    with database.atomic():
        assert store(BiblioRow, records) == {"skipped": BATCH + 1}
    with pytest.raises(TakenOverError), database.atomic():
        run.offset += 1
        advance(run, 0, run.offset, store(BiblioRow, []), [])
    database.close()
