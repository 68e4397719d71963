"""Under overload nothing is lost, nothing counts twice, and the server stays well."""

import asyncio
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any  # answers of any type
from urllib.request import urlopen

import grpc
import pytest
from google.protobuf import message
from grpc_channelz.v1 import channelz_pb2
from grpc_channelz.v1.channelz import ChannelzServicer
from grpc_health.v1 import health_pb2, health_pb2_grpc

from headway.v1 import job_pb2
from headway.v1 import job_service_pb2 as pb
from headway.v1.job_service_pb2_grpc import JobServiceStub
from headway_server.domain.errors import Overloaded
from headway_server.domain.job import Job
from headway_server.domain.limits import Limits
from headway_server.rpc import call_queue
from headway_server.rpc.call_queue import CallQueue
from headway_server.rpc.grpc_options import CONNECTION_CALLS, options
from headway_server.service import commit_writer
from headway_server.service.commit_queue import CommitQueue
from headway_server.service.commit_writer import COMMIT_WAIT_MAX, StreamOrder
from headway_server.service.job_service import Jobs, Name
from tests.conftest import ENGINES, empty_database
from tests.support.app import RunningApp
from tests.support.caller import TIMEOUT, Caller
from tests.support.http import Client
from tests.support.refusals import Refusal, from_error, outcome, refused_with
from tests.support.waiting import held_commits, until

REQUESTS = 400

PENDING = 4


@pytest.fixture(scope="module", params=ENGINES)
def narrow(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApp]:
    """A server that sheds as soon as a few calls wait."""
    database = empty_database(request.param, request, tmp_path_factory.mktemp("narrow"))
    with RunningApp(database, limits=Limits(pending_writes=PENDING)) as running:
        yield running


def _create_soon(pool: ThreadPoolExecutor, app: RunningApp, session: str) -> "Future[job_pb2.Job]":
    """A job that is being created."""
    return pool.submit(app.stub.CreateJob, pb.CreateJobRequest(session_id=session), timeout=TIMEOUT)


def _code(call: "Future[Any] | grpc.Future[Any]") -> grpc.StatusCode:
    """How a call ended."""
    error = call.exception(TIMEOUT)
    assert error is None or isinstance(error, grpc.Call)
    return grpc.StatusCode.OK if error is None else error.code()


class _Busy:
    """A gRPC server with our options whose event loop is busy until it is told to go on."""

    def __init__(self, port: int, server_id: int, go: threading.Event) -> None:
        self._port = port
        self._server = channelz_pb2.GetServerRequest(server_id=server_id)
        self.go_on = go.set

    @contextmanager
    def connection(self) -> Iterator[grpc.Channel]:
        """A channel with a connection of its own."""
        own = (("grpc.use_local_subchannel_pool", 1),)
        with grpc.insecure_channel(f"127.0.0.1:{self._port}", own) as channel:
            grpc.channel_ready_future(channel).result(TIMEOUT)
            yield channel

    def wait_for(self, calls: int) -> None:
        """Wait until so many calls have come, whatever became of them."""
        until(lambda: ChannelzServicer.GetServer(self._server, None).server.data.calls_started >= calls, 60)


def _server_ids() -> set[int]:
    """Of all gRPC servers of this process. gRPC numbers them when they are first asked for, in any order."""
    found = set[int]()
    while True:
        page = ChannelzServicer.GetServers(
            channelz_pb2.GetServersRequest(start_server_id=max(found, default=0) + 1), None
        )
        found |= {server.ref.server_id for server in page.server}
        if page.end:
            return found


