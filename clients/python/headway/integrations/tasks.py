"""What headway.celery and headway.rq share: one job for all the runs of a task, and none of the tracker's troubles for
the task."""

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
"""Seconds that the end of a run, and then that of its process, waits at most until the server has it."""

_RESULTS = 1024 * 1024
_BUILT_IN = "celery."
"""A task of Celery's own that replaces another, to collect what a group returns, says less of the work."""
_IDS = uuid.UUID("8f4c1f0e-6a5b-4d0e-9a43-3b1f6f0b7c52")

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


def suggesting(call: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Adds to the TypeError about an unknown option which one may be meant."""
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
    """Makes the jobs of one application's tasks. No method raises; each waits for the server for some seconds at most,
    and not at all while it is known to be away."""

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
        """Says now, in a process that will fork, what each of its children would have to say: nothing is tracked."""
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
        # Whoever has begun the run knows best how a process ended that could not tell.
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
        try:
            return self._connect().job(name=name, job_id=job_id(task))
        except HeadwayError as error:
            if error.code is not grpc.StatusCode.ALREADY_EXISTS:
                raise
        # Another function has begun the task, which this one has replaced, or whose id was used again.
        return self._attach(self._connect().get(None, job_id(task)))

    def _find_later(self, task: str) -> Job | None:
        """The job of a run of this task that came after its first job had ended."""
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
    """The id of a task's job: the task's own where that is a UUID, as it is by default; else one made of it."""
    try:
        return uuid.UUID(task).hex
    except ValueError:
        return uuid.uuid5(_IDS, task).hex


def current(own: Job | None, running: Mapping[str, Job]) -> Job:
    """The job of a run. In a thread that a run has started: the only job that runs in this process."""
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


def tell(job: Job) -> None:
    """Another run of the same task may begin from now on, and shall find what this one has said."""
    _submit(job, PendingCall(after_reports=True))


def pause(job: Job, message: str) -> None:
    """The run has ended, and another of the same task is to come."""
    job.message = message
    _submit(job, PendingCall(after_reports=True, release=True))


def _submit(job: Job, pending_call: PendingCall) -> None:
    job._engine.submit(job._job_state, pending_call)
    pending_call.tried.wait(DELIVERY_TIMEOUT)


def untracked(state: job_pb2.Job | None = None) -> Job:
    """A job that nothing is reported of, so that the code of a task need not care whether it is tracked. If it is one
    that somebody has cancelled, the run is to learn of that."""
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
    """Whether an earlier run has left its marks, as far as the server has answered."""
    return job.snapshot.revision > 1


def _take_over(job: Job) -> None:
    pending_call = PendingCall(rpc.StartJobRequest(session_id=job.session, job_id=job.id, take_over=True))
    job._engine.submit(job._job_state, pending_call)
    pending_call.tried.wait(CREATE_TIMEOUT)
    if pending_call.answer.done():
        pending_call.answer.result()


def _label(job: Job, labels: Mapping[str, str]) -> None:
    # Not when the job is created: that must be the same call for every run of the task.
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
