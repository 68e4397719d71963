"""What callers make the server hold who do not read, do not send, or open more than they use: bounded, and ended.

Beside each there is an honest caller on a connection of their own, who is served all the while.
"""

import json
import logging
import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Self

import grpc
import pytest
from grpc_health.v1 import health_pb2
from hyperframe.frame import RstStreamFrame, SettingsFrame

from headway.v1 import job_service_pb2 as pb
from headway.v1.job_service_pb2_grpc import JobServiceStub
from headway_server.domain.limits import Limits
from headway_server.http import http_server
from headway_server.rpc import open_calls, progress_stream
from tests.support.app import RunningApp
from tests.support.caller import Caller, seconds, value
from tests.support.http import PREFIX, Client, enveloped
from tests.support.http2 import Answer, Connection, call_headers, connect, is_closed, prefixed
from tests.support.memory import resident
from tests.support.refusals import outcome
from tests.support.server import ServerProcess
from tests.support.waiting import until, watchers_gone

MIB = 1024 * 1024

SOON = 0.2
"""Seconds to which a timeout of the server is shortened."""

IN_TIME = 60.0
"""Seconds in which something happens on any machine."""

SERVICE = "/headway.v1.JobService/"
HEALTH = "/grpc.health.v1.Health/Watch"
REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"

LARGE = "x" * 1_000_000

HONEST = "honest"
"""The session of the honest caller."""


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., RunningApp]]:
    """Starts a server with limits of its own."""
    with ExitStack() as running:

        def start(**limits: int) -> RunningApp:
            return running.enter_context(RunningApp(f"sqlite:///{tmp_path / 'headway.db'}", limits=Limits(**limits)))

        yield start


