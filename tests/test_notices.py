"""Notices: what receivers are told, that it is told in spite of everything, and where nothing is ever sent."""

import asyncio
import base64
import ipaddress
import json
import os
import re
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from email.utils import formatdate
from itertools import pairwise
from pathlib import Path

import grpc
import pytest
import trustme
from google.protobuf import duration_pb2
from google.rpc import error_details_pb2, status_pb2
from standardwebhooks import WebhookVerificationError

from headway.v1 import job_pb2
from headway.v1 import job_service_pb2 as pb
from headway_server.addresses import may_reach
from headway_server.limits import MICROSECONDS
from headway_server.notices import asked_wait
from headway_server.post import NoAnswer, Poster
from headway_server.settings import read
from headway_server.tokens import SessionHasher
from tests.conftest import ENGINES, empty_database
from tests.support.app import NOON, RunningApp
from tests.support.caller import Caller, value
from tests.support.receiver import SECRET, Receiver
from tests.support.waiting import until

SESSION_KEY = bytes.fromhex("5e" * 32)
"""RunningApp's."""

Start = Callable[..., RunningApp]


def toml(*tables: dict[str, object]) -> str:
    """A settings file with these tables of notices."""
    lines = []
    for table in tables:
        lines.append("[[notices]]")
        for key, item in table.items():
            if isinstance(item, dict):
                item = "{" + ", ".join(f"{name} = {json.dumps(text)}" for name, text in item.items()) + "}"
            else:
                item = json.dumps(item)
            lines.append(f"{key} = {item}")
    return "\n".join(lines)


@pytest.fixture(params=ENGINES)
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return empty_database(request.param, request, tmp_path)


@contextmanager
def starting(database: str, folder: Path) -> Iterator[Start]:
    """Starts servers that tell the receivers of these tables; `private`: on this machine too."""
    with ExitStack() as running:

        def start(*tables: dict[str, object], private: bool = True, arguments: tuple[str, ...] = ()) -> RunningApp:
            config = folder / "headway.toml"
            config.write_text(
                toml(*[table if "secret_file" in table else {"secret": SECRET, **table} for table in tables])
            )
            # One at a time: a SQLite file is one server's.
            running.close()
            allow = ["--allow-private-notices"] if private else []
            settings = read(["--config", str(config), *allow, *arguments], {})
            return running.enter_context(RunningApp(database, limits=settings.limits, settings=settings))

        yield start


@pytest.fixture
def start(database: str, tmp_path: Path) -> Iterator[Start]:
    """Starts a server on each engine in turn."""
    with starting(database, tmp_path) as start:
        yield start


@pytest.fixture
def own_start(tmp_path: Path) -> Iterator[Start]:
    """Starts a server on SQLite, for what has nothing to do with the database."""
    with starting(f"sqlite:///{tmp_path / 'headway.db'}", tmp_path) as start:
        yield start


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as running:
        yield running


def deliver(app: RunningApp, seconds: float = 1) -> None:
    """Let time pass, and the server send what is due."""

    async def work() -> None:
        await asyncio.gather(*[courier.deliver() for courier in app.app.notices.couriers])

    app.clock.forward(seconds)
    app.run(work())


def waiting(app: RunningApp) -> int:
    """How many notices are in the outbox."""

    def count() -> int:
        ((found,),) = app.app.store.database.execute_sql("SELECT COUNT(*) FROM notice").fetchall()
        return int(found)

    return app.run(app.app.readers.read(count))


def test_every_ending_is_told_and_lost_and_stalled(start: Start, receiver: Receiver, session: str) -> None:
    app = start({"url": receiver.url})
    caller = Caller(app, session)
    completed = caller.create(name="Import", invoker="alice", size=9, labels={"kind": "import"})
    caller.set(completed.id, {"secret": "variable"})
    caller.report(completed.id, progress=3, sequence=1)
    caller.finish(completed.id, value({"secret": "result"}))
    failed = caller.create()
    caller.fail(failed.id, message="no")
    cancelled = caller.create(pending=True)
    caller.cancel(cancelled.id, reason="not needed")
    lost = caller.create(heartbeat_timeout={"seconds": 5})
    stalled = caller.create(stall_timeout={"seconds": 5})
    app.pass_time(10)
    deliver(app)
    assert sorted(receiver.events()) == sorted(
        [
            ("dev.headway.job.completed", completed.id),
            ("dev.headway.job.failed", failed.id),
            ("dev.headway.job.cancelled", cancelled.id),
            ("dev.headway.job.lost", lost.id),
            ("dev.headway.job.stalled", stalled.id),
        ]
    )
    assert receiver.times_each() == {1}
    (request,) = [request for request in receiver.received if request.event()["subject"] == completed.id]
    event = request.event()
    data = event.pop("data")
    assert event == {
        "specversion": "1.0",
        "id": request.id,
        "source": "/headway",
        "type": "dev.headway.job.completed",
        "subject": completed.id,
        "time": data["endTime"],
        "datacontenttype": "application/json",
    }
    assert request.headers["content-type"].startswith("application/cloudevents+json")
    assert (data["status"], data["progress"], data["size"]) == ("JOB_STATUS_COMPLETED", "3", "9")
    assert (data["name"], data["invoker"], data["labels"]) == ("Import", "alice", {"kind": "import"})
    assert data["errorCount"] == "0"
    # Neither the session, in any form, nor what a worker keeps or has found.
    for request in receiver.received:
        told = request.body.decode() + str(request.headers)
        for secret in (session, SessionHasher(SESSION_KEY)(session), "variable", "result"):
            assert secret not in told
    deliver(app, 4000)
    assert receiver.times_each() == {1}


