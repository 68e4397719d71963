"""The state machine of a job. Pure: callers pass the time, and nothing here does I/O or reads a clock.

A step is all or nothing: it raises before it changes anything, or it completes.
"""

from collections.abc import Mapping

from headway_server.domain import estimate
from headway_server.domain.change import Change, Event, EventType, Rules
from headway_server.domain.commands import (
    Cancel,
    Clear,
    Command,
    Create,
    Fail,
    Finish,
    SetVariables,
    Start,
    Tick,
    Update,
)
from headway_server.domain.errors import (
    Fault,
    InvalidRequest,
    JobAlreadyExists,
    JobAlreadyStarted,
    JobEnded,
    JobNotEnded,
    JobNotStarted,
    RevisionMismatch,
    StaleAttempt,
)
from headway_server.domain.job import ENDED, Cancellation, Error, Job, Status, StatusChange
from headway_server.domain.limits import MICROSECONDS
from headway_server.domain.report import (
    Report,
    Variables,
    add_counters,
    apply_amount,
    check_part,
    merge_variables,
)

HISTORY_KEPT = 32
"""A job's history keeps this many changes of status from its beginning, and as many from its end."""

CODE_CANCELLED = 1
CODE_DEADLINE_EXCEEDED = 4
CODE_ABORTED = 10
"""Numbers of google.rpc.Code."""

RECHECK_DELAY = MICROSECONDS // 2
"""The sweeper checks a job again after this time (µs) if it cannot tell yet whether the job's worker is silent."""

NO_TICK = Tick()

RUNNING = Status.RUNNING
"""A module constant for speed: Python looks up members of an enum slowly, and every report needs this one."""

TRANSITIONS: Mapping[Status, frozenset[Status]] = {
    Status.PENDING: frozenset({Status.RUNNING, Status.FAILED, Status.CANCELLED}),
    Status.RUNNING: frozenset({Status.LOST}) | ENDED,
    Status.LOST: frozenset({Status.RUNNING}) | ENDED,
    Status.COMPLETED: frozenset(),
    Status.FAILED: frozenset(),
    Status.CANCELLED: frozenset(),
}


def create(
    session_hash: str, job_id: str, command: Create, now: int, rules: Rules, before: Change | None = None
) -> Change:
    """Create a job: RUNNING, or PENDING if requested. `before`: the job that it continues, with its variables."""
    job = Job(
        session_hash=session_hash,
        id=job_id,
        name=command.name,
        invoker=command.invoker,
        size=command.size,
        unit=command.unit,
        labels=command.labels,
        create_time=now,
        heartbeat_timeout=command.heartbeat_timeout,
        stall_timeout=command.stall_timeout,
        retention=command.retention,
        continues=command.continues,
        key=command.key,
        create_digest=command.digest,
    )
    change = Change(job, created=True, variables=Variables())
    reason = "created"
    if before is not None:
        _continue_job(change, before, now, rules)
        reason = f"continues {job.continues}"
    change.relabelled = bool(job.labels)
    if command.pending:
        _add_history(change, reason, now)
    else:
        job.start_time = job.attempt_time = job.last_contact_time = now
        _set_status(change, Status.RUNNING, reason, now)
    _record_change(change, now, rules)
    return change


def _continue_job(change: Change, before: Change, now: int, rules: Rules) -> None:
    """Let a new job begin where another one ended, and record that in both."""
    job, former = change.job, before.job
    if former.status is not Status.LOST and not former.ended:
        raise JobNotEnded
    now = max(now, former.update_time)
    former.continued_by = job.id
    reason = f"continued by {job.id}"
    if former.ended:
        _add_history(before, reason, now)
        _record_change(before, now, rules)
    else:
        error = Error(
            CODE_ABORTED, "The job's worker was lost, and another job continues its work.", reason="CONTINUED"
        )
        _end(before, Status.FAILED, reason, error, now, rules)
    job.name = job.name or former.name
    job.invoker = job.invoker or former.invoker
    job.size = job.size or former.size
    job.unit = job.unit or former.unit
    job.labels = job.labels or former.labels
    job.parts, job.progress, job.counters = former.parts, former.progress, former.counters
    job.pace = former.pace and estimate.resume(former.pace, estimate.UNKNOWN_PROGRESS, now)
    assert before.variables is not None
    change.variables = before.variables
    change.variables_changed = bool(before.variables.texts)


