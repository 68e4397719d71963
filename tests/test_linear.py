"""Parsers of what callers send take time in proportion to its length, however it is made.

Each is given texts that would be hard for a careless one, in two lengths, and may not take three times as long for
twice as much. CPU time of this thread is measured, so that other work on the machine does not matter.
"""

import asyncio
import gzip
import json
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest
from google.longrunning import operations_proto_pb2
from google.protobuf import any_pb2, field_mask_pb2, message
from google.protobuf.descriptor import MethodDescriptor
from google.rpc import code_pb2, error_details_pb2, status_pb2
from starlette.datastructures import Headers
from starlette.types import Message

from headway.v1 import job_pb2, job_service_pb2
from headway_server.app import JOB_SERVICE
from headway_server.domain.errors import JobError, MemoryLimit
from headway_server.domain.limits import Limits
from headway_server.http import bodies, connect_protocol, json_codec, origin_policy
from headway_server.resources.budget import Budget, Share
from headway_server.rpc import from_proto
from headway_server.rpc.call_guard import ADMIN, Caller, Credentials, Guard
from headway_server.rpc.operations import OperationsServicer
from headway_server.rpc.sessions import Sessions
from headway_server.rpc.validation import Checks, session_fault
from headway_server.service.sealed_tokens import Sealer, SessionHasher

LENGTH = 200_000
"""Bytes of the shorter text."""

RATIO = 3.0

TOO_SHORT = 0.001
"""Seconds that tell nothing: a parser that takes less for the longer text is quick enough."""

LIMITS = Limits()

