"""The guard: every method has its row, and nobody gets past it."""

import grpc
import pytest
from google.protobuf.descriptor import ServiceDescriptor

from headway.v1 import job_service_pb2 as pb
from headway_server import app as application
from headway_server.domain.errors import CredentialsInvalid, MemoryLimit
from headway_server.domain.limits import Limits
from headway_server.resources.budget import Budget
from headway_server.rpc.call_guard import ADMIN, ANYBODY, POLICY, Credentials, Guard, Scope
from headway_server.rpc.grpc_server import handlers
from headway_server.rpc.open_calls import OpenCalls
from tests.support.app import RunningApp

SERVICES = (
    application.JOB_SERVICE,
    application.OPERATIONS,
    application.HEALTH,
    application.REFLECTION,
    application.CHANNELZ,
)


@pytest.mark.parametrize("service", SERVICES, ids=lambda service: str(service.full_name))
def test_every_method_stands_in_the_policy(service: ServiceDescriptor) -> None:
    for method in service.methods:
        assert method.full_name in POLICY


def test_the_policy_names_no_method_that_is_not_served() -> None:
    assert set(POLICY) == {method.full_name for service in SERVICES for method in service.methods}


def test_a_method_without_a_row_cannot_be_served(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = {name: scope for name, scope in POLICY.items() if not name.endswith(".GetJob")}
    monkeypatch.setattr("headway_server.rpc.call_guard.POLICY", rows)

    class Servicer:
        def __getattr__(self, name: str) -> object:
            return lambda *_: None

    unsent = Budget(1, MemoryLimit)
    with pytest.raises(KeyError, match="GetJob"):
        guard = Guard(Credentials("token"), Limits(), lambda: 0.0)
        handlers(guard, OpenCalls(1, unsent), application.JOB_SERVICE, Servicer())


def test_only_health_is_open_to_all() -> None:
    assert {name for name, scope in POLICY.items() if scope is Scope.OPEN} == {
        method.full_name for method in application.HEALTH.methods
    }


@pytest.mark.parametrize(
    "given",
    [
        ["Bearer wrong"],
        ["Bearer "],
        ["Bearer"],
        ["Basic token"],
        [""],
        ["Bearer token", "Bearer token"],
        [b"Bearer token"],
    ],
)
def test_credentials_that_are_not_right_are_refused(given: list[str | bytes]) -> None:
    with pytest.raises(CredentialsInvalid):
        Credentials("token").caller(given)


def test_credentials_tell_who_calls() -> None:
    credentials = Credentials("token")
    assert credentials.caller([]) is ANYBODY
    assert credentials.caller(["Bearer token"]) is ADMIN
    assert credentials.caller(["bearer token"]) is ADMIN


def test_a_fault_of_our_own_tells_a_caller_nothing_but_its_id(
    app: RunningApp, session: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("SELECT secret FROM /etc/passwd")

    job = app.stub.CreateJob(pb.CreateJobRequest(session_id=session))
    monkeypatch.setattr(app.app.store, "variables", broken)
    with pytest.raises(grpc.RpcError) as caught:
        app.stub.GetVariables(pb.GetVariablesRequest(session_id=session, job_id=job.id))
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    details = caught.value.details() or ""
    assert "error id" in details
    assert "secret" not in details
    assert details.rpartition(" ")[2].rstrip(".") in caplog.text