def step(change: Change, command: Command, now: int, rules: Rules) -> None:
    """Apply one command to the job in `change`, or raise a JobError and change nothing.

    `change.job` must be a copy. For a job, `now` never runs backwards: an earlier time is replaced by the last one.
    """
    job = change.job
    if now < job.update_time:
        now = job.update_time
    match command:
        case Report():
            _report(change, command, now, rules)
        case Finish():
            _finish(change, command, now, rules)
        case Fail():
            _fail(change, command, now, rules)
        case Start():
            _start(change, command, now, rules)
        case Cancel():
            _cancel(change, command, now, rules)
        case Update():
            _update(change, command, now, rules)
        case SetVariables():
            assert change.variables is not None
            merged = merge_variables(change.variables, command.variables, command.remove, rules.limits)
            if merged != change.variables:
                change.variables, change.variables_changed = merged, True
                _record_change(change, now, rules)
        case Create():
            if job.create_digest != command.digest or (job.key and job.key != command.key):
                raise JobAlreadyExists
        case Clear():
            _remove(change, now)
        case Tick():
            _tick(change, command, now, rules)


def working_copy(job: Job) -> Change:
    """A change that `step` may modify while others read `job`."""
    return Change(job.copy())


def _report(change: Change, report: Report, now: int, rules: Rules) -> None:
    job, part, sequence = change.job, report.part, report.sequence
    if report.attempt:
        _check_attempt(job, report.attempt)
    running = job.status is RUNNING
    if not running:
        _check_running(job)
    if sequence and sequence <= job.sequences.get(part, 0):
        # This report, or a later one of its part, was applied before.
        return
    before = job.parts.get(part)
    amount = apply_amount(before or 0, job.progress, report)
    if before is None and (sequence or amount is not None):
        check_part(job.parts, job.sequences, part, rules.limits)
    counters = add_counters(job.counters, report.counters, rules.limits) if report.counters else job.counters
    if report.variables is not None:
        assert change.variables is not None
        merged = merge_variables(change.variables, report.variables, (), rules.limits)
        change.variables_changed |= merged != change.variables
        change.variables = merged
    # Nothing below can fail.
    became_active = False
    job.counters = counters
    if sequence:
        job.sequences = {**job.sequences, part: sequence}
    if amount is not None:
        moved = amount - (before or 0)
        if moved or before is None:
            job.parts = {**job.parts, part: amount}
        if moved:
            job.progress += moved
            job.last_progress_time = now
            became_active = job.stalled
            job.stalled = False
            job.pace = estimate.observe(job.pace, job.progress, now)
    if report.size is not None:
        job.size = report.size
    if report.message is not None:
        job.message = report.message
    if report.record_errors:
        change.record_errors.extend(report.record_errors)
        job.error_count += len(report.record_errors)
    if job.cancellation is not None and not job.cancellation.seen:
        job.cancellation = Cancellation(job.cancellation.reason, job.cancellation.deadline, seen=True)
        change.rewritten = True
    if not running:
        job.pace = job.pace and estimate.resume(job.pace, job.progress, now)
        _set_status(change, Status.RUNNING, "in contact again", now)
        became_active = True
    job.last_contact_time = now
    _raise_revision(change, now)
    if became_active:
        # Any other report only delays the next change by time, so the stored wake time may stay.
        _set_wake_time(change, rules)


def _finish(change: Change, command: Finish, now: int, rules: Rules) -> None:
    job = change.job
    _check_attempt(job, command.attempt)
    if job.status is Status.COMPLETED and job.results_digest == command.digest:
        return
    _check_running(job)
    change.results = command.results
    job.results_digest = command.digest
    _end(change, Status.COMPLETED, "finished", None, now, rules)


def _fail(change: Change, command: Fail, now: int, rules: Rules) -> None:
    job = change.job
    _check_attempt(job, command.attempt)
    if job.ended and job.error == command.error:
        return
    _check_running(job)
    if command.error.code == CODE_CANCELLED:
        _end(change, Status.CANCELLED, "cancelled by its worker", command.error, now, rules)
    else:
        _end(change, Status.FAILED, "failed", command.error, now, rules)


