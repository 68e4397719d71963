"""RQ's jobs as jobs of Headway: an option of the worker, and for progress a line in the function.

    rq worker --worker-class headway.rq.Worker

    from headway.rq import current_job

    def stage(batch):
        for record in current_job().track(batch):
            ...

What such a worker runs becomes a job with the name of the function; its id is RQ's, without the dashes. It ends
COMPLETED with what the function returns, FAILED with its exception, or CANCELLED if that is headway.JobCancelled, if
the job was stopped with RQ's means, or if the worker shut down cold. A retry takes the job over as its next attempt: it
counts from 0 again, and finds the variables of the attempt before. While it waits for that, the job is LOST as soon as
its heartbeats have been missing for 60 s. A job that has ended and is run once more, by `rq requeue`, as a repetition
or since its id is used again, gets another job. What was cancelled is not retried.

The session is HEADWAY_SESSION, without it nothing is tracked. Whether the server is there changes nothing for the work:
a run waits a second at most, where the server hangs, before it begins, and two after its result is stored; what could
not be delivered then is sent later.
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
    """Headway's job of what RQ runs here: to advance, to set variables, to ask whether it shall end early.

    The threads that it starts share it. Where nothing is tracked, outside of a worker for example, it is a job that
    only this process knows.
    """
    running = rq.get_current_job()
    return current(_running.get(running.id) if running else None, _running)


class Tracked(BaseWorker):
    """To be mixed in before a worker class: `class Worker(Tracked, rq.Worker)`."""

    runs = Runs()
    """Where jobs are reported; a subclass may have one with another session or server."""

    # RQ calls these with what its version calls for; all of that goes on to it as it is.

    def execute_job(self, job: rq.job.Job, queue: rq.Queue) -> None:
        """Runs in the worker's main process."""
        self.runs.check()
        try:
            super().execute_job(job, queue)
        except SystemExit:
            # A second Ctrl-C: RQ has killed the process that did the work, and says no more of the job.
            self.runs.end(job.id, _name(job), self._labels(queue), _SHUT_DOWN, cancelled=True)
            raise

    def perform_job(self, job: rq.job.Job, queue: rq.Queue, *args: Any, **more: Any) -> bool:
        """Runs in the process that does the work."""
        _running[job.id] = self.runs.begin(job.id, _name(job), self._labels(queue), lambda: _is_repeat(job))
        try:
            return super().perform_job(job, queue, *args, **more)
        finally:
            del _running[job.id]
            if self.is_horse:
                # It is about to end without its atexit handlers.
                self.runs.close()
                end_process(DELIVERY_TIMEOUT)

    def handle_job_success(self, job: rq.job.Job, queue: rq.Queue, *args: Any, **more: Any) -> None:
        super().handle_job_success(job, queue, *args, **more)
        complete(_running[job.id], job._result)

    def handle_job_failure(self, job: rq.job.Job, queue: rq.Queue, *args: Any, **more: Any) -> None:
        """Runs in the worker's main process too, if the one that did the work was killed, or stopped by RQ's means."""
        error = sys.exc_info()[1] or str(more.get("exc_string", "")).strip("; ")
        if isinstance(error, JobCancelled):
            # What was cancelled is not tried again.
            job.retries_left = 0
        again, run = bool(job.retries_left), _running.get(job.id)
        if again and run is not None:
            # Before RQ queues it, and another worker may begin.
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
    """Whether RQ runs it again by itself: there is no failure that somebody could have queued it again after."""
    last = job.latest_result()
    return last is None or last.type is last.Type.RETRIED


def _name(job: rq.job.Job) -> str:
    try:
        return job.func_name or ""
    except Exception:
        # What cannot be read fails in RQ's hands, and is told then.
        return ""
