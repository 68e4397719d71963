"""The requests of both clients, synchronous and asyncio, and the deadline of a watch."""

import time
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import TypeAlias, TypedDict

import grpc
from google.protobuf import duration_pb2

from headway.errors import HeadwayError
from headway.ids import random_between, uuid7
from headway.limits import LABEL_LENGTH, NAME_LENGTH, UNIT_LENGTH
from headway.status import Status
from headway.v1 import job_pb2
from headway.v1 import job_service_pb2 as rpc
from headway.values import as_size, clean

Seconds: TypeAlias = float | timedelta

HEARTBEAT_TIMEOUT = 60.0

CREATE_TIMEOUT = 1.0
"""Seconds that a new job waits for a server that neither answers nor refuses the connection. Then the work begins, and
the job is created in the background."""

FIND_TIMEOUT = 5.0
"""The same wait in seconds for a job that another worker may have begun. Without the answer its work would be
repeated."""

ENDED = frozenset({job_pb2.JOB_STATUS_COMPLETED, job_pb2.JOB_STATUS_FAILED, job_pb2.JOB_STATUS_CANCELLED})

_ANY_LENGTH = 10_000
_FOR_EVER = 1e9
"""Seconds. gRPC cannot handle much longer timeouts."""
# CANCELLED means that this process has closed its channel to fork.
_BROKEN_OFF = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)


class JobOptions(TypedDict, total=False):
    """The options of a new job besides its session and name. Texts that are too long are cut, and `size` is adjusted
    like in the setter `Job.size`. The other limits are in job.proto."""

    job_id: str | None
    """32 lower-case hexadecimal digits; a new UUIDv7 by default."""
    invoker: str
    """The person or program that starts it: the first 256 characters."""
    size: float | None
    """How much there is to do, in units; 0 or None = not known yet."""
    unit: str
    """What is counted: "records". The first 32 characters."""
    labels: Mapping[str, str]
    """Labels to filter by: at most 64, keys of at most 63 characters, the first 256 characters of each value."""
    heartbeat_timeout: Seconds
    """Seconds without contact until it counts as LOST; 60 by default, 0 = never."""
    stall_timeout: Seconds
    """Seconds without progress until it counts as stalled; never by default."""
    retention: Seconds
    """Seconds until it is removed after its end; the server's setting by default."""
    pending: bool
    """It waits for a worker that calls `resume`."""
    continues: str
    """The id of a job that has ended, or is LOST. The new job begins with its name, invoker, size, unit, labels,
    progress, counters and variables (the checkpoint). Options that are given here win."""
    key: str
    """Finds the unfinished job of the session with this key and takes it over from its worker. If there is none, it
    creates the job with this key. So a script can create its job at every start, for example "nightly-2026-11". At most
    256 characters. A key is not a lock: a former worker that still works is told by `Job.on_stopped`."""


class JobFilters(TypedDict, total=False):
    """The filters of a list. A job must pass all of them."""

    statuses: Status | str | Iterable[Status | str]
    """One of these, "RUNNING" for example."""
    name: str
    invoker: str
    labels: Mapping[str, str]
    stalled: bool


def duration(seconds: Seconds) -> duration_pb2.Duration:
    result = duration_pb2.Duration()
    result.FromTimedelta(seconds if isinstance(seconds, timedelta) else timedelta(seconds=seconds))
    return result


def create(session: str, name: str, options: JobOptions) -> rpc.CreateJobRequest:
    request = rpc.CreateJobRequest(
        session_id=session,
        job_id=options.get("job_id") or uuid7(),
        name=clean(name, NAME_LENGTH),
        invoker=clean(options.get("invoker", ""), NAME_LENGTH),
        size=as_size(options.get("size")),
        unit=clean(options.get("unit", ""), UNIT_LENGTH),
        labels={clean(k, _ANY_LENGTH): clean(v, LABEL_LENGTH) for k, v in options.get("labels", {}).items()},
        heartbeat_timeout=duration(options.get("heartbeat_timeout", HEARTBEAT_TIMEOUT)),
        pending=options.get("pending", False),
        continues=options.get("continues", ""),
        key=clean(options.get("key", ""), _ANY_LENGTH),
    )
    if "stall_timeout" in options:
        request.stall_timeout.CopyFrom(duration(options["stall_timeout"]))
    if "retention" in options:
        request.retention.CopyFrom(duration(options["retention"]))
    return request


def heartbeat(job: job_pb2.Job | rpc.CreateJobRequest) -> float:
    """Its heartbeat_timeout in seconds."""
    return job.heartbeat_timeout.seconds + job.heartbeat_timeout.nanos / 1e9


def described(request: rpc.CreateJobRequest) -> job_pb2.Job:
    """The job as the creator knows it before the server has answered."""
    return job_pb2.Job(
        id=request.job_id,
        name=request.name,
        invoker=request.invoker,
        size=request.size,
        unit=request.unit,
        labels=request.labels,
        status=job_pb2.JOB_STATUS_PENDING if request.pending else job_pb2.JOB_STATUS_RUNNING,
    )


class InHand(TypedDict):
    """What a job object needs to know of a job that the server has given to its worker."""

    heartbeat: float
    started: bool


def in_hand(state: job_pb2.Job) -> InHand:
    """A PENDING job waits for another worker, which will send its heartbeats."""
    started = state.status != job_pb2.JOB_STATUS_PENDING
    return {"heartbeat": heartbeat(state) if started else -1.0, "started": started}


def jobs(session: str, page_size: int, filters: JobFilters) -> rpc.ListJobsRequest:
    wanted = filters.get("statuses", ())
    # A text is an iterable too.
    statuses = [Status(status) for status in ([wanted] if isinstance(wanted, str) else wanted)]
    return rpc.ListJobsRequest(
        session_id=session,
        page_size=page_size,
        statuses=[f"JOB_STATUS_{status}" for status in statuses],
        name=filters.get("name", ""),
        invoker=filters.get("invoker", ""),
        labels=filters.get("labels"),
        stalled=filters.get("stalled"),
    )


def cancel(session: str, job_id: str, reason: str, grace: Seconds | None) -> rpc.CancelJobRequest:
    return rpc.CancelJobRequest(
        session_id=session,
        job_id=job_id,
        reason=clean(reason, 1024),
        grace_period=None if grace is None else duration(grace),
    )


class Deadline:
    """When a watch must end, and how long to wait before it reconnects."""

    def __init__(self, timeout: float | None) -> None:
        self._end = None if timeout is None or timeout > _FOR_EVER else time.monotonic() + timeout
        self._tries = 0

    @property
    def left(self) -> float | None:
        """Seconds left, or None without a timeout."""
        return None if self._end is None else max(self._end - time.monotonic(), 0.0)

    def heard(self) -> None:
        self._tries = 0

    def pause(self, error: HeadwayError) -> float:
        """Seconds to wait before the watch reconnects. TimeoutError if the time is over. Raises the error if it is
        final."""
        left = self.left
        if left is not None and (left == 0 or error.code == grpc.StatusCode.DEADLINE_EXCEEDED):
            raise TimeoutError("The job has not ended in time.") from error
        if error.code not in _BROKEN_OFF:
            raise error
        if error.reason == "STREAM_EXPIRED" and not self._tries:
            return 0.0
        self._tries += 1
        pause = min(0.1 * 2.0 ** min(self._tries, 6), 5.0) * random_between(0.5, 1.0)
        return pause if left is None else min(pause, left)
