"""The thread behind all jobs of a process that report to one server.

It alone owns the channel, the stream and every Course; others hand it work through an inbox. It samples the meters
when the server wants to hear of them, keeps one request in flight, and repeats what was not acknowledged: sequences
and chosen ids make that count once. Whatever the server does, the worker's threads never wait here unless they ask to.
"""

import sys
import threading
import time
from collections.abc import Callable, Iterable
from functools import partial
from importlib import import_module
from queue import Empty
from typing import TYPE_CHECKING

import grpc

from headway import family, termination
from headway.batch import MESSAGE_BYTES, Batch
from headway.calls import method
from headway.channel import Target, load_grpc, open_channel
from headway.contact import Contact, log
from headway.course import Course, Step
from headway.errors import HeadwayError, from_rpc_error, from_status
from headway.native import Promise, RLock, SimpleQueue, Thread, has_greenlets, wait
from headway.refusal import decline, postpone, refuse, stop
from headway.stream import ReportStream
from headway.v1 import job_pb2
from headway.v1 import job_service_pb2 as rpc
from headway.v1.job_service_pb2_grpc import JobServiceStub
from headway.verdict import Verdict, judge, keeps_out, too_large

if TYPE_CHECKING:
    from grpc import _CallFuture

    from headway.postman import Postman

PATIENCE = 10.0
"""Seconds that the server has for an answer before the connection counts as broken."""

WRITING = 5.0
"""Seconds that the engine, and the disk, have to take down what is left."""

UNREACHED_TIMEOUT = 2.0
"""Seconds that a process waits at its end for the first answer of a server that never gave one."""

LATE_TIMEOUT = 1.0
"""Seconds that a call has which is made after the end of the process has been told."""

RESTING = 2.0
"""Seconds that the thread has to end before a fork."""

_AT_HAND = 0.1
"""Seconds after which a thread that does not look into its inbox is taken to wait for an answer."""

_NO_LATE_THREADS = sys.version_info[:2] == (3, 12)
"""Whether no thread can start once the main thread has ended, though others may go on for long."""

_CALLS = 16
_FIRST_PACE = 0.25
_PACES = (0.01, 30.0)
_BELIEVED = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.CANCELLED})


_stuck: list[object] = []
"""Channels that gRPC cannot close; it tries to once they are let go."""


