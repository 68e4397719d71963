"""What pages of other sites, and names that were rebound to this address, get from the HTTP transport: nothing."""

import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support.app import RunningApp
from tests.support.caller import Caller
from tests.support.http import JSON, Client, enveloped
from tests.support.methods import METHODS

CREATE = "/headway.v1.JobService/CreateJob"

STAFF = "https://staff.example.org"


@pytest.fixture
def open_to_staff(own_app: Callable[..., RunningApp]) -> Iterator[Client]:
    """A server that answers pages of STAFF, and is reached as headway.example.org."""
    client = Client(own_app(http_origins=(STAFF,), http_hosts=("headway.example.org",)).app.http_address)
    yield client
    client.close()


def port(app: RunningApp) -> str:
    return app.app.http_address.rpartition(":")[2]


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:{port}",
        "127.0.0.1.evil.example:{port}",
        "localhost.evil.example",
        "127.0.0.2:{port}",
        "0.0.0.0:{port}",
        "10.0.0.1",
        "[::2]:{port}",
        "localhost:evil",
        "127.0.0.1@evil.example",
        "",
        "localhost ",
        "headway.example.org",
    ],
)
def test_by_a_foreign_name_nothing_is_had(app: RunningApp, client: Client, caller: Caller, host: str) -> None:
    """A name that was rebound to this address makes a foreign page same-origin with it: the Host gives it away."""
    given = [("host", host.format(port=port(app)))]
    for answer in (
        client.send("POST", CREATE, [*given, *JSON.items()], json.dumps({"sessionId": caller.session}).encode()),
        client.send("GET", "/", given),
        client.send("GET", "/metrics", given),
    ):
        if host == "localhost ":
            continue  # HTTP cuts blanks off.
        assert (answer.status, answer.refusal.reason) == (403, "SITE_REFUSED")
        assert "--http-hosts" in answer.refusal.message
    if host != "localhost ":
        assert list(caller.list().jobs) == []


@pytest.mark.parametrize("host", ["127.0.0.1:{port}", "localhost:{port}", "LOCALHOST", "localhost", "[::1]:{port}"])
def test_by_its_own_names_it_is_had(app: RunningApp, client: Client, session: str, host: str) -> None:
    given = [("host", host.format(port=port(app)))]
    assert client.send("GET", "/", given).status == 200
    body = json.dumps({"sessionId": session}).encode()
    assert client.send("POST", CREATE, [*given, *JSON.items()], body).status == 200


def test_by_names_that_the_operator_gave(open_to_staff: Client) -> None:
    assert open_to_staff.get("/", host="headway.example.org").status == 200
    assert open_to_staff.get("/", host="Headway.Example.Org:443").status == 200
    assert open_to_staff.get("/", host="other.example.org").status == 403


FOREIGN: dict[str, dict[str, str]] = {
    "another site": {"origin": "https://evil.example", "sec_fetch_site": "cross-site"},
    "another site of an old browser": {"origin": "https://evil.example"},
    "another port": {"origin": "http://127.0.0.1:1", "sec_fetch_site": "same-site"},
    "another name of this machine": {"origin": "http://localhost:{port}", "sec_fetch_site": "cross-site"},
    "a sandboxed frame": {"origin": "null", "sec_fetch_site": "cross-site"},
    "a file": {"origin": "null"},
    "an empty origin": {"origin": ""},
    "a page that hides its origin": {"sec_fetch_site": "cross-site"},
    "a subdomain": {"sec_fetch_site": "same-site"},
    "this origin, and yet not": {"origin": "http://127.0.0.1:{port}", "sec_fetch_site": "cross-site"},
    "a longer name": {"origin": "http://127.0.0.1:{port}.evil.example"},
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_pages_of_other_origins_call_in_vain(app: RunningApp, client: Client, caller: Caller, kind: str) -> None:
    headers = {name: text.format(port=port(app)) for name, text in FOREIGN[kind].items()}
    body = {"sessionId": caller.session}
    for answer in (
        client.call("CreateJob", body, **headers),
        client.post("/poll", {**body, "jobId": "0" * 32}, **headers),
        client.stream("WatchJobs", body, **headers),
        client.send("OPTIONS", CREATE, [(n.replace("_", "-"), v) for n, v in headers.items()]),
    ):
        assert (answer.status, answer.refusal.reason) == (403, "SITE_REFUSED")
        assert not [name for name in answer.headers if name.startswith("access-control")]
    assert list(caller.list().jobs) == []


def test_what_a_page_can_send_without_asking_is_no_call(client: Client, caller: Caller) -> None:
    """Forms and simple requests have three content types, none of which is understood; whatever the headers say."""
    body = json.dumps({"sessionId": caller.session}).encode()
    simple = ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "text/plain;application/json")
    for kind in simple:
        assert client.call("CreateJob", body, content_type=kind).status == 415
    assert client.send("POST", CREATE, [], body).status == 415
    assert list(caller.list().jobs) == []


