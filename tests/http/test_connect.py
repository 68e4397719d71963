"""The Connect protocol: what is its own and not said by the tests of the RPCs."""

import base64
import gzip
import json
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format
from google.rpc import error_details_pb2

from headway.v1 import job_pb2
from headway.v1 import job_service_pb2 as pb
from headway_server.rpc.to_proto import CODES
from headway_server.settings import Settings
from tests.support.app import RunningApp
from tests.support.caller import Caller, seconds, value
from tests.support.http import STREAM, Client, enveloped
from tests.support.http_channel import told
from tests.support.methods import FULL, METHODS
from tests.support.refusals import from_error
from tests.support.waiting import until, watchers_gone

ABSENT = "0" * 32

STATUSES = {
    "JOB_NOT_FOUND": 404,
    "JOB_ALREADY_EXISTS": 409,
    "JOB_ENDED": 400,
    "INVALID_REQUEST": 400,
    "MALFORMED_MESSAGE": 400,
    "REVISION_MISMATCH": 409,
    "CREDENTIALS_INVALID": 401,
    "SCOPE_MISSING": 403,
    "DEADLINE_PASSED": 504,
}


def test_a_job_is_answered_in_the_json_of_protobuf(client: Client, caller: Caller) -> None:
    """Names in camelCase, 64 bits as text, enums by name, and what is not set by its default."""
    job = caller.create(size=5, name="Import")
    answer = client.call("GetJob", {"session_id": caller.session, "jobId": job.id})
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    found = answer.json
    assert json_format.ParseDict(found, job_pb2.Job()) == job
    assert (found["size"], found["progress"], found["status"]) == ("5", "0", "JOB_STATUS_RUNNING")
    assert (found["errorCount"], found["stalled"], found["labels"]) == ("0", False, {})
    assert "error" not in found and "endTime" not in found


def test_whole_numbers_of_results_come_back_as_they_came(client: Client, caller: Caller) -> None:
    job = caller.create()
    results = {"added": 1180, "share": 0.5, "big": 1e300, "list": [1, 2.0, -3], "none": None, "zero": 0}
    client.call("FinishJob", {"sessionId": caller.session, "jobId": job.id, "results": results})
    answer = client.call("GetResults", {"sessionId": caller.session, "jobId": job.id})
    assert json.loads(answer.body)["results"] == results
    assert b"1180.0" not in answer.body and b"-3.0" not in answer.body


def test_both_spellings_of_a_field_are_understood(client: Client, session: str) -> None:
    for name in ("heartbeat_timeout", "heartbeatTimeout"):
        answer = client.call("CreateJob", {"session_id": session, name: "60s"})
        assert answer.json["heartbeatTimeout"] == "60s"


@pytest.mark.parametrize("method", [name for name, method in METHODS.items() if not method.server_streaming])
def test_protobuf_goes_in_and_out(client: Client, caller: Caller, method: str) -> None:
    """application/proto is the very bytes of gRPC."""
    job = caller.create(job_id="0123456789abcdef" * 2) if method != "CreateJob" else None
    text = json.dumps(FULL[method]).replace("SESSION", caller.session)
    kind = METHODS[method]
    request = json_format.Parse(text, getattr(pb, kind.input_type.name)())
    answer = client.call(method, request.SerializeToString(), content_type="application/proto")
    assert (answer.status, answer.headers["content-type"]) == (200, "application/proto")
    if kind.output_type.name == "Job":
        found = job_pb2.Job.FromString(answer.body)
        assert found.id == (job.id if job is not None else "0123456789abcdef" * 2)