class Engine:
    """See the module. `submit` and `linger` may be called from any thread; the rest runs in the engine's own."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self._holders = 0
        self.contact = Contact(self.target.address)
        self._reset()

    def _reset(self) -> None:
        self._inbox: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._thread: Thread | None = None
        self._resting = False
        """Whether no thread may run, since the process forks."""
        self._end_by: float | None = None
        """When the process has to end, once it does."""
        self._threadless = False
        """Whether a thread could not start."""
        # A signal handler may end a job while its own thread is in here.
        self._lock = RLock()
        self._courses: dict[Course, None] = {}
        self._channel: grpc.Channel | None = None
        self._stream: ReportStream | None = None
        self._batch: Batch | None = None
        """Sent and not acknowledged yet."""
        self._ack_by = 0.0
        self._calls: set[_CallFuture[job_pb2.Job]] = set()
        self._pace = _FIRST_PACE
        self._postman: Postman | None = None
        self._looked = False
        """Whether it was seen what earlier processes left for this server."""

    # What the worker's threads call.

    def submit(self, course: Course, *steps: Step) -> None:
        """Takes a course in charge and queues steps for it."""
        self._post(partial(self._take, course, steps))

    def listen(self, course: Course, callback: Callable[[HeadwayError], object] | None) -> None:
        """Whom to tell when the server takes no more of this job, at once if it does not now."""
        course.on_stopped = callback
        self._post(course.tell)

    def linger(self, courses: Iterable[Course], timeout: float, *, leaving: bool = False) -> list[Course]:
        """Waits until all that these jobs have to say has been delivered; returns those of which something is left.
        `leaving`: does not wait for a server that was never reached, or that is unreachable for `timeout` already."""
        waiting = {course: Step(after_reports=True) for course in courses if not course.over}
        for course, step in waiting.items():
            self.submit(course, step)
        self._post(partial(self._hurry, 1))
        end = time.monotonic() + timeout
        try:
            if leaving:
                first = timeout if self.contact.heard_at else min(timeout, UNREACHED_TIMEOUT)
                wait([step.tried for step in waiting.values()], first)
                if not all(step.answer.done() for step in waiting.values()):
                    end = min(end, self.contact.worth_waiting(timeout))
            wait([step.answer for step in waiting.values()], end - time.monotonic())
        finally:
            self._post(partial(self._hurry, -1))
        return [course for course, step in waiting.items() if not step.answer.done()]

    def write_down(self, courses: Iterable[Course]) -> dict[Course, str]:
        """Puts what these jobs have left to say in the spool, for a later process. Says for each that has something
        left where it is, or "" if it could not be written."""
        chosen = list(courses)
        places: Promise[dict[Course, str]] = Promise()
        if chosen:
            self._post(partial(self._write_down, chosen, places))
            if not places.wait(_AT_HAND):
                self._break_off()
                places.wait(WRITING)
        return places.result() if places.done() else dict.fromkeys(chosen, "")

    def hold(self, change: int) -> None:
        """One connection more, or one less, that keeps the thread and the channel at hand."""
        with self._lock:
            self._holders += change
            self._inbox.put(lambda: None)

    def adopt(self) -> None:
        """In a forked child: begins anew. The parent's jobs are reported by parts of this process's own."""
        jobs = self._live()
        self._reset()
        self.contact.forget_failures()
        self._holders = max(self._holders, 1)
        for course in jobs:
            course.adopt(family.part())
            self.submit(course)

    def jobs(self) -> list[Course]:
        """All that there is something to say of, those included that were handed over just now."""
        found: Promise[list[Course]] = Promise()
        with self._lock:
            if self._thread is None:
                return []
            self._inbox.put(lambda: found.set_result(self._live()))
        found.wait(WRITING)
        return found.result() if found.done() else self._live()

    def _live(self) -> list[Course]:
        return [course for course in list(self._courses) if not course.over]

    def rest(self) -> int | None:
        """Closes all that gRPC has open and ends the thread, until `wake` is called. Which thread that was."""
        postman, self._postman = self._postman, None
        if postman is not None:
            postman.stop()
        with self._lock:
            self._resting = True
            thread = self._thread
            self._inbox.put(lambda: None)
        if thread is not None and not thread.join(_AT_HAND):
            self._break_off()
            thread.join(RESTING)
        return thread.native_id if thread is not None else None

    def wake(self) -> None:
        """The process has forked, and this is the parent."""
        with self._lock:
            self._resting = False
            if self._courses or not self._inbox.empty():
                self._post(lambda: None)

    def end(self, by: float) -> None:
        """The process ends by then. From now on no call needs a new thread: Python 3.12 starts none at its end."""
        with self._lock:
            self._end_by = by
            self._inbox.put(lambda: None)

    def disconnect(self) -> None:
        """Closes all that gRPC has open, which is opened again on use."""
        closed: Promise[None] = Promise()
        with self._lock:
            if self._thread is None:
                return
            self._inbox.put(self._disconnect)
            self._inbox.put(partial(closed.set_result, None))
        if not closed.wait(_AT_HAND):
            self._break_off()
            closed.wait(RESTING)

    def _break_off(self) -> None:
        """Ends the call that keeps the engine's thread from its inbox."""
        channel = self._channel
        if channel is not None:
            channel.close()

    def _post(self, action: Callable[[], None]) -> None:
        with self._lock:
            self._inbox.put(action)
            if self._thread is None and not self._resting:
                # Now, and not when it is first needed, which may be at the very end: dataclasses that are made there,
                # in whatever thread, make CPython forget that it was Ctrl-C that ended the program: exit status 1.
                import_module("headway.postman")
                termination.arm()
                if has_greenlets():
                    load_grpc()
                try:
                    self._thread = Thread(self._run, "headway")
                except RuntimeError:
                    self._go_without_thread()

    def _go_without_thread(self) -> None:
        """The interpreter ends and starts no thread any more: does in this one what can be done soon."""
        self._threadless = True
        self._end_by = end = time.monotonic() + LATE_TIMEOUT
        while True:
            while not self._inbox.empty():
                self._inbox.get_nowait()()
            now = time.monotonic()
            if self.contact.down or now > end or not any(course.urgent for course in self._courses):
                break
            self._pump(now)
        for course in self._courses:
            for step in course.waiting():
                step.give_up_waiting()

    # What the engine's thread does.

    def _run(self) -> None:
        while True:
            try:
                self._inbox.get(timeout=self._turn_within())()
                while True:
                    self._inbox.get_nowait()()
            except Empty:
                pass
            except Exception as fault:
                self._own_fault(fault)
            try:
                self._pump(time.monotonic())
            except Exception as fault:
                self._own_fault(fault)
            self._forget()
            with self._lock:
                idle = not self._courses and not self._holders and self._inbox.empty()
                if idle or self._resting:
                    self._disconnect()
                    self._thread = None
                    return

    def _own_fault(self, fault: Exception) -> None:
        """What should not happen stops nothing, and is not tried again at once."""
        log.debug("headway: a fault of its own", exc_info=fault)
        if isinstance(fault, RuntimeError) and self._channel is not None and self._ending and not self._threadless:
            # A thread of gRPC could not start. What waits for it would wait for ever, the end of this channel as well.
            self._threadless = True
            _stuck.append((self._channel, self._stream, self._calls))
            self._channel, self._stream, self._batch, self._calls = None, None, None, set()
            for course in self._courses:
                course.calling, course.due = False, 0.0
            return
        self._outage(HeadwayError(grpc.StatusCode.UNKNOWN, f"{type(fault).__name__}: {fault}"))

    def _take(self, course: Course, steps: tuple[Step, ...]) -> None:
        for step in steps:
            course.add_step(step)
            if self.contact.down:
                step.give_up_waiting()
        if not course.over and course not in self._courses:
            self._courses[course] = None
            course.beat_at = time.monotonic() + self._turn(course)
        course.due = 0.0

    def _hurry(self, waiting: int) -> None:
        self.contact.hurry(waiting, time.monotonic())

    def _turn_within(self) -> float | None:
        """Seconds until there is something to do, if nothing comes in."""
        idle = self._idle_for()
        if not termination.armed():
            return idle
        termination.look()
        return termination.LOOK_EVERY if idle is None else min(idle, termination.LOOK_EVERY)

    def _idle_for(self) -> float | None:
        now = time.monotonic()
        if not self._courses:
            return None
        if self._batch is not None:
            return max(self._ack_by - now, 0.0)
        if self.contact.retry_at > now:
            return self.contact.retry_at - now
        moments = [max(course.due, course.retry_at) for course in self._courses if course.reporting]
        if len(self._calls) < _CALLS:
            moments += [course.retry_at for course in self._courses if course.next_step()]
        return max(min(moments) - now, 0.0) if moments else None

    def _pump(self, now: float) -> None:
        if self._batch is not None and now >= self._ack_by:
            self._outage(HeadwayError(grpc.StatusCode.DEADLINE_EXCEEDED, "no answer"))
        self._forget()
        if now < self.contact.retry_at:
            return
        if self._batch is None:
            self._report(now)
        for course in self._courses:
            if len(self._calls) >= _CALLS or now < self.contact.retry_at:
                break
            step = course.next_step()
            if step is not None and course.retry_at <= now:
                self._call(course, step)
        if self._end_by is not None and not any(course.urgent for course in self._courses):
            # A thread that is inside gRPC when the interpreter goes may take the process with it.
            self._disconnect()

    def _forget(self) -> None:
        """Drops the jobs of which there is nothing to say any more."""
        for course in [course for course in self._courses if course.silent]:
            del self._courses[course]
            if course.letter is not None:
                course.letter.remove() if course.error is None else course.letter.refuse()

    @property
    def _ending(self) -> bool:
        """Whether the interpreter ends, as far as threads are concerned."""
        late = _NO_LATE_THREADS and not threading.main_thread().is_alive()
        return late or self._threadless or self._end_by is not None

    @property
    def _alone(self) -> bool:
        """Whether gRPC can have no threads of Python: they would be greenlets, or could not be started any more."""
        return self._ending or has_greenlets()

    @property
    def _timeout(self) -> float:
        """Seconds that the next call has."""
        if self._end_by is None:
            return PATIENCE
        return min(max(self._end_by - time.monotonic(), LATE_TIMEOUT), PATIENCE)

    def _stub(self) -> JobServiceStub:
        if self._channel is None:
            self._channel = open_channel(self.target, retry=False)
        return JobServiceStub(self._channel)

    def _report(self, now: float) -> None:
        batch = Batch()
        due = [course for course in self._courses if course.reporting and course.due <= now >= course.retry_at]
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
        self._inbox.put(partial(self._arrived, stream, arrival))

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
            for course in self._courses:
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
        if not self._looked and not self._ending:
            self._looked = True
            self._inbox.put(self._look)

    def _look(self) -> None:
        from headway.postman import collect

        self._postman = collect(self.target)

    def _write_down(self, courses: list[Course], places: Promise[dict[Course, str]]) -> None:
        from headway.postman import write_down

        places.set_result(write_down(courses, self.target))

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
        call.add_done_callback(lambda _: self._inbox.put(partial(self._called, course, step, call)))

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
            return
        verdict = judge(answer)
        if verdict is Verdict.LATER:
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
        for course in self._courses:
            for step in course.waiting():
                step.give_up_waiting()

    def _hang_up(self) -> None:
        """Closes the connection, and with it all calls that are under way."""
        self._drop_stream()
        calls, self._calls = self._calls, set()
        for call in calls:
            call.cancel()
        for course in self._courses:
            course.calling = False
        if self._channel is not None:
            self._channel.close()
        self._channel = None

    def _disconnect(self) -> None:
        stream = self._stream
        self._hang_up()
        if stream is not None:
            stream.join(1.0)
