"""Clocks that are wrong when a server starts: nothing is removed by them, and nothing remains of them."""

from pathlib import Path

import pytest

from headway.v1 import job_pb2
from headway_server.domain.gaps import Gap, start_of_span
from headway_server.domain.limits import MICROSECONDS
from headway_server.resources.clock import SteadyClock
from tests.conftest import ENGINES, empty_database
from tests.support.app import NOON, RunningApp
from tests.support.caller import Caller
from tests.support.refusals import refused_with

HOUR = 3600.0
DAY = 24 * HOUR
YEAR = 365 * DAY


class Machine:
    """One database, and servers that start on it at times that its clock says."""

    def __init__(self, database: str) -> None:
        self._database = database

    def start(self, at: float) -> RunningApp:
        """A server that starts so many seconds after noon."""
        app = RunningApp(self._database)
        app.clock.forward(at)
        return app


@pytest.fixture(params=ENGINES)
def machine(request: pytest.FixtureRequest, tmp_path: Path) -> Machine:
    return Machine(empty_database(request.param, request, tmp_path))


def rounds(app: RunningApp) -> None:
    """What the sweeper does every second, which includes noting the time."""
    app.run(app.app.sweeper.probe())
    app.run(app.app.sweeper.sweep())


def latest(job: job_pb2.Job) -> int:
    """The latest of a job's times (s), without those that lie ahead by their nature."""
    times = [job.create_time, job.start_time, job.last_contact_time, job.last_progress_time]
    return max(time.ToSeconds() for time in [*times, job.end_time, *(change.time for change in job.history)])


@pytest.mark.parametrize("ahead", [32 * DAY, 74 * YEAR])
def test_a_start_with_a_clock_that_is_ahead_removes_nothing_and_leaves_no_trace(
    machine: Machine, session: str, ahead: float
) -> None:
    with machine.start(0) as app:
        caller = Caller(app, session)
        ended = caller.create(name="ended before")
        caller.finish(ended.id)
        rounds(app)
    with machine.start(ahead) as app:
        caller = Caller(app, session)
        rounds(app)
        assert caller.get(ended.id).status == job_pb2.JOB_STATUS_COMPLETED
        running, cancelled, removed = (caller.create(name=name) for name in ("running", "cancelled", "removed"))
        caller.report(running.id, progress=7)
        caller.cancel(cancelled.id, reason="enough")
        other = caller.create(name="ended meanwhile")
        caller.finish(other.id)
        caller.clear(removed.id)
        watch = caller.watch_all()
        tokens = [next(watch).resume_token for _ in range(4)]
        rounds(app)
    now = int(NOON / MICROSECONDS + HOUR)
    with machine.start(HOUR) as app:
        caller = Caller(app, session)
        rounds(app)
        assert app.app.writer._clock.now() // MICROSECONDS == now
        for job_id in (ended.id, running.id, cancelled.id, other.id):
            assert latest(caller.get(job_id)) <= now
        assert caller.get(running.id).progress == 7
        if not app.app.engine.shared:
            # Elsewhere tokens say nothing of time.
            refused_with("RESUME_TOKEN_EXPIRED", lambda: next(caller.watch_all(tokens[-1])))
        assert caller.create().create_time.ToSeconds() == now
        app.pass_time(61)
        assert caller.get(cancelled.id).status == job_pb2.JOB_STATUS_CANCELLED, "its grace period is over"
        app.pass_time(30 * DAY)
        assert [job.id for job in caller.list(page_size=9, statuses=[job_pb2.JOB_STATUS_COMPLETED]).jobs] == []


def test_a_long_rest_of_the_server_does_not_count_for_retention(machine: Machine, session: str) -> None:
    with machine.start(0) as app:
        ended = Caller(app, session).create()
        Caller(app, session).finish(ended.id)
        app.pass_time(10 * DAY)
        rounds(app)
    with machine.start(60 * DAY) as app:
        caller = Caller(app, session)
        rounds(app)
        app.pass_time(19.9 * DAY)
        assert caller.get(ended.id).id == ended.id
        app.pass_time(0.2 * DAY)
        refused_with("JOB_NOT_FOUND", lambda: caller.get(ended.id))


def test_a_clock_that_was_set_back_far_is_not_believed(machine: Machine, session: str) -> None:
    """As after a battery ran empty. Time goes on from what is stored, and the right time counts again at a start."""
    with machine.start(0) as app:
        running = Caller(app, session).create()
        rounds(app)
    with machine.start(-10 * YEAR) as app:
        begin = app.app.clock_start
        assert begin.time >= NOON
        assert begin.ahead == 0
        assert Caller(app, session).get(running.id).create_time.ToMicroseconds() == running.create_time.ToMicroseconds()
    with machine.start(HOUR) as app:
        assert app.app.clock_start.time == NOON + int(HOUR) * MICROSECONDS


def test_a_clock_that_was_a_little_ahead_is_caught_up_with(machine: Machine) -> None:
    with machine.start(HOUR) as app:
        rounds(app)
    with machine.start(0) as app:
        begin = app.app.clock_start
    assert begin.time >= NOON + int(HOUR) * MICROSECONDS
    assert begin.time - begin.ahead == NOON


def test_a_clock_that_is_ahead_gives_it_back_and_never_runs_backwards(monkeypatch: pytest.MonkeyPatch) -> None:
    passed = 0
    monkeypatch.setattr(SteadyClock, "elapsed", staticmethod(lambda: passed))
    clock = SteadyClock(1_000_000, ahead=500)
    shown = []
    for passed in range(0, 10_000, 10):  # noqa: B007  # the clock reads it
        shown.append(clock.now())
    assert shown == sorted(shown)
    assert shown[0] == 1_000_000
    assert shown[-1] == 1_000_000 + passed - 500


@pytest.mark.parametrize(
    ("now", "since"),
    [
        pytest.param(150, 100, id="after all gaps"),
        pytest.param(140, 40, id="through the last"),
        pytest.param(100, 0, id="at its end"),
        pytest.param(139, 39, id="a little into it"),
    ],
)
def test_a_span_is_counted_without_the_time_when_no_server_ran(now: int, since: int) -> None:
    gaps = (Gap(10, 20), Gap(50, 100))
    assert start_of_span(now, 50, gaps[1:]) == since
