"""The service explains itself: a real grpcurl, without any files, drives every RPC; health and channelz answer."""

import importlib
import json
import shutil
import subprocess
import threading
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import json_format
from grpc_channelz.v1 import channelz_pb2, channelz_pb2_grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from headway.v1 import job_pb2
from tests.conftest import missing
from tests.support.app import RunningApp
from tests.support.caller import Caller
from tests.support.methods import FULL, METHODS, SERVICE, good
from tests.support.refusals import from_error

SERVICES = {
    "grpc.channelz.v1.Channelz",
    "google.longrunning.Operations",
    "grpc.health.v1.Health",
    "grpc.reflection.v1alpha.ServerReflection",
    SERVICE.full_name,
}


@pytest.fixture(scope="session")
def grpcurl() -> str:
    folders = [Path(__file__).parents[2] / ".tools" / "bin", Path.home() / "go" / "bin"]
    found = shutil.which("grpcurl") or next((str(f / "grpcurl") for f in folders if (f / "grpcurl").exists()), None)
    if found is None:
        missing("grpcurl (go install github.com/fullstorydev/grpcurl/cmd/grpcurl@latest)")
    assert found is not None
    return found


def run(grpcurl: str, app: RunningApp, *arguments: str, data: object = None) -> subprocess.CompletedProcess[str]:
    flags = ["-plaintext", "-max-time", "10"]
    if data is not None:
        flags += ["-d", json.dumps(data)]
    *options, last = arguments if len(arguments) > 1 else ("", *arguments)
    return subprocess.run(
        [grpcurl, *flags, *[option for option in options if option], app.address, last],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def answers(result: subprocess.CompletedProcess[str]) -> list[Any]:
    """The JSON documents on standard output."""
    assert result.returncode == 0, result.stderr
    return documents(result.stdout)


def documents(text: str) -> list[Any]:
    decoder, found, position = json.JSONDecoder(), [], 0
    while text[position:].strip():
        position += len(text[position:]) - len(text[position:].lstrip())
        document, position = decoder.raw_decode(text, position)
        found.append(document)
    return found


def test_the_services_are_listed(grpcurl: str, app: RunningApp) -> None:
    assert set(run(grpcurl, app, "list").stdout.split()) == SERVICES


def test_every_method_is_described(grpcurl: str, app: RunningApp) -> None:
    result = subprocess.run(
        [grpcurl, "-plaintext", app.address, "describe", SERVICE.full_name],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    for method in METHODS:
        assert f"rpc {method} (" in result.stdout


def test_every_method_has_a_request() -> None:
    assert FULL.keys() == METHODS.keys()


@pytest.mark.parametrize("method", METHODS)
def test_every_method_answers_to_grpcurl(grpcurl: str, caller: Caller, method: str) -> None:
    """With JSON in and JSON out, and not one proto file."""
    job_id = "0" * 31 + "1" if method == "CreateJob" else caller.create(name="n", invoker="i", labels={"l": "v"}).id
    if method == "WatchJob":
        caller.finish(job_id)
    data = json_format.MessageToDict(good(method, caller.session, job_id), preserving_proto_field_name=True)
    if "update_mask" in data:
        # grpcurl knows the long form of a mask alone.
        data["update_mask"] = {"paths": data["update_mask"].split(",")}
    options = ["-max-time", "2"] if method == "WatchJobs" else []
    result = run(grpcurl, caller.app, *options, f"{SERVICE.full_name}/{method}", data=data)
    if method == "WatchJobs":
        # It would go on for ever: what it said until then is what counts.
        (answer,) = documents(result.stdout)
        assert answer["job"]["id"] == job_id, result
        assert answer.get("resume_token") or answer.get("resumeToken")
        return
    (answer,) = answers(result)
    match method:
        case "ClearJob":
            assert answer == {}
        case "StreamProgress":
            assert answer["acked"] == "1"
            assert caller.get(job_id).progress == 5
        case "ReportProgress":
            assert (answer["progress"], answer["status"]) == ("5", "JOB_STATUS_RUNNING")
        case "ListJobs":
            assert [job["id"] for job in answer["jobs"]] == [job_id]
        case "WatchJob":
            assert answer["job"]["status"] == "JOB_STATUS_COMPLETED"
        case "GetVariables" | "GetResults" | "ListRecordErrors":
            assert isinstance(answer, dict)
        case _:
            assert json_format.ParseDict(answer, job_pb2.Job()) == caller.get(job_id)


def test_a_refusal_can_be_read(grpcurl: str, caller: Caller) -> None:
    """Its code, its sentence and its reason, without any files."""
    data = {"session_id": caller.session, "job_id": "0" * 32}
    result = run(grpcurl, caller.app, f"{SERVICE.full_name}/GetJob", data=data)
    assert result.returncode != 0
    for part in ("NotFound", "There is no such job", "JOB_NOT_FOUND", "headway"):
        assert part in result.stderr


def test_health_answers(app: RunningApp) -> None:
    """For the server and for the service; an unknown one is NOT_FOUND."""
    stub = health_pb2_grpc.HealthStub(app.channel)
    for name in ("", SERVICE.full_name):
        answer = stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=10)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    watch = stub.Watch(health_pb2.HealthCheckRequest(), timeout=10)
    assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
    watch.cancel()


def test_health_asks_nobody_who_they_are(app: RunningApp) -> None:
    """A load balancer has no token, or a wrong one."""
    stub = health_pb2_grpc.HealthStub(app.channel)
    wrong = (("authorization", "Bearer wrong"),)
    answer = stub.Check(health_pb2.HealthCheckRequest(), metadata=wrong, timeout=10)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_health_and_channelz_answer_to_grpcurl(grpcurl: str, app: RunningApp) -> None:
    (health,) = answers(run(grpcurl, app, "grpc.health.v1.Health/Check", data={}))
    assert health == {"status": "SERVING"}
    (servers,) = answers(run(grpcurl, app, "grpc.channelz.v1.Channelz/GetServers", data={}))
    assert servers["server"]


def test_channelz_counts_calls(caller: Caller) -> None:
    """And says nothing of what they carried."""
    stub = channelz_pb2_grpc.ChannelzStub(caller.app.channel)

    def started() -> int:
        servers = stub.GetServers(channelz_pb2.GetServersRequest(), timeout=10).server
        return sum(server.data.calls_started for server in servers)

    before = started()
    caller.create(name="secret name")
    assert started() >= before + 2
    sockets = stub.GetServers(channelz_pb2.GetServersRequest(), timeout=10)
    assert "secret name" not in str(sockets)
    assert caller.session not in str(sockets)


MISSING = {
    "GetServer": channelz_pb2.GetServerRequest(server_id=2**62),
    "GetServerSockets": channelz_pb2.GetServerSocketsRequest(server_id=2**62),
    "GetChannel": channelz_pb2.GetChannelRequest(channel_id=2**62),
    "GetSubchannel": channelz_pb2.GetSubchannelRequest(subchannel_id=2**62),
    "GetSocket": channelz_pb2.GetSocketRequest(socket_id=2**62),
}


@pytest.mark.parametrize("method", MISSING)
def test_channelz_says_what_does_not_exist(app: RunningApp, method: str) -> None:
    stub = channelz_pb2_grpc.ChannelzStub(app.channel)
    with pytest.raises(grpc.RpcError) as refused:
        getattr(stub, method)(MISSING[method], timeout=10)
    assert refused.value.code() == grpc.StatusCode.NOT_FOUND
    assert refused.value.details()


def test_channelz_holds_nobody_up(app: RunningApp, caller: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    """One answer is made at a time, off the event loop; of those that wait some are refused."""
    go = threading.Event()
    together = threading.Lock()
    overlaps: list[bool] = []
    cygrpc = importlib.import_module("grpc._cython.cygrpc")
    look_up = cygrpc.channelz_get_servers

    def slow(start: int) -> object:
        overlaps.append(not together.acquire(blocking=False))
        assert go.wait(30)
        together.release()
        return look_up(start)

    monkeypatch.setattr(cygrpc, "channelz_get_servers", slow)
    stub = channelz_pb2_grpc.ChannelzStub(app.channel)
    calls = [stub.GetServers.future(channelz_pb2.GetServersRequest(), timeout=30) for _ in range(20)]
    try:
        caller.create()
    finally:
        go.set()
    reasons = [from_error(error).reason for call in calls if (error := call.exception()) is not None]
    assert 0 < len(reasons) < len(calls)
    assert set(reasons) == {"OVERLOADED"}
    assert not any(overlaps)
