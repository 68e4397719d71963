"""What no well-meant client sends: broken TCP, HTTP/2 and gRPC framing. The server answers, closes or waits; it lives.

Below the handlers gRPC itself decides. Where that differs from what would be best, the case says so, and asserts what
matters: nothing of the server's insides is shown, and others are served. A gRPC release that fails here is not for us.
"""

import gzip
import random
import re
import secrets
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import grpc
import pytest
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    HeadersFrame,
    PingFrame,
    PushPromiseFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from headway.v1 import job_pb2
from headway.v1 import job_service_pb2 as pb
from headway.v1.job_service_pb2_grpc import JobServiceStub
from tests.support.http2 import (
    FRAME_MAX,
    PREFACE,
    Answer,
    Connection,
    Headers,
    call_headers,
    connect,
    is_closed,
    prefixed,
)
from tests.support.server import ServerProcess

CREATE = "/headway.v1.JobService/CreateJob"
STREAM = "/headway.v1.JobService/StreamProgress"

SESSION = "malformed"

MESSAGE = pb.CreateJobRequest(session_id=SESSION).SerializeToString()
GOOD = prefixed(MESSAGE)

HANDSHAKE_TIMEOUT = 10.0
"""Seconds that the server waits for a client to say that it speaks HTTP/2."""

INSIDES = re.compile(
    rb"Traceback|\.py\b|site-packages|<class|[A-Z]\w+Error\b|Exception|sqlite|SELECT |headway_server|0x[0-9a-f]{6}"
)

RESET = -1
"""In the place of a status: the stream is reset without one."""

OK, UNKNOWN, INVALID, DEADLINE, EXHAUSTED, UNIMPLEMENTED, INTERNAL, UNAUTHENTICATED = (
    code.value[0]
    for code in (
        grpc.StatusCode.OK,
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNAUTHENTICATED,
    )
)


