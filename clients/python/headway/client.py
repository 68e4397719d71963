"""The connection: it creates, reads and watches jobs."""

import os
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from types import TracebackType
from typing import Self, TypeVar, Unpack, overload

import grpc

from headway._engine import requests, takeover
from headway._engine.argument_checks import checked, checked_with_session
from headway._engine.lifecycle import CALL_TIMEOUT, EXIT_TIMEOUT, Connection
from headway._engine.native_threads import beside_greenlets, has_greenlets
from headway._engine.requests import CREATE_TIMEOUT, ENDED, FIND_TIMEOUT, Deadline, JobFilters, JobOptions, Seconds
from headway.errors import HeadwayError, NotFoundError, from_rpc_error, translated
from headway.job import Job
from headway.status import Status
from headway.target import Target, open_channel
from headway.v1 import job_pb2
from headway.v1 import job_service_pb2 as rpc
from headway.v1.job_service_pb2_grpc import JobServiceStub
from headway.values import Json, from_struct, from_value

Request = TypeVar("Request")
Answer = TypeVar("Answer")


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
    """A connection to a Headway server. It sends nothing before its first use.

    `target`: `host:port` or `https://host:port`; default HEADWAY_TARGET, then 127.0.0.1:50051. `token`: default
    HEADWAY_TOKEN. `ca`: a PEM file, default HEADWAY_CA. `session`: the session for all methods, default
    HEADWAY_SESSION. `exit_timeout`: seconds to wait at most until all is delivered, at the end of a job and of the
    connection. `call_timeout`: seconds to wait at most for the answer to a call; then HeadwayError with
    DEADLINE_EXCEEDED. ValueError if the target is malformed or the CA file cannot be read.
    """
    where = Target.from_environment(target, token, ca)
    return Client(where, session=session, exit_timeout=exit_timeout, call_timeout=call_timeout)