@contextmanager
def _busy() -> Iterator[_Busy]:
    async def echo(request: bytes, context: object) -> bytes:
        return request

    class Handlers(grpc.GenericRpcHandler):
        def service(self, handler_call_details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[bytes, bytes]":
            return grpc.unary_unary_rpc_method_handler(echo)

    async def start() -> tuple[CallQueue, int]:
        server = CallQueue(options(Limits()), [Handlers()], lambda: False, lambda: False)
        port = server.bind("127.0.0.1:0")
        await server.start()
        return server, port

    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    others = _server_ids()
    server, port = asyncio.run_coroutine_threadsafe(start(), loop).result(TIMEOUT)
    (server_id,) = _server_ids() - others
    go = threading.Event()
    loop.call_soon_threadsafe(go.wait, TIMEOUT)
    try:
        yield _Busy(port, server_id, go)
    finally:
        go.set()
        asyncio.run_coroutine_threadsafe(server.stop(None), loop).result(TIMEOUT)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def test_a_stream_that_is_held_back_counts_everything_once(narrow: RunningApp, session: str) -> None:
    """A sender that sends more than can be committed waits; its stream goes on."""
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
    with held_commits(narrow) as wait_for:
        responses = narrow.stub.StreamProgress(iter(requests), timeout=30)
        wait_for(PENDING // 2 - 1)
    acked = 0
    for response in responses:
        assert not response.failures
        acked = response.acked
    final = narrow.stub.GetJob(pb.GetJobRequest(session_id=session, job_id=job.id))
    assert acked == final.progress == final.counters["done"] == REQUESTS


def test_what_builds_on_a_refused_call_is_refused(narrow: RunningApp, session: str) -> None:
    """Otherwise a stream whose second request is refused and third taken would send the second again in vain: its
    sequence would be an old one."""
    writer = narrow.app.writer
    order = StreamOrder()

    async def submit() -> None:
        await writer.submit((), order=order)

    with ThreadPoolExecutor(PENDING) as pool, held_commits(narrow) as wait_for:
        waiting = [_create_soon(pool, narrow, session) for _ in range(PENDING - 1)]
        wait_for(PENDING - 1)
        with pytest.raises(Overloaded):
            narrow.run(submit())
    assert all(call.result().revision for call in waiting)
    until(lambda: writer.load == 0)
    with pytest.raises(Overloaded):
        narrow.run(submit())


@pytest.mark.parametrize("transport", ["grpc", "http"])
def test_what_is_too_much_is_refused_and_told_when_to_return(tmp_path: Path, session: str, transport: str) -> None:
    """While the database takes nothing: what was accepted waits, the rest is refused at once, reads and the health are
    served; afterwards all is as before."""
    limits = Limits(pending_writes=PENDING)
    with RunningApp(f"sqlite:///{tmp_path / 'own.db'}", limits=limits, transport=transport) as app:
        caller = Caller(app, session)
        job = caller.create()
        with ThreadPoolExecutor(PENDING) as pool, held_commits(app) as wait_for:
            accepted = [_create_soon(pool, app, session) for _ in range(PENDING - 1)]
            wait_for(PENDING - 1)
            delays = set()
            for _ in range(10):
                refusal = refused_with("OVERLOADED", lambda: caller.report(job.id, advance=1))
                assert refusal.code == "RESOURCE_EXHAUSTED"
                assert refusal.retry_after is not None and refusal.retry_after >= 1
                delays.add(refusal.retry_after)
            assert len(delays) > 1, "all would return at the same moment"
            refused_with("OVERLOADED", lambda: caller.create())
            assert caller.get(job.id).progress == 0
            with grpc.insecure_channel(app.address) as channel:
                health = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT)
            assert health.status == health_pb2.HealthCheckResponse.SERVING
            with closing(Client(app.app.http_address)) as client:
                assert client.get("/healthz").status == 200
                answer = client.call("ReportProgress", {"sessionId": session, "jobId": job.id, "advance": "1"})
                assert answer.status == 429
                assert int(answer.headers["retry-after"]) >= 1
        assert all(call.result().revision for call in accepted)
        assert caller.report(job.id, advance=1).progress == 1


@pytest.mark.parametrize("transport", ["grpc", "http"])
def test_what_would_wait_too_long_is_refused(
    tmp_path: Path, session: str, transport: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the time that commits take, long before their number matters; what the next commit takes along is accepted,
    however long this one takes."""
    monkeypatch.setattr("headway_server.service.commit_writer.BATCH_WEIGHT_MAX", 3)
    with RunningApp(f"sqlite:///{tmp_path / 'own.db'}", transport=transport) as app:
        caller, writer = Caller(app, session), app.app.writer
        job = caller.create()
        with ThreadPoolExecutor(3) as pool, held_commits(app) as wait_for:
            accepted = [_create_soon(pool, app, session) for _ in range(2)]
            wait_for(2)
            assert writer.wait == 0
            accepted.append(_create_soon(pool, app, session))
            until(lambda: writer.wait > COMMIT_WAIT_MAX)
            refused_with("OVERLOADED", lambda: caller.report(job.id, advance=1))
            until(lambda: writer.wait > 2)
            refusal = refused_with("OVERLOADED", lambda: caller.report(job.id, advance=1))
            assert refusal.retry_after is not None and refusal.retry_after > 2, "it grows with what is ahead"
        assert all(call.result().revision for call in accepted)
        assert caller.report(job.id, advance=1).progress == 1


def test_jobs_that_are_cleared_and_created_anew_are_loaded_a_few_times(
    tmp_path: Path, session: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many wait: those that cannot share a commit go into the next, all of them."""
    count = 60
    with RunningApp(f"sqlite:///{tmp_path / 'own.db'}") as app:
        caller = Caller(app, session)
        jobs = [caller.create(job_id=f"{number:032x}").id for number in range(count)]
        put_back: list[object] = []
        put = CommitQueue.put_back

        def count_put_back(line: "CommitQueue[object]", calls: Iterable[object]) -> None:
            calls = [*calls]
            put_back.extend(calls)
            put(line, calls)

        monkeypatch.setattr(CommitQueue, "put_back", count_put_back)
        calls: list[grpc.Future[Any]] = []
        with held_commits(app) as wait_for:
            for job in jobs:
                clear = pb.ClearJobRequest(session_id=session, job_id=job)
                calls.append(app.stub.ClearJob.future(clear, timeout=TIMEOUT))
                wait_for(len(calls))
                create = pb.CreateJobRequest(session_id=session, job_id=job)
                calls.append(app.stub.CreateJob.future(create, timeout=TIMEOUT))
                wait_for(len(calls))
        assert {_code(call) for call in calls} == {grpc.StatusCode.OK}
    assert put_back
    assert len(put_back) <= count


def test_a_job_that_is_cleared_and_created_anew_again_and_again_holds_nobody_up(tmp_path: Path, session: str) -> None:
    """Each time takes a commit of its own; calls about other jobs are not left to the last of them."""
    count = 100
    with RunningApp(f"sqlite:///{tmp_path / 'own.db'}") as app:
        caller = Caller(app, session)
        again, other = caller.create(), caller.create()
        clear = pb.ClearJobRequest(session_id=session, job_id=again.id)
        create = pb.CreateJobRequest(session_id=session, job_id=again.id)
        report = pb.ReportProgressRequest(session_id=session, job_id=other.id, advance=1)
        calls: list[grpc.Future[Any]] = []
        ended: list[object] = []
        with held_commits(app) as wait_for:

            def call(method: "grpc.UnaryUnaryMultiCallable[Any, Any]", request: message.Message) -> None:
                future = method.future(request, timeout=TIMEOUT)
                future.add_done_callback(lambda _: ended.append(request))
                calls.append(future)
                wait_for(len(calls))

            for _ in range(count):
                call(app.stub.ClearJob, clear)
                call(app.stub.CreateJob, create)
            call(app.stub.ReportProgress, report)
        assert {_code(call) for call in calls} == {grpc.StatusCode.OK}
        until(lambda: len(ended) == len(calls))
        # Before it the first commit's, and what else was answered while this process was busy.
        assert ended.index(report) < count
        assert caller.get(again.id).revision == 1


def test_a_commit_ends_by_the_rows_that_it_stores(
    narrow: RunningApp, session: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not by the number of calls alone: some store hundreds of rows each."""
    monkeypatch.setattr("headway_server.service.commit_writer.BATCH_WEIGHT_MAX", 10)
    caller = Caller(narrow, session)
    jobs = [caller.create().id for _ in range(PENDING - 1)]
    errors = [job_pb2.RecordError(record="r")] * 100
    with ThreadPoolExecutor(PENDING) as pool, held_commits(narrow) as wait_for:
        reported = [pool.submit(caller.report, job, record_errors=errors) for job in jobs]
        wait_for(len(jobs))
        assert narrow.app.writer.wait > 0
    wait([*reported])
    assert len({caller.get(job).last_contact_time.ToNanoseconds() for job in jobs}) == len(jobs)
    assert {caller.errors(job).total for job in jobs} == {100}


@pytest.mark.parametrize("transport", ["grpc", "http"])
def test_calls_whose_deadline_is_over_are_not_worked_on(tmp_path: Path, session: str, transport: str) -> None:
    with RunningApp(f"sqlite:///{tmp_path / 'own.db'}", transport=transport) as app:
        caller = Caller(app, session)
        job = caller.create()
        request = pb.ReportProgressRequest(session_id=session, job_id=job.id, advance=1)
        with ThreadPoolExecutor(20) as pool, held_commits(app):
            calls = [pool.submit(app.stub.ReportProgress, request, timeout=0.2) for _ in range(20)]
            assert {_code(call) for call in calls} == {grpc.StatusCode.DEADLINE_EXCEEDED}
        until(lambda: app.app.writer.load == 0)
        assert caller.get(job.id) == job


@contextmanager
def _slow_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunningApp]:
    """A server that takes one call in a cycle of its event loop, and computes 50 ms for each GetJob."""
    get = Jobs.get

    async def slow_get(jobs: Jobs, name: Name, *arguments: Any) -> Job:
        time.sleep(0.05)  # noqa: ASYNC251  # stands for what computes in the event loop
        return await get(jobs, name, *arguments)

    with RunningApp(f"sqlite:///{tmp_path / 'own.db'}") as app, monkeypatch.context() as patch:
        patch.setattr(call_queue, "CALLS_A_CYCLE", 1)
        patch.setattr(Jobs, "get", slow_get)
        yield app


def _read_beside(app: RunningApp, session: str, number: int) -> "list[grpc.Future[Any]]":
    """So many reads on one connection at once, a last one behind them, and their ends. Those of another connection,
    made meanwhile, succeed."""
    request = pb.GetJobRequest(session_id=session, job_id=Caller(app, session).create().id)
    own = (("grpc.use_local_subchannel_pool", 1),)
    with grpc.insecure_channel(app.address, own) as channel:
        grpc.channel_ready_future(channel).result(TIMEOUT)
        calls: list[grpc.Future[Any]] = []
        calls += [app.stub.GetJob.future(request, timeout=TIMEOUT) for _ in range(number)]
        until(lambda: any(call.done() for call in calls))
        calls.append(app.stub.GetJob.future(request, timeout=TIMEOUT))
        for _ in range(5):
            JobServiceStub(channel).GetJob(request, timeout=TIMEOUT)
            health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT)
    assert {_code(call) for call in calls} <= {grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED}
    return calls


def _refusals(calls: "Iterable[grpc.Future[Any]]") -> list[Refusal]:
    return [from_error(error) for call in calls if isinstance(error := call.exception(), grpc.RpcError)]


def test_calls_that_wait_too_long_are_refused(tmp_path: Path, session: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the connection that sent them. What came last is served first: the others' callers may have gone."""
    monkeypatch.setattr(call_queue, "CALL_WAIT_MAX", 0.6)
    with _slow_reads(tmp_path, monkeypatch) as app:
        calls = _read_beside(app, session, 40)
        refusals = _refusals(calls)
        assert {refusal.reason for refusal in refusals} == {"OVERLOADED"}
        delays = {refusal.retry_after for refusal in refusals}
        assert len(delays) > 1, "all would return at the same moment"
        assert all(delay is not None and delay >= 1 for delay in delays)
        assert _code(calls[-1]) == grpc.StatusCode.OK
        assert app.app.call_queue.refused == len(refusals)
        assert app.app.call_queue.wait == 0
        metrics = urlopen(f"http://{app.app.http_address}/metrics").read().decode()
        assert f"headway_calls_refused_total {len(refusals):.1f}" in metrics


def test_calls_are_refused_when_too_many_wait(tmp_path: Path, session: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the connections that have the most."""
    monkeypatch.setattr(call_queue, "WAITING_MAX", 10)
    monkeypatch.setattr(call_queue, "CALL_WAIT_MAX", 60.0)
    with _slow_reads(tmp_path, monkeypatch) as app:
        refusals = _refusals(_read_beside(app, session, 40))
        assert {refusal.reason for refusal in refusals} == {"OVERLOADED"}


def test_what_cannot_be_refused_any_more_is_left_to_grpc(
    tmp_path: Path, session: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And served in the end, if there is room in gRPC."""
    for name, value in (("WAITING_MAX", 10), ("REQUESTED_CALLS", 2), ("REFUSALS_A_SECOND", 0), ("QUIET_PERIOD", 0.0)):
        monkeypatch.setattr(call_queue, name, value)
    with _slow_reads(tmp_path, monkeypatch) as app:
        calls = _read_beside(app, session, 40)
        assert not _refusals(calls)


def test_one_connection_cannot_crowd_out_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many calls it opens, others' have room; what several connections send too much is closed at once."""
    # However slow the machine is.
    monkeypatch.setattr(call_queue, "CALL_WAIT_MAX", TIMEOUT)
    with ExitStack() as stack:
        server = stack.enter_context(_busy())
        calls: list[list[grpc.Future[bytes]]] = []
        for sent in (CONNECTION_CALLS, 100, CONNECTION_CALLS):
            if calls:
                server.wait_for(sum(map(len, calls)))
            channel = stack.enter_context(server.connection())
            method: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary("/some/Method")
            calls.append([method.future(b"", timeout=TIMEOUT) for _ in range(sent)])
        noisy, quiet, surplus = calls
        until(lambda: any(call.done() for call in surplus), 60)
        server.go_on()
        assert {_code(call) for call in noisy + quiet} == {grpc.StatusCode.OK}
        ended = Counter(map(_code, surplus))
        assert ended[grpc.StatusCode.CANCELLED]
        assert ended[grpc.StatusCode.OK]


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
    monkeypatch.setattr(commit_writer, "PENDING_BYTES_MAX", 5 * request.ByteSize())
    call = getattr(caller.app.stub, method)
    with held_commits(caller.app):
        calls = [call.future(request, timeout=TIMEOUT) for _ in range(12)]
        until(lambda: sum(one.done() for one in calls) == 7)
        shed = [one for one in calls if one.done()]
    assert {outcome(one.result) for one in shed} == {"OVERLOADED"}
    # Most of the others have failed for what the first of them did.
    until(lambda: all(one.done() for one in calls))