def _start(change: Change, command: Start, now: int, rules: Rules) -> None:
    job = change.job
    if job.ended:
        raise JobEnded
    if job.status is Status.PENDING:
        _set_status(change, Status.RUNNING, "started", now)
        job.start_time = now
    elif not command.take_over:
        raise JobAlreadyStarted
    else:
        job.attempt += 1
        # The new worker counts its reports from 1.
        job.sequences = {}
        job.pace = job.pace and estimate.resume(job.pace, estimate.UNKNOWN_PROGRESS, now)
        if job.cancellation is not None:
            job.cancellation = Cancellation(job.cancellation.reason, job.cancellation.deadline)
        taken_over = f"taken over, attempt {job.attempt}"
        if job.status is Status.LOST:
            _set_status(change, Status.RUNNING, taken_over, now)
        else:
            _add_history(change, taken_over, now)
    job.last_contact_time = job.attempt_time = now
    job.stalled = False
    change.rewritten = True
    _record_change(change, now, rules)


def _cancel(change: Change, command: Cancel, now: int, rules: Rules) -> None:
    job = change.job
    if job.status is Status.CANCELLED:
        return
    if job.ended:
        raise JobEnded
    deadline = now + command.grace_period
    if job.cancellation is None:
        job.cancellation = Cancellation(command.reason, deadline)
    elif deadline < job.cancellation.deadline:
        job.cancellation = Cancellation(job.cancellation.reason, deadline, job.cancellation.seen)
    else:
        deadline = job.cancellation.deadline
        if job.status is Status.RUNNING and deadline > now:
            return
    change.rewritten = True
    if job.status is not Status.RUNNING:
        _end_cancelled(change, f"cancelled while {job.status}", now, rules)
    elif deadline <= now:
        _end_cancelled(change, "cancelled at once", now, rules)
    else:
        _record_change(change, now, rules)


def _update(change: Change, command: Update, now: int, rules: Rules) -> None:
    job = change.job
    if command.revision and command.revision != job.revision:
        raise RevisionMismatch
    if job.ended and (command.size not in (None, job.size) or command.unit not in (None, job.unit)):
        raise JobEnded("The job has ended: its size and unit are fixed; name, invoker and labels can change.")
    before = (job.name, job.invoker, job.size, job.unit, job.labels)
    job.name = job.name if command.name is None else command.name
    job.invoker = job.invoker if command.invoker is None else command.invoker
    job.size = job.size if command.size is None else command.size
    job.unit = job.unit if command.unit is None else command.unit
    if command.labels is not None and command.labels != job.labels:
        job.labels = command.labels
        change.relabelled = True
    if before != (job.name, job.invoker, job.size, job.unit, job.labels):
        change.rewritten = True
        _record_change(change, now, rules)


def _tick(change: Change, command: Tick, now: int, rules: Rules) -> None:
    job = change.job
    if job.ended:
        if now >= _removal_time(job, rules):
            _remove(change, now)
        _set_wake_time(change, rules, command)
        return
    heard = _last_contact(job)
    listened = min(now, command.heard_until)
    if job.cancellation is not None and now >= job.cancellation.deadline:
        _end_cancelled(change, "grace period over", now, rules)
    elif listened >= command.silence_over(heard, rules.abandon_after):
        error = Error(CODE_DEADLINE_EXCEEDED, "The job's worker did not report for too long.", reason="ABANDONED")
        _end(change, Status.FAILED, "abandoned", error, now, rules)
    elif (
        job.status is Status.RUNNING
        and job.heartbeat_timeout
        and listened >= command.silence_over(heard, job.heartbeat_timeout)
    ):
        job.stalled = False
        span = f"{job.heartbeat_timeout / MICROSECONDS:g}"
        _set_status(change, Status.LOST, f"no contact for {span} s", now)
        _record_change(change, now, rules)
        _add_event(change, EventType.LOST, rules)
    elif (
        job.status is Status.RUNNING
        and job.stall_timeout
        and not job.stalled
        and listened >= command.silence_over(_last_progress(job), job.stall_timeout)
    ):
        job.stalled = True
        _record_change(change, now, rules)
        _add_event(change, EventType.STALLED, rules)
    _set_wake_time(change, rules, command)
    if job.wake_time is not None and job.wake_time <= now and not change.removed:
        # The job is due, but its worker may have reported in the meantime: check again soon, after other jobs.
        job.wake_time = now + RECHECK_DELAY
        change.rewritten = True


