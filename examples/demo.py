"""An import of real MARC records, followed in this terminal, killed halfway and taken up again: `make demo`.

Starts a server of its own on a free port with a temporary database. Exit status 0 only if the killed import ended
COMPLETED, with the same counts, the same bad records and the same catalogue as one that nobody disturbed. Takes about
20 s, and the first time as long again to fetch the records; MARC files given as arguments are imported instead.
"""

import os
import sqlite3
import subprocess
import sys
import time
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from tempfile import TemporaryDirectory

import grpc

from examples.marc_import.data import NoDataError, fetch, generate
from headway.channel import Target, open_channel
from headway.v1 import job_pb2
from headway.v1 import job_service_pb2 as pb
from headway.v1.job_service_pb2_grpc import JobServiceStub

KILLED_AT = 0.4
"""Share of the records."""
PAUSE = 1.5
"""Seconds to look at a bar that stands still."""

Process = subprocess.Popen[str]


@dataclass(frozen=True)
class Outcome:
    """What must be the same, disturbed or not."""

    status: str
    progress: int
    counters: dict[str, int]
    errors: list[tuple[str, str]]
    catalogue: list[tuple[object, ...]]


def main() -> int:
    """Runs the demo; returns the exit status."""
    with TemporaryDirectory(prefix="headway-demo-") as name, ExitStack() as stack:
        try:
            return Demo(Path(name), stack).run([Path(argument) for argument in sys.argv[1:]])
        except KeyboardInterrupt:
            return 130


class Demo:
    """A server, a session, and the processes that this script started."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder = folder
        self.session = token_hex(8)
        self._stack = stack

    def run(self, files: list[Path]) -> int:
        """The whole demo; returns the exit status."""
        say("Records to import")
        try:
            files = files or fetch()
        except NoDataError as error:
            print(f"{error}; invented ones instead")
            files = [generate(self.folder / "invented.mrc", 40_000)]
        print(f"{len(files)} file{'s' if len(files) > 1 else ''} in {files[0].parent}")

        say("A server")
        database = f"sqlite:///{self.folder / 'headway.db'}"
        server = self._start("-m", "headway_server", "--listen", "127.0.0.1:0", "--database", database)
        address = first_line(server).split()[3]
        os.environ.update(HEADWAY_TARGET=address, HEADWAY_SESSION=self.session)
        print(f"serving on {address}")
        stub = JobServiceStub(self._stack.enter_context(open_channel(Target.from_environment())))

        say(f"An import, killed with SIGKILL at {KILLED_AT:.0%}, then started again with the same command")
        worker, job = self._import(files, "killed.db")
        watcher = self._watch(job)
        self._wait_for(stub, job, KILLED_AT)
        worker.kill()
        worker.wait()
        stub.ReportProgress(
            pb.ReportProgressRequest(
                session_id=self.session, job_id=job, message="killed with SIGKILL; nobody is working on this now"
            )
        )
        time.sleep(PAUSE)
        worker, again = self._import(files, "killed.db")
        taken_over = watcher.wait() == 0 and worker.wait() == 0 and again == job
        killed = self._outcome(stub, job, "killed.db")

        say("The same import, undisturbed")
        worker, job = self._import(files, "undisturbed.db")
        finished = self._watch(job).wait() == 0 and worker.wait() == 0
        undisturbed = self._outcome(stub, job, "undisturbed.db")

        say("Compared")
        for title, outcome in (("killed", killed), ("undisturbed", undisturbed)):
            counts = ", ".join(f"{name} {count:,}" for name, count in sorted(outcome.counters.items()))
            print(
                f"{title:12} {outcome.status}: {counts}; {len(outcome.errors)} errors, {len(outcome.catalogue):,} rows"
            )
        if taken_over and finished and killed == undisturbed and killed.status == "COMPLETED":
            print("The same counts, the same bad records, the same catalogue.")
            return 0
        print("They differ.", file=sys.stderr)
        return 1

    def _import(self, files: list[Path], catalogue: str) -> tuple[Process, str]:
        paths = [str(file) for file in files]
        worker = self._start("-m", "examples.marc_import", "--catalogue", str(self.folder / catalogue), *paths)
        return worker, first_line(worker).split()[1]

    def _watch(self, job: str) -> Process:
        return self._start("-m", "headway.cli", "watch", job, shown=True)

    def _start(self, *arguments: str, shown: bool = False) -> Process:
        process = subprocess.Popen([sys.executable, *arguments], stdout=None if shown else subprocess.PIPE, text=True)
        self._stack.callback(end, process)
        return process

    def _wait_for(self, stub: JobServiceStub, job: str, share: float) -> None:
        for reply in stub.WatchJob(pb.WatchJobRequest(session_id=self.session, job_id=job)):
            if reply.job.HasField("end_time"):
                raise RuntimeError("the import was over before it could be killed; give it more records")
            if reply.job.progress >= reply.job.size * share:
                return

    def _outcome(self, stub: JobServiceStub, job_id: str, catalogue: str) -> Outcome:
        job = stub.GetJob(pb.GetJobRequest(session_id=self.session, job_id=job_id))
        errors = stub.ListRecordErrors(pb.ListRecordErrorsRequest(session_id=self.session, job_id=job_id))
        with closing(sqlite3.connect(self.folder / catalogue)) as database:
            rows = database.execute("SELECT * FROM biblio ORDER BY control_number").fetchall()
        return Outcome(
            status=job_pb2.JobStatus.Name(job.status).removeprefix("JOB_STATUS_"),
            progress=job.progress,
            counters=dict(job.counters),
            errors=[(error.record, error.code) for error in errors.first],
            catalogue=rows,
        )


def first_line(process: Process) -> str:
    """The first line that the process prints. Raises RuntimeError if it ends without one."""
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise RuntimeError(f"{process.args!r} ended with status {process.wait()}")
    return line


def end(process: Process) -> None:
    """Ends a process that may have ended."""
    process.terminate()
    process.wait()
    if process.stdout is not None:
        process.stdout.close()


def say(words: str) -> None:
    print(f"\n== {words}", flush=True)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (grpc.RpcError, RuntimeError) as error:
        sys.exit(f"demo: {error}")
