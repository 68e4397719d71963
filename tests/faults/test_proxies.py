"""Headway behind the proxies of examples/proxies: calls, and streams that are idle for long."""

import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import grpc
import pytest

from headway.v1 import job_pb2
from headway.v1 import job_service_pb2 as pb
from headway.v1.job_service_pb2_grpc import JobServiceStub
from tests.conftest import missing
from tests.support import proxies
from tests.support.http import Client
from tests.support.postgres import Postgres
from tests.support.proxies import Proxy
from tests.support.server import ServerProcess

SETTINGS = ("--session-key", "5e" * 32, "--stream-heartbeat", "1s", "--longest-poll", "2s")

Pair = tuple[ServerProcess, ServerProcess]


@pytest.fixture(scope="module")
def servers(postgresql: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Two servers on one database."""
    url = postgresql.database()
    folders = [tmp_path_factory.mktemp("server") for _ in range(2)]
    with (
        ServerProcess(folders[0], *SETTINGS, database=url) as one,
        ServerProcess(folders[1], *SETTINGS, database=url) as other,
    ):
        yield one, other


@pytest.fixture(params=["nginx", "haproxy"])
def proxy(request: pytest.FixtureRequest, servers: Pair, tmp_path: Path) -> Iterator[Proxy]:
    if proxies.find(request.param) is None:
        missing(f"{request.param} (Debian: apt-get install {request.param})")
    with proxies.running(
        request.param,
        tmp_path,
        [server.address for server in servers],
        [server.http_address for server in servers],
        timeout="3s",
    ) as running:
        yield running


def test_calls_streams_and_watches_pass(proxy: Proxy, session: str) -> None:
    with grpc.insecure_channel(proxy.grpc) as channel:
        stub = JobServiceStub(channel)
        job = stub.CreateJob(pb.CreateJobRequest(session_id=session, size=100), timeout=10)
        watch = stub.WatchJob(pb.WatchJobRequest(session_id=session, job_id=job.id), timeout=30)
        assert next(watch).job.revision == 1
        report = pb.ReportProgressRequest(session_id=session, job_id=job.id, advance=1)
        requests = (pb.StreamProgressRequest(reports=[report] * 10) for _ in range(10))
        assert max(response.acked for response in stub.StreamProgress(requests, timeout=10)) == 10
        stub.FinishJob(pb.FinishJobRequest(session_id=session, job_id=job.id), timeout=10)
        *_, final = watch
        assert (final.job.status, final.job.progress) == (job_pb2.JOB_STATUS_COMPLETED, 100)
    with closing(Client(proxy.http)) as client:
        assert client.call("GetJob", {"sessionId": session, "jobId": job.id}).json["progress"] == "100"


def finish(proxy: Proxy, request: dict[str, str]) -> None:
    """On a connection of its own: the proxy closes those that nobody uses."""
    with closing(Client(proxy.http)) as client:
        assert client.call("FinishJob", request).status == 200


def test_an_idle_stream_outlives_the_timeout_of_the_proxy(proxy: Proxy, session: str) -> None:
    """The proxy cuts what is silent for 3 s: the server sends an empty message every second."""
    with closing(Client(proxy.http)) as client, closing(Client(proxy.http)) as watcher:
        job = client.call("CreateJob", {"sessionId": session}).json
        ended = threading.Timer(5, finish, (proxy, {"sessionId": session, "jobId": job["id"]}))
        ended.start()
        messages, end = watcher.stream("WatchJob", {"sessionId": session, "jobId": job["id"]}).messages
        ended.join()
    assert "error" not in end, end
    states = [message["job"]["status"] for message in messages if message]
    assert states == ["JOB_STATUS_RUNNING", "JOB_STATUS_COMPLETED"]
    assert {} in messages, "nothing was sent while the job was idle"


def test_a_long_poll_is_answered_within_the_timeout_of_the_proxy(proxy: Proxy, session: str) -> None:
    with closing(Client(proxy.http)) as client:
        job = client.call("CreateJob", {"sessionId": session}).json
        request = {"sessionId": session, "jobId": job["id"], "afterRevision": job["revision"], "wait": "60s"}
        assert client.call("GetJob", request).json == job
