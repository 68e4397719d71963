"""The engine's record of one job: the calls and reports that it still has to send, in order."""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

from headway._engine.calls import Request
from headway._engine.connection_state import log
from headway._engine.native_threads import Promise
from headway._engine.reporter import Reporter
from headway.errors import HeadwayError, JobCancelled
from headway.meter import Meter
from headway.v1 import job_pb2
from headway.v1 import job_service_pb2 as rpc

if TYPE_CHECKING:
    from headway._spool.spool import SpoolFile


@dataclass(slots=True, eq=False)
class PendingCall:
    """A call that a job still has to make. Without a request it marks the point up to which reports are to be sent."""

    request: Request | None = None
    after_reports: bool = False
    sampled: bool = False
    """The reports before it are complete. Later changes do not delay it."""
    release: bool = False
    """Nothing is reported of the job after this call."""
    answer: Promise[job_pb2.Job | None] = field(default_factory=Promise)
    """The answer of the server, or its error."""
    tried: Promise[None] = field(default_factory=Promise)
    """Done with the answer, or when the server turns out to be unreachable."""

    def settle(self, answer: job_pb2.Job | None, error: HeadwayError | None = None) -> None:
        if error is None:
            self.answer.set_result(answer)
        else:
            self.answer.set_exception(error)
        self.give_up_waiting()

    def give_up_waiting(self) -> None:
        self.tried.set_result(None)


class Signal:
    """An event like `threading.Event`. It is true once it is set."""

    def __init__(self) -> None:
        self._set: Promise[None] = Promise()

    def __bool__(self) -> bool:
        return self._set.done()

    def is_set(self) -> bool:
        return self._set.done()

    def set(self) -> None:
        self._set.set_result(None)

    def wait(self, timeout: float | None = None) -> bool:
        """Waits until it is set, at most `timeout` seconds. Returns whether it is set."""
        return self._set.wait(timeout)


