"""No caller sees, changes, counts or learns of another session's job; and a session id is a secret."""

import base64
import subprocess
import unicodedata
from collections.abc import Callable, Iterator
from typing import Literal
from urllib.parse import quote

import grpc
import peewee
import pytest

from headway.v1 import job_pb2
from headway.v1 import job_service_pb2 as pb
from tests.support.app import RunningApp
from tests.support.caller import TIMEOUT, Caller, Responses, seconds, value
from tests.support.methods import METHODS, SERVICE, UNNAMED, Answer, call, good
from tests.support.refusals import Refusal, faults, outcome

ABSENT = "0" * 32

STATES: dict[str, Callable[[Caller, str], object]] = {
    "PENDING": lambda caller, job_id: None,
    "RUNNING": lambda caller, job_id: caller.start(job_id),
    "COMPLETED": lambda caller, job_id: (caller.start(job_id), caller.finish(job_id, value({"secret": 1}))),
    "FAILED": lambda caller, job_id: (caller.start(job_id), caller.fail(job_id)),
    "cancelled by nobody yet": lambda caller, job_id: (caller.start(job_id), caller.cancel(job_id, "secret", 600)),
}


def ask(caller: Caller, method: str, job_id: str) -> Answer:
    return call(caller.app, method, good(method, caller.session, job_id).SerializeToString())


def test_every_method_is_looked_at() -> None:
    """A new RPC either names a job that must be there, or is one of the three that have tests of their own below."""
    assert {"CreateJob", "ListJobs", "WatchJobs"} == UNNAMED
    for name, method in METHODS.items():
        fields = method.input_type.fields_by_name
        names_job = any(field in fields for field in ("job_id", "job", "reports"))
        assert names_job or name in UNNAMED, f"{name} needs a case here"


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("method", sorted(METHODS.keys() - UNNAMED))
def test_not_yours_is_answered_as_not_there(caller: Caller, stranger: Caller, method: str, state: str) -> None:
    """Byte for byte, whatever the state of the job, and the job is as it was."""
    job_id = stranger.create(pending=True, name="secret").id
    stranger.set(job_id, {"secret": 1})
    STATES[state](stranger, job_id)
    before = stranger.get(job_id)
    foreign, absent = ask(caller, method, job_id), ask(caller, method, ABSENT)
    assert isinstance(foreign, Refusal)
    assert (foreign.code, foreign.reason) == ("NOT_FOUND", "JOB_NOT_FOUND")
    assert foreign == absent
    assert stranger.get(job_id) == before
    assert stranger.variables(job_id) == {"secret": 1}


def test_clearing_what_may_be_missing_tells_nothing(caller: Caller, stranger: Caller) -> None:
    job = stranger.create()
    caller.clear(job.id, allow_missing=True)
    caller.clear(ABSENT, allow_missing=True)
    assert stranger.get(job.id) == job


def test_choosing_a_foreign_id_tells_nothing(caller: Caller, stranger: Caller) -> None:
    """(session, id) is the key: both have their own job, and neither sees the other's."""
    theirs = stranger.create(name="theirs", labels={"a": "1"})
    mine = caller.create(job_id=theirs.id, name="mine")
    assert (mine.revision, mine.name) == (1, "mine")
    caller.report(mine.id, progress=5, record_errors=[job_pb2.RecordError(record="mine")])
    caller.set(mine.id, {"mine": 1})
    caller.finish(mine.id, value("mine"))
    assert stranger.get(theirs.id) == theirs
    assert stranger.variables(theirs.id) == {}
    assert stranger.errors(theirs.id).total == 0
    assert not stranger.results(theirs.id).HasField("results")
    assert [job.id for job in stranger.list(labels={"a": "1"}).jobs] == [theirs.id]
    assert list(caller.list(labels={"a": "1"}).jobs) == []
    stranger.clear(theirs.id)
    assert caller.get(mine.id).name == "mine"
    assert caller.variables(mine.id) == {"mine": 1}
    assert caller.errors(mine.id).total == 1


