"""What callers send, refused or not, leaves nothing in the server's memory, and takes no more of it than there is."""

import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any  # fields of requests, which protobuf's constructors check

import grpc
import pytest

from headway.v1 import job_service_pb2 as pb
from headway.v1.job_service_pb2_grpc import JobServiceStub
from tests.faults.attacks import JSON_BOMBS, WideRequests, packed_json_bomb, wide_requests
from tests.support import memory
from tests.support.http import JSON, PREFIX, STREAM, Client
from tests.support.memory import resident
from tests.support.server import ServerProcess
from tests.support.waiting import until

MB = 1_000_000

LARGE = 4 * MB
"""Nearly as much as a message may have."""

JOB_ID = "0" * 32

pytestmark = pytest.mark.skipif(not memory.known(), reason="the platform does not say how much memory a process has")


@pytest.fixture
def stub(own_server: ServerProcess) -> Iterator[JobServiceStub]:
    with grpc.insecure_channel(own_server.address) as channel:
        yield JobServiceStub(channel)


FIELDS: dict[str, Callable[[str], dict[str, Any]]] = {
    "session_id": lambda text: {"session_id": text, "job_id": JOB_ID},
    "job_id": lambda text: {"session_id": "s", "job_id": text},
}


def assert_keeps_nothing(server: ServerProcess, ask: Callable[[int], None]) -> None:
    """Fifty further questions leave nothing in the server's memory."""
    for number in range(10):
        ask(number)
    before = resident(server.pid)
    for number in range(10, 60):
        ask(number)
    assert resident(server.pid) - before < 40 * MB


@pytest.mark.parametrize("field", FIELDS)
def test_long_ids_are_not_kept_over_grpc(own_server: ServerProcess, stub: JobServiceStub, field: str) -> None:
    def ask(number: int) -> None:
        with pytest.raises(grpc.RpcError) as caught:
            stub.GetJob(pb.GetJobRequest(**FIELDS[field](f"{number:08}" + "x" * LARGE)), timeout=30)
        assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT

    assert_keeps_nothing(own_server, ask)


@pytest.mark.parametrize("field", FIELDS)
def test_long_ids_are_not_kept_over_http(own_server: ServerProcess, field: str) -> None:
    client = Client(own_server.http_address)

    def ask(number: int) -> None:
        answer = client.call("GetJob", FIELDS[field](f"{number:08}" + "x" * LARGE))
        assert (answer.status, answer.refusal.reason) == (400, "INVALID_REQUEST")

    assert_keeps_nothing(own_server, ask)
    client.close()


def test_long_ids_of_reports_are_not_kept(own_server: ServerProcess, stub: JobServiceStub) -> None:
    def report(numbers: range) -> None:
        texts = [f"{number:08}" + "x" * LARGE for number in numbers]
        sent = (
            pb.StreamProgressRequest(reports=[pb.ReportProgressRequest(session_id=s, job_id=j)])
            for text in texts
            for s, j in ((text, JOB_ID), ("s", text))
        )
        (*_, last) = stub.StreamProgress(sent, timeout=60)
        assert last.acked == 2 * len(numbers)

    report(range(5))
    before = resident(own_server.pid)
    report(range(5, 30))
    assert resident(own_server.pid) - before < 40 * MB


def test_idle_streams_keep_nothing_of_what_they_sent(own_server: ServerProcess) -> None:
    """Nor what a message of them was expanded to: 20 bytes for every one of an empty text."""
    request = pb.StreamProgressRequest(reports=[pb.ReportProgressRequest(session_id="s", job_id="x" * LARGE)])
    with ExitStack() as open_streams:
        before = 0
        for number in range(30):
            if number == 10:
                before = resident(own_server.pid)
            channel = open_streams.enter_context(grpc.insecure_channel(own_server.address, OWN_CONNECTION))
            ended = open_streams.enter_context(_Ending())
            responses = JobServiceStub(channel).StreamProgress(ended.after(request))
            assert next(responses).acked == 1
        assert resident(own_server.pid) - before < 40 * MB


OWN_CONNECTION = (("grpc.use_local_subchannel_pool", 1),)


class _Ending:
    """Requests of a stream that is held open until the end of the test."""

    def __init__(self) -> None:
        self._over = threading.Event()

    def after(self, request: pb.StreamProgressRequest) -> Iterator[pb.StreamProgressRequest]:
        yield request
        self._over.wait(60)

    def __enter__(self) -> "_Ending":
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()


BUDGET = 32 * 1024 * 1024


@pytest.fixture
def narrow(tmp_path: Path) -> Iterator[ServerProcess]:
    """A server that holds few bytes of requests."""
    with ServerProcess(tmp_path, "--max-request-bytes", str(BUDGET)) as running:
        yield running


