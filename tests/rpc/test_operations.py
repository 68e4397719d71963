"""google.longrunning over the same jobs, driven by google-api-core's own client, which nobody here wrote."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from google.api_core import exceptions, operation
from google.api_core.future import polling
from google.api_core.operations_v1 import OperationsClient
from google.api_core.retry import Retry
from google.longrunning import operations_proto_pb2 as pb
from google.protobuf import duration_pb2, struct_pb2

from headway.v1 import job_pb2
from headway_server.rpc import encoded_replies
from headway_server.rpc.json_values import value_on_wire
from tests.support.app import RunningApp
from tests.support.caller import TIMEOUT, Caller, value

SOON = Retry(initial=0.02, maximum=0.05, predicate=lambda error: isinstance(error, polling._OperationNotComplete))


@pytest.fixture
def client(app: RunningApp) -> Iterator[OperationsClient]:
    """The operations client of Google's libraries."""
    with grpc.insecure_channel(app.address) as channel:
        yield OperationsClient(channel)


def name_of(caller: Caller, job_id: str) -> str:
    return f"sessions/{caller.session}/operations/{job_id}"


def future_of(client: OperationsClient, caller: Caller, job_id: str) -> operation.Operation:
    """What a library of Google's gives its user to wait for."""
    future: operation.Operation = operation.from_gapic(
        client.get_operation(name_of(caller, job_id)),
        client,
        struct_pb2.Value,
        metadata_type=job_pb2.Job,
        polling=SOON,
    )
    return future


def test_a_job_of_somebody_else_can_be_waited_for(client: OperationsClient, caller: Caller) -> None:
    job = caller.create(name="import", size=10)
    future = future_of(client, caller, job.id)
    assert not future.done()
    assert (future.metadata.name, future.metadata.size) == ("import", 10)
    caller.report(job.id, progress=4)
    assert not future.done()
    assert future.metadata.progress == 4
    with ThreadPoolExecutor() as pool:
        result = pool.submit(future.result, timeout=10)
        caller.finish(job.id, results=value({"added": 4}))
        assert result.result().struct_value["added"] == 4
    assert future.done() and future.metadata.status == job_pb2.JOB_STATUS_COMPLETED
    assert future.operation.name == name_of(caller, job.id)


def test_without_results_the_response_is_null(client: OperationsClient, caller: Caller) -> None:
    job = caller.create()
    caller.finish(job.id)
    assert future_of(client, caller, job.id).result(timeout=10).WhichOneof("kind") == "null_value"


def test_a_failure_is_raised(client: OperationsClient, caller: Caller) -> None:
    job = caller.create()
    caller.fail(job.id, code=8, message="no room on the shelf")
    future = future_of(client, caller, job.id)
    with pytest.raises(exceptions.ResourceExhausted, match="no room on the shelf"):
        future.result(timeout=10)
    assert future.operation.WhichOneof("result") == "error"


def test_cancel_reaches_the_worker_and_ends_as_cancelled(client: OperationsClient, caller: Caller) -> None:
    job = caller.create()
    future = future_of(client, caller, job.id)
    assert future.cancel()
    assert caller.report(job.id).cancellation.requested
    assert not future.done()
    caller.fail(job.id, code=1, message="as you like")
    assert future.cancelled()
    with pytest.raises(exceptions.Cancelled):
        future.result(timeout=10)
    client.cancel_operation(name_of(caller, job.id))


def test_delete_clears_the_job(client: OperationsClient, caller: Caller) -> None:
    job = caller.create()
    client.delete_operation(name_of(caller, job.id))
    with pytest.raises(exceptions.NotFound):
        client.get_operation(name_of(caller, job.id))
    with pytest.raises(exceptions.NotFound):
        client.delete_operation(name_of(caller, job.id))


def test_lists_page_and_filter(client: OperationsClient, caller: Caller) -> None:
    jobs = [caller.create().id for _ in range(5)]
    caller.finish(jobs[0], results=value([1, 2]))
    parent = f"sessions/{caller.session}"
    listed = [each.name for each in client.list_operations(parent, "")]
    assert listed == [name_of(caller, job) for job in reversed(jobs)]
    assert [each.name for each in client.list_operations(parent, "done = true")] == [name_of(caller, jobs[0])]
    assert len(list(client.list_operations(parent, "done=false"))) == 4


