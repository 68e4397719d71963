"""What the server holds of jobs in memory never shows, however little room there is for it."""

from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from headway.v1 import job_pb2
from headway_server.limits import Limits
from tests.support.app import RunningApp
from tests.support.caller import Caller


@pytest.fixture
def forgetful(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunningApp]:
    """A server that holds one job, and lets a session have three."""
    monkeypatch.setattr("headway_server.app.COMMITTED", 1)
    with RunningApp(f"sqlite:///{tmp_path / 'headway.db'}", limits=Limits(session_jobs=3)) as running:
        yield running


def test_jobs_that_were_forgotten_go_on_where_they_stood(forgetful: RunningApp) -> None:
    caller = Caller(forgetful, "session")
    jobs = [caller.create(name=str(number)).id for number in range(3)]
    for count in range(1, 5):
        for number, job in enumerate(jobs):
            caller.report(job, advance=number, counters={"n": 1}, sequence=count)
            caller.report(job, advance=100, sequence=count)
    for number, job in enumerate(jobs):
        seen = caller.get(job)
        assert (seen.name, seen.progress, dict(seen.counters)) == (str(number), 4 * number, {"n": 4})
    caller.finish(jobs[0])
    caller.report(jobs[1], advance=1)
    assert caller.get(jobs[0]).status == job_pb2.JOB_STATUS_COMPLETED


def test_the_room_of_a_session_is_counted_right(forgetful: RunningApp) -> None:
    caller = Caller(forgetful, "session")
    jobs = [caller.create().id for _ in range(3)]
    for _ in range(3):
        with pytest.raises(grpc.RpcError) as refused:
            caller.create()
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        caller.clear(jobs.pop())
        jobs.append(caller.create().id)
    for job in jobs:
        caller.clear(job)
    assert len([caller.create().id for _ in range(3)]) == 3
    Caller(forgetful, "another").create()