def test_the_page_itself_calls(app: RunningApp, client: Client, session: str) -> None:
    own = {"origin": f"http://127.0.0.1:{port(app)}", "sec_fetch_site": "same-origin"}
    answer = client.call("CreateJob", {"sessionId": session}, **own)
    assert answer.status == 200
    assert "access-control-allow-origin" not in answer.headers


def test_public_files_are_for_all(client: Client) -> None:
    """A script of ours may stand in any page; what it then may call is another matter."""
    for path in ("/", "/openapi.json"):
        answer = client.get(path, origin="https://evil.example", sec_fetch_site="cross-site")
        assert answer.status == 200
        assert answer.headers["cross-origin-resource-policy"] == "cross-origin"
        assert "access-control-allow-origin" not in answer.headers
    assert client.get("/metrics", origin="https://evil.example").status == 403


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_metrics_are_for_no_foreign_page(client: Client, site: str) -> None:
    """An <img> or a <script> of another site sends no Origin."""
    assert client.get("/metrics", sec_fetch_site=site).refusal.reason == "SITE_REFUSED"
    for own in ("same-origin", "none"):
        assert client.get("/metrics", sec_fetch_site=own).status == 200


def test_pages_that_the_operator_named_may_call(open_to_staff: Client, session: str) -> None:
    """After the browser has asked, and with a token if they have one."""
    asked = open_to_staff.send(
        "OPTIONS",
        CREATE,
        [
            ("origin", STAFF),
            ("access-control-request-method", "POST"),
            ("access-control-request-headers", "content-type,connect-protocol-version,authorization"),
        ],
    )
    assert asked.status == 200
    assert asked.headers["access-control-allow-origin"] == STAFF
    assert "authorization" in asked.headers["access-control-allow-headers"].lower()
    assert "access-control-allow-credentials" not in asked.headers
    answer = open_to_staff.call("CreateJob", {"sessionId": session}, origin=STAFF, sec_fetch_site="cross-site")
    assert answer.status == 200
    assert answer.headers["access-control-allow-origin"] == STAFF
    refused = open_to_staff.call("GetJob", {}, origin=STAFF)
    assert (refused.status, refused.headers["access-control-allow-origin"]) == (400, STAFF)
    for other in ("https://staff.example.org.evil.example", "http://staff.example.org", "https://example.org"):
        assert open_to_staff.call("CreateJob", {"sessionId": session}, origin=other).status == 403
    assert f"frame-ancestors 'self' {STAFF}" in open_to_staff.get("/").headers["content-security-policy"]


VERBS = ["GET", "HEAD", "PUT", "DELETE", "PATCH", "TRACE", "OPTIONS", "QUERY", "post", "X"]


@pytest.mark.parametrize("verb", VERBS)
def test_methods_are_called_with_post_alone(client: Client, verb: str) -> None:
    for path in (CREATE, "/poll"):
        answer = client.send(verb, path)
        assert answer.status == 405
        assert answer.headers["allow"] == "POST"


@pytest.mark.parametrize("verb", ["POST", "PUT", "DELETE", "PATCH"])
def test_files_are_read_alone(client: Client, verb: str) -> None:
    for path in ("/", "/metrics", "/healthz", "/readyz", "/openapi.json"):
        assert client.send(verb, path, JSON.items(), b"{}").status == 405


def test_no_header_changes_the_verb(client: Client, caller: Caller) -> None:
    for name in ("x-http-method-override", "x-http-method", "x-method-override"):
        answer = client.send("GET", CREATE, [(name, "POST"), *JSON.items()], b'{"sessionId":"s"}')
        assert answer.status == 405
        assert client.send("POST", "/", [(name, "GET"), *JSON.items()], b"{}").status == 405


