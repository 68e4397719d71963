"""Watching one job or a session's: now, then everything newer, taken up again where it broke off; and the long poll."""

import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest

from headway.v1 import job_pb2
from headway.v1 import job_service_pb2 as pb
from headway_server.domain.limits import MICROSECONDS, Limits
from headway_server.rpc import servicer
from headway_server.settings import Settings
from tests.support.app import RunningApp
from tests.support.caller import Caller, Responses, seconds
from tests.support.refusals import faults, from_error, outcome, refused_with
from tests.support.waiting import held_commits, until, watchers_gone
from tests.support.watching import drain, large, seen, take

RUNNING = job_pb2.JOB_STATUS_RUNNING
COMPLETED = job_pb2.JOB_STATUS_COMPLETED

# One job.


def test_a_watch_begins_with_the_job_as_it_is(caller: Caller) -> None:
    job = caller.create(name="x", size=5)
    watch = caller.watch(job.id)
    assert next(watch).job == job
    watch.cancel()


def test_then_comes_every_newer_state(caller: Caller) -> None:
    """As GetJob shows it, for whatever reason it changed."""
    job = caller.create(heartbeat_timeout=seconds(60))
    watch = caller.watch(job.id)
    next(watch)
    changes: list[Callable[[], object]] = [
        lambda: caller.report(job.id, progress=1),
        lambda: caller.report(job.id),
        lambda: caller.update(job_pb2.Job(id=job.id, name="y")),
        lambda: caller.set(job.id, {"a": 1}),
        lambda: caller.app.pass_time(61),
        lambda: caller.report(job.id, progress=2),
        lambda: caller.cancel(job.id, "x", 600),
        lambda: caller.start(job.id, take_over=True),
    ]
    for change in changes:
        change()
        assert next(watch).job == caller.get(job.id)
    caller.finish(job.id)
    assert [response.job for response in watch] == [caller.get(job.id)]
    assert watch.code() is grpc.StatusCode.OK


@pytest.mark.parametrize("end", ["finish", "fail", "cancelled", "cancelled by the server", "abandoned"])
def test_the_final_state_arrives_and_ends_the_watch(caller: Caller, end: str) -> None:
    """With OK, to all who watch."""
    job = caller.create()
    watches = [caller.watch(job.id) for _ in range(3)]
    for watch in watches:
        next(watch)
    match end:
        case "finish":
            caller.finish(job.id)
        case "fail":
            caller.fail(job.id)
        case "cancelled":
            caller.fail(job.id, code=1)
        case "abandoned":
            caller.app.pass_time(31 * 86_400)
        case _:
            caller.cancel(job.id, grace=10)
            caller.app.pass_time(11)
    final = caller.get(job.id)
    for watch in watches:
        *_, last = watch
        assert last.job == final
        assert watch.code() is grpc.StatusCode.OK


@pytest.mark.parametrize("behind", [0, 1, 2])
def test_a_watch_of_what_has_ended_sends_the_final_state(caller: Caller, behind: int) -> None:
    """Always, though its caller may have seen it."""
    job = caller.create()
    caller.report(job.id, progress=1)
    final = caller.finish(job.id)
    assert [response.job for response in caller.watch(job.id, final.revision - behind)] == [final]


def test_a_watch_is_taken_up_again_by_revision(caller: Caller) -> None:
    """What the caller has seen is not sent again; what it has not is."""
    job = caller.create()
    for number in range(1, 4):
        caller.report(job.id, progress=number)
    now = caller.get(job.id)
    for older in range(now.revision):
        watch = caller.watch(job.id, older)
        assert next(watch).job == now
        watch.cancel()
    watch = caller.watch(job.id, now.revision)
    until(lambda: caller.app.app.hub.watches > 0)
    caller.report(job.id, progress=9)
    assert next(watch).job.progress == 9
    watch.cancel()


@pytest.mark.parametrize("revision", [-1, 2, 1000, 2**63 - 1, -(2**63)])
def test_a_revision_that_was_never_there_is_refused(caller: Caller, revision: int) -> None:
    job = caller.create()
    assert faults(lambda: next(caller.watch(job.id, revision))) == {"after_revision"}


def test_a_slow_reader_gets_the_latest_state_and_not_a_queue(caller: Caller) -> None:
    """Revisions grow, the last one arrives, most between are left out; the history misses nothing."""
    job = large(caller)
    watch = caller.watch(job.id)
    next(watch)
    count = 400
    for number in range(1, count + 1):
        caller.report(job.id, progress=number)
    final = caller.finish(job.id)
    states = [response.job for response in watch]
    revisions = [state.revision for state in states]
    assert revisions == sorted(set(revisions))
    assert len(revisions) < count
    assert states[-1] == final
    assert [change.status for change in states[-1].history] == [RUNNING, COMPLETED]