class JobState:
    """The state of one job in the client. The worker's threads add parts and calls. The engine's thread does all
    else."""

    def __init__(self, session: str, job: job_pb2.Job, meter: Meter, *, heartbeat: float, started: bool) -> None:
        self.session = session
        self.job = job
        """The job as the server last described it. Before the first answer: as the worker described it."""
        self.heartbeat = heartbeat
        self.started = started
        """Whether reports may be sent. They wait until the job is created, and while it is PENDING."""
        self.attempt = job.attempt
        """The attempt of this worker, also after another worker has taken the job over. 0 before the server has
        answered."""
        self.error: HeadwayError | None = None
        """Why the server takes no more reports, or None."""
        self.over = False
        """Nothing more is sent, unless the job is `released` and gets another call."""
        self.released = False
        """The worker has left the job as it is. It neither ended it nor was refused."""
        self.supervised = False
        """Another process ends the job if this one does not."""
        self.given_up = False
        """A wait for the delivery of its last reports has timed out."""
        self.spool_file: SpoolFile | None = None
        """The spool file with its undelivered data, until this process delivers it after all."""
        self.cancelled = Signal()
        self.on_cancelled: Callable[[], object] | None = None
        """Called once, in the engine's thread, when the cancellation request arrives."""
        self.on_stopped: Callable[[HeadwayError], object] | None = None
        """Called once, in the engine's thread, with the `error`."""
        self.calling = False
        self.due = 0.0
        """When to look for something to report. All times here are monotonic seconds."""
        self.heartbeat_at = 0.0
        """When to send a heartbeat if there is nothing to report."""
        self.retry_at = 0.0
        self.ended_by: HeadwayError | None = None
        """The error that told that the job has ended without this worker, or None."""
        self._late_end: rpc.FinishJobRequest | None = None
        """The late end of this worker, while its results are being stored in a variable."""
        self._unwanted = False
        """Somebody has decided that the work is no longer wanted."""
        meter._check = self.check
        self._meter = meter
        self._reporters = {"": Reporter(meter, job.parts.get("", 0), job.size)}
        self._pending_calls: deque[PendingCall] = deque()

    def add_part(self, name: str) -> Meter:
        """The meter of a part. The same name gives the same meter."""
        reporter = self._reporters.get(name)
        if reporter is None:
            progress = self.job.parts.get(name, 0)
            reporter = self._reporters.setdefault(name, Reporter(Meter(name, progress, self.check), progress))
            if self._unwanted:
                reporter.meter._interrupt()
        return reporter.meter

    def raise_if_cancelled(self) -> None:
        if self.cancelled:
            request = self.job.cancellation
            deadline = request.deadline.ToDatetime(UTC) if request.HasField("deadline") else None
            raise JobCancelled(request.reason, deadline)

    def raise_if_stopped(self) -> None:
        if self.error is not None:
            raise self.error.with_traceback(None)

    def check(self) -> None:
        """Raises if somebody has decided that the work is no longer wanted. Other reasons why a job is not tracked any
        more, such as an emptied database, do not end the work."""
        self.raise_if_cancelled()
        if self.error is not None and self.error.reason in _DECIDED:
            self.raise_if_stopped()

    def _interrupt(self) -> None:
        self._unwanted = True
        for reporter in list(self._reporters.values()):
            reporter.meter._interrupt()

    def add_call(self, pending_call: PendingCall) -> None:
        if not pending_call.release and pending_call.request is not None:
            self._take_up_again()
        if self.over:
            if not self._keep_results(pending_call):
                pending_call.settle(None, self.error)
        elif not self._takes_place(pending_call):
            self._pending_calls.append(pending_call)

    def _take_up_again(self) -> None:
        """Continues with a job that was released, or is about to be."""
        self.given_up = False
        if self.released:
            self.over = self.released = False
        for pending_call in [pending_call for pending_call in self._pending_calls if pending_call.release]:
            self._pending_calls.remove(pending_call)
            pending_call.settle(None)

    def _takes_place(self, pending_call: PendingCall) -> bool:
        """Replaces an older change of the same field that still waits. Of many changes in an outage only the last
        counts. Returns whether it did."""
        if isinstance(pending_call.request, rpc.UpdateJobRequest):
            for waiting in islice(self._pending_calls, int(self.calling), None):
                older = waiting.request
                if isinstance(older, rpc.UpdateJobRequest) and older.update_mask == pending_call.request.update_mask:
                    waiting.request = pending_call.request
                    return True
        return False

    def next_call(self) -> PendingCall | None:
        """The next call, or None if reports come first."""
        if self.calling or not self._pending_calls or self._pending_calls[0].after_reports:
            return None
        return self._pending_calls[0]

    def reports(self, now: float) -> Iterator[tuple[Reporter | None, rpc.ReportProgressRequest]]:
        """The reports to send now. Without any it gives a heartbeat, or lets the next call go that waited for them."""
        pending_call = self._pending_calls[0] if self._pending_calls else None
        fresh = pending_call is None or not pending_call.sampled
        complete = silent = True
        for reporter in list(self._reporters.values()) if self.started else ():
            complete = complete and not reporter.unsettled
            reporter.number_above(self.job.last_sequence)
            report = reporter.report(self.session, self.job.id, self.attempt, fresh)
            if report is not None:
                silent = False
                yield reporter, report
        if pending_call is not None:
            # Other threads may still count. A call waits only for what was counted before it.
            pending_call.sampled = pending_call.sampled or complete
            pending_call.after_reports = pending_call.after_reports and not silent
        elif silent and self.heartbeat >= 0 and now >= self.heartbeat_at:
            yield (
                None,
                rpc.ReportProgressRequest(session_id=self.session, job_id=self.job.id, attempt=self.attempt),
            )

    @property
    def silent(self) -> bool:
        """Whether there is nothing to send, now or later. The next worker of a PENDING job reports it."""
        return self.over or not (self.started or self._pending_calls)

    @property
    def unended(self) -> bool:
        """Whether this process works on the job and has not asked for its end."""
        ending = any(
            pending_call.release or isinstance(pending_call.request, _ENDS) for pending_call in self._pending_calls
        )
        creation = self.creation()
        begun = self.started or (creation is not None and not creation.pending)
        mine = self.heartbeat >= 0 and not self.supervised
        return mine and begun and not self.over and not ending

    @property
    def reporting(self) -> bool:
        """Whether reports are next, or a call that waits for them."""
        return not self.over and (self._pending_calls[0].after_reports if self._pending_calls else self.started)

    @property
    def urgent(self) -> bool:
        """Whether more should be sent before the next report interval."""
        return bool(self._pending_calls) or any(reporter.busy for reporter in list(self._reporters.values()))

    def remains(self) -> list[Request | rpc.ReportProgressRequest]:
        """All calls and reports that are left to send, in order."""
        left: list[Request | rpc.ReportProgressRequest] = []
        # A job whose creation is not answered yet begins with its first attempt.
        started, attempt = self.started, self.attempt or 1
        for pending_call in self._pending_calls:
            match pending_call.request:
                case None | rpc.GetJobRequest():
                    continue
                case rpc.SetVariablesRequest() if self._late_end is not None:
                    left.append(self._late_end)
                    continue
                case rpc.CreateJobRequest() as request:
                    started = not request.pending
                case rpc.StartJobRequest():
                    # Only the server knows which attempt this becomes. The server does not check 0.
                    started, attempt = True, 0
                case rpc.FinishJobRequest() | rpc.FailJobRequest() as request:
                    if started and pending_call.after_reports:
                        left += self._drain(not pending_call.sampled, attempt)
                    request.attempt = attempt
                    return [*left, request]
            left.append(pending_call.request)
        if started:
            left += self._drain(True, attempt)
        return left

    def _drain(self, fresh: bool, attempt: int) -> list[rpc.ReportProgressRequest]:
        about = self.session, self.job.id, attempt
        for reporter in list(self._reporters.values()):
            reporter.number_above(self.job.last_sequence)
        return [report for reporter in list(self._reporters.values()) for report in reporter.drain(*about, fresh)]

    def answered(self, pending_call: PendingCall, job: job_pb2.Job | None) -> None:
        """Completes the first call."""
        self._pending_calls.popleft()
        self.retry_at = 0.0
        if job is not None:
            # Changes that the worker made meanwhile have not reached the server yet.
            for later in self._pending_calls:
                if isinstance(later.request, rpc.UpdateJobRequest):
                    later.request.update_mask.MergeMessage(later.request.job, job)
            self.job = job
            if isinstance(pending_call.request, rpc.CreateJobRequest):
                # The creator of a job is its first worker, also if the answer to a repeated call shows that another
                # worker has taken it over.
                self.attempt = 1
            elif isinstance(pending_call.request, rpc.StartJobRequest):
                self.attempt = job.attempt
            self.started = job.status != job_pb2.JOB_STATUS_PENDING
        ended = isinstance(pending_call.request, rpc.FinishJobRequest | rpc.FailJobRequest)
        if ended or pending_call.release:
            self.stop(None)
            self.released = not ended
        elif isinstance(pending_call.request, rpc.SetVariablesRequest):
            self.stop(self.error)
        pending_call.settle(job)

    def creation(self) -> rpc.CreateJobRequest | None:
        """The call that creates the job, while it is not answered."""
        return next(
            (
                pending_call.request
                for pending_call in self._pending_calls
                if isinstance(pending_call.request, rpc.CreateJobRequest)
            ),
            None,
        )

    def adopt(self, part: str) -> None:
        """Takes the job over into another process. The former process reports what it has counted itself."""
        pending_calls = [
            pending_call
            for pending_call in self._pending_calls
            if isinstance(pending_call.request, rpc.CreateJobRequest)
        ]
        self._pending_calls = deque(PendingCall(pending_call.request) for pending_call in pending_calls)
        self.calling, self.retry_at, self.heartbeat, self.spool_file = False, 0.0, -1.0, None
        self.on_cancelled = None
        meters = [reporter.meter for reporter in self._reporters.values()]
        for meter in meters:
            meter.adopt(part)
        self._reporters = {meter._part: Reporter(meter, shared=True) for meter in meters}

    def cancel(self, cancellation: job_pb2.Cancellation) -> None:
        """The server has sent a cancellation request."""
        self.job.cancellation.CopyFrom(cancellation)
        self.cancelled.set()
        self._interrupt()
        told, self.on_cancelled = self.on_cancelled, None
        if told is not None:
            _safely(told)

    def tell(self) -> None:
        """Calls `on_stopped` if the job is stopped."""
        if self.error is not None and self.on_stopped is not None:
            told, self.on_stopped = self.on_stopped, None
            _safely(partial(told, self.error))

    def ask_how_it_ended(self, error: HeadwayError) -> bool:
        """The error says that the job has ended without this worker. Asks the server once how it ended. Returns whether
        it asks."""
        if self.ended_by is not None:
            return False
        self.ended_by = error
        self.started = False
        request = rpc.GetJobRequest(session_id=self.session, job_id=self.job.id)
        self._pending_calls.insert(int(self.calling), PendingCall(request))
        return True

    def _keep_results(self, pending_call: PendingCall) -> bool:
        """Stores the results of an end that comes too late in a variable, because the work was done. Returns whether it
        does."""
        request = pending_call.request
        if not isinstance(request, rpc.FinishJobRequest) or not request.HasField("results"):
            return False
        if self.error is None or self.error is not self.ended_by or self.job.status == job_pb2.JOB_STATUS_COMPLETED:
            return False
        kept = rpc.SetVariablesRequest(session_id=self.session, job_id=self.job.id)
        kept.variables.fields["results"].CopyFrom(request.results)
        self._late_end = request
        pending_call.request, pending_call.after_reports = kept, False
        self.over = self.started = False
        self._pending_calls.append(pending_call)
        return True

    def stop(self, error: HeadwayError | None) -> None:
        """Sends nothing more for this job, except results that came after its end."""
        self.over = True
        self.error = error
        pending_calls, self._pending_calls = self._pending_calls, deque()
        for pending_call in pending_calls:
            if not pending_call.answer.done() and not self._keep_results(pending_call):
                pending_call.settle(None, error)
        if error is not None and error.reason in _DECIDED:
            self._interrupt()
        self.tell()

    def waiting(self) -> list[PendingCall]:
        return list(self._pending_calls)


_ENDS = rpc.FinishJobRequest | rpc.FailJobRequest

_DECIDED = frozenset({"JOB_ENDED", "STALE_ATTEMPT"})
"""Reasons of errors that are somebody's decision."""


def _safely(callback: Callable[[], object]) -> None:
    """Calls the worker's callback. Its errors are logged and stop no reports."""
    try:
        callback()
    except Exception:
        log.exception("headway: a callback failed")
