"""Commits that take longer than a heartbeat: nobody is LOST who waited for one, and every watch sees what it wrote."""

import secrets
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import grpc
import psycopg
import pytest
from google.protobuf import duration_pb2

from headway.v1 import job_pb2
from headway.v1 import job_service_pb2 as pb
from headway.v1.job_service_pb2_grpc import JobServiceStub
from tests.support.delays import delay_commits
from tests.support.postgres import Postgres
from tests.support.server import ServerProcess

DELAY = 3.0
"""Seconds that a commit takes longer."""

HEARTBEAT, PAUSE = duration_pb2.Duration(seconds=2, nanos=900_000_000), 1.5
"""After which silence the worker would be LOST, and the seconds that it is silent after its answer: each server looks
at the job meanwhile, whose last contact is then further back than its heartbeat."""

TIMEOUT = 30.0


@pytest.fixture
def database(postgresql: Postgres) -> str:
    return postgresql.database()


@pytest.fixture
def servers(database: str, tmp_path: Path) -> Iterator[list[JobServiceStub]]:
    """Two servers on one database, whose commits are not delayed yet."""
    key = secrets.token_hex(32)
    with ExitStack() as stack:
        stubs = []
        for name in ("one", "other"):
            (tmp_path / name).mkdir()
            server = ServerProcess(tmp_path / name, database=database, environment={"HEADWAY_SESSION_KEY": key})
            stack.enter_context(server)
            stubs.append(JobServiceStub(stack.enter_context(grpc.insecure_channel(server.address))))
        delay_commits(database, share=0, seconds=DELAY)
        yield stubs


def delay(database: str, share: float) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("UPDATE delay SET share = %s", (share,))


@pytest.mark.parametrize("shared", [False, True], ids=["one server", "two servers"])
def test_nobody_is_lost_who_waited_for_a_slow_commit(
    shared: bool, request: pytest.FixtureRequest, database: str, session: str, tmp_path: Path
) -> None:
    """Neither for the server that commits, nor for another, which sees what was committed later than it was said."""
    with ExitStack() as stack:
        if shared:
            here, there = request.getfixturevalue("servers")
        else:
            server = stack.enter_context(ServerProcess(tmp_path, database=database))
            here = there = JobServiceStub(stack.enter_context(grpc.insecure_channel(server.address)))
            delay_commits(database, share=0, seconds=DELAY)
        _report_through_a_slow_commit(here, there, database, session)


def _report_through_a_slow_commit(here: JobServiceStub, there: JobServiceStub, database: str, session: str) -> None:
    job = here.CreateJob(pb.CreateJobRequest(session_id=session, heartbeat_timeout=HEARTBEAT), timeout=TIMEOUT)
    delay(database, 1.0)
    report = pb.ReportProgressRequest(session_id=session, job_id=job.id, advance=1)
    here.ReportProgress(report, timeout=TIMEOUT)
    delay(database, 0)
    # This is no wait for something: it is the worker's pace.
    time.sleep(PAUSE)
    here.ReportProgress(report, timeout=TIMEOUT)
    here.FinishJob(pb.FinishJobRequest(session_id=session, job_id=job.id), timeout=TIMEOUT)
    seen = there.GetJob(pb.GetJobRequest(session_id=session, job_id=job.id), timeout=TIMEOUT)
    assert [change.status for change in seen.history] == [job_pb2.JOB_STATUS_RUNNING, job_pb2.JOB_STATUS_COMPLETED]


@pytest.mark.parametrize("resumed", [False, True])
def test_an_end_that_is_committed_late_is_seen_at_the_other_server(
    servers: list[JobServiceStub], database: str, session: str, resumed: bool
) -> None:
    here, there = servers
    job, other = (here.CreateJob(pb.CreateJobRequest(session_id=session), timeout=TIMEOUT) for _ in range(2))
    one, all_jobs = pb.WatchJobRequest(session_id=session, job_id=job.id), pb.WatchJobsRequest(session_id=session)
    watch, all_of_them = there.WatchJob(one, timeout=TIMEOUT), there.WatchJobs(all_jobs, timeout=TIMEOUT)
    one.after_revision = next(watch).job.revision
    for _ in range(2):
        all_jobs.resume_token = next(all_of_them).resume_token
    delay(database, 1.0)
    end = here.FinishJob.future(pb.FinishJobRequest(session_id=session, job_id=job.id), timeout=TIMEOUT)
    with psycopg.connect(database, autocommit=True) as connection:
        while not connection.execute("SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'").fetchone():
            pass
    delay(database, 0)
    # The other server commits later, and is seen earlier.
    there.ReportProgress(pb.ReportProgressRequest(session_id=session, job_id=other.id, advance=1), timeout=TIMEOUT)
    while True:
        update = next(all_of_them)
        all_jobs.resume_token = update.resume_token
        if update.job.progress == 1:
            break
    assert not end.done()
    if resumed:
        watch.cancel()
        all_of_them.cancel()
        watch, all_of_them = there.WatchJob(one, timeout=TIMEOUT), there.WatchJobs(all_jobs, timeout=TIMEOUT)
    assert [update.job.status for update in watch][-1] == job_pb2.JOB_STATUS_COMPLETED
    while next(all_of_them).job.status != job_pb2.JOB_STATUS_COMPLETED:
        pass
    assert end.result(timeout=TIMEOUT).status == job_pb2.JOB_STATUS_COMPLETED
