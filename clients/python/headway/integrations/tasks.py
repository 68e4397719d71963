"""The common part of headway.celery and headway.rq: one job for all runs of a task. Problems of the tracking never
affect the task."""

import atexit
import difflib
import inspect
import json
import os
import uuid
from collections.abc import Callable, Mapping
from functools import cache, wraps
from typing import ParamSpec, TypeVar

import grpc
from google.rpc import code_pb2

from headway._engine.connection_state import log
from headway._engine.job_state import PendingCall
from headway._engine.requests import CREATE_TIMEOUT, ENDED, heartbeat
from headway.client import Client, connect
from headway.errors import HeadwayError, JobCancelled
from headway.job import UNSET, Job, Status
from headway.limits import LABEL_LENGTH, NAME_LENGTH
from headway.target import Target
from headway.v1 import job_pb2
from headway.v1 import job_service_pb2 as rpc
from headway.values import Json, clean

DELIVERY_TIMEOUT = 1.0
"""Seconds to wait at most until the server has the end of a run, and again at the end of its process."""

_RESULTS = 1024 * 1024
_BUILT_IN = "celery."
"""Celery has tasks of its own that replace another task, to collect the results of a group. Their names say less about
the work."""
_IDS = uuid.UUID("8f4c1f0e-6a5b-4d0e-9a43-3b1f6f0b7c52")

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


