"""The largest results and variables: what one transport takes, every transport can hand out with default settings; what
is larger is refused before anything is made of it; and the event loop does little of the work."""

import gzip
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any  # headers of requests

import grpc
import pytest
from google.longrunning import operations_pb2_grpc
from google.longrunning import operations_proto_pb2 as operations
from google.protobuf import any_pb2, field_mask_pb2, struct_pb2
from google.rpc import status_pb2

from headway.v1 import job_pb2
from headway.v1 import job_service_pb2 as pb
from headway_server.rpc.json_values import wire
from tests.support.app import RunningApp
from tests.support.caller import Caller, Json
from tests.support.http import PREFIX, STREAM, Client, enveloped
from tests.support.http_channel import told
from tests.support.refusals import faults, from_error

LOOP_SECONDS = 0.2
"""CPU time that the event loop may take for a call, however large; done there, the work takes seconds."""


def nested(depth: int) -> Json:
    found: Json = 0
    for _ in range(depth):
        found = [found]
    return found


READABLE: dict[str, Json] = {
    "numbers": [0] * 99_000,
    "fractions": [0.5] * 99_000,
    "texts": ["a" * 7] * 99_000,
    "lists": [[]] * 99_000,
    "objects": [{"": 0}] * 49_000,
    "lists in lists": [nested(40)] * 2_400,
    "one text": "x" * (1024 * 1024 - 2),
    "characters that JSON escapes": "\x01" * (1024 * 1024 // 6 - 2),
    "numbers beside a text": [*[0] * 99_000, "é" * 400_000],
}


def value(plain: Json) -> struct_pb2.Value:
    return struct_pb2.Value.FromString(wire(plain))


@pytest.fixture
def lro(app: RunningApp) -> Iterator[operations_pb2_grpc.OperationsStub]:
    with grpc.insecure_channel(app.app.address) as channel:
        yield operations_pb2_grpc.OperationsStub(channel)  # type: ignore[no-untyped-call]  # Google's stubs lack it


def loop_seconds(app: RunningApp) -> float:
    """CPU time that the thread of the event loop has taken."""

    async def taken() -> float:
        return time.thread_time()

    return app.run(taken())


@contextmanager
def little_in_the_loop(app: RunningApp) -> Iterator[None]:
    before = loop_seconds(app)
    yield
    assert loop_seconds(app) - before < LOOP_SECONDS


def zipped(plain: object) -> dict[str, Any]:
    """A body, and how it is sent."""
    return {"body": gzip.compress(json.dumps(plain).encode(), 1), "content_encoding": "gzip"}


@pytest.mark.parametrize("transport", ["grpc", "http"])
@pytest.mark.parametrize("name", READABLE)
def test_what_is_accepted_can_be_read_everywhere(
    caller: Caller, client: Client, lro: operations_pb2_grpc.OperationsStub, name: str, transport: str
) -> None:
    plain = READABLE[name]
    on_wire = wire(plain)
    job = caller.create()
    names = {"sessionId": caller.session, "jobId": job.id}
    operation = f"sessions/{caller.session}/operations/{job.id}"
    with little_in_the_loop(caller.app):
        if transport == "grpc":
            caller.finish(job.id, struct_pb2.Value.FromString(on_wire))
        else:
            assert client.call("FinishJob", **zipped({**names, "results": plain})).status == 200
    with little_in_the_loop(caller.app):
        assert caller.results(job.id).results.SerializeToString() == on_wire
        assert client.call("GetResults", names).json == {"results": plain}
    with little_in_the_loop(caller.app):
        (listed,) = lro.ListOperations(
            operations.ListOperationsRequest(name=f"sessions/{caller.session}"), timeout=30
        ).operations
        got = lro.GetOperation(operations.GetOperationRequest(name=operation), timeout=30)
        waited = lro.WaitOperation(operations.WaitOperationRequest(name=operation), timeout=30)
    for found in (got, waited, listed):
        assert found.response.value == on_wire


def test_lists_of_operations_end_where_a_message_does(caller: Caller, lro: operations_pb2_grpc.OperationsStub) -> None:
    jobs = [caller.create().id for _ in range(4)]
    for job_id in jobs:
        caller.finish(job_id, parted(0, 99_000))
    found, token = [], ""
    while True:
        page = lro.ListOperations(
            operations.ListOperationsRequest(name=f"sessions/{caller.session}", page_token=token), timeout=30
        )
        found += [operation.name.rpartition("/")[2] for operation in page.operations]
        token = page.next_page_token
        if not token:
            break
    assert found == jobs[::-1]


@pytest.mark.parametrize("item", [0, "", []])
def test_variables_can_be_read_everywhere(caller: Caller, client: Client, item: Json) -> None:
    kept = {"v": [item] * min(256 * 1024 // (len(json.dumps(item)) + 1) - 10, 99_000)}
    job = caller.create()
    names = {"sessionId": caller.session, "jobId": job.id}
    with little_in_the_loop(caller.app):
        assert client.call("SetVariables", **zipped({**names, "variables": kept})).status == 200
    with little_in_the_loop(caller.app):
        assert caller.variables(job.id) == kept
        assert client.call("GetVariables", names).json == {"variables": kept}


def parted(plain: Json, count: int) -> struct_pb2.Value:
    return value([plain] * count)


def fail(caller: Caller, job_id: str, details: int) -> object:
    """End a job with so many details of its error."""
    detail = any_pb2.Any(type_url="type.googleapis.com/google.rpc.Help")
    error = status_pb2.Status(code=13, details=[detail] * details)
    return caller.app.stub.FailJob(pb.FailJobRequest(session_id=caller.session, job_id=job_id, error=error))


TOO_MUCH: dict[str, Callable[[Caller, str], object]] = {
    "numbers": lambda caller, job_id: caller.finish(job_id, parted(0, 300_000)),
    "lists": lambda caller, job_id: caller.finish(job_id, parted([], 340_000)),
    "variables": lambda caller, job_id: caller.app.stub.SetVariables(
        pb.SetVariablesRequest(
            session_id=caller.session,
            job_id=job_id,
            variables=struct_pb2.Struct(fields={"v": parted(0, 300_000)}),
        )
    ),
    "names": lambda caller, job_id: caller.variables(job_id, *[""] * 2_000_000),
    "removed names": lambda caller, job_id: caller.set(job_id, {}, [""] * 2_000_000),
    "paths": lambda caller, job_id: caller.app.stub.UpdateJob(
        pb.UpdateJobRequest(
            session_id=caller.session,
            job=job_pb2.Job(id=job_id),
            update_mask=field_mask_pb2.FieldMask(paths=[""] * 2_000_000),
        )
    ),
    "known paths": lambda caller, job_id: caller.update(job_pb2.Job(id=job_id, name="x"), ["name"] * 33),
    "details": lambda caller, job_id: fail(caller, job_id, details=100_000),
    "65 details": lambda caller, job_id: fail(caller, job_id, details=65),
    "record errors": lambda caller, job_id: caller.report(job_id, record_errors=[job_pb2.RecordError()] * 1_000_000),
    "labels": lambda caller, job_id: caller.app.stub.CreateJob(
        pb.CreateJobRequest(session_id=caller.session, labels={f"{n}": "" for n in range(300_000)})
    ),
}


@pytest.mark.parametrize("name", TOO_MUCH)
def test_too_much_is_refused_over_grpc(caller: Caller, name: str) -> None:
    job = caller.create()
    with little_in_the_loop(caller.app):
        assert faults(lambda: TOO_MUCH[name](caller, job.id)) == {FIELDS.get(name, name)}
    assert caller.get(job.id) == job


FIELDS = {
    "numbers": "results",
    "lists": "results",
    "removed names": "remove",
    "paths": "update_mask",
    "known paths": "update_mask",
    "details": "error.details",
    "65 details": "error.details",
    "record errors": "record_errors",
}

BODIES: dict[str, tuple[str, Json]] = {
    "numbers": ("FinishJob", {"results": [0] * 1_300_000}),
    "lists": ("FinishJob", {"results": [[]] * 1_000_000}),
    "objects": ("FinishJob", {"results": [{}] * 1_000_000}),
    "texts": ("FinishJob", {"results": [""] * 1_000_000}),
    "variables": ("SetVariables", {"variables": {str(n): n for n in range(200_000)}}),
    "a mask": ("UpdateJob", {"updateMask": "a," * 2_000_000}),
    "a mask of few": ("UpdateJob", {"updateMask": ",".join(["name"] * 33)}),
    "removed names": ("SetVariables", {"remove": [""] * 99_000}),
    "details": ("FailJob", {"error": {"code": 13, "details": [{}] * 99_000}}),
    "known details": (
        "FailJob",
        {"error": {"code": 13, "details": [{"@type": "type.googleapis.com/google.rpc.Help"}] * 49_000}},
    ),
    "a detail that holds anything": (
        "FailJob",
        {
            "error": {
                "code": 13,
                "details": [
                    {
                        "@type": "type.googleapis.com/google.protobuf.Struct",
                        "value": {"x" * 2_000_000: [0] * 90_000},
                    }
                ],
            }
        },
    ),
    "record errors": ("ReportProgress", {"recordErrors": [{}] * 99_000}),
    "a long name above a list": ("FinishJob", {"results": {"x" * 2_000_000: [0] * 90_000}}),
    "a long name": ("CreateJob", {"name": "x" * 4_000_000}),
    "a long label": ("CreateJob", {"labels": {"x" * 4_000_000: "v"}}),
    "long details": (
        "FailJob",
        {
            "error": {
                "code": 13,
                "details": [{"@type": "type.googleapis.com/google.rpc.DebugInfo", "detail": "x" * 4_000_000}],
            }
        },
    ),
}


@pytest.mark.parametrize("name", BODIES)
def test_too_much_is_refused_over_http(caller: Caller, client: Client, name: str) -> None:
    """A few kilobytes, zipped."""
    method, fields = BODIES[name]
    assert isinstance(fields, dict)
    job = caller.create()
    named = {} if method in ("CreateJob", "UpdateJob") else {"jobId": job.id}
    body = zipped({"sessionId": caller.session, **named, **fields})
    with little_in_the_loop(caller.app):
        answer = client.call(method, **body)
    assert answer.status == 400
    assert answer.refusal.reason in ("INVALID_REQUEST", "MALFORMED_MESSAGE")
    assert caller.get(job.id) == job


@pytest.mark.parametrize("method", ["GetJob", "StreamProgress", "WatchJob"])
@pytest.mark.parametrize("text", ['{"sessionId":"' + '\\"' * 2_000_000, "[" * 4_000_000, '{"x":"' + "\\" * 4_000_000])
def test_json_that_does_not_end(caller: Caller, client: Client, method: str, text: str) -> None:
    body = gzip.compress(text.encode(), 1)
    with little_in_the_loop(caller.app):
        if method == "GetJob":
            error = client.call(method, body, content_encoding="gzip").refusal
        else:
            raw = enveloped(body, flags=1)
            headers = {**STREAM, "connect-content-encoding": "gzip"}
            _, end = client.send("POST", PREFIX + method, headers.items(), raw).messages
            error = from_error(told(end["error"]))
    assert error.reason == "MALFORMED_MESSAGE"
