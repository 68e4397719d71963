"""What operators and load balancers ask: is it alive, is it ready, how much does it do."""

import time
from collections.abc import Callable

import pytest
from prometheus_client.parser import text_string_to_metric_families

from headway.v1 import job_service_pb2 as pb
from headway_server.domain.errors import DatabaseUnavailable
from headway_server.resources.call_statistics import CallStatistics
from tests.support.app import RunningApp
from tests.support.caller import Caller
from tests.support.http import Client
from tests.support.waiting import held_commits


def numbers(client: Client) -> dict[str, float]:
    """Every sample by its name and labels."""
    answer = client.get("/metrics")
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    found = {}
    for family in text_string_to_metric_families(answer.body.decode()):
        for sample in family.samples:
            labels = ",".join(f"{name}={sample.labels[name]}" for name in sorted(sample.labels))
            found[f"{sample.name}{{{labels}}}"] = sample.value
    return found


def calls(transport: str, method: str, code: str) -> str:
    return f"headway_calls_total{{code={code},door={transport},method={method},service=headway.v1.JobService}}"


def test_alive_and_ready(client: Client) -> None:
    assert client.get("/healthz").body == b"alive\n"
    assert client.get("/readyz").body == b"ready\n"
    for path in ("/healthz", "/readyz"):
        assert client.get(path, host="some-pod.cluster.local").status == 200
        assert client.get(path, authorization="Bearer wrong").status == 200


def test_not_ready_while_the_database_does_not_answer(app: RunningApp, client: Client) -> None:
    app.run(app.app._note_database(DatabaseUnavailable()))
    try:
        answer = client.get("/readyz")
        assert (answer.status, answer.refusal.reason) == (503, "DATABASE_UNAVAILABLE")
        assert client.get("/healthz").status == 200
        assert numbers(client)["headway_ready{}"] == 0
    finally:
        app.run(app.app._note_database(None))
    assert client.get("/readyz").status == 200


def test_calls_are_counted_by_transport_method_and_code(client: Client, caller: Caller) -> None:
    before = numbers(client)
    job = caller.create()
    body = {"sessionId": caller.session, "jobId": job.id}
    client.call("GetJob", body)
    client.post("/poll", body)
    client.call("GetJob", {**body, "jobId": "0" * 32})
    client.call("GetJob", b"{")
    client.call("GetJob", body, authorization="Bearer wrong")
    client.stream("WatchJob", body, connect_timeout_ms="50")
    after = numbers(client)

    def grown(name: str) -> float:
        return after.get(name, 0) - before.get(name, 0)

    assert grown(calls("grpc", "CreateJob", "OK")) == 1
    assert grown(calls("http", "GetJob", "OK")) == 2
    assert grown(calls("http", "GetJob", "NOT_FOUND")) == 1
    assert grown(calls("http", "GetJob", "INVALID_ARGUMENT")) == 1
    assert grown(calls("http", "GetJob", "UNAUTHENTICATED")) == 1
    assert grown(calls("http", "WatchJob", "DEADLINE_EXCEEDED")) == 1
    labels = "door=http,method=GetJob,service=headway.v1.JobService"
    assert grown(f"headway_call_seconds_count{{{labels}}}") == 5
    assert 0 < grown(f"headway_call_seconds_sum{{{labels}}}") < 5


def test_commits_and_what_waits_for_them(app: RunningApp, client: Client, caller: Caller) -> None:
    before = numbers(client)
    with held_commits(app) as wait_for:
        pending = [app.stub.CreateJob.future(pb.CreateJobRequest(session_id=caller.session)) for _ in range(5)]
        wait_for(5)
        held = numbers(client)
        assert held["headway_writes_waiting{}"] == 6
        assert held["headway_write_load{}"] > 0
    for call in pending:
        call.result()
    after = numbers(client)
    assert after["headway_writes_waiting{}"] == 0
    assert after["headway_commit_calls_sum{}"] - before["headway_commit_calls_sum{}"] == 6
    assert after["headway_commit_seconds_count{}"] > before["headway_commit_seconds_count{}"]


def test_watches_files_and_the_process(client: Client, caller: Caller) -> None:
    watch = caller.watch(caller.create().id)
    next(watch)
    found = numbers(client)
    watch.cancel()
    assert found["headway_watches{}"] == 1
    assert found["headway_http_connections{}"] >= 1
    assert found["headway_ready{}"] == 1
    assert found["headway_info{database=sqlite,version=0.1.0}"] == 1
    assert found["headway_database_bytes{file=database}"] > 0
    assert found["headway_database_bytes{file=wal}"] > 0
    assert found["process_resident_memory_bytes{}"] > 1e6


def test_to_be_counted_costs_next_to_nothing() -> None:
    """A call is counted in about a microsecond."""
    statistics = CallStatistics()
    best = min(_seconds(statistics) for _ in range(5))
    assert best / 10_000 < 5e-6


def _seconds(statistics: CallStatistics) -> float:
    began = time.perf_counter()
    for _ in range(10_000):
        statistics.add(0, 0.0017)
    return time.perf_counter() - began


def test_where_others_reach_it_operators_need_the_scope_read(
    own_app: Callable[..., RunningApp], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On an address that is not loopback; such a one is not opened for a test."""
    monkeypatch.setattr("headway_server.app.is_loopback", lambda _: False)
    app = own_app()
    client = Client(app.app.http_address)
    for path in ("/metrics", "/readyz"):
        assert client.get(path).status == 200, "without a token one is an ordinary caller, who may read"
        refused = client.get(path, authorization="Bearer wrong")
        assert (refused.status, refused.refusal.reason) == (401, "CREDENTIALS_INVALID")
        assert client.get(path, authorization=f"Bearer {app.app.admin_token}").status == 200
    assert client.get("/healthz", authorization="Bearer wrong").status == 200
    client.close()
