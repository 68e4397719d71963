"""A caller with one session: every RPC by a short name, over the real socket."""

import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta
from typing import Any, Protocol, TypeVar  # Any: fields of requests, which protobuf's constructors check

import grpc
from google.protobuf import duration_pb2, json_format, struct_pb2
from google.rpc import status_pb2

from headway.v1 import job_pb2
from headway.v1 import job_service_pb2 as pb
from tests.support.app import RunningApp

TIMEOUT = 20.0
"""Seconds after which a call that hangs fails its test."""

T_co = TypeVar("T_co", covariant=True)


class Responses(Protocol[T_co]):
    """What a call gives that streams its responses."""

    def __iter__(self) -> Iterator[T_co]: ...
    def __next__(self) -> T_co: ...
    def cancel(self) -> bool: ...
    def code(self) -> grpc.StatusCode: ...
    def details(self) -> str: ...
    def initial_metadata(self) -> Iterable[tuple[str, str | bytes]]: ...
    def trailing_metadata(self) -> Iterable[tuple[str, str | bytes]]: ...


Json = None | bool | int | float | str | list[Any] | dict[str, Any]


def seconds(length: float) -> duration_pb2.Duration:
    """A Duration."""
    duration = duration_pb2.Duration()
    duration.FromTimedelta(timedelta(seconds=length))
    return duration


def value(plain: Json) -> struct_pb2.Value:
    """Plain JSON as protobuf."""
    return json_format.Parse(json.dumps(plain), struct_pb2.Value())


def struct(plain: Mapping[str, Json]) -> struct_pb2.Struct:
    """A plain JSON object as protobuf."""
    return struct_pb2.Struct(fields={name: value(item) for name, item in plain.items()})


def plain(message: struct_pb2.Value | struct_pb2.Struct) -> Any:
    """Protobuf as plain JSON; numbers are floats, as they are on the wire."""
    if isinstance(message, struct_pb2.Struct):
        return {name: plain(item) for name, item in message.fields.items()}
    match message.WhichOneof("kind"):
        case "null_value":
            return None
        case "list_value":
            return [plain(item) for item in message.list_value.values]
        case "struct_value":
            return plain(message.struct_value)
        case str(kind):
            return getattr(message, kind)
    raise AssertionError("a value of no kind")