def test_lists_and_watches_hold_ones_own_jobs_alone(caller: Caller, stranger: Caller) -> None:
    """Foreign jobs are neither shown nor counted: pages and filters know nothing of them."""
    mine = [caller.create(name="same", labels={"a": "1"}).id]
    stranger.create_many(7, name="same", labels={"a": "1"})
    mine.append(caller.create(name="same", labels={"a": "1"}).id)
    for wanted in ({}, {"name": "same"}, {"labels": {"a": "1"}}, {"statuses": [job_pb2.JOB_STATUS_RUNNING]}):
        page = caller.list(page_size=2, **wanted)
        assert [job.id for job in page.jobs] == mine[::-1]
        assert page.next_page_token == ""
    watch = caller.watch_all()
    assert {next(watch).job.id for _ in mine} == set(mine)
    stranger.report(stranger.create().id, progress=1)
    stranger.clear(stranger.create().id)
    caller.report(mine[0], progress=1)
    assert next(watch).job.id == mine[0]
    watch.cancel()


def test_a_foreign_watch_does_not_change_ones_pace(caller: Caller, stranger: Caller) -> None:
    """Two jobs with one id: whether the other is watched is nobody's business."""
    mine = caller.create()
    stranger.create(job_id=mine.id)
    before = caller.report(mine.id).next_report_after
    watch = stranger.watch(mine.id)
    next(watch)
    session_watch = stranger.watch_all()
    next(session_watch)
    assert caller.report(mine.id).next_report_after == before
    watch.cancel()
    session_watch.cancel()


def variants(session: str) -> Iterator[str]:
    """What a careless comparison would take for the same session."""
    yield session.upper()
    yield session.lower()
    yield session.swapcase()
    yield session + " "
    yield " " + session
    yield session + "\u00a0"
    yield session + "\u200b"
    yield session[:-1]
    yield session + "x"
    yield session[1:]
    yield session[:-1] + "%"
    yield session[:-1] + "_"
    yield "%"
    yield "_" * len(session)
    yield session + "%"
    yield "*"
    yield unicodedata.normalize("NFC", session)
    yield unicodedata.normalize("NFD", session)
    yield unicodedata.normalize("NFKC", session)
    yield session.replace("ß", "ss")
    yield session.replace("é", "e")
    yield session.replace("ı", "i")
    yield quote(session)
    yield f'"{session}"'


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_what_is_like_a_session_is_another_session(caller: Caller, form: Literal["NFC", "NFD"]) -> None:
    session = unicodedata.normalize(form, f"Straße-é-ı-ﬁ-{caller.session}-Z")
    owner = Caller(caller.app, session)
    job = owner.create(name="secret")
    others = {text for text in variants(session) if text != session}
    assert len(others) > 20
    for other in others:
        someone = Caller(caller.app, other)
        assert outcome(someone.get, job.id) == "JOB_NOT_FOUND", other
        assert job.id not in {found.id for found in someone.list().jobs}, other
    assert owner.get(job.id) == job


def test_what_is_like_an_id_is_no_job(caller: Caller) -> None:
    job = caller.create(job_id="abcdef0123456789" * 2)
    digits = job.id
    assert outcome(lambda: caller.get(digits[:-1] + "8")) == "JOB_NOT_FOUND"
    assert outcome(lambda: caller.get(digits[::-1])) == "JOB_NOT_FOUND"
    for like in (
        digits.upper(),
        digits + " ",
        " " + digits,
        digits[:-1],
        digits + "0",
        digits[:-1] + "%",
        digits + "\n",
    ):
        assert faults(caller.get, like) == {"job_id"}


# The session id is a secret.


