"""Celery tasks as jobs.

    from headway.celery import current_job, track

    app = Celery("imports", broker="redis://localhost")
    track(app)

    @app.task
    def stage(batch):
        for record in current_job().track(batch):
            ...

A task that a worker runs becomes a job of the same name. The job is RUNNING from the first run on. Its id is the id of
the task without dashes. It ends as COMPLETED with the return value of the task, as FAILED with its exception, or as
CANCELLED if that exception is JobCancelled, if the task was revoked, or after a cold shutdown of the worker. A retry, a
task that replaces it, or a new delivery after a lost worker takes the job over as its next attempt: it counts from 0
again and finds the variables of the former attempt. Meanwhile the job is LOST after 60 s without a heartbeat.

Tasks run the same without a server. If the server does not answer, a run waits a second at most before it begins, and
again after its result is stored. Undelivered reports are sent later.
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
"""The arguments of Celery's Ignore if another task replaces this one."""

_running: dict[str, Job] = {}
_current: ContextVar[Job | None] = ContextVar("_current", default=None)


def current_job() -> Job:
    """The job of the running task, to report progress, set variables and check for cancellation.

    A task that this one calls as a function shares its job. Threads that it starts share it too, while the process runs
    no other task. If nothing is tracked, for example outside of a worker, only this process knows the job.
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
    """Creates jobs for the app's tasks, or for those with one of these names, in every worker that imports this call.

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
    """The receivers of Celery's signals. Celery sends them in the process that runs the task, unless a docstring here
    says otherwise."""

    def __init__(self, app: "Celery", runs: Runs, tasks: Container[str] | None) -> None:
        self._app = app
        self._runs = runs
        self._tasks = tasks
        self._main = 0
        """The main process of this worker."""

    def is_ready(self, **_: object) -> None:
        """Sent in the main process of a worker, before it starts others."""
        self._main = os.getpid()
        self._runs.check()

    def begins(self, sender: "Task[..., object]", task_id: str, **_: object) -> None:
        if self._is_tracked(sender):
            request = sender.request
            job = self._runs.begin(task_id, sender.name, _labels(request), lambda: _is_repeat(request))
            _running[task_id] = job
            _current.set(job)

    def is_sent(self, headers: Mapping[str, object] | None = None, **_: object) -> None:
        """Sent before a task is queued. That is the running task if it is retried or replaced."""
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
                # A cancelled job has ended. Runs that Celery may still begin see that.
                fail(job, reason)
            case states.RETRY | states.REJECTED:
                pause(job, str(retval))
            case _ if os.getpid() == self._main:
                # Celery does not count this as a failure of the task, as with SystemExit, and reports it nowhere else.
                fail(job, sys.exc_info()[1] or "the task was broken off")
            case _:
                # The process is about to end. Only its parent will know how.
                pause(job, job.message)

    def fails(self, sender: "Task[..., object]", task_id: str, exception: object, **_: object) -> None:
        """Also sent in the main process of a worker, if the process of the task was lost or killed."""
        if task_id not in _running and not isinstance(exception, Reject) and self._is_tracked(sender):
            self._runs.end(task_id, sender.name, _labels(sender.request), exception)

    def is_stopped(self, sender: "Task[..., object]", request: "Context", **_: object) -> None:
        """Sent if a task is retried, and in the main process if a cold shutdown stops a task. Celery calls that a retry
        too, but a task that was acknowledged already does not run again."""
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
        """Sent in each process of a pool at its end. Such a process does not run its atexit handlers."""
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
