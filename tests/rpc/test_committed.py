"""What the server holds of jobs in memory never shows, however little room there is for it."""

import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any  # answers of any type

import grpc
import pytest

from headway.v1 import job_pb2
from headway.v1 import job_service_pb2 as pb
from headway_server.domain.change import Change
from headway_server.domain.job import Job
from headway_server.domain.limits import Limits
from headway_server.service.job_cache import JobCache
from tests.support.app import RunningApp
from tests.support.caller import TIMEOUT, Caller
from tests.support.waiting import held_commits


@pytest.fixture
def forgetful(tmp_path: Path) -> Iterator[RunningApp]:
    """A server that has room for one job, and lets a session have three."""
    limits = Limits(session_jobs=3, cached_bytes=5000)
    with RunningApp(f"sqlite:///{tmp_path / 'headway.db'}", limits=limits) as running:
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


def test_a_job_that_is_cleared_and_created_anew_at_once_is_answered_as_it_was_each_time(forgetful: RunningApp) -> None:
    caller, job = Caller(forgetful, "session"), "a" * 32
    calls: list[grpc.Future[Any]] = []
    with held_commits(forgetful) as wait_for:
        for number in range(5):
            create = pb.CreateJobRequest(session_id="session", job_id=job, labels={"number": str(number)})
            calls.append(forgetful.stub.CreateJob.future(create, timeout=TIMEOUT))
            wait_for(len(calls))
            if number < 4:
                clear = pb.ClearJobRequest(session_id="session", job_id=job)
                calls.append(forgetful.stub.ClearJob.future(clear, timeout=TIMEOUT))
                wait_for(len(calls))
    created = [call.result() for call in calls[::2]]
    assert [answer.labels["number"] for answer in created] == [*"01234"]
    assert caller.report(job, advance=1).progress == 1
    others = [caller.create().id for _ in range(2)]
    with pytest.raises(grpc.RpcError):
        caller.create()
    assert caller.get(job).labels["number"] == "4"
    assert {found.id for found in caller.list().jobs} == {job, *others}


def test_what_is_held_is_bounded_in_bytes() -> None:
    """Jobs that are as large as they may be, made large by reports, take no more memory than they are weighed."""
    room = 4 * 1024 * 1024
    limits = Limits(cached_bytes=room)
    held = JobCache(room)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for number in range(60):
            job = Job(
                "a" * 32, f"{number:032x}", labels={f"{n:0{limits.label_key_length}}": "😀" * 256 for n in range(64)}
            )
            held.note([Change(job, created=True)])
            for part in range(limits.parts):
                job = job.copy()
                name = f"{number}-{part}" + "😀" * (limits.part_length - 10)
                job.parts, job.sequences = {**job.parts, name: 10**15 + part}, {**job.sequences, name: 10**15 + part}
                held.note([Change(job)])
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert held.bytes <= room
    assert held.get(("a" * 32, f"{59:032x}")) is not None
    assert taken < 1.2 * room
    held.note([Change(job, removed=True)])
    held.forget()
    assert held.bytes == 0