class Caller:
    """Calls in one session; `metadata` goes with every call."""

    def __init__(self, app: RunningApp, session: str, metadata: tuple[tuple[str, str], ...] = ()) -> None:
        self.app = app
        self.session = session
        self.metadata = metadata
        self._stub = app.stub

    def _options(self, timeout: float = TIMEOUT) -> Any:
        return {"timeout": timeout, "metadata": self.metadata or None}

    def create(self, **fields: Any) -> job_pb2.Job:
        return self._stub.CreateJob(pb.CreateJobRequest(session_id=self.session, **fields), **self._options())

    def create_many(self, count: int, **fields: Any) -> list[str]:
        """Ids of so many new jobs, made some at once."""
        request = pb.CreateJobRequest(session_id=self.session, **fields)
        ids: list[str] = []
        while len(ids) < count:
            some = min(200, count - len(ids))
            calls = [self._stub.CreateJob.future(request, **self._options()) for _ in range(some)]
            ids += [call.result().id for call in calls]
        return ids

    def start(self, job_id: str, **fields: Any) -> job_pb2.Job:
        request = pb.StartJobRequest(session_id=self.session, job_id=job_id, **fields)
        return self._stub.StartJob(request, **self._options())

    def get(self, job_id: str, **fields: Any) -> job_pb2.Job:
        request = pb.GetJobRequest(session_id=self.session, job_id=job_id, **fields)
        return self._stub.GetJob(request, **self._options())

    def list(self, **fields: Any) -> pb.ListJobsResponse:
        return self._stub.ListJobs(pb.ListJobsRequest(session_id=self.session, **fields), **self._options())

    def list_some(self, **fields: Any) -> pb.ListJobsResponse:
        """The first page that has jobs, or the last: on a slow machine the time of a page can end before the first job
        is found."""
        page = self.list(**fields)
        while not page.jobs and page.next_page_token:
            page = self.list(**{**fields, "page_token": page.next_page_token})
        return page

    def update(self, job: job_pb2.Job, mask: Iterable[str] = (), revision: int = 0) -> job_pb2.Job:
        request = pb.UpdateJobRequest(session_id=self.session, job=job, revision=revision)
        request.update_mask.paths.extend(mask)
        return self._stub.UpdateJob(request, **self._options())

    def report(self, job_id: str, **fields: Any) -> pb.ReportProgressResponse:
        request = pb.ReportProgressRequest(session_id=self.session, job_id=job_id, **fields)
        return self._stub.ReportProgress(request, **self._options())

    def finish(self, job_id: str, results: struct_pb2.Value | None = None, attempt: int = 0) -> job_pb2.Job:
        request = pb.FinishJobRequest(session_id=self.session, job_id=job_id, results=results, attempt=attempt)
        return self._stub.FinishJob(request, **self._options())

    def fail(self, job_id: str, code: int = 13, message: str = "", attempt: int = 0) -> job_pb2.Job:
        error = status_pb2.Status(code=code, message=message)
        request = pb.FailJobRequest(session_id=self.session, job_id=job_id, error=error, attempt=attempt)
        return self._stub.FailJob(request, **self._options())

    def cancel(self, job_id: str, reason: str = "", grace: float | None = None) -> job_pb2.Job:
        request = pb.CancelJobRequest(session_id=self.session, job_id=job_id, reason=reason)
        if grace is not None:
            request.grace_period.CopyFrom(seconds(grace))
        return self._stub.CancelJob(request, **self._options())

    def set(self, job_id: str, variables: Mapping[str, Json] | None = None, remove: Iterable[str] = ()) -> job_pb2.Job:
        request = pb.SetVariablesRequest(
            session_id=self.session, job_id=job_id, variables=struct(variables or {}), remove=remove
        )
        return self._stub.SetVariables(request, **self._options())

    def variables(self, job_id: str, *names: str) -> Any:
        """The variables as plain JSON."""
        request = pb.GetVariablesRequest(session_id=self.session, job_id=job_id, names=names)
        return plain(self._stub.GetVariables(request, **self._options()).variables)

    def results(self, job_id: str) -> pb.GetResultsResponse:
        request = pb.GetResultsRequest(session_id=self.session, job_id=job_id)
        return self._stub.GetResults(request, **self._options())

    def errors(self, job_id: str) -> pb.ListRecordErrorsResponse:
        request = pb.ListRecordErrorsRequest(session_id=self.session, job_id=job_id)
        return self._stub.ListRecordErrors(request, **self._options())

    def clear(self, job_id: str, *, allow_missing: bool = False) -> None:
        request = pb.ClearJobRequest(session_id=self.session, job_id=job_id, allow_missing=allow_missing)
        self._stub.ClearJob(request, **self._options())

    def watch(self, job_id: str, after_revision: int = 0) -> Responses[pb.WatchJobResponse]:
        request = pb.WatchJobRequest(session_id=self.session, job_id=job_id, after_revision=after_revision)
        return self._stub.WatchJob(request, **self._options())

    def watch_all(self, resume_token: str = "") -> Responses[pb.WatchJobsResponse]:
        request = pb.WatchJobsRequest(session_id=self.session, resume_token=resume_token)
        return self._stub.WatchJobs(request, **self._options())

    def stream(self, requests: Iterable[pb.StreamProgressRequest]) -> Responses[pb.StreamProgressResponse]:
        return self._stub.StreamProgress(iter(requests), **self._options())

    def batch(self, *reports: Mapping[str, Any]) -> pb.StreamProgressRequest:
        """A message of StreamProgress with these reports."""
        named = [pb.ReportProgressRequest(**{"session_id": self.session, **report}) for report in reports]
        return pb.StreamProgressRequest(reports=named)
