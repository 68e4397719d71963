"""RQ's jobs as jobs of Headway: one option of the worker, and one line in the function for progress.

    rq worker --worker-class headway.rq.Worker

    from headway.rq import current_job

    def stage(batch):
        for record in current_job().track(batch):
            ...

A job that such a worker runs becomes a job with the name of the function. Its id is RQ's id without dashes. It ends as
COMPLETED with the return value of the function, as FAILED with its exception, or as CANCELLED if that exception is
headway.JobCancelled, if RQ stopped the job, or after a cold shutdown of the worker. A retry takes the job over as its
next attempt: it counts from 0 again and finds the variables of the former attempt. Meanwhile the job is LOST after 60 s
without a heartbeat. If a job has ended and runs again, by `rq requeue`, as a repetition or because its id is used
again, it gets a new job. A cancelled job is not retried.

The session is HEADWAY_SESSION. Without it nothing is tracked. Jobs run the same without a server. If the server does
not answer, a run waits a second at most before it begins, and two after its result is stored. Undelivered reports are
sent later.
"""

import sys
from typing import Any

from headway._engine.lifecycle import end_process
from headway.errors import JobCancelled
from headway.integrations.tasks import DELIVERY_TIMEOUT, Runs, complete, current, fail, pause, tell
from headway.job import Job

try:
    import rq
    from rq.job import JobStatus
    from rq.worker import BaseWorker
except ImportError as error:
    raise ImportError("headway.rq needs rq: pip install 'headway[rq]'", name=error.name) from None

__all__ = ["Runs", "SimpleWorker", "Tracked", "Worker", "current_job"]

_SHUT_DOWN = "the worker was shut down"

_running: dict[str, Job] = {}


def current_job() -> Job:
    """Headway's job of the running RQ job, to report progress, set variables and check for cancellation.

    Threads that it starts share it. If nothing is tracked, for example outside of a worker, only this process knows the
    job.
    """
    running = rq.get_current_job()
    return current(_running.get(running.id) if running else None, _running)


class Tracked(BaseWorker):
    """A mixin for a worker class: `class Worker(Tracked, rq.Worker)`."""

    runs = Runs()
    """Where jobs are reported. A subclass may set another session or server."""

    # The arguments depend on the version of RQ. They are passed on unchanged.

    def execute_job(self, job: rq.job.Job, queue: rq.Queue) -> None:
        """Runs in the worker's main process."""
        self.runs.check()
        try:
            super().execute_job(job, queue)
        except SystemExit:
            # A second Ctrl-C: RQ has killed the process of the job and reports nothing more of it.
            self.runs.end(job.id, _name(job), self._labels(queue), _SHUT_DOWN, cancelled=True)
            raise

    def perform_job(self, job: rq.job.Job, queue: rq.Queue, *args: Any, **more: Any) -> bool:
        """Runs in the process of the job."""
        _running[job.id] = self.runs.begin(job.id, _name(job), self._labels(queue), lambda: _is_repeat(job))
        try:
            return super().perform_job(job, queue, *args, **more)
        finally:
            del _running[job.id]
            if self.is_horse:
                # The process ends without its atexit handlers.
                self.runs.close()
                end_process(DELIVERY_TIMEOUT)

    def handle_job_success(self, job: rq.job.Job, queue: rq.Queue, *args: Any, **more: Any) -> None:
        super().handle_job_success(job, queue, *args, **more)
        complete(_running[job.id], job._result)

    def handle_job_failure(self, job: rq.job.Job, queue: rq.Queue, *args: Any, **more: Any) -> None:
        """Also runs in the worker's main process, if the process of the job was killed, or if RQ stopped it."""
        error = sys.exc_info()[1] or str(more.get("exc_string", "")).strip("; ")
        if isinstance(error, JobCancelled):
            # A cancelled job is not retried.
            job.retries_left = 0
        again, run = bool(job.retries_left), _running.get(job.id)
        if again and run is not None:
            # Do this before RQ queues the job, because another worker may begin then.
            pause(run, f"Retry after {error!r}")
        super().handle_job_failure(job, queue, *args, **more)
        stopped = job.get_status(refresh=False) == JobStatus.STOPPED
        if again and not stopped:
            return
        if run is not None and isinstance(error, SystemExit) and self._stop_requested:
            fail(run, _SHUT_DOWN, cancelled=True)
        elif run is not None:
            fail(run, error)
        else:
            self.runs.end(job.id, _name(job), self._labels(queue), error, cancelled=stopped)

    def handle_job_retry(self, job: rq.job.Job, queue: rq.Queue, *args: Any, **more: Any) -> None:
        """For a function that returns a Retry."""
        tell(_running[job.id])
        super().handle_job_retry(job, queue, *args, **more)
        if job.get_status(refresh=False) == JobStatus.FAILED:
            fail(_running[job.id], "no retry is left")
        else:
            pause(_running[job.id], "Retry")

    def _labels(self, queue: rq.Queue) -> dict[str, str]:
        return {"queue": queue.name, "worker": self.name}


class Worker(Tracked, rq.Worker):
    """`rq.Worker`, whose work is tracked."""


class SimpleWorker(Tracked, rq.SimpleWorker):
    """`rq.SimpleWorker`, whose work is tracked."""


def _is_repeat(job: rq.job.Job) -> bool:
    """Whether RQ repeats the job by itself: it has no failure after which a person could have queued it again."""
    last = job.latest_result()
    return last is None or last.type is last.Type.RETRIED


def _name(job: rq.job.Job) -> str:
    try:
        return job.func_name or ""
    except Exception:
        # RQ fails if it cannot read the job, and reports that itself.
        return ""
