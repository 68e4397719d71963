"""Completes job ids in a shell, from the session's newest jobs."""

from __future__ import annotations

import os
import re
from argparse import Namespace

TIMEOUT = 1.0
"""Seconds that a completion may take."""
NEWEST = 100


def job_ids(prefix: str, parsed_args: Namespace, **_: object) -> dict[str, str]:
    """The ids that begin with `prefix`, with descriptions. If there are none, the ids of jobs with `prefix` in their
    names. None if the server does not answer."""
    import grpc

    from headway.cli import formatting
    from headway.cli.escaping import safe
    from headway.target import Target, open_channel
    from headway.v1 import job_service_pb2 as pb
    from headway.v1.job_service_pb2_grpc import JobServiceStub

    given = vars(parsed_args)
    session = given.get("session") or os.environ.get("HEADWAY_SESSION", "")
    try:
        target = Target.from_environment(given.get("target"), given.get("token"), given.get("ca"))
        with open_channel(target, retry=False) as channel:
            request = pb.ListJobsRequest(session_id=session, page_size=NEWEST)
            jobs = JobServiceStub(channel).ListJobs(request, timeout=TIMEOUT).jobs
    except (grpc.RpcError, ValueError):
        return {}
    word = prefix.lower()
    found = [job for job in jobs if job.id.startswith(word)] or [job for job in jobs if word in job.name.lower()]
    return {job.id: f"{formatting.status(job)} {safe(job.name)}" for job in found}


def is_offered(completion: str, prefix: str) -> bool:
    """Whether a completion fits the typed text. An id may replace a name."""
    return completion.startswith(prefix) or re.fullmatch("[0-9a-f]{32}", completion) is not None
