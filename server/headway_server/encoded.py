"""Answers as bytes, made once for all who get the same: a committed job never changes, and many may ask for it."""

from collections.abc import Callable
from functools import lru_cache

from google.protobuf.message import Message

from headway.v1 import job_service_pb2 as pb
from headway_server import replies
from headway_server.job import Cancellation, Job, Status

KEPT = 512
"""Answers of a kind that are kept: what many look at, or some again and again, is among the last."""


def _once(make: Callable[[Job], Message]) -> Callable[[Job], bytes]:
    kept: dict[tuple[str, str, int, int], bytes] = {}

    def encode(job: Job) -> bytes:
        # A job that is created anew under its old id has the same revisions again, but later.
        key = (job.session_hash, job.id, job.revision, job.update_time)
        made = kept.get(key)
        if made is None:
            if len(kept) >= KEPT:
                kept.clear()
            made = kept[key] = make(job).SerializeToString()
        return made

    return encode


job = _once(replies.job)
"""Job."""

watched = _once(lambda job: pb.WatchJobResponse(job=replies.job(job)))
"""WatchJobResponse; also WatchJobsResponse without a token, for both have the job in the same field."""


def watched_in_session(job: Job, token: str) -> bytes:
    """WatchJobsResponse. One protobuf message behind another is the two merged."""
    return watched(job) + pb.WatchJobsResponse(resume_token=token).SerializeToString()


def reported(job: Job, pace: int) -> bytes:
    """ReportProgressResponse; `pace` (µs) is its next_report_after."""
    return _reported(job.status, job.progress, job.revision, job.cancellation, pace)


@lru_cache(KEPT)
def _reported(status: Status, progress: int, revision: int, cancellation: Cancellation | None, pace: int) -> bytes:
    # Reports of one job that meet in one commit have one answer.
    return pb.ReportProgressResponse(
        status=replies.STATUSES[status],
        progress=progress,
        revision=revision,
        cancellation=replies.cancellation(cancellation),
        next_report_after=replies.span(pace),
    ).SerializeToString()
