"""A server that is started with other rules: old jobs follow them, in small commits and in the background."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from headway.v1 import job_service_pb2 as pb
from headway_server.domain.change import Change
from headway_server.domain.limits import MICROSECONDS
from headway_server.service import sweeper
from headway_server.settings import Settings
from headway_server.storage import server_facts
from tests.conftest import ENGINES, empty_database
from tests.support.app import RunningApp

SESSION = "rules"

BATCH = 20
"""Jobs in one commit that makes them follow other rules, here."""

JOBS = 2 * BATCH + 5

HOUR = Settings(retention=3600 * MICROSECONDS)
MINUTE = Settings(retention=60 * MICROSECONDS)


@pytest.fixture(params=ENGINES)
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return empty_database(request.param, request, tmp_path)


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweeper, "RULES_BATCH", BATCH)


def end_jobs(app: RunningApp) -> None:
    """Create jobs, and end them."""
    created = [app.stub.CreateJob.future(pb.CreateJobRequest(session_id=SESSION)) for _ in range(JOBS)]
    ids = [call.result().id for call in created]
    ended = [app.stub.FinishJob.future(pb.FinishJobRequest(session_id=SESSION, job_id=job_id)) for job_id in ids]
    for call in ended:
        call.result()


def left(app: RunningApp) -> int:
    return len(app.stub.ListJobs(pb.ListJobsRequest(session_id=SESSION, page_size=1000)).jobs)


def test_a_shorter_retention_reaches_old_jobs(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with RunningApp(database, settings=HOUR) as app:
        end_jobs(app)
        app.pass_time(120)
        assert left(app) == JOBS
    with RunningApp(database, settings=MINUTE) as app:
        store = app.app.store
        assert app.run(app.app.readers.read(lambda: store.due(0, JOBS))) == [], "the start rewrites nothing"
        saved: list[int] = []
        save = store.save

        def spy(changes: Sequence[Change]) -> None:
            saved.append(len(changes))
            save(changes)

        monkeypatch.setattr(store, "save", spy)
        monkeypatch.setattr(sweeper, "RULES_TIME_MAX", 30)
        app.pass_time(120)
        assert left(app) == 0
        assert sum(saved) == JOBS
        assert max(saved) <= BATCH


def test_a_restart_goes_on_where_the_last_run_ended(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweeper, "RULES_TIME_MAX", 0)
    with RunningApp(database, settings=HOUR) as app:
        end_jobs(app)
    for remaining in (JOBS - BATCH, JOBS - 2 * BATCH, 0):
        with RunningApp(database, settings=MINUTE) as app:
            app.pass_time(120)
            assert left(app) == remaining
    with RunningApp(database, settings=MINUTE) as app:
        app.pass_time(120)
        assert app.run(app.app.readers.read(lambda: app.app.store.fact(server_facts.APPLIED))) is None
