"""Follows jobs through all interruptions of a stream, and shows them line by line."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import grpc

from headway._engine.requests import Deadline
from headway.cli import formatting
from headway.cli.escaping import warn
from headway.cli.exit_codes import CANCELLED, ERROR, FAILED, OK
from headway.cli.job_selection import matches
from headway.client import Client
from headway.errors import HeadwayError, InvalidError, translated
from headway.v1 import job_pb2
from headway.v1 import job_service_pb2 as pb

UNREACHABLE_TIMEOUT = 300.0
"""Seconds that the server may be unreachable."""

JOB_EXIT_CODES = {
    job_pb2.JOB_STATUS_COMPLETED: OK,
    job_pb2.JOB_STATUS_FAILED: FAILED,
    job_pb2.JOB_STATUS_CANCELLED: CANCELLED,
}
"""Exit status by the job's end."""

_CHECK_TIMEOUT, _ERRORS_TIMEOUT = 10.0, 2.0
"""Seconds."""
_UNREACHABLE = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


class Watch:
    """The changes of one job until it ends. Without `job_id`: of all jobs of a session, without end.

    The server may be unreachable for `unreachable_timeout` seconds at a time. At the first call it must answer, unless
    it has `answered_before`. Iterating raises HeadwayError, and TimeoutError after `timeout` seconds in all.
    """

    def __init__(
        self,
        client: Client,
        session: str,
        job_id: str | None,
        *,
        unreachable_timeout: float = UNREACHABLE_TIMEOUT,
        timeout: float | None = None,
        answered_before: bool = False,
        only: pb.ListJobsRequest | None = None,
    ) -> None:
        """`only`: the filters for the jobs of the session, as in a list."""
        self.client = client
        self.session = session
        self.job_id = job_id
        self.on_unreachable: Callable[[], object] = _nothing
        """Called when the server does not answer. The watch tries again by itself."""
        self.on_back: Callable[[], object] = _nothing
        """Called when it answers again."""
        self.on_anew: Callable[[], object] = _nothing
        """Called when earlier changes no longer count: all jobs come again."""
        self._unreachable_timeout = unreachable_timeout
        self._deadline = Deadline(timeout)
        self._answered_before = answered_before
        self._only = only

    @property
    def means_all(self) -> bool:
        return self._only is None

    def means(self, job: job_pb2.Job) -> bool:
        """Whether the job is among those to be shown, as it stands now."""
        return self._only is None or matches(job, self._only)

    def __iter__(self) -> Iterator[pb.WatchJobsResponse]:
        if not self._answered_before:
            self._check_server()
        while True:
            seen = False
            try:
                for change in self._changes():
                    seen = True
                    yield change
                return
            except HeadwayError as error:
                # The resume token is too old, or a backup has replaced its database.
                if not seen or not (isinstance(error, InvalidError) or error.reason == "RESUME_TOKEN_EXPIRED"):
                    raise
                self.on_anew()

    def last_errors(self, job_id: str, count: int) -> list[job_pb2.RecordError]:
        """The job's newest record errors, oldest first. Empty if the server does not give them now."""
        request = pb.ListRecordErrorsRequest(session_id=self.session, job_id=job_id)
        try:
            return list(self.client.stub.ListRecordErrors(request, timeout=_ERRORS_TIMEOUT).last[-count:])
        except grpc.RpcError:
            return []

    def _changes(self) -> Iterator[pb.WatchJobsResponse]:
        on_broken = self._wait_for_server
        if self.job_id is None:
            yield from self.client.watch_session(self.session, on_broken=on_broken)
            return
        left = self._deadline.left
        for job in self.client.watch(self.session, self.job_id, timeout=left, on_broken=on_broken):
            yield pb.WatchJobsResponse(job=job)

    def _wait_for_server(self, error: HeadwayError) -> None:
        if error.reason == "STREAM_EXPIRED":
            return
        since = time.monotonic()
        self.on_unreachable()
        while True:
            time.sleep(error.retry_after or random.uniform(0.2, 0.6))
            try:
                self._check_server()
            except HeadwayError as still:
                if still.code not in _UNREACHABLE or time.monotonic() - since > self._unreachable_timeout:
                    raise
                error = still
            else:
                self.on_back()
                return

    def _check_server(self) -> None:
        """Returns if the server answers. A silent stream would not show that."""
        left = self._deadline.left
        timeout = _CHECK_TIMEOUT if left is None else min(left, _CHECK_TIMEOUT)
        try:
            with translated():
                self.client.stub.ListJobs(pb.ListJobsRequest(session_id=self.session, page_size=1), timeout=timeout)
        except HeadwayError:
            if self._deadline.left == 0:
                raise TimeoutError from None
            raise


def as_lines(watch: Watch) -> int:
    """Prints one line a change, with the local time before it. Returns the exit status."""
    watch.on_unreachable = lambda: warn("the server does not answer; trying again")
    watch.on_back = lambda: warn("the server answers again")
    shown: dict[str, str] = {}
    for change in watch:
        now = datetime.now(UTC)
        stamp = now.astimezone().isoformat(" ", "seconds")
        if not change.HasField("job"):
            if change.removed_job_id in shown or watch.means_all:
                print(f"{stamp} {change.removed_job_id} REMOVED", flush=True)
            shown.pop(change.removed_job_id, None)
            continue
        # A job that was shown is followed until it no longer matches.
        if not watch.means(change.job) and change.job.id not in shown:
            continue
        line = formatting.line(change.job, now)
        # A mere heartbeat is not shown.
        if line != shown.get(change.job.id):
            print(f"{stamp} {line}", flush=True)
        if watch.means(change.job):
            shown[change.job.id] = line
        else:
            shown.pop(change.job.id, None)
        status = JOB_EXIT_CODES.get(change.job.status)
        if watch.job_id is not None and status is not None:
            return status
    return ERROR


def as_json(watch: Watch) -> int:
    """Prints one JSON object a change: the Job, or the WatchJobsResponse. Returns the exit status."""
    shown = set[str]()
    for change in watch:
        if not watch.means_all:
            about = change.job.id or change.removed_job_id
            belongs = change.HasField("job") and watch.means(change.job)
            if not belongs and about not in shown:
                continue
            shown ^= {about} if belongs != (about in shown) else set()
        print(formatting.to_json(change.job if watch.job_id is not None else change), flush=True)
        status = JOB_EXIT_CODES.get(change.job.status)
        if watch.job_id is not None and status is not None:
            return status
    return ERROR


def _nothing() -> None:
    pass
