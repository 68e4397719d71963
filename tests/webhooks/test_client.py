"""One POST of a webhook: where it goes, where nothing is ever sent, and what receivers may do with it."""

import asyncio
import ipaddress
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager, suppress
from pathlib import Path

import pytest
import trustme

from headway_server.webhooks.address_policy import may_reach
from headway_server.webhooks.client import NoResponse, WebhookClient
from tests.support.caller import Caller
from tests.support.receiver import Receiver
from tests.support.webhooks import Start, deliver, waiting


def posting_to(url: str, *, private: bool = True) -> WebhookClient:
    """Posts there, trusting whom the system trusts."""
    return WebhookClient(url, ssl.create_default_context(), private=private)


def resolving(monkeypatch: pytest.MonkeyPatch, **names: tuple[str, ...]) -> list[str]:
    """Lets names under .test stand for these addresses. What was looked up is in the list that it returns."""
    looked_up: list[str] = []

    def getaddrinfo(host: str, port: int, *_: object, **__: object) -> list[tuple[object, ...]]:
        looked_up.append(host)
        addresses = names[host.removesuffix(".").removesuffix(".test")]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return looked_up


@asynccontextmanager
async def serving(
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[str]:
    """The URL of a server that treats each connection so, and aborts it."""
    connections: set[asyncio.Task[object]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        connections.add(task)
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await serve(reader, writer)
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    finally:
        server.close()
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)
        # The transports close in the loop's next turn.
        await asyncio.sleep(0)


def test_nothing_is_sent_to_a_name_that_leads_home(
    own_start: Start, session: str, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        # An address as only a resolver reads it.
        url = f"https://127.1:{listener.getsockname()[1]}/"
        app = own_start({"url": url}, private=False)
        caller = Caller(app, session)
        caller.finish(caller.create().id)
        deliver(app)
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.accept()
    assert "its name has no address that webhooks may be sent to" in caplog.text
    assert waiting(app) == 1


async def test_the_address_that_was_checked_is_the_one_that_is_used(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_up = resolving(monkeypatch, receiver=("169.254.169.254", "127.0.0.1"))
    answer = await posting_to(f"http://receiver.test:{receiver.port}/").post({"webhook-id": "1"}, b"{}")
    assert answer.status == 204
    assert receiver.received[0].headers["host"] == f"receiver.test:{receiver.port}"
    assert looked_up == ["receiver.test"]
    with pytest.raises(NoResponse, match="no address that webhooks may be sent to"):
        await posting_to(f"https://receiver.test:{receiver.port}/", private=False).post({}, b"")
    assert len(receiver.received) == 1


@pytest.mark.parametrize(
    ("address", "openly", "privately"),
    [
        ("93.184.216.34", True, True),
        ("2606:2800:220:1::1", True, True),
        ("64:ff9b::5db8:d822", True, True),
        ("127.0.0.1", False, True),
        ("::1", False, True),
        ("10.1.2.3", False, True),
        ("192.168.1.1", False, True),
        ("172.31.255.255", False, True),
        ("100.64.0.1", False, True),
        ("fd00::1", False, True),
        ("::ffff:10.1.2.3", False, True),
        ("64:ff9b::a00:1", False, True),
        ("169.254.169.254", False, False),
        ("::ffff:169.254.169.254", False, False),
        ("64:ff9b::a9fe:a9fe", False, False),
        ("100.100.100.200", False, False),
        ("::ffff:100.100.100.200", False, False),
        ("64:ff9b::6464:64c8", False, False),
        ("168.63.129.16", False, False),
        ("192.0.0.192", False, False),
        ("fd00:ec2::254", False, False),
        ("fd00:ec2::254%eth0", False, False),
        ("fd20:ce::254", False, False),
        ("fd00:42::42", False, False),
        ("fd00:c1::a9fe:a9fe", False, False),
        ("100.100.100.201", False, True),
        ("fd00:ec2::255", False, True),
        ("2002:a9fe:a9fe::", False, False),
        ("2001:0:4136:e378:8000:63bf:3fff:fdd2", False, False),
        ("64:ff9b:1::a9fe:a9fe", False, False),
        ("64:ff9b:1:a9fe:a9:fe00::", False, False),
        ("::169.254.169.254", False, False),
        ("fe80::1%lo", False, False),
        ("fec0::1", False, False),
        ("0.0.0.0", False, False),
        ("::", False, False),
        ("224.0.0.1", False, False),
        ("ff02::1", False, False),
        ("240.0.0.1", False, False),
        ("255.255.255.255", False, False),
    ],
)
def test_which_addresses_may_be_reached(address: str, openly: bool, privately: bool) -> None:
    parsed = ipaddress.ip_address(address)
    assert may_reach(parsed, private=False) is openly
    assert may_reach(parsed, private=True) is privately


def test_tls_is_for_the_name_and_by_who_is_trusted(
    own_start: Start, session: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    authority, stranger = trustme.CA(), trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    receivers = []
    for issuer, name in ((authority, "localhost"), (authority, "elsewhere.test"), (stranger, "localhost")):
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        issuer.issue_cert(name).configure_cert(tls)
        receivers.append(Receiver(tls=tls))
    good, misnamed, unknown = receivers
    with good, misnamed, unknown:
        app = own_start(*[{"url": f"https://localhost:{receiver.port}/"} for receiver in receivers])
        caller = Caller(app, session)
        job = caller.create()
        caller.finish(job.id)
        deliver(app)
        assert good.subjects == [job.id]
        assert misnamed.received == unknown.received == []
    told = [record.message for record in caplog.records if "its certificate is not valid" in record.message]
    assert len(told) == 2


@pytest.mark.parametrize(
    ("answer", "delivered"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 10_000_000, True),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nnonsense", True),
        (b"HTTP/1.1 200 OK\r\n" + b"".join(b"X-%d: y\r\n" % number for number in range(1_000_000)), False),
        (b"HTTP/1.1 200 " + b"x" * 10_000_000, False),
        (b"SSH-2.0-OpenSSH\r\n", False),
        (b"\0" * 100, False),
        (b"", False),
    ],
    ids=["long body", "malformed body", "many headers", "long status", "another protocol", "zeros", "nothing"],
)
async def test_a_strange_answer_costs_little(answer: bytes, delivered: bool) -> None:
    sent = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"{}")
        with suppress(ConnectionError):
            for start in range(0, len(answer), 65536):
                writer.write(answer[start : start + 65536])
                await writer.drain()
                sent += 65536
        writer.transport.abort()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        if delivered:
            assert (await posting_to(url).post({}, b"{}")).status == 200
        else:
            with pytest.raises(NoResponse):
                await posting_to(url).post({}, b"{}")
    # What the system itself buffers, and no more.
    assert sent < 8_000_000


async def test_an_answer_that_comes_before_the_body_was_read_counts() -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Content Too Large\r\nConnection: close\r\n\r\n")
        await writer.drain()
        # It reads no further, and closes later, as proxies do.
        await asyncio.sleep(3600)

    async with serving(refuse) as url:
        assert (await posting_to(url).post({}, b"x" * 50_000_000)).status == 413


async def test_an_answer_counts_whatever_its_body_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headway_server.webhooks.client.RESPONSE_TIMEOUT", 1.0)
    monkeypatch.setattr("headway_server.webhooks.client.BODY_TIMEOUT", 2.0)

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"{}")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(b"x")
            await asyncio.sleep(0.05)

    async with serving(drip) as url:
        assert (await posting_to(url).post({}, b"{}")).status == 200


async def test_an_answer_that_comes_byte_by_byte_is_waited_for_no_longer_than_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("headway_server.webhooks.client.RESPONSE_TIMEOUT", 0.5)

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"{}")
        writer.write(b"HTTP/1.1 200 OK\r\n")
        for number in range(100_000):
            writer.write(b"x-%d: y\r\n" % number)
            await asyncio.sleep(0.01)

    async with serving(drip) as url:
        with pytest.raises(NoResponse, match=r"no response within 0\.5 s"):
            await posting_to(url).post({}, b"{}")