def good_call(server: ServerProcess) -> job_pb2.Job:
    """A good call over a channel of its own succeeds within 2 s."""
    with grpc.insecure_channel(server.address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        return JobServiceStub(channel).CreateJob(pb.CreateJobRequest(session_id="well-behaved"), timeout=2)


def assert_shows_no_insides(answer: Answer) -> None:
    found = INSIDES.search(answer.everything)
    assert found is None, f"the reply shows {found[0]!r}: {answer.everything!r}"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server of this module's own: it is the one that must survive all of it, from the first case to the last."""
    with ServerProcess(tmp_path_factory.mktemp("malformed")) as running:
        yield running


@pytest.fixture(autouse=True)
def survives(server: ServerProcess) -> Iterator[None]:
    """After every test here the same process serves on, and its log has no fault of its own."""
    pid = server.pid
    yield
    good_call(server)
    assert server.running
    assert server.pid == pid
    assert "fault " not in server.log


SILENT = {"says nothing": b"", "half a preface": PREFACE[:10], "a preface and no settings": PREFACE}


@pytest.fixture(scope="module", autouse=True)
def silent(server: ServerProcess) -> Iterator[dict[str, socket.socket]]:
    """Clients that do not finish their handshake: opened first, and looked at last, so that the wait costs no time."""
    with ExitStack() as stack:
        clients = {}
        for name, said in SILENT.items():
            clients[name] = stack.enter_context(connect(server.address))
            clients[name].sendall(said)
        yield clients


@pytest.mark.parametrize(
    "said",
    [
        pytest.param(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", id="HTTP/1.1"),
        pytest.param(bytes.fromhex("16030101fe010001fa0303") + bytes(503), id="TLS hello"),
        pytest.param(random.Random(3).randbytes(256), id="256 random bytes"),
        pytest.param(PREFACE + b"\xff" * 9, id="frame of 16 MB after the preface"),
    ],
)
def test_what_is_not_http2_is_closed(server: ServerProcess, said: bytes) -> None:
    with connect(server.address) as client:
        client.sendall(said)
        assert is_closed(client, within=3)


def test_idle_connections_keep_nobody_out(server: ServerProcess) -> None:
    """500 connections that have shaken hands and say nothing more."""
    with ExitStack() as stack:
        for _ in range(500):
            stack.enter_context(Connection(server.address, polite=False).socket)
        good_call(server)


@dataclass(frozen=True, slots=True)
class Case:
    """One call, and the statuses it may get. `why` tells where gRPC decides differently."""

    name: str
    headers: Headers
    statuses: tuple[int, ...]
    data: bytes = GOOD
    why: str = ""
    insides: bool = False


def with_header(name: str | bytes, *values: str | bytes) -> Headers:
    return [*call_headers(CREATE), *((name, value) for value in values)]


def with_path(path: str | bytes) -> Headers:
    return call_headers(path)


HEADER_CASES = (
    Case("a good call", call_headers(CREATE), (OK,)),
    Case("method GET", call_headers(CREATE, method="GET"), (RESET,)),
    Case("method PUT", call_headers(CREATE, method="PUT"), (RESET,)),
    Case("no :path", call_headers(CREATE, without=[":path"]), (RESET,)),
    Case("no :authority", call_headers(CREATE, without=[":authority"]), (RESET,)),
    Case("no te", call_headers(CREATE, without=["te"]), (RESET,)),
    Case("te: gzip", call_headers(CREATE, te="gzip"), (INTERNAL,), why="the transport's own answer"),
    Case(":scheme ftp", call_headers(CREATE, scheme="ftp"), (INTERNAL,), why="the transport's own answer"),
    *(
        Case(f"content-type {kind}", call_headers(CREATE, content_type=kind), (OK,), why="gRPC takes any")
        for kind in ("application/json", "text/html")
    ),
    Case("no content-type", call_headers(CREATE, without=["content-type"]), (OK,), why="gRPC takes that too"),
    Case("path without its first slash", with_path(CREATE[1:]), (UNIMPLEMENTED,)),
    Case("path with two first slashes", with_path(f"/{CREATE}"), (UNIMPLEMENTED,)),
    Case("path with a last slash", with_path(f"{CREATE}/"), (UNIMPLEMENTED,)),
    Case("path with %2f", with_path("/headway.v1.JobService%2fCreateJob"), (UNIMPLEMENTED,)),
    Case("path with a query", with_path(f"{CREATE}?x=1"), (UNIMPLEMENTED,)),
    Case("path in lower case", with_path(CREATE.lower()), (UNIMPLEMENTED,)),
    Case("path with NUL", with_path(f"{CREATE}\0"), (UNIMPLEMENTED,)),
    Case("path with a line break", with_path("/headway.v1.JobService/\r\nheadway: forged line"), (UNIMPLEMENTED,)),
    Case(
        "path that is not UTF-8",
        with_path(b"/headway.v1.JobService/\xff\xfe"),
        (UNIMPLEMENTED, UNKNOWN),
        why="gRPC decodes the path before it asks anybody, and answers UNKNOWN with Python's name of the error",
        insides=True,
    ),
    Case("empty method", with_path("/headway.v1.JobService/"), (UNIMPLEMENTED,)),
    Case("empty service", with_path("//CreateJob"), (UNIMPLEMENTED,)),
    Case("empty path", with_path(""), (UNIMPLEMENTED,)),
    Case("grpc-timeout 5x", with_header("grpc-timeout", "5x"), (INTERNAL,), why="the transport's own answer"),
    Case("grpc-timeout -1S", with_header("grpc-timeout", "-1S"), (INTERNAL,), why="the transport's own answer"),
    Case("empty grpc-timeout", with_header("grpc-timeout", ""), (INTERNAL,), why="the transport's own answer"),
    Case("grpc-timeout of 31 years", with_header("grpc-timeout", "999999999S"), (OK,)),
    Case("grpc-timeout of too many digits", with_header("grpc-timeout", "9" * 40 + "H"), (OK,), why="gRPC clamps it"),
    Case("metadata -bin without base64", with_header("x-bin", "!!!"), (INTERNAL,), why="the transport's own answer"),
    Case("metadata value that is not ASCII", with_header("x-note", b"caf\xc3\xa9"), (OK,)),
    Case("metadata value that is not UTF-8", with_header("x-note", b"\xc3\x28\xff"), (OK,)),
    Case("metadata key in upper case", with_header("X-Note", "a"), (INTERNAL,), why="the transport's own answer"),
    Case("metadata key that is not ASCII", with_header(b"x-\xff", "a"), (INTERNAL,), why="the transport's own answer"),
    Case("empty metadata key", with_header("", "a"), (INTERNAL,), why="the transport's own answer"),
    Case("200 headers", [*call_headers(CREATE), *((f"x-{n}", "a") for n in range(200))], (OK,)),
    Case("connection: close", with_header("connection", "close"), (OK,), why="HTTP/2 forbids it, gRPC ignores it"),
    Case("a host beside the :authority", with_header("host", "elsewhere"), (OK,), why="gRPC ignores it"),
    Case("two :path", [(":path", CREATE), *call_headers(CREATE)], (OK, RESET), why="gRPC takes either"),
    Case("a reply's header", with_header(":status", "200"), (OK, RESET, INTERNAL), why="gRPC ignores it"),
    Case("two authorizations", with_header("authorization", "Bearer a", "Bearer b"), (UNAUTHENTICATED,)),
    Case("the same authorization twice", with_header("authorization", "Bearer a", "Bearer a"), (UNAUTHENTICATED,)),
    Case("authorization without a kind", with_header("authorization", "secret"), (UNAUTHENTICATED,)),
    Case("empty authorization", with_header("authorization", ""), (UNAUTHENTICATED,)),
    Case("authorization not UTF-8", with_header("authorization", b"Bearer \xff\xfe"), (UNAUTHENTICATED,)),
    Case("metadata of 17 KB", with_header("x-large", "a" * 17_000), (EXHAUSTED,)),
    Case("metadata of 40 KB", with_header("x-large", "a" * 40_000), (EXHAUSTED,)),
    Case("metadata of 17 KB in pieces", with_header("x-large", *["a" * 1000] * 17), (EXHAUSTED,)),
)

BODY_CASES = (
    Case(
        "grpc-encoding zstd",
        with_header("grpc-encoding", "zstd"),
        (UNIMPLEMENTED, INTERNAL),
        why="the specification has UNIMPLEMENTED, gRPC answers INTERNAL",
    ),
    Case("compressed, but not", with_header("grpc-encoding", "gzip"), (INTERNAL,), prefixed(b"not gzip", flag=1)),
    Case(
        "compressed without a grpc-encoding",
        call_headers(CREATE),
        (INTERNAL, OK),
        prefixed(MESSAGE, flag=1),
        why="the specification has INTERNAL, gRPC takes it as it is",
    ),
    Case("well compressed", with_header("grpc-encoding", "gzip"), (OK,), prefixed(gzip.compress(MESSAGE), flag=1)),
    Case(
        "40 MB in a few compressed bytes",
        with_header("grpc-encoding", "gzip"),
        (EXHAUSTED,),
        prefixed(gzip.compress(bytes(40 * 1024 * 1024), 1), flag=1),
    ),
    Case("length of 4 GB", call_headers(CREATE), (EXHAUSTED,), prefixed(MESSAGE, length=2**32 - 1)),
    Case("length of 5 MB", call_headers(CREATE), (EXHAUSTED,), prefixed(MESSAGE, length=5 * 1024 * 1024)),
    Case("two messages", call_headers(CREATE), (OK,), GOOD + GOOD, why="the first counts"),
    Case("no protobuf", call_headers(CREATE), (INVALID,), prefixed(b"\xff" * 50)),
    Case("an empty message", call_headers(CREATE), (INVALID,), prefixed(b"")),
)


@pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in (*HEADER_CASES, *BODY_CASES)])
def test_malformed_call(server: ServerProcess, case: Case) -> None:
    with Connection(server.address) as connection:
        answer = connection.call(case.headers, case.data)
    assert (RESET if answer.status is None and answer.reset is not None else answer.status) in case.statuses
    if not case.insides:
        assert_shows_no_insides(answer)


