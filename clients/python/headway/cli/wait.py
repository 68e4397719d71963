"""`headway wait`: nothing but the exit status of jobs that somebody else works on."""

from __future__ import annotations

from collections.abc import Sequence

from headway.channel import Target
from headway.cli import text
from headway.cli.safe import notice
from headway.cli.watch import EXIT, Watch
from headway.client import Client
from headway.errors import NotFoundError
from headway.requests import Deadline

NOT_FOUND, TIMED_OUT = 3, 124


def wait_for(job_ids: Sequence[str], target: Target, session: str, timeout: float | None, *, as_json: bool) -> int:
    """Waits until all of these jobs have ended, `timeout` seconds in all. Returns the highest of their exit statuses.

    `as_json`: prints each job as it ended, one a line. Raises HeadwayError if the server is away for too long.
    """
    deadline = Deadline(timeout)
    statuses = [0]
    with Client(target) as client:
        # One after the other takes as long as the longest.
        for job_id in job_ids:
            try:
                for change in Watch(client, session, job_id, timeout=deadline.left):
                    job = change.job
            except TimeoutError:
                notice(f"{job_id} has not ended in time")
                return TIMED_OUT
            except NotFoundError as error:
                notice(error.message)
                statuses.append(NOT_FOUND)
            else:
                if as_json:
                    print(text.to_json(job), flush=True)
                statuses.append(EXIT[job.status])
    return max(statuses)
