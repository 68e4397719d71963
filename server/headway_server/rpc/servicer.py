"""headway.v1.JobService: one method for each RPC. It converts the request, calls the service, converts the reply."""

import random
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from functools import partial
from typing import TypeVar

from google.protobuf import empty_pb2, message

from headway.v1 import job_service_pb2 as pb
from headway_server.domain.commands import Clear
from headway_server.domain.errors import JobError, JobNotFound
from headway_server.domain.job import Job
from headway_server.domain.limits import Limits
from headway_server.resources.cache import Cache
from headway_server.resources.offload import write_off_loop
from headway_server.rpc import encoded_replies, from_proto, to_proto
from headway_server.rpc.call_guard import Caller
from headway_server.rpc.conversions import Conversions
from headway_server.rpc.progress_stream import NAMES_BYTES, Names, ProgressStream
from headway_server.rpc.sessions import Sessions
from headway_server.rpc.validation import Checks
from headway_server.service.job_service import EVERYWHERE, Jobs, Name, Page
from headway_server.storage.listing import Removal

WATCH_LIFE = (300.0, 600.0)
"""The shortest and longest duration of a watch, in seconds. Then its caller opens it again, maybe at another server."""

STREAM_LIFE = (3000.0, 3600.0)
"""The shortest and longest duration of a stream of reports, in seconds."""

T = TypeVar("T")
R = TypeVar("R", bound=message.Message)


