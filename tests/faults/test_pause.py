"""A server that stood still for longer than a heartbeat: the reports that waited for it meanwhile count as contact."""

import signal
import threading
import time
from pathlib import Path

import grpc
import pytest

from headway.v1 import job_pb2
from headway.v1 import job_service_pb2 as pb
from headway.v1.job_service_pb2_grpc import JobServiceStub
from tests.conftest import ENGINES, empty_database
from tests.support.caller import seconds
from tests.support.server import ServerProcess

SESSION = "paused"

JOBS = 240

HEARTBEATS = (2.0, 4.0, 8.0, 16.0)
"""Seconds: the first is long enough, unless this machine is too busy to report several times in a heartbeat."""

PAUSE, REPORT_INTERVAL, LATE = 1.3, 0.25, 0.75
"""In heartbeats. Workers that once left more than LATE between two reports were held up themselves, and prove
nothing."""


class Workers:
    """A worker for each job, which reports on time whether it is answered or not."""

    def __init__(self, stub: JobServiceStub, heartbeat: float) -> None:
        self._stub = stub
        self._interval = REPORT_INTERVAL * heartbeat
        request = pb.CreateJobRequest(session_id=SESSION, heartbeat_timeout=seconds(heartbeat))
        self._jobs = [call.result().id for call in [stub.CreateJob.future(request, timeout=60) for _ in range(JOBS)]]
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._report)
        self.widest = 0.0
        """The longest time between two reports (s)."""

    def _report(self) -> None:
        latest = time.monotonic()
        calls = []
        while not self._ended.wait(self._interval):
            for job_id in self._jobs:
                report = pb.ReportProgressRequest(session_id=SESSION, job_id=job_id, advance=1)
                calls.append(self._stub.ReportProgress.future(report, timeout=60))
            self.widest, latest = max(self.widest, time.monotonic() - latest), time.monotonic()
        for call in calls:
            call.exception()

    def __enter__(self) -> "Workers":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def lost(self) -> int:
        """How many of the jobs were ever LOST."""
        jobs = [self._stub.GetJob(pb.GetJobRequest(session_id=SESSION, job_id=job)) for job in self._jobs]
        return sum(any(change.status == job_pb2.JOB_STATUS_LOST for change in job.history) for job in jobs)


@pytest.mark.parametrize("engine", ENGINES)
def test_no_job_is_lost_because_its_server_was_stopped(
    engine: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    database = empty_database(engine, request, tmp_path)
    with (
        ServerProcess(tmp_path, database=database) as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        for heartbeat in HEARTBEATS:
            with Workers(JobServiceStub(channel), heartbeat) as workers:
                time.sleep(2 * REPORT_INTERVAL * heartbeat)
                server.signal(signal.SIGSTOP)
                time.sleep(PAUSE * heartbeat)
                server.signal(signal.SIGCONT)
                # A sweep comes once a second, and a silence that was cut by the pause ends within a heartbeat.
                time.sleep(heartbeat + 1)
            if workers.widest < LATE * heartbeat:
                assert workers.lost() == 0
                return
        pytest.fail("this machine is too busy to report on time")
