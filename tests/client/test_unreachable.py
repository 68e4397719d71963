"""The server is absent, dies, hangs or talks rubbish, and the work goes on."""

import logging
import socket
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import grpc
import pytest
from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2

import headway
from headway.v1 import job_pb2
from headway.v1 import job_service_pb2 as rpc
from headway.values import to_value
from tests.client.fakes import FakeServer, Proxy, acknowledge
from tests.support.server import ServerProcess

RUBBISH = Any(type_url="type.googleapis.com/google.rpc.ErrorInfo", value=b"\xff")

Request = TypeVar("Request")
Response = TypeVar("Response")


@pytest.fixture
def nobody() -> Iterator[str]:
    """An address where connections are refused."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{held.getsockname()[1]}"


@pytest.fixture
def hanging() -> Iterator[str]:
    """An address that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


def test_no_server_costs_only_a_warning(nobody: str, caplog: pytest.LogCaptureFixture) -> None:
    began = time.monotonic()
    with pytest.raises(KeyError), headway.connect(nobody, session="s", exit_timeout=0.3) as hw:
        with hw.job(size=3) as first:
            assert time.monotonic() - began < 0.25
            for _ in first.track(range(3)):
                first.count("added")
        with hw.job() as job:
            job.set({"a": 1})
            job.record_error("x")
            raise KeyError("mine")
    assert time.monotonic() - began < 1.5
    texts = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert sum("does not answer" in text for text in texts) == 1
    assert sum("not delivered" in text for text in texts) == 2
    assert all("\n" not in text for text in texts)


def test_a_silent_server_costs_a_bounded_time(hanging: str) -> None:
    began = time.monotonic()
    with headway.connect(hanging, session="s", exit_timeout=0.5) as hw, hw.job() as job:
        job.advance()
    assert time.monotonic() - began < 3


def test_reads_say_that_nobody_is_there(nobody: str) -> None:
    with headway.connect(nobody, session="s") as hw, pytest.raises(headway.UnavailableError) as caught:
        hw.get(None, "0" * 32)
    assert caught.value.code == grpc.StatusCode.UNAVAILABLE
    assert caught.value.reason == ""


def test_a_job_made_while_the_server_is_unreachable_takes_its_place(
    own_server: ServerProcess, session: str, caplog: pytest.LogCaptureFixture
) -> None:
    own_server.kill()
    with headway.connect(own_server.address, session=session) as hw:
        with hw.job(name="early", size=1000) as job:
            for number in job.track(range(1000)):
                job.count("added")
                if number % 100 == 0:
                    job.record_error(number)
            job.set({"k": "v"})
            job.results = {"n": 1000}
        assert job.status is headway.Status.RUNNING
        own_server.start()
        assert job.flush()
        seen = hw.get(None, job.id)
        assert (seen.name, seen.status, seen.progress) == ("early", job_pb2.JOB_STATUS_COMPLETED, 1000)
        assert (seen.counters["added"], seen.error_count) == (1000, 10)
        assert hw.results(None, job.id) == {"n": 1000}
        assert hw.variables(None, job.id) == {"k": "v"}
    assert len([r for r in caplog.records if r.levelno >= logging.WARNING]) == 1


def test_the_server_dies_in_the_middle_and_comes_back(own_server: ServerProcess, session: str) -> None:
    with headway.connect(own_server.address, session=session) as hw:
        with hw.job(size=300) as job:
            for number in job.track(range(300)):
                job.count("seen")
                if number in (100, 200):
                    assert job.flush()
                    own_server.kill()
                    own_server.start()
        # On a slow machine the client has given up to wait for the server, and tries it again in the background.
        assert job.flush(30)
        seen = hw.get(None, job.id)
        assert (seen.status, seen.progress, seen.counters["seen"]) == (
            job_pb2.JOB_STATUS_COMPLETED,
            300,
            300,
        )


def test_the_server_is_unreachable_at_the_end_and_comes_back(own_server: ServerProcess, session: str) -> None:
    back = threading.Timer(1.0, own_server.start)
    with headway.connect(own_server.address, session=session) as hw, hw.job() as job:
        job.advance(5)
        own_server.kill()
        back.start()
    back.join()
    with headway.connect(own_server.address, session=session) as hw:
        seen = hw.get(None, job.id)
        assert (seen.status, seen.progress) == (job_pb2.JOB_STATUS_COMPLETED, 5)


def test_a_watch_follows_a_restart(own_server: ServerProcess, session: str) -> None:
    with headway.connect(own_server.address, session=session) as hw:
        job = hw.job()
        revisions = []
        for state in hw.watch(None, job.id, timeout=20):
            revisions.append(state.revision)
            if len(revisions) == 1:
                own_server.kill()
                own_server.start()
                job.advance(3)
                job.finish()
        assert state.status == job_pb2.JOB_STATUS_COMPLETED
        assert revisions == sorted(set(revisions))


