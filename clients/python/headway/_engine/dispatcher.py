"""The work of the engine's thread: it sends the reports of all jobs of a process and handles the answers.

It samples the meters at the interval that the server asks for and keeps one request in flight. It repeats requests that
were not acknowledged. Sequences and client-chosen ids make a repeat count once.
"""

import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import grpc

from headway._engine.batch import MESSAGE_BYTES, Batch
from headway._engine.calls import method
from headway._engine.connection_state import ConnectionState, log
from headway._engine.error_policy import Decision, is_unauthorized, judge, too_large
from headway._engine.job_state import JobState, PendingCall
from headway._engine.native_threads import has_greenlets
from headway._engine.refusals import decline, ended, keep_in_file, kept, postpone, refuse, stop
from headway._engine.report_stream import ReportStream
from headway.errors import HeadwayError, from_rpc_error, from_status
from headway.target import Target, open_channel
from headway.v1 import job_pb2
from headway.v1 import job_service_pb2 as rpc
from headway.v1.job_service_pb2_grpc import JobServiceStub

if TYPE_CHECKING:
    from grpc import _CallFuture

ANSWER_TIMEOUT = 10.0
"""Seconds to wait for an answer of the server. After that the connection counts as broken."""

LATE_TIMEOUT = 1.0
"""Seconds to wait for a call that is made while the process ends."""

_NO_LATE_THREADS = sys.version_info[:2] == (3, 12)
"""Python 3.12 starts no thread after the main thread has ended, although other threads may run for long."""

_MAX_CALLS_IN_FLIGHT = 16
_FIRST_INTERVAL = 0.25
_INTERVAL_LIMITS = (0.01, 30.0)
_BELIEVED = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.CANCELLED})


_stuck: list[object] = []
"""Channels that gRPC cannot close. This keeps them alive, because their destructor would try to close them."""


