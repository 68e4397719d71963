"""What the client does with a job, and logs, when the server refuses a call or a report."""

import grpc

from headway._engine.connection_state import in_words, log, plain
from headway._engine.error_policy import Decision, judge
from headway._engine.job_state import JobState, PendingCall
from headway._engine.reporter import Reporter
from headway.errors import HeadwayError
from headway.ids import random_between
from headway.target import Target
from headway.v1 import job_pb2
from headway.v1 import job_service_pb2 as rpc


def decline(job_state: JobState, pending_call: PendingCall, error: HeadwayError) -> None:
    """The server will never take this call unchanged."""
    request, malformed = pending_call.request, error.code == grpc.StatusCode.INVALID_ARGUMENT
    if isinstance(request, rpc.FinishJobRequest) and request.HasField("results") and malformed:
        _warn("the results of job %s were refused, so it ends without: %s", job_state, error)
        request.ClearField("results")
    elif isinstance(request, rpc.UpdateJobRequest) and judge(error) is not Decision.STOP:
        _warn("a change of job %s was refused: %s", job_state, error)
        job_state.answered(pending_call, None)
    elif error.code == grpc.StatusCode.ALREADY_EXISTS and not pending_call.tried.done():
        # The creator of the job waits for the answer and gets the exception.
        job_state.stop(error)
    else:
        stop(job_state, error)


def stop(job_state: JobState, error: HeadwayError) -> None:
    """The server takes no more reports of this job."""
    if job_state.over or (error.reason == "JOB_ENDED" and job_state.ask_how_it_ended(error)):
        return
    # A worker that releases a job expects another worker to take it over.
    let_go = error.reason == "STALE_ATTEMPT" and any(pending_call.release for pending_call in job_state.waiting())
    if job_state.error is None and not let_go:
        _warn("job %s is no longer reported: %s", job_state, error)
    job_state.stop(error)


def ended(job_state: JobState) -> None:
    """The job has ended without this worker. The log says how, if the server could be asked."""
    if job_state.ended_by is None or job_state.over:
        return
    job = job_state.job
    if job.status == job_pb2.JOB_STATUS_CANCELLED:
        job_state.cancel(job.cancellation)
        why = f"it was cancelled: {job.cancellation.reason}" if job.cancellation.reason else "it was cancelled"
        log.warning("headway: job %s is no longer reported: %s", job.id, plain(why))
    else:
        _warn("job %s is no longer reported: %s", job_state, job_state.ended_by)
    job_state.stop(job_state.ended_by)


def kept(job_state: JobState) -> None:
    """The results of a late end are stored."""
    log.warning(
        "headway: job %s had ended before its worker finished, and its results are in its variable 'results'",
        job_state.job.id,
    )


def keep_in_file(job_state: JobState, target: Target, error: HeadwayError) -> None:
    """The server cannot store the results of a late end, so they go to a spool file."""
    from headway._spool.sender import save_undelivered

    save_undelivered([job_state], target)
    spool_file, job_state.spool_file = job_state.spool_file, None
    place = f"in {spool_file.refuse()}" if spool_file is not None else "lost"
    _warn(f"job %s had ended before its worker finished, and its results are {place}: %s", job_state, error)
    job_state.stop(job_state.error)


def refuse(job_state: JobState, reporter: Reporter | None, error: HeadwayError) -> None:
    """The server will never take this report unchanged."""
    if reporter is None:
        # A heartbeat has no fields that could be removed.
        stop(job_state, error)
        return
    _warn("a report of job %s was refused: %s", job_state, error)
    reporter.refused(error)


def postpone(job_state: JobState, error: HeadwayError, now: float) -> None:
    """The server asks for a retry later."""
    if not job_state.retry_at:
        _warn("job %s has to wait: %s", job_state, error)
    job_state.retry_at = now + min(max(error.retry_after or 1.0, 0.1), 60.0) * random_between(1.0, 1.2)


def _warn(text: str, job_state: JobState, error: HeadwayError) -> None:
    log.warning("headway: " + text, job_state.job.id, in_words(error))
