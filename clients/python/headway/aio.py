"""The client for asyncio. It is like `headway`, with `await`, `async with` and `async for` where calls wait.

The same background thread reports for both clients. They share all code that does not wait.
"""

import asyncio
import os
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Callable,
    Generator,
    Mapping,
    Sequence,
)
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Self, Unpack, overload

import grpc
from google.rpc import code_pb2

from headway._engine import requests, takeover
from headway._engine.argument_checks import checked, checked_with_session
from headway._engine.cancellation import Interruption
from headway._engine.job_state import PendingCall
from headway._engine.lifecycle import CALL_TIMEOUT, EXIT_TIMEOUT, Connection
from headway._engine.requests import CREATE_TIMEOUT, ENDED, FIND_TIMEOUT, Deadline, JobFilters, JobOptions, Seconds
from headway.errors import HeadwayError, JobCancelled, NotFoundError, failure, from_rpc_error, translated
from headway.job import UNSET, BaseJob
from headway.status import Status
from headway.target import Target, open_aio_channel
from headway.v1 import job_pb2
from headway.v1 import job_service_pb2 as rpc
from headway.v1.job_service_pb2_grpc import JobServiceStub
from headway.values import Json, from_struct, from_value

if TYPE_CHECKING:
    from headway.v1.job_service_pb2_grpc import JobServiceAsyncStub

__all__ = ["Client", "Job", "connect"]


@checked
def connect(
    target: str | None = None,
    *,
    token: str | None = None,
    ca: str | os.PathLike[str] | None = None,
    session: str | None = None,
    exit_timeout: float = EXIT_TIMEOUT,
    call_timeout: float = CALL_TIMEOUT,
) -> "Client":
    """A connection for asyncio; see `headway.connect`."""
    where = Target.from_environment(target, token, ca)
    return Client(where, session=session, exit_timeout=exit_timeout, call_timeout=call_timeout)


