"""The worker of the jobs that the page shows."""

from collections.abc import Sequence
from typing import Any  # fields of requests, which protobuf's constructors check

import grpc
from google.rpc.error_details_pb2 import DebugInfo
from google.rpc.status_pb2 import Status

from headway.v1 import job_pb2
from headway.v1 import job_service_pb2 as pb
from headway.v1.job_service_pb2_grpc import JobServiceStub
from tests.support.caller import Json, value
from tests.support.server import ServerProcess

TIMEOUT = 20.0


class Worker:
    """Creates and reports jobs of one session; it waits for a server that is just being started again."""

    def __init__(self, server: ServerProcess, session: str) -> None:
        self.session = session
        self._channel = grpc.insecure_channel(server.address, [("grpc.max_reconnect_backoff_ms", 200)])
        self._stub = JobServiceStub(self._channel)

    def create(self, name: str = "", **fields: Any) -> str:
        request = pb.CreateJobRequest(session_id=self.session, name=name, **fields)
        return self._stub.CreateJob(request, timeout=TIMEOUT, wait_for_ready=True).id

    def report(self, job: str, **fields: Any) -> pb.ReportProgressResponse:
        request = pb.ReportProgressRequest(session_id=self.session, job_id=job, **fields)
        return self._stub.ReportProgress(request, timeout=TIMEOUT, wait_for_ready=True)

    def stream(self, reports: list[pb.ReportProgressRequest]) -> None:
        """Many reports in one request; returns once they are committed."""
        for _ in self._stub.StreamProgress(iter([pb.StreamProgressRequest(reports=reports)]), timeout=TIMEOUT):
            pass

    def get(self, job: str) -> job_pb2.Job:
        request = pb.GetJobRequest(session_id=self.session, job_id=job)
        return self._stub.GetJob(request, timeout=TIMEOUT, wait_for_ready=True)

    def finish(self, job: str, results: Json = None) -> None:
        request = pb.FinishJobRequest(session_id=self.session, job_id=job, results=value(results))
        self._stub.FinishJob(request, timeout=TIMEOUT, wait_for_ready=True)

    def fail(self, job: str, message: str, code: int = 2, trace: Sequence[str] = ()) -> None:
        error = Status(code=code, message=message)
        if trace:
            error.details.add().Pack(DebugInfo(stack_entries=trace))
        request = pb.FailJobRequest(session_id=self.session, job_id=job, error=error)
        self._stub.FailJob(request, timeout=TIMEOUT, wait_for_ready=True)

    def clear(self, job: str) -> None:
        request = pb.ClearJobRequest(session_id=self.session, job_id=job)
        self._stub.ClearJob(request, timeout=TIMEOUT, wait_for_ready=True)

    def close(self) -> None:
        self._channel.close()
