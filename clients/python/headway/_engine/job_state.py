"""The engine's record of one job: what it still has to tell the server, in order."""

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
    """A call that a job has to make, or with no request the point up to which its reports shall go out."""

    request: Request | None = None
    after_reports: bool = False
    sampled: bool = False
    """All that its reports have to say is known; what changes later comes too late for it."""
    release: bool = False
    """The job is left alone after this step."""
    answer: Promise[job_pb2.Job | None] = field(default_factory=Promise)
    """What the server answered, or its refusal."""
    tried: Promise[None] = field(default_factory=Promise)
    """Done with the answer, or as soon as it is known that the server does not answer now."""

    def settle(self, answer: job_pb2.Job | None, error: HeadwayError | None = None) -> None:
        if error is None:
            self.answer.set_result(answer)
        else:
            self.answer.set_exception(error)
        self.give_up_waiting()

    def give_up_waiting(self) -> None:
        self.tried.set_result(None)


class Signal:
    """An event, as those of `threading`, that is true once it is set."""

    def __init__(self) -> None:
        self._set: Promise[None] = Promise()

    def __bool__(self) -> bool:
        return self._set.done()

    def is_set(self) -> bool:
        return self._set.done()

    def set(self) -> None:
        self._set.set_result(None)

    def wait(self, timeout: float | None = None) -> bool:
        """Waits until it is set, at most `timeout` seconds; whether it is."""
        return self._set.wait(timeout)


