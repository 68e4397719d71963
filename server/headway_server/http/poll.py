"""A job as a few plain JSON fields, for pages that can only poll."""

import json

from headway.v1 import job_pb2
from headway_server.rpc.call_guard import Answer

ENDED_STATUSES = frozenset({job_pb2.JOB_STATUS_COMPLETED, job_pb2.JOB_STATUS_FAILED, job_pb2.JOB_STATUS_CANCELLED})


def encode(answer: Answer) -> bytes:
    """The JSON of a Job."""
    assert isinstance(answer, bytes)
    job = job_pb2.Job.FromString(answer)
    likely = job.estimate.remaining_likely
    plain = {
        "status": job_pb2.JobStatus.Name(job.status).removeprefix("JOB_STATUS_"),
        "ended": job.status in ENDED_STATUSES,
        "name": job.name,
        "progress": job.progress,
        "size": job.size,
        "unit": job.unit,
        "percent": None if job.size == 0 else min(100 * job.progress // job.size, 100),
        "message": job.message,
        "remaining_seconds": likely.seconds + likely.nanos / 1e9 if job.HasField("estimate") else None,
        "error_count": job.error_count,
        "error": job.error.message if job.HasField("error") else None,
        "stalled": job.stalled,
        "cancel_requested": job.cancellation.requested,
        "revision": job.revision,
    }
    return json.dumps(plain, ensure_ascii=False, separators=(",", ":")).encode()
