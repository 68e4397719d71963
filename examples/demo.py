"""All that a worker can rely on, in under a minute: `make demo`.

Starts a server of its own on a free port with a temporary database, and `headway watch` in this terminal; what the
display tells of the job "make demo" is what happens just then. At the end, what came of it is checked: exit status 0
only if all of it is true. The first time it takes up to half a minute more to fetch the records; MARC files given as
arguments are imported instead.
"""

import gzip
import logging
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import dataclass
from hashlib import file_digest
from pathlib import Path
from tempfile import TemporaryDirectory

import headway
from examples.marc_import.data import NoDataError, fetch, generate
from examples.stage import PROCESS_TIMEOUT, Process, Stage
from headway.v1 import job_pb2

TIMES = 2
"""How often the files are imported in a row, so that there is something to see; most are there the second time."""
WORKER_KILLED_AT, SERVER_KILLED_AT = 0.2, 0.35
"""Shares of the records."""
MEASURED = 1.0
"""Seconds."""
REASON = "wrong letterhead"


@dataclass(frozen=True)
class Outcome:
    """What must be the same, disturbed or not."""

    status: str
    progress: int
    counters: dict[str, int]
    errors: list[tuple[str, str]]
    catalogue: list[tuple[object, ...]]


class Demo:
    """The scenes, and what they leave behind to be checked."""

    def __init__(self, stage: Stage, hw: headway.Client, files: list[Path]) -> None:
        self.stage = stage
        self.hw = hw
        self.files = files
        self.folder = stage.folder
        self.largest = max(files, key=lambda file: file.stat().st_size)
        # Seconds for people to read what happens; none where there are none.
        self.pause = 1.5 if sys.stdout.isatty() else 0.0
        self.truths: list[tuple[bool, str]] = []

    def run(self) -> bool:
        """Plays all scenes. Whether all came true."""
        with self.hw.job(name="make demo", size=6, unit="scenes") as self.narrator:
            display = self.stage.start("-m", "headway.cli", "watch", stdout=None)
            first, job = self._an_import_is_killed()
            second, other = self._the_server_is_killed(job)
            self._any_program_has_a_bar()
            self._so_has_a_pipe()
            self._a_cancel_reaches_the_code()
            self._tell("And now both imports to their end, to see whether they agree.")
            ended = first.wait(PROCESS_TIMEOUT) == second.wait(PROCESS_TIMEOUT) == 0
            one, two = self._outcome(job, "first.db"), self._outcome(other, "second.db")
            counts = ", ".join(f"{name} {count:,}" for name, count in sorted(one.counters.items()))
            self._expect(
                ended and one.status == "COMPLETED" and one == two,
                f"both imports agree: {counts}, {len(one.errors)} bad, {len(one.catalogue):,} rows",
            )
            self.narrator.advance()
            self.narrator.results = {"wrong": sum(not true for true, _ in self.truths)}
        # Until the end is displayed too.
        time.sleep(max(self.pause, 1.0))
        self._expect(display.poll() is None, "the display followed all of it")
        display.send_signal(signal.SIGINT)
        display.wait(PROCESS_TIMEOUT)
        print()
        for true, words in self.truths:
            print(f"{'✓' if true else '✗ NOT TRUE:'} {words}")
        return all(true for true, _ in self.truths)

    def _an_import_is_killed(self) -> tuple[Process, str]:
        self._tell(f"An import of MARC records. At {WORKER_KILLED_AT * 100:.0f} % its process gets kill -9.")
        worker, job = self._import("first.db")
        self._follow(job, WORKER_KILLED_AT)
        self.stage.kill(worker)
        self._tell("The import is killed. The same command takes it up where it stopped.")
        time.sleep(self.pause)
        worker, again = self._import("first.db")
        self._expect(again == job, "killed with SIGKILL, the same command took the same job up again")
        self._next()
        return worker, job

    def _the_server_is_killed(self, job: str) -> tuple[Process, str]:
        self._follow(job, SERVER_KILLED_AT)
        self._tell("Now the server gets kill -9. The import does not wait for it, nor slow down.")
        before = self._pace("first.db")
        self.stage.kill(self.stage.server)
        without = self._pace("first.db")
        self._expect(
            without > before / 2, f"without a server it went on: {without:,.0f} records/s; before: {before:,.0f}"
        )
        # A worker that starts now finds nobody, and works.
        worker, other = self._import("second.db")
        time.sleep(self.pause)
        self.stage.start_server()
        self._tell("The server is back. Another import began while it was unreachable: there it is.")
        self._expect(self._appears(other), "what began while there was no server appeared when that came back")
        time.sleep(self.pause)
        self._next()
        return worker, other

    def _any_program_has_a_bar(self) -> None:
        copy = self.folder / "copy"
        if shutil.which("rsync"):
            # No faster, so that there is something to see.
            command = ["rsync", "--info=progress2", "--bwlimit=10m", str(self.largest), str(copy)]
        else:
            command = ["dd", f"if={self.largest}", f"of={copy}", "bs=64k", "status=progress"]
        name = f"Copy with {command[0]}"
        self._tell(f"headway run: {command[0]}, which knows nothing of Headway, gets a bar too.")
        copying = self.stage.start("-m", "headway.cli", "run", "--name", name, "--", *command)
        copied = copying.wait(PROCESS_TIMEOUT) == 0 and _digest(copy) == _digest(self.largest)
        completed = self._named(name).status == job_pb2.JOB_STATUS_COMPLETED
        self._expect(copied and completed, f"{command[0]} copied all of it, and its job is COMPLETED")
        self._next()

    def _so_has_a_pipe(self) -> None:
        name, packed = "Pack with gzip", self.folder / "records.gz"
        self._tell("headway pipe: a meter between a file and gzip.")
        with self.largest.open("rb") as source, packed.open("wb") as target:
            piping = self.stage.start("-m", "headway.cli", "pipe", "--name", name, stdin=source)
            packing = self.stage.start_program("gzip", "-9", stdin=piping.stdout, stdout=target)
            well = packing.wait(PROCESS_TIMEOUT) == 0 and piping.wait(PROCESS_TIMEOUT) == 0
        with gzip.open(packed) as unpacked:
            size = sum(len(block) for block in iter(lambda: unpacked.read(1 << 20), b""))
        job = self._named(name)
        self._expect(
            well and size == job.progress == self.largest.stat().st_size,
            f"the pipe let {size:,} bytes through, and counted them",
        )
        self._next()

    def _a_cancel_reaches_the_code(self) -> None:
        self._tell("headway cancel: in the worker's own loop, that is an exception.")
        worker = self.stage.start("-m", "examples.cancellable")
        job = self.stage.first_line(worker).split()[1]
        self._follow(job, 0.02)
        time.sleep(self.pause)
        self.stage.start("-m", "headway.cli", "cancel", job, "--reason", REASON).wait(PROCESS_TIMEOUT)
        said = self.stage.first_line(worker)
        state = self.hw.get(None, job)
        self._expect(
            REASON in said and state.status == job_pb2.JOB_STATUS_CANCELLED, f"the cancelled worker {said.strip()}"
        )
        self._next()

    def _import(self, catalogue: str) -> tuple[Process, str]:
        paths = [str(file) for file in self.files * TIMES]
        worker = self.stage.start("-m", "examples.marc_import", "--catalogue", str(self.folder / catalogue), *paths)
        return worker, self.stage.first_line(worker).split()[1]

    def _follow(self, job_id: str, share: float) -> None:
        """Returns once the job has come so far."""
        for job in self.hw.watch(None, job_id, timeout=PROCESS_TIMEOUT):
            if job.HasField("end_time"):
                raise RuntimeError(f"{job.name!r} was over before it could be disturbed; give it more records")
            if job.progress >= job.size * share:
                return

    def _appears(self, job_id: str) -> bool:
        deadline = time.monotonic() + PROCESS_TIMEOUT
        while self.hw.fetch(None, job_id) is None:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.1)
        return True

    def _pace(self, catalogue: str) -> float:
        """Records a second that go into the catalogue now, by its own account; until the last if that comes first."""
        before = last = _records(self.folder / catalogue)
        began = ended = time.monotonic()
        while time.monotonic() < began + MEASURED:
            time.sleep(0.05)
            if (count := _records(self.folder / catalogue)) > last:
                last, ended = count, time.monotonic()
        return (last - before) / (ended - began) if last > before else 0.0

    def _named(self, name: str) -> job_pb2.Job:
        (job,) = self.hw.list(name=name)
        return job

    def _outcome(self, job_id: str, catalogue: str) -> Outcome:
        job = self.hw.get(None, job_id)
        errors = self.hw.record_errors(None, job_id)
        with closing(sqlite3.connect(self.folder / catalogue)) as database:
            rows = database.execute("SELECT * FROM biblio ORDER BY control_number").fetchall()
        return Outcome(
            status=job_pb2.JobStatus.Name(job.status).removeprefix("JOB_STATUS_"),
            progress=job.progress,
            counters=dict(job.counters),
            errors=[(error.record, error.code) for error in errors.first],
            catalogue=rows,
        )

    def _tell(self, words: str) -> None:
        self.narrator.message = words
        self.narrator.flush()

    def _next(self) -> None:
        self.narrator.advance()

    def _expect(self, true: bool, words: str) -> None:
        self.truths.append((true, words))


def _records(catalogue: Path) -> int:
    with closing(sqlite3.connect(catalogue)) as database:
        ((count,),) = database.execute("SELECT added + updated + skipped + failed FROM import_run").fetchall()
    return int(count)


def _digest(file: Path) -> bytes:
    with file.open("rb") as stream:
        return file_digest(stream, "sha256").digest()


def main() -> int:
    """Plays the demo; returns the exit status."""
    with TemporaryDirectory(prefix="headway-demo-") as name:
        folder = Path(name)
        files = [Path(argument) for argument in sys.argv[1:]]
        try:
            files = files or fetch()
        except NoDataError as error:
            print(f"{error}; invented records instead")
            files = [generate(folder / "invented.mrc", 150_000)]
        # The terminal is for the display.
        logging.basicConfig(filename=folder / "log")
        with Stage(folder) as stage, headway.connect(exit_timeout=3) as hw:
            return 0 if Demo(stage, hw, files).run() else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
    except (headway.HeadwayError, RuntimeError, TimeoutError, subprocess.TimeoutExpired) as error:
        sys.exit(f"demo: {error}")
