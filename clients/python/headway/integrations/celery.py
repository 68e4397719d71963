"""Celery tasks as jobs.

    from headway.celery import current_job, track

    app = Celery("imports", broker="redis://localhost")
    track(app)

    @app.task
    def stage(batch):
        for record in current_job().track(batch):
            ...

A task that a worker runs becomes a job of the same name, RUNNING from its first run on; its id is that of the task,
without the dashes. It ends COMPLETED with what the task returns, FAILED with the task's exception, or CANCELLED if that
is JobCancelled, if the task was revoked, or if the worker shut down cold. A retry, a task that replaces it, or a
delivery after a worker was lost, takes the job over as its next attempt: it counts from 0 again, and finds the
variables of the attempt before. While it waits for that, the job is LOST as soon as its heartbeats have been missing
for 60 s.

Whether the server is there changes nothing for the task. A run waits a second at most, where the server hangs, before
it begins and after its result is stored; what could not be delivered then is sent later.
"""

import os
import signal
import sys
from collections.abc import Container, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING

from headway._engine.lifecycle import end_process
from headway.errors import JobCancelled
from headway.integrations.tasks import DELIVERY_TIMEOUT, Runs, complete, current, fail, pause, suggesting, tell
from headway.job import Job

try:
    from celery import signals, states
    from celery.exceptions import Reject
except ImportError as error:
    raise ImportError("headway.celery needs celery: pip install 'headway[celery]'", name=error.name) from None

if TYPE_CHECKING:
    from celery import Celery, Task
    from celery.app.task import Context

__all__ = ["current_job", "track"]

_REPLACED = ("Replaced by new task",)
"""What Celery says with Ignore where the task is to run on as another one."""

_running: dict[str, Job] = {}
_current: ContextVar[Job | None] = ContextVar("_current", default=None)


def current_job() -> Job:
    """The job of the task that runs here: to advance, to set variables, to ask whether it shall end early.

    A task that this one calls as a function shares its job. So do the threads that it starts, as long as the process
    runs no other task. Where nothing is tracked, outside of a worker for example, it is a job that only this process
    knows.
    """
    return current(_current.get(), _running)


@suggesting
def track(
    app: "Celery",
    *,
    session: str | None = None,
    target: str | None = None,
    token: str | None = None,
    ca: str | os.PathLike[str] | None = None,
    tasks: Container[str] | None = None,
) -> None:
    """Makes jobs of the app's tasks, or of those that have one of these names, in every worker that imports this call.

    `session`: else HEADWAY_SESSION; without either nothing is tracked, which is a warning of the logger `headway`. The
    rest is as for `headway.connect`. Tasks that are called eagerly are not tracked.
    """
    tracker = _Tracker(app, Runs(session, target, token, ca), tasks)
    for event, receiver in (
        (signals.celeryd_after_setup, tracker.is_ready),
        (signals.task_prerun, tracker.begins),
        (signals.before_task_publish, tracker.is_sent),
        (signals.task_postrun, tracker.ends),
        (signals.task_failure, tracker.fails),
        (signals.task_retry, tracker.is_stopped),
        (signals.task_revoked, tracker.is_revoked),
        (signals.worker_process_shutdown, tracker.leaves),
    ):
        event.connect(receiver, weak=False, dispatch_uid=f"headway {id(app)}")


class _Tracker:
    """What Celery's signals do, which are sent in the process that runs the task unless told otherwise here."""

    def __init__(self, app: "Celery", runs: Runs, tasks: Container[str] | None) -> None:
        self._app = app
        self._runs = runs
        self._tasks = tasks
        self._main = 0
        """The main process of this worker."""

    def is_ready(self, **_: object) -> None:
        """Sent in the main process of a worker, before it has others."""
        self._main = os.getpid()
        self._runs.check()

    def begins(self, sender: "Task[..., object]", task_id: str, **_: object) -> None:
        if self._is_tracked(sender):
            request = sender.request
            job = self._runs.begin(task_id, sender.name, _labels(request), lambda: _is_repeat(request))
            _running[task_id] = job
            _current.set(job)

    def is_sent(self, headers: Mapping[str, object] | None = None, **_: object) -> None:
        """Sent before a task is queued: the one that runs here, if it is retried or replaced."""
        job = _running.get(str((headers or {}).get("id")))
        if job is not None:
            tell(job)

    def ends(self, task_id: str, state: str | None, retval: object, **_: object) -> None:
        job = _running.pop(task_id, None)
        if job is None:
            return
        _current.set(None)
        match state:
            case states.SUCCESS:
                complete(job, retval)
            case states.FAILURE:
                fail(job, retval)
            case states.IGNORED if getattr(retval, "args", ()) == _REPLACED:
                pause(job, "Replaced by another task")
            case states.IGNORED:
                job.finish()
            case states.REJECTED if not getattr(retval, "requeue", False):
                fail(job, retval)
            case states.RETRY if isinstance(reason := getattr(retval, "exc", None), JobCancelled):
                # What was cancelled has ended, and the runs that Celery may still begin are told so.
                fail(job, reason)
            case states.RETRY | states.REJECTED:
                pause(job, str(retval))
            case _ if os.getpid() == self._main:
                # No task's failure for Celery, as of SystemExit, and nobody else tells of it.
                fail(job, sys.exc_info()[1] or "the task was broken off")
            case _:
                # The process is about to end, and only the one that has forked it will know how.
                pause(job, job.message)

    def fails(self, sender: "Task[..., object]", task_id: str, exception: object, **_: object) -> None:
        """Sent in the main process of a worker too: when the one that ran the task was lost, or had to be killed."""
        if task_id not in _running and not isinstance(exception, Reject) and self._is_tracked(sender):
            self._runs.end(task_id, sender.name, _labels(sender.request), exception)

    def is_stopped(self, sender: "Task[..., object]", request: "Context", **_: object) -> None:
        """Sent where a task is retried, and in the main process where it stops a task as it shuts down cold. Celery
        calls that a retry too, but nobody runs it again who was told already that the task was received."""
        elsewhere = os.getpid() == self._main and request.id not in _running
        if request.id and elsewhere and self._is_tracked(sender) and not sender.acks_late:
            self._runs.end(request.id, sender.name, _labels(request), "the worker was shut down", cancelled=True)

    def is_revoked(
        self,
        sender: "Task[..., object]",
        request: "Context",
        terminated: bool,
        signum: int | str | None,
        expired: bool,
        **_: object,
    ) -> None:
        """Sent in the main process of a worker."""
        if request.id and self._is_tracked(sender):
            reason = f"terminated by {_name_of(signum)}" if terminated else "expired" if expired else "revoked"
            self._runs.end(request.id, sender.name, _labels(request), reason, cancelled=True)

    def leaves(self, **_: object) -> None:
        """Sent in each process of a pool as it ends, which it does without its atexit handlers."""
        self._runs.close()
        end_process(DELIVERY_TIMEOUT)

    def _is_tracked(self, task: "Task[..., object]") -> bool:
        wanted = self._tasks is None or task.name in self._tasks
        return wanted and task.app is self._app and not task.request.is_eager


def _is_repeat(request: "Context") -> bool:
    return bool(request.retries or (request.delivery_info or {}).get("redelivered"))


def _labels(request: "Context") -> dict[str, str]:
    delivery = request.delivery_info or {}
    return {"queue": str(delivery.get("routing_key") or ""), "worker": request.hostname or ""}


def _name_of(signum: int | str | None) -> str:
    try:
        return signal.Signals(int(signum or 0)).name
    except ValueError:
        return str(signum)
