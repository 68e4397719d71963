"""One command about several jobs."""

from __future__ import annotations

from argparse import ArgumentTypeError, Namespace
from collections.abc import Callable, Sequence

import grpc

from headway.cli import error_output, formatting, job_selection
from headway.cli.call_context import Caller
from headway.cli.escaping import warn
from headway.cli.exit_codes import OK
from headway.errors import from_rpc_error
from headway.v1 import job_service_pb2 as pb

ENDED = ("COMPLETED", "FAILED", "CANCELLED")


def with_whole_ids(args: Namespace, hw: Caller) -> None:
    """Replaces beginnings of ids by whole ids. See `job_selection.whole_id`."""
    if getattr(args, "job", None):
        args.job = job_selection.whole_id(hw.stub, hw.session, args.job, hw.call_timeout)
    if getattr(args, "jobs", None):
        args.jobs = [job_selection.whole_id(hw.stub, hw.session, job, hw.call_timeout) for job in args.jobs]


def each(args: Namespace, hw: Caller, one: Callable[[str], None], done: str, statuses: Sequence[str]) -> int:
    """Does `one` to each job that the command line names, or that its filters mean; of these, where no status is asked
    for, to those with one of `statuses`. `done`: what has then been done to them.

    Returns 0, or of several jobs the highest exit status. RpcError for a single job, or if the server does not answer.
    """
    by_filter = job_selection.are_given(args)
    if bool(args.jobs) == by_filter:
        raise ArgumentTypeError("give either ids of jobs or options such as --status, not both")
    if args.jobs and not args.dry_run and len(args.jobs) == 1:
        one(args.jobs[0])
        return OK
    if by_filter:
        if not (args.status or args.all or args.active):
            args.status = list(statuses)
        request = job_selection.filters(args, hw.session)
        # List all jobs first: jobs that are removed or ended meanwhile would shift the pages.
        jobs = list(job_selection.listed(hw.stub, request, hw.call_timeout))
    else:
        jobs = [
            hw.stub.GetJob(pb.GetJobRequest(session_id=hw.session, job_id=job_id), timeout=hw.call_timeout)
            for job_id in (args.jobs if args.dry_run else ())
        ]
    if args.dry_run:
        hw.show(pb.ListJobsResponse(jobs=jobs), "\n".join(formatting.table(jobs)) if jobs else "")
        warn(f"{_jobs(len(jobs))} would be {done}")
        return OK
    ids = [job.id for job in jobs] if by_filter else args.jobs
    worst, count = 0, 0
    for job_id in ids:
        try:
            one(job_id)
            count += 1
        except grpc.RpcError as error:
            fault = from_rpc_error(error)
            if fault.code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
                warn(f"{_jobs(count)} of {len(ids)} {done}")
                raise
            worst = max(worst, error_output.tell(fault, hw.address, as_json=hw.json, job_id=job_id))
    warn(f"{_jobs(count)}{f' of {len(ids)}' if count < len(ids) else ''} {done}")
    return worst


def _jobs(count: int) -> str:
    return f"{formatting.number(count)} job{'s' * (count != 1)}"