class Client(Connection):
    """A connection to one server. Use it in one event loop. See `headway.Client`."""

    _channel: grpc.aio.Channel | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """See `headway.Client.close`."""
        await asyncio.to_thread(self._deliver)
        channel, self._channel = self._channel, None
        if channel is not None:
            await channel.close()

    @property
    def stub(self) -> "JobServiceAsyncStub":
        """The typed gRPC stub, for calls that this class does not have. It raises grpc.aio.AioRpcError."""
        if self._channel is None:
            self._channel = open_aio_channel(self.target)
        return JobServiceStub(self._channel)

    @overload
    def job(
        self,
        session: str | None,
        name: str,
        *,
        cancel_task: bool = False,
        on_stopped: Callable[[HeadwayError], object] | None = None,
        **options: Unpack[JobOptions],
    ) -> "Job": ...
    @overload
    def job(
        self,
        *,
        session: str | None = None,
        name: str = "",
        cancel_task: bool = False,
        on_stopped: Callable[[HeadwayError], object] | None = None,
        **options: Unpack[JobOptions],
    ) -> "Job": ...
    @checked_with_session
    def job(
        self,
        session: str | None = None,
        name: str = "",
        *,
        cancel_task: bool = False,
        on_stopped: Callable[[HeadwayError], object] | None = None,
        **options: Unpack[JobOptions],
    ) -> "Job":
        """Creates a job and starts to work on it; see `headway.Client.job`. `async with` and `await` wait for the
        server's answer, as long as `headway.Client.job` waits, and raise the same errors.

        `cancel_task`: a cancellation request cancels the task inside the `async with` block. JobCancelled then leaves
        the block, and the job ends as CANCELLED. As with `asyncio.timeout`, the task itself continues.

        With `key` or `continues` the job begins when it is awaited or entered, and not before.
        """
        request = requests.create(self._in(session), name, options)
        heartbeat = requests.heartbeat(request)
        job = Job(self, request.session_id, requests.described(request), heartbeat=heartbeat, started=False)
        job._cancel_task, job._to_tell = cancel_task, on_stopped
        if takeover.may_have_begun(request):
            job._wanted = request
        else:
            job._begin_job(request)
        return job

    def _attach(self, session: str, state: job_pb2.Job) -> "Job":
        started = state.status != job_pb2.JOB_STATUS_PENDING
        return Job(self, session, state, heartbeat=-1.0, started=started)

    @checked_with_session
    async def new(self, session: str | None = None, name: str = "", invoker: str = "", size: int = 0) -> "Job":
        """See `headway.Client.new`."""
        return await self.job(session, name, invoker=invoker, size=size)

    @checked
    async def resume(self, session: str | None, job_id: str) -> "Job":
        """See `headway.Client.resume`."""
        session = self._in(session)
        state = await self._make(takeover.carry_on(session, job_id), Deadline(None), EXIT_TIMEOUT)
        job = Job(self, session, state, **requests.in_hand(state))
        return job._know(await self.variables(session, state.id))

    async def _make(self, calls: takeover.Calls, deadline: Deadline, catch_up_timeout: float) -> job_pb2.Job:
        """See `headway.Client._make`."""
        try:
            call = next(calls)
            while True:
                try:
                    answer = await self._made(call, deadline.left, catch_up_timeout)
                except HeadwayError as error:
                    call = calls.throw(error)
                else:
                    call = calls.send(answer)
        except StopIteration as over:
            taken: job_pb2.Job = over.value
            return taken

    async def _made(self, call: takeover.Call, left: float | None, catch_up_timeout: float) -> job_pb2.Job:
        timeout = self.call_timeout if left is None else min(left, self.call_timeout)
        if catch_up_timeout and isinstance(call, rpc.StartJobRequest):
            await asyncio.to_thread(self._catch_up, call.job_id, catch_up_timeout)
        with translated():
            match call:
                case rpc.CreateJobRequest():
                    return await self.stub.CreateJob(call, timeout=timeout)
                case rpc.StartJobRequest():
                    return await self.stub.StartJob(call, timeout=timeout)
                case rpc.GetJobRequest():
                    return await self.stub.GetJob(call, timeout=timeout)

    @checked
    async def fetch(self, session: str | None, job_id: str) -> "Job | None":
        """See `headway.Client.fetch`."""
        session = self._in(session)
        try:
            state = await self.get(session, job_id)
        except NotFoundError:
            return None
        started = state.status != job_pb2.JOB_STATUS_PENDING
        job = Job(self, session, state, heartbeat=-1.0, started=started)._look_only()
        if job.status is Status.COMPLETED:
            job.results = await self.results(session, job_id)
        return job

    @checked
    async def get(self, session: str | None, job_id: str) -> job_pb2.Job:
        """See `headway.Client.get`."""
        with translated():
            return await self.stub.GetJob(
                rpc.GetJobRequest(session_id=self._in(session), job_id=job_id), timeout=self.call_timeout
            )

    @checked
    async def list(
        self, session: str | None = None, *, page_size: int = 0, **filters: Unpack[JobFilters]
    ) -> AsyncIterator[job_pb2.Job]:
        """See `headway.Client.list`."""
        request = requests.jobs(self._in(session), page_size, filters)
        while True:
            with translated():
                page = await self.stub.ListJobs(request, timeout=self.call_timeout)
            for job in page.jobs:
                yield job
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    @checked
    async def watch(
        self, session: str | None, job_id: str, *, after_revision: int = 0
    ) -> AsyncGenerator[job_pb2.Job, None]:
        """See `headway.Client.watch`. For a timeout use `asyncio.timeout`."""
        request = rpc.WatchJobRequest(session_id=self._in(session), job_id=job_id, after_revision=after_revision)
        deadline = Deadline(None)
        while True:
            call = self.stub.WatchJob(request)
            try:
                async for response in call:
                    deadline.heard()
                    request.after_revision = response.job.revision
                    yield response.job
                    if response.job.status in ENDED:
                        return
                return
            except grpc.RpcError as error:
                await asyncio.sleep(deadline.pause(from_rpc_error(error)))
            finally:
                call.cancel()

    @checked
    async def watch_session(
        self, session: str | None = None, *, resume_token: str = ""
    ) -> AsyncGenerator[rpc.WatchJobsResponse, None]:
        """See `headway.Client.watch_session`."""
        request = rpc.WatchJobsRequest(session_id=self._in(session), resume_token=resume_token)
        deadline = Deadline(None)
        while True:
            call = self.stub.WatchJobs(request)
            try:
                async for change in call:
                    deadline.heard()
                    request.resume_token = change.resume_token
                    yield change
            except grpc.RpcError as error:
                await asyncio.sleep(deadline.pause(from_rpc_error(error)))
            finally:
                call.cancel()

    @checked
    async def results(self, session: str | None, job_id: str) -> Json:
        """See `headway.Client.results`."""
        with translated():
            response = await self.stub.GetResults(
                rpc.GetResultsRequest(session_id=self._in(session), job_id=job_id), timeout=self.call_timeout
            )
        return from_value(response.results)

    @checked
    async def variables(self, session: str | None, job_id: str, names: Sequence[str] = ()) -> dict[str, Json]:
        """See `headway.Client.variables`."""
        with translated():
            response = await self.stub.GetVariables(
                rpc.GetVariablesRequest(session_id=self._in(session), job_id=job_id, names=names),
                timeout=self.call_timeout,
            )
        return from_struct(response.variables)

    @checked
    async def record_errors(self, session: str | None, job_id: str) -> rpc.ListRecordErrorsResponse:
        """See `headway.Client.record_errors`."""
        with translated():
            return await self.stub.ListRecordErrors(
                rpc.ListRecordErrorsRequest(session_id=self._in(session), job_id=job_id), timeout=self.call_timeout
            )

    @checked
    async def cancel(
        self, session: str | None, job_id: str, *, reason: str = "", grace: Seconds | None = None
    ) -> job_pb2.Job:
        """See `headway.Client.cancel`."""
        with translated():
            return await self.stub.CancelJob(
                requests.cancel(self._in(session), job_id, reason, grace), timeout=self.call_timeout
            )

    @checked
    async def clear(self, session: str | None, job_id: str) -> None:
        """See `headway.Client.clear`."""
        request = rpc.ClearJobRequest(session_id=self._in(session), job_id=job_id, allow_missing=True)
        with translated():
            await self.stub.ClearJob(request, timeout=self.call_timeout)


