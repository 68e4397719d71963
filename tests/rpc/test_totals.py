"""The server stores a limited number of jobs in all, and jobs of a limited number of sessions."""

from collections.abc import Callable
from itertools import count
from pathlib import Path

from headway_server.domain.limits import Limits
from tests.support.app import RunningApp
from tests.support.caller import Caller
from tests.support.refusals import outcome, refused_with
from tests.support.waiting import until


def test_the_server_stores_no_more_jobs_than_its_limit(app_with: Callable[[Limits], RunningApp]) -> None:
    app = app_with(Limits(jobs=3))
    first, second = Caller(app, "first"), Caller(app, "second")
    kept = [first.create(), second.create(), first.create(job_id="0" * 32)]
    refusal = refused_with("SERVER_JOBS_LIMIT", second.create)
    assert refusal.retry_after is not None
    assert first.create(job_id="0" * 32) == kept[2], "a repeat creates nothing"
    assert second.report(kept[1].id, progress=1).progress == 1
    first.clear(kept[0].id)
    assert second.create().id


def test_jobs_from_before_the_start_count(tmp_path: Path) -> None:
    database = f"sqlite:///{tmp_path / 'headway.db'}"
    with RunningApp(database) as app:
        Caller(app, "first").create()
        Caller(app, "second").create()
    with RunningApp(database, limits=Limits(jobs=2)) as app:
        until(lambda: outcome(Caller(app, "first").create) == "SERVER_JOBS_LIMIT")
    with RunningApp(database, limits=Limits(sessions=2)) as app:
        new = (f"session-{number}" for number in count())
        until(lambda: outcome(Caller(app, next(new)).create) == "SERVER_SESSIONS_LIMIT")
        assert Caller(app, "first").create().id


def test_the_server_stores_jobs_of_no_more_sessions_than_its_limit(app_with: Callable[[Limits], RunningApp]) -> None:
    app = app_with(Limits(sessions=2))
    first, second, third = (Caller(app, name) for name in ("first", "second", "third"))
    job = first.create()
    second.create()
    refusal = refused_with("SERVER_SESSIONS_LIMIT", third.create)
    assert refusal.retry_after is not None
    assert first.create().id, "a session that has jobs may have more"
    assert [job.id for job in first.list().jobs].count(job.id) == 1
