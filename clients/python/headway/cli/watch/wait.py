"""`headway wait`: waits for jobs of other workers and returns their exit status."""

from __future__ import annotations

from collections.abc import Sequence

from headway._engine.requests import Deadline
from headway.cli import formatting
from headway.cli.escaping import warn
from headway.cli.exit_codes import NOT_FOUND, OK, TIMED_OUT
from headway.cli.watch.follow import JOB_EXIT_CODES, Watch
from headway.client import Client
from headway.errors import NotFoundError, translated
from headway.target import Target
from headway.v1 import job_pb2
from headway.v1 import job_service_pb2 as pb

_LOOK_TIMEOUT = 10.0
"""Seconds."""


def wait_for(job_ids: Sequence[str], target: Target, session: str, timeout: float | None, *, as_json: bool) -> int:
    """Waits until all of these jobs have ended, `timeout` seconds in all. Returns the highest of their exit statuses.

    Jobs that have ended already are reported even with a short timeout. `as_json`: prints each job as it ended, one a
    line. Raises HeadwayError if the server does not answer at first, or later for too long.
    """
    deadline = Deadline(timeout)
    statuses = [OK]
    with Client(target) as client:
        jobs = [_look(client, session, job_id) for job_id in job_ids]
        # Waiting for one after the other takes as long as the longest job.
        for job_id, job in zip(job_ids, jobs, strict=True):
            try:
                if job is not None and job.status not in JOB_EXIT_CODES:
                    for change in Watch(client, session, job_id, timeout=deadline.left, answered_before=True):
                        job = change.job
            except TimeoutError:
                warn(f"{job_id} has not ended in time")
                return TIMED_OUT
            except NotFoundError:
                job = None
            if job is None:
                warn(f"there is no job {job_id} in this session")
                statuses.append(NOT_FOUND)
                continue
            if as_json:
                print(formatting.to_json(job), flush=True)
            statuses.append(JOB_EXIT_CODES[job.status])
    return max(statuses)


def _look(client: Client, session: str, job_id: str) -> job_pb2.Job | None:
    request = pb.GetJobRequest(session_id=session, job_id=job_id)
    try:
        with translated():
            return client.stub.GetJob(request, timeout=_LOOK_TIMEOUT)
    except NotFoundError:
        return None