class Job(BaseJob):
    """A job as an asyncio worker uses it; see `headway.Job`. Its end waits without blocking the event loop."""

    _creation: PendingCall | None = None
    _cancel_task = False
    _interruption: Interruption | None = None
    _wanted: rpc.CreateJobRequest | None = None
    _to_tell: Callable[[HeadwayError], object] | None = None

    def __init__(self, client: Client, session: str, job: job_pb2.Job, *, heartbeat: float, started: bool) -> None:
        super().__init__(client, session, job, heartbeat=heartbeat, started=started)
        self._client = client

    def __await__(self) -> Generator[object, None, Self]:
        return self._created().__await__()

    async def __aenter__(self) -> Self:
        await self._created()
        if self._cancel_task:
            self._interruption = Interruption(self._job_state)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._interruption is not None and self._interruption.end(error):
            try:
                self.raise_if_cancelled()
            except JobCancelled as cancellation:
                await self._settle(self._leave(cancellation))
                raise
        await self._settle(self._leave(error))

    def _begin_job(self, request: rpc.CreateJobRequest) -> None:
        self._creation = self._begin_with(request)
        if self._to_tell is not None:
            self.on_stopped = self._to_tell

    def _know(self, variables: Mapping[str, Json]) -> Self:
        """Continues with a job that the server has given to this worker."""
        self._known.update(variables)
        if self._job_state.started:
            self._touch()
        if self._to_tell is not None:
            self.on_stopped = self._to_tell
        return self

    async def _find_or_create(self, request: rpc.CreateJobRequest) -> None:
        """See `headway.Client._find_or_create`. Nothing has been reported of this job until now."""
        deadline = Deadline(FIND_TIMEOUT)
        await asyncio.to_thread(self._client._catch_up, "", FIND_TIMEOUT)
        while True:
            try:
                state = await self._client._make(takeover.find_or_create(request), deadline, 0.0)
                variables = await self._client.variables(self.session, state.id)
            except HeadwayError as error:
                pause = takeover.pause(error, deadline.left)
                if pause is None:
                    takeover.begin_alone(request, error)
                    self._begin_job(request)
                    return
                await asyncio.sleep(pause)
            else:
                Job.__init__(self, self._client, self.session, state, **requests.in_hand(state))
                self._know(variables)
                return

    async def _created(self) -> Self:
        wanted, self._wanted = self._wanted, None
        if wanted is not None:
            await self._find_or_create(wanted)
        if self._creation is not None:
            await _tried(self._creation, CREATE_TIMEOUT)
            self._creation.give_up_waiting()
            if self._creation.answer.done():
                self._creation.answer.result()
        return self

    @checked
    async def finish(self, results: object = UNSET) -> None:
        """See `headway.Job.finish`."""
        if results is not UNSET:
            self.results = results
        await self._settle(self._end(None))

    @checked
    async def fail(self, error: object, code: int = code_pb2.UNKNOWN) -> None:
        """See `headway.Job.fail`."""
        await self._settle(self._end(failure(error, code)))

    @checked
    async def get(self, key: str) -> Json | object:
        """See `headway.Job.get`."""
        if key in self._known:
            return self._known[key]
        return (await self._client.variables(self.session, self.id, [key])).get(key)

    async def refresh(self) -> Self:
        """See `headway.Job.refresh`."""
        self._job_state.job = await self._client.get(self.session, self.id)
        if self.status is Status.COMPLETED and self._results is UNSET:
            self._results = await self._client.results(self.session, self.id)
        return self

    @checked
    async def cancel(self, reason: str = "", grace: float | None = None) -> None:
        """See `headway.Job.cancel`."""
        self._job_state.job = await self._client.cancel(self.session, self.id, reason=reason, grace=grace)

    async def clear(self) -> None:
        """See `headway.Job.clear`."""
        self._abandon()
        await self._client.clear(self.session, self.id)

    @checked
    async def wait(self) -> job_pb2.Job:
        """See `headway.Job.wait`; for a limit of time use `asyncio.timeout`."""
        async for job in self._client.watch(self.session, self.id):
            self._job_state.job = job
        return self._job_state.job

    @checked
    async def flush(self, timeout: float | None = None) -> bool:  # noqa: ASYNC109
        """See `headway.Job.flush`."""
        timeout = self._client.exit_timeout if timeout is None else timeout
        late = await asyncio.to_thread(self._engine.flush, [self._job_state], timeout)
        return not late and self._job_state.error is None

    async def _settle(self, pending_call: PendingCall | None) -> None:
        if pending_call is not None:
            await _tried(pending_call, self._client.exit_timeout)


async def _tried(pending_call: PendingCall, catch_up_timeout: float) -> None:
    loop, tried = asyncio.get_running_loop(), asyncio.Event()

    def tell() -> None:
        # The loop may be closed meanwhile.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(tried.set)

    pending_call.tried.then(tell)
    with suppress(TimeoutError):
        async with asyncio.timeout(catch_up_timeout):
            await tried.wait()
