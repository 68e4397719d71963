"""Shows a job in the form of README.md."""

from google.rpc import code_pb2

from headway.v1 import job_pb2

Described = dict[str, object]


def state(job: job_pb2.Job) -> Described:
    """A job as the server described it."""
    error = (
        {"code": code_pb2.Code.Name(job.error.code), "message": job.error.message} if job.HasField("error") else None
    )
    return {
        "id": job.id,
        "name": job.name,
        "invoker": job.invoker,
        "status": status(job),
        "progress": job.progress,
        "size": job.size,
        "unit": job.unit,
        "message": job.message,
        "labels": dict(job.labels),
        "parts": dict(job.parts),
        "counters": dict(job.counters),
        "error_count": job.error_count,
        "error": error,
        "attempt": job.attempt,
        "revision": job.revision,
        "stalled": job.stalled,
        "continues": job.continues,
        "continued_by": job.continued_by,
        "key": job.key,
    }


def status(job: job_pb2.Job) -> str:
    return job_pb2.JobStatus.Name(job.status).removeprefix("JOB_STATUS_")