async def test_a_receiver_that_never_ends_the_handshake_has_no_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headway_server.webhooks.client.CONNECT_TIMEOUT", 0.3)

    async def hang(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(3600)

    async with serving(hang) as url:
        with pytest.raises(NoResponse, match=r"no connection within 0\.3 s"):
            await posting_to(url.replace("http:", "https:")).post({}, b"{}")


async def test_silent_addresses_leave_time_for_one_that_answers(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headway_server.webhooks.client.CONNECT_TIMEOUT", 2.5)
    monkeypatch.setattr("headway_server.webhooks.client.RESPONSE_TIMEOUT", 6.0)
    silent = tuple(f"127.0.0.{number}" for number in range(2, 6))
    resolving(monkeypatch, many=(*silent, "127.0.0.1"))
    with ExitStack() as sockets:
        for address in silent:
            # Nobody accepts, and the queue is full: further connections get no answer.
            listener = sockets.enter_context(socket.create_server((address, receiver.port), backlog=0))
            for _ in range(4):
                filler = sockets.enter_context(socket.socket())
                filler.setblocking(False)
                filler.connect_ex(listener.getsockname())
        answer = await posting_to(f"http://many.test:{receiver.port}/").post({"webhook-id": "1"}, b"{}")
    assert answer.status == 204


async def test_a_name_with_a_dot_at_its_end_is_the_one_in_the_certificate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("dotted.test").configure_cert(tls)
    resolving(monkeypatch, dotted=("127.0.0.1",))
    with Receiver(tls=tls) as receiver:
        answer = await posting_to(f"https://dotted.test.:{receiver.port}/").post({"webhook-id": "1"}, b"{}")
    assert answer.status == 204


async def test_a_look_up_that_hangs_holds_up_its_own_receiver_alone(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headway_server.webhooks.dns.LOOKUP_TIMEOUT", 0.3)
    answers = threading.Event()
    looked_up: list[str] = []

    def getaddrinfo(host: str, port: int, *_: object, **__: object) -> list[tuple[object, ...]]:
        looked_up.append(host)
        if host == "silent.test":
            answers.wait()
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    silent = posting_to(f"http://silent.test:{receiver.port}/")
    healthy = posting_to(f"http://healthy.test:{receiver.port}/")
    try:
        posts = [silent.post({}, b"{}") for _ in range(50)]
        failures = await asyncio.gather(*posts, return_exceptions=True)
        assert all("its name could not be looked up" in str(failure) for failure in failures)
        # One thread waits, however many ask.
        assert looked_up == ["silent.test"]
        hanging = asyncio.create_task(silent.post({}, b"{}"))
        assert (await healthy.post({"webhook-id": "1"}, b"{}")).status == 204
        hanging.cancel()
        with pytest.raises(asyncio.CancelledError):
            await hanging
    finally:
        answers.set()
    assert (await silent.post({"webhook-id": "2"}, b"{}")).status == 204