def test_a_wait_and_the_watch_of_a_session_follow_a_restart(own_server: ServerProcess, session: str) -> None:
    broken = list[headway.HeadwayError]()
    with headway.connect(own_server.address, session=session) as hw:
        job = hw.job()
        changes = hw.watch_session(on_broken=broken.append)
        assert next(changes).job.id == job.id
        with ThreadPoolExecutor(1) as threads:
            waiting = threads.submit(job.wait, 20)
            own_server.kill()
            own_server.start()
            job.advance(3)
            job.finish()
            revisions = []
            for change in changes:
                revisions.append(change.job.revision)
                if change.job.status == job_pb2.JOB_STATUS_COMPLETED:
                    break
            final = waiting.result(20)
    assert (final.status, final.progress) == (job_pb2.JOB_STATUS_COMPLETED, 3)
    assert revisions == sorted(set(revisions))
    assert {error.code for error in broken} == {grpc.StatusCode.UNAVAILABLE}


def test_what_a_broken_watch_raises_ends_it(own_server: ServerProcess, session: str) -> None:
    def give_up(error: headway.HeadwayError) -> None:
        raise error

    with headway.connect(own_server.address, session=session) as hw:
        states = hw.watch(None, hw.job().id, on_broken=give_up)
        next(states)
        own_server.kill()
        with pytest.raises(headway.UnavailableError):
            next(states)


@pytest.mark.parametrize("call", ["get", "resume", "cancel"])
def test_who_asks_a_silent_server_is_answered_in_time(hanging: str, call: str) -> None:
    began = time.monotonic()
    patient = headway.connect(hanging, session="s", exit_timeout=0.0, call_timeout=0.3)
    with patient as hw, pytest.raises(headway.HeadwayError) as caught:
        getattr(hw, call)(None, "0190b5a1c8d07b2a9c3e5f60718293a4")
    assert caught.value.code in (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE)
    assert time.monotonic() - began < 3


