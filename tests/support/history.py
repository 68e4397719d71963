"""What callers were told, held against what a server has: the checker of what OK means."""

import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field

from google.protobuf import json_format, struct_pb2

from headway.v1 import job_pb2
from headway.v1 import job_service_pb2 as pb
from headway.v1.job_service_pb2_grpc import JobServiceStub

COMPLETED = job_pb2.JOB_STATUS_COMPLETED


@dataclass(slots=True)
class Told:
    """The least that must be so of one job, since somebody was told."""

    session_id: str
    revision: int = 0
    status: int = job_pb2.JOB_STATUS_RUNNING
    """At `revision`."""
    progress: int = 0
    parts: dict[str, int] = field(default_factory=dict)
    variables: dict[str, float] = field(default_factory=dict)
    results: str | None = None
    """JSON text."""
    may_end: bool = False
    """Whether FinishJob was sent at all, answered or not."""


@dataclass(frozen=True, slots=True)
class Stored:
    """What a server answers about one job."""

    job: job_pb2.Job
    variables: Mapping[str, float]
    results: str | None


class History:
    """What was acknowledged. Writers add to it from their threads; amounts and numbers only grow."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.jobs: dict[tuple[str, str], Told] = {}
        self.acknowledged = 0

    def told(self, request: "_Names", reply: "job_pb2.Job | pb.ReportProgressResponse") -> None:
        """An OK to a call about the job that `request` names."""
        with self._lock:
            told = self._told(request)
            self.acknowledged += 1
            told.progress = max(told.progress, reply.progress)
            if reply.revision >= told.revision:
                told.revision, told.status = reply.revision, reply.status

    def told_part(self, request: pb.ReportProgressRequest, amount: int) -> None:
        """An OK to a report: its part stands at `amount` or more."""
        with self._lock:
            told = self._told(request)
            self.acknowledged += 1
            told.parts[request.part] = max(told.parts.get(request.part, 0), amount)

    def told_variables(self, request: pb.SetVariablesRequest) -> None:
        """An OK to variables; each is written by one writer, with numbers that grow."""
        with self._lock:
            self._told(request).variables.update(_numbers(request.variables))

    def told_results(self, request: pb.FinishJobRequest) -> None:
        """An OK to an ending."""
        with self._lock:
            self._told(request).results = as_text(request.results)

    def may_end(self, request: pb.FinishJobRequest) -> None:
        """The ending is about to be sent."""
        with self._lock:
            self._told(request).may_end = True

    def _told(self, request: "_Names") -> Told:
        return self.jobs.setdefault((request.session_id, request.job_id), Told(request.session_id))

    def complaints(self, stored: Mapping[tuple[str, str], Stored]) -> list[str]:
        """What was acknowledged and is not so; empty if OK meant what it should."""
        found = []
        for key, told in self.jobs.items():
            if key in stored:
                found += [f"job {key[1]}: {complaint}" for complaint in _complaints(told, stored[key])]
            elif told.revision:
                found.append(f"job {key[1]} is gone")
        return found


_Names = pb.CreateJobRequest | pb.ReportProgressRequest | pb.SetVariablesRequest | pb.FinishJobRequest


def _complaints(told: Told, stored: Stored) -> list[str]:
    job = stored.job
    found = []
    if job.revision < told.revision:
        found.append(f"revision {job.revision}, acknowledged {told.revision}")
    ended = told.status == COMPLETED
    if (job.revision == told.revision or ended) and job.status != told.status:
        found.append(f"status {job.status}, acknowledged {told.status}")
    if job.status not in (job_pb2.JOB_STATUS_RUNNING, COMPLETED) or (job.status == COMPLETED and not told.may_end):
        found.append(f"status {job.status}, which nobody asked for")
    if job.progress < told.progress:
        found.append(f"progress {job.progress}, acknowledged {told.progress}")
    if job.progress != sum(job.parts.values()):
        found.append(f"progress {job.progress}, but its parts are {dict(job.parts)}")
    for part, amount in told.parts.items():
        if job.parts.get(part, 0) < amount:
            found.append(f"part {part} at {job.parts.get(part, 0)}, acknowledged {amount}")
    for name, value in told.variables.items():
        if stored.variables.get(name, 0) < value:
            found.append(f"variable {name} is {stored.variables.get(name)}, acknowledged {value}")
    if told.results is not None and stored.results != told.results:
        found.append("its results are not those acknowledged")
    return found


def as_text(value: struct_pb2.Value) -> str:
    """A value as JSON, the same for equal values."""
    return json.dumps(json_format.MessageToDict(value), sort_keys=True)


def fetch(stub: JobServiceStub, history: History, only: str = "") -> dict[tuple[str, str], Stored]:
    """What the server has of the jobs in all of the history's sessions, or in one."""
    stored = {}
    for session_id in {only} if only else {told.session_id for told in history.jobs.values()}:
        token = ""
        while True:
            page = stub.ListJobs(
                pb.ListJobsRequest(session_id=session_id, page_size=1000, page_token=token), timeout=10
            )
            for job in page.jobs:
                told = history.jobs.get((session_id, job.id))
                stored[session_id, job.id] = Stored(
                    job,
                    _variables(stub, session_id, job.id) if told and told.variables else {},
                    _results(stub, session_id, job.id) if told and told.results is not None else None,
                )
            if not (token := page.next_page_token):
                break
    return stored


def _variables(stub: JobServiceStub, session_id: str, job_id: str) -> dict[str, float]:
    reply = stub.GetVariables(pb.GetVariablesRequest(session_id=session_id, job_id=job_id), timeout=10)
    return _numbers(reply.variables)


def _numbers(variables: struct_pb2.Struct) -> dict[str, float]:
    return {name: value.number_value for name, value in variables.fields.items()}


def _results(stub: JobServiceStub, session_id: str, job_id: str) -> str | None:
    reply = stub.GetResults(pb.GetResultsRequest(session_id=session_id, job_id=job_id), timeout=10)
    return as_text(reply.results) if reply.HasField("results") else None