def test_the_log_holds_nothing_that_callers_sent(server: ServerProcess) -> None:
    """A garbled token must not appear in a file that others read."""
    secret = secrets.token_hex(8)
    with Connection(server.address) as connection:
        connection.call(with_header("authorization", f"Bearer {secret}\xff".encode("latin-1")), GOOD)
        connection.call(with_header("x-note", f"{secret}\xff".encode("latin-1")), GOOD)
        connection.call(with_path(f"/headway.v1.JobService/{secret}\xff".encode("latin-1")), GOOD)
    good_call(server)
    assert secret not in server.log


def test_a_call_whose_time_is_over_changes_nothing(server: ServerProcess) -> None:
    request = pb.CreateJobRequest(session_id=SESSION, job_id=secrets.token_hex(16))
    with Connection(server.address) as connection:
        for timeout in ("0S", "0n", "0H"):
            answer = connection.call(
                [*call_headers(CREATE), ("grpc-timeout", timeout)], prefixed(request.SerializeToString())
            )
            assert answer.status == DEADLINE
        get = pb.GetJobRequest(session_id=SESSION, job_id=request.job_id)
        answer = connection.call(call_headers("/headway.v1.JobService/GetJob"), prefixed(get.SerializeToString()))
    assert answer.status == grpc.StatusCode.NOT_FOUND.value[0]