def test_a_server_that_hangs_in_the_middle(fake: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headway._engine.dispatcher.ANSWER_TIMEOUT", 0.3)
    release = threading.Event()

    def hang_once(request: rpc.StreamProgressRequest, position: int) -> rpc.StreamProgressResponse:
        if not release.is_set() and any(report.progress for report in request.reports):
            release.wait(5)
        return acknowledge(request, position)

    fake.service.answer = hang_once
    with headway.connect(fake.address, session="s") as hw, hw.job() as job:
        job.advance(5)
        first = next(r for r in iter(fake.service.reports, None) if r[0].progress)[0]
        again = next(r for r in iter(fake.service.reports, None) if r[0].progress)[0]
        assert again == first
        release.set()
        assert job.flush()


@pytest.mark.parametrize("code", [grpc.StatusCode.UNKNOWN, grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.NOT_FOUND])
def test_what_no_headway_server_says_ends_nothing(
    fake: FakeServer, caplog: pytest.LogCaptureFixture, code: grpc.StatusCode
) -> None:
    rubbish = iter([code, code, code])

    def refuse(context: grpc.ServicerContext) -> None:
        for wrong in rubbish:
            context.abort(wrong, "what?\nwhat?\x1b[31m")

    fake.service.on_create = refuse
    with headway.connect(fake.address, session="s") as hw, hw.job() as job:
        job.advance()
    assert fake.service.finished.qsize() == 1
    assert fake.service.created.qsize() == 4
    (warning,) = caplog.messages
    assert f"{fake.address} does not answer (what? what? [31m); the work goes on" in warning


def test_a_connection_that_is_spoilt_is_replaced(fake: FakeServer) -> None:
    first: list[str] = []

    def refuse(context: grpc.ServicerContext) -> None:
        first.append(context.peer())
        if context.peer() == first[0]:
            context.abort(grpc.StatusCode.UNIMPLEMENTED, "what?")

    fake.service.on_create = refuse
    with headway.connect(fake.address, session="s") as hw, hw.job() as job:
        job.advance()
        assert job.flush(5)
    assert len(set(first)) == 2


def test_a_connection_that_fell_silent_is_replaced(proxy: Proxy, session: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headway._engine.dispatcher.ANSWER_TIMEOUT", 0.3)
    with headway.connect(proxy.address, session=session) as hw, hw.job() as job:
        assert job.flush()
        proxy.swallow()
        job.advance()
        assert job.flush(5)


@pytest.mark.parametrize("answers", [[], [job_pb2.Job(id="0" * 32, attempt=7).SerializeToString()]])
def test_an_answer_that_is_none(caplog: pytest.LogCaptureFixture, answers: list[bytes]) -> None:
    """One without a message, which gRPC takes for an answer all the same, and one to something else."""
    strange = iter(["/headway.v1.JobService/CreateJob", "/headway.v1.JobService/FinishJob"])
    next_one = next(strange)

    class Strange(grpc.ServerInterceptor):
        def intercept_service(
            self,
            continuation: Callable[[grpc.HandlerCallDetails], "grpc.RpcMethodHandler[Request, Response] | None"],
            handler_call_details: grpc.HandlerCallDetails,
        ) -> "grpc.RpcMethodHandler[Request, Response] | None":
            nonlocal next_one
            if handler_call_details.method != next_one:
                return continuation(handler_call_details)
            next_one = next(strange, "")
            return grpc.unary_stream_rpc_method_handler(lambda request, context: iter(answers))

    with FakeServer(Strange()) as fake:
        with headway.connect(fake.address, session="s") as hw, hw.job() as job:
            job.results = {"n": 1}
        assert [request.results for request in fake.service.finished.queue] == [to_value({"n": 1})]
        assert job.status is headway.Status.COMPLETED
    assert not caplog.records


@pytest.mark.parametrize(
    "details",
    [b"\xff", status_pb2.Status(code=5, message="what?", details=[RUBBISH]).SerializeToString()],
    ids=["none of it", "one of them"],
)
def test_details_that_cannot_be_read(details: bytes) -> None:
    """A middlebox, or a bad line, has made something of them."""
    spoilt = {"/headway.v1.JobService/StreamProgress", "/headway.v1.JobService/GetJob"}

    def refuse(_: object, context: grpc.ServicerContext) -> Iterator[bytes]:
        context.set_trailing_metadata((("grpc-status-details-bin", details),))
        context.abort(grpc.StatusCode.NOT_FOUND, "what?")

    class Spoiling(grpc.ServerInterceptor):
        def intercept_service(
            self,
            continuation: Callable[[grpc.HandlerCallDetails], "grpc.RpcMethodHandler[Request, Response] | None"],
            handler_call_details: grpc.HandlerCallDetails,
        ) -> "grpc.RpcMethodHandler[Request, Response] | None":
            if handler_call_details.method not in spoilt:
                return continuation(handler_call_details)
            spoilt.remove(handler_call_details.method)
            return grpc.stream_stream_rpc_method_handler(refuse)

    with FakeServer(Spoiling()) as fake, headway.connect(fake.address, session="s") as hw, hw.job() as job:
        job.advance()
        assert job.flush(5)
        with pytest.raises(headway.NotFoundError, match="what"):
            hw.get(None, job.id)


def test_a_pause_beyond_all_bounds(fake: FakeServer, caplog: pytest.LogCaptureFixture) -> None:
    refusal = status_pb2.Status(code=grpc.StatusCode.INTERNAL.value[0])
    refusal.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=Duration(seconds=-(2**62))))
    calls, reports = iter([True]), iter([True])

    def refuse(context: grpc.ServicerContext) -> None:
        if next(calls, False):
            context.set_trailing_metadata((("grpc-status-details-bin", refusal.SerializeToString()),))
            context.abort(grpc.StatusCode.INTERNAL, "")

    def answer(request: rpc.StreamProgressRequest, position: int) -> rpc.StreamProgressResponse:
        response = acknowledge(request, position)
        if next(reports, False):
            response.failures.add(request=position - 1, status=refusal)
        return response

    fake.service.on_finish, fake.service.answer = refuse, answer
    with headway.connect(fake.address, session="s", exit_timeout=5) as hw, hw.job() as job:
        job.advance()
        assert job.flush()
    assert fake.service.finished.qsize() == 2
    assert not any(record.exc_info for record in caplog.records)


def test_acknowledgements_that_make_no_sense(fake: FakeServer) -> None:
    def lying(request: rpc.StreamProgressRequest, position: int) -> rpc.StreamProgressResponse:
        response = rpc.StreamProgressResponse(acked=position + 1000)
        response.failures.add(request=77, report=-1)
        response.failures.add(request=position - 1, report=999_999)
        response.cancellations.add(job_id="nobody")
        response.next_report_after.seconds = -(10**9)
        return response

    fake.service.answer = lying
    with headway.connect(fake.address, session="s") as hw, hw.job() as job:
        job.advance()
        assert job.flush()
    assert fake.service.finished.qsize() == 1


def test_a_million_updates_without_a_server_take_no_memory_and_are_exact_later(
    own_server: ServerProcess, session: str
) -> None:
    own_server.kill()
    with headway.connect(own_server.address, session=session) as hw:
        with hw.job() as job:
            # What is allocated once, by gRPC's first failures for example, is not what this is about.
            for number in range(10_000):
                job.advance()
                job.count("seen")
                job.message = f"at {number}"
            tracemalloc.start()
            before, _ = tracemalloc.get_traced_memory()
            for _ in range(980_000):
                job.advance()
            for number in range(10_000):
                job.advance()
                job.count("seen")
                job.message = f"at {number}"
            after, _ = tracemalloc.get_traced_memory()
            tracemalloc.stop()
        assert after - before < 256 * 1024
        own_server.start()
        assert job.flush()
        seen = hw.get(None, job.id)
        assert (seen.status, seen.progress) == (job_pb2.JOB_STATUS_COMPLETED, 1_000_000)
        assert (seen.counters["seen"], seen.message) == (20_000, "at 9999")
