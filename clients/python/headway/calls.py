"""Which method takes which of a job's requests."""

from typing import TYPE_CHECKING, TypeAlias

from headway.v1 import job_pb2
from headway.v1 import job_service_pb2 as rpc

if TYPE_CHECKING:
    from grpc import _CallFuture

    from headway.v1.job_service_pb2_grpc import JobServiceStub

Request: TypeAlias = (
    rpc.CreateJobRequest | rpc.StartJobRequest | rpc.UpdateJobRequest | rpc.FinishJobRequest | rpc.FailJobRequest
)


def place(stub: "JobServiceStub", request: Request, timeout: float) -> "_CallFuture[job_pb2.Job]":
    """Begins the call; its answer has `timeout` seconds."""
    match request:
        case rpc.CreateJobRequest():
            return stub.CreateJob.future(request, timeout=timeout)
        case rpc.StartJobRequest():
            return stub.StartJob.future(request, timeout=timeout)
        case rpc.UpdateJobRequest():
            return stub.UpdateJob.future(request, timeout=timeout)
        case rpc.FinishJobRequest():
            return stub.FinishJob.future(request, timeout=timeout)
        case rpc.FailJobRequest():
            return stub.FailJob.future(request, timeout=timeout)