def suggesting(call: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Adds to the TypeError for an unknown option the option that was probably meant."""
    known = list(inspect.signature(call).parameters)

    @wraps(call)
    def checked(*args: Parameters.args, **options: Parameters.kwargs) -> Result:
        for name in options:
            if name not in known:
                near = difflib.get_close_matches(name, known, 1)
                hint = f" Did you mean {near[0]!r}?" if near else ""
                raise TypeError(f"{call.__qualname__} has no option {name!r}.{hint}")
        return call(*args, **options)

    return checked


class Runs:
    """Creates the jobs of one application's tasks. No method raises. Each waits some seconds for the server at most,
    and not at all while the server is known to be unreachable."""

    @suggesting
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
        """Logs now, in a process that will fork, that nothing is tracked. Otherwise each of its children would log
        it."""
        try:
            self._connect()._in(None)
        except Exception as error:
            self._complain(error)

    def begin(self, task: str, name: str, labels: Mapping[str, str], is_repeat: Callable[[], bool]) -> Job:
        """The job of a run that begins. A further run of the same task takes the job over from the one before; if the
        job has ended with that, it gets one of its own. The labels are those of this run. `is_repeat`: whether the
        queue itself has the task run again, so that what was cancelled stays cancelled.

        A run that cannot be tracked gets a job that only this process knows."""
        labels = {**labels, "task": task}
        try:
            job = self._open(task, name)
            if job.snapshot.status in ENDED:
                job._abandon()
                if job.cancellation is not None and is_repeat():
                    return untracked(job.snapshot)
                job = self._connect().job(name=name, labels=_clean(labels))
            else:
                if _is_old(job):
                    _take_over(job)
                job.progress = 0
                if job.name != name[:NAME_LENGTH]:
                    # Another function has begun the task, which this one has replaced.
                    job.size = 0
                    if not name.startswith(_BUILT_IN):
                        job.name = name
                _label(job, labels)
        except Exception as error:
            self._complain(error)
            return untracked()
        # The process that has begun the run knows best how a lost process ended.
        job._job_state.supervised = True
        return job

    def end(self, task: str, name: str, labels: Mapping[str, str], error: object, *, cancelled: bool = False) -> None:
        """Ends the job of a run whose process cannot do that any more, or that will never begin."""
        try:
            first = self._open(task, name)
            job: Job | None = first
            if first.snapshot.status in ENDED:
                first._abandon()
                job = self._find_later(task)
            if job is None:
                return
            if _is_old(job):
                # Later reports of that process are refused.
                _take_over(job)
            else:
                _label(job, {**labels, "task": task})
            fail(job, error, cancelled=cancelled)
        except Exception as fault:
            self._complain(fault)

    def close(self) -> None:
        """Delivers the remaining reports, or saves them for a later process. Runs that begin after that are tracked
        again."""
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def _open(self, task: str, name: str) -> Job:
        try:
            return self._connect().job(name=name, job_id=job_id(task))
        except HeadwayError as error:
            if error.code is not grpc.StatusCode.ALREADY_EXISTS:
                raise
        # Another function has begun the task, which this one has replaced, or whose id was used again.
        return self._attach(self._connect().get(None, job_id(task)))

    def _find_later(self, task: str) -> Job | None:
        """The job of a run of this task after its first job has ended."""
        unfinished = [Status.RUNNING, Status.LOST]
        return next(map(self._attach, self._connect().list(labels=_clean({"task": task}), statuses=unfinished)), None)

    def _attach(self, state: job_pb2.Job) -> Job:
        client = self._connect()
        return Job(client, client._in(None), state, heartbeat=heartbeat(state), started=True)

    def _connect(self) -> Client:
        if self._client is None:
            self._client = connect(
                self._target, token=self._token, ca=self._ca, session=self._session, exit_timeout=DELIVERY_TIMEOUT
            )
        return self._client

    def _complain(self, error: Exception) -> None:
        if not self._complained:
            self._complained = True
            log.warning("headway: not tracked: %s", error)


def job_id(task: str) -> str:
    """The id of a task's job: the id of the task if that is a UUID, which is the default, else an id made from it."""
    try:
        return uuid.UUID(task).hex
    except ValueError:
        return uuid.uuid5(_IDS, task).hex


def current(own: Job | None, running: Mapping[str, Job]) -> Job:
    """The job of a run. In a thread that a run has started: the only running job of this process."""
    if own is not None:
        return own
    candidates = list(running.values())
    if len(candidates) == 1:
        return candidates[0]
    if candidates:
        _warn_of_stray_thread()
    return untracked()


@cache
def _warn_of_stray_thread() -> None:
    log.warning(
        "headway: current_job() was called in a thread that no task runs in, while several tasks run: nothing is"
        " counted there. Call it in the task, and pass the job to the thread."
    )


def complete(job: Job, result: object) -> None:
    """Ends the job with the return value of the run. Results that are not JSON, or larger than 1 MiB, are left out."""
    job.finish(result if _fits(result) else UNSET)


def fail(job: Job, error: object, *, cancelled: bool = False) -> None:
    """Ends the job with an exception, or with a reason as text."""
    code = code_pb2.CANCELLED if cancelled or isinstance(error, JobCancelled) else code_pb2.UNKNOWN
    try:
        job.fail(error, code)
    except Exception:
        # An exception that cannot be converted to text.
        job.fail(type(error).__name__, code)


def tell(job: Job) -> None:
    """Delivers the reports of this run, because another run of the same task may begin now."""
    _submit(job, PendingCall(after_reports=True))


def pause(job: Job, message: str) -> None:
    """Releases the job, because another run of the same task follows."""
    job.message = message
    _submit(job, PendingCall(after_reports=True, release=True))


def _submit(job: Job, pending_call: PendingCall) -> None:
    job._engine.submit(job._job_state, pending_call)
    pending_call.tried.wait(DELIVERY_TIMEOUT)


def untracked(state: job_pb2.Job | None = None) -> Job:
    """A job that is not reported, so that the code of a task works without tracking too. If the job was cancelled, the
    run learns it."""
    return _Untracked(_nowhere(), state or job_pb2.Job())


class _Untracked(Job):
    def __init__(self, client: Client, state: job_pb2.Job) -> None:
        super().__init__(client, "", state, heartbeat=-1.0, started=False)
        self._joined = self._ended = True
        if state.HasField("cancellation") or state.status == job_pb2.JOB_STATUS_CANCELLED:
            self._job_state.cancel(state.cancellation)
        self._job_state.stop(None)

    def get(self, key: str) -> Json | object:
        return self._known.get(key)


@cache
def _nowhere() -> Client:
    return Client(Target("127.0.0.1:1"))


def _is_old(job: Job) -> bool:
    """Whether an earlier run has reported the job, as far as the server has answered."""
    return job.snapshot.revision > 1


def _take_over(job: Job) -> None:
    pending_call = PendingCall(rpc.StartJobRequest(session_id=job.session, job_id=job.id, take_over=True))
    job._engine.submit(job._job_state, pending_call)
    pending_call.tried.wait(CREATE_TIMEOUT)
    if pending_call.answer.done():
        pending_call.answer.result()


def _label(job: Job, labels: Mapping[str, str]) -> None:
    # Labels are not part of the creation, which must be the same call for every run of the task.
    request = rpc.UpdateJobRequest(session_id=job.session, job=job_pb2.Job(id=job.id, labels=_clean(labels)))
    request.update_mask.paths.append("labels")
    job._engine.submit(job._job_state, PendingCall(request))


def _clean(labels: Mapping[str, str]) -> dict[str, str]:
    return {name: clean(value, LABEL_LENGTH) for name, value in labels.items() if value}


def _fits(result: object) -> bool:
    try:
        return result is not None and len(json.dumps(result, allow_nan=False)) <= _RESULTS
    except Exception:
        return False
