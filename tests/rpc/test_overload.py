"""Under overload nothing is lost, nothing counts twice, and the server stays well."""

import queue
from collections.abc import Callable, Iterator

import grpc
import pytest
from google.protobuf import message

from headway.v1 import job_pb2
from headway.v1 import job_service_pb2 as pb
from headway_server import writer
from headway_server.limits import Limits
from tests.conftest import ENGINES, empty_database
from tests.support.app import RunningApp
from tests.support.caller import TIMEOUT, Caller
from tests.support.refusals import outcome
from tests.support.waiting import held_commits, until

REQUESTS = 400


@pytest.fixture(scope="module", params=ENGINES)
def narrow(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApp]:
    """A server that sheds as soon as a few calls wait."""
    database = empty_database(request.param, request, tmp_path_factory.mktemp("narrow"))
    with RunningApp(database, limits=Limits(pending_writes=4)) as running:
        yield running


def test_a_stream_that_is_shed_and_sent_again_counts_everything_once(narrow: RunningApp, session: str) -> None:
    """What follows a request that failed is not applied: sent again, the failed one would be taken for an old one."""
    job = narrow.stub.CreateJob(pb.CreateJobRequest(session_id=session))
    requests = [
        pb.StreamProgressRequest(
            reports=[
                pb.ReportProgressRequest(
                    session_id=session, job_id=job.id, sequence=number, advance=1, counters={"done": 1}
                )
            ]
        )
        for number in range(1, REQUESTS + 1)
    ]
    acked = breaks = 0
    while acked < REQUESTS:
        sent_before = acked
        try:
            for response in narrow.stub.StreamProgress(iter(requests[acked:]), timeout=30):
                assert not response.failures
                acked = sent_before + response.acked
        except grpc.RpcError as error:
            assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            breaks += 1
            assert breaks < 50 * REQUESTS
    final = narrow.stub.GetJob(pb.GetJobRequest(session_id=session, job_id=job.id))
    assert breaks, "the stream was never shed: this shows nothing"
    assert final.progress == final.counters["done"] == REQUESTS


def test_reports_of_an_admin_stream_keep_their_order(narrow: RunningApp, session: str) -> None:
    """Looking a job up by its id alone must not let one request overtake another."""
    jobs = [narrow.stub.CreateJob(pb.CreateJobRequest(session_id=session)) for _ in range(2)]
    metadata = (("authorization", f"Bearer {narrow.app.admin_token}"),)

    def report(job_id: str, progress: int) -> pb.ReportProgressRequest:
        return pb.ReportProgressRequest(session_id="-", job_id=job_id, progress=progress)

    for _ in range(10):
        requests: queue.SimpleQueue[pb.StreamProgressRequest] = queue.SimpleQueue()
        first = [report(jobs[1].id, number) for number in range(20)] + [report(jobs[0].id, 1)]
        requests.put(pb.StreamProgressRequest(reports=first))
        requests.put(pb.StreamProgressRequest(reports=[report(jobs[0].id, 2)]))
        stream = narrow.stub.StreamProgress((requests.get() for _ in range(2)), metadata=metadata, timeout=20)
        assert [response.acked for response in stream][-1] == 2
        assert narrow.stub.GetJob(pb.GetJobRequest(session_id=session, job_id=jobs[0].id)).progress == 2


def test_a_large_request_holds_nobody_up(narrow: RunningApp, session: str) -> None:
    """Long names around many values made their conversion quadratic: it took seconds in which nobody was served."""
    job = narrow.stub.CreateJob(pb.CreateJobRequest(session_id=session))
    finish = pb.FinishJobRequest(session_id=session, job_id=job.id)
    finish.results.struct_value["k" * 400_000] = [None] * 100_000
    call = narrow.stub.FinishJob.future(finish, timeout=20)
    for _ in range(20):
        narrow.stub.GetJob(pb.GetJobRequest(session_id=session, job_id=job.id), timeout=2)
    assert call.result().status


def test_a_successor_is_not_stalled_by_what_its_predecessor_left(narrow: RunningApp, session: str) -> None:
    request = pb.CreateJobRequest(session_id=session)
    request.stall_timeout.seconds = 30
    job = narrow.stub.CreateJob(request)
    names = pb.GetJobRequest(session_id=session, job_id=job.id)
    narrow.pass_time(31)
    assert narrow.stub.GetJob(names).stalled
    narrow.stub.StartJob(pb.StartJobRequest(session_id=session, job_id=job.id, take_over=True))
    narrow.pass_time(20)
    assert not narrow.stub.GetJob(names).stalled
    narrow.pass_time(11)
    assert narrow.stub.GetJob(names).stalled


COMMANDS: dict[str, Callable[[Caller, str], tuple[str, message.Message]]] = {
    "create": lambda caller, _: ("CreateJob", pb.CreateJobRequest(session_id=caller.session)),
    "start": lambda caller, job_id: ("StartJob", pb.StartJobRequest(session_id=caller.session, job_id=job_id)),
    "update": lambda caller, job_id: (
        "UpdateJob",
        pb.UpdateJobRequest(session_id=caller.session, job=job_pb2.Job(id=job_id, name="x")),
    ),
    "cancel": lambda caller, job_id: ("CancelJob", pb.CancelJobRequest(session_id=caller.session, job_id=job_id)),
    "clear": lambda caller, job_id: ("ClearJob", pb.ClearJobRequest(session_id=caller.session, job_id=job_id)),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_weighs_what_it_says(caller: Caller, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """So many bytes may wait for their commit: what comes then is shed."""
    method, request = COMMANDS[command](caller, caller.create().id)
    monkeypatch.setattr(writer, "PENDING_BYTES_MAX", 5 * request.ByteSize())
    call = getattr(caller.app.stub, method)
    with held_commits(caller.app):
        calls = [call.future(request, timeout=TIMEOUT) for _ in range(12)]
        until(lambda: sum(one.done() for one in calls) == 6)
        shed = [one for one in calls if one.done()]
    assert {outcome(one.result) for one in shed} == {"OVERLOADED"}
    # Most of the others have failed for what the first of them did.
    until(lambda: all(one.done() for one in calls))
