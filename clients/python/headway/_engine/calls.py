"""The stub method for each request of a job."""

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


def job_id_of(request: object) -> str:
    """The id of the job that a request is about. "" if it names none."""
    if isinstance(request, rpc.UpdateJobRequest):
        return request.job.id
    return str(getattr(request, "job_id", ""))


def method(stub: "JobServiceStub", request: Request) -> "UnaryUnaryMultiCallable[Request, job_pb2.Job]":
    """Calling it with the request waits for the answer. Its `future` does not wait."""
    found: object = getattr(stub, request.DESCRIPTOR.name.removesuffix("Request"))
    return cast("UnaryUnaryMultiCallable[Request, job_pb2.Job]", found)
