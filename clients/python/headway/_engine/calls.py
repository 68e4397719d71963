"""Which method takes which of a job's requests."""

from typing import TYPE_CHECKING, TypeAlias, cast

from headway.v1 import job_pb2
from headway.v1 import job_service_pb2 as rpc

if TYPE_CHECKING:
    from grpc import UnaryUnaryMultiCallable

    from headway.v1.job_service_pb2_grpc import JobServiceStub

Request: TypeAlias = (
    rpc.CreateJobRequest
    | rpc.StartJobRequest
    | rpc.UpdateJobRequest
    | rpc.FinishJobRequest
    | rpc.FailJobRequest
    | rpc.GetJobRequest
    | rpc.SetVariablesRequest
)


def method(stub: "JobServiceStub", request: Request) -> "UnaryUnaryMultiCallable[Request, job_pb2.Job]":
    """Called with the request it waits for the answer; its `future` does not."""
    found: object = getattr(stub, request.DESCRIPTOR.name.removesuffix("Request"))
    return cast("UnaryUnaryMultiCallable[Request, job_pb2.Job]", found)
