"""What becomes of a job, and is logged, when the server refuses a call or a report of it."""

import grpc

from headway._engine.connection_state import in_words, log, plain
from headway._engine.error_policy import Verdict, judge
from headway._engine.job_state import Course, Step
from headway._engine.reporter import Reporter
from headway.errors import HeadwayError
from headway.ids import chance
from headway.target import Target
from headway.v1 import job_pb2
from headway.v1 import job_service_pb2 as rpc


def decline(course: Course, step: Step, error: HeadwayError) -> None:
    """The server never takes this call as it is."""
    request, malformed = step.request, error.code == grpc.StatusCode.INVALID_ARGUMENT
    if isinstance(request, rpc.FinishJobRequest) and request.HasField("results") and malformed:
        _notice("the results of job %s were refused, so it ends without: %s", course, error)
        request.ClearField("results")
    elif isinstance(request, rpc.UpdateJobRequest) and judge(error) is not Verdict.GONE:
        _notice("a change of job %s was refused: %s", course, error)
        course.answered(step, None)
    elif error.code == grpc.StatusCode.ALREADY_EXISTS and not step.tried.done():
        # Whoever creates the job waits for the answer, and is told by the exception.
        course.stop(error)
    else:
        stop(course, error)


def stop(course: Course, error: HeadwayError) -> None:
    """The server takes no more of this job."""
    if course.over or (error.reason == "JOB_ENDED" and course.ask_how_it_ended(error)):
        return
    # Whoever lets a job go for another worker expects that one to take it over.
    let_go = error.reason == "STALE_ATTEMPT" and any(step.release for step in course.waiting())
    if course.error is None and not let_go:
        _notice("job %s is no longer reported: %s", course, error)
    course.stop(error)


def ended(course: Course) -> None:
    """The job has ended without this worker; how, it knows as far as the server could be asked."""
    if course.ended_by is None or course.over:
        return
    job = course.job
    if job.status == job_pb2.JOB_STATUS_CANCELLED:
        course.cancel(job.cancellation)
        why = f"it was cancelled: {job.cancellation.reason}" if job.cancellation.reason else "it was cancelled"
        log.warning("headway: job %s is no longer reported: %s", job.id, plain(why))
    else:
        _notice("job %s is no longer reported: %s", course, course.ended_by)
    course.stop(course.ended_by)


def kept(course: Course) -> None:
    """The results of an end that came too late are stored."""
    log.warning(
        "headway: job %s had ended before its worker finished, and its results are in its variable 'results'",
        course.job.id,
    )


def keep_in_file(course: Course, target: Target, error: HeadwayError) -> None:
    """They cannot be stored there."""
    from headway._spool.sender import write_down

    write_down([course], target)
    letter, course.letter = course.letter, None
    place = f"in {letter.refuse()}" if letter is not None else "lost"
    _notice(f"job %s had ended before its worker finished, and its results are {place}: %s", course, error)
    course.stop(course.error)


def refuse(course: Course, reporter: Reporter | None, error: HeadwayError) -> None:
    """The server never takes this report as it is."""
    if reporter is None:
        # Nothing in a heartbeat could be put right.
        stop(course, error)
        return
    _notice("a report of job %s was refused: %s", course, error)
    reporter.refused(error)


def postpone(course: Course, error: HeadwayError, now: float) -> None:
    """The server asks to be tried again later."""
    if not course.retry_at:
        _notice("job %s has to wait: %s", course, error)
    course.retry_at = now + min(max(error.retry_after or 1.0, 0.1), 60.0) * chance(1.0, 1.2)


def _notice(text: str, course: Course, error: HeadwayError) -> None:
    log.warning("headway: " + text, course.job.id, in_words(error))