def disguises(secret: str) -> Iterator[bytes]:
    """A text as it may stand in bytes: plain, in hexadecimal, percent-encoded, in base64 at each offset."""
    raw = secret.encode()
    yield raw
    yield raw.hex().encode()
    yield quote(secret).encode()
    for offset in range(3):
        whole = base64.b64encode(b"\0" * offset + raw)
        # What lies wholly within the text is the same whatever stands around it.
        yield whole[4 if offset else 0 : len(whole) // 4 * 4 - 8]
        yield base64.urlsafe_b64encode(b"\0" * offset + raw)[4 if offset else 0 : len(whole) // 4 * 4 - 8]


def decoded(blob: bytes) -> bytes:
    """The blob, and what its base64 pieces hold (page and resume tokens are made so)."""
    words = bytes(b if chr(b).isalnum() or b in b"-_+/" else 32 for b in blob).split()
    pieces = [
        base64.b64decode(word + b"=" * (-len(word) % 4), altchars=b"-_")
        for word in words
        if len(word) > 20 and len(word) % 4 != 1
    ]
    return b"\n".join([blob, *pieces])


def everything_said(app: RunningApp, session: str) -> Iterator[bytes]:
    """All that every RPC says of a session: replies, refusals, leading and trailing metadata."""
    caller = Caller(app, session)
    caller.create_many(3)

    def whole(method: str, request: bytes) -> bytes:
        path, descriptor = f"/{SERVICE.full_name}/{method}", METHODS[method]
        said = []
        if descriptor.client_streaming:
            streams: Callable[..., Responses[bytes]] = app.channel.stream_stream(path)
            running = streams(iter([request]), timeout=TIMEOUT)
        else:
            # A unary call is a stream of one: so its metadata can be read when it fails, too.
            watching: Callable[..., Responses[bytes]] = app.channel.unary_stream(path)
            running = watching(request, timeout=TIMEOUT)
        try:
            for response in running:
                said.append(response)
                if method == "WatchJobs" and len(said) == 3:
                    running.cancel()
                    return b"\n".join(said)
        except grpc.RpcError:
            pass
        metadata = [*(running.initial_metadata() or ()), *(running.trailing_metadata() or ())]
        for key, content in metadata:
            said += [key.encode(), content if isinstance(content, bytes) else content.encode()]
        said.append((running.details() or "").encode())
        return b"\n".join(said)

    for method in METHODS:
        if method == "WatchJob":
            job_id = caller.finish(caller.create().id).id
        else:
            job_id = caller.create(heartbeat_timeout=seconds(60)).id
        yield whole(method, good(method, session, job_id if method != "CreateJob" else "e" * 32).SerializeToString())
        yield whole(method, good(method, session, ABSENT).SerializeToString()) if method not in UNNAMED else b""
        yield whole(method, good(method, session, "malformed").SerializeToString()) if method not in UNNAMED else b""
        yield whole(method, good(method, session + "\0", job_id).SerializeToString())
    yield whole("ListJobs", pb.ListJobsRequest(session_id=session, page_size=1).SerializeToString())
    yield whole("ListJobs", pb.ListJobsRequest(session_id=session, page_token=session).SerializeToString())
    yield whole("WatchJobs", pb.WatchJobsRequest(session_id=session, resume_token=session).SerializeToString())


def test_no_reply_holds_the_session_id(app: RunningApp, caplog: pytest.LogCaptureFixture) -> None:
    """Nor any refusal, metadata, token or line of the log, in whatever encoding."""
    caplog.set_level("DEBUG")
    for secret in ("planted-secret-f81d4fae7dec11d0a765", "gepflanztes Geheimnis äöü-日本-f81d4fae7dec"):
        found = b"\n".join(map(decoded, everything_said(app, secret)))
        assert len(found) > 5000
        for disguise in disguises(secret):
            assert disguise not in found
        assert secret not in caplog.text
    assert b"f81d4fae" not in found


def stored(app: RunningApp) -> bytes:
    """Every byte that the database holds."""
    database = app.app.store.database
    if isinstance(database, peewee.SqliteDatabase):
        # By another process: to open and close the file in this one would drop the server's locks.
        files = [f"{database.database}{suffix}" for suffix in ("", "-wal")]
        return subprocess.run(["cat", *files], capture_output=True, check=True).stdout
    import psycopg

    with psycopg.connect(app.app.settings.database) as connection:
        tables = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
        assert len(tables) >= 6
        rows = [connection.execute(f'SELECT t::text FROM "{name}" t').fetchall() for (name,) in tables]
    return repr(rows).encode()


def test_no_table_holds_the_session_id(app: RunningApp) -> None:
    """Nor its hash without the server's key; what the job itself holds is there, so the search can find something."""
    secret = "planted-secret-9b2e7c51d3f04a68"
    caller = Caller(app, secret)
    job = caller.create(name="a name that is stored", job_id="5e" * 16)
    caller.report(job.id, progress=1, record_errors=[job_pb2.RecordError(record="a record that is stored")])
    caller.set(job.id, {"a": "a variable that is stored"})
    caller.finish(job.id, value("a result that is stored"))
    caller.clear(caller.create().id)
    found = stored(app)
    for text in ("name", "record", "variable", "result"):
        assert f"a {text} that is stored".encode() in found
    for disguise in disguises(secret):
        assert disguise not in found
    caller.clear(job.id)
