"""What the engine's thread does: it sends what the jobs of a process have to report, and takes in the answers.

It samples the meters when the server wants to hear of them, keeps one request in flight, and repeats what was not
acknowledged: sequences and chosen ids make that count once.
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
from headway._engine.connection_state import Contact, log
from headway._engine.error_policy import Verdict, judge, keeps_out, too_large
from headway._engine.job_state import Course, Step
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

PATIENCE = 10.0
"""Seconds that the server has for an answer before the connection counts as broken."""

LATE_TIMEOUT = 1.0
"""Seconds that a call has which is made after the end of the process has been told."""

_NO_LATE_THREADS = sys.version_info[:2] == (3, 12)
"""Whether no thread can start once the main thread has ended, though others may go on for long."""

_CALLS = 16
_FIRST_PACE = 0.25
_PACES = (0.01, 30.0)
_BELIEVED = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.CANCELLED})


_stuck: list[object] = []
"""Channels that gRPC cannot close; it tries to once they are let go."""


class Dispatcher:
    """Owns the channel, the stream and every Course. All methods belong in the engine's thread."""

    def __init__(
        self,
        target: Target,
        contact: Contact,
        post: Callable[[Callable[[], None]], None],
        on_first_answer: Callable[[], None],
    ) -> None:
        """`post`: hands work to the engine's thread, from any other. `on_first_answer`: called there once the server
        has answered for the first time."""
        self.target = target
        self.contact = contact
        self.courses: dict[Course, None] = {}
        self.channel: grpc.Channel | None = None
        self.end_by: float | None = None
        """When the process has to end, once it does."""
        self.threadless = False
        """Whether a thread could not start."""
        self._post = post
        self._on_first_answer = on_first_answer
        self._answered = False
        self._stream: ReportStream | None = None
        self._batch: Batch | None = None
        """Sent and not acknowledged yet."""
        self._ack_by = 0.0
        self._calls: set[_CallFuture[job_pb2.Job]] = set()
        self._pace = _FIRST_PACE

    def own_fault(self, fault: Exception) -> None:
        """What should not happen stops nothing, and is not tried again at once."""
        log.debug("headway: a fault of its own", exc_info=fault)
        if isinstance(fault, RuntimeError) and self.channel is not None and self._ending and not self.threadless:
            # A thread of gRPC could not start. What waits for it would wait for ever, the end of this channel as well.
            self.threadless = True
            _stuck.append((self.channel, self._stream, self._calls))
            self.channel, self._stream, self._batch, self._calls = None, None, None, set()
            for course in self.courses:
                course.calling, course.due = False, 0.0
            return
        self._outage(HeadwayError(grpc.StatusCode.UNKNOWN, f"{type(fault).__name__}: {fault}"))

    def take(self, course: Course, steps: tuple[Step, ...]) -> None:
        for step in steps:
            course.add_step(step)
            if self.contact.down:
                step.give_up_waiting()
        if not course.over and course not in self.courses:
            self.courses[course] = None
            course.beat_at = time.monotonic() + self._turn(course)
        course.due = 0.0

    def idle_for(self) -> float | None:
        now = time.monotonic()
        if not self.courses:
            return None
        if self._batch is not None:
            return max(self._ack_by - now, 0.0)
        if self.contact.retry_at > now:
            return self.contact.retry_at - now
        moments = [max(course.due, course.retry_at) for course in self.courses if course.reporting]
        if len(self._calls) < _CALLS:
            moments += [course.retry_at for course in self.courses if course.next_step()]
        return max(min(moments) - now, 0.0) if moments else None

    def pump(self, now: float) -> None:
        if self._batch is not None and now >= self._ack_by:
            self._outage(HeadwayError(grpc.StatusCode.DEADLINE_EXCEEDED, "no answer"))
        self.forget()
        if now < self.contact.retry_at:
            return
        if self._batch is None:
            self._report(now)
        for course in self.courses:
            if len(self._calls) >= _CALLS or now < self.contact.retry_at:
                break
            step = course.next_step()
            if step is not None and course.retry_at <= now:
                self._call(course, step)
        if self.end_by is not None and not any(course.urgent for course in self.courses):
            # A thread that is inside gRPC when the interpreter goes may take the process with it.
            self.disconnect()

    def forget(self) -> None:
        """Drops the jobs of which there is nothing to say any more."""
        for course in [course for course in self.courses if course.silent]:
            del self.courses[course]
            if course.letter is not None:
                course.letter.remove() if course.error is None else course.letter.refuse()

    @property
    def _ending(self) -> bool:
        """Whether the interpreter ends, as far as threads are concerned."""
        late = _NO_LATE_THREADS and not threading.main_thread().is_alive()
        return late or self.threadless or self.end_by is not None

    @property
    def _alone(self) -> bool:
        """Whether gRPC can have no threads of Python: they would be greenlets, or could not be started any more."""
        return self._ending or has_greenlets()

    @property
    def _timeout(self) -> float:
        """Seconds that the next call has."""
        if self.end_by is None:
            return PATIENCE
        return min(max(self.end_by - time.monotonic(), LATE_TIMEOUT), PATIENCE)

    def _stub(self) -> JobServiceStub:
        if self.channel is None:
            self.channel = open_channel(self.target, retry=False)
        return JobServiceStub(self.channel)

    def _report(self, now: float) -> None:
        batch = Batch()
        due = [course for course in self.courses if course.reporting and course.due <= now >= course.retry_at]
        batch.fill(due, now, self._turn)
        for course, reporter in batch.oversized:
            refuse(course, reporter, too_large())
            course.due = now
        for course, fault in batch.faults:
            stop(course, HeadwayError(grpc.StatusCode.INTERNAL, f"{type(fault).__name__}: {fault}"))
        if not batch.senders:
            return
        if self._stream is None and self._alone:
            self._report_each(batch)
            return
        if self._stream is None:
            self._stream = ReportStream(self._stub(), self._deliver)
        self._batch, self._ack_by = batch, now + PATIENCE
        self._stream.send(batch.request)

    def _report_each(self, batch: Batch) -> None:
        """Sends each report as a call of its own and waits for its answer, which no other thread takes part in."""
        stub = self._stub()
        for position, report in enumerate(batch.request.reports):
            course, _ = batch.senders[position]
            try:
                response = stub.ReportProgress(report, timeout=self._timeout)
            except grpc.RpcError as reason:
                error = from_rpc_error(reason)
                if judge(error) is Verdict.AWAY:
                    # Those that were answered are sent again too: their sequences make that count once.
                    for sender, _ in batch.senders:
                        sender.due = 0.0
                    self._outage(error)
                    return
                batch.failures[position] = error
            else:
                self._heard()
                if response.HasField("cancellation"):
                    course.cancel(response.cancellation)
                self._keep_pace(response)
        self._acked(batch, time.monotonic())

    def _keep_pace(self, response: rpc.ReportProgressResponse | rpc.StreamProgressResponse) -> None:
        if response.HasField("next_report_after"):
            seconds = response.next_report_after.seconds + response.next_report_after.nanos / 1e9
            self._pace = min(max(seconds, _PACES[0]), _PACES[1])

    def _turn(self, course: Course) -> float:
        return min(self._pace, max(course.heartbeat / 3, _PACES[0])) if course.heartbeat > 0 else self._pace

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
        wishes = {wish.job_id: wish.cancellation for wish in arrival.cancellations}
        if wishes:
            for course in self.courses:
                if course.job.id in wishes:
                    course.cancel(wishes[course.job.id])
        self._keep_pace(arrival)
        if self._batch is not None and arrival.acked >= stream.sent:
            batch, self._batch = self._batch, None
            self._acked(batch, time.monotonic())

    def _acked(self, batch: Batch, now: float) -> None:
        for position, (course, reporter) in enumerate(batch.senders):
            error = batch.failures.get(position)
            if error is None:
                if reporter is not None:
                    reporter.settle()
            else:
                match judge(error):
                    case Verdict.GONE:
                        stop(course, error)
                    case Verdict.REFUSED:
                        refuse(course, reporter, error)
                    case _:
                        postpone(course, error, now)
            turn = now + self._turn(course)
            course.beat_at = min(course.beat_at, turn)
            course.due = now if course.urgent else min(course.due, turn)

    def _heard(self) -> None:
        self.contact.heard()
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
        for course, _ in self._batch.senders if self._batch else ():
            course.due = 0.0
        self._batch = None

    def _call(self, course: Course, step: Step) -> None:
        if step.request is None:
            course.answered(step, None)
            return
        if step.request.ByteSize() > MESSAGE_BYTES:
            self._answer(course, step, too_large())
            return
        if isinstance(step.request, rpc.FinishJobRequest | rpc.FailJobRequest):
            step.request.attempt = course.attempt
        make = method(self._stub(), step.request)
        if self._alone:
            try:
                self._take_answer(course, step, make(step.request, timeout=self._timeout))
            except grpc.RpcError as error:
                self._answer(course, step, from_rpc_error(error))
            return
        call = make.future(step.request, timeout=PATIENCE)
        course.calling = True
        self._calls.add(call)
        call.add_done_callback(lambda _: self._post(partial(self._called, course, step, call)))

    def _called(self, course: Course, step: Step, call: "_CallFuture[job_pb2.Job]") -> None:
        if call not in self._calls:
            return
        self._calls.remove(call)
        course.calling = False
        try:
            answer = call.result()
        except grpc.RpcError as error:
            self._answer(course, step, from_rpc_error(error))
        except grpc.FutureCancelledError:
            pass
        else:
            self._take_answer(course, step, answer)

    def _take_answer(self, course: Course, step: Step, answer: job_pb2.Job | None) -> None:
        # None, which the types do not know, for a call that ended well and brought no message.
        if answer is None or answer.id != course.job.id:
            self._answer(course, step, HeadwayError(grpc.StatusCode.UNKNOWN, "an answer to something else"))
        else:
            self._answer(course, step, answer)

    def _answer(self, course: Course, step: Step, answer: job_pb2.Job | HeadwayError) -> None:
        if isinstance(answer, job_pb2.Job):
            self._heard()
            course.answered(step, answer)
            course.due, course.beat_at = 0.0, time.monotonic() + self._turn(course)
            if isinstance(step.request, rpc.GetJobRequest):
                ended(course)
            elif isinstance(step.request, rpc.SetVariablesRequest):
                kept(course)
            return
        verdict = judge(answer)
        if isinstance(step.request, rpc.GetJobRequest):
            # That it has ended is known: how is not worth a second call.
            ended(course)
            if verdict is Verdict.AWAY:
                self._outage(answer)
        elif isinstance(step.request, rpc.SetVariablesRequest) and verdict in (Verdict.GONE, Verdict.REFUSED):
            keep_in_file(course, self.target, answer)
        elif verdict is Verdict.LATER:
            postpone(course, answer, time.monotonic())
            step.give_up_waiting()
        elif verdict is not Verdict.AWAY or (keeps_out(answer) and isinstance(step.request, rpc.CreateJobRequest)):
            decline(course, step, answer)
        else:
            self._outage(answer)

    def _outage(self, error: HeadwayError) -> None:
        # Who says these is well, or gRPC connects anew by itself; a server that gets more calls than it can even refuse
        # says CANCELLED. After all else the connection is not believed: what went wrong on it once, in its compressed
        # headers for example, stays wrong for all later calls.
        if error.code in _BELIEVED:
            self._drop_stream()
        else:
            self._hang_up()
        self.contact.lost(error, time.monotonic())
        for course in self.courses:
            for step in course.waiting():
                step.give_up_waiting()

    def _hang_up(self) -> None:
        """Closes the connection, and with it all calls that are under way."""
        self._drop_stream()
        calls, self._calls = self._calls, set()
        for call in calls:
            call.cancel()
        for course in self.courses:
            course.calling = False
        if self.channel is not None:
            self.channel.close()
        self.channel = None

    def disconnect(self) -> None:
        stream = self._stream
        self._hang_up()
        if stream is not None:
            stream.join(1.0)