def test_a_receiver_that_is_down_for_a_minute_gets_every_ending_once(
    start: Start, receiver: Receiver, session: str
) -> None:
    app = start({"url": receiver.url})
    caller = Caller(app, session)
    job_ids = caller.create_many(20)
    receiver.stop()
    for number, job_id in enumerate(job_ids):
        caller.finish(job_id)
        if number % 5 == 0:
            caller.clear(job_id)
        deliver(app, 3)
    assert receiver.received == []
    receiver.start()
    for _ in range(12):
        deliver(app, 5)
    assert sorted(receiver.events()) == sorted(("dev.headway.job.completed", job_id) for job_id in job_ids)
    assert receiver.times_each() == {1}
    assert waiting(app) == 0


def test_an_ending_that_cannot_be_written_down_to_be_told_is_not_acknowledged(
    own_start: Start, receiver: Receiver, session: str
) -> None:
    app = own_start({"url": receiver.url})
    caller = Caller(app, session)
    job_id = caller.create().id

    def execute(sql: str) -> None:
        app.run(app.app.writer.chore(lambda: app.app.store.database.execute_sql(sql) and None))

    execute("CREATE TRIGGER full BEFORE INSERT ON notice BEGIN SELECT RAISE(ABORT, 'full'); END")
    with pytest.raises(grpc.RpcError) as caught:
        caller.finish(job_id)
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
    assert caller.get(job_id).status == job_pb2.JOB_STATUS_RUNNING
    execute("DROP TRIGGER full")
    caller.finish(job_id)
    caller.finish(job_id)
    deliver(app)
    assert receiver.subjects == [job_id]


def test_what_was_received_and_not_answered_comes_again_under_its_id(
    start: Start, receiver: Receiver, session: str
) -> None:
    receiver.status = 0
    app = start({"url": receiver.url})
    job_id = Caller(app, session).create().id
    Caller(app, session).finish(job_id)
    deliver(app)
    receiver.status = 200
    deliver(app, 60)
    first, second = receiver.received
    assert (first.id, first.body) == (second.id, second.body)
    assert first.event()["subject"] == job_id
    deliver(app, 4000)
    assert len(receiver.received) == 2


def test_a_receiver_is_told_of_what_it_asked_for(start: Start, session: str) -> None:
    with Receiver() as failures, Receiver() as imports, Receiver() as named, Receiver() as all_of_it:
        app = start(
            {"url": failures.url, "events": ["failed", "lost"]},
            {"url": imports.url, "labels": {"kind": "import", "site": "north"}},
            {"url": named.url, "name": "Nightly *"},
            {"url": all_of_it.url},
        )
        caller = Caller(app, session)
        nightly = caller.create(name="Nightly run", labels={"kind": "import"})
        north = caller.create(name="nightly run", labels={"kind": "import", "site": "north", "x": "y"})
        caller.finish(nightly.id)
        caller.fail(north.id)
        deliver(app)
        assert failures.subjects == [north.id]
        assert imports.subjects == [north.id]
        assert named.subjects == [nightly.id]
        assert sorted(all_of_it.subjects) == sorted([nightly.id, north.id])
        # One id for all who are told of the same.
        assert failures.received[0].id == imports.received[0].id