JSON_TEXTS: dict[str, Callable[[int], str]] = {
    "escaped quotes, not closed": lambda n: '{"sessionId":"' + '\\"' * (n // 2),
    "backslashes, not closed": lambda n: '{"sessionId":"' + "\\" * n,
    "quotes": lambda n: '{"sessionId":' + '"' * n,
    "strings": lambda n: '{"sessionId":[' + '"",' * (n // 3) + "0]}",
    "opened": lambda n: "[" * n,
    "opened 99 times again and again": lambda n: '{"results":[' + ("[" * 99 + "]" * 99 + ",") * (n // 199) + "0]}",
    "opened and closed": lambda n: "[]" * (n // 2),
    "closed": lambda n: "{" + "]" * n,
    "lists": lambda n: '{"results":[' + "[]," * (n // 3) + "0]}",
    "numbers": lambda n: '{"results":[' + "0," * (n // 2) + "0]}",
    "a long name with a list below it": lambda n: json.dumps({"results": {"x" * (n // 2): [0] * (n // 4)}}),
    "long names within each other": lambda n: _nested_names(n),
    "a long name with a list below it, in reports": lambda n: json.dumps(
        {"reports": [{"variables": {"x" * (n // 2): [0] * (n // 4)}}]}
    ),
    "a detail with a long name": lambda n: json.dumps(
        {
            "error": {
                "details": [
                    {
                        "@type": "type.googleapis.com/google.protobuf.Struct",
                        "value": {"x" * (n // 2): [0] * (n // 4)},
                    }
                ]
            }
        }
    ),
    "an unknown field": lambda n: json.dumps({"x" * n: 1}),
    'an unknown field with " at ': lambda n: json.dumps({'" at' * (n // 4): 1}),
    "unknown fields": lambda n: json.dumps({str(at): 0 for at in range(n // 10)}),
    "a mask": lambda n: json.dumps({"updateMask": "a," * (n // 2)}),
    "a duration": lambda n: json.dumps({"wait": "1" * n + "s", "heartbeatTimeout": "1" * n + "s"}),
    "an integer": lambda n: json.dumps({"size": "1" * n, "pageSize": "1" * n}),
    "a number": lambda n: '{"size":' + "1" * n + "}",
    "a fraction": lambda n: '{"results":1.' + "1" * n + "}",
    "an exponent": lambda n: '{"results":1e' + "0" * n + "1}",
    "text for a list": lambda n: json.dumps({"reports": "x" * n, "statuses": "x" * n, "remove": "x" * n}),
    "lists for text": lambda n: json.dumps({"sessionId": [0] * (n // 2)}),
    "names of statuses": lambda n: json.dumps({"statuses": ["JOB_STATUS_LOST"] * (n // 20)}),
    "reports": lambda n: json.dumps({"reports": [{}] * (n // 4)}),
    "halves of characters": lambda n: '{"name":"' + "\\ud800" * (n // 6) + '"}',
    "blanks": lambda n: "{" + " " * n + "}",
    "bytes that are no text": lambda n: "\x80" * n,
}


def _nested_names(length: int) -> str:
    depth = 40
    name = "x" * (length // 2 // depth)
    return '{"results":' + f'{{"{name}":' * depth + "[" + "0," * (length // 4) + "0]" + "}" * depth + "}"


METHODS = [
    method
    for method in JOB_SERVICE.methods
    if method.name in ("ListJobs", "UpdateJob", "StreamProgress", "FinishJob", "FailJob")
]


def seconds(work: Callable[[], object]) -> float:
    """CPU time of the work, at its best."""
    best = float("inf")
    for _ in range(3):
        began = time.thread_time()
        with suppress(JobError):
            work()
        best = min(best, time.thread_time() - began)
    return best


def is_linear(make: Callable[[int], Callable[[], object]]) -> bool:
    """`make(n)` gives the work on n bytes. Measured again if it seems not: another thread may have been in the way."""
    for _ in range(3):
        longer = seconds(make(2 * LENGTH))
        if longer < TOO_SHORT or longer < RATIO * seconds(make(LENGTH)):
            return True
    return False


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
@pytest.mark.parametrize("name", JSON_TEXTS)
def test_json(method: MethodDescriptor, name: str) -> None:
    decode = json_codec.decoder(method.input_type, LIMITS.values)

    def make(length: int) -> Callable[[], object]:
        body = JSON_TEXTS[name](length).encode("utf-8", "surrogatepass")
        return lambda: decode(body)

    assert is_linear(make)


MESSAGES: dict[str, Callable[[int], message.Message]] = {
    "labels": lambda n: job_service_pb2.CreateJobRequest(labels={f"{at}": "" for at in range(n // 12)}),
    "paths": lambda n: job_service_pb2.UpdateJobRequest(update_mask=field_mask_pb2.FieldMask(paths=[""] * (n // 2))),
    "details": lambda n: job_service_pb2.FailJobRequest(error=status_pb2.Status(details=[any_pb2.Any()] * (n // 2))),
    "names": lambda n: job_service_pb2.GetVariablesRequest(names=[""] * (n // 2)),
    "long name": lambda n: job_service_pb2.CreateJobRequest(name="x" * n, unit="\0" * n),
    "record errors": lambda n: job_service_pb2.ReportProgressRequest(record_errors=[job_pb2.RecordError()] * (n // 2)),
    "statuses": lambda n: job_service_pb2.ListJobsRequest(statuses=[job_pb2.JOB_STATUS_UNSPECIFIED] * n),
}

CONVERTERS: dict[str, Callable[..., object]] = {
    "CreateJobRequest": from_proto.create,
    "UpdateJobRequest": from_proto.update,
    "FailJobRequest": from_proto.fail,
    "GetVariablesRequest": from_proto.names,
    "ReportProgressRequest": from_proto.report,
    "ListJobsRequest": lambda request, checks: from_proto.list_filter(request, checks, None),
}


def test_a_detail_costs_little_more_than_to_parse_it() -> None:
    """Protobuf's way to JSON takes 0.4 ms for each KB of empty messages."""
    detail = error_details_pb2.BadRequest(field_violations=[error_details_pb2.BadRequest.FieldViolation()] * 30_000)
    request = job_service_pb2.FailJobRequest(error=status_pb2.Status(code=code_pb2.INTERNAL))
    request.error.details.add().Pack(detail)
    raw = detail.SerializeToString()
    checks = Checks(LIMITS)
    checking = seconds(lambda: from_proto.fail(request, checks))
    parsing = seconds(lambda: error_details_pb2.BadRequest.FromString(raw))
    assert not checks.faults
    assert checking < 4 * parsing + TOO_SHORT


@pytest.mark.parametrize("name", MESSAGES)
def test_protobuf(name: str) -> None:
    guard = Guard(Credentials("token"), Limits(values=LENGTH // 100), lambda: 0.0)
    methods = {method.input_type.name: guard.method(method, "grpc") for method in JOB_SERVICE.methods}

    def make(length: int) -> Callable[[], object]:
        request = MESSAGES[name](length)
        kind = type(request).__name__
        raw = request.SerializeToString()

        def work() -> None:
            with suppress(JobError):
                methods[kind].parse_now(raw)
            checks = Checks(LIMITS)
            CONVERTERS[kind](request, checks)
            checks.done()

        return work

    assert is_linear(make)


FINISH = JOB_SERVICE.methods_by_name["FinishJob"].input_type

TEXTS: dict[str, Callable[[str], object]] = {
    "session": lambda text: session_fault(text, LIMITS),
    "sessions": lambda text: Sessions(SessionHasher(b"k" * 32), LIMITS)(text, ADMIN, Checks(LIMITS)),
    "job id": lambda text: Checks(LIMITS).job_id(text),
    "token": lambda text: Sealer(b"k" * 32).open("page", "scope", text),
    "authorization": lambda text: Credentials("token").caller([f"Bearer {text}"]),
    "content type": lambda text: connect_protocol._kind(Headers({"content-type": text}), "application/", ("json",)),
    "host": lambda text: origin_policy._is_number(origin_policy._host(text)),
    "json_format's words": lambda text: json_codec._fault(FINISH, "Failed to parse results field: " + text),
    "json_format's words on a field": lambda text: json_codec._fault(
        FINISH, 'Message type "a" has no field named "' + text
    ),
}

PIECES = ["a", "/operations/", ";", ",", ".", ":", '"', '" at', "=", " ", "Failed to parse results field: ", "\\"]


@pytest.mark.parametrize("piece", PIECES)
@pytest.mark.parametrize("name", TEXTS)
def test_text(name: str, piece: str) -> None:
    def make(length: int) -> Callable[[], object]:
        text = piece * (length // len(piece))
        return lambda: TEXTS[name](text)

    assert is_linear(make)


@pytest.mark.parametrize("piece", PIECES)
async def test_names_and_filters_of_operations(piece: str) -> None:
    sessions = Sessions(SessionHasher(b"k" * 32), LIMITS)
    servicer = OperationsServicer(None, sessions, LIMITS, 0, 0, None)  # type: ignore[arg-type]  # refused before it is asked

    def make(length: int) -> Callable[[], object]:
        text = piece * (length // len(piece))
        request = operations_proto_pb2.ListOperationsRequest(name=f"sessions/{text}", filter=text)

        def work() -> None:
            with suppress(JobError):
                servicer._name(f"sessions/{text}", Caller(frozenset()))
            with suppress(JobError):
                servicer.ListOperations(request, Caller(frozenset())).send(None)

        return work

    assert is_linear(make)


STREAMS: dict[str, Callable[[int], list[bytes]]] = {
    "empty messages": lambda n: [bytes(5 * (n // 5))],
    "byte by byte": lambda n: [bytes([byte]) for byte in bodies.envelope(0, bytes(n // 10))],
    "compressed": lambda n: [bodies.envelope(1, gzip.compress(bytes(10 * n)))],
}


@pytest.mark.parametrize("name", STREAMS)
def test_streams(name: str) -> None:
    def make(length: int) -> Callable[[], object]:
        chunks = STREAMS[name](length)
        return lambda: asyncio.run(_read(iter(chunks)))

    assert is_linear(make)


async def _read(chunks: Iterator[bytes]) -> None:
    async def receive() -> Message:
        chunk = next(chunks, None)
        return {"type": "http.request", "body": chunk or b"", "more_body": chunk is not None}

    inflate = bodies.inflater("gzip", LIMITS.message_bytes)
    with bodies.Presence(receive) as presence, Share(Budget(2**30, MemoryLimit), "peer") as share:
        async for _ in bodies.messages(receive, presence, LIMITS.message_bytes, inflate, share):
            pass
