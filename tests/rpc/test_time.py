"""What time alone does to a job: lost, stalled, abandoned, estimated, removed. The clock is the test's."""

from pathlib import Path

import pytest
from google.rpc import code_pb2, error_details_pb2

from headway.v1 import job_pb2
from tests.support.app import RunningApp
from tests.support.caller import Caller, seconds, value
from tests.support.refusals import outcome, refused_with

RUNNING = job_pb2.JOB_STATUS_RUNNING
LOST = job_pb2.JOB_STATUS_LOST
PENDING = job_pb2.JOB_STATUS_PENDING
FAILED = job_pb2.JOB_STATUS_FAILED
DAY = 86_400.0
A_MOMENT = 0.1
"""More than the microseconds between the commits of a test, and less than any span that it looks at."""


def status(caller: Caller, job: job_pb2.Job) -> job_pb2.JobStatus:
    return caller.get(job.id).status


@pytest.mark.parametrize("heartbeat", [1.0, 60.0, 3600.0, 3650 * DAY - 1])
def test_a_job_is_lost_after_its_heartbeat_timeout_and_never_before(caller: Caller, heartbeat: float) -> None:
    job = caller.create(heartbeat_timeout=seconds(heartbeat))
    if heartbeat > 30 * DAY:
        caller.app.pass_time(29 * DAY)
        assert status(caller, job) == RUNNING
        return
    caller.app.pass_time(heartbeat - A_MOMENT)
    assert status(caller, job) == RUNNING
    caller.app.pass_time(2 * A_MOMENT)
    lost = caller.get(job.id)
    assert lost.status == LOST
    assert f"{heartbeat:g} s" in lost.history[-1].reason


@pytest.mark.parametrize("contact", ["progress", "heartbeat", "take-over"])
def test_any_contact_counts(caller: Caller, contact: str) -> None:
    """Every report puts the moment off by a full timeout, however many sweeps lie between."""
    job = caller.create(heartbeat_timeout=seconds(60))
    for number in range(1, 6):
        caller.app.pass_time(59)
        assert status(caller, job) == RUNNING
        match contact:
            case "progress":
                caller.report(job.id, progress=number)
            case "heartbeat":
                caller.report(job.id)
            case _:
                caller.start(job.id, take_over=True)
    caller.app.pass_time(59)
    assert status(caller, job) == RUNNING
    caller.app.pass_time(2)
    assert status(caller, job) == LOST


def test_what_others_do_is_no_contact(caller: Caller) -> None:
    """Reading, variables, a new name, a cancellation request: none of it says that the worker is there."""
    job = caller.create(heartbeat_timeout=seconds(60))
    caller.app.pass_time(59)
    caller.get(job.id)
    caller.set(job.id, {"a": 1})
    caller.update(job_pb2.Job(id=job.id, name="x"))
    caller.cancel(job.id, "x", 3600)
    caller.app.pass_time(2)
    assert status(caller, job) == LOST


def test_a_repeated_report_is_acknowledged_and_no_more(caller: Caller) -> None:
    """An old report that the network delivers late leaves the job as it is."""
    job = caller.create(heartbeat_timeout=seconds(60))
    caller.report(job.id, progress=1, sequence=1)
    caller.app.pass_time(61)
    before = caller.get(job.id)
    assert before.status == LOST
    assert caller.report(job.id, progress=1, sequence=1).progress == 1
    assert caller.get(job.id) == before


def test_a_lost_job_comes_back_with_the_next_report(caller: Caller) -> None:
    job = caller.create(heartbeat_timeout=seconds(60))
    caller.report(job.id, progress=5)
    caller.app.pass_time(61)
    assert status(caller, job) == LOST
    assert caller.report(job.id, advance=1).status == RUNNING
    back = caller.get(job.id)
    assert (back.status, back.progress, back.attempt) == (RUNNING, 6, 1)
    caller.app.pass_time(59)
    assert status(caller, job) == RUNNING
    caller.app.pass_time(2)
    assert status(caller, job) == LOST


def test_a_late_finish_lands(caller: Caller) -> None:
    """What was done is done, though the server had given the worker up."""
    job = caller.create(heartbeat_timeout=seconds(60))
    caller.app.pass_time(3600)
    assert status(caller, job) == LOST
    assert caller.finish(job.id, value({"added": 1})).status == job_pb2.JOB_STATUS_COMPLETED
    assert caller.results(job.id).HasField("results")


