"""Slow callers, and callers that send no HTTP, hold nothing for ever and harm nobody; and the HTTP transport closes."""

import json
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from headway_server.http import bodies, http_server
from tests.support.app import RunningApp
from tests.support.caller import Caller
from tests.support.http import JSON, PREFIX, Client, enveloped
from tests.support.server import ServerProcess
from tests.support.waiting import until, watchers_gone

SOON = 0.2
"""The shortened timeouts of the server."""


@pytest.fixture(autouse=True)
def still_served(client: Client, caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """After every test here the server serves, and it has logged no error."""
    yield
    assert client.get("/healthz").status == 200
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


def connect(app: RunningApp) -> socket.socket:
    host, _, port = app.app.http_address.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=10)


def heard(connection: socket.socket) -> bytes:
    """All until the server closes."""
    found = b""
    with connection:
        while data := connection.recv(65536):
            found += data
    return found


def request(verb: str, path: str, *headers: str) -> bytes:
    return "\r\n".join((f"{verb} {path} HTTP/1.1", "host: localhost", *headers, "", "")).encode()


def test_a_connection_that_says_nothing_is_closed(app: RunningApp, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "HEAD_TIMEOUT", SOON)
    assert heard(connect(app)) == b""


@pytest.mark.parametrize("part", [b"G", b"GET / HTTP/1.1\r\nhost: localhost\r\nx: "])
def test_a_head_that_does_not_end(app: RunningApp, monkeypatch: pytest.MonkeyPatch, part: bytes) -> None:
    """However its sender keeps it alive, one byte at a time."""
    monkeypatch.setattr(http_server, "HEAD_TIMEOUT", SOON)
    connection = connect(app)
    connection.sendall(part)
    stop = threading.Event()

    def drip() -> None:
        while not stop.wait(SOON / 5):
            try:
                connection.sendall(b"x")
            except OSError:
                return

    thread = threading.Thread(target=drip)
    thread.start()
    try:
        began = time.monotonic()
        said = heard(connection)
        assert time.monotonic() - began < 5
    finally:
        stop.set()
        thread.join()
    assert said.startswith(b"HTTP/1.1 408 ")
    assert b"REQUEST_TOO_SLOW" in said


def test_a_body_that_does_not_end(app: RunningApp, caller: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "REQUEST_TIMEOUT", SOON)
    connection = connect(app)
    head = request("POST", f"{PREFIX}CreateJob", "content-type: application/json", "content-length: 100")
    connection.sendall(head + b'{"sessionId":')
    said = heard(connection)
    assert said.startswith(b"HTTP/1.1 408 ")
    assert b"REQUEST_TOO_SLOW" in said
    connection = connect(app)
    head = request("POST", f"{PREFIX}WatchJob", "content-type: application/connect+json", "content-length: 100")
    connection.sendall(head + b"\0\0\0\0")
    with connection:
        while b"REQUEST_TOO_SLOW" not in (data := connection.recv(65536)):
            assert data


def is_counted(caller: Caller, job_id: str, progress: int) -> bool:
    return caller.get(job_id).progress == progress


