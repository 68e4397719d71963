"""What receivers of webhooks are told."""

import base64
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import grpc
import pytest
from google.protobuf import duration_pb2
from google.rpc import error_details_pb2, status_pb2
from standardwebhooks import WebhookVerificationError

from headway.v1 import job_pb2
from headway.v1 import job_service_pb2 as pb
from headway_server.service.sealed_tokens import SessionHasher
from headway_server.settings import read
from tests.support.app import RunningApp
from tests.support.caller import Caller, value
from tests.support.receiver import SECRET, Receiver
from tests.support.waiting import until
from tests.support.webhooks import Start, deliver, execute, waiting

SESSION_KEY = bytes.fromhex("5e" * 32)
"""RunningApp's."""


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


def test_an_ending_that_cannot_be_written_down_to_be_told_is_not_acknowledged(
    own_start: Start, receiver: Receiver, session: str
) -> None:
    app = own_start({"url": receiver.url})
    caller = Caller(app, session)
    job_id = caller.create().id

    execute(app, "CREATE TRIGGER full BEFORE INSERT ON notice BEGIN DELETE FROM missing; END")
    with pytest.raises(grpc.RpcError) as caught:
        caller.finish(job_id)
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
    assert caller.get(job_id).status == job_pb2.JOB_STATUS_RUNNING
    execute(app, "DROP TRIGGER full")
    caller.finish(job_id)
    caller.finish(job_id)
    deliver(app)
    assert receiver.subjects == [job_id]


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


def test_the_page_about_webhooks_keeps_its_word(own_start: Start, session: str, tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "webhooks.md").read_text()
    (config,) = re.findall(r"^```toml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    (script,) = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    (tmp_path / "secret").write_text(SECRET)
    (tmp_path / "page.toml").write_text(config.replace("/etc/headway/webhook.secret", str(tmp_path / "secret")))
    assert len(read(["--config", str(tmp_path / "page.toml")], {}).webhooks) == 2
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