def test_while_the_server_could_not_listen_nobody_is_lost(caller: Caller) -> None:
    """A machine that slept, or a process that was stopped, grants every worker its full timeout anew."""
    job = caller.create(heartbeat_timeout=seconds(60), stall_timeout=seconds(100))
    caller.app.clock.forward(3600)
    caller.app.app.sweeper.restart_timeouts()
    caller.app.pass_time(0)
    now = caller.get(job.id)
    assert (now.status, now.stalled) == (RUNNING, False)
    caller.app.pass_time(60 - A_MOMENT)
    assert status(caller, job) == RUNNING
    caller.app.pass_time(2 * A_MOMENT)
    assert status(caller, job) == LOST


def test_a_server_that_starts_grants_every_worker_its_full_timeout(tmp_path: Path, session: str) -> None:
    """No worker could reach it before: a worker that reports within the timeout was never lost."""
    database = f"sqlite:///{tmp_path / 'headway.db'}"
    with RunningApp(database) as first:
        job = Caller(first, session).create(heartbeat_timeout=seconds(60))
    second = RunningApp(database)
    second.clock.forward(3600)
    with second:
        caller = Caller(second, session)
        second.pass_time(60 - A_MOMENT)
        assert status(caller, job) == RUNNING
        second.pass_time(2 * A_MOMENT)
        assert [change.status for change in caller.get(job.id).history] == [RUNNING, LOST]


def test_without_a_heartbeat_timeout_a_job_is_never_lost(caller: Caller) -> None:
    jobs = [caller.create(), caller.create(heartbeat_timeout=seconds(0))]
    for _ in range(3):
        caller.app.pass_time(9 * DAY)
    assert [status(caller, job) for job in jobs] == [RUNNING, RUNNING]


def test_a_pending_or_ended_job_is_never_lost(caller: Caller) -> None:
    waiting = caller.create(pending=True, heartbeat_timeout=seconds(1))
    ended = caller.create(heartbeat_timeout=seconds(1))
    caller.finish(ended.id)
    caller.app.pass_time(3600)
    assert status(caller, waiting) == PENDING
    assert status(caller, ended) == job_pb2.JOB_STATUS_COMPLETED


def test_contact_without_progress_is_stalled_and_not_lost(caller: Caller) -> None:
    """Slow and stuck workers can be told apart: progress ends it, a heartbeat does not."""
    job = caller.create(heartbeat_timeout=seconds(60), stall_timeout=seconds(100))
    caller.report(job.id, progress=1)
    for _ in range(2):
        caller.app.pass_time(49)
        caller.report(job.id)
        assert not caller.get(job.id).stalled
    caller.app.pass_time(3)
    now = caller.get(job.id)
    assert (now.stalled, now.status) == (True, RUNNING)
    caller.report(job.id)
    caller.report(job.id, progress=1)
    assert caller.get(job.id).stalled, "the meter did not move"
    caller.report(job.id, progress=2)
    assert not caller.get(job.id).stalled
    caller.app.pass_time(50)
    caller.report(job.id)
    caller.app.pass_time(51)
    assert caller.get(job.id).stalled


def test_a_job_that_never_moved_stalls_too(caller: Caller) -> None:
    job = caller.create(stall_timeout=seconds(100))
    caller.app.pass_time(101)
    assert caller.get(job.id).stalled


def test_slow_is_not_stalled(caller: Caller) -> None:
    job = caller.create(stall_timeout=seconds(100))
    for number in range(1, 5):
        caller.app.pass_time(99)
        assert not caller.get(job.id).stalled
        caller.report(job.id, progress=number)


def test_no_contact_is_lost_and_not_stalled(caller: Caller) -> None:
    """With both timeouts over, nobody knows whether the worker makes progress."""
    job = caller.create(heartbeat_timeout=seconds(100), stall_timeout=seconds(60))
    caller.app.pass_time(61)
    assert caller.get(job.id).stalled
    caller.app.pass_time(60)
    now = caller.get(job.id)
    assert (now.status, now.stalled) == (LOST, False)


@pytest.mark.parametrize("end", ["finish", "fail", "cancel", "take-over"])
def test_what_has_ended_or_was_taken_over_is_not_stalled(caller: Caller, end: str) -> None:
    job = caller.create(stall_timeout=seconds(10))
    caller.app.pass_time(11)
    assert caller.get(job.id).stalled
    match end:
        case "finish":
            caller.finish(job.id)
        case "fail":
            caller.fail(job.id)
        case "cancel":
            caller.cancel(job.id, grace=0)
        case _:
            caller.start(job.id, take_over=True)
    assert not caller.get(job.id).stalled