@pytest.mark.parametrize("reason", STATUSES)
def test_a_refusal_has_its_status_and_its_details(client: Client, caller: Caller, reason: str) -> None:
    job = caller.finish(caller.create(job_id="a" * 32).id)
    session = {"sessionId": caller.session}
    calls: dict[str, tuple[str, object, dict[str, str]]] = {
        "JOB_NOT_FOUND": ("GetJob", {**session, "jobId": ABSENT}, {}),
        "JOB_ALREADY_EXISTS": ("CreateJob", {**session, "jobId": job.id, "name": "other"}, {}),
        "JOB_ENDED": ("ReportProgress", {**session, "jobId": job.id}, {}),
        "INVALID_REQUEST": ("GetJob", {**session, "jobId": "x"}, {}),
        "MALFORMED_MESSAGE": ("GetJob", b"{", {}),
        "REVISION_MISMATCH": ("UpdateJob", {**session, "job": {"id": job.id, "name": "n"}, "revision": "99"}, {}),
        "CREDENTIALS_INVALID": ("GetJob", {**session, "jobId": job.id}, {"authorization": "Bearer wrong"}),
        "SCOPE_MISSING": ("GetJob", {"sessionId": "-", "jobId": job.id}, {}),
        "DEADLINE_PASSED": ("GetJob", {**session, "jobId": job.id}, {"connect_timeout_ms": "0"}),
    }
    method, body, headers = calls[reason]
    answer = client.call(method, body, **headers)
    assert answer.status == STATUSES[reason]
    assert answer.refusal.reason == reason
    assert answer.json["code"].upper() == answer.refusal.code
    assert CODES[reason]
    assert ("www-authenticate" in answer.headers) == (answer.status == 401)
    for detail in answer.json["details"]:
        assert not detail["value"].endswith("="), "base64 is unpadded"
    info = next(d for d in answer.json["details"] if d["type"] == "google.rpc.ErrorInfo")
    assert info["debug"] == {"reason": reason, "domain": "headway"}
    raw = base64.b64decode(info["value"] + "=" * (-len(info["value"]) % 4))
    assert error_details_pb2.ErrorInfo.FromString(raw).reason == reason


def test_a_refusal_that_passes_says_when(own_app: Any, session: str) -> None:
    from headway_server.domain.limits import Limits

    client = Client(own_app(Limits(session_jobs=1)).app.http_address)
    client.call("CreateJob", {"sessionId": session})
    answer = client.call("CreateJob", {"sessionId": session})
    assert (answer.status, answer.refusal.reason) == (429, "SESSION_JOBS_LIMIT")
    assert 60 <= int(answer.headers["retry-after"]) <= 90, "each is told another time, so that not all return at once"
    client.close()


