"""A server that is asked to end sends its callers elsewhere, commits what it accepted, and leaves its files tidy."""

import queue
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import psycopg
import pytest
from google.protobuf import duration_pb2
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub

from headway.v1 import job_pb2
from headway.v1 import job_service_pb2 as pb
from headway.v1.job_service_pb2_grpc import JobServiceStub
from tests.support.http2 import Connection, call_headers
from tests.support.postgres import Postgres
from tests.support.refusals import from_error, refused
from tests.support.server import ServerProcess
from tests.support.waiting import until

SESSION = "shutdown"

SOON = 5.0
"""Seconds that an end may take if nobody holds it up: half of the grace period."""

SIGNALS = [pytest.param(signal.SIGTERM, id="SIGTERM"), pytest.param(signal.SIGINT, id="SIGINT")]


@pytest.fixture
def channel(own_server: ServerProcess) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(own_server.address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        yield channel


@pytest.fixture
def stub(channel: grpc.Channel) -> JobServiceStub:
    return JobServiceStub(channel)


@pytest.fixture
def job(stub: JobServiceStub) -> job_pb2.Job:
    return stub.CreateJob(pb.CreateJobRequest(session_id=SESSION), timeout=5)


def status_at_end(server: ServerProcess, within: float) -> int:
    """Wait for the server's end; its exit status."""
    until(lambda: not server.running, within)
    return server.stop()


def stored(server: ServerProcess, job_id: str) -> job_pb2.Job:
    """The job after a restart."""
    with grpc.insecure_channel(server.address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        return JobServiceStub(channel).GetJob(pb.GetJobRequest(session_id=SESSION, job_id=job_id), timeout=5)


@pytest.mark.parametrize("number", SIGNALS)
def test_an_idle_server_ends_at_once_and_leaves_its_files_tidy(
    own_server: ServerProcess, stub: JobServiceStub, job: job_pb2.Job, tmp_path: Path, number: signal.Signals
) -> None:
    for count in range(1, 50):
        stub.ReportProgress(pb.ReportProgressRequest(session_id=SESSION, job_id=job.id, progress=count), timeout=5)
    log = tmp_path / "headway.db-wal"
    assert log.stat().st_size > 0
    own_server.signal(number)
    assert status_at_end(own_server, SOON) == 0
    assert not log.exists() or log.stat().st_size == 0, "the write-ahead log was not taken into the database"
    assert own_server.log == ""
    own_server.start()
    assert stored(own_server, job.id).progress == 49


@pytest.mark.parametrize("number", SIGNALS)
def test_watchers_are_sent_elsewhere(
    own_server: ServerProcess, stub: JobServiceStub, job: job_pb2.Job, number: signal.Signals
) -> None:
    wait = duration_pb2.Duration(seconds=50)
    poll_request = pb.GetJobRequest(session_id=SESSION, job_id=job.id, after_revision=job.revision, wait=wait)
    poll = stub.GetJob.future(poll_request)
    one = stub.WatchJob(pb.WatchJobRequest(session_id=SESSION, job_id=job.id))
    every = stub.WatchJobs(pb.WatchJobsRequest(session_id=SESSION))
    assert next(one).job == next(every).job == job
    own_server.signal(number)
    for call in (lambda: next(one), lambda: next(every), poll.result):
        refusal = refused(call)
        assert (refusal.code, refusal.reason) == ("UNAVAILABLE", "SHUTTING_DOWN")
    assert status_at_end(own_server, SOON) == 0
    assert own_server.log == ""


@pytest.mark.parametrize("service", ["", "headway.v1.JobService"])
def test_health_tells_first(tmp_path: Path, service: str) -> None:
    """A load balancer that watches it learns in time, and does not hold the server up beyond the grace period."""
    with (
        ServerProcess(tmp_path, "--shutdown-grace", "2s") as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        watch = HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=service))
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        server.signal(signal.SIGTERM)
        assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
        assert status_at_end(server, 2 + SOON) == 0
        watch.cancel()
        assert server.log == ""


def report(job_id: str, sequence: int) -> pb.StreamProgressRequest:
    return pb.StreamProgressRequest(
        reports=[pb.ReportProgressRequest(session_id=SESSION, job_id=job_id, sequence=sequence, advance=1)]
    )


def test_an_open_stream_that_rests_is_ended(own_server: ServerProcess, stub: JobServiceStub, job: job_pb2.Job) -> None:
    outbox: queue.SimpleQueue[pb.StreamProgressRequest | None] = queue.SimpleQueue()
    call = stub.StreamProgress(iter(outbox.get, None))
    for sequence in range(1, 41):
        outbox.put(report(job.id, sequence))
    while next(call).acked < 40:
        """Acknowledgements are cumulative."""
    own_server.signal(signal.SIGTERM)
    refusal = refused(lambda: next(call))
    outbox.put(None)
    assert (refusal.code, refusal.reason) == ("UNAVAILABLE", "SHUTTING_DOWN")
    assert status_at_end(own_server, SOON) == 0
    own_server.start()
    assert stored(own_server, job.id).progress == 40


def test_a_stream_under_way_is_ended_behind_its_acknowledgements(
    own_server: ServerProcess, stub: JobServiceStub, job: job_pb2.Job
) -> None:
    """Whatever was acknowledged is there after the restart; what was sent again by its sequence counts once."""
    ended = threading.Event()
    sent = 0

    def requests() -> Iterator[pb.StreamProgressRequest]:
        nonlocal sent
        while not ended.is_set() and sent < 100_000:
            sent += 1
            yield report(job.id, sent)

    call = stub.StreamProgress(requests())
    acked = next(call).acked
    own_server.signal(signal.SIGTERM)
    with pytest.raises(grpc.RpcError) as caught:
        for response in call:
            assert not response.failures
            acked = response.acked
    ended.set()
    refusal = from_error(caught.value)
    assert (refusal.code, refusal.reason) == ("UNAVAILABLE", "SHUTTING_DOWN")
    assert status_at_end(own_server, SOON) == 0
    assert own_server.log == ""
    own_server.start()
    assert acked <= stored(own_server, job.id).progress <= sent
    last = stored(own_server, job.id).progress + 1
    with grpc.insecure_channel(own_server.address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        again = [report(job.id, sequence) for sequence in range(acked + 1, last + 1)]
        assert [r.acked for r in JobServiceStub(channel).StreamProgress(iter(again), timeout=20)][-1] == len(again)
    assert stored(own_server, job.id).progress == last


def test_calls_under_way_are_answered_and_later_ones_sent_elsewhere(own_server: ServerProcess) -> None:
    """Nobody sees anything but OK and UNAVAILABLE, and every OK is there after the restart."""
    started = threading.Barrier(9, timeout=20)

    def work() -> tuple[str, int, grpc.StatusCode]:
        with grpc.insecure_channel(own_server.address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
            stub = JobServiceStub(channel)
            job_id = stub.CreateJob(pb.CreateJobRequest(session_id=SESSION), timeout=5).id
            progress = 0
            started.wait()
            try:
                while True:
                    request = pb.ReportProgressRequest(session_id=SESSION, job_id=job_id, progress=progress + 1)
                    progress = stub.ReportProgress(request, timeout=20).progress
            except grpc.RpcError as error:
                return job_id, progress, error.code()

    with ThreadPoolExecutor(8) as pool:
        workers = [pool.submit(work) for _ in range(8)]
        started.wait()
        own_server.signal(signal.SIGTERM)
        assert status_at_end(own_server, SOON) == 0
    assert {worker.result()[2] for worker in workers} == {grpc.StatusCode.UNAVAILABLE}
    assert own_server.log == ""
    own_server.start()
    for worker in workers:
        job_id, progress, _ = worker.result()
        assert progress <= stored(own_server, job_id).progress <= progress + 1


@pytest.mark.parametrize("number", SIGNALS)
def test_a_second_signal_does_not_wait(postgresql: Postgres, tmp_path: Path, number: signal.Signals) -> None:
    """For a call, for example, that waits for a lock in the database, which the end would otherwise wait for."""
    url = postgresql.database()
    with (
        ServerProcess(tmp_path, database=url) as server,
        grpc.insecure_channel(server.address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel,
        psycopg.connect(url) as holder,
        psycopg.connect(url, autocommit=True) as onlooker,
    ):
        stub = JobServiceStub(channel)
        job = stub.CreateJob(pb.CreateJobRequest(session_id=SESSION), timeout=5)
        watch = stub.WatchJob(pb.WatchJobRequest(session_id=SESSION, job_id=job.id))
        next(watch)
        holder.execute("SELECT 1 FROM job FOR UPDATE")
        stuck = stub.ReportProgress.future(pb.ReportProgressRequest(session_id=SESSION, job_id=job.id, progress=1))
        waiting = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        until(lambda: onlooker.execute(waiting).fetchone() is not None)
        server.signal(number)
        assert refused(lambda: next(watch)).reason == "SHUTTING_DOWN"
        assert server.running
        server.signal(number)
        assert status_at_end(server, 2) != 0
        assert stuck.code() == grpc.StatusCode.UNAVAILABLE, "its outcome is not known"
        assert "Traceback" not in server.log


def test_a_call_that_never_comes_to_an_end_holds_up_no_longer_than_the_grace_period(tmp_path: Path) -> None:
    with ServerProcess(tmp_path, "--shutdown-grace", "1s") as server, Connection(server.address) as connection:
        connection.open(call_headers("/headway.v1.JobService/CreateJob"))
        assert connection.call(call_headers("/nowhere/nothing"), b"").status is not None
        server.signal(signal.SIGTERM)
        assert status_at_end(server, 1 + SOON) == 0
        assert server.log == ""