@pytest.mark.parametrize(("size", "status"), [(9_000, OK), (12_000, OK), (16_000, OK), (16_100, EXHAUSTED)])
def test_a_size_of_metadata_always_gets_the_same_answer(server: ServerProcess, size: int, status: int) -> None:
    """Between a soft and a hard limit gRPC would draw lots. It answers what it refuses late, hence all at once."""
    with ExitStack() as stack:
        connections = [stack.enter_context(Connection(server.address)) for _ in range(24)]
        streams = [connection.open(with_header("x-large", "a" * size)) for connection in connections]
        for connection, stream in zip(connections, streams, strict=True):
            connection.write(stream, GOOD)
        answers = [c.answer(stream).status for c, stream in zip(connections, streams, strict=True)]
    assert set(answers) == {status}


def test_metadata_of_a_client_that_agrees_to_no_limit(server: ServerProcess) -> None:
    """gRPC holds a client to the limits only once it has acknowledged them; megabytes of headers must harm nobody."""
    with Connection(server.address, polite=False) as connection:
        connection.call(with_header("x-large", "a" * (4 * 1024 * 1024)), GOOD)
        good_call(server)


HALF_OPEN = {
    "length beyond the body": prefixed(MESSAGE, length=len(MESSAGE) + 100),
    "two bytes": b"\0\0",
    "no message": b"",
    # gRPC takes it for an empty message, or waits on.
    "compressed flag of 7": prefixed(MESSAGE, flag=7),
}


@pytest.mark.parametrize("ends", [True, False], ids=["ended", "never ended"])
@pytest.mark.parametrize("body", HALF_OPEN.values(), ids=HALF_OPEN)
def test_a_call_whose_message_never_comes_keeps_nobody_out(server: ServerProcess, body: bytes, ends: bool) -> None:
    """gRPC's asyncio server waits for the message until the connection's age ends it; others are served meanwhile."""
    with ExitStack() as stack:
        for _ in range(5):
            connection = stack.enter_context(Connection(server.address))
            streams = [connection.open(call_headers(CREATE)) for _ in range(20)]
            for stream in streams:
                connection.write(stream, body, end=ends)
            # On the connection itself, and with all of it before this call.
            assert connection.call(call_headers(CREATE), GOOD).status == OK
        good_call(server)


def rapid_reset(connection: Connection) -> None:
    for _ in range(5000):
        connection.send(RstStreamFrame(connection.open(call_headers(CREATE)), 8))


def rapid_reset_with_message(connection: Connection) -> None:
    for _ in range(1000):
        stream = connection.open(call_headers(CREATE))
        connection.write(stream, GOOD)
        connection.send(RstStreamFrame(stream, 8))


def ping_flood(connection: Connection) -> None:
    connection.send(*[PingFrame(0, b"12345678")] * 200)


def continuation_flood(connection: Connection) -> None:
    block = connection.encode(call_headers(CREATE))
    connection.send(HeadersFrame(1, block))
    filler = ContinuationFrame(1, b"\x40\x01a\x01b" * 100).serialize()
    for _ in range(100):
        connection.send(filler * 50)


def empty_continuations(connection: Connection) -> None:
    connection.send(HeadersFrame(1, connection.encode(call_headers(CREATE))))
    for _ in range(100):
        connection.send(ContinuationFrame(1, b"").serialize() * 1000)


def empty_data(connection: Connection) -> None:
    stream = connection.open(call_headers(STREAM))
    for _ in range(50):
        connection.send(DataFrame(stream, b"").serialize() * 1000)


def settings_flood(connection: Connection) -> None:
    for _ in range(20):
        connection.send(SettingsFrame(0, settings={}).serialize() * 1000)


def window_overflow(connection: Connection) -> None:
    connection.send(WindowUpdateFrame(0, 2**31 - 1), WindowUpdateFrame(0, 2**31 - 1))


def window_overflow_of_a_stream(connection: Connection) -> None:
    stream = connection.open(call_headers(CREATE))
    connection.send(WindowUpdateFrame(stream, 2**31 - 1), WindowUpdateFrame(stream, 2**31 - 1))


def window_of_nothing(connection: Connection) -> None:
    connection.send(b"\0\0\4\x08\0\0\0\0\0\0\0\0\0")


def data_beyond_the_window(connection: Connection) -> None:
    stream = connection.open(call_headers(STREAM))
    for _ in range(3000):
        connection.send(DataFrame(stream, bytes(FRAME_MAX)))


