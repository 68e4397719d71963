"""`headway create` and `headway retry`: new jobs, jobs with a key, and jobs that continue others."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING

import grpc

from headway._engine.requests import FIND_TIMEOUT, described
from headway._engine.takeover import may_have_begun
from headway.cli import argument_types
from headway.cli.exit_codes import OK
from headway.errors import from_rpc_error
from headway.ids import uuid7
from headway.v1 import job_pb2
from headway.v1 import job_service_pb2 as pb

if TYPE_CHECKING:
    from headway.cli.call_context import Caller


def retry(args: Namespace, hw: Caller) -> int:
    request = pb.CreateJobRequest(
        session_id=hw.session, job_id=uuid7() if args.id is None else args.id, continues=args.job, pending=args.pending
    )
    if args.heartbeat_timeout is not None:
        request.heartbeat_timeout.CopyFrom(argument_types.to_duration(args.heartbeat_timeout))
    return create(request, hw)


def create(request: pb.CreateJobRequest, hw: Caller) -> int:
    """Creates the job, or takes over the job with its key, and shows it. A call that offline mode saves creates a new
    job."""
    kept = pb.CreateJobRequest()
    kept.CopyFrom(request)
    kept.key_if_free = bool(request.key)
    # Without the answer all work would be done again.
    least = FIND_TIMEOUT if may_have_begun(request) else 0.0
    job = hw.send(lambda timeout: _created(request, hw, max(timeout, least)), kept) or described(request)
    hw.show(job, job.id)
    return OK


def _created(request: pb.CreateJobRequest, hw: Caller, timeout: float) -> job_pb2.Job:
    while True:
        job = hw.stub.CreateJob(request, timeout=timeout)
        if request.pending or job.id == request.job_id:
            return job
        try:
            start = pb.StartJobRequest(session_id=hw.session, job_id=job.id, take_over=True)
            return hw.stub.StartJob(start, timeout=timeout)
        except grpc.RpcError as error:
            # The job may have ended just now.
            if from_rpc_error(error).reason != "JOB_ENDED":
                raise