def begun(address: str, kind: str, path: str, head: bytes = b"") -> socket.socket:
    """A request whose body is sent, but for its last bytes."""
    host, _, port = address.rpartition(":")
    connection = socket.create_connection((host, int(port)), timeout=20)
    length = len(head) + LARGE
    connection.sendall(
        f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n\r\n".encode()
    )
    # A server that has refused it reads on, or closes.
    with suppress(OSError):
        connection.sendall(head + bytes(LARGE - 10))
    return connection


BODIES = {
    "unary": (JSON["content-type"], PREFIX + "GetJob", b""),
    "stream": (STREAM["content-type"], PREFIX + "StreamProgress", b"\0" + LARGE.to_bytes(4, "big")),
    "watch": (STREAM["content-type"], PREFIX + "WatchJob", b"\0" + LARGE.to_bytes(4, "big")),
}


@pytest.mark.parametrize("body", BODIES)
def test_bodies_that_do_not_end_share_a_budget(narrow: ServerProcess, body: str) -> None:
    """Some are refused, in time for others to be served."""
    kind, path, head = BODIES[body]
    client = Client(narrow.http_address)
    client.call("CreateJob", {"sessionId": "s"})
    before = resident(narrow.pid)
    connections = [begun(narrow.http_address, kind, path, head) for _ in range(40)]
    try:
        until(lambda: any(_answered(connection) for connection in connections))
        job = client.call("CreateJob", {"sessionId": "s", "name": "x" * 200})
        assert job.status == 200
        # Each connection has buffers of its own, in the kernel and here.
        assert resident(narrow.pid) - before < 2 * BUDGET + 40 * 300_000
        refused = [said for connection in connections if (said := _answered(connection))]
        assert all(b"MEMORY_LIMIT" in said for said in refused)
        if body == "unary":
            assert all(re.match(rb"HTTP/1.1 429 .*\r\nretry-after: [12]\r\n", said, re.DOTALL) for said in refused)
    finally:
        for connection in connections:
            connection.close()
    until(lambda: client.call("GetJob", {"sessionId": "x" * 3 * MB, "jobId": JOB_ID}).status == 400)
    client.close()


def _answered(connection: socket.socket) -> bytes:
    """What the server has said so far."""
    connection.setblocking(False)
    try:
        return connection.recv(65_536, socket.MSG_PEEK)
    except BlockingIOError:
        return b""
    finally:
        connection.settimeout(20)


def test_large_calls_that_wait_share_the_budget_over_grpc(narrow: ServerProcess) -> None:
    with grpc.insecure_channel(narrow.address) as channel:
        stub = JobServiceStub(channel)
        job = stub.CreateJob(pb.CreateJobRequest(session_id="s"))
        # Fields that the server does not know are accepted.
        unknown = b"\xfa\x07" + _varint(2 * MB) + bytes(2 * MB)
        request = pb.GetJobRequest.FromString(
            pb.GetJobRequest(session_id="s", job_id=job.id, after_revision=9, wait={"seconds": 30}).SerializeToString()
            + unknown
        )
        waiting = [stub.GetJob.future(request, timeout=20) for _ in range(20)]
        until(lambda: any(call.done() for call in waiting))
        refused = [call for call in waiting if call.done()]
        assert all(call.code() == grpc.StatusCode.RESOURCE_EXHAUSTED for call in refused)
        assert stub.GetJob(pb.GetJobRequest(session_id="s", job_id=job.id), timeout=20) == job
        for call in waiting:
            call.cancel()
        until(lambda: _is_served(stub, request))


def _is_served(stub: JobServiceStub, request: pb.GetJobRequest) -> bool:
    request.after_revision = 0
    try:
        return bool(stub.GetJob(request, timeout=20).id)
    except grpc.RpcError:
        return False


def _varint(number: int) -> bytes:
    digits = bytearray()
    while number > 127:
        digits.append(number & 127 | 128)
        number >>= 7
    return bytes([*digits, number])


@pytest.mark.parametrize("bomb", JSON_BOMBS)
def test_bombs_of_json_are_not_kept(own_server: ServerProcess, bomb: str) -> None:
    method, packed = packed_json_bomb(bomb)
    client = Client(own_server.http_address)

    def ask(_: int) -> None:
        assert client.call(method, packed, content_encoding="gzip").status == 400

    assert_keeps_nothing(own_server, ask)
    client.close()


@pytest.mark.parametrize("kind", WideRequests._fields)
def test_wide_messages_are_not_kept(own_server: ServerProcess, kind: str) -> None:
    request = getattr(wide_requests(), kind)
    method, raw = type(request).DESCRIPTOR.name.removesuffix("Request"), request.SerializeToString()
    with grpc.insecure_channel(own_server.address) as channel:
        send: Callable[..., bytes] = channel.unary_unary(f"/headway.v1.JobService/{method}")

        def ask(_: int) -> None:
            with pytest.raises(grpc.RpcError) as caught:
                send(raw, timeout=30)
            assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT

        assert_keeps_nothing(own_server, ask)
