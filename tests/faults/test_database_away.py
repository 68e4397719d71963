"""The database stops, hangs, or is full: clear errors, nothing acknowledged lost, and it heals without a restart."""

import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import psycopg
import pytest
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub

from headway.v1 import job_pb2
from headway.v1 import job_service_pb2 as pb
from headway.v1.job_service_pb2_grpc import JobServiceStub
from tests.conftest import missing
from tests.support.app import RunningApp
from tests.support.mount import small_disk
from tests.support.postgres import Postgres, find_binaries
from tests.support.refusals import Refusal, from_error, refused
from tests.support.server import ServerProcess
from tests.support.waiting import until

SESSION = "away"

TOLD_WITHIN = 5.0
"""Seconds until health tells of a change, and at most for a call to be answered meanwhile."""


class OwnPostgres(Postgres):
    """A PostgreSQL that can be stopped, started again, and frozen."""

    @contextmanager
    def away(self) -> Iterator[None]:
        """Crashed, for as long as the block runs."""
        self.stop("immediate")
        try:
            yield
        finally:
            try:
                self.start()
            except RuntimeError as error:
                log = (self._folder / "log").read_text()
                raise RuntimeError(f"PostgreSQL does not start again: {log[-2000:]}") from error

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Deaf, for as long as the block runs: what is sent to it is taken, and not answered."""
        assert self._process is not None
        main = self._process.pid
        children = subprocess.run(["pgrep", "-P", str(main)], capture_output=True, text=True, check=True)
        pids = [main, *map(int, children.stdout.split())]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)


@pytest.fixture(scope="module")
def own_postgres() -> Iterator[OwnPostgres]:
    """A PostgreSQL that these tests stop and start; each leaves it running."""
    binaries = find_binaries()
    if binaries is None:
        missing("PostgreSQL (Debian: apt-get install postgresql)")
    assert binaries is not None
    with OwnPostgres(binaries) as running:
        yield running


@pytest.fixture
def server(own_postgres: OwnPostgres, tmp_path: Path) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path, database=own_postgres.database()) as running:
        yield running


@pytest.fixture
def channel(server: ServerProcess) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(server.address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        yield channel


@pytest.fixture
def stub(channel: grpc.Channel) -> JobServiceStub:
    return JobServiceStub(channel)


def new_job(stub: JobServiceStub) -> str:
    return stub.CreateJob(pb.CreateJobRequest(session_id=SESSION), timeout=5).id


def get(stub: JobServiceStub, job_id: str) -> job_pb2.Job:
    return stub.GetJob(pb.GetJobRequest(session_id=SESSION, job_id=job_id), timeout=20)


def serving(channel: grpc.Channel) -> bool:
    reply = HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=2)
    return bool(reply.status == health_pb2.HealthCheckResponse.SERVING)


@dataclass(slots=True)
class Load:
    """Calls without a pause, and what came of them."""

    answered: int = 0
    refusals: list[Refusal] = field(default_factory=list)
    slowest: float = 0


@contextmanager
def under_load(*calls: Callable[[], object]) -> Iterator[list[Load]]:
    """Each of the calls again and again, until the block is left. What fails is tried again at once."""
    over = threading.Event()

    def run(call: Callable[[], object], load: Load) -> None:
        while not over.is_set():
            begin = time.monotonic()
            try:
                call()
                load.answered += 1
            except grpc.RpcError as error:
                load.refusals.append(from_error(error))
                over.wait(0.02)
            load.slowest = max(load.slowest, time.monotonic() - begin)

    loads = [Load() for _ in calls]
    with ThreadPoolExecutor(len(calls)) as pool:
        running = [pool.submit(run, call, load) for call, load in zip(calls, loads, strict=True)]
        try:
            yield loads
        finally:
            over.set()
    for ended in running:
        ended.result()


def all_answered_again(loads: Sequence[Load]) -> None:
    """Wait until each of the loads has had a few answers from now on."""
    before = [load.answered for load in loads]
    until(lambda: all(load.answered > start + 3 for load, start in zip(loads, before, strict=True)))


class Reporter:
    """Advances a job by 1, time and again; what failed is repeated with its sequence."""

    def __init__(self, stub: JobServiceStub, job_id: str) -> None:
        self.job_id = job_id
        self.acknowledged = 0
        self._stub = stub

    def __call__(self) -> None:
        sequence = self.acknowledged + 1
        self._stub.ReportProgress(
            pb.ReportProgressRequest(session_id=SESSION, job_id=self.job_id, sequence=sequence, advance=1), timeout=20
        )
        self.acknowledged = sequence


def test_postgresql_stops_and_comes_back(
    own_postgres: OwnPostgres, server: ServerProcess, channel: grpc.Channel, stub: JobServiceStub
) -> None:
    report = Reporter(stub, new_job(stub))
    watch = stub.WatchJob(pb.WatchJobRequest(session_id=SESSION, job_id=new_job(stub)))
    watched = next(watch).job
    assert serving(channel)
    with under_load(report, lambda: get(stub, report.job_id), lambda: new_job(stub)) as loads:
        until(lambda: all(load.answered > 3 for load in loads))
        with own_postgres.away():
            until(lambda: all(load.refusals for load in loads), TOLD_WITHIN)
            until(lambda: not serving(channel), TOLD_WITHIN)
        until(lambda: serving(channel), TOLD_WITHIN)
        all_answered_again(loads)
    for load in loads:
        assert {(refusal.code, refusal.reason) for refusal in load.refusals} == {
            ("UNAVAILABLE", "DATABASE_UNAVAILABLE")
        }
        assert load.slowest < TOLD_WITHIN
    assert get(stub, report.job_id).progress in (report.acknowledged, report.acknowledged + 1)
    stub.FinishJob(pb.FinishJobRequest(session_id=SESSION, job_id=watched.id), timeout=5)
    assert [reply.job.status for reply in watch][-1] == job_pb2.JOB_STATUS_COMPLETED, "watches outlive it"
    assert "fault " not in server.log


def test_a_stream_of_reports_ends_when_postgresql_stops(own_postgres: OwnPostgres, stub: JobServiceStub) -> None:
    """It is not acknowledged, so the worker sends it again; nothing counts twice."""
    job_id = new_job(stub)
    again = threading.Event()

    def request(sequence: int) -> pb.StreamProgressRequest:
        report = pb.ReportProgressRequest(session_id=SESSION, job_id=job_id, sequence=sequence, advance=1)
        return pb.StreamProgressRequest(reports=[report])

    def requests() -> Iterator[pb.StreamProgressRequest]:
        yield request(1)
        again.wait(20)
        yield request(2)

    call = stub.StreamProgress(requests(), timeout=20)
    assert next(call).acked == 1
    with own_postgres.away():
        again.set()
        refusal = refused(lambda: next(call))
        assert (refusal.code, refusal.reason) == ("UNAVAILABLE", "DATABASE_UNAVAILABLE")
    assert [reply.acked for reply in stub.StreamProgress(iter([request(1), request(2)]), timeout=20)][-1] == 2
    assert get(stub, job_id).progress == 2


def test_connections_to_postgresql_are_cut_under_load(
    own_postgres: OwnPostgres, server: ServerProcess, stub: JobServiceStub
) -> None:
    """Each cut meets another moment of a commit. A report that was not acknowledged is repeated, and counts once."""
    reporters = [Reporter(stub, new_job(stub)) for _ in range(6)]
    with (
        under_load(*reporters, lambda: get(stub, reporters[0].job_id)) as loads,
        psycopg.connect(server.database, autocommit=True) as other,
    ):
        for _ in range(12):
            all_answered_again(loads)
            other.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE application_name LIKE 'headway %' AND pid <> pg_backend_pid() AND datname = current_database()"
            )
    for load in loads:
        assert {(refusal.code, refusal.reason) for refusal in load.refusals} <= {
            ("UNAVAILABLE", "DATABASE_UNAVAILABLE")
        }
    for reporter in reporters:
        reporter()
        assert get(stub, reporter.job_id).progress == reporter.acknowledged
    assert "fault " not in server.log


def test_postgresql_hangs_and_goes_on(own_postgres: OwnPostgres, channel: grpc.Channel, stub: JobServiceStub) -> None:
    """Nothing answers and nothing is closed. Health tells, and callers are not kept for ever."""
    report = Reporter(stub, new_job(stub))
    report()
    with own_postgres.frozen():
        until(lambda: not serving(channel), TOLD_WITHIN)
        refusal = refused(report)
        assert (refusal.code, refusal.reason) == ("UNAVAILABLE", "DATABASE_UNAVAILABLE")
    until(lambda: serving(channel), TOLD_WITHIN)
    report()
    assert get(stub, report.job_id).progress == report.acknowledged


LARGE = "x" * 100_000


def set_variable(stub: JobServiceStub, job_id: str, value: str) -> job_pb2.Job:
    request = pb.SetVariablesRequest(session_id=SESSION, job_id=job_id)
    request.variables["v"] = value
    return stub.SetVariables(request, timeout=20)


def fill_up(stub: JobServiceStub) -> tuple[list[str], Refusal]:
    """Create jobs with a large variable until that is refused: the jobs that have theirs, and the refusal."""
    full = []
    for _ in range(200):
        try:
            job_id = new_job(stub)
            set_variable(stub, job_id, LARGE)
            full.append(job_id)
        except grpc.RpcError as error:
            return full, from_error(error)
    raise AssertionError("the disk does not get full")


def assert_has(stub: JobServiceStub, job_ids: list[str]) -> None:
    for job_id in job_ids:
        reply = stub.GetVariables(pb.GetVariablesRequest(session_id=SESSION, job_id=job_id), timeout=5)
        assert reply.variables["v"] == LARGE


def test_the_disk_is_full_and_has_room_again(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "8m") as disk:
        database = f"sqlite:///{disk / 'headway.db'}"
        filler = disk / "filler"
        filler.write_bytes(bytes(5 * 1024 * 1024))
        with (
            ServerProcess(tmp_path, database=database) as server,
            grpc.insecure_channel(server.address) as channel,
        ):
            stub = JobServiceStub(channel)
            kept, refusal = fill_up(stub)
            for _ in range(3):
                assert (refusal.code, refusal.reason) == ("RESOURCE_EXHAUSTED", "STORAGE_FULL")
                assert refusal.retry_after
                refusal = refused(lambda: set_variable(stub, kept[0], "y" * 200_000))
            assert_has(stub, kept)
            assert stub.ListJobs(pb.ListJobsRequest(session_id=SESSION), timeout=5).jobs
            filler.unlink()
            more, refusal = fill_up(stub)
            assert len(more) > len(kept)
            assert refusal.reason == "STORAGE_FULL"
            server.kill()
            # It starts on a full disk too, or says why not; with room it serves all that it acknowledged.
            saved = tmp_path / "saved"
            shutil.copytree(disk, saved)
        with (
            ServerProcess(tmp_path, database=f"sqlite:///{saved / 'headway.db'}") as server,
            grpc.insecure_channel(server.address) as channel,
        ):
            assert_has(JobServiceStub(channel), kept + more)


def test_the_database_may_grow_no_more(tmp_path: Path) -> None:
    """The same without a disk of one's own: SQLite refuses pages beyond a number. A new connection may have more."""
    with RunningApp(f"sqlite:///{tmp_path / 'headway.db'}") as app:
        job_id = new_job(app.stub)
        database = app.app.store.database

        def no_more() -> None:
            ((pages,),) = database.execute_sql("PRAGMA page_count").fetchall()
            database.execute_sql(f"PRAGMA max_page_count = {pages + 2}")

        for _ in range(3):
            app.run(app.app.writer.run_task(no_more))
            refusal = refused(lambda: set_variable(app.stub, job_id, LARGE))
            assert (refusal.code, refusal.reason) == ("RESOURCE_EXHAUSTED", "STORAGE_FULL")
            assert refusal.retry_after
            assert get(app.stub, job_id).revision == 1
        set_variable(app.stub, job_id, LARGE)
        assert_has(app.stub, [job_id])