def test_an_estimate_of_a_steady_job_is_sane(caller: Caller) -> None:
    """10 units a second, 700 left: about 70 seconds, low ≤ likely ≤ high."""
    job = caller.create(size=1000)
    for number in range(1, 31):
        caller.app.clock.forward(1)
        caller.report(job.id, progress=10 * number)
    now = caller.get(job.id)
    low, likely, high = (
        length.ToTimedelta().total_seconds()
        for length in (now.estimate.remaining_low, now.estimate.remaining_likely, now.estimate.remaining_high)
    )
    assert now.estimate.rate == pytest.approx(10, rel=0.05)
    assert low <= likely <= high
    assert likely == pytest.approx(70, rel=0.1)
    assert high < 140
    assert now.estimate.as_of == now.last_progress_time


def test_an_estimate_follows_a_change_of_pace(caller: Caller) -> None:
    job = caller.create(size=10_000)
    progress = 0
    for pace in (100, 10):
        for _ in range(60):
            caller.app.clock.forward(1)
            progress += pace
            caller.report(job.id, progress=progress)
    assert 10 <= caller.get(job.id).estimate.rate < 30


def test_there_is_no_estimate_where_it_would_be_a_guess(caller: Caller) -> None:
    """Without a size, before enough was seen, while lost or stalled, when nothing is left, after the end."""

    def steady(**fields: object) -> job_pb2.Job:
        job = caller.create(**fields)
        for number in range(1, 11):
            caller.app.clock.forward(1)
            caller.report(job.id, progress=10 * number)
        return caller.get(job.id)

    assert not steady().HasField("estimate")
    assert not steady(size=100).HasField("estimate")
    assert not steady(size=50).HasField("estimate")
    fresh = caller.create(size=100)
    caller.report(fresh.id, progress=50)
    assert not caller.get(fresh.id).HasField("estimate")
    job = steady(size=1000, heartbeat_timeout=seconds(60), stall_timeout=seconds(30))
    assert job.HasField("estimate")
    caller.app.pass_time(31)
    stalled = caller.get(job.id)
    assert (stalled.stalled, stalled.HasField("estimate")) == (True, False)
    caller.app.pass_time(30)
    lost = caller.get(job.id)
    assert (lost.status, lost.HasField("estimate")) == (LOST, False)
    assert not caller.finish(job.id).HasField("estimate")


def test_time_lost_between_two_workers_is_not_held_against_the_pace(caller: Caller) -> None:
    job = caller.create(size=1000, heartbeat_timeout=seconds(60))
    for number in range(1, 11):
        caller.app.clock.forward(1)
        caller.report(job.id, progress=10 * number)
    caller.app.pass_time(3600)
    caller.start(job.id, take_over=True)
    for number in range(11, 21):
        caller.app.clock.forward(1)
        caller.report(job.id, progress=10 * number, attempt=2)
    assert caller.get(job.id).estimate.rate == pytest.approx(10, rel=0.1)


def test_a_successor_that_goes_back_to_its_checkpoint_keeps_the_estimate(caller: Caller) -> None:
    job = caller.create(size=1000)
    for number in range(1, 31):
        caller.app.clock.forward(1)
        caller.report(job.id, progress=10 * number)
    caller.app.clock.forward(3600)
    caller.start(job.id, take_over=True)
    caller.report(job.id, progress=250, attempt=2)
    now = caller.get(job.id)
    assert now.estimate.rate == pytest.approx(10, rel=0.1)
    assert now.estimate.remaining_likely.seconds == pytest.approx(75, rel=0.1)
    caller.app.clock.forward(1)
    caller.report(job.id, progress=260, attempt=2)
    assert caller.get(job.id).estimate.rate == pytest.approx(10, rel=0.1)


@pytest.mark.parametrize("kind", ["PENDING", "RUNNING", "LOST"])
def test_every_job_ends(caller: Caller, kind: str) -> None:
    """Without any contact for 30 days it is abandoned: then and not before."""
    job = caller.create(pending=kind == "PENDING", heartbeat_timeout=seconds(60 if kind == "LOST" else 0))
    caller.app.pass_time(30 * DAY - 1)
    assert status(caller, job) == job_pb2.JobStatus.Value(f"JOB_STATUS_{kind}")
    caller.app.pass_time(2)
    ended = caller.get(job.id)
    assert ended.status == FAILED
    assert ended.error.code == code_pb2.DEADLINE_EXCEEDED
    info = error_details_pb2.ErrorInfo()
    assert ended.error.details[0].Unpack(info)
    assert (info.reason, info.domain) == ("ABANDONED", "headway")
    refused_with("JOB_ENDED", lambda: caller.start(job.id, take_over=True))


