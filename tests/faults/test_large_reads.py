"""Large lists and watches beside small calls: the others are served, time is kept, and memory stays bounded."""

import http.client
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import grpc
import pytest
from google.longrunning import operations_proto_pb2 as pb2
from google.protobuf import struct_pb2

from headway.v1 import job_pb2
from headway.v1 import job_service_pb2 as pb
from headway.v1.job_service_pb2_grpc import JobServiceStub
from headway_server.domain.job import Job, Status
from tests.conftest import ENGINES, empty_database
from tests.support.caller import seconds
from tests.support.memory import cpu_seconds, resident
from tests.support.refusals import from_error
from tests.support.rows import SESSION_KEY, multiply, opened, session_hash
from tests.support.server import ServerProcess

BEGAN = 1_700_000_000_000_000

LARGE = "a session with large reads"

MEGABYTE = 1024 * 1024


def thin() -> Job:
    job = Job(session_hash(LARGE), "f" * 32, name="thin", status=Status.RUNNING, create_time=BEGAN, update_time=BEGAN)
    job.revision, job.wake_time = 1, 2**62
    return job


def fat() -> Job:
    """About as large as a job may be."""
    job = thin()
    job.parts = {f"{number:0128}": 10**15 for number in range(256)}
    job.sequences = dict(job.parts)
    job.labels = {f"{number:063}": "x" * 256 for number in range(64)}
    job.counters = {f"{number:0128}": 10**15 for number in range(64)}
    return job


class Others:
    """A session beside: a worker that has gone silent, a job to be cancelled by its deadline, and a reader."""

    def __init__(self, server: ServerProcess, stub: JobServiceStub) -> None:
        self._server = server
        self._stub = stub
        self.most = resident(server.pid)

    def live_on(self) -> None:
        """All that has to happen happens in time, and every poll finds the server ready."""
        silent = self._stub.CreateJob(pb.CreateJobRequest(session_id="other", heartbeat_timeout=seconds(1)))
        wished = self._stub.CreateJob(pb.CreateJobRequest(session_id="other"))
        self._stub.CancelJob(pb.CancelJobRequest(session_id="other", job_id=wished.id, grace_period=seconds(1)))
        waited = {silent.id: job_pb2.JOB_STATUS_LOST, wished.id: job_pb2.JOB_STATUS_CANCELLED}
        # Deadline, sweep, and a machine with other things to do.
        end = time.monotonic() + 15
        while waited:
            assert time.monotonic() < end, "time is not kept"
            for job_id, status in list(waited.items()):
                job = self._stub.GetJob(pb.GetJobRequest(session_id="other", job_id=job_id), timeout=10)
                if job.status == status:
                    del waited[job_id]
            with closing(http.client.HTTPConnection(self._server.http_address, timeout=10)) as health:
                health.request("GET", "/readyz")
                assert health.getresponse().status == 200
            self.most = max(self.most, resident(self._server.pid))
            time.sleep(0.05)


@contextmanager
def serving(database: str, folder: Path) -> Iterator[tuple[ServerProcess, JobServiceStub]]:
    with ServerProcess(folder, "--session-key", SESSION_KEY, database=database) as server:
        options = [("grpc.max_receive_message_length", -1)]
        with grpc.insecure_channel(server.address, options) as channel:
            yield server, JobServiceStub(channel)


@contextmanager
def repeated(works: Sequence[Callable[[threading.Event], None]]) -> Iterator[None]:
    """Run the works beside, each in a thread, until they are told to end."""
    ended = threading.Event()
    failures: list[Exception] = []

    def run(work: Callable[[threading.Event], None]) -> None:
        try:
            work(ended)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        for thread in threads:
            thread.join(timeout=30)
    assert not failures


def test_lists_of_large_jobs_hold_up_nobody(tmp_path: Path) -> None:
    database = f"sqlite:///{tmp_path / 'headway.db'}"
    with opened(database) as store:
        multiply(store, fat(), 500)
    with serving(database, tmp_path) as (server, stub):
        others = Others(server, stub)
        before = others.most

        def read(ended: threading.Event) -> None:
            while not ended.is_set():
                page = stub.ListJobs(pb.ListJobsRequest(session_id=LARGE, page_size=1000), timeout=60)
                assert page.jobs
                assert page.next_page_token

        with repeated([read] * 8):
            others.live_on()
        assert others.most - before < 350 * MEGABYTE


