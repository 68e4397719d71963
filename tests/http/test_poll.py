"""The endpoint for pages that can do no more than poll."""

from headway.v1 import job_pb2
from tests.support.caller import Caller
from tests.support.http import Client


def polled(client: Client, caller: Caller, job_id: str) -> dict[str, object]:
    answer = client.post("/poll", {"session_id": caller.session, "job_id": job_id})
    assert answer.status == 200
    found: dict[str, object] = answer.json
    return found


def test_a_job_in_plain_fields(client: Client, caller: Caller) -> None:
    job = caller.create(name="Import", size=200, unit="records")
    assert polled(client, caller, job.id) == {
        "status": "RUNNING",
        "ended": False,
        "name": "Import",
        "progress": 0,
        "size": 200,
        "unit": "records",
        "percent": 0,
        "message": "",
        "remaining_seconds": None,
        "error_count": 0,
        "error": None,
        "stalled": False,
        "cancel_requested": False,
        "revision": 1,
    }
    caller.report(job.id, progress=199, message="file 2", record_errors=[job_pb2.RecordError(record="x")])
    now = polled(client, caller, job.id)
    assert (now["progress"], now["percent"], now["message"], now["error_count"]) == (199, 99, "file 2", 1)
    caller.cancel(job.id, "enough", 600)
    assert polled(client, caller, job.id)["cancel_requested"] is True
    caller.fail(job.id, 1, "as you like")
    now = polled(client, caller, job.id)
    assert (now["status"], now["ended"], now["error"]) == ("CANCELLED", True, "as you like")


def test_percent_of_what_has_no_size_or_more_than_it(client: Client, caller: Caller) -> None:
    job = caller.create()
    caller.report(job.id, progress=5)
    assert polled(client, caller, job.id)["percent"] is None
    caller.report(job.id, size=4)
    assert polled(client, caller, job.id)["percent"] == 100


def test_it_is_refused_like_any_call(client: Client, caller: Caller) -> None:
    for body, status, reason in (
        ({"session_id": caller.session, "job_id": "0" * 32}, 404, "JOB_NOT_FOUND"),
        ({"session_id": caller.session, "job_id": "x"}, 400, "INVALID_REQUEST"),
        ({"session_id": "-", "job_id": "0" * 32}, 403, "SCOPE_MISSING"),
        ({}, 400, "INVALID_REQUEST"),
        ({"id": "x"}, 400, "INVALID_REQUEST"),
    ):
        answer = client.post("/poll", body)
        assert (answer.status, answer.refusal.reason) == (status, reason)
    assert client.post("/poll", b"", content_type="application/proto").status == 415


def test_it_can_wait(client: Client, caller: Caller) -> None:
    """It takes what GetJob takes: a page can ask less often, and know at once."""
    job = caller.create()
    body = {"session_id": caller.session, "job_id": job.id, "after_revision": 1, "wait": "0.02s"}
    assert client.post("/poll", body).json["revision"] == 1