def test_a_message_of_a_stream_that_does_not_end(
    app: RunningApp, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that has not begun may be waited for, as long as the stream lives."""
    monkeypatch.setattr(bodies, "REQUEST_TIMEOUT", SOON)
    job = caller.create()
    report = enveloped({"reports": [{"sessionId": caller.session, "jobId": job.id, "advance": "1"}]})
    connection = connect(app)
    kind = "content-type: application/connect+json"
    connection.sendall(request("POST", f"{PREFIX}StreamProgress", kind, "content-length: 10000"))
    for count in (1, 2):
        connection.sendall(report)
        until(partial(is_counted, caller, job.id, count))
        time.sleep(2 * SOON)
    connection.sendall(report[:-1])
    with connection:
        said = b""
        while b"REQUEST_TOO_SLOW" not in said:
            data = connection.recv(65536)
            assert data
            said += data
    assert caller.get(job.id).progress == 2


BOTH_LENGTHS = ("content-length: 5", "transfer-encoding: chunked")


def test_two_lengths_are_refused(app: RunningApp) -> None:
    """A proxy that goes by the other one would take the rest for a request of somebody else's."""
    connection = connect(app)
    head = request("POST", f"{PREFIX}CreateJob", "content-type: application/json", *BOTH_LENGTHS)
    connection.sendall(head + b"0\r\n\r\n" + request("GET", "/healthz"))
    said = heard(connection)
    assert said.startswith(b"HTTP/1.1 400 ")
    assert b"MALFORMED_MESSAGE" in said
    assert said.count(b"HTTP/1.1 ") == 1
    connection = connect(app)
    connection.sendall(request("GET", "/healthz", *BOTH_LENGTHS) + b"0\r\n\r\n")
    assert heard(connection).startswith(b"HTTP/1.1 400 ")


def test_a_bad_chunk_closes_a_stream(app: RunningApp, caller: Caller, caplog: pytest.LogCaptureFixture) -> None:
    """Its answer, which has begun, does not end as if all were well; and the log has no line for it."""
    job = caller.create()
    message = enveloped({"reports": [{"sessionId": caller.session, "jobId": job.id, "advance": "1"}]})
    kind = "content-type: application/connect+json"
    connection = connect(app)
    connection.sendall(request("POST", f"{PREFIX}StreamProgress", kind, "transfer-encoding: chunked"))
    connection.sendall(b"%x\r\n%s\r\n" % (len(message), message))
    assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
    connection.sendall(b"no number\r\n")
    assert not heard(connection).endswith(b"0\r\n\r\n")
    until(lambda: watchers_gone(app))
    assert [record for record in caplog.records if record.name != "uvicorn.error"] == []
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


def test_a_bad_chunk_of_a_request(app: RunningApp, caplog: pytest.LogCaptureFixture) -> None:
    connection = connect(app)
    kind = "content-type: application/json"
    connection.sendall(request("POST", f"{PREFIX}CreateJob", kind, "transfer-encoding: chunked") + b"no number\r\n")
    said = heard(connection)
    assert said.startswith(b"HTTP/1.1 400 ")
    assert said.count(b"HTTP/1.1 ") == 1


def test_slow_senders_hold_up_nobody(app: RunningApp, client: Client, session: str) -> None:
    head = request("POST", f"{PREFIX}CreateJob", "content-type: application/json", "content-length: 100")
    connections = [connect(app) for _ in range(100)]
    for connection in connections:
        connection.sendall(head + b"{")
    began = time.monotonic()
    assert client.call("CreateJob", {"sessionId": session}).status == 200
    assert time.monotonic() - began < 2
    for connection in connections:
        connection.close()


def test_a_reader_who_takes_nothing_is_left(app: RunningApp, caller: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    """A watch that nobody reads holds a place that others could have."""
    monkeypatch.setattr(http_server, "HTTP_WRITE_TIMEOUT", SOON)
    jobs = [caller.create(name="x" * 256, labels={f"{n}": "y" * 256 for n in range(60)}).id for n in range(20)]
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    host, _, port = app.app.http_address.rpartition(":")
    connection.connect((host, int(port)))
    body = enveloped({"sessionId": caller.session})
    head = request(
        "POST", f"{PREFIX}WatchJobs", "content-type: application/connect+json", f"content-length: {len(body)}"
    )
    connection.sendall(head + body)
    until(lambda: not watchers_gone(app))

    def report_until_gone() -> bool:
        for job in jobs:
            caller.report(job, advance=1)
        return watchers_gone(app)

    until(report_until_gone, timeout=30)
    connection.close()


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET / HTTP/1.1\r\nhost: localhost\r\nx: " + b"a" * 1_000_000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nhost: localhost\r\n" + b"x: y\r\n" * 200_000 + b"\r\n", 431),
        (b"GET /" + b"a" * 1_000_000 + b" HTTP/1.1\r\nhost: localhost\r\n\r\n", 431),
        (b"hello\r\n\r\n", 400),
        (b"GET / HTTP/x\r\nhost: localhost\r\n\r\n", 400),
        (b"GET  / HTTP/1.1\r\nhost: localhost\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nhost: a\r\nhost: localhost\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nhost: localhost\r\nx : y\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nhost: localhost\r\nx\x00: y\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nhost: localhost\r\ncontent-length: x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nhost: localhost\r\ncontent-length: -1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nx", 400),
        (b"POST / HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: gzip\r\n\r\n", 501),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 200 + b"\r\n\r\n", 400),
        (b"\xff" * 300 + b"\r\n\r\n", 400),
    ],
    ids=range(16),
)
def test_what_is_no_http(app: RunningApp, head: bytes, status: int) -> None:
    connection = connect(app)
    connection.sendall(head)
    said = heard(connection)
    assert said.startswith(b"HTTP/1.1 %d " % status), said[:200]
    assert json.loads(said.partition(b"\r\n\r\n")[2])["details"][0]["debug"]["domain"] == "headway"