def test_a_job_in_contact_is_not_abandoned(caller: Caller) -> None:
    job = caller.create()
    for _ in range(3):
        caller.app.pass_time(20 * DAY)
        caller.report(job.id)
    assert status(caller, job) == RUNNING


def test_a_job_is_kept_for_its_retention_counted_from_the_end(caller: Caller) -> None:
    """Its own, else the server's 30 days; then it is gone with all that belongs to it."""
    own = caller.create(retention=seconds(DAY), labels={"a": "1"})
    servers = caller.create()
    zero = caller.create(retention=seconds(0))
    caller.app.pass_time(5 * DAY)
    for job in (own, servers, zero):
        caller.set(job.id, {"a": 1})
        caller.finish(job.id, value({"a": 1}))
    caller.app.pass_time(DAY - 1)
    assert outcome(lambda: caller.get(own.id)) == "OK"
    caller.app.pass_time(2)
    assert outcome(lambda: caller.get(own.id)) == "JOB_NOT_FOUND"
    assert outcome(lambda: caller.results(own.id)) == "JOB_NOT_FOUND"
    caller.app.pass_time(29 * DAY - 4)
    assert {job.id for job in caller.list().jobs} == {servers.id, zero.id}
    caller.app.pass_time(4)
    assert list(caller.list().jobs) == []


def test_retention_never_takes_a_job_that_runs(caller: Caller) -> None:
    job = caller.create(retention=seconds(1))
    waiting = caller.create(retention=seconds(1), pending=True)
    caller.app.pass_time(10 * DAY)
    assert status(caller, job) == RUNNING
    assert status(caller, waiting) == PENDING


def test_what_is_changed_after_the_end_does_not_prolong_it(caller: Caller) -> None:
    job = caller.create(retention=seconds(100))
    caller.finish(job.id)
    caller.app.pass_time(99)
    caller.update(job_pb2.Job(id=job.id, name="x"))
    caller.set(job.id, {"a": 1})
    caller.app.pass_time(2)
    assert outcome(lambda: caller.get(job.id)) == "JOB_NOT_FOUND"


def test_one_sweep_brings_any_number_of_jobs_up_to_date(caller: Caller) -> None:
    """More than the server does in one commit: all are lost, and all are removed."""
    count = 450
    jobs = caller.create_many(count, heartbeat_timeout=seconds(60), retention=seconds(DAY))
    caller.app.pass_time(61)
    assert len(caller.list(statuses=[LOST], page_size=1000).jobs) == count
    list(caller.stream([caller.batch(*({"job_id": job_id, "progress": 1} for job_id in jobs))]))
    assert len(caller.list(statuses=[RUNNING], page_size=1000).jobs) == count
    caller.app.pass_time(31 * DAY)
    assert len(caller.list(statuses=[FAILED], page_size=1000).jobs) == count
    caller.app.pass_time(DAY + 1)
    assert list(caller.list().jobs) == []


@pytest.mark.parametrize("field", ["heartbeat_timeout", "stall_timeout", "retention"])
def test_spans_are_kept_as_given(caller: Caller, field: str) -> None:
    """To the microsecond; none at all stays absent."""
    for length in (0.000001, 1.5, 60, 3650 * DAY):
        job = caller.create(**{field: seconds(length)})
        assert getattr(caller.get(job.id), field) == seconds(length)
        caller.clear(job.id)
    assert not caller.create(**{field: seconds(0)}).HasField(field)


def test_times_of_a_job_never_run_backwards(caller: Caller) -> None:
    """Creation ≤ start ≤ contact ≤ end, and the history in order."""
    job = caller.create(pending=True)
    caller.start(job.id)
    caller.report(job.id, progress=1)
    ended = caller.finish(job.id)
    times = [
        moment.ToNanoseconds()
        for moment in (
            ended.create_time,
            ended.start_time,
            ended.last_progress_time,
            ended.last_contact_time,
            ended.end_time,
        )
    ]
    assert times == sorted(times)