def test_watches_that_open_a_large_session_hold_up_nobody(tmp_path: Path) -> None:
    database = f"sqlite:///{tmp_path / 'headway.db'}"
    with opened(database) as store:
        multiply(store, thin(), 9_900)
    with serving(database, tmp_path) as (server, stub):
        others = Others(server, stub)
        before = others.most

        def read(ended: threading.Event) -> None:
            watch = stub.WatchJobs(pb.WatchJobsRequest(session_id=LARGE))
            for response in watch:
                assert response.job.id
                if ended.is_set():
                    watch.cancel()
                    return

        with repeated([read] * 60):
            others.live_on()
        assert others.most - before < 150 * MEGABYTE


def test_results_that_many_wait_for_take_little_memory(tmp_path: Path) -> None:
    """All of them wake at once, and the answer to one takes some megabytes while it is made."""
    job_id = "0" * 32
    request = pb2.WaitOperationRequest(name=f"sessions/waited/operations/{job_id}")
    # Of a text with one such character each takes four bytes.
    values = [struct_pb2.Value(string_value=text) for text in ["\U0001f600", *["a" * 7] * 99_000]]
    results = struct_pb2.Value(list_value=struct_pb2.ListValue(values=values))
    with serving("", tmp_path) as (server, stub), ThreadPoolExecutor(1) as pool:
        stub.CreateJob(pb.CreateJobRequest(session_id="waited", job_id=job_id))
        options = (("grpc.max_receive_message_length", -1), ("grpc.use_local_subchannel_pool", 1))
        with grpc.insecure_channel(server.address, options) as channel:
            wait: grpc.UnaryUnaryMultiCallable[pb2.WaitOperationRequest, pb2.Operation] = channel.unary_unary(
                "/google.longrunning.Operations/WaitOperation",
                pb2.WaitOperationRequest.SerializeToString,
                pb2.Operation.FromString,
            )
            calls = [wait.future(request, timeout=60) for _ in range(80)]
            # Calls of one connection arrive in their order.
            wait(pb2.WaitOperationRequest(name=request.name, timeout=seconds(0)), timeout=60)
            before = most = resident(server.pid)
            stub.FinishJob(pb.FinishJobRequest(session_id="waited", job_id=job_id, results=results), timeout=60)
            answers = pool.submit(lambda: [call.exception() or call.result() for call in calls])
            while not answers.done():
                most = max(most, resident(server.pid))
                time.sleep(0.01)
        for answer in answers.result():
            if isinstance(answer, grpc.RpcError):
                assert from_error(answer).reason == "MEMORY_LIMIT"
            else:
                assert isinstance(answer, pb2.Operation)
                assert len(answer.response.value) > 800_000
        assert most - before < 200 * MEGABYTE


@pytest.mark.parametrize("engine", ENGINES)
def test_an_admin_looks_at_300_000_jobs(engine: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """The first jobs come at once, newest first; no list or watch of them takes much memory, whatever it looks for."""
    database = empty_database(engine, request, tmp_path)
    with opened(database) as store:
        multiply(store, thin(), 300_000, sessions=30)
    with serving(database, tmp_path) as (server, stub):
        metadata = (("authorization", f"Bearer {server.token}"),)
        before = most = resident(server.pid)
        began, computed = time.monotonic(), cpu_seconds(server.pid)
        watch = stub.WatchJobs(pb.WatchJobsRequest(session_id="-"), metadata=metadata)
        newest = next(watch).job
        # A second is the aim, where nothing else runs.
        assert cpu_seconds(server.pid) - computed < 1
        assert time.monotonic() - began < 5
        assert newest.id == f"{300_000:032x}"
        for number in range(1, 1000):
            assert next(watch).job.id == f"{300_000 - number:032x}"
        token = ""
        pages = 0
        while pages == 0 or token:
            wanted = pb.ListJobsRequest(session_id="-", labels={"absent": "x"}, page_token=token)
            page = stub.ListJobs(wanted, metadata=metadata, timeout=10)
            assert not page.jobs
            token = page.next_page_token
            pages += 1
            most = max(most, resident(server.pid))
        resumed = stub.WatchJobs(
            pb.WatchJobsRequest(session_id="-", resume_token=next(watch).resume_token), metadata=metadata
        )
        assert next(resumed).job.id == f"{300_000 - 1001:032x}"
        most = max(most, resident(server.pid))
        assert most - before < 50 * MEGABYTE
