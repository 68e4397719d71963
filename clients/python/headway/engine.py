"""The thread behind all jobs of a process that report to one server.

It alone owns the channel, the stream and every Course; others hand it work through an inbox. It samples the meters
when the server wants to hear of them, keeps one request in flight, and repeats what was not acknowledged: sequences
and chosen ids make that count once. Whatever the server does, the worker's threads never wait here unless they ask to.
"""

import os
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, wait
from functools import partial
from importlib import import_module
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

import grpc

from headway.batch import MESSAGE_BYTES, Batch
from headway.calls import place
from headway.channel import Target, open_channel
from headway.contact import Contact, in_words, log
from headway.course import Course, Step
from headway.errors import HeadwayError, from_rpc_error, from_status
from headway.ids import chance
from headway.report import Reporter
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

_CALLS = 16
_FIRST_PACE = 0.25
_PACES = (0.01, 30.0)
_BELIEVED = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.CANCELLED})


class Engine:
    """See the module. `submit` and `linger` may be called from any thread; the rest runs in the engine's own."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self._holders = 0
        self._reset()

    def _reset(self) -> None:
        self._inbox: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._thread: threading.Thread | None = None
        # A signal handler may end a job while its own thread is in here.
        self._lock = threading.RLock()
        self._courses: dict[Course, None] = {}
        self._channel: grpc.Channel | None = None
        self._stream: ReportStream | None = None
        self._batch: Batch | None = None
        """Sent and not acknowledged yet."""
        self._ack_by = 0.0
        self._calls: set[_CallFuture[job_pb2.Job]] = set()
        self._pace = _FIRST_PACE
        self.contact = Contact(self.target.address)
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

    def linger(self, courses: Iterable[Course], timeout: float) -> list[Course]:
        """Waits until all that these jobs have to say has been delivered; returns those of which something is left."""
        waiting = {course: Step(after_reports=True) for course in courses if not course.over}
        for course, step in waiting.items():
            self.submit(course, step)
        self._post(partial(self._hurry, 1))
        try:
            wait([step.answer for step in waiting.values()], timeout)
        finally:
            self._post(partial(self._hurry, -1))
        return [course for course, step in waiting.items() if not step.answer.done()]

    def write_down(self, courses: Iterable[Course]) -> dict[Course, str]:
        """Puts what these jobs have left to say in the spool, for a later process. Says for each that has something
        left where it is, or "" if it could not be written."""
        chosen = list(courses)
        places: Future[dict[Course, str]] = Future()
        if chosen:
            self._post(partial(self._write_down, chosen, places))
            wait([places], WRITING)
        return places.result() if places.done() else dict.fromkeys(chosen, "")

    def hold(self, change: int) -> None:
        """One connection more, or one less, that keeps the thread and the channel at hand."""
        with self._lock:
            self._holders += change
            self._inbox.put(lambda: None)

    def adopt(self) -> None:
        """In a forked child: begins anew. The parent's jobs are reported by a part of this process's own."""
        jobs = self._live()
        self._reset()
        self._holders = max(self._holders, 1)
        for course in jobs:
            course.adopt(os.getpid())
            self.submit(course)

    def jobs(self) -> list[Course]:
        """All that there is something to say of, those included that were handed over just now."""
        found: Future[list[Course]] = Future()
        with self._lock:
            if self._thread is None:
                return []
            self._inbox.put(lambda: found.set_result(self._live()))
        wait([found], WRITING)
        return found.result() if found.done() else self._live()

    def _live(self) -> list[Course]:
        return [course for course in list(self._courses) if not course.over]

    def rest(self) -> "threading.Event":
        """Closes all that gRPC has open and holds still until the returned event is set; see fork.py."""
        go_on, resting = threading.Event(), threading.Event()
        postman, self._postman = self._postman, None
        if postman is not None:
            postman.stop()
        with self._lock:
            if self._thread is None:
                return go_on
            self._inbox.put(partial(self._hold, resting, go_on))
        resting.wait(2.0)
        return go_on

    def _post(self, action: Callable[[], None]) -> None:
        with self._lock:
            self._inbox.put(action)
            if self._thread is None:
                # Now, and not when it is first needed, which may be at the very end: dataclasses that are made there,
                # in whatever thread, make CPython forget that it was Ctrl-C that ended the program: exit status 1.
                import_module("headway.postman")
                self._thread = threading.Thread(target=self._run, name="headway", daemon=True)
                self._thread.start()

    # What the engine's thread does.

    def _run(self) -> None:
        while True:
            try:
                self._inbox.get(timeout=self._idle_for())()
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
            with self._lock:
                if not self._courses and not self._holders and self._inbox.empty():
                    self._disconnect()
                    self._thread = None
                    return

    def _own_fault(self, fault: Exception) -> None:
        """What should not happen stops nothing, and is not tried again at once."""
        log.debug("headway: a fault of its own", exc_info=fault)
        self._outage(HeadwayError(grpc.StatusCode.UNKNOWN, f"{type(fault).__name__}: {fault}"))

    def _take(self, course: Course, steps: tuple[Step, ...]) -> None:
        if not course.over and course not in self._courses:
            self._courses[course] = None
            course.beat_at = time.monotonic() + self._turn(course)
        for step in steps:
            course.add_step(step)
            if self.contact.down:
                step.give_up_waiting()
        course.due = 0.0

    def _hurry(self, waiting: int) -> None:
        self.contact.hurry(waiting, time.monotonic())

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
        for course in [course for course in self._courses if course.over]:
            del self._courses[course]
            if course.letter is not None:
                course.letter.remove() if course.error is None else course.letter.refuse()
        if now < self.contact.retry_at:
            return
        if self._batch is None:
            self._report(now)
        for course in self._courses:
            if len(self._calls) >= _CALLS:
                break
            step = course.next_step()
            if step is not None and course.retry_at <= now:
                self._call(course, step)

    def _stub(self) -> JobServiceStub:
        if self._channel is None:
            self._channel = open_channel(self.target, retry=False)
        return JobServiceStub(self._channel)

    def _report(self, now: float) -> None:
        batch = Batch()
        due = [course for course in self._courses if course.reporting and course.due <= now >= course.retry_at]
        batch.fill(due, now, self._turn)
        for course, reporter in batch.oversized:
            self._refused(course, reporter, too_large())
            course.due = now
        for course, fault in batch.faults:
            self._stop(course, HeadwayError(grpc.StatusCode.INTERNAL, f"{type(fault).__name__}: {fault}"))
        if not batch.senders:
            return
        if self._stream is None:
            self._stream = ReportStream(self._stub(), self._deliver)
        self._batch, self._ack_by = batch, now + PATIENCE
        self._stream.send(batch.request)

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
        if arrival.HasField("next_report_after"):
            seconds = arrival.next_report_after.seconds + arrival.next_report_after.nanos / 1e9
            self._pace = min(max(seconds, _PACES[0]), _PACES[1])
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
                        self._stop(course, error)
                    case Verdict.REFUSED:
                        self._refused(course, reporter, error)
                    case _:
                        self._later(course, error, now)
            turn = now + self._turn(course)
            course.beat_at = min(course.beat_at, turn)
            course.due = now if course.urgent else min(course.due, turn)

    def _heard(self) -> None:
        self.contact.heard()
        if not self._looked:
            self._looked = True
            self._inbox.put(self._look)

    def _look(self) -> None:
        from headway.postman import collect

        self._postman = collect(self.target)

    def _write_down(self, courses: list[Course], places: "Future[dict[Course, str]]") -> None:
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
        call = place(self._stub(), step.request, PATIENCE)
        course.calling = True
        self._calls.add(call)
        call.add_done_callback(lambda _: self._inbox.put(partial(self._called, course, step, call)))

    def _called(self, course: Course, step: Step, call: "_CallFuture[job_pb2.Job]") -> None:
        if call not in self._calls:
            return
        self._calls.remove(call)
        course.calling = False
        try:
            # None, which the types do not know, for a call that ended well and brought no message.
            answer: job_pb2.Job | None = call.result()
        except grpc.RpcError as error:
            self._answer(course, step, from_rpc_error(error))
        except grpc.FutureCancelledError:
            pass
        else:
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
            self._later(course, answer, time.monotonic())
            step.give_up_waiting()
        elif verdict is not Verdict.AWAY or (keeps_out(answer) and isinstance(step.request, rpc.CreateJobRequest)):
            self._declined(course, step, answer)
        else:
            self._outage(answer)

    def _declined(self, course: Course, step: Step, error: HeadwayError) -> None:
        request, malformed = step.request, error.code == grpc.StatusCode.INVALID_ARGUMENT
        if isinstance(request, rpc.FinishJobRequest) and request.HasField("results") and malformed:
            self._notice("the results of job %s were refused, so it ends without: %s", course, error)
            request.ClearField("results")
        elif isinstance(request, rpc.UpdateJobRequest) and judge(error) is not Verdict.GONE:
            self._notice("a change of job %s was refused: %s", course, error)
            course.answered(step, None)
        else:
            self._stop(course, error)

    def _stop(self, course: Course, error: HeadwayError) -> None:
        if not course.over:
            self._notice("job %s is no longer reported: %s", course, error)
            course.stop(error)

    def _refused(self, course: Course, reporter: Reporter | None, error: HeadwayError) -> None:
        if reporter is None:
            # Nothing in a heartbeat could be put right.
            self._stop(course, error)
            return
        self._notice("a report of job %s was refused: %s", course, error)
        reporter.refused(error)

    def _later(self, course: Course, error: HeadwayError, now: float) -> None:
        if not course.retry_at:
            self._notice("job %s has to wait: %s", course, error)
        course.retry_at = now + min(max(error.retry_after or 1.0, 0.1), 60.0) * chance(1.0, 1.2)

    def _notice(self, text: str, course: Course, error: HeadwayError) -> None:
        log.warning("headway: " + text, course.job.id, in_words(error))

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

    def _hold(self, resting: threading.Event, go_on: threading.Event) -> None:
        self._disconnect()
        resting.set()
        go_on.wait(2.0)
