"""Watchers see each newer state once and the last one always, whatever happens to their connections or to others."""

import copy
import itertools
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import grpc

from headway.v1 import job_pb2
from headway.v1 import job_service_pb2 as pb
from headway.v1.job_service_pb2_grpc import JobServiceStub
from tests.support.http2 import Connection, call_headers, prefixed
from tests.support.memory import resident
from tests.support.proxy import Proxy
from tests.support.server import ServerProcess
from tests.support.waiting import until

T = TypeVar("T")

SESSION = "watched"

WATCHERS_OF_ONE = 16
WATCHERS_OF_ALL = 4

IMPATIENT = [
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 200),
]
"""Reconnects at once: what is measured is the server, not gRPC's backoff."""

CAUGHT_UP_WITHIN = 5.0
"""Seconds in which a watcher sees the latest state once it can connect; less than one, but on a busy machine."""


@dataclass(slots=True)
class Seen:
    """What one watcher saw of one job: revisions in order, and the last status."""

    revisions: list[int] = field(default_factory=list)
    status: int = job_pb2.JOB_STATUS_UNSPECIFIED


def complaints(seen: Seen, final: job_pb2.Job) -> list[str]:
    """How what a watcher saw breaks the promise; empty if it does not."""
    found = []
    for before, after in itertools.pairwise(seen.revisions):
        if after == before:
            found.append(f"revision {after} twice")
        elif after < before:
            found.append(f"revision {after} behind {before}")
    if not seen.revisions or seen.revisions[-1] != final.revision:
        found.append(f"the final revision {final.revision} never came")
    elif seen.status != final.status:
        found.append(f"final status {seen.status}")
    return found


class Watcher:
    """Watches until it has seen the end of all jobs, and takes the watch up again whenever it breaks off."""

    def __init__(self, address: str, job_ids: Sequence[str], *, all_jobs: bool) -> None:
        self.seen = {job_id: Seen() for job_id in (job_ids if all_jobs else job_ids[:1])}
        self.interruptions: list[grpc.StatusCode] = []
        self._address = address
        self._all_jobs = all_jobs
        self._token = ""

    @property
    def ended(self) -> bool:
        return all(seen.status == job_pb2.JOB_STATUS_COMPLETED for seen in self.seen.values())

    def run(self) -> None:
        with grpc.insecure_channel(self._address, options=IMPATIENT) as channel:
            stub = JobServiceStub(channel)
            while not self.ended:
                try:
                    self._watch(stub)
                except grpc.RpcError as error:
                    self.interruptions.append(error.code())
                    # gRPC refuses calls at once while it waits to connect anew.
                    time.sleep(0.02)

    def _watch(self, stub: JobServiceStub) -> None:
        if self._all_jobs:
            call = stub.WatchJobs(pb.WatchJobsRequest(session_id=SESSION, resume_token=self._token), timeout=20)
            for reply in call:
                self._token = reply.resume_token
                self._see(reply.job)
                if self.ended:
                    call.cancel()
                    return
        (job_id,) = self.seen
        after = self.seen[job_id].revisions[-1:] or [0]
        request = pb.WatchJobRequest(session_id=SESSION, job_id=job_id, after_revision=after[0])
        for answer in stub.WatchJob(request, timeout=20):
            self._see(answer.job)

    def _see(self, job: job_pb2.Job) -> None:
        seen = self.seen[job.id]
        seen.revisions.append(job.revision)
        seen.status = job.status


@contextmanager
def stub_of(server: ServerProcess) -> Iterator[JobServiceStub]:
    with grpc.insecure_channel(server.address, options=IMPATIENT) as channel:
        yield JobServiceStub(channel)


def insist(call: Callable[[], T]) -> T:
    """The answer, once the server is back, or has time for a new connection."""
    for _ in range(200):
        try:
            return call()
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.UNAVAILABLE
            time.sleep(0.02)
    raise AssertionError("the server does not come back")