def test_a_fault_of_the_servers_own_tells_its_number_and_nothing_else(
    app: RunningApp, client: Client, caller: Caller, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("SELECT secret FROM /etc/passwd")

    job = caller.create()
    monkeypatch.setattr(app.app.store, "variables", broken)
    answer = client.call("GetVariables", {"sessionId": caller.session, "jobId": job.id})
    assert (answer.status, answer.json["code"]) == (500, "internal")
    assert "secret" not in answer.body.decode()
    assert answer.json["details"][0]["debug"]["metadata"]["error_id"] in caplog.text


def test_the_version_of_the_protocol(client: Client, caller: Caller) -> None:
    body = {"sessionId": caller.session, "jobId": caller.create().id}
    assert client.call("GetJob", body, connect_protocol_version="1").status == 200
    answer = client.call("GetJob", body, connect_protocol_version="2")
    assert (answer.status, answer.refusal.reason) == (415, "FORMAT_UNSUPPORTED")


@pytest.mark.parametrize(
    "kind",
    [
        "",
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/connect+json",
        "application/grpc",
        "application/json; charset=latin-1",
        "application/jsonx",
        "application/xml",
    ],
)
def test_a_content_type_that_is_not_understood(client: Client, caller: Caller, kind: str) -> None:
    body = {"sessionId": caller.session}
    answer = client.call("CreateJob", body, content_type=kind)
    assert (answer.status, answer.refusal.reason) == (415, "FORMAT_UNSUPPORTED")
    assert list(caller.list().jobs) == []


@pytest.mark.parametrize("kind", ["application/json; charset=utf-8", 'Application/JSON;charset="UTF-8"; x=y'])
def test_a_content_type_that_says_more(client: Client, session: str, kind: str) -> None:
    assert client.call("CreateJob", {"sessionId": session}, content_type=kind).status == 200


# Deadlines.


def test_a_deadline_passes(client: Client, caller: Caller) -> None:
    job = caller.create()
    body = {"sessionId": caller.session, "jobId": job.id, "afterRevision": "1", "wait": "60s"}
    began = time.monotonic()
    answer = client.call("GetJob", body, connect_timeout_ms="150")
    assert 0.1 < time.monotonic() - began < 5
    assert (answer.status, answer.refusal.reason) == (504, "DEADLINE_PASSED")
    until(lambda: watchers_gone(caller.app))


@pytest.mark.parametrize("text", ["x", "-1", "1.5", "", "12345678901", "1s", "٣"])
def test_what_is_no_deadline(client: Client, session: str, text: str) -> None:
    headers = [("content-type", "application/json"), ("connect-timeout-ms", text)]
    encoded = [(name, each.encode("utf-8").decode("latin-1")) for name, each in headers]
    answer = client.send("POST", "/headway.v1.JobService/CreateJob", encoded, b'{"sessionId":"s"}')
    assert (answer.status, answer.refusal.reason) == (400, "MALFORMED_MESSAGE")


def test_the_longest_deadline(client: Client, session: str) -> None:
    assert client.call("CreateJob", {"sessionId": session}, connect_timeout_ms="9999999999").status == 200


# Compression.


def test_a_compressed_request(client: Client, session: str) -> None:
    body = gzip.compress(json.dumps({"sessionId": session, "name": "n"}).encode())
    assert client.call("CreateJob", body, content_encoding="gzip").json["name"] == "n"


def test_a_compressed_answer(client: Client, caller: Caller) -> None:
    """If the caller takes it, and it is worth it."""
    job = caller.create()
    caller.finish(job.id, value({"text": "x" * 100_000}))
    body = {"sessionId": caller.session, "jobId": job.id}
    plain = client.call("GetResults", body)
    assert "content-encoding" not in plain.headers
    zipped = client.call("GetResults", body, accept_encoding="br, gzip")
    assert zipped.headers["content-encoding"] == "gzip"
    assert gzip.decompress(zipped.body) == plain.body
    small = client.call("GetJob", body, accept_encoding="gzip")
    assert "content-encoding" not in small.headers
    assert "content-encoding" not in client.call("GetResults", body, accept_encoding="br").headers


@pytest.mark.parametrize("coding", ["br", "zstd", "deflate", "x"])
def test_a_compression_that_is_not_understood(client: Client, session: str, coding: str) -> None:
    answer = client.call("CreateJob", {"sessionId": session}, content_encoding=coding)
    assert (answer.status, answer.refusal.code) == (415, "UNIMPLEMENTED")
    assert "gzip" in answer.refusal.message


def test_what_is_not_compressed_as_it_says(client: Client, caller: Caller) -> None:
    whole = gzip.compress(json.dumps({"sessionId": caller.session}).encode())
    for bad in (b"{}", whole[:-1], whole + b"x", whole[:11] + b"\xff" + whole[12:]):
        answer = client.call("CreateJob", bad, content_encoding="gzip")
        assert (answer.status, answer.refusal.reason) == (400, "MALFORMED_MESSAGE")
    assert list(caller.list().jobs) == []


def test_a_bomb_does_not_go_off(client: Client) -> None:
    """200 MB in 200 kB."""
    answer = client.call("CreateJob", gzip.compress(b" " * 200_000_000, 9), content_encoding="gzip")
    assert (answer.status, answer.refusal.reason) == (413, "MESSAGE_TOO_LARGE")


# Size.


def test_what_is_too_large(client: Client, session: str) -> None:
    """Said by its length, or in chunks."""
    large = json.dumps({"sessionId": session, "name": "x" * 4 * 1024 * 1024}).encode()
    answer = client.call("CreateJob", large)
    assert (answer.status, answer.refusal.reason) == (413, "MESSAGE_TOO_LARGE")
    assert client.call("ListJobs", {"sessionId": session}).status == 200, "the connection goes on"
    chunked = b"%x\r\n%s\r\n0\r\n\r\n" % (len(large), large)
    answer = client.call("CreateJob", chunked, transfer_encoding="chunked")
    assert (answer.status, answer.refusal.reason) == (413, "MESSAGE_TOO_LARGE")


# Streams.


def test_a_stream_has_its_end_within_it(client: Client, caller: Caller) -> None:
    job = caller.finish(caller.create().id)
    answer = client.stream("WatchJob", {"sessionId": caller.session, "jobId": job.id})
    assert answer.headers["content-type"] == "application/connect+json"
    (state,), end = answer.messages
    assert json_format.ParseDict(state["job"], job_pb2.Job()) == job
    assert end == {}


def test_a_stream_that_fails_says_so_at_its_end(client: Client, session: str) -> None:
    answer = client.stream("WatchJob", {"sessionId": session, "jobId": ABSENT})
    states, end = answer.messages
    assert states == []
    assert from_error(told(end["error"])).reason == "JOB_NOT_FOUND"


def test_a_stream_that_is_refused_before_the_call_says_so_too(client: Client, caller: Caller) -> None:
    request = {"sessionId": caller.session, "jobId": caller.create().id}
    for headers, reason in (
        ({"authorization": "Bearer wrong"}, "CREDENTIALS_INVALID"),
        ({"connect_timeout_ms": "0"}, "DEADLINE_PASSED"),
        ({"connect_timeout_ms": "100"}, "DEADLINE_PASSED"),
        ({"connect_content_encoding": "br"}, "FORMAT_UNSUPPORTED"),
        ({"connect_protocol_version": "2"}, "FORMAT_UNSUPPORTED"),
    ):
        _, end = client.stream("WatchJob", request, **headers).messages
        assert from_error(told(end["error"])).reason == reason
    assert client.stream("WatchJob", request, content_type="application/json").status == 415


def test_a_stream_is_open_before_there_is_anything_to_say(client: Client, caller: Caller) -> None:
    """So that a page knows that it listens."""
    import http.client

    connection = http.client.HTTPConnection(caller.app.app.http_address, timeout=10)
    request = enveloped({"sessionId": caller.session})
    connection.request("POST", "/headway.v1.JobService/WatchJobs", request, dict(STREAM))
    response = connection.getresponse()
    assert response.status == 200
    job = caller.create()
    head = response.read(5)
    assert json.loads(response.read(int.from_bytes(head[1:], "big")))["job"]["id"] == job.id
    connection.close()
    response.close()
    until(lambda: watchers_gone(caller.app))


def test_messages_of_a_stream_may_be_compressed(client: Client, caller: Caller) -> None:
    job = caller.finish(caller.create().id)
    raw = gzip.compress(json.dumps({"sessionId": caller.session, "jobId": job.id}).encode())
    answer = client.send(
        "POST",
        "/headway.v1.JobService/WatchJob",
        [*STREAM.items(), ("connect-content-encoding", "gzip")],
        enveloped(raw, 1),
    )
    assert answer.messages[1] == {}


@pytest.mark.parametrize(
    "body",
    [
        b"\0",
        b"\0\0\0\0\5{}",
        b"\0\0\0\0\2{}x",
        b"\1\0\0\0\2{}",
        b"\2\0\0\0\2{}",
        b"\x80\0\0\0\2{}",
        b"\0\0\0\0\1{",
        b"{}",
    ],
)
def test_what_is_no_envelope(client: Client, body: bytes) -> None:
    answer = client.send("POST", "/headway.v1.JobService/WatchJob", STREAM.items(), body)
    states, end = answer.messages
    assert states == []
    assert from_error(told(end["error"])).reason == "MALFORMED_MESSAGE"


@pytest.mark.parametrize("count", [0, 2, 3])
def test_one_message_is_wanted(client: Client, count: int) -> None:
    """The Connect protocol calls this unimplemented."""
    states, end = client.stream("WatchJob", *[{"sessionId": "s"}] * count).messages
    assert states == []
    refusal = from_error(told(end["error"]))
    assert (refusal.code, refusal.reason) == ("UNIMPLEMENTED", "FORMAT_UNSUPPORTED")


def test_an_envelope_that_is_too_large(client: Client) -> None:
    """By what it says, before it is read."""
    answer = client.send("POST", "/headway.v1.JobService/WatchJob", STREAM.items(), b"\0\xff\xff\xff\xff{}")
    assert from_error(told(answer.messages[1]["error"])).reason == "MESSAGE_TOO_LARGE"


def test_many_reports_go_in_one_request(client: Client, caller: Caller) -> None:
    """StreamProgress over HTTP/1.1: all requests, then all acknowledgements."""
    job = caller.create()
    reports = [
        {"reports": [{"sessionId": caller.session, "jobId": job.id, "advance": "1", "sequence": str(n)}]}
        for n in range(1, 51)
    ]
    answers, end = client.stream("StreamProgress", *reports).messages
    assert end == {}
    assert answers[-1]["acked"] == "50"
    assert caller.get(job.id).progress == 50


def test_a_watch_whose_caller_leaves_is_gone(client: Client, caller: Caller) -> None:
    import http.client

    job = caller.create()
    for method, body in (
        ("WatchJob", enveloped({"sessionId": caller.session, "jobId": job.id})),
        ("GetJob", json.dumps({"sessionId": caller.session, "jobId": job.id, "afterRevision": 1, "wait": "60s"})),
    ):
        connection = http.client.HTTPConnection(caller.app.app.http_address, timeout=10)
        kind = STREAM if method == "WatchJob" else {"content-type": "application/json"}
        connection.request("POST", f"/headway.v1.JobService/{method}", body, dict(kind))
        until(lambda: not watchers_gone(caller.app))
        connection.close()
        until(lambda: watchers_gone(caller.app))


def test_a_long_poll(client: Client, caller: Caller) -> None:
    job = caller.create()
    answer = client.call("GetJob", {"sessionId": caller.session, "jobId": job.id, "afterRevision": 1, "wait": "0.02s"})
    assert answer.json["revision"] == "1"
    assert seconds(1).seconds == 1


@pytest.mark.parametrize(
    ("accepted", "zipped"),
    [
        ("gzip", True),
        ("br, gzip;q=0.5", True),
        ("*", True),
        ("gzip;q=0", False),
        ("gzip ; Q=0.000, *", False),
        ("identity, *;q=0", False),
        ("gzipped", False),
        ("", False),
    ],
)
def test_an_answer_is_compressed_only_if_the_caller_takes_that(
    client: Client, caller: Caller, accepted: str, zipped: bool
) -> None:
    job = caller.create()
    caller.finish(job.id, value("x" * 20_000))
    request = {"sessionId": caller.session, "jobId": job.id}
    answer = client.call("GetResults", request, accept_encoding=accepted)
    assert (answer.headers.get("content-encoding") == "gzip") == zipped
    page = client.get("/", accept_encoding=accepted)
    assert (page.headers.get("content-encoding") == "gzip") == zipped


@pytest.mark.parametrize("charset", ["utf-8", "UTF-8", '"utf-8"', "utf8"])
def test_utf_8_may_be_named_as_others_do(client: Client, charset: str) -> None:
    kind = f"application/json; charset={charset}"
    assert client.call("ListJobs", {"sessionId": "s"}, content_type=kind).status == 200


def test_a_oneof_given_twice_is_refused_by_its_name(client: Client, caller: Caller) -> None:
    job = caller.create()
    request = {"sessionId": caller.session, "jobId": job.id, "progress": 1, "advance": 1}
    refusal = client.call("ReportProgress", request).refusal
    assert (refusal.reason, refusal.fields) == ("INVALID_REQUEST", {"amount"})
    assert caller.get(job.id).progress == 0


def test_an_unknown_name_of_an_enum_is_refused_by_its_field(client: Client) -> None:
    refusal = client.call("ListJobs", {"sessionId": "s", "statuses": ["JOB_STATUS_RUNNING", "RUNNING"]}).refusal
    assert (refusal.reason, refusal.fields) == ("INVALID_REQUEST", {"statuses"})
    assert "JOB_STATUS_RUNNING" in refusal.message


def test_an_idle_watch_says_that_it_is_alive(tmp_path: Path) -> None:
    """An empty message, which proxies take for traffic and callers for nothing."""
    settings = Settings(stream_heartbeat=50_000)
    with RunningApp(f"sqlite:///{tmp_path / 'headway.db'}", settings=settings) as app:
        caller = Caller(app, "s")
        job = caller.create()
        ended = threading.Timer(1, caller.finish, (job.id,))
        ended.start()
        with closing(Client(app.app.http_address)) as client:
            messages, end = client.stream("WatchJob", {"sessionId": "s", "jobId": job.id}).messages
        ended.join()
    assert "error" not in end
    assert [message["job"]["status"] for message in messages if message] == [
        "JOB_STATUS_RUNNING",
        "JOB_STATUS_COMPLETED",
    ]
    assert messages.count({}) >= 3
