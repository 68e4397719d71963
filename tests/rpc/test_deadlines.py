"""A caller's deadline is honoured: what it no longer waits for holds nothing, and what came too late does nothing."""

from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from headway.v1 import job_service_pb2 as pb
from tests.support.caller import TIMEOUT, Caller
from tests.support.waiting import held_commits, until


def test_a_deadline_that_is_over_already_changes_nothing(caller: Caller) -> None:
    request = pb.CreateJobRequest(session_id=caller.session)
    for timeout in (0, -1):
        with pytest.raises(grpc.RpcError) as failure:
            caller.app.stub.CreateJob(request, timeout=timeout)
        assert isinstance(failure.value, grpc.Call)
        assert failure.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert list(caller.list().jobs) == []


def test_a_write_whose_caller_gave_up_holds_nothing(caller: Caller) -> None:
    """While the database is slow: the caller is told in time, reads go on, and later nothing of it waits any more."""
    job = caller.create()
    request = pb.ReportProgressRequest(session_id=caller.session, job_id=job.id, progress=9)
    with held_commits(caller.app) as wait_for:
        with pytest.raises(grpc.RpcError) as failure:
            caller.app.stub.ReportProgress(request, timeout=0.1)
        assert isinstance(failure.value, grpc.Call)
        assert failure.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert caller.get(job.id) == job, "reads do not wait for writes"
        call = caller.app.stub.ReportProgress.future(request, timeout=TIMEOUT)
        wait_for(1)
        call.cancel()
    until(lambda: caller.app.app.writer.load == 0)
    assert caller.report(job.id, progress=1).progress == 1


def test_calls_given_up_midway_take_no_neighbour_with_them(caller: Caller) -> None:
    job = caller.create()
    with ThreadPoolExecutor(6) as pool, held_commits(caller.app) as wait_for:
        patient = [pool.submit(caller.report, job.id, part=f"{n}", progress=1) for n in range(5)]
        wait_for(5)
        hasty = caller.app.stub.FinishJob.future(
            pb.FinishJobRequest(session_id=caller.session, job_id=job.id), timeout=TIMEOUT
        )
        wait_for(6)
        hasty.cancel()
    assert {call.result().revision > 1 for call in patient} == {True}
    assert caller.get(job.id).progress == 5
