"""How a worker gets a job that may already have progress.

These are generators of calls, so that both clients make the same calls. The client sends them each answer and throws
each error.
"""

from collections.abc import Generator
from typing import TypeAlias

from headway._engine import requests
from headway._engine.error_policy import Decision, judge
from headway.errors import HeadwayError, StateError
from headway.v1 import job_pb2
from headway.v1 import job_service_pb2 as rpc

Call: TypeAlias = rpc.CreateJobRequest | rpc.StartJobRequest | rpc.GetJobRequest

Calls: TypeAlias = Generator[Call, job_pb2.Job, job_pb2.Job]
"""Returns the job that the worker has now."""


FIRST_PAUSE = 0.1
"""Seconds to wait at least before an overloaded server is asked again."""


def find_or_create(request: rpc.CreateJobRequest) -> Calls:
    """Creates the job, or takes over the one with its key."""
    while True:
        state = yield request
        if request.pending or state.id == request.job_id:
            return state
        try:
            return (yield _take_over(request.session_id, state.id))
        except StateError as error:
            # The job may have ended just now.
            if error.reason != "JOB_ENDED":
                raise


def carry_on(session: str, job_id: str) -> Calls:
    """Takes over a job that has not ended. Continues one that has ended, or the last job that continues it."""
    create = requests.create(session, "", {})
    while True:
        try:
            return (yield _take_over(session, job_id))
        except StateError as error:
            if error.reason != "JOB_ENDED":
                raise
        create.continues = job_id
        try:
            return (yield create)
        except StateError as error:
            if error.reason != "JOB_ALREADY_CONTINUED":
                raise
        former = yield rpc.GetJobRequest(session_id=session, job_id=job_id)
        job_id = former.continued_by


def may_have_begun(request: rpc.CreateJobRequest) -> bool:
    """Whether the job may already have progress. Then the worker must know it before it begins."""
    return bool(request.key or request.continues)


def pause(error: HeadwayError, left: float | None) -> float | None:
    """Seconds until an overloaded server is asked again, or None if that is too late or useless."""
    seconds = max(error.retry_after or 0.0, FIRST_PAUSE)
    return seconds if judge(error) is Decision.RETRY and left is not None and seconds < left else None


def begin_alone(request: rpc.CreateJobRequest, error: HeadwayError) -> None:
    """No server answered in time: the worker begins a new job. Raises the error if that would be refused too."""
    if judge(error) in (Decision.STOP, Decision.DROP):
        raise error
    request.key_if_free = True


def _take_over(session: str, job_id: str) -> rpc.StartJobRequest:
    return rpc.StartJobRequest(session_id=session, job_id=job_id, take_over=True)