def test_a_watch_of_a_job_that_is_cleared_ends_with_not_found(caller: Caller) -> None:
    job = caller.create()
    watch = caller.watch(job.id)
    next(watch)
    caller.clear(job.id)
    assert refused_with("JOB_NOT_FOUND", lambda: next(watch)).code == "NOT_FOUND"


def test_a_job_made_anew_with_the_same_id_is_another_job(caller: Caller) -> None:
    """A slow reader too is told that the one it watches is gone, and never sees the revisions begin again."""
    job = large(caller)
    watch = caller.watch(job.id)
    next(watch)
    for number in range(1, 101):
        caller.report(job.id, progress=number)
    caller.clear(job.id)
    caller.create(job_id=job.id, name="another")
    revisions: list[int] = []
    with pytest.raises(grpc.RpcError) as failure:
        revisions.extend(response.job.revision for response in watch)
    assert from_error(failure.value).reason == "JOB_NOT_FOUND"
    assert revisions == sorted(set(revisions))


def test_many_writers_and_many_watchers(caller: Caller) -> None:
    """For all writers, and all beginnings of a watch: revisions increase, nothing twice, the final state last."""
    job = caller.create()

    def watch(_: int) -> list[int]:
        return [response.job.revision for response in caller.watch(job.id)]

    def work(part: int) -> None:
        for number in range(1, 21):
            caller.report(job.id, part=f"{part}", progress=number)

    with ThreadPoolExecutor(8) as pool:
        watches = [pool.submit(watch, number) for number in range(4)]
        for done in [pool.submit(work, number) for number in range(3)]:
            done.result()
        final = caller.finish(job.id)
        for found in watches:
            revisions = found.result()
            assert revisions == sorted(set(revisions))
            assert revisions[-1] == final.revision
    assert final.progress == 60


def test_a_watch_that_its_caller_ends_is_gone(caller: Caller) -> None:
    """Cancelled, or past its deadline: within a second nothing is left of it."""
    job = caller.create()
    watch = caller.watch(job.id)
    next(watch)
    watch.cancel()
    until(lambda: watchers_gone(caller.app), timeout=1)
    request = pb.WatchJobRequest(session_id=caller.session, job_id=job.id)
    with pytest.raises(grpc.RpcError) as failure:
        for _ in caller.app.stub.WatchJob(request, timeout=0.2):
            pass
    assert isinstance(failure.value, grpc.Call)
    assert failure.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    until(lambda: watchers_gone(caller.app), timeout=1)


