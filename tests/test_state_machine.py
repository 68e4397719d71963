"""The state machine against a small model of the contract: whatever callers do, in whatever order."""

import itertools
from copy import deepcopy

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from headway_server.domain import state_machine
from headway_server.domain.change import Change, EventType, Rules
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
    InvalidRequest,
    JobEnded,
    JobError,
    JobNotStarted,
    StaleAttempt,
)
from headway_server.domain.gaps import Gap
from headway_server.domain.job import ENDED, Error, Job, Status
from headway_server.domain.limits import INT64_MAX, MICROSECONDS
from headway_server.domain.report import RecordError, Report, Variables
from headway_server.domain.state_machine import HISTORY_KEPT, TRANSITIONS

RULES = Rules()
HEARTBEAT = 60 * MICROSECONDS
PARTS = st.sampled_from(["", "a", "b"])
AMOUNTS = st.integers(0, 1000)


def make(*, pending: bool = False, heartbeat: int = HEARTBEAT) -> Change:
    return state_machine.create(
        "session", "0" * 32, Create("digest", pending=pending, heartbeat_timeout=heartbeat), 1, RULES
    )


class JobLife(RuleBasedStateMachine):
    """One job's whole life, beside what a caller would expect of it."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1
        self.job = make().job
        self.parts: dict[str, int] = {}
        self.sequences: dict[str, int] = {}
        self.counters: dict[str, int] = {}
        self.errors = 0
        self.variables: dict[str, str] = {}
        self.seen = [self.job]
        self.removed = False

    def act(self, action: Command) -> JobError | None:
        before = deepcopy(self.job)
        change = state_machine.working_copy(self.job)
        change.variables = Variables.of(dict(self.variables))
        try:
            state_machine.step(change, action, self.now, RULES)
        except JobError as error:
            assert change.job == before, "a step that failed changed something"
            return error
        assert self.job == before, "a step changed what others may be reading"
        if change.changed and not change.removed:
            assert change.job.revision == before.revision + 1
            self.seen.append(change.job)
        else:
            assert change.job.revision == before.revision
        self.removed = change.removed
        self.job = change.job
        self.variables = dict(change.variables.texts)
        return None

    @rule(
        part=PARTS,
        amount=st.one_of(st.none(), AMOUNTS),
        advance=st.one_of(st.none(), st.integers(-5, 50)),
        sequence=st.integers(0, 12),
        attempt=st.integers(0, 3),
        count=st.integers(-3, 3),
        errors=st.integers(0, 2),
    )
    def report(
        self,
        part: str,
        amount: int | None,
        advance: int | None,
        sequence: int,
        attempt: int,
        count: int,
        errors: int,
    ) -> None:
        action = Report(
            part=part,
            attempt=attempt,
            sequence=sequence,
            progress=amount,
            advance=advance if amount is None else None,
            counters={"done": count},
            record_errors=tuple(RecordError(str(number)) for number in range(errors)),
        )
        before = self.job
        error = self.act(action)
        if 0 < attempt < before.attempt:
            assert isinstance(error, StaleAttempt)
        elif attempt > before.attempt:
            assert isinstance(error, InvalidRequest)
        elif before.status in ENDED:
            assert isinstance(error, JobEnded)
        elif before.status is Status.PENDING:
            assert isinstance(error, JobNotStarted)
        elif 0 < sequence <= self.sequences.get(part, 0):
            assert error is None
            assert self.job == before
        elif action.advance is not None and self.parts.get(part, 0) + action.advance < 0:
            assert isinstance(error, InvalidRequest)
        else:
            assert error is None
            if amount is not None:
                self.parts[part] = amount
            elif action.advance is not None:
                self.parts[part] = self.parts.get(part, 0) + action.advance
            if sequence:
                self.sequences[part] = sequence
            self.counters["done"] = self.counters.get("done", 0) + count
            self.errors += errors
            assert self.job.status is Status.RUNNING
            assert self.job.last_contact_time == self.now

    @rule(text=st.sampled_from(['"x"', "1"]), attempt=st.integers(0, 2))
    def finish(self, text: str, attempt: int) -> None:
        before = self.job
        error = self.act(Finish(text, text, attempt))
        if error is None:
            assert self.job.status is Status.COMPLETED
            assert self.job.results_digest == text
        elif before.status in (Status.RUNNING, Status.LOST):
            assert isinstance(error, StaleAttempt | InvalidRequest)

    @rule(code=st.sampled_from([1, 2, 13]))
    def fail(self, code: int) -> None:
        before = self.job
        error = self.act(Fail(Error(code, "why")))
        if before.status in (Status.RUNNING, Status.LOST):
            assert error is None
            assert self.job.status is (Status.CANCELLED if code == 1 else Status.FAILED)

    @rule(take_over=st.booleans())
    def start(self, take_over: bool) -> None:
        before = self.job
        error = self.act(Start(take_over))
        if error is None and before.status is not Status.PENDING:
            assert self.job.attempt == before.attempt + 1
            self.sequences = {}

    @rule(grace=st.sampled_from([0, 5 * MICROSECONDS, HEARTBEAT * 3]))
    def cancel(self, grace: int) -> None:
        before = self.job
        error = self.act(Cancel("enough", grace))
        if before.status in (Status.COMPLETED, Status.FAILED):
            assert isinstance(error, JobEnded)
        else:
            assert error is None
            if before.status is not Status.RUNNING or grace == 0:
                assert self.job.status is Status.CANCELLED

    @rule(name=st.sampled_from(["x", "y"]), value=st.sampled_from(["1", "null"]), remove=st.booleans())
    def set_variables(self, name: str, value: str, remove: bool) -> None:
        wanted = dict(self.variables)
        if remove:
            wanted.pop(name, None)
            assert self.act(SetVariables({}, (name,))) is None
        else:
            wanted[name] = value
            assert self.act(SetVariables({name: value})) is None
        assert self.variables == wanted

    @rule(name=st.sampled_from(["", "n1", "n2"]), revision=st.integers(0, 3))
    def update(self, name: str, revision: int) -> None:
        self.act(Update(name=name, revision=revision))

    @precondition(lambda self: not self.removed)
    @rule(seconds=st.sampled_from([1, 30, 61, 200]))
    def wait(self, seconds: int) -> None:
        self.now += seconds * MICROSECONDS
        before = self.job
        assert self.act(Tick(listening_since=0)) is None
        silent = self.now - (before.last_contact_time or 0)
        if before.status is Status.RUNNING and self.job.status is Status.LOST:
            assert silent >= HEARTBEAT
        if before.status is Status.RUNNING and silent < HEARTBEAT:
            assert self.job.status in (Status.RUNNING, Status.CANCELLED)

    @invariant()
    def adds_up(self) -> None:
        assert self.job.progress == sum(self.job.parts.values())
        assert dict(self.job.parts) == self.parts
        assert dict(self.job.counters) == self.counters
        assert self.job.error_count == self.errors

    @invariant()
    def moves_by_the_table(self) -> None:
        states = [change.status for change in self.job.history]
        for old, new in itertools.pairwise(self.job.history):
            taken_over = new.status is old.status is Status.RUNNING and new.reason.startswith("taken over")
            assert taken_over or new.status in TRANSITIONS[old.status]
        assert states[-1] is self.job.status
        assert len(states) <= 2 * HISTORY_KEPT

    @invariant()
    def stays_ended(self) -> None:
        ends = [job for job in self.seen if job.status in ENDED]
        for job in ends:
            assert (job.status, job.error, job.end_time, job.results_digest, job.progress) == (
                self.job.status,
                self.job.error,
                self.job.end_time,
                self.job.results_digest,
                self.job.progress,
            )

    @invariant()
    def wakes_in_time(self) -> None:
        assert self.job.wake_time is not None
        if self.job.status is Status.RUNNING:
            assert self.job.last_contact_time is not None
            assert self.job.wake_time <= self.job.last_contact_time + HEARTBEAT


TestJobLife = JobLife.TestCase
TestJobLife.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


@given(st.lists(st.tuples(PARTS, st.integers(1, 30), st.integers(0, 20)), max_size=40), st.randoms())
@settings(deadline=None)
def test_reports_with_sequences_can_be_repeated_and_delayed(
    reports: list[tuple[str, int, int]], random: object
) -> None:
    """A retry never counts twice: sending everything again, in order, changes nothing."""
    change = make()
    for part, sequence, amount in reports:
        state_machine.step(change, Report(part=part, sequence=sequence, advance=amount), 2, RULES)
    settled = deepcopy(change.job)
    for part, sequence, amount in reports:
        state_machine.step(change, Report(part=part, sequence=sequence, advance=amount), 3, RULES)
    assert change.job == settled


def test_history_keeps_the_first_and_the_last() -> None:
    change = make()
    now = 1
    for _ in range(100):
        now += HEARTBEAT
        state_machine.step(change, Tick(0), now, RULES)
        state_machine.step(change, Report(), now, RULES)
    history = change.job.history
    assert len(history) == 2 * HISTORY_KEPT
    assert [entry.revision for entry in history[:3]] == [1, 2, 3]
    assert history[-1].revision == change.job.revision
    assert change.job.revision == 201


def test_nothing_is_counted_beyond_int64() -> None:
    change = make()
    state_machine.step(change, Report(part="a", progress=INT64_MAX), 2, RULES)
    before = deepcopy(change.job)
    for report in (Report(part="a", advance=1), Report(part="b", progress=1)):
        try:
            state_machine.step(change, report, 3, RULES)
        except InvalidRequest:
            assert change.job == before
        else:
            raise AssertionError("an overflow was accepted")


def test_a_clock_that_runs_backwards_is_held() -> None:
    change = make()
    state_machine.step(change, Report(progress=1), 1000, RULES)
    state_machine.step(change, Report(progress=2), 10, RULES)
    assert change.job.update_time == change.job.last_contact_time == 1000


def test_silence_counts_only_while_somebody_listened() -> None:
    """After a restart every worker has its full timeout."""
    change = make()
    seen = []
    for now in (10 * HEARTBEAT + 1, 11 * HEARTBEAT):
        state_machine.step(change, Tick(listening_since=10 * HEARTBEAT), now, RULES)
        seen.append(change.job.status)
    assert seen == [Status.RUNNING, Status.LOST]


def test_clear_removes_in_every_state() -> None:
    ends: tuple[Command, ...] = (Finish(None, "x"), Fail(Error(2, "")), Cancel("", 0))
    for action in (*ends, Start()):
        change = make(pending=isinstance(action, Start))
        state_machine.step(change, action, 2, RULES)
        state_machine.step(change, Clear(), 3, RULES)
        assert change.removed


def test_job_defaults_are_not_shared() -> None:
    assert Job("s", "1").labels is not Job("s", "2").labels


def test_time_in_which_nobody_could_listen_abandons_no_job() -> None:
    change = make(heartbeat=0)
    back = 2 * RULES.abandon_after
    seen = []
    for now in (back, back + RULES.abandon_after - 1, back + RULES.abandon_after):
        state_machine.step(change, Tick(listening_since=back), now, RULES)
        seen.append(change.job.status)
    assert seen == [Status.RUNNING, Status.RUNNING, Status.FAILED]
    assert change.job.error is not None
    assert change.job.error.reason == "ABANDONED"


def test_what_is_told_is_the_job_as_it_was_then() -> None:
    rules = Rules(wanted_events=frozenset(EventType))
    change = state_machine.create("s", "0" * 32, Create("digest", heartbeat_timeout=5, stall_timeout=50), 1, rules)
    state_machine.step(change, Tick(0), 10, rules)
    state_machine.step(change, Report(progress=7), 20, rules)
    state_machine.step(change, Report(), 69, rules)
    state_machine.step(change, Tick(0), 70, rules)
    state_machine.step(change, Tick(0), 71, rules)
    state_machine.step(change, Finish(None, "x"), 72, rules)
    # A repeat is nothing new.
    state_machine.step(change, Finish(None, "x"), 73, rules)
    told = [(event.type, event.job.status, event.job.stalled, event.job.revision) for event in change.events]
    assert told == [
        (EventType.LOST, Status.LOST, False, 2),
        (EventType.STALLED, Status.RUNNING, True, 5),
        (EventType.COMPLETED, Status.COMPLETED, False, 6),
    ]


def test_only_what_somebody_asked_for_is_told() -> None:
    rules = Rules(wanted_events=frozenset({EventType.FAILED, EventType.CANCELLED}))
    told = []
    for end in (Finish(None, "x"), Fail(Error(2, "")), Fail(Error(1, "")), Cancel("", 0)):
        change = state_machine.create("s", "0" * 32, Create("digest"), 1, rules)
        state_machine.step(change, end, 2, rules)
        state_machine.step(change, Tick(0), 3, rules)
        told.append([event.type for event in change.events])
    assert told == [[], [EventType.FAILED], [EventType.CANCELLED], [EventType.CANCELLED]]


GAPS = st.lists(st.tuples(st.integers(0, 3 * HEARTBEAT), st.integers(0, HEARTBEAT)), max_size=3).map(
    lambda drawn: tuple(Gap(start, start + length) for start, length in drawn)
)


@given(now=st.integers(1, 6 * HEARTBEAT), heard_until=st.integers(0, 6 * HEARTBEAT), gaps=GAPS)
def test_a_worker_is_lost_only_after_it_could_have_been_heard_long_enough(
    now: int, heard_until: int, gaps: tuple[Gap, ...]
) -> None:
    change = make()
    state_machine.step(change, Tick(heard_until=heard_until, gaps=gaps), now, RULES)
    unheard = sum(max(gap.end - max(gap.start, 1), 0) for gap in gaps)
    silent_long_enough = min(now, heard_until) - 1 - unheard >= HEARTBEAT
    assert (change.job.status is Status.LOST) == silent_long_enough
    assert change.job.wake_time is not None
    assert change.job.wake_time > now, "the sweep would look at the same jobs again and again"