def test_attempts_grow_rarer_until_it_is_given_up(
    start: Start, receiver: Receiver, session: str, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.status = 500
    app = start({"url": receiver.url}, arguments=("--notice-lifetime", "1d"))
    caller = Caller(app, session)
    caller.finish(caller.create().id)
    times: list[int] = []
    for minute in range(25 * 60):
        deliver(app, 60)
        if len(receiver.received) > len(times):
            times.append(minute)
    gaps = [later - earlier for earlier, later in pairwise(times)]
    # Half an hour to an hour apart in the end, and not all alike.
    assert max(gaps) <= 61
    assert all(gap >= 29 for gap in gaps[12:])
    assert len(set(gaps[12:])) > 1
    assert 25 < len(times) < 60
    app.run(app.app.notices.tidy())
    assert waiting(app) == 0
    assert [record.message for record in caplog.records if record.name == "headway_server.notices"] == [
        f"notices to http://127.0.0.1:{receiver.port}: it answered 500; trying again",
        f"notices to http://127.0.0.1:{receiver.port}: gave up 1 that could not be delivered in time",
    ]


def test_a_receiver_says_when_it_wants_to_be_asked_again(own_start: Start, receiver: Receiver, session: str) -> None:
    receiver.status, receiver.headers = 503, {"Retry-After": "300"}
    app = own_start({"url": receiver.url})
    caller = Caller(app, session)
    caller.finish(caller.create().id)
    deliver(app)
    caller.finish(caller.create().id)
    deliver(app, 299)
    assert len(receiver.received) == 1
    receiver.status = 200
    deliver(app, 2)
    assert len(receiver.received) == 3


@pytest.mark.parametrize(
    ("retry_after", "seconds"),
    [
        ("0", 0),
        ("300", 300),
        (formatdate(NOON / MICROSECONDS + 300, usegmt=True), 300),
        (formatdate(NOON / MICROSECONDS - 300, usegmt=True), 0),
        ("999999999999999999999", 3600),
        ("-5", 0),
        ("1e9", 0),
        ("²", 0),
        ("soon", 0),
        ("Fri, 99 Foo 99999999999999999999 00:00:00 GMT", 0),
        ("Fri, 01 Jan 99999999999999999999 00:00:00 GMT", 0),
        ("Fri, 01 Jan 0001 00:00:00 +2359", 0),
        ("", 0),
    ],
)
def test_what_retry_after_asks_for(retry_after: str, seconds: int) -> None:
    assert asked_wait(retry_after, NOON) == seconds * MICROSECONDS


def test_a_receiver_that_fails_is_asked_gently_however_many_notices_wait(
    own_start: Start, receiver: Receiver, session: str
) -> None:
    receiver.status = 503
    app = own_start({"url": receiver.url})
    caller = Caller(app, session)
    job_ids = caller.create_many(40)
    for job_id in job_ids:
        caller.finish(job_id)
    for _ in range(100):
        deliver(app, 3)
    # Some at first, until it has failed; from then on one at a time, at most half a minute apart.
    assert 10 <= len(receiver.received) <= 8 + 300 / 15 + 5
    receiver.received.clear()
    receiver.status = 200
    deliver(app, 30)
    assert len(receiver.received) >= 20
    deliver(app, 3600)
    assert sorted(receiver.subjects) == sorted(job_ids)


def test_a_notice_that_a_receiver_refuses_holds_up_no_other(own_start: Start, receiver: Receiver, session: str) -> None:
    app = own_start({"url": receiver.url})
    caller = Caller(app, session)
    refused, *others = caller.create_many(12)
    receiver.disliked = refused
    for job_id in (refused, *others):
        caller.finish(job_id)
    deliver(app)
    assert set(receiver.subjects) >= set(others)
    deliver(app, 60)
    last = caller.create().id
    caller.finish(last)
    deliver(app, 30)
    deliver(app)
    taken = [subject for subject in receiver.subjects if subject != refused]
    assert sorted(taken) == sorted([*others, last])


def test_gone_ends_it_until_the_next_start(
    start: Start, receiver: Receiver, session: str, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.status = 410
    app = start({"url": receiver.url})
    caller = Caller(app, session)
    job_ids = caller.create_many(2)
    caller.finish(job_ids[0])
    deliver(app)
    receiver.status = 200
    caller.finish(job_ids[1])
    deliver(app, 7200)
    assert receiver.subjects == job_ids[:1]
    assert "410 Gone" in caplog.text
    again = start({"url": receiver.url})
    deliver(again, 7200)
    assert sorted(receiver.subjects[1:]) == sorted(job_ids)


def test_no_redirect_is_followed(own_start: Start, receiver: Receiver, session: str) -> None:
    with Receiver() as elsewhere:
        receiver.status, receiver.headers = 307, {"Location": elsewhere.url}
        app = own_start({"url": receiver.url})
        caller = Caller(app, session)
        caller.finish(caller.create().id)
        deliver(app)
        deliver(app, 60)
        assert len(receiver.received) == 2
        assert elsewhere.received == []


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
    assert "its name stands for no address that notices may be sent to" in caplog.text
    assert waiting(app) == 1


async def test_the_address_that_was_checked_is_the_one_that_is_used(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_up = []

    async def getaddrinfo(host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        looked_up.append(host)
        return [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in ("169.254.169.254", "127.0.0.1")
        ]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
    poster = Poster(private=True)
    answer = await poster.post(f"http://receiver.test:{receiver.port}/", {"webhook-id": "1"}, b"{}")
    assert answer.status == 204
    assert receiver.received[0].headers["host"] == f"receiver.test:{receiver.port}"
    assert looked_up == ["receiver.test"]
    with pytest.raises(NoAnswer, match="no address that notices may be sent to"):
        await Poster(private=False).post(f"https://receiver.test:{receiver.port}/", {}, b"")
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
        ("2002:a9fe:a9fe::", False, False),
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
        ("64:ff9b:1::a9fe:a9fe", False, False),
        ("100.100.100.201", False, True),
        ("fd00:ec2::255", False, True),
        ("2001:0:4136:e378:8000:63bf:3fff:fdd2", False, False),
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
            assert (await Poster(private=True).post(url, {}, b"{}")).status == 200
        else:
            with pytest.raises(NoAnswer):
                await Poster(private=True).post(url, {}, b"{}")
    # What the system itself buffers, and no more.
    assert sent < 8_000_000


def test_an_error_is_told_with_its_details(own_start: Start, receiver: Receiver, session: str) -> None:
    app = own_start({"url": receiver.url})
    job = Caller(app, session).create()
    error = status_pb2.Status(code=13, message="broke")
    error.details.add().Pack(error_details_pb2.ErrorInfo(reason="DISK"))
    error.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(seconds=3)))
    app.stub.FailJob(pb.FailJobRequest(session_id=session, job_id=job.id, error=error))
    deliver(app)
    (request,) = receiver.received
    assert request.event()["data"]["error"] == {
        "code": 13,
        "message": "broke",
        "details": [
            {"@type": error.details[0].type_url, "reason": "DISK", "domain": "", "metadata": {}},
            {"@type": error.details[1].type_url, "retryDelay": "3s"},
        ],
    }


def test_several_secrets_each_sign(own_start: Start, receiver: Receiver, session: str, tmp_path: Path) -> None:
    new = "whsec_" + base64.b64encode(bytes(range(32))).decode()
    (tmp_path / "secrets").write_text(f"{new}\n{SECRET}\n")
    app = own_start({"url": receiver.url, "secret_file": str(tmp_path / "secrets")})
    caller = Caller(app, session)
    caller.finish(caller.create().id)
    deliver(app)
    (request,) = receiver.received
    assert request.event(new) == request.event(SECRET)
    with pytest.raises(WebhookVerificationError):
        request.event("whsec_" + base64.b64encode(bytes(32)).decode())


def test_the_outbox_does_not_grow_for_ever(start: Start, receiver: Receiver, session: str) -> None:
    app = start({"url": receiver.url}, arguments=("--max-pending-notices", "10"))
    caller = Caller(app, session)
    receiver.stop()
    job_ids = caller.create_many(25)
    for job_id in job_ids:
        caller.finish(job_id)
        app.clock.forward(0.01)
    app.run(app.app.notices.tidy())
    assert waiting(app) == 10
    receiver.start()
    for _ in range(12):
        deliver(app, 5)
    assert sorted(receiver.subjects) == sorted(job_ids[-10:])


def test_the_page_about_notices_keeps_its_word(own_start: Start, session: str, tmp_path: Path) -> None:
    page = (Path(__file__).parent.parent / "docs" / "notices.md").read_text()
    (config,) = re.findall(r"^```toml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    (script,) = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    (tmp_path / "secret").write_text(SECRET)
    (tmp_path / "page.toml").write_text(config.replace("/etc/headway/notices.secret", str(tmp_path / "secret")))
    assert len(read(["--config", str(tmp_path / "page.toml")], {}).notices) == 2
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    environment = os.environ | {"SECRET": SECRET, "PORT": str(port)}
    app = own_start({"url": f"http://127.0.0.1:{port}/"})
    caller = Caller(app, session)
    command = [sys.executable, "-c", script]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as receiver:
        try:
            until(lambda: listens(port))
            for name in ("first", "second"):
                caller.finish(caller.create(name=name).id)
                deliver(app)
            assert receiver.stdout is not None
            assert receiver.stdout.readline() == "dev.headway.job.completed first\n"
            assert receiver.stdout.readline() == "dev.headway.job.completed second\n"
            assert waiting(app) == 0
        finally:
            receiver.kill()


def listens(port: int) -> bool:
    """Whether somebody listens there."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_where_nobody_is_told_nothing_is_written(database: str, session: str) -> None:
    with RunningApp(database) as app:
        caller = Caller(app, session)
        caller.finish(caller.create().id)
        assert waiting(app) == 0
