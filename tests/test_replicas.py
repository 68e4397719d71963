"""Several servers on one PostgreSQL: what one acknowledges, all show."""

import threading
from collections.abc import Iterator

import grpc
import pytest

from headway.v1 import job_pb2
from headway.v1 import job_service_pb2 as pb
from tests.support.app import RunningApp
from tests.support.postgres import Postgres


async def publish_changes(server: RunningApp) -> None:
    """What a server does by itself twice a second."""
    assert server.app.other_servers is not None
    await server.app.other_servers.publish_changes()


@pytest.fixture(scope="module")
def replicas(postgresql: Postgres) -> Iterator[tuple[RunningApp, RunningApp]]:
    database = postgresql.database()
    with RunningApp(database) as one, RunningApp(database) as other:
        yield one, other


def test_a_read_at_another_server_sees_what_was_acknowledged(
    replicas: tuple[RunningApp, RunningApp], session: str
) -> None:
    one, other = replicas
    job = one.stub.CreateJob(pb.CreateJobRequest(session_id=session, name="shared"))
    for done in range(1, 20):
        here, there = (one, other) if done % 2 else (other, one)
        answer = here.stub.ReportProgress(
            pb.ReportProgressRequest(session_id=session, job_id=job.id, progress=done, sequence=done)
        )
        seen = there.stub.GetJob(pb.GetJobRequest(session_id=session, job_id=job.id))
        assert (seen.progress, seen.revision) == (done, answer.revision)


def test_a_watch_follows_a_job_that_others_report(replicas: tuple[RunningApp, RunningApp], session: str) -> None:
    one, other = replicas
    job = one.stub.CreateJob(pb.CreateJobRequest(session_id=session))
    watch = other.stub.WatchJob(pb.WatchJobRequest(session_id=session, job_id=job.id))
    all_jobs = other.stub.WatchJobs(pb.WatchJobsRequest(session_id=session))
    assert next(watch).job.revision == 1
    assert next(all_jobs).job.revision == 1
    one.stub.ReportProgress(pb.ReportProgressRequest(session_id=session, job_id=job.id, progress=5))
    other.run(publish_changes(other))
    assert next(watch).job.progress == 5
    assert next(all_jobs).job.progress == 5
    # Looking again at the same changes tells nobody anything twice.
    other.run(publish_changes(other))
    one.stub.FinishJob(pb.FinishJobRequest(session_id=session, job_id=job.id))
    other.run(publish_changes(other))
    assert [update.job.status for update in watch] == [job_pb2.JOB_STATUS_COMPLETED]
    assert next(all_jobs).job.status == job_pb2.JOB_STATUS_COMPLETED
    one.stub.ClearJob(pb.ClearJobRequest(session_id=session, job_id=job.id))
    other.run(publish_changes(other))
    assert next(all_jobs).removed_job_id == job.id
    all_jobs.cancel()


def test_one_id_chosen_at_both_servers_at_once_is_one_job(
    replicas: tuple[RunningApp, RunningApp], session: str
) -> None:
    for number in range(20):
        job_id = f"{number:032x}"
        request = pb.CreateJobRequest(session_id=session, job_id=job_id, name="shared")
        calls = [replica.stub.CreateJob.future(request) for replica in replicas]
        made = [call.result(timeout=10) for call in calls]
        assert made[0] == made[1]


def test_one_key_at_both_servers_at_once_is_one_job(replicas: tuple[RunningApp, RunningApp], session: str) -> None:
    for number in range(20):
        request = pb.CreateJobRequest(session_id=session, key=f"night {number}")
        calls = [replica.stub.CreateJob.future(request) for replica in replicas * 2]
        ids = {call.result(timeout=10).id for call in calls}
        assert len(ids) == 1
        # It ends at the one while the other is asked for the key: that finds it, or makes the next one.
        ended = replicas[0].stub.FinishJob.future(pb.FinishJobRequest(session_id=session, job_id=min(ids)))
        again = replicas[1].stub.CreateJob.future(request)
        assert ended.result(timeout=10).status == job_pb2.JOB_STATUS_COMPLETED
        ids.add(again.result(timeout=10).id)
        now = replicas[0].stub.CreateJob(request).id
        assert (now in ids) == (len(ids) == 2)


def test_a_job_continued_at_both_servers_at_once_is_continued_once(
    replicas: tuple[RunningApp, RunningApp], session: str
) -> None:
    for _ in range(20):
        job = replicas[0].stub.CreateJob(pb.CreateJobRequest(session_id=session))
        replicas[0].stub.FinishJob(pb.FinishJobRequest(session_id=session, job_id=job.id))
        request = pb.CreateJobRequest(session_id=session, continues=job.id)
        calls = [replica.stub.CreateJob.future(request) for replica in replicas * 2]
        made = [call.result(timeout=10).id for call in calls if call.exception(timeout=10) is None]
        seen = replicas[1].stub.GetJob(pb.GetJobRequest(session_id=session, job_id=job.id))
        assert made == [seen.continued_by]


def test_reports_from_both_servers_all_count(replicas: tuple[RunningApp, RunningApp], session: str) -> None:
    job = replicas[0].stub.CreateJob(pb.CreateJobRequest(session_id=session))
    failures: list[grpc.RpcError] = []

    def report(replica: RunningApp, part: str) -> None:
        try:
            for sequence in range(1, 101):
                replica.stub.ReportProgress(
                    pb.ReportProgressRequest(
                        session_id=session,
                        job_id=job.id,
                        part=part,
                        sequence=sequence,
                        advance=1,
                        counters={"done": 1},
                    )
                )
        except grpc.RpcError as error:
            failures.append(error)

    threads = [
        threading.Thread(target=report, args=(replica, f"{index}-{copy}"))
        for index, replica in enumerate(replicas)
        for copy in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    final = replicas[0].stub.GetJob(pb.GetJobRequest(session_id=session, job_id=job.id))
    assert final.progress == final.counters["done"] == 400
    assert final.revision == 401


def test_a_server_that_could_not_look_for_a_while_misses_nothing(
    replicas: tuple[RunningApp, RunningApp], session: str
) -> None:
    one, other = replicas
    other.run(publish_changes(other))
    job = one.stub.CreateJob(pb.CreateJobRequest(session_id=session))
    watch = other.stub.WatchJob(pb.WatchJobRequest(session_id=session, job_id=job.id))
    assert next(watch).job.revision == 1
    one.stub.FinishJob(pb.FinishJobRequest(session_id=session, job_id=job.id))
    one.clock.forward(60)
    other.clock.forward(60)
    other.run(publish_changes(other))
    assert [update.job.status for update in watch] == [job_pb2.JOB_STATUS_COMPLETED]