def test_watchers_survive_cut_connections_and_a_restart(own_server: ServerProcess) -> None:
    with (
        stub_of(own_server) as stub,
        Proxy(own_server.address) as proxy,
        ThreadPoolExecutor(WATCHERS_OF_ONE + WATCHERS_OF_ALL) as pool,
    ):
        job_ids = [
            insist(lambda: stub.CreateJob(pb.CreateJobRequest(session_id=SESSION), timeout=5)).id for _ in range(3)
        ]
        watchers = [Watcher(proxy.address, job_ids, all_jobs=False) for _ in range(WATCHERS_OF_ONE)]
        watchers += [Watcher(proxy.address, job_ids, all_jobs=True) for _ in range(WATCHERS_OF_ALL)]
        running = [pool.submit(watcher.run) for watcher in watchers]
        latest: dict[str, int] = {}

        def caught_up() -> bool:
            return all(
                seen.revisions and seen.revisions[-1] >= latest[job_id]
                for watcher in watchers
                for job_id, seen in watcher.seen.items()
            )

        for phase in range(6):
            for count in range(30):
                for job_id in job_ids:
                    request = pb.ReportProgressRequest(session_id=SESSION, job_id=job_id, progress=100 * phase + count)
                    report = partial(stub.ReportProgress, request, timeout=5)
                    latest[job_id] = insist(report).revision
                if count == 15:
                    # In the midst of the reports, with nobody having caught up.
                    proxy.cut()
            if phase == 3:
                own_server.restart()
            until(caught_up, CAUGHT_UP_WITHIN + (3 if phase == 3 else 0))
            # And while nothing happens: a watcher that comes back has seen everything.
            proxy.cut()
            until(lambda: proxy.connections == len(watchers), CAUGHT_UP_WITHIN)
        proxy.cut()
        final = {}
        for job_id in job_ids:
            finish = pb.FinishJobRequest(session_id=SESSION, job_id=job_id)
            final[job_id] = insist(partial(stub.FinishJob, finish, timeout=5))
        until(lambda: all(future.done() for future in running), CAUGHT_UP_WITHIN)
        for future in running:
            future.result()
    for watcher in watchers:
        for job_id, seen in watcher.seen.items():
            assert complaints(seen, final[job_id]) == []
        assert len(watcher.interruptions) >= 6, "the connections were not cut"
        assert set(watcher.interruptions) == {grpc.StatusCode.UNAVAILABLE}


def test_the_validator_sees_what_breaks_the_promise() -> None:
    final = job_pb2.Job(revision=5, status=job_pb2.JOB_STATUS_COMPLETED)
    good = Seen([1, 3, 5], job_pb2.JOB_STATUS_COMPLETED)
    assert complaints(good, final) == []
    for revisions in ([1, 3, 3, 5], [1, 4, 3, 5], [1, 3], [1, 3, 5, 5], []):
        bad = copy.deepcopy(good)
        bad.revisions = revisions
        assert complaints(bad, final), f"the validator overlooks {revisions}"
    assert complaints(Seen([1, 5], job_pb2.JOB_STATUS_RUNNING), final)


NEVER_READING = 20
REPORTS = 300


def reports_to_a_watched_job(server: ServerProcess, never_reading: int) -> tuple[float, Seen, list[Seen]]:
    """Report on a job with one healthy watcher, and others that do not read until it has ended.

    How long the reports and the healthy watcher took, what that one saw, and what the others find in the end.
    """
    large = "x" * 1000
    with stub_of(server) as stub, ExitStack() as stack:
        create = pb.CreateJobRequest(session_id=SESSION, name="x" * 256, labels={f"{n}": "x" * 200 for n in range(20)})
        job = stub.CreateJob(create, timeout=5)
        request = prefixed(pb.WatchJobRequest(session_id=SESSION, job_id=job.id).SerializeToString())
        deaf: list[tuple[Connection, int]] = []
        for _ in range(never_reading):
            connection = stack.enter_context(Connection(server.address))
            deaf.append((connection, connection.open(call_headers("/headway.v1.JobService/WatchJob"))))
            connection.write(deaf[-1][1], request)
        healthy = Watcher(server.address, [job.id], all_jobs=False)
        thread = threading.Thread(target=healthy.run)
        thread.start()
        until(lambda: bool(healthy.seen[job.id].revisions))
        begin = time.monotonic()
        for count in range(REPORTS):
            report = pb.ReportProgressRequest(session_id=SESSION, job_id=job.id, progress=count, message=large)
            stub.ReportProgress(report, timeout=5)
        final = stub.FinishJob(pb.FinishJobRequest(session_id=SESSION, job_id=job.id), timeout=5)
        thread.join(CAUGHT_UP_WITHIN)
        took = time.monotonic() - begin
        assert complaints(healthy.seen[job.id], final) == []
        late = []
        for connection, stream in deaf:
            answer = connection.answer(stream)
            assert answer.status == 0
            states = [pb.WatchJobResponse.FromString(message).job for message in answer.messages]
            late.append(Seen([state.revision for state in states], states[-1].status))
            assert complaints(late[-1], final) == []
        return took, healthy.seen[job.id], late


def test_watchers_that_never_read_slow_nobody_and_find_the_latest_state(own_server: ServerProcess) -> None:
    reports_to_a_watched_job(own_server, 0)
    alone, _, _ = reports_to_a_watched_job(own_server, 0)
    before = resident(own_server.pid)
    among_deaf, _, late = reports_to_a_watched_job(own_server, NEVER_READING)
    assert among_deaf < 3 * alone + 2
    assert resident(own_server.pid) - before < 40 * 1024 * 1024
    for seen in late:
        assert len(seen.revisions) < REPORTS // 2, "what was not read was kept, and not replaced by the latest state"