class JobServicer:
    """headway.v1.JobService."""

    def __init__(self, jobs: Jobs, sessions: Sessions, limits: Limits, cancel_grace: int) -> None:
        self._jobs = jobs
        self._sessions = sessions
        self._limits = limits
        self._cancel_grace = cancel_grace
        self._streams: set[ProgressStream] = set()
        self._known: Names = Cache(NAMES_BYTES)
        self._conversions = Conversions()

    def close_streams(self, error: JobError) -> None:
        """End the open streams of reports, after all received reports are committed and acknowledged."""
        for stream in self._streams:
            stream.close(error)

    async def CreateJob(self, request: pb.CreateJobRequest, caller: Caller) -> bytes:
        checks = Checks(self._limits)
        session = self._sessions(request.session_id, caller, checks)
        command = from_proto.create(request, checks)
        if session is EVERYWHERE:
            checks.fault("session_id", "must be a session id; '-' is not one")
        checks.done()
        assert session is not None
        return encoded_replies.job(await self._jobs.create(session, request.job_id, command, request.ByteSize()))

    async def StartJob(self, request: pb.StartJobRequest, caller: Caller) -> bytes:
        name, checks = self._name(request, caller)
        command = from_proto.start(request, checks)
        checks.done()
        return encoded_replies.job(await self._jobs.apply(name, command, request.ByteSize()))

    async def GetJob(self, request: pb.GetJobRequest, caller: Caller) -> bytes:
        name, checks = self._name(request, caller)
        after_revision = checks.not_negative("after_revision", request.after_revision)
        wait = checks.span("wait", request.wait, capped=True)
        checks.done()
        # Do not hold the request while waiting: unknown fields can have any size.
        del request
        return encoded_replies.job(await self._jobs.get(name, after_revision, wait, caller.connection))

    async def ListJobs(self, request: pb.ListJobsRequest, caller: Caller) -> bytes:
        checks = Checks(self._limits)
        session = self._sessions(request.session_id, caller, checks)
        wanted, page_size = from_proto.list_filter(request, checks, session)
        checks.done()
        page = await self._jobs.page(wanted, page_size, request.page_token)
        return await write_off_loop(_listed, page)

    async def UpdateJob(self, request: pb.UpdateJobRequest, caller: Caller) -> bytes:
        checks = Checks(self._limits)
        session = self._sessions(request.session_id, caller, checks)
        checks.job_id(request.job.id, "job.id")
        command = from_proto.update(request, checks)
        checks.done()
        return encoded_replies.job(await self._jobs.apply((session, request.job.id), command, request.ByteSize()))

    async def ReportProgress(self, request: pb.ReportProgressRequest, caller: Caller) -> bytes:
        name, checks = self._name(request, caller)
        size = request.ByteSize()
        report = await self._converted(caller, from_proto.report, request, checks, size)
        del request
        checks.done()
        job = await self._jobs.apply(name, report, size)
        return encoded_replies.reported(job, self._jobs.report_interval(job))

    async def StreamProgress(
        self, incoming: AsyncIterator[pb.StreamProgressRequest], caller: Caller
    ) -> AsyncGenerator[bytes, None]:
        stream = ProgressStream(
            self._jobs,
            self._limits,
            partial(self._named, caller),
            self._known,
            lambda work: self._conversions.without_limit(caller.connection, work),
        )
        self._streams.add(stream)
        try:
            async with aclosing(stream.run(incoming, random.uniform(*STREAM_LIFE))) as responses:
                async for response in responses:
                    yield response
        finally:
            self._streams.discard(stream)

    async def FinishJob(self, request: pb.FinishJobRequest, caller: Caller) -> bytes:
        name, checks = self._name(request, caller)
        size = request.ByteSize()
        command = await self._converted(caller, from_proto.finish, request, checks, size)
        del request
        checks.done()
        return encoded_replies.job(await self._jobs.apply(name, command, size))

    async def FailJob(self, request: pb.FailJobRequest, caller: Caller) -> bytes:
        name, checks = self._name(request, caller)
        size = request.ByteSize()
        command = await self._converted(caller, from_proto.fail, request, checks, size)
        del request
        checks.done()
        return encoded_replies.job(await self._jobs.apply(name, command, size))

    async def CancelJob(self, request: pb.CancelJobRequest, caller: Caller) -> bytes:
        name, checks = self._name(request, caller)
        command = from_proto.cancel(request, checks, self._cancel_grace)
        checks.done()
        return encoded_replies.job(await self._jobs.apply(name, command, request.ByteSize()))

    async def SetVariables(self, request: pb.SetVariablesRequest, caller: Caller) -> bytes:
        name, checks = self._name(request, caller)
        size = request.ByteSize()
        command = await self._converted(caller, from_proto.set_variables, request, checks, size)
        del request
        checks.done()
        return encoded_replies.job(await self._jobs.apply(name, command, size))

    async def GetVariables(self, request: pb.GetVariablesRequest, caller: Caller) -> bytes:
        name, checks = self._name(request, caller)
        wanted = from_proto.names(request, checks)
        checks.done()
        return await encoded_replies.variables(await self._jobs.variables(name, wanted))

    async def GetResults(self, request: pb.GetResultsRequest, caller: Caller) -> bytes:
        name, checks = self._name(request, caller)
        checks.done()
        return await encoded_replies.results(await self._jobs.results(name))

    async def ListRecordErrors(
        self, request: pb.ListRecordErrorsRequest, caller: Caller
    ) -> pb.ListRecordErrorsResponse:
        name, checks = self._name(request, caller)
        checks.done()
        errors = await self._jobs.record_errors(name)
        return pb.ListRecordErrorsResponse(
            first=to_proto.record_errors(errors.first),
            last=to_proto.record_errors(errors.last),
            total=errors.total,
        )

    async def ClearJob(self, request: pb.ClearJobRequest, caller: Caller) -> empty_pb2.Empty:
        name, checks = self._name(request, caller)
        checks.done()
        try:
            await self._jobs.apply(name, Clear(), request.ByteSize())
        except JobNotFound:
            if not request.allow_missing:
                raise
        return empty_pb2.Empty()

    async def WatchJob(self, request: pb.WatchJobRequest, caller: Caller) -> AsyncGenerator[bytes, None]:
        name, checks = self._name(request, caller)
        after_revision = checks.not_negative("after_revision", request.after_revision)
        checks.done()
        del request
        life = random.uniform(*WATCH_LIFE)
        async with aclosing(self._jobs.watch(name, after_revision, life, caller.connection)) as states:
            async for job in states:
                yield encoded_replies.watched(job)

    async def WatchJobs(
        self, request: pb.WatchJobsRequest, caller: Caller
    ) -> AsyncGenerator[pb.WatchJobsResponse | bytes, None]:
        checks = Checks(self._limits)
        session = self._sessions(request.session_id, caller, checks)
        checks.done()
        life = random.uniform(*WATCH_LIFE)
        watch = self._jobs.watch_all(session, request.resume_token, life, caller.connection)
        del request
        async with aclosing(watch) as states:
            async for seen, token in states:
                match seen:
                    case Removal():
                        yield pb.WatchJobsResponse(removed_job_id=seen.id, resume_token=token)
                    case Job():
                        yield encoded_replies.watched_in_session(seen, token)

    async def _converted(
        self, caller: Caller, convert: Callable[[R, Checks], T], request: R, checks: Checks, size: int
    ) -> T:
        """Convert a request of `size` bytes. Large ones are converted off the event loop."""
        if size < from_proto.CONVERTED_INLINE_MAX:
            return convert(request, checks)
        return await self._conversions(caller.connection, convert, request, checks)

    def _name(self, request: "_NamesJob", caller: Caller) -> tuple[Name, Checks]:
        checks = Checks(self._limits)
        return self._named(caller, request, checks), checks

    def _named(self, caller: Caller, request: "_NamesJob", checks: Checks) -> Name:
        job_id = request.job_id
        checks.job_id(job_id)
        return self._sessions(request.session_id, caller, checks), job_id


_NamesJob = (
    pb.StartJobRequest
    | pb.GetJobRequest
    | pb.ReportProgressRequest
    | pb.FinishJobRequest
    | pb.FailJobRequest
    | pb.CancelJobRequest
    | pb.SetVariablesRequest
    | pb.GetVariablesRequest
    | pb.GetResultsRequest
    | pb.ListRecordErrorsRequest
    | pb.ClearJobRequest
    | pb.WatchJobRequest
)


def _listed(page: Page) -> bytes:
    """ListJobsResponse."""
    response = pb.ListJobsResponse()
    room = to_proto.Room()
    for job in page.jobs:
        answer = to_proto.job(job)
        if not room.takes(answer.ByteSize()):
            break
        response.jobs.append(answer)
    response.next_page_token = page.next_token(len(response.jobs))
    return response.SerializeToString()
