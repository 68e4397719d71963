"""Conversion of replies from the domain to protobuf. from_proto.py converts requests."""

import random
from collections.abc import Sequence

from google.protobuf import any_pb2, duration_pb2, timestamp_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2

from headway.v1 import job_pb2
from headway_server.domain.errors import InvalidRequest, JobError
from headway_server.domain.job import Cancellation, Error, Job, Status
from headway_server.domain.limits import MICROSECONDS
from headway_server.domain.report import RecordError

DOMAIN = "headway"

REPLY_BYTES_MAX = 3 * 1024 * 1024
"""A page ends at this size, however many jobs were requested: by default, gRPC clients accept at most 4 MiB."""

RETRY_JITTER = 0.5
"""Retry delays are longer by a random part, up to this (1 = twice as long): callers that were refused together must not
retry together."""

PROTO_STATUSES: dict[Status, job_pb2.JobStatus] = {
    Status.PENDING: job_pb2.JOB_STATUS_PENDING,
    Status.RUNNING: job_pb2.JOB_STATUS_RUNNING,
    Status.LOST: job_pb2.JOB_STATUS_LOST,
    Status.COMPLETED: job_pb2.JOB_STATUS_COMPLETED,
    Status.FAILED: job_pb2.JOB_STATUS_FAILED,
    Status.CANCELLED: job_pb2.JOB_STATUS_CANCELLED,
}

CODES: dict[str, int] = {
    "INVALID_REQUEST": code_pb2.INVALID_ARGUMENT,
    "MALFORMED_MESSAGE": code_pb2.INVALID_ARGUMENT,
    "JOB_NOT_FOUND": code_pb2.NOT_FOUND,
    "JOB_ALREADY_EXISTS": code_pb2.ALREADY_EXISTS,
    "JOB_ENDED": code_pb2.FAILED_PRECONDITION,
    "JOB_NOT_STARTED": code_pb2.FAILED_PRECONDITION,
    "JOB_ALREADY_STARTED": code_pb2.FAILED_PRECONDITION,
    "STALE_ATTEMPT": code_pb2.FAILED_PRECONDITION,
    "JOB_NOT_ENDED": code_pb2.FAILED_PRECONDITION,
    "JOB_ALREADY_CONTINUED": code_pb2.FAILED_PRECONDITION,
    "JOB_ID_AMBIGUOUS": code_pb2.FAILED_PRECONDITION,
    "RESUME_TOKEN_EXPIRED": code_pb2.FAILED_PRECONDITION,
    "REVISION_MISMATCH": code_pb2.ABORTED,
    "SESSION_JOBS_LIMIT": code_pb2.RESOURCE_EXHAUSTED,
    "WATCHES_LIMIT": code_pb2.RESOURCE_EXHAUSTED,
    "OVERLOADED": code_pb2.RESOURCE_EXHAUSTED,
    "SERVER_JOBS_LIMIT": code_pb2.RESOURCE_EXHAUSTED,
    "SERVER_SESSIONS_LIMIT": code_pb2.RESOURCE_EXHAUSTED,
    "CONNECTIONS_LIMIT": code_pb2.RESOURCE_EXHAUSTED,
    "MEMORY_LIMIT": code_pb2.RESOURCE_EXHAUSTED,
    "STORAGE_FULL": code_pb2.RESOURCE_EXHAUSTED,
    "DATABASE_UNAVAILABLE": code_pb2.UNAVAILABLE,
    "SHUTTING_DOWN": code_pb2.UNAVAILABLE,
    "STREAM_EXPIRED": code_pb2.UNAVAILABLE,
    "CREDENTIALS_INVALID": code_pb2.UNAUTHENTICATED,
    "SCOPE_MISSING": code_pb2.PERMISSION_DENIED,
    "SERVER_FAULT": code_pb2.INTERNAL,
    "DEADLINE_PASSED": code_pb2.DEADLINE_EXCEEDED,
    "MESSAGE_TOO_LARGE": code_pb2.RESOURCE_EXHAUSTED,
    "REQUEST_TOO_SLOW": code_pb2.DEADLINE_EXCEEDED,
    "FORMAT_UNSUPPORTED": code_pb2.UNIMPLEMENTED,
    "METHOD_UNKNOWN": code_pb2.UNIMPLEMENTED,
    "SITE_REFUSED": code_pb2.PERMISSION_DENIED,
}
"""The google.rpc.Code of each reason."""