@pytest.fixture(autouse=True)
def no_faults(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """The server logs no error, whatever its callers do."""
    yield
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []


@contextmanager
def connections(address: str, number: int, *, window: int = 65_535) -> Iterator[list[Connection]]:
    """HTTP/2 connections that take so many bytes of each answer."""
    with ExitStack() as stack:
        opened = [stack.enter_context(Connection(address)) for _ in range(number)]
        for connection in opened:
            connection.send(SettingsFrame(0, settings={SettingsFrame.INITIAL_WINDOW_SIZE: window}))
        yield opened


def begin(connection: Connection, path: str, message: bytes | None = None) -> int:
    """Open a call, and send its message if there is one; its stream."""
    stream = connection.open(call_headers(path))
    if message is not None:
        connection.write(stream, prefixed(message))
    return stream


def begin_watch(connection: Connection, session: str, job_id: str) -> int:
    request = pb.WatchJobRequest(session_id=session, job_id=job_id)
    return begin(connection, f"{SERVICE}WatchJob", request.SerializeToString())


def pass_time(app: RunningApp, seconds: float) -> None:
    """Let the server end the gRPC calls that are late in so many seconds."""
    app.run(app.app.calls.sweep(time.monotonic() + seconds + open_calls.LATE_CALLS_INTERVAL))


def reasons(answers: Iterable[Answer]) -> Counter[str]:
    """How many ended for which reason; those without one are counted by the number of their status."""
    return Counter(answer.reason or str(answer.status) for answer in answers)


class Peak:
    """How many bytes this process, and so the server in it, grew by within `with`."""

    def __enter__(self) -> Self:
        self._start = self._most = resident(os.getpid())
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()
        return self

    def _look(self) -> None:
        while not self._stop.wait(0.01):
            self._most = max(self._most, resident(os.getpid()))

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def growth(self) -> int:
        """At most."""
        return self._most - self._start

    @property
    def left(self) -> int:
        """Now."""
        return resident(os.getpid()) - self._start


def job_with_large_results(caller: Caller, results: str = LARGE) -> str:
    job_id = caller.create().id
    caller.finish(job_id, value(results))
    # The first of them loads what every later one uses.
    assert caller.results(job_id).results.string_value == results
    return job_id


# Answers that nobody takes.


def test_answers_that_nobody_takes(start: Callable[..., RunningApp], monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 600 of a megabyte each some are held, for a time; the rest is refused."""
    app = start()
    honest = Caller(app, HONEST)
    job_id = job_with_large_results(honest)
    request = pb.GetResultsRequest(session_id=HONEST, job_id=job_id).SerializeToString()
    with connections(app.address, 1, window=0) as (greedy,), Peak() as peak:
        streams = [begin(greedy, f"{SERVICE}GetResults", request) for _ in range(600)]
        # Seven are an eighth of what is free beside them.
        refused = greedy.answers(streams, IN_TIME, enough=593).values()
        ended = reasons(answer for answer in refused if answer.status is not None)
        assert "MEMORY_LIMIT" in ended
        assert ended.keys() <= {"MEMORY_LIMIT", "OVERLOADED"}
        for _ in range(10):
            assert honest.results(job_id).results.string_value == LARGE
        assert peak.growth < 100 * MIB
        pass_time(app, open_calls.WRITE_TIMEOUT)
        held = [stream for stream, answer in zip(streams, refused, strict=True) if answer.status is None]
        ended = reasons(greedy.answers(held, IN_TIME).values())
        assert ended["1"] >= 5
        assert ended.keys() <= {"1", "MEMORY_LIMIT"}
        until(lambda: peak.left < 60 * MIB)
        # The connection is as good as before.
        greedy.send(SettingsFrame(0, settings={SettingsFrame.INITIAL_WINDOW_SIZE: 65_535}))
        get = pb.GetJobRequest(session_id=HONEST, job_id=job_id).SerializeToString()
        assert greedy.call(call_headers(f"{SERVICE}GetJob"), prefixed(get)).status == 0


def test_watches_that_nobody_reads_end(start: Callable[..., RunningApp]) -> None:
    """Long before their life is over: others could have their places."""
    app = start()
    job_id = Caller(app, HONEST).create().id
    with connections(app.address, 1, window=0) as (greedy,):
        streams = [begin_watch(greedy, HONEST, job_id) for _ in range(50)]
        until(lambda: app.app.hub.watches == 50)
        pass_time(app, open_calls.WRITE_TIMEOUT)
        until(lambda: watchers_gone(app))
        # gRPC lets go of the last call that came only when another comes.
        assert Caller(app, HONEST).get(job_id).id == job_id
        assert reasons(greedy.answers(streams, IN_TIME).values()) == {"1": 50}


def test_the_end_does_not_wait_for_who_does_not_read(own_server: ServerProcess) -> None:
    """Watches of jobs and of the health, over gRPC and HTTP, with nobody who takes their answers."""
    channel = grpc.insecure_channel(own_server.address)
    stub = JobServiceStub(channel)
    job_id = stub.CreateJob(pb.CreateJobRequest(session_id=HONEST)).id
    health = health_pb2.HealthCheckRequest().SerializeToString()
    with connections(own_server.address, 1, window=0) as (greedy,), ExitStack() as stack:
        for _ in range(50):
            begin_watch(greedy, HONEST, job_id)
            begin(greedy, HEALTH, health)
        fill_session(stub, "full")
        for _ in range(5):
            stack.enter_context(unread_http_watch(own_server.http_address, "full"))
        client = Client(own_server.http_address)
        until(lambda: b"headway_watches 55.0" in client.get("/metrics").body, IN_TIME)
        client.close()
        began = time.monotonic()
        assert own_server.stop() == 0
        # Without those it is half a second, and ten if they are waited for.
        assert time.monotonic() - began < 5
    channel.close()


# More than a fair share.


def test_no_crowd_takes_all_watches(start: Callable[..., RunningApp]) -> None:
    """Twenty connections with sessions that they made up, each with as many watches as it gets."""
    app = start(watches=400)
    honest = Caller(app, HONEST)
    job_id = honest.create().id
    with connections(app.address, 20) as crowd:
        for number, connection in enumerate(crowd):
            request = pb.WatchJobsRequest(session_id=f"made up {number}").SerializeToString()
            for _ in range(100):
                begin(connection, f"{SERVICE}WatchJobs", request)
            # By the time that this is refused, the server has seen those before it.
            assert connection.call(call_headers(f"{SERVICE}GetJob"), prefixed(b"")).status == 3
        assert 200 < app.app.hub.watches < 400
        client = Client(app.app.http_address)
        answer = client.stream("WatchJob", {"sessionId": HONEST, "jobId": job_id}, connect_timeout_ms="1000")
        client.close()
        assert len(answer.messages[0]) == 1
        assert next(honest.watch(job_id)).job.id == job_id


def test_calls_whose_message_never_comes(start: Callable[..., RunningApp]) -> None:
    """2,000 on one connection: an eighth of what is free stays open, and is ended after a time."""
    app = start(open_calls=800)
    honest = Caller(app, HONEST)
    with connections(app.address, 1) as (greedy,):
        streams = [begin(greedy, f"{SERVICE}GetJob") for _ in range(2000)]
        answers = greedy.answers(streams, IN_TIME, enough=1911)
        open_ones = [stream for stream, answer in answers.items() if answer.status is None and answer.reset is None]
        # gRPC resets those beyond the calls of a connection.
        refused = reasons(answers[stream] for stream in streams if answers[stream].status is not None)
        assert refused.keys() <= {"MEMORY_LIMIT", "OVERLOADED", "1"}
        assert refused["MEMORY_LIMIT"] >= 1
        assert honest.create().id
        pass_time(app, open_calls.MESSAGE_TIMEOUT)
        ended = reasons(greedy.answers(open_ones, IN_TIME).values())
        assert ended.keys() <= {"REQUEST_TOO_SLOW", "MEMORY_LIMIT"}
        assert ended["REQUEST_TOO_SLOW"] >= 1
        # There is room again.
        more = [begin(greedy, f"{SERVICE}GetJob") for _ in range(50)]
        for stream in more:
            greedy.send(RstStreamFrame(stream, 8))
        assert greedy.call(call_headers(f"{SERVICE}GetJob"), prefixed(b"")).status == 3


def test_messages_that_come_slowly(start: Callable[..., RunningApp]) -> None:
    """Of 100 that have begun, a connection keeps an eighth of what all may have."""
    app = start()
    part = prefixed(b"x" * 500, length=MIB)
    with connections(app.address, 1) as (greedy,):
        streams = [begin(greedy, f"{SERVICE}FinishJob") for _ in range(100)]
        for stream in streams:
            greedy.write(stream, part, end=False)
        assert Caller(app, HONEST).create().id
        until(lambda: len(app.app.calls) == 100)
        pass_time(app, open_calls.SLOW_MESSAGE_AFTER)
        assert reasons(greedy.answers(streams, IN_TIME, enough=93).values()) == {"MEMORY_LIMIT": 93, "None": 7}
        pass_time(app, open_calls.MESSAGE_TIMEOUT)
        until(lambda: len(app.app.calls) == 0)


@pytest.mark.parametrize(
    ("path", "message"), [(REFLECTION, None), (HEALTH, health_pb2.HealthCheckRequest().SerializeToString())]
)
def test_streams_of_grpcs_own_services(start: Callable[..., RunningApp], path: str, message: bytes | None) -> None:
    """Each connection has some, and none lives for ever."""
    app = start()
    with connections(app.address, 2) as (greedy, other):
        streams = [begin(greedy, path, message) for _ in range(500)]
        answers = greedy.answers(streams, IN_TIME, enough=389)
        open_ones = [stream for stream, answer in answers.items() if answer.status is None]
        assert reasons(answers[stream] for stream in streams if stream not in open_ones) == {"MEMORY_LIMIT": 389}
        assert Caller(app, HONEST).create().id
        stream = begin(other, HEALTH, health_pb2.HealthCheckRequest().SerializeToString())
        assert not other.answers([stream], SOON)[stream].reason
        pass_time(app, open_calls.AUXILIARY_LIFE)
        assert reasons(greedy.answers(open_ones, IN_TIME).values()) == {"STREAM_EXPIRED": len(open_ones)}


def test_a_stream_that_reports_nothing_ends(start: Callable[..., RunningApp], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress_stream, "IDLE_TIMEOUT", SOON)
    app = start()
    with connections(app.address, 1) as (idle,):
        stream = begin(idle, f"{SERVICE}StreamProgress")
        answer = idle.answers([stream], IN_TIME)[stream]
        assert (answer.status, answer.reason) == (14, "STREAM_EXPIRED")


def test_a_watch_holds_nothing_of_its_request(start: Callable[..., RunningApp]) -> None:
    """Whatever a request carries besides what was asked for."""
    app = start()
    caller = Caller(app, HONEST)
    job_id = caller.create().id
    unknown = b"\xfa\x01" + b"\x80\x80\x80\x01" + bytes(2 * MIB)
    names = {
        "WatchJob": pb.WatchJobRequest(session_id=HONEST, job_id=job_id),
        "WatchJobs": pb.WatchJobsRequest(session_id=HONEST),
        "GetJob": pb.GetJobRequest(session_id=HONEST, job_id=job_id, after_revision=1, wait=seconds(60)),
    }
    started: list[str] = []
    with ExitStack() as stack, Peak() as peak:
        for name, request in names.items():
            for _ in range(30):
                connection = stack.enter_context(Connection(app.address))
                connection.write_in_turn(
                    begin(connection, SERVICE + name), prefixed(request.SerializeToString() + unknown)
                )
                started.append(name)
                until(lambda: app.app.hub.watches == len(started), IN_TIME)
        until(lambda: peak.left < 60 * MIB)


# Connections.


def test_connections_beyond_the_limit_of_grpc(start: Callable[..., RunningApp]) -> None:
    app = start(grpc_connections=5)
    with connections(app.address, 5), connect(app.address) as one_more:
        assert is_closed(one_more, within=IN_TIME)
    until(lambda: outcome(Caller(app, HONEST).create) == "OK", IN_TIME)


def test_connections_beyond_the_limit_of_http(start: Callable[..., RunningApp]) -> None:
    """They may ask for the health, and hear of the limit if they ask for more; those beyond hear it at once."""
    app = start(http_connections=10)
    address = app.app.http_address
    with ExitStack() as stack:
        for _ in range(10):
            client = Client(address)
            assert client.get("/healthz").status == 200
            stack.callback(client.close)
        for path, status in {"/healthz": 200, "/readyz": 200, "/metrics": 503}.items():
            client = Client(address)
            answer = client.get(path)
            client.close()
            assert answer.status == status
        assert answer.refusal.reason == "CONNECTIONS_LIMIT"
        assert 5 <= int(answer.headers["retry-after"]) <= 8
        for _ in range(http_server.RESERVED_CONNECTIONS):
            stack.enter_context(connect(address))
        with connect(address) as beyond:
            said = b"".join(iter(lambda: beyond.recv(65_536), b""))
            assert said.startswith(b"HTTP/1.1 503 ")
            assert b"CONNECTIONS_LIMIT" in said


def test_http_connections_that_never_read(start: Callable[..., RunningApp], monkeypatch: pytest.MonkeyPatch) -> None:
    """300, each with a large answer: what is held is bounded in all, the rest is refused, and others are served."""
    app = start(unsent_bytes=16 * MIB)
    results = LARGE[:500_000]
    address = app.app.http_address
    honest = Caller(app, HONEST)
    job_id = job_with_large_results(honest, results)
    body = json.dumps({"sessionId": HONEST, "jobId": job_id}).encode()
    head = f"POST {PREFIX}GetResults HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    request = f"{head}content-length: {len(body)}\r\n\r\n".encode() + body
    with ExitStack() as stack, Peak() as peak:
        for _ in range(300):
            stack.enter_context(deaf(address)).sendall(request)
        client = Client(address)
        until(lambda: client.call("GetResults", {"sessionId": HONEST, "jobId": job_id}).status == 200, IN_TIME)
        client.close()
        assert honest.results(job_id).results.string_value == results
        assert peak.growth < 100 * MIB


@contextmanager
def deaf(address: str) -> Iterator[socket.socket]:
    """A connection that takes next to nothing."""
    host, _, port = address.rpartition(":")
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect((host, int(port)))
        yield connection


def fill_session(stub: JobServiceStub, session: str) -> None:
    """With more than fits into the buffers of a connection."""
    labels = {f"{n}": "y" * 256 for n in range(60)}
    for _ in range(100):
        stub.CreateJob(pb.CreateJobRequest(session_id=session, labels=labels))


@contextmanager
def unread_http_watch(address: str, session: str) -> Iterator[None]:
    body = enveloped({"sessionId": session})
    head = f"POST {PREFIX}WatchJobs HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/connect+json\r\n"
    with deaf(address) as connection:
        connection.sendall(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        yield
