"""What headway.celery and headway.rq share: one job for all the runs of a task, and none of the tracker's troubles for
the task."""

import atexit
import json
import os
import uuid
from collections.abc import Mapping
from functools import cache

from google.rpc import code_pb2

from headway.channel import Target
from headway.client import Client, connect
from headway.contact import log
from headway.course import Step
from headway.errors import JobCancelled
from headway.job import UNSET, Job
from headway.requests import CREATE_PATIENCE, ENDED
from headway.v1 import job_pb2
from headway.v1 import job_service_pb2 as rpc
from headway.values import Json, clean

DELIVERY = 1.0
"""Seconds that the end of a run, and then that of its process, waits at most until the server has it."""

_RESULTS = 1024 * 1024
_NAME, _LABEL = 256, 256
_IDS = uuid.UUID("8f4c1f0e-6a5b-4d0e-9a43-3b1f6f0b7c52")


class Runs:
    """Makes the jobs of one application's tasks. No method raises; each waits for the server for some seconds at most,
    and not at all while it is known to be away."""

    def __init__(
        self,
        session: str | None = None,
        target: str | None = None,
        token: str | None = None,
        ca: str | os.PathLike[str] | None = None,
    ) -> None:
        """As for `headway.connect`."""
        self._session, self._target, self._token, self._ca = session, target, token, ca
        self._client: Client | None = None
        self._complained = False
        atexit.register(self.close)

    def check(self) -> None:
        """Says now, in a process that will fork, what each of its children would have to say: nothing is tracked."""
        try:
            self._connect()._in(None)
        except Exception as error:
            self._complain(error)

    def begin(self, task: str, name: str, labels: Mapping[str, str]) -> Job:
        """The job of a run that begins. A further run of the same task takes the job over from the one before; if the
        job has ended with that, it gets one of its own. The labels are those of this run.

        A run that cannot be tracked gets a job that only this process knows."""
        try:
            job = self._open(task, name)
            if job.snapshot.status in ENDED:
                job._abandon()
                if job.snapshot.status == job_pb2.JOB_STATUS_CANCELLED:
                    return untracked(job.snapshot)
                job = self._connect().job(name=name[:_NAME])
            elif _is_old(job):
                _take_over(job)
            _label(job, {**labels, "task": task})
        except Exception as error:
            self._complain(error)
            return untracked()
        # Whoever has begun the run knows best how a process ended that could not tell.
        job._course.supervised = True
        return job

    def end(self, task: str, name: str, labels: Mapping[str, str], error: object, *, cancelled: bool = False) -> None:
        """Ends the job of a run whose process cannot do that any more, or that will never begin."""
        try:
            job = self._open(task, name)
            if job.snapshot.status in ENDED:
                job._abandon()
                return
            if _is_old(job):
                # Whatever that process may still say, it comes too late.
                _take_over(job)
            else:
                _label(job, {**labels, "task": task})
            fail(job, error, cancelled=cancelled)
        except Exception as fault:
            self._complain(fault)

    def close(self) -> None:
        """Delivers what is left, or writes it down for a later process. What begins after that is tracked again."""
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def _open(self, task: str, name: str) -> Job:
        return self._connect().job(name=name[:_NAME], job_id=job_id(task))

    def _connect(self) -> Client:
        if self._client is None:
            self._client = connect(
                self._target, token=self._token, ca=self._ca, session=self._session, exit_timeout=DELIVERY
            )
        return self._client

    def _complain(self, error: Exception) -> None:
        if not self._complained:
            self._complained = True
            log.warning("headway: not tracked: %s", error)


def job_id(task: str) -> str:
    """The id of a task's job: the task's own where that is a UUID, as it is by default; else one made of it."""
    try:
        return uuid.UUID(task).hex
    except ValueError:
        return uuid.uuid5(_IDS, task).hex


def complete(job: Job, result: object) -> None:
    """The run has returned this. Results that are no JSON, or more than 1 MiB of it, are left out."""
    job.finish(result if _fits(result) else UNSET)


def fail(job: Job, error: object, *, cancelled: bool = False) -> None:
    """The run has ended because of this exception, or for a reason in words."""
    code = code_pb2.CANCELLED if cancelled or isinstance(error, JobCancelled) else code_pb2.UNKNOWN
    try:
        job.fail(error, code)
    except Exception:
        # An exception that cannot even say what it is.
        job.fail(type(error).__name__, code)


def pause(job: Job, message: str) -> None:
    """The run has ended, and another of the same task is to come."""
    job.message = message
    step = Step(after_reports=True, release=True)
    job._engine.submit(job._course, step)
    step.tried.wait(DELIVERY)


def untracked(state: job_pb2.Job | None = None) -> Job:
    """A job that nothing is reported of, so that the code of a task need not care whether it is tracked. If it is one
    that somebody has cancelled, the run is to learn of that."""
    return _Untracked(_nowhere(), state or job_pb2.Job())


class _Untracked(Job):
    def __init__(self, client: Client, state: job_pb2.Job) -> None:
        super().__init__(client, "", state, heartbeat=-1.0, started=False)
        self._joined = self._ended = True
        if state.HasField("cancellation") or state.status == job_pb2.JOB_STATUS_CANCELLED:
            self._course.cancel(state.cancellation)
        self._course.stop(None)

    def get(self, key: str) -> Json | object:
        return self._known.get(key)


@cache
def _nowhere() -> Client:
    return Client(Target("127.0.0.1:1"))


def _is_old(job: Job) -> bool:
    """Whether an earlier run has left its marks, as far as the server has answered."""
    return job.snapshot.revision > 1


def _take_over(job: Job) -> None:
    step = Step(rpc.StartJobRequest(session_id=job.session, job_id=job.id, take_over=True))
    job._engine.submit(job._course, step)
    step.tried.wait(CREATE_PATIENCE)
    if step.answer.done():
        step.answer.result()


def _label(job: Job, labels: Mapping[str, str]) -> None:
    # Not when the job is created: that must be the same call for every run of the task.
    known = {name: clean(value, _LABEL) for name, value in labels.items() if value}
    request = rpc.UpdateJobRequest(session_id=job.session, job=job_pb2.Job(id=job.id, labels=known))
    request.update_mask.paths.append("labels")
    job._engine.submit(job._course, Step(request))


def _fits(result: object) -> bool:
    try:
        return result is not None and len(json.dumps(result, allow_nan=False)) <= _RESULTS
    except Exception:
        return False