@pytest.mark.parametrize(
    "path",
    [
        "/nothing",
        "//",
        "/../etc/passwd",
        "/..%2f..%2fetc%2fpasswd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/..\\..\\etc\\passwd",
        "/index.html",
        "/index.html%00.js",
        "/%00",
        "/.git/config",
        "/__init__.py",
        "/headway.v1.JobService",
        "/headway.v1.JobService/",
        "/headway.v1.JobService/getjob",
        "/headway.v1.JobService/GetJob/",
        "/headway.v1.JobService/GetJob%2f",
        "/headway.v1.JobService%2fGetJob",
        "/headway.v1.JobService//GetJob",
        "//headway.v1.JobService/GetJob",
        "/./headway.v1.JobService/GetJob",
        "/headway.v1.JobService/%47etJob",
        "/headway.v1.JobService/__class__",
        "/headway.v1.JobService/close_streams",
        "/google.longrunning.Operations/GetOperation",
        "/grpc.channelz.v1.Channelz/GetServers",
        "/" + "x" * 5000,
    ],
)
def test_there_is_nothing_anywhere_else(client: Client, path: str) -> None:
    for verb, body in (("GET", None), ("POST", b"{}")):
        answer = client.send(verb, path, JSON.items(), body)
        assert (answer.status, answer.refusal.reason) == (404, "METHOD_UNKNOWN")


def test_a_query_changes_nothing(client: Client, session: str) -> None:
    assert client.post(f"{CREATE}?sessionId=other", {"sessionId": session}).status == 200
    assert client.get("/?x=1").status == 200


def test_every_answer_is_safe_to_show(client: Client, session: str) -> None:
    for answer in (
        client.get("/"),
        client.get("/nothing"),
        client.get("/healthz"),
        client.call("CreateJob", {"sessionId": session}),
        client.call("CreateJob", {"sessionId": ""}),
        client.get("/", host="evil.example"),
    ):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy and "frame-ancestors 'self'" in policy
        assert "server" not in answer.headers
    assert client.call("CreateJob", {"sessionId": session}).headers["cache-control"] == "no-store"


def test_a_token_is_given_once(app: RunningApp, client: Client, caller: Caller) -> None:
    job = caller.create()
    good = ("authorization", f"Bearer {app.app.admin_token}")
    body = json.dumps({"sessionId": "-", "jobId": job.id}).encode()
    path = "/headway.v1.JobService/GetJob"
    assert client.send("POST", path, [*JSON.items(), good], body).status == 200
    for bad in ([good, good], [("authorization", "Basic x"), good], [("authorization", "")]):
        answer = client.send("POST", path, [*JSON.items(), *bad], body)
        assert (answer.status, answer.refusal.reason) == (401, "CREDENTIALS_INVALID")


def test_the_session_id_stands_in_no_answer_and_no_log(
    app: RunningApp, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    secret = "planted-secret-4c1f0a9d"
    job = client.call("CreateJob", {"sessionId": secret}).json["id"]
    said: list[Any] = []
    for method, descriptor in METHODS.items():
        body = {"sessionId": secret, "jobId": job}
        if method in ("CreateJob", "ListJobs", "WatchJobs"):
            body.pop("jobId")
        if descriptor.server_streaming:
            said.append(client.stream(method, body, connect_timeout_ms="100"))
        else:
            said.append(client.call(method, body))
    said += [
        client.post("/poll", {"sessionId": secret, "jobId": job}),
        client.call("GetJob", {"sessionId": secret, "jobId": 5}),
        client.call("GetJob", {"sessionId": [secret], "jobId": job}),
        client.call("GetJob", {"sessionId": secret + "\0", "jobId": job}),
        client.call("GetJob", f'{{"sessionId":"{secret}"'.encode()),
        client.send("POST", "/headway.v1.JobService/WatchJob", JSON.items(), enveloped({"sessionId": secret})),
        client.get("/metrics"),
    ]
    for answer in said:
        assert secret not in repr(answer.headers) and secret.encode() not in answer.body
    assert job not in client.get("/metrics").body.decode()
    assert secret not in caplog.text and app.app.admin_token not in caplog.text