def test_chunks_that_are_none(app: RunningApp) -> None:
    connection = connect(app)
    head = request("POST", f"{PREFIX}CreateJob", "content-type: application/json", "transfer-encoding: chunked")
    connection.sendall(head + b"zz\r\n{}\r\n0\r\n\r\n")
    assert heard(connection).startswith(b"HTTP/1.1 400 ")


def test_an_upgrade_that_is_not_offered(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    upgrade = [("connection", "upgrade"), ("upgrade", "websocket"), ("sec-websocket-key", "x")]
    assert client.send("GET", "/", upgrade).status == 200
    assert client.send("GET", "/", [("connection", "upgrade, http2-settings"), ("upgrade", "h2c")]).status == 200


def test_requests_in_a_row_are_answered_in_a_row(app: RunningApp) -> None:
    """Pipelined, and closed when asked to."""
    connection = connect(app)
    connection.sendall(request("GET", "/healthz") * 20 + request("GET", "/healthz", "connection: close"))
    assert heard(connection).count(b"HTTP/1.1 200 ") == 21


def test_connections_are_kept(client: Client, session: str) -> None:
    ids = {client.call("CreateJob", {"sessionId": session}).json["id"] for _ in range(50)}
    assert len(ids) == 50


# The end.


def test_the_http_transport_drains(own_app: Callable[..., RunningApp], session: str) -> None:
    """Watches end with a reason to come again elsewhere; new calls get the same; it is alive, and not ready."""
    app = own_app()
    client = Client(app.app.http_address)
    job = client.call("CreateJob", {"sessionId": session}).json["id"]
    watcher = Client(app.app.http_address)
    with ThreadPoolExecutor() as pool:
        watch = pool.submit(watcher.stream, "WatchJob", {"sessionId": session, "jobId": job})
        until(lambda: not watchers_gone(app))
        app.run(app.app.drain())
        states, end = watch.result(timeout=10).messages
    watcher.close()
    assert len(states) == 1
    assert end["error"]["code"] == "unavailable"
    assert end["error"]["details"][0]["debug"]["reason"] == "SHUTTING_DOWN"
    refused = client.call("GetJob", {"sessionId": session, "jobId": job})
    assert (refused.status, refused.refusal.reason) == (503, "SHUTTING_DOWN")
    assert client.get("/readyz").refusal.reason == "SHUTTING_DOWN"
    assert client.get("/healthz").status == 200
    client.close()


def test_a_call_that_runs_when_the_end_comes_is_answered(own_server: ServerProcess) -> None:
    """A long poll is a watch and ends; what was accepted is committed; the process ends well."""
    client = Client(own_server.http_address)
    job = client.call("CreateJob", {"sessionId": "s"}).json["id"]
    body = {"sessionId": "s", "jobId": job, "afterRevision": 1, "wait": "60s"}
    poller = Client(own_server.http_address)
    with ThreadPoolExecutor() as pool:
        poll = pool.submit(poller.call, "GetJob", body)
        until(lambda: b"headway_watches 1.0" in client.get("/metrics").body)
        assert own_server.stop() == 0
        assert poll.result(timeout=10).status == 503
    assert own_server.log == ""
    poller.close()
    client.close()


def test_a_restart_keeps_the_port(own_server: ServerProcess) -> None:
    client = Client(own_server.http_address)
    job = client.call("CreateJob", {"sessionId": "s"}).json["id"]
    client.close()
    own_server.restart()
    client = Client(own_server.http_address)
    assert client.call("GetJob", {"sessionId": "s", "jobId": job}).status == 200
    assert client.send("POST", f"{PREFIX}ListJobs", JSON.items(), b'{"sessionId":"s"}').status == 200
    client.close()
