from datetime import timedelta

import pytest

import headway
from headway.v1 import job_pb2
from headway.v1 import job_service_pb2 as rpc
from tests.client.fakes import Proxy
from tests.support.server import ServerProcess


def test_list_goes_over_all_pages_with_filters(hw: headway.Client) -> None:
    jobs = [hw.job(name=f"n{n % 2}", invoker="me", labels={"n": str(n)}) for n in range(7)]
    jobs[0].finish()
    assert [job.id for job in hw.list(page_size=2)] == [job.id for job in reversed(jobs)]
    assert [job.id for job in hw.list(statuses=[headway.Status.COMPLETED])] == [jobs[0].id]
    assert [job.id for job in hw.list(labels={"n": "3"})] == [jobs[3].id]
    assert len(list(hw.list(name="n1", invoker="me"))) == 3
    assert list(hw.list(stalled=True)) == []


def test_durations_are_seconds_or_timedeltas(hw: headway.Client) -> None:
    job = hw.job(heartbeat_timeout=timedelta(minutes=2), stall_timeout=1.5, retention=timedelta(days=1))
    seen = hw.get(None, job.id)
    assert seen.heartbeat_timeout.seconds == 120
    assert (seen.stall_timeout.seconds, seen.stall_timeout.nanos) == (1, 500_000_000)
    assert seen.retention.seconds == 86400


def test_the_default_heartbeat_timeout_is_a_minute(hw: headway.Client) -> None:
    assert hw.get(None, hw.job().id).heartbeat_timeout.seconds == 60


def test_watch_shows_newer_states_to_the_end(hw: headway.Client) -> None:
    job = hw.job(size=3)
    revisions = []
    for state in hw.watch(None, job.id, timeout=10):
        revisions.append(state.revision)
        if len(revisions) == 1:
            job.advance(3)
            job.finish()
    assert revisions == sorted(set(revisions))
    assert (state.status, state.progress) == (job_pb2.JOB_STATUS_COMPLETED, 3)
    assert [late.revision for late in hw.watch(None, job.id, after_revision=state.revision)] == [state.revision]


def test_watch_goes_on_where_the_connection_broke(server: ServerProcess, proxy: Proxy, session: str) -> None:
    with (
        headway.connect(server.address, session=session) as near,
        headway.connect(proxy.address, session=session) as far,
    ):
        job = near.job()
        revisions = []
        for state in far.watch(None, job.id, timeout=20):
            revisions.append(state.revision)
            if len(revisions) < 4:
                proxy.cut()
                job.advance()
                assert job.flush()
            else:
                job.finish()
        assert revisions == sorted(set(revisions))
        assert len(revisions) >= 4


def test_watch_session_shows_jobs_and_removals(hw: headway.Client) -> None:
    first = hw.job(name="first")
    changes = hw.watch_session()
    assert next(changes).job.id == first.id
    second = hw.job(name="second")
    seen = next(change for change in changes if change.job.id == second.id)
    hw.clear(None, first.id)
    assert next(change for change in changes if change.removed_job_id).removed_job_id == first.id
    resumed = hw.watch_session(resume_token=seen.resume_token)
    assert next(change for change in resumed if change.removed_job_id).removed_job_id == first.id


def test_what_is_not_there(hw: headway.Client) -> None:
    absent = "0" * 32
    assert hw.fetch(None, absent) is None
    hw.clear(None, absent)
    for read in (hw.get, hw.results, hw.variables, hw.record_errors, hw.cancel, hw.resume):
        with pytest.raises(headway.NotFoundError) as caught:
            read(None, absent)
        assert caught.value.reason == "JOB_NOT_FOUND"
    with pytest.raises(headway.NotFoundError):
        next(hw.watch(None, absent))


def test_the_stub_is_at_hand(hw: headway.Client, session: str) -> None:
    job = hw.stub.CreateJob(rpc.CreateJobRequest(session_id=session, name="bare"))
    assert hw.get(None, job.id).name == "bare"


def test_a_connection_can_be_closed_twice(server: ServerProcess, session: str) -> None:
    hw = headway.connect(server.address, session=session)
    hw.job()
    hw.close()
    hw.close()


def test_a_job_left_open_is_let_go_with_its_connection(server: ServerProcess, hw: headway.Client, session: str) -> None:
    with headway.connect(server.address, session=session) as other:
        job = other.job()
        job.advance(9)
    seen = hw.get(None, job.id)
    assert (seen.progress, seen.status) == (9, job_pb2.JOB_STATUS_RUNNING)