def test_wait_returns_at_the_end_or_at_the_timeout(app: RunningApp, caller: Caller) -> None:
    wait = app.channel.unary_unary(
        "/google.longrunning.Operations/WaitOperation",
        request_serializer=pb.WaitOperationRequest.SerializeToString,
        response_deserializer=pb.Operation.FromString,
    )
    job = caller.create()
    name = name_of(caller, job.id)
    request = pb.WaitOperationRequest(name=name, timeout=duration_pb2.Duration(nanos=50_000_000))
    assert not wait(request, timeout=10).done
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(wait, pb.WaitOperationRequest(name=name), timeout=10)
        caller.report(job.id, progress=1)
        caller.finish(job.id)
        assert waiting.result().done


def test_results_that_many_wait_for_are_converted_once(
    app: RunningApp, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []

    def counted(text: str) -> bytes:
        made.append(text)
        return value_on_wire(text)

    monkeypatch.setattr(encoded_replies, "value_on_wire", counted)
    job = caller.create()
    results = value(["x" * encoded_replies.ENCODED_INLINE_MAX, job.id])
    caller.finish(job.id, results=results)
    wait = app.channel.unary_unary(
        "/google.longrunning.Operations/WaitOperation",
        request_serializer=pb.WaitOperationRequest.SerializeToString,
        response_deserializer=pb.Operation.FromString,
    )
    waits = [wait.future(pb.WaitOperationRequest(name=name_of(caller, job.id)), timeout=TIMEOUT) for _ in range(10)]
    for waiting in waits:
        found = struct_pb2.Value()
        assert waiting.result().response.Unpack(found)
        assert found == results
    assert caller.results(job.id).results == results
    assert len(made) == 1


@pytest.mark.parametrize(
    "name",
    ["", "x", "operations/1", "sessions/s/operations/", "sessions/s/operations/1", "sessions//operations/" + "0" * 32],
)
def test_names_that_are_none(client: OperationsClient, caller: Caller, name: str) -> None:
    for call in ("get_operation", "cancel_operation", "delete_operation"):
        with pytest.raises(exceptions.InvalidArgument):
            getattr(client, call)(name)


def test_another_sessions_job_is_not_there(client: OperationsClient, caller: Caller, app: RunningApp) -> None:
    job = Caller(app, "another/with/slashes").create()
    foreign, absent = name_of(caller, job.id), name_of(caller, "0" * 32)
    for call in ("get_operation", "cancel_operation", "delete_operation"):
        answers = []
        for name in (foreign, absent):
            with pytest.raises(exceptions.NotFound) as caught:
                getattr(client, call)(name)
            answers.append(str(caught.value))
        assert answers[0] == answers[1]
    assert client.get_operation(f"sessions/another/with/slashes/operations/{job.id}").metadata
    with pytest.raises(exceptions.PermissionDenied):
        client.get_operation(f"sessions/-/operations/{job.id}")


def test_a_filter_that_is_none_is_refused(client: OperationsClient, caller: Caller) -> None:
    with pytest.raises(exceptions.InvalidArgument, match="filter"):
        list(client.list_operations(f"sessions/{caller.session}", "name=x"))


@pytest.mark.parametrize("session_id", ["operations", "a/operations", "a/operations/b", "sessions/a"])
def test_a_session_may_be_called_like_a_part_of_a_name(
    app: RunningApp, client: OperationsClient, session_id: str
) -> None:
    caller, other = Caller(app, session_id), Caller(app, session_id.removesuffix("/operations") + "-other")
    job = caller.create()
    other.create()
    name = f"sessions/{session_id}/operations/{job.id}"
    assert client.get_operation(name).name == name
    assert [each.name for each in client.list_operations(f"sessions/{session_id}", "")] == [name]
    caller.clear(job.id)


def test_a_wait_is_answered_before_the_deadline_of_its_call(caller: Caller) -> None:
    """Also where the request itself says nothing of time."""
    job = caller.create()
    request = pb.WaitOperationRequest(name=name_of(caller, job.id))
    wait = caller.app.channel.unary_unary(
        "/google.longrunning.Operations/WaitOperation",
        request_serializer=pb.WaitOperationRequest.SerializeToString,
        response_deserializer=pb.Operation.FromString,
    )
    assert not wait(request, timeout=2).done