class JobState:
    """One job on its way. Threads of the worker add parts and steps; all else is the engine thread's."""

    def __init__(self, session: str, job: job_pb2.Job, meter: Meter, *, heartbeat: float, started: bool) -> None:
        self.session = session
        self.job = job
        """The job as the server last described it; before it did, as the worker did."""
        self.heartbeat = heartbeat
        self.started = started
        """Whether reports may flow: not before the job is created, or while it is PENDING."""
        self.attempt = job.attempt
        """Which worker this is, whoever else has the job meanwhile; 0 before the server said."""
        self.error: HeadwayError | None = None
        """Why the server wants no more reports, once it does not."""
        self.over = False
        """Nothing more is sent, unless it is `released` and a further step comes."""
        self.released = False
        """Whether it was let go as it is, and neither ended nor refused."""
        self.supervised = False
        """Whether another process ends it if this one does not."""
        self.given_up = False
        """Whether somebody has waited in vain for the last of it to be delivered."""
        self.spool_file: SpoolFile | None = None
        """Where that is written down for a later process, until it is delivered from here after all."""
        self.cancelled = Signal()
        self.on_cancelled: Callable[[], object] | None = None
        """Called once, in the engine's thread, when the wish becomes known."""
        self.on_stopped: Callable[[HeadwayError], object] | None = None
        """Called once, in the engine's thread, with the `error`."""
        self.calling = False
        self.due = 0.0
        """When to look for something to report; in the engine's monotonic seconds, as all times here."""
        self.heartbeat_at = 0.0
        """When to give a heartbeat if there is nothing to report."""
        self.retry_at = 0.0
        self.ended_by: HeadwayError | None = None
        """What the server said when the job had ended without this worker, once it has."""
        self._late_end: rpc.FinishJobRequest | None = None
        """An end that came after that, while its results are kept."""
        self._unwanted = False
        """Whether somebody has decided that the work is for nothing."""
        meter._check = self.check
        self._meter = meter
        self._reporters = {"": Reporter(meter, job.parts.get("", 0), job.size)}
        self._pending_calls: deque[PendingCall] = deque()

    def add_part(self, name: str) -> Meter:
        """The meter of a part; the same one for the same name."""
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
        """Raises if somebody has decided that the work is for nothing. That a job is not tracked any more for another
        reason, such as a database that was emptied, is no reason to end the work."""
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
        """Somebody has more to say of a job that was let go, or is about to be."""
        self.given_up = False
        if self.released:
            self.over = self.released = False
        for pending_call in [pending_call for pending_call in self._pending_calls if pending_call.release]:
            self._pending_calls.remove(pending_call)
            pending_call.settle(None)

    def _takes_place(self, pending_call: PendingCall) -> bool:
        """Whether a change of a field stands in for an older one that waits: of many in an outage the last counts."""
        if isinstance(pending_call.request, rpc.UpdateJobRequest):
            for waiting in islice(self._pending_calls, int(self.calling), None):
                older = waiting.request
                if isinstance(older, rpc.UpdateJobRequest) and older.update_mask == pending_call.request.update_mask:
                    waiting.request = pending_call.request
                    return True
        return False

    def next_call(self) -> PendingCall | None:
        """The step whose turn it is, unless reports come first."""
        if self.calling or not self._pending_calls or self._pending_calls[0].after_reports:
            return None
        return self._pending_calls[0]

    def reports(self, now: float) -> Iterator[tuple[Reporter | None, rpc.ReportProgressRequest]]:
        """The reports to send now; if there are none, a heartbeat, or the turn of the step that waited for them."""
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
            # Other threads may still count: a step waits for what was there when it came, and not for ever.
            pending_call.sampled = pending_call.sampled or complete
            pending_call.after_reports = pending_call.after_reports and not silent
        elif silent and self.heartbeat >= 0 and now >= self.heartbeat_at:
            yield (
                None,
                rpc.ReportProgressRequest(session_id=self.session, job_id=self.job.id, attempt=self.attempt),
            )

    @property
    def silent(self) -> bool:
        """Whether there is nothing to send, now and later: a job that is PENDING is a matter of its next worker."""
        return self.over or not (self.started or self._pending_calls)

    @property
    def unended(self) -> bool:
        """Whether this process works on it, and has not asked for its end."""
        ending = any(
            pending_call.release or isinstance(pending_call.request, _ENDS) for pending_call in self._pending_calls
        )
        creation = self.creation()
        begun = self.started or (creation is not None and not creation.pending)
        mine = self.heartbeat >= 0 and not self.supervised
        return mine and begun and not self.over and not ending

    @property
    def reporting(self) -> bool:
        """Whether it is the turn of reports, or of the step that waits for them."""
        return not self.over and (self._pending_calls[0].after_reports if self._pending_calls else self.started)

    @property
    def urgent(self) -> bool:
        """Whether more should go out without waiting for the next turn."""
        return bool(self._pending_calls) or any(reporter.busy for reporter in list(self._reporters.values()))

    def remains(self) -> list[Request | rpc.ReportProgressRequest]:
        """All calls that are left to make, in order."""
        left: list[Request | rpc.ReportProgressRequest] = []
        # A job that nobody has answered for yet begins with its first attempt.
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
                    # Which attempt that will be, only the server can tell: 0 is not checked.
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
        """A step is done."""
        self._pending_calls.popleft()
        self.retry_at = 0.0
        if job is not None:
            # What the worker has set meanwhile, the server does not know yet.
            for later in self._pending_calls:
                if isinstance(later.request, rpc.UpdateJobRequest):
                    later.request.update_mask.MergeMessage(later.request.job, job)
            self.job = job
            if isinstance(pending_call.request, rpc.CreateJobRequest):
                # Whoever creates a job is its first worker, also if the answer to the call's repeat tells of another
                # who has taken it over meanwhile.
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
        """The call that creates it, while it is not answered."""
        return next(
            (
                pending_call.request
                for pending_call in self._pending_calls
                if isinstance(pending_call.request, rpc.CreateJobRequest)
            ),
            None,
        )

    def adopt(self, part: str) -> None:
        """In another process than the one that made it: what that has counted is that one's to report."""
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
        """The server says that the job shall end early."""
        self.job.cancellation.CopyFrom(cancellation)
        self.cancelled.set()
        self._interrupt()
        told, self.on_cancelled = self.on_cancelled, None
        if told is not None:
            _safely(told)

    def tell(self) -> None:
        """Calls `on_stopped` if it is time for that."""
        if self.error is not None and self.on_stopped is not None:
            told, self.on_stopped = self.on_stopped, None
            _safely(partial(told, self.error))

    def ask_how_it_ended(self, error: HeadwayError) -> bool:
        """The job has ended without this worker, as this error says. Whether it is asked how, which is done once."""
        if self.ended_by is not None:
            return False
        self.ended_by = error
        self.started = False
        request = rpc.GetJobRequest(session_id=self.session, job_id=self.job.id)
        self._pending_calls.insert(int(self.calling), PendingCall(request))
        return True

    def _keep_results(self, pending_call: PendingCall) -> bool:
        """Whether this is an end with results that comes too late: the work was done, so they go into a variable."""
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
        """Nothing more is sent for this job, unless it has ended without this worker's results."""
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
"""Why the server takes no more, where that is somebody's decision."""


def _safely(callback: Callable[[], object]) -> None:
    """A fault in the worker's callback is the worker's, and stops no reports."""
    try:
        callback()
    except Exception:
        log.exception("headway: a callback failed")