def _check_attempt(job: Job, attempt: int) -> None:
    if attempt == 0 or attempt == job.attempt:
        return
    if attempt > job.attempt:
        raise InvalidRequest(Fault("attempt", f"is higher than the job's attempt, which is {job.attempt}"))
    raise StaleAttempt


def _check_running(job: Job) -> None:
    if job.ended:
        raise JobEnded
    if job.status is Status.PENDING:
        raise JobNotStarted


def _end_cancelled(change: Change, reason: str, now: int, rules: Rules) -> None:
    assert change.job.cancellation is not None
    error = Error(CODE_CANCELLED, change.job.cancellation.reason, reason="CANCELLED_BY_SERVER")
    _end(change, Status.CANCELLED, reason, error, now, rules)


def _end(change: Change, status: Status, reason: str, error: Error | None, now: int, rules: Rules) -> None:
    job = change.job
    job.end_time = now
    job.error = error
    job.stalled = False
    _set_status(change, status, reason, now)
    _record_change(change, now, rules)
    _add_event(change, EventType(status.lower()), rules)


def _set_status(change: Change, status: Status, reason: str, now: int) -> None:
    job = change.job
    assert status in TRANSITIONS[job.status], f"{job.status} to {status}"
    job.status = status
    _add_history(change, reason, now)


def _add_history(change: Change, reason: str, now: int) -> None:
    """Add an entry with the present status to the history."""
    job = change.job
    entry = StatusChange(job.status, now, job.revision + 1, reason)
    history = (*job.history, entry)
    if len(history) > 2 * HISTORY_KEPT:
        history = history[:HISTORY_KEPT] + history[-HISTORY_KEPT:]
    job.history = history
    change.rewritten = True


def _remove(change: Change, now: int) -> None:
    change.job.update_time = now
    change.removed = change.changed = True


def _record_change(change: Change, now: int, rules: Rules) -> None:
    """Finish a step that callers can see."""
    _raise_revision(change, now)
    _set_wake_time(change, rules)


def _add_event(change: Change, event: EventType, rules: Rules) -> None:
    if event in rules.wanted_events:
        # A copy, because later steps of the same commit may change the job.
        change.events = (*change.events, Event(event, change.job.copy()))
        change.rewritten = True


def _raise_revision(change: Change, now: int) -> None:
    change.job.revision += 1
    change.job.update_time = now
    change.changed = True


def _last_progress(job: Job) -> int:
    return max(job.create_time, job.attempt_time or 0, job.last_progress_time or 0)


def _removal_time(job: Job, rules: Rules) -> int:
    assert job.end_time is not None
    due = job.end_time + (job.retention or rules.retention)
    for gap in rules.gaps:
        if job.end_time <= gap.start < due:
            due += gap.length
    return due


def _last_contact(job: Job) -> int:
    return job.create_time if job.last_contact_time is None else job.last_contact_time


def _set_wake_time(change: Change, rules: Rules, tick: Tick | None = None) -> None:
    """Set when time alone changes this job next.

    Reports only delay that moment. They leave the stored time, which is then too early: a later `tick` finds nothing
    due and corrects it. So reports do not rewrite the index on this column.
    """
    job = change.job
    if job.ended:
        due = _removal_time(job, rules)
    else:
        silence_over = (tick or NO_TICK).silence_over
        heard = _last_contact(job)
        due = silence_over(heard, rules.abandon_after)
        if job.cancellation is not None:
            due = min(due, job.cancellation.deadline)
        if job.status is Status.RUNNING and job.heartbeat_timeout:
            due = min(due, silence_over(heard, job.heartbeat_timeout))
        if job.status is Status.RUNNING and job.stall_timeout and not job.stalled:
            due = min(due, silence_over(_last_progress(job), job.stall_timeout))
    if due != job.wake_time and (tick or job.ended or job.wake_time is None or due < job.wake_time):
        job.wake_time = due
        change.rewritten = True