def test_a_watch_ends_by_itself_now_and_then(caller: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that load can move between servers: UNAVAILABLE, and it is taken up where it ended."""
    job = caller.create()
    monkeypatch.setattr(servicer, "WATCH_LIFE", (0.05, 0.05))
    for watch in (caller.watch(job.id), caller.watch_all()):
        next(watch)
        refusal = refused_with("STREAM_EXPIRED", next, watch)
        assert refusal.code == "UNAVAILABLE"
    until(lambda: watchers_gone(caller.app), timeout=1)
    monkeypatch.undo()
    caller.finish(job.id)
    assert [response.job.revision for response in caller.watch(job.id, job.revision)] == [2]


# All jobs of a session.


def test_a_watch_of_a_session_begins_with_its_jobs(caller: Caller, stranger: Caller) -> None:
    """All of them, ended ones too, and nobody else's."""
    stranger.create()
    jobs = [caller.create(name=f"{n}") for n in range(5)]
    jobs[1] = caller.finish(jobs[1].id)
    watch = caller.watch_all()
    found = take(watch, 5)
    assert {response.job.id: response.job for response in found} == {job.id: job for job in jobs}
    assert len({response.resume_token for response in found}) == 5
    watch.cancel()


def test_then_come_new_jobs_changes_and_removals(caller: Caller, stranger: Caller) -> None:
    first = caller.create()
    watch = caller.watch_all()
    assert seen(next(watch)) == (first.id, 1)
    stranger.create()
    second = caller.create(name="second")
    assert next(watch).job == second
    stranger.report(stranger.create().id, progress=1)
    caller.report(first.id, progress=5)
    assert next(watch).job == caller.get(first.id)
    caller.clear(second.id)
    assert seen(next(watch)) == (second.id, 0)
    ended = caller.finish(first.id)
    assert next(watch).job == ended
    caller.app.pass_time(31 * 86_400)
    assert seen(next(watch)) == (first.id, 0)
    watch.cancel()


def test_a_watch_of_an_empty_session_waits(caller: Caller) -> None:
    watch = caller.watch_all()
    until(lambda: caller.app.app.hub.watches > 0)
    job = caller.create()
    assert next(watch).job == job
    watch.cancel()


def test_a_cleared_job_that_is_made_anew_arrives_as_removed_first(caller: Caller) -> None:
    """To a slow reader, and to one who comes back, too: a revision never stands after a greater one of its id."""
    job = large(caller)
    watch = caller.watch_all()
    token = next(watch).resume_token
    for number in range(1, 101):
        caller.report(job.id, progress=number)
    caller.clear(job.id)
    caller.create(job_id=job.id, name="anew")
    caller.report(job.id, progress=7)

    def check(responses: Iterable[pb.WatchJobsResponse]) -> None:
        revisions: list[int] = []
        for response in responses:
            revisions.append(seen(response)[1])
            if response.job.name == "anew" and response.job.progress == 7:
                break
        assert 0 in revisions
        gone = revisions.index(0)
        assert revisions[:gone] == sorted(set(revisions[:gone]))
        assert revisions[gone:] == sorted(set(revisions[gone:]))

    check(watch)
    watch.cancel()
    again = caller.watch_all(token)
    check(again)
    again.cancel()


def test_changes_of_one_commit_are_not_lost_between_them(caller: Caller) -> None:
    """A watch may break off between two changes that were committed together: the rest comes when it is resumed."""
    oldest, later = caller.create(), caller.create(job_id="f" * 32)
    watch = caller.watch_all()
    take(watch, 2)
    with ThreadPoolExecutor(4) as pool, held_commits(caller.app) as wait_for:
        calls: list[Future[Any]] = [pool.submit(caller.report, later.id, progress=1)]
        wait_for(1)
        for number, job_id in enumerate(["a" * 32, "0" * 32, "c" * 32], 2):
            calls.append(pool.submit(caller.create, job_id=job_id))
            wait_for(number)
    for call in calls:
        call.result()
    live = take(watch, 4)
    watch.cancel()
    everything = {(later.id, 2), ("a" * 32, 1), ("0" * 32, 1), ("c" * 32, 1)}
    assert {seen(response) for response in live} == everything
    for broken_off in range(4):
        before = {seen(response) for response in live[: broken_off + 1]}
        after = {seen(response) for response in drain(caller, caller.watch_all(live[broken_off].resume_token), oldest)}
        assert before | after >= everything, f"broken off after {broken_off + 1}"


def test_a_watch_taken_up_after_removals_were_forgotten_is_refused(caller: Caller) -> None:
    """Rather than leave a removed job standing; a watch without the token begins anew."""
    oldest, old, kept = caller.create(), caller.create(), caller.create()
    watch = caller.watch_all()
    token = take(watch, 3)[-1].resume_token
    watch.cancel()
    caller.clear(old.id)
    caller.app.pass_time(12 * 3600)
    assert (old.id, 0) in [seen(response) for response in drain(caller, caller.watch_all(token), oldest)]
    caller.app.pass_time(14 * 3600)
    refusal = refused_with("RESUME_TOKEN_EXPIRED", lambda: next(caller.watch_all(token)))
    assert refusal.code == "FAILED_PRECONDITION"
    assert [seen(response)[0] for response in drain(caller, caller.watch_all(), oldest)] == [kept.id]


def test_a_resume_token_belongs_to_its_session_and_cannot_be_altered(
    caller: Caller, stranger: Caller, admin: Caller
) -> None:
    for _ in range(2):
        caller.create()
    watch = caller.watch_all()
    token = next(watch).resume_token
    watch.cancel()
    page_token = caller.list(page_size=1).next_page_token
    foreign: list[tuple[Caller, str]] = [(stranger, token), (admin, token), (caller, page_token)]
    bent = [token[:-1] + ("A" if token[-1] != "A" else "B"), token[1:], token + "=", token + "A", "x", "é", "\0"]
    for who, text in [*foreign, *((caller, text) for text in bent)]:
        assert faults(next, who.watch_all(text)) == {"resume_token"}
    assert faults(lambda: caller.list(page_token=token)) == {"page_token"}


# The long poll.


def test_a_long_poll_answers_at_once_if_there_is_something_new(caller: Caller) -> None:
    job = caller.create()
    caller.report(job.id, progress=1)
    began = time.monotonic()
    assert caller.get(job.id, after_revision=1, wait=seconds(30)).progress == 1
    assert caller.get(job.id, wait=seconds(30)).progress == 1
    ended = caller.finish(job.id)
    assert caller.get(job.id, after_revision=ended.revision, wait=seconds(30)) == ended
    assert time.monotonic() - began < 10


def test_a_long_poll_waits_for_a_change(caller: Caller) -> None:
    job = caller.create()
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(caller.get, job.id, after_revision=1, wait=seconds(15))
        until(lambda: caller.app.app.hub.watches > 0)
        assert not answer.done()
        caller.report(job.id, progress=3)
        assert answer.result().progress == 3
    until(lambda: watchers_gone(caller.app))


def test_a_long_poll_answers_the_job_as_it_is_when_its_time_is_over(caller: Caller) -> None:
    job = caller.create()
    assert caller.get(job.id, after_revision=1, wait=seconds(0.02)) == job
    assert caller.get(job.id, after_revision=99, wait=seconds(0.02)) == job
    assert watchers_gone(caller.app)


def test_a_long_poll_lasts_a_minute_at_most(tmp_path: Path, transport: str) -> None:
    """However long its caller would wait; here the minute is made short."""
    assert Settings().longest_poll == 60 * MICROSECONDS
    database = f"sqlite:///{tmp_path / 'headway.db'}"
    with RunningApp(database, transport=transport, settings=Settings(longest_poll=20_000)) as app:
        caller = Caller(app, "s")
        job = caller.create()
        assert caller.get(job.id, after_revision=1, wait=seconds(15)) == job


def test_a_long_poll_for_a_job_that_is_cleared(caller: Caller) -> None:
    job = caller.create()
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(outcome, lambda: caller.get(job.id, after_revision=1, wait=seconds(15)))
        until(lambda: caller.app.app.hub.watches > 0)
        caller.clear(job.id)
        assert answer.result() == "JOB_NOT_FOUND"


def test_without_a_wait_the_answer_is_at_once(caller: Caller) -> None:
    job = caller.create()
    assert caller.get(job.id, after_revision=99) == job


def test_a_long_poll_ends_with_its_callers_deadline(caller: Caller) -> None:
    job = caller.create()
    request = pb.GetJobRequest(session_id=caller.session, job_id=job.id, after_revision=1, wait=seconds(60))
    with pytest.raises(grpc.RpcError) as failure:
        caller.app.stub.GetJob(request, timeout=0.2)
    assert isinstance(failure.value, grpc.Call)
    assert failure.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    until(lambda: watchers_gone(caller.app), timeout=1)


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        ({"after_revision": -1}, {"after_revision"}),
        ({"wait": seconds(-1)}, {"wait"}),
        ({"after_revision": -1, "wait": seconds(-0.5)}, {"after_revision", "wait"}),
    ],
)
def test_a_long_poll_is_checked(caller: Caller, fields: dict[str, object], wanted: set[str]) -> None:
    job = caller.create()
    assert faults(lambda: caller.get(job.id, **fields)) == wanted


