"""Following jobs through everything that ends a stream, and showing them line by line."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import grpc

from headway.cli import text
from headway.cli.safe import notice
from headway.errors import HeadwayError, from_rpc_error
from headway.v1 import job_pb2
from headway.v1 import job_service_pb2 as pb
from headway.v1.job_service_pb2_grpc import JobServiceStub

PATIENCE = 300.0
"""Seconds that the server may be away."""

EXIT = {job_pb2.JOB_STATUS_COMPLETED: 0, job_pb2.JOB_STATUS_FAILED: 5, job_pb2.JOB_STATUS_CANCELLED: 6}
"""Exit status by the job's end."""

_KNOCK_TIMEOUT = 10.0
"""Seconds."""


@dataclass(frozen=True, slots=True)
class Away:
    """The server does not answer just now; the watch tries again by itself."""


@dataclass(frozen=True, slots=True)
class Back:
    """The server answers again."""


@dataclass(frozen=True, slots=True)
class Anew:
    """What was seen before no longer counts: all jobs come again."""


Change = pb.WatchJobsResponse | Away | Back | Anew


class Watch:
    """The changes of one job until it ends or, without `job_id`, of all jobs of a session for ever.

    Takes the watch up where it broke off when the server is UNAVAILABLE, for at most `patience` seconds at a
    time; an error on the very first call is not waited out. Iterating raises HeadwayError.
    """

    def __init__(self, stub: JobServiceStub, session: str, job_id: str | None, patience: float | None) -> None:
        self.stub = stub
        self.session = session
        self.job_id = job_id
        self._patience = PATIENCE if patience is None else patience
        self._revision = 0
        self._token = ""

    def __iter__(self) -> Iterator[Change]:
        away_since: float | None = None
        try:
            self._knock()
        except grpc.RpcError as rpc_error:
            raise from_rpc_error(rpc_error) from None
        while True:
            try:
                if away_since is not None:
                    self._knock()
                    away_since = None
                    yield Back()
                for change in self._stream_job() if self.job_id is not None else self._stream_session():
                    yield change
                    if self.job_id is not None and change.job.status in text.ENDED:
                        return
            except grpc.RpcError as rpc_error:
                error = from_rpc_error(rpc_error)
                if self._lost_its_place(error):
                    yield Anew()
                elif error.code is not grpc.StatusCode.UNAVAILABLE:
                    raise error from None
                elif error.reason != "STREAM_EXPIRED":
                    if away_since is None:
                        away_since = time.monotonic()
                        yield Away()
                    elif time.monotonic() - away_since > self._patience:
                        raise error from None
                    time.sleep(error.retry_after or random.uniform(0.2, 0.6))
                    continue
            time.sleep(random.uniform(0, 0.1))

    def last_errors(self, job_id: str, count: int) -> list[job_pb2.RecordError]:
        """The job's newest record errors, oldest first; none if they can't be had just now."""
        request = pb.ListRecordErrorsRequest(session_id=self.session, job_id=job_id)
        try:
            reply = self.stub.ListRecordErrors(request, timeout=2)
        except grpc.RpcError:
            return []
        return list(reply.last[-count:])

    def _knock(self) -> None:
        """Returns if the server answers: a stream that stays silent would not say."""
        self.stub.ListJobs(pb.ListJobsRequest(session_id=self.session, page_size=1), timeout=_KNOCK_TIMEOUT)

    def _stream_job(self) -> Iterator[pb.WatchJobsResponse]:
        request = pb.WatchJobRequest(session_id=self.session, job_id=self.job_id or "", after_revision=self._revision)
        call = self.stub.WatchJob(request)
        try:
            for reply in call:
                self._revision = reply.job.revision
                yield pb.WatchJobsResponse(job=reply.job)
        finally:
            call.cancel()

    def _stream_session(self) -> Iterator[pb.WatchJobsResponse]:
        call = self.stub.WatchJobs(pb.WatchJobsRequest(session_id=self.session, resume_token=self._token))
        try:
            for reply in call:
                self._token = reply.resume_token
                yield reply
        finally:
            call.cancel()

    def _lost_its_place(self, error: HeadwayError) -> bool:
        """Whether the server does not know the point that we want to go on from; if so, it is forgotten."""
        expired = error.reason == "RESUME_TOKEN_EXPIRED"
        # A database restored from a backup can be behind what we saw.
        behind = error.code is grpc.StatusCode.INVALID_ARGUMENT
        if not ((self._revision or self._token) and (expired or behind)):
            return False
        self._revision, self._token = 0, ""
        return True


def as_lines(watch: Watch) -> int:
    """Prints one line a change, with the local time before it. Returns the exit status."""
    for change in watch:
        if isinstance(change, Away):
            notice("the server does not answer; trying again")
        elif isinstance(change, Back):
            notice("the server answers again")
        if not isinstance(change, pb.WatchJobsResponse):
            continue
        now = datetime.now(UTC)
        stamp = now.astimezone().isoformat(" ", "seconds")
        if change.HasField("job"):
            print(f"{stamp} {text.line(change.job, now)}", flush=True)
            status = EXIT.get(change.job.status)
            if watch.job_id is not None and status is not None:
                return status
        else:
            print(f"{stamp} {change.removed_job_id} REMOVED", flush=True)
    return 1


def as_json(watch: Watch) -> int:
    """Prints one JSON object a change: the Job, or the WatchJobsResponse. Returns the exit status."""
    for change in watch:
        if not isinstance(change, pb.WatchJobsResponse):
            continue
        print(text.to_json(change.job if watch.job_id is not None else change), flush=True)
        status = EXIT.get(change.job.status)
        if watch.job_id is not None and status is not None:
            return status
    return 1