class Client(Connection):
    """A connection to one server. Methods may be called from any thread.

    Jobs are read as the message of the protocol, `headway.v1.job_pb2.Job`. Its fields are documented there.
    """

    _channel: grpc.Channel | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Waits until all is delivered, at most `exit_timeout` seconds. Jobs that have not ended stay as they are. A
        second call does nothing."""
        self._deliver()
        self._close_channel()

    def _close_channel(self) -> None:
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.close()

    @property
    def stub(self) -> JobServiceStub:
        """The typed gRPC stub, for calls that this class does not have. It raises grpc.RpcError."""
        if self._channel is None:
            self._channel = open_channel(self.target)
        return JobServiceStub(self._channel)

    def _ask(
        self, method: "grpc.UnaryUnaryMultiCallable[Request, Answer]", request: Request, timeout: float | None = None
    ) -> Answer:
        """Makes a call and waits for its answer, at most `timeout` seconds and at most `call_timeout`. HeadwayError."""
        seconds = self.call_timeout if timeout is None else min(timeout, self.call_timeout)
        with translated():
            return beside_greenlets(lambda: method(request, timeout=seconds))

    @overload
    def job(
        self,
        session: str | None,
        name: str,
        *,
        on_stopped: Callable[[HeadwayError], object] | None = None,
        **options: Unpack[JobOptions],
    ) -> Job: ...
    @overload
    def job(
        self,
        *,
        session: str | None = None,
        name: str = "",
        on_stopped: Callable[[HeadwayError], object] | None = None,
        **options: Unpack[JobOptions],
    ) -> Job: ...
    @checked_with_session
    def job(
        self,
        session: str | None = None,
        name: str = "",
        *,
        on_stopped: Callable[[HeadwayError], object] | None = None,
        **options: Unpack[JobOptions],
    ) -> Job:
        """Creates a job and starts to work on it: `job(session, name)`, or `job(name=…)` in the session of the client
        or of HEADWAY_SESSION. TypeError for a single positional argument, which could be either.

        If the server does not answer, the job is created in the background, with the id that it already has. The call
        returns when the connection is refused, or after a second at most. With `key` or `continues` it returns after 5
        seconds at most, and the job then begins anew. If an unfinished job has the key, the new one is created without
        the key. `on_stopped`: see `Job.on_stopped`. `JobOptions` describes the other options.

        ValueError without a session. HeadwayError if the server refuses the job at once: InvalidError for a malformed
        request, ALREADY_EXISTS, UNAUTHENTICATED, PERMISSION_DENIED; with `continues` also NotFoundError or StateError.
        """
        request = requests.create(self._in(session), name, options)
        may_have_begun = takeover.may_have_begun(request)
        deadline = Deadline(FIND_TIMEOUT if may_have_begun else CREATE_TIMEOUT)
        if options.get("job_id"):
            self._catch_up(request.job_id, CREATE_TIMEOUT)
        job = self._find_or_create(request, deadline) if may_have_begun else None
        if job is None:
            job = Job(
                self,
                request.session_id,
                requests.described(request),
                heartbeat=requests.heartbeat(request),
                started=False,
            )
            pending_call = job._begin_with(request)
            pending_call.tried.wait(deadline.left or 0.0)
            pending_call.give_up_waiting()
            if pending_call.answer.done():
                pending_call.answer.result()
        if on_stopped is not None:
            job.on_stopped = on_stopped
        return job

    def _attach(self, session: str, state: job_pb2.Job) -> "Job":
        started = state.status != job_pb2.JOB_STATUS_PENDING
        return Job(self, session, state, heartbeat=-1.0, started=started)

    @checked_with_session
    def new(self, session: str | None = None, name: str = "", invoker: str = "", size: int = 0) -> Job:
        """`job()` with its former parameters."""
        return self.job(session, name, invoker=invoker, size=size)

    @checked
    def resume(self, session: str | None, job_id: str) -> Job:
        """Resumes a job. A running or LOST job is taken over from its worker, and a PENDING job is started. From then
        on the reports of the former worker are refused. A job that has ended is continued by a new job, as with
        `job(continues=)`. If it was continued already, the last job that continues it is resumed. The progress
        continues from its last value, and `get` reads the variables (the checkpoint).

        NotFoundError. HeadwayError if the server does not answer.
        """
        session = self._in(session)
        return self._take(session, self._make(takeover.carry_on(session, job_id), Deadline(None), EXIT_TIMEOUT))

    def _find_or_create(self, request: rpc.CreateJobRequest, deadline: Deadline) -> Job | None:
        """The job, or None if no server answered in time. Sends all spool files first, because only the server knows
        which job has the key."""
        self._catch_up("", FIND_TIMEOUT)
        while True:
            try:
                state = self._make(takeover.find_or_create(request), deadline, 0.0)
                return self._take(request.session_id, state)
            except HeadwayError as error:
                pause = takeover.pause(error, deadline.left)
                if pause is None:
                    takeover.begin_alone(request, error)
                    return None
            time.sleep(pause)

    def _make(self, calls: takeover.Calls, deadline: Deadline, catch_up_timeout: float) -> job_pb2.Job:
        """Makes these calls. Before a job is taken over, it sends the spool files of the former worker for at most
        `catch_up_timeout` seconds."""
        try:
            call = next(calls)
            while True:
                try:
                    answer = self._made(call, deadline.left, catch_up_timeout)
                except HeadwayError as error:
                    call = calls.throw(error)
                else:
                    call = calls.send(answer)
        except StopIteration as over:
            taken: job_pb2.Job = over.value
            return taken

    def _made(self, call: takeover.Call, timeout: float | None, catch_up_timeout: float) -> job_pb2.Job:
        match call:
            case rpc.CreateJobRequest():
                return self._ask(self.stub.CreateJob, call, timeout)
            case rpc.StartJobRequest():
                if catch_up_timeout:
                    self._catch_up(call.job_id, catch_up_timeout)
                return self._ask(self.stub.StartJob, call, timeout)
            case rpc.GetJobRequest():
                return self._ask(self.stub.GetJob, call, timeout)

    def _take(self, session: str, state: job_pb2.Job) -> Job:
        """The job object of a job that the server has given to this worker."""
        job = Job(self, session, state, **requests.in_hand(state))
        job._known.update(self.variables(session, state.id))
        if job._job_state.started:
            job._touch()
        return job

    @checked
    def fetch(self, session: str | None, job_id: str) -> Job | None:
        """The job, to read it, to change it, or to report a `part` of it. None if the session has no such job.

        It sends no heartbeats. Its values are those of this moment: `refresh` updates them.
        """
        session = self._in(session)
        try:
            state = self.get(session, job_id)
        except NotFoundError:
            return None
        started = state.status != job_pb2.JOB_STATUS_PENDING
        job = Job(self, session, state, heartbeat=-1.0, started=started)._look_only()
        if job.status is Status.COMPLETED:
            job.results = self.results(session, job_id)
        return job

    @checked
    def get(self, session: str | None, job_id: str) -> job_pb2.Job:
        """The current state of the job. NotFoundError."""
        session = self._in(session)
        return self._ask(self.stub.GetJob, rpc.GetJobRequest(session_id=session, job_id=job_id))

    @checked
    def list(
        self, session: str | None = None, *, page_size: int = 0, **filters: Unpack[JobFilters]
    ) -> Iterator[job_pb2.Job]:
        """The jobs of the session that pass all filters, newest first. They are fetched page by page (50 jobs by
        default, at most 1,000)."""
        request = requests.jobs(self._in(session), page_size, filters)
        while True:
            page = self._ask(self.stub.ListJobs, request)
            yield from page.jobs
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    @checked
    def watch(
        self,
        session: str | None,
        job_id: str,
        *,
        after_revision: int = 0,
        timeout: float | None = None,
        on_broken: Callable[[HeadwayError], object] | None = None,
    ) -> Generator[job_pb2.Job, None, None]:
        """The current state of the job, then each newer state until the job has ended. After a broken connection the
        watch reconnects and continues where it stopped, without a limit of time.

        `timeout`: seconds in all; then TimeoutError. `on_broken` is called each time before it reconnects. An exception
        of `on_broken` ends the watch. NotFoundError, also if the job is cleared meanwhile.
        """
        request = rpc.WatchJobRequest(
            session_id=self._in(session),
            job_id=job_id,
            after_revision=after_revision,
        )
        deadline = Deadline(timeout)
        while True:
            call = self.stub.WatchJob(request, timeout=deadline.left)
            try:
                for response in _messages(call):
                    deadline.heard()
                    request.after_revision = response.job.revision
                    yield response.job
                    if response.job.status in ENDED:
                        return
                return
            except grpc.RpcError as error:
                broken = from_rpc_error(error)
                pause = deadline.pause(broken)
                if on_broken is not None:
                    on_broken(broken)
                time.sleep(pause)
            finally:
                call.cancel()

    @checked
    def watch_session(
        self,
        session: str | None = None,
        *,
        resume_token: str = "",
        on_broken: Callable[[HeadwayError], object] | None = None,
    ) -> Generator[rpc.WatchJobsResponse, None, None]:
        """The current jobs of the session, then each change: a `job`, or the `removed_job_id` of a removed job. It
        never ends, and it reconnects after a broken connection.

        `resume_token`: the token of the last change received. StateError with RESUME_TOKEN_EXPIRED if it is too old.
        `on_broken`: see `watch`.
        """
        request = rpc.WatchJobsRequest(session_id=self._in(session), resume_token=resume_token)
        deadline = Deadline(None)
        while True:
            call = self.stub.WatchJobs(request)
            try:
                for change in _messages(call):
                    deadline.heard()
                    request.resume_token = change.resume_token
                    yield change
            except grpc.RpcError as error:
                broken = from_rpc_error(error)
                pause = deadline.pause(broken)
                if on_broken is not None:
                    on_broken(broken)
                time.sleep(pause)
            finally:
                call.cancel()

    @checked
    def results(self, session: str | None, job_id: str) -> Json:
        """The results of the job, or None unless it is COMPLETED with results. NotFoundError."""
        session = self._in(session)
        response = self._ask(self.stub.GetResults, rpc.GetResultsRequest(session_id=session, job_id=job_id))
        return from_value(response.results)

    @checked
    def variables(self, session: str | None, job_id: str, names: Sequence[str] = ()) -> dict[str, Json]:
        """The job's variables, or only those with these names. NotFoundError."""
        session = self._in(session)
        response = self._ask(
            self.stub.GetVariables, rpc.GetVariablesRequest(session_id=session, job_id=job_id, names=names)
        )
        return from_struct(response.variables)

    @checked
    def record_errors(self, session: str | None, job_id: str) -> rpc.ListRecordErrorsResponse:
        """The first and the last 100 record errors, and their total number. NotFoundError."""
        session = self._in(session)
        return self._ask(self.stub.ListRecordErrors, rpc.ListRecordErrorsRequest(session_id=session, job_id=job_id))

    @checked
    def cancel(
        self, session: str | None, job_id: str, *, reason: str = "", grace: Seconds | None = None
    ) -> job_pb2.Job:
        """Asks the job's worker to end early. The server ends the job itself after `grace` seconds (60 by default; 0 =
        at once).

        NotFoundError. StateError if the job has ended in another way.
        """
        session = self._in(session)
        return self._ask(self.stub.CancelJob, requests.cancel(session, job_id, reason, grace))

    @checked
    def clear(self, session: str | None, job_id: str) -> None:
        """Removes the job with its variables, results and record errors. A missing job is not an error."""
        session = self._in(session)
        self._ask(self.stub.ClearJob, rpc.ClearJobRequest(session_id=session, job_id=job_id, allow_missing=True))


def _messages(call: Iterator[Answer]) -> Iterator[Answer]:
    """The messages of the server as they arrive."""
    if not has_greenlets():
        return call
    return iter(lambda: beside_greenlets(lambda: next(call, None)), None)