# How many may watch.


def test_a_session_and_a_connection_have_so_many_watches_and_no_more(
    app_with: Callable[[Limits], RunningApp], session: str
) -> None:
    """One more is told to come back later; when one has ended there is room again; writing goes on all the while.

    Of 32 a connection has 3: an eighth of what would still be free.
    """
    app = app_with(Limits(session_watches=2, watches=32))
    one, two, three = (Caller(app, f"{session}-{n}") for n in range(3))
    jobs = {who.session: who.create() for who in (one, two, three)}

    def open_watch(who: Caller) -> Responses[pb.WatchJobResponse]:
        watch = who.watch(jobs[who.session].id)
        next(watch)
        return watch

    first, _second = open_watch(one), open_watch(one)
    more: list[Callable[[], object]] = [
        lambda: open_watch(one),
        lambda: next(one.watch_all()),
        lambda: one.get(jobs[one.session].id, after_revision=1, wait=seconds(5)),
    ]
    for call in more:
        refusal = refused_with("WATCHES_LIMIT", call)
        assert refusal.code == "RESOURCE_EXHAUSTED"
        assert refusal.retry_after
    third = open_watch(two)
    if app.transport == "grpc":
        # Over HTTP each watch has a connection to itself.
        refused_with("WATCHES_LIMIT", lambda: open_watch(three))
    assert three.report(jobs[three.session].id, progress=1).progress == 1
    assert three.get(jobs[three.session].id).progress == 1
    third.cancel()
    until(lambda: outcome(lambda: open_watch(three)) == "OK")
    first.cancel()
    until(lambda: outcome(lambda: open_watch(one)) == "OK")


def test_a_session_has_so_many_jobs_and_no_more(app_with: Callable[[Limits], RunningApp], session: str) -> None:
    """Asking again for one that is there is no new job; another session has room; clearing makes room."""
    app = app_with(Limits(session_jobs=3))
    caller, stranger = Caller(app, session), Caller(app, f"{session}-other")
    jobs = [caller.create(job_id=f"{n:032x}") for n in range(3)]
    refusal = refused_with("SESSION_JOBS_LIMIT", caller.create)
    assert refusal.code == "RESOURCE_EXHAUSTED"
    assert refusal.retry_after
    assert caller.create(job_id=jobs[0].id) == jobs[0]
    stranger.create()
    caller.finish(jobs[1].id)
    refused_with("SESSION_JOBS_LIMIT", caller.create)
    caller.clear(jobs[1].id)
    caller.create()
    refused_with("SESSION_JOBS_LIMIT", caller.create)
    assert len(caller.list().jobs) == 3