def stream_id_again(connection: Connection) -> None:
    stream = connection.open(call_headers(CREATE))
    connection.write(stream, GOOD)
    assert connection.answer(stream).status == OK
    connection.open(call_headers(CREATE), stream=stream)
    connection.write(stream, GOOD)


def stream_id_lower(connection: Connection) -> None:
    connection.open(call_headers(CREATE), stream=9)
    connection.open(call_headers(CREATE), stream=5)


def stream_id_even(connection: Connection) -> None:
    connection.open(call_headers(CREATE), stream=2)


def headers_on_stream_0(connection: Connection) -> None:
    connection.send(b"\0\0\1\1\4\0\0\0\0\x82")


def data_on_stream_0(connection: Connection) -> None:
    connection.send(b"\0\0\1\0\0\0\0\0\0a")


def data_on_a_stream_never_opened(connection: Connection) -> None:
    connection.send(DataFrame(7, b"abc"))


def reset_of_a_stream_never_opened(connection: Connection) -> None:
    connection.send(RstStreamFrame(9, 0))


def push_promise(connection: Connection) -> None:
    connection.send(PushPromiseFrame(1, 2, connection.encode(call_headers(CREATE)), flags=["END_HEADERS"]))


def broken_hpack(connection: Connection) -> None:
    connection.send(HeadersFrame(1, b"\xff" * 9, flags=["END_HEADERS"]))


def hpack_table_of_4_gb(connection: Connection) -> None:
    connection.send(HeadersFrame(1, b"\x3f\xe1\xff\xff\xff\x0f", flags=["END_HEADERS"]))


def settings_of_5_bytes(connection: Connection) -> None:
    connection.send(b"\0\0\5\4\0\0\0\0\0abcde")


def settings_out_of_range(connection: Connection) -> None:
    connection.send(SettingsFrame(0, settings={SettingsFrame.INITIAL_WINDOW_SIZE: 2**31}))


def priority_on_itself(connection: Connection) -> None:
    connection.send(b"\0\0\5\2\0\0\0\0\1\0\0\0\1\1")


def unknown_frame(connection: Connection) -> None:
    connection.send(b"\0\0\4\xee\0\0\0\0\0abcd")


ENDED = (
    ping_flood,
    empty_continuations,
    empty_data,
    window_of_nothing,
    broken_hpack,
    settings_of_5_bytes,
    settings_out_of_range,
)
"""What ends the connection."""

BORNE = (
    rapid_reset,
    rapid_reset_with_message,
    settings_flood,
    continuation_flood,
    window_overflow,
    window_overflow_of_a_stream,
    data_beyond_the_window,
    stream_id_again,
    stream_id_lower,
    stream_id_even,
    headers_on_stream_0,
    data_on_stream_0,
    data_on_a_stream_never_opened,
    reset_of_a_stream_never_opened,
    push_promise,
    hpack_table_of_4_gb,
    priority_on_itself,
    unknown_frame,
)
"""What gRPC bears, or answers in a way that its releases differ in."""

Misdeed = Callable[[Connection], None]


@pytest.mark.parametrize("misdeed", ENDED, ids=lambda misdeed: misdeed.__name__)
def test_a_breach_of_http2_ends_the_connection(server: ServerProcess, misdeed: Misdeed) -> None:
    with Connection(server.address) as connection:
        misdeed(connection)
        answer = connection.answer(within=5)
    assert answer.closed or answer.goaway is not None
    assert_shows_no_insides(answer)


def test_pings_without_end_are_told_to_calm_down(server: ServerProcess) -> None:
    with Connection(server.address) as connection:
        ping_flood(connection)
        answer = connection.answer(within=5)
    assert answer.goaway == 11, "ENHANCE_YOUR_CALM"


@pytest.mark.parametrize("misdeed", BORNE, ids=lambda misdeed: misdeed.__name__)
def test_a_breach_of_http2_harms_nobody_else(server: ServerProcess, misdeed: Misdeed) -> None:
    with Connection(server.address) as connection:
        misdeed(connection)
        for _ in range(3):
            good_call(server)


@pytest.mark.parametrize("name", SILENT)
def test_a_client_that_does_not_finish_its_handshake_is_closed(silent: dict[str, socket.socket], name: str) -> None:
    """Last in this file: these clients have been silent since its first test."""
    assert is_closed(silent[name], within=HANDSHAKE_TIMEOUT + 2)
