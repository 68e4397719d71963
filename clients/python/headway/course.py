"""The engine's record of one job: what it still has to tell the server, in order."""

import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TypeAlias

from headway.errors import HeadwayError
from headway.meter import Meter
from headway.report import Reporter
from headway.v1 import job_pb2
from headway.v1 import job_service_pb2 as rpc

Request: TypeAlias = (
    rpc.CreateJobRequest | rpc.StartJobRequest | rpc.UpdateJobRequest | rpc.FinishJobRequest | rpc.FailJobRequest
)


def _promise() -> Future[job_pb2.Job | None]:
    future: Future[job_pb2.Job | None] = Future()
    # An asyncio waiter that is cancelled would cancel the future under the engine's hands.
    future.set_running_or_notify_cancel()
    return future


@dataclass(slots=True, eq=False)
class Step:
    """A call that a job has to make, or with no request the point up to which its reports shall go out."""

    request: Request | None = None
    after_reports: bool = False
    sampled: bool = False
    """All that its reports have to say is known; what changes later comes too late for it."""
    release: bool = False
    """The job is left alone after this step."""
    answer: Future[job_pb2.Job | None] = field(default_factory=_promise)
    """What the server answered, or its refusal."""
    tried: Future[job_pb2.Job | None] = field(default_factory=_promise)
    """Done with the answer, or as soon as it is known that the server does not answer now."""

    def settle(self, answer: job_pb2.Job | None, error: HeadwayError | None = None) -> None:
        if error is None:
            self.answer.set_result(answer)
        else:
            self.answer.set_exception(error)
        self.give_up_waiting()

    def give_up_waiting(self) -> None:
        if not self.tried.done():
            self.tried.set_result(None)


class Signal(threading.Event):
    """An event that is true once it is set."""

    def __bool__(self) -> bool:
        return self.is_set()


class Course:
    """One job on its way. Threads of the worker add parts and steps; all else is the engine thread's."""

    def __init__(self, session: str, job: job_pb2.Job, meter: Meter, *, heartbeat: float, started: bool) -> None:
        self.session = session
        self.job = job
        """The job as the server last described it; before it did, as the worker did."""
        self.heartbeat = heartbeat
        self.started = started
        """Whether reports may flow: not before the job is created, or while it is PENDING."""
        self.error: HeadwayError | None = None
        """Why the server wants no more reports, once it does not."""
        self.over = False
        self.given_up = False
        """Whether somebody has waited in vain for the last of it to be delivered."""
        self.cancelled = Signal()
        self.calling = False
        self.due = 0.0
        """When to look for something to report; in the engine's monotonic seconds, as all times here."""
        self.beat_at = 0.0
        """When to give a heartbeat if there is nothing to report."""
        self.retry_at = 0.0
        self._meter = meter
        self._reporters = {"": Reporter(meter, job.parts.get("", 0), job.size)}
        self._steps: deque[Step] = deque()

    @property
    def attempt(self) -> int:
        return self.job.attempt

    def add_part(self, name: str) -> Meter:
        """The meter of a part; the same one for the same name."""
        reporter = self._reporters.get(name)
        if reporter is None:
            progress = self.job.parts.get(name, 0)
            reporter = self._reporters.setdefault(name, Reporter(Meter(name, progress), progress))
        return reporter.meter

    def add_step(self, step: Step) -> None:
        if self.over:
            step.settle(None, self.error)
        else:
            self._steps.append(step)

    def next_step(self) -> Step | None:
        """The step whose turn it is, unless reports come first."""
        if self.calling or not self._steps or self._steps[0].after_reports:
            return None
        return self._steps[0]

    def reports(self, now: float) -> Iterator[tuple[Reporter | None, rpc.ReportProgressRequest]]:
        """The reports to send now; if there are none, a heartbeat, or the turn of the step that waited for them."""
        step = self._steps[0] if self._steps else None
        fresh = step is None or not step.sampled
        complete = silent = True
        for reporter in list(self._reporters.values()) if self.started else ():
            complete = complete and not reporter.unsettled
            report = reporter.report(self.session, self.job.id, self.attempt, fresh)
            if report is not None:
                silent = False
                yield reporter, report
        if step is not None:
            # Other threads may still count: a step waits for what was there when it came, and not for ever.
            step.sampled = step.sampled or complete
            step.after_reports = step.after_reports and not silent
        elif silent and self.heartbeat >= 0 and now >= self.beat_at:
            yield (
                None,
                rpc.ReportProgressRequest(session_id=self.session, job_id=self.job.id, attempt=self.attempt),
            )

    @property
    def reporting(self) -> bool:
        """Whether it is the turn of reports, or of the step that waits for them."""
        return not self.over and (self._steps[0].after_reports if self._steps else self.started)

    @property
    def urgent(self) -> bool:
        """Whether more should go out without waiting for the next turn."""
        return bool(self._steps) or any(reporter.busy for reporter in list(self._reporters.values()))

    def answered(self, step: Step, job: job_pb2.Job | None) -> None:
        """A step is done."""
        self._steps.popleft()
        self.retry_at = 0.0
        if job is not None:
            self.job = job
            self.started = job.status != job_pb2.JOB_STATUS_PENDING
        ended = isinstance(step.request, rpc.FinishJobRequest | rpc.FailJobRequest)
        if ended or step.release:
            self.stop(None)
        step.settle(job)

    def adopt(self, pid: int) -> None:
        """In a forked child: what the parent has counted is the parent's to report."""
        steps = [step for step in self._steps if isinstance(step.request, rpc.CreateJobRequest)]
        self._steps = deque(Step(step.request) for step in steps)
        self.calling, self.retry_at, self.heartbeat = False, 0.0, -1.0
        meters = [reporter.meter for reporter in self._reporters.values()]
        for meter in meters:
            meter.adopt(pid)
        self._reporters = {meter._part: Reporter(meter) for meter in meters}

    def cancel(self, wish: job_pb2.Cancellation) -> None:
        """The server says that the job shall end early."""
        self.job.cancellation.CopyFrom(wish)
        self.cancelled.set()

    def stop(self, error: HeadwayError | None) -> None:
        """Nothing more is sent for this job."""
        self.over = True
        self.error = error
        while self._steps:
            step = self._steps.popleft()
            if not step.answer.done():
                step.settle(None, error)

    def waiting(self) -> list[Step]:
        return list(self._steps)
