"""A watch of a session comes in pages, goes on where it broke off, and holds little for a slow reader."""

import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from headway_server.domain.limits import Limits
from headway_server.service import session_watch
from tests.support.app import RunningApp
from tests.support.caller import Caller
from tests.support.refusals import refused_with
from tests.support.waiting import held_commits, until
from tests.support.watching import Seen, drain, large, seen, take


def test_the_newest_jobs_come_first(caller: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_watch, "ROWS", 3)
    jobs = [caller.create().id for _ in range(10)]
    watch = caller.watch_all()
    assert [response.job.id for response in take(watch, 10)] == jobs[::-1]
    watch.cancel()


@pytest.mark.parametrize(("rows", "boundaries"), [(64, 4), (2, 10), (2, 1)], ids=["a page", "pages", "boundaries"])
@pytest.mark.parametrize("seed", range(3))
def test_a_watch_taken_up_again_misses_nothing(
    caller: Caller, monkeypatch: pytest.MonkeyPatch, seed: int, rows: int, boundaries: int
) -> None:
    """Broken off anywhere: what is told before and after gives the session as it is, whether the jobs are one page or
    many.

    On SQLite nothing is told twice; where servers share a database a state can come once more, never an older one. The
    same holds for a watch that broke off too often before it had told all jobs.
    """
    monkeypatch.setattr(session_watch, "ROWS", rows)
    monkeypatch.setattr(session_watch, "BOUNDARIES_MAX", boundaries)
    rng = random.Random(seed)
    oldest = caller.create()
    jobs = [caller.create(name=f"{n}").id for n in range(8)]

    def stir(times: int) -> None:
        for _ in range(times):
            caller.app.clock.forward(rng.choice([0, 0, 0.001, 1]))
            match rng.randrange(6):
                case 0:
                    jobs.append(caller.create().id)
                case 1 if len(jobs) > 3:
                    caller.clear(jobs.pop(rng.randrange(len(jobs))))
                case 2:
                    reports = [{"job_id": job_id, "advance": 1} for job_id in rng.sample(jobs, 3)]
                    list(caller.stream([caller.batch(*reports)]))
                case _:
                    caller.report(rng.choice(jobs), advance=1)

    told: list[Seen] = []
    known: dict[str, int] = {}
    token = ""
    for _ in range(6):
        watch = caller.watch_all(token)
        stir(5)
        responses = drain(caller, watch, oldest)
        responses = responses[: rng.randint(0, len(responses))]
        for response in responses:
            job_id, revision = seen(response)
            assert revision == 0 or revision >= known.get(job_id, 0)
            told.append((job_id, revision))
            known[job_id] = revision
            token = response.resume_token
        stir(5)
    for response in drain(caller, caller.watch_all(token), oldest):
        job_id, revision = seen(response)
        told.append((job_id, revision))
        known[job_id] = revision
    assert {job_id: revision for job_id, revision in known.items() if revision} == {
        job.id: job.revision for job in caller.list(page_size=1000).jobs if job.id != oldest.id
    }
    if not caller.app.app.store.engine.shared and boundaries > 1:
        assert len(told) == len(set(told))


def test_changes_of_one_id_in_two_sessions_are_told_apart(
    app_with: Callable[[Limits], RunningApp], session: str
) -> None:
    """The admin's watch may break off between them, though they are of one commit: live, or in a page."""
    app = app_with(Limits())
    caller, stranger = Caller(app, session), Caller(app, f"{session}-stranger")
    admin = Caller(app, "-", (("authorization", f"Bearer {app.app.admin_token}"),))
    oldest = caller.create()
    job = caller.create(name="the caller's")
    stranger.create(job_id=job.id, name="the stranger's")
    watch = admin.watch_all()
    token = take(watch, 3)[-1].resume_token
    with ThreadPoolExecutor(2) as pool, held_commits(app) as wait_for:
        calls = [pool.submit(who.report, job.id, progress=7) for who in (caller, stranger)]
        wait_for(2)
    for call in calls:
        call.result()
    names = {"the caller's", "the stranger's"}
    live = take(watch, 2)
    watch.cancel()
    assert {response.job.name for response in live} == names
    again = admin.watch_all(token)
    paged = [response for response in drain(caller, again, oldest) if response.job.progress == 7]
    assert {response.job.name for response in paged} == names
    for first in (live[0], paged[0]):
        rest = drain(caller, admin.watch_all(first.resume_token), oldest)
        assert {first.job.name, *[response.job.name for response in rest if response.job.progress == 7]} == names


def test_a_token_of_the_future_is_refused(tmp_path: Path, session: str) -> None:
    """The database was restored from a backup that is older than it: the watch must begin anew."""
    with RunningApp(f"sqlite:///{tmp_path / 'late.db'}") as late:
        late.clock.forward(3600)
        Caller(late, session).create()
        watch = Caller(late, session).watch_all()
        token = next(watch).resume_token
        watch.cancel()
    with RunningApp(f"sqlite:///{tmp_path / 'early.db'}") as early:
        caller = Caller(early, session)
        job = caller.create()
        refused_with("RESUME_TOKEN_EXPIRED", lambda: next(caller.watch_all(token)))
        assert seen(next(caller.watch_all())) == (job.id, 1)


def test_a_reader_slower_than_its_backlog_reads_the_database(
    app_with: Callable[[Limits], RunningApp], session: str
) -> None:
    """It misses nothing, though the server holds next to nothing for it."""
    app = app_with(Limits(watch_bytes=8 * 1024 * 1024))
    caller = Caller(app, session)
    oldest = caller.create()
    jobs = [large(caller).id for _ in range(30)]
    watch = caller.watch_all()
    next(watch)
    for number in range(1, 6):
        for job_id in jobs:
            caller.report(job_id, progress=number)
        caller.clear(jobs.pop())
        jobs.append(large(caller).id)
        assert app.app.hub.bytes_held <= 8 * 1024 * 1024
    known: dict[str, int] = {}
    for response in [*drain(caller, watch, oldest)]:
        job_id, revision = seen(response)
        assert revision == 0 or revision >= known.get(job_id, 0)
        known[job_id] = revision
    there = {job.id: job.revision for job in caller.list(page_size=1000).jobs if job.id != oldest.id}
    assert {job_id: known.get(job_id, 0) for job_id in there} == there
    until(lambda: app.app.hub.bytes_held == 0)


def test_unread_watches_share_what_waits_for_them(app_with: Callable[[Limits], RunningApp], session: str) -> None:
    """However many they are, and however many jobs come and go meanwhile."""
    readers = 20
    app = app_with(Limits())
    caller = Caller(app, session)
    for _ in range(3):
        large(caller)
    watches = [caller.watch_all() for _ in range(readers)]
    until(lambda: app.app.hub.watches == readers)
    for _ in range(10):
        ids = caller.create_many(20)
        for job_id in ids:
            caller.clear(job_id)
    assert app.app.hub.bytes_held < 16 * 1024 * 1024
    for watch in watches:
        watch.cancel()
    until(lambda: app.app.hub.watches == 0)
    assert app.app.hub.bytes_held == 0
