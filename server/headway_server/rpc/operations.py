"""google.longrunning.Operations for the same jobs, for clients that know only this service.

The name of an operation is `sessions/{session_id}/operations/{job_id}`. Its metadata is the Job, and its response the
results as a google.protobuf.Value (null if there are none).
"""

import asyncio
from contextlib import suppress

from google.longrunning import operations_proto_pb2 as pb
from google.protobuf import empty_pb2

from headway_server.domain.commands import Cancel, Clear
from headway_server.domain.errors import JobEnded
from headway_server.domain.job import ENDED, Job, Status
from headway_server.domain.limits import INT64_MAX, Limits
from headway_server.resources.large_replies import LargeReplies
from headway_server.rpc import encoded_replies, from_proto, to_proto
from headway_server.rpc.call_guard import Caller
from headway_server.rpc.sessions import Sessions
from headway_server.rpc.validation import Checks
from headway_server.service.job_service import Jobs, Name
from headway_server.storage.listing import Filter

MUST_BE_NAME = "must be sessions/{session_id}/operations/{job_id}"

VALUE_TYPE = "type.googleapis.com/google.protobuf.Value"

FILTER_LENGTH = 64
"""The longest accepted filter, in characters."""

FILTERS = {"": None, "done=true": True, "done=false": False}
"""The accepted values of `filter`, without blanks."""


class OperationsServicer:
    """google.longrunning.Operations."""

    def __init__(
        self,
        jobs: Jobs,
        sessions: Sessions,
        limits: Limits,
        cancel_grace: int,
        longest_poll: int,
        large_replies: LargeReplies,
    ) -> None:
        self._longest_poll = longest_poll
        self._large_replies = large_replies
        self._jobs = jobs
        self._sessions = sessions
        self._limits = limits
        self._cancel_grace = cancel_grace

    async def GetOperation(self, request: pb.GetOperationRequest, caller: Caller) -> pb.Operation:
        return await self._operation(request.name, await self._jobs.get(self._name(request.name, caller)))

    async def ListOperations(self, request: pb.ListOperationsRequest, caller: Caller) -> pb.ListOperationsResponse:
        checks = Checks(self._limits)
        # Take the rest literally: a session id may contain slashes and anything else.
        parent = request.name
        session_id = parent.removeprefix("sessions/")
        if session_id == parent:
            checks.fault("name", "must be sessions/{session_id}")
        session = self._sessions(session_id, caller, checks, "name")
        done = None
        if len(request.filter) > FILTER_LENGTH or (condition := "".join(request.filter.split())) not in FILTERS:
            checks.fault("filter", "must be done=true or done=false")
        else:
            done = FILTERS[condition]
        size = checks.not_negative("page_size", request.page_size) or from_proto.DEFAULT_PAGE_SIZE
        checks.done()
        statuses = frozenset(status for status in Status if done is None or (status in ENDED) == done)
        wanted = Filter(session, statuses if done is not None else frozenset())
        page = await self._jobs.page(wanted, min(size, self._limits.page_size), request.page_token)
        response = pb.ListOperationsResponse()
        room = to_proto.Room()
        for job in page.jobs:
            operation = await self._operation(f"{parent}/operations/{job.id}", job)
            if not room.takes(operation.ByteSize()):
                break
            response.operations.append(operation)
            # Let other tasks run.
            await asyncio.sleep(0)
        response.next_page_token = page.next_token(len(response.operations))
        return response

    async def WaitOperation(self, request: pb.WaitOperationRequest, caller: Caller) -> pb.Operation:
        name = self._name(request.name, caller)
        checks = Checks(self._limits)
        wait = (
            checks.span("timeout", request.timeout, capped=True) if request.HasField("timeout") else self._longest_poll
        )
        checks.done()
        wait = caller.within_deadline(wait)
        text = request.name
        del request
        # No revision is higher than this, so the call waits for the end of the job.
        job = await self._jobs.get(name, INT64_MAX, wait, caller.connection)
        # Many calls may wait for the same end, and would make their replies at the same time.
        async with self._large_replies.turn(caller.connection):
            return await self._operation(text, job)

    async def CancelOperation(self, request: pb.CancelOperationRequest, caller: Caller) -> empty_pb2.Empty:
        name = self._name(request.name, caller)
        # Cancelling an ended operation has no effect and is no error.
        with suppress(JobEnded):
            await self._jobs.apply(name, Cancel("", self._cancel_grace), request.ByteSize())
        return empty_pb2.Empty()

    async def DeleteOperation(self, request: pb.DeleteOperationRequest, caller: Caller) -> empty_pb2.Empty:
        await self._jobs.apply(self._name(request.name, caller), Clear(), request.ByteSize())
        return empty_pb2.Empty()

    def _name(self, text: str, caller: Caller) -> Name:
        checks = Checks(self._limits)
        # A session id may contain slashes.
        parent, separator, job_id = text.rpartition("/operations/")
        session_id = parent.removeprefix("sessions/")
        if not separator or session_id == parent:
            checks.fault("name", MUST_BE_NAME)
            checks.done()
        checks.job_id(job_id, "name")
        name = self._sessions(session_id, caller, checks, "name"), job_id
        checks.done()
        return name

    async def _operation(self, name: str, job: Job) -> pb.Operation:
        operation = pb.Operation(name=name, done=job.ended)
        metadata = to_proto.job(job)
        operation.metadata.Pack(metadata)
        if job.status is Status.COMPLETED:
            text = await self._jobs.results((job.session_hash, job.id))
            operation.response.type_url = VALUE_TYPE
            operation.response.value = await encoded_replies.value("null" if text is None else text)
        elif job.ended:
            operation.error.CopyFrom(metadata.error)
        return operation
