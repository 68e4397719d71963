"""The jobs that a command means: by ids, by beginnings of ids, or by filters."""

from __future__ import annotations

import re
from argparse import ArgumentTypeError, Namespace
from collections.abc import Iterator

from headway.cli import formatting
from headway.cli.escaping import safe
from headway.v1 import job_pb2
from headway.v1 import job_service_pb2 as pb
from headway.v1.job_service_pb2_grpc import JobServiceStub

PAGE = 1000
"""Jobs in one answer. This is the limit of the server."""
UNENDED = ("PENDING", "RUNNING", "LOST")
CANDIDATES = 5
"""Jobs that the error names if the beginning of an id fits several."""

_ID = re.compile(r"[0-9a-f]{32}")
_BEGINNING = re.compile(r"[0-9a-f]{4,31}")
"""Shorter beginnings fit all jobs of several years."""


def filters(args: Namespace, session: str) -> pb.ListJobsRequest:
    """The jobs of the session that the options of `list` mean."""
    statuses = [*args.status, *(UNENDED if getattr(args, "active", False) else ())]
    return pb.ListJobsRequest(
        session_id=session,
        statuses=[f"JOB_STATUS_{name}" for name in statuses],
        name=args.name,
        invoker=args.invoker,
        labels=dict(args.label),
        stalled=args.stalled,
    )


def are_given(args: Namespace) -> bool:
    """Whether any option of `list` is given."""
    chosen = getattr(args, "all", False) or getattr(args, "active", False)
    return bool(chosen or args.status or args.name or args.invoker or args.label) or args.stalled is not None


def matches(job: job_pb2.Job, request: pb.ListJobsRequest) -> bool:
    """Whether the server would list the job."""
    return (
        (not request.statuses or job.status in request.statuses)
        and request.name in ("", job.name)
        and request.invoker in ("", job.invoker)
        and all(job.labels.get(key) == value for key, value in request.labels.items())
        and (not request.HasField("stalled") or job.stalled == request.stalled)
    )


def listed(stub: JobServiceStub, request: pb.ListJobsRequest, timeout: float) -> Iterator[job_pb2.Job]:
    """All of them, newest first. RpcError."""
    page = pb.ListJobsRequest()
    page.CopyFrom(request)
    page.page_size = PAGE
    while True:
        answer = stub.ListJobs(page, timeout=timeout)
        yield from answer.jobs
        page.page_token = answer.next_page_token
        if not page.page_token:
            return


def whole_id(stub: JobServiceStub, session: str, given: str, timeout: float) -> str:
    """The id that `given` is, in lower case, or begins. The server refuses a text that cannot be an id.

    ArgumentTypeError if several jobs' ids begin like that, LookupError if none does, RpcError.
    """
    lower = given.lower()
    if _ID.fullmatch(lower):
        return lower
    if not _BEGINNING.fullmatch(lower):
        return given
    jobs = listed(stub, pb.ListJobsRequest(session_id=session), timeout)
    found = [job for job in jobs if job.id.startswith(lower)]
    if len(found) > 1:
        named = ", ".join(
            f"{job.id} ({formatting.status(job)} {safe(job.name) or 'unnamed'})" for job in found[:CANDIDATES]
        )
        more = f" and {len(found) - CANDIDATES} more" if len(found) > CANDIDATES else ""
        raise ArgumentTypeError(f"{given} is the beginning of {len(found)} jobs' ids: {named}{more}")
    if not found:
        raise LookupError(f"no job's id in this session begins with {given}")
    return found[0].id
