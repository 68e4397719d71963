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

HEARTBEAT = 2.0

PAUSE = 2.6

REPORT_INTERVAL = 0.5

LATE = 1.5
"""Workers that once left so many seconds between two reports were held up themselves, and prove nothing."""

TRIES = 5


class Workers:
    """A worker for each job, which reports on time whether it is answered or not."""

    def __init__(self, stub: JobServiceStub) -> None:
        self._stub = stub
        request = pb.CreateJobRequest(session_id=SESSION, heartbeat_timeout=seconds(HEARTBEAT))
        self._jobs = [call.result().id for call in [stub.CreateJob.future(request, timeout=60) for _ in range(JOBS)]]
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._report)
        self.widest = 0.0
        """The longest time between two reports (s)."""

    def _report(self) -> None:
        latest = time.monotonic()
        calls = []
        while not self._ended.wait(REPORT_INTERVAL):
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
        for _ in range(TRIES):
            with Workers(JobServiceStub(channel)) as workers:
                time.sleep(2 * REPORT_INTERVAL)
                server.signal(signal.SIGSTOP)
                time.sleep(PAUSE)
                server.signal(signal.SIGCONT)
                # A sweep comes once a second, and a silence that was cut by the pause ends within a heartbeat.
                time.sleep(HEARTBEAT + 1)
            if workers.widest < LATE:
                assert workers.lost() == 0
                return
        pytest.skip("this machine is too busy to report twice in a heartbeat")