class Dispatcher:
    """Owns the channel, the stream and every JobState. Only the engine's thread calls its methods."""

    def __init__(
        self,
        target: Target,
        connection_state: ConnectionState,
        post: Callable[[Callable[[], None]], None],
        on_first_answer: Callable[[], None],
    ) -> None:
        """`post` hands work to the engine's thread and may be called from any thread. `on_first_answer` is called in
        the engine's thread after the first answer of the server."""
        self.target = target
        self.connection_state = connection_state
        self.job_states: dict[JobState, None] = {}
        self.channel: grpc.Channel | None = None
        self.end_by: float | None = None
        """The deadline of the process's end, or None while it runs."""
        self.threadless = False
        """A thread could not start."""
        self._post = post
        self._on_first_answer = on_first_answer
        self._answered = False
        self._stream: ReportStream | None = None
        self._batch: Batch | None = None
        """The batch that is sent and not acknowledged yet."""
        self._ack_by = 0.0
        self._calls: set[_CallFuture[job_pb2.Job]] = set()
        self._interval = _FIRST_INTERVAL

    def on_internal_error(self, fault: Exception) -> None:
        """An internal error stops no job. The work is retried after a pause."""
        log.debug("headway: a fault of its own", exc_info=fault)
        if isinstance(fault, RuntimeError) and self.channel is not None and self._ending and not self.threadless:
            # A thread of gRPC could not start. Waiting for it, also in channel.close(), would never end.
            self.threadless = True
            _stuck.append((self.channel, self._stream, self._calls))
            self.channel, self._stream, self._batch, self._calls = None, None, None, set()
            for job_state in self.job_states:
                job_state.calling, job_state.due = False, 0.0
            return
        self._outage(HeadwayError(grpc.StatusCode.UNKNOWN, f"{type(fault).__name__}: {fault}"))

    def take(self, job_state: JobState, pending_calls: tuple[PendingCall, ...]) -> None:
        for pending_call in pending_calls:
            job_state.add_call(pending_call)
            if self.connection_state.down:
                pending_call.give_up_waiting()
        if not job_state.over and job_state not in self.job_states:
            self.job_states[job_state] = None
            job_state.heartbeat_at = time.monotonic() + self._turn(job_state)
        job_state.due = 0.0

    def idle_for(self) -> float | None:
        now = time.monotonic()
        if not self.job_states:
            return None
        if self._batch is not None:
            return max(self._ack_by - now, 0.0)
        if self.connection_state.retry_at > now:
            return self.connection_state.retry_at - now
        moments = [max(job_state.due, job_state.retry_at) for job_state in self.job_states if job_state.reporting]
        if len(self._calls) < _MAX_CALLS_IN_FLIGHT:
            moments += [job_state.retry_at for job_state in self.job_states if job_state.next_call()]
        return max(min(moments) - now, 0.0) if moments else None

    def pump(self, now: float) -> None:
        if self._batch is not None and now >= self._ack_by:
            self._outage(HeadwayError(grpc.StatusCode.DEADLINE_EXCEEDED, "no answer"))
        self.forget()
        if now < self.connection_state.retry_at:
            return
        if self._batch is None:
            self._report(now)
        for job_state in self.job_states:
            if len(self._calls) >= _MAX_CALLS_IN_FLIGHT or now < self.connection_state.retry_at:
                break
            pending_call = job_state.next_call()
            if pending_call is not None and job_state.retry_at <= now:
                self._call(job_state, pending_call)
        if self.end_by is not None and not any(job_state.urgent for job_state in self.job_states):
            # A thread that is inside gRPC when the interpreter ends can crash the process.
            self.disconnect()

    def forget(self) -> None:
        """Removes the jobs that have nothing left to send."""
        for job_state in [job_state for job_state in self.job_states if job_state.silent]:
            del self.job_states[job_state]
            if job_state.spool_file is not None:
                job_state.spool_file.remove() if job_state.error is None else job_state.spool_file.refuse()

    @property
    def _ending(self) -> bool:
        """Whether the interpreter may start no more threads."""
        late = _NO_LATE_THREADS and not threading.main_thread().is_alive()
        return late or self.threadless or self.end_by is not None

    @property
    def _alone(self) -> bool:
        """Whether gRPC must not use Python threads: they would be greenlets, or could not start any more."""
        return self._ending or has_greenlets()

    @property
    def _timeout(self) -> float:
        """Seconds to wait for the next call."""
        if self.end_by is None:
            return ANSWER_TIMEOUT
        return min(max(self.end_by - time.monotonic(), LATE_TIMEOUT), ANSWER_TIMEOUT)

    def _stub(self) -> JobServiceStub:
        if self.channel is None:
            self.channel = open_channel(self.target, retry=False)
        return JobServiceStub(self.channel)

    def _report(self, now: float) -> None:
        batch = Batch()
        due = [
            job_state
            for job_state in self.job_states
            if job_state.reporting and job_state.due <= now >= job_state.retry_at
        ]
        batch.fill(due, now, self._turn)
        for job_state, reporter in batch.oversized:
            refuse(job_state, reporter, too_large())
            job_state.due = now
        for job_state, fault in batch.faults:
            stop(job_state, HeadwayError(grpc.StatusCode.INTERNAL, f"{type(fault).__name__}: {fault}"))
        if not batch.senders:
            return
        if self._stream is None and self._alone:
            self._report_each(batch)
            return
        if self._stream is None:
            self._stream = ReportStream(self._stub(), self._deliver)
        self._batch, self._ack_by = batch, now + ANSWER_TIMEOUT
        self._stream.send(batch.request)

    def _report_each(self, batch: Batch) -> None:
        """Sends each report as a call of its own and waits for the answer. This needs no other thread."""
        stub = self._stub()
        for position, report in enumerate(batch.request.reports):
            job_state, _ = batch.senders[position]
            try:
                response = stub.ReportProgress(report, timeout=self._timeout)
            except grpc.RpcError as reason:
                error = from_rpc_error(reason)
                if judge(error) is Decision.RECONNECT:
                    # Answered reports are sent again too. Their sequences make them count once.
                    for sender, _ in batch.senders:
                        sender.due = 0.0
                    self._outage(error)
                    return
                batch.failures[position] = error
            else:
                self._heard()
                if response.HasField("cancellation"):
                    job_state.cancel(response.cancellation)
                self._follow_interval(response)
        self._acked(batch, time.monotonic())

    def _follow_interval(self, response: rpc.ReportProgressResponse | rpc.StreamProgressResponse) -> None:
        if response.HasField("next_report_after"):
            seconds = response.next_report_after.seconds + response.next_report_after.nanos / 1e9
            self._interval = min(max(seconds, _INTERVAL_LIMITS[0]), _INTERVAL_LIMITS[1])

    def _turn(self, job_state: JobState) -> float:
        return (
            min(self._interval, max(job_state.heartbeat / 3, _INTERVAL_LIMITS[0]))
            if job_state.heartbeat > 0
            else self._interval
        )

    def _deliver(self, stream: ReportStream, arrival: rpc.StreamProgressResponse | HeadwayError | None) -> None:
        self._post(partial(self._arrived, stream, arrival))

    def _arrived(self, stream: ReportStream, arrival: rpc.StreamProgressResponse | HeadwayError | None) -> None:
        if stream is not self._stream:
            return
        if not isinstance(arrival, rpc.StreamProgressResponse):
            self._broken(arrival)
            return
        self._heard()
        for failure in arrival.failures:
            if self._batch is not None and failure.request == stream.sent - 1:
                self._batch.failures[failure.report] = from_status(failure.status)
        cancellations = {cancellation.job_id: cancellation.cancellation for cancellation in arrival.cancellations}
        if cancellations:
            for job_state in self.job_states:
                if job_state.job.id in cancellations:
                    job_state.cancel(cancellations[job_state.job.id])
        self._follow_interval(arrival)
        if self._batch is not None and arrival.acked >= stream.sent:
            batch, self._batch = self._batch, None
            self._acked(batch, time.monotonic())

    def _acked(self, batch: Batch, now: float) -> None:
        for position, (job_state, reporter) in enumerate(batch.senders):
            error = batch.failures.get(position)
            if error is None:
                if reporter is not None:
                    reporter.settle()
            else:
                match judge(error):
                    case Decision.STOP:
                        stop(job_state, error)
                    case Decision.DROP:
                        refuse(job_state, reporter, error)
                    case _:
                        postpone(job_state, error, now)
            turn = now + self._turn(job_state)
            job_state.heartbeat_at = min(job_state.heartbeat_at, turn)
            job_state.due = now if job_state.urgent else min(job_state.due, turn)

    def _heard(self) -> None:
        self.connection_state.heard()
        if not self._answered and not self._ending:
            self._answered = True
            self._post(self._on_first_answer)

    def _broken(self, error: HeadwayError | None) -> None:
        unanswered = self._batch is not None
        self._drop_stream()
        if error is not None and error.reason == "STREAM_EXPIRED":
            return
        if unanswered:
            self._outage(error or HeadwayError(grpc.StatusCode.UNAVAILABLE, "the stream ended"))

    def _drop_stream(self) -> None:
        if self._stream is not None:
            self._stream.close()
        self._stream = None
        for job_state, _ in self._batch.senders if self._batch else ():
            job_state.due = 0.0
        self._batch = None

    def _call(self, job_state: JobState, pending_call: PendingCall) -> None:
        if pending_call.request is None:
            job_state.answered(pending_call, None)
            return
        if pending_call.request.ByteSize() > MESSAGE_BYTES:
            self._answer(job_state, pending_call, too_large())
            return
        if isinstance(pending_call.request, rpc.FinishJobRequest | rpc.FailJobRequest):
            pending_call.request.attempt = job_state.attempt
        make = method(self._stub(), pending_call.request)
        if self._alone:
            try:
                self._take_answer(job_state, pending_call, make(pending_call.request, timeout=self._timeout))
            except grpc.RpcError as error:
                self._answer(job_state, pending_call, from_rpc_error(error))
            return
        call = make.future(pending_call.request, timeout=ANSWER_TIMEOUT)
        job_state.calling = True
        self._calls.add(call)
        call.add_done_callback(lambda _: self._post(partial(self._called, job_state, pending_call, call)))

    def _called(self, job_state: JobState, pending_call: PendingCall, call: "_CallFuture[job_pb2.Job]") -> None:
        if call not in self._calls:
            return
        self._calls.remove(call)
        job_state.calling = False
        try:
            answer = call.result()
        except grpc.RpcError as error:
            self._answer(job_state, pending_call, from_rpc_error(error))
        except grpc.FutureCancelledError:
            pass
        else:
            self._take_answer(job_state, pending_call, answer)

    def _take_answer(self, job_state: JobState, pending_call: PendingCall, answer: job_pb2.Job | None) -> None:
        # A call that succeeds without a message gives None, which the types do not say.
        if answer is None or answer.id != job_state.job.id:
            self._answer(job_state, pending_call, HeadwayError(grpc.StatusCode.UNKNOWN, "an answer to something else"))
        else:
            self._answer(job_state, pending_call, answer)

    def _answer(self, job_state: JobState, pending_call: PendingCall, answer: job_pb2.Job | HeadwayError) -> None:
        if isinstance(answer, job_pb2.Job):
            self._heard()
            job_state.answered(pending_call, answer)
            job_state.due, job_state.heartbeat_at = 0.0, time.monotonic() + self._turn(job_state)
            if isinstance(pending_call.request, rpc.GetJobRequest):
                ended(job_state)
            elif isinstance(pending_call.request, rpc.SetVariablesRequest):
                kept(job_state)
            return
        decision = judge(answer)
        if isinstance(pending_call.request, rpc.GetJobRequest):
            # The job has certainly ended. How it ended is not worth a second call.
            ended(job_state)
            if decision is Decision.RECONNECT:
                self._outage(answer)
        elif isinstance(pending_call.request, rpc.SetVariablesRequest) and decision in (Decision.STOP, Decision.DROP):
            keep_in_file(job_state, self.target, answer)
        elif decision is Decision.RETRY:
            postpone(job_state, answer, time.monotonic())
            pending_call.give_up_waiting()
        elif decision is not Decision.RECONNECT or (
            is_unauthorized(answer) and isinstance(pending_call.request, rpc.CreateJobRequest)
        ):
            decline(job_state, pending_call, answer)
        else:
            self._outage(answer)

    def _outage(self, error: HeadwayError) -> None:
        # After these codes the connection is fine, or gRPC reconnects by itself. An overloaded server that cannot even
        # refuse calls answers CANCELLED. After any other error the connection is replaced: a fault, for example in its
        # compressed headers, would affect all later calls.
        if error.code in _BELIEVED:
            self._drop_stream()
        else:
            self._hang_up()
        self.connection_state.lost(error, time.monotonic())
        for job_state in self.job_states:
            for pending_call in job_state.waiting():
                pending_call.give_up_waiting()

    def _hang_up(self) -> None:
        """Closes the connection, and with it all calls that are under way."""
        self._drop_stream()
        calls, self._calls = self._calls, set()
        for call in calls:
            call.cancel()
        for job_state in self.job_states:
            job_state.calling = False
        if self.channel is not None:
            self.channel.close()
        self.channel = None

    def disconnect(self) -> None:
        stream = self._stream
        self._hang_up()
        if stream is not None:
            stream.join(1.0)