class Room:
    """The room in one reply. The first message always fits."""

    def __init__(self) -> None:
        self._taken = 0

    def takes(self, size: int) -> bool:
        """Whether another message of this many bytes fits."""
        first = not self._taken
        self._taken += size
        return first or self._taken <= REPLY_BYTES_MAX


def status(error: JobError) -> status_pb2.Status:
    """An error in the form of AIP-193: code, message, ErrorInfo, and BadRequest or RetryInfo where they apply."""
    answer = status_pb2.Status(code=CODES[error.reason], message=error.message)
    answer.details.add().Pack(error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=error.metadata))
    if isinstance(error, InvalidRequest):
        violations = [
            error_details_pb2.BadRequest.FieldViolation(field=fault.field, description=fault.description)
            for fault in error.faults
        ]
        answer.details.add().Pack(error_details_pb2.BadRequest(field_violations=violations))
    if error.retry_after is not None:
        delay = error.retry_after * random.uniform(1, 1 + RETRY_JITTER)
        answer.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=span(int(delay * MICROSECONDS))))
    return answer


def time(microseconds: int | None) -> timestamp_pb2.Timestamp | None:
    """A timestamp, or None for None."""
    if microseconds is None:
        return None
    seconds, rest = divmod(microseconds, MICROSECONDS)
    return timestamp_pb2.Timestamp(seconds=seconds, nanos=rest * 1000)


def span(microseconds: int) -> duration_pb2.Duration:
    """A duration."""
    seconds, rest = divmod(microseconds, MICROSECONDS)
    return duration_pb2.Duration(seconds=seconds, nanos=rest * 1000)


def cancellation(request: Cancellation | None) -> job_pb2.Cancellation | None:
    """A cancellation request, or None for None."""
    if request is None:
        return None
    return job_pb2.Cancellation(
        requested=True, reason=request.reason, deadline=time(request.deadline), seen=request.seen
    )


def record_errors(errors: Sequence[RecordError]) -> list[job_pb2.RecordError]:
    """Record errors, in order."""
    return [job_pb2.RecordError(record=e.record, code=e.code, message=e.message) for e in errors]


def job(source: Job) -> job_pb2.Job:
    """The job as callers see it."""
    answer = job_pb2.Job(
        id=source.id,
        name=source.name,
        invoker=source.invoker,
        size=source.size,
        progress=source.progress,
        unit=source.unit,
        status=PROTO_STATUSES[source.status],
        message=source.message,
        labels=source.labels,
        parts=source.parts,
        counters=source.counters,
        error_count=source.error_count,
        error=_error(source.error),
        cancellation=cancellation(source.cancellation),
        create_time=time(source.create_time),
        start_time=time(source.start_time),
        end_time=time(source.end_time),
        last_contact_time=time(source.last_contact_time),
        last_progress_time=time(source.last_progress_time),
        stalled=source.stalled,
        attempt=source.attempt,
        revision=source.revision,
        continues=source.continues,
        continued_by=source.continued_by,
        key=source.key,
        last_sequence=max(source.sequences.values(), default=0),
        history=[
            job_pb2.StatusChange(
                status=PROTO_STATUSES[change.status],
                time=time(change.time),
                revision=change.revision,
                reason=change.reason,
            )
            for change in source.history
        ],
    )
    for name in ("heartbeat_timeout", "stall_timeout", "retention"):
        length = getattr(source, name)
        if length:
            getattr(answer, name).CopyFrom(span(length))
    estimate = source.estimate
    if estimate is not None:
        answer.estimate.CopyFrom(
            job_pb2.Estimate(
                rate=estimate.rate,
                remaining_low=span(estimate.remaining_low),
                remaining_likely=span(estimate.remaining_likely),
                remaining_high=span(estimate.remaining_high),
                as_of=time(estimate.as_of),
            )
        )
    return answer


def _error(error: Error | None) -> status_pb2.Status | None:
    if error is None:
        return None
    answer = status_pb2.Status(
        code=error.code,
        message=error.message,
        details=[any_pb2.Any(type_url=url, value=value) for url, value in error.details],
    )
    if error.reason:
        answer.details.add().Pack(error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN))
    return answer


def fault(number: str) -> status_pb2.Status:
    """The status for a bug of the server. It has an id to find the error in the log, and nothing else."""
    answer = status_pb2.Status(
        code=CODES["SERVER_FAULT"], message=f"The server failed; please report it with its error id {number}."
    )
    answer.details.add().Pack(
        error_details_pb2.ErrorInfo(reason="SERVER_FAULT", domain=DOMAIN, metadata={"error_id": number})
    )
    return answer
