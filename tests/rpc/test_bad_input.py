"""No input of a caller stops the server, shows its insides, or is answered with anything but what is wrong with it."""

import logging
import random
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

import grpc
import pytest
from google.protobuf import any_pb2, duration_pb2, struct_pb2
from google.rpc import error_details_pb2, status_pb2

from headway.v1 import job_pb2
from headway.v1 import job_service_pb2 as pb
from tests.support.caller import TIMEOUT, Caller, struct
from tests.support.methods import FULL, METHODS, UNNAMED, Answer, call, good, named, strings
from tests.support.refusals import Refusal, faults, refused_with

INT64_MAX, INT64_MIN = 2**63 - 1, -(2**63)

REFUSING = {name for name in METHODS if name != "StreamProgress"}
"""Methods that are refused as a whole; a stream names its bad reports in its answers."""


@pytest.fixture(autouse=True)
def still_served(caller: Caller, caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """After every test here the server serves, the control job is as it was, and no fault of the server's is logged."""
    control = caller.create(name="control", job_id="c" * 32)
    yield
    assert caller.get(control.id) == control
    records = [r for r in caplog.records if r.name.startswith("headway_server") and r.levelno >= logging.WARNING]
    assert records == []


def refusal(answer: Answer) -> Refusal:
    assert isinstance(answer, Refusal), f"not refused: {answer!r:.300}"
    return answer


# Bytes.

NESTED = bytes.fromhex("0b") * 20_000

MALFORMED: dict[str, bytes] = {
    "50 times ff": b"\xff" * 50,
    "truncated": b"\x0a\x10abc",
    "field number 0": b"\x00\x01",
    "unterminated group": b"\x0b\x08\x01",
    "group that ends another": b"\x0b\x14",
    "varint of 11 bytes": b"\x08" + b"\xff" * 10 + b"\x01",
    "length beyond the end": b"\x0a\xff\xff\xff\xff\x07",
    "wire type 7": b"\x0f",
    "20,000 groups deep": NESTED,
    "random": random.Random(1).randbytes(300),
}

BAD_TEXT: dict[str, bytes] = {
    "invalid UTF-8": b"\xc3\x28",
    "a surrogate": b"\xed\xa0\x80",
    "an overlong NUL": b"\xc0\x80",
    "Latin-1": b"caf\xe9",
    "half a character": b"\xf0\x9f\x98",
    "beyond Unicode": b"\xf7\xbf\xbf\xbf",
}


@pytest.mark.parametrize("kind", MALFORMED)
def test_bytes_that_are_no_message(caller: Caller, kind: str) -> None:
    for method in METHODS:
        answer = refusal(call(caller.app, method, MALFORMED[kind]))
        assert (answer.code, answer.reason) == ("INVALID_ARGUMENT", "MALFORMED_MESSAGE"), method


@pytest.mark.parametrize("kind", BAD_TEXT)
def test_text_that_is_not_utf8(caller: Caller, kind: str) -> None:
    text = BAD_TEXT[kind]
    session = bytes([0x0A, len(text)]) + text
    for method in METHODS:
        raw = bytes([0x0A, len(session)]) + session if method == "StreamProgress" else session
        answer = refusal(call(caller.app, method, raw))
        assert (answer.code, answer.reason) == ("INVALID_ARGUMENT", "MALFORMED_MESSAGE"), method


def nested(depth: int) -> struct_pb2.Value:
    root = struct_pb2.Value()
    inner = root
    for _ in range(depth):
        inner = inner.list_value.values.add()
    inner.null_value = struct_pb2.NULL_VALUE
    return root


def test_results_may_be_deep_and_not_bottomless(caller: Caller) -> None:
    """Protobuf reads 100 levels, and a list in a list takes two."""
    job = caller.create()
    raw = bytes(pb.FinishJobRequest(session_id=caller.session, job_id=job.id).SerializeToString())
    inner = b"\x08\x00"
    for _ in range(60):
        inner = _length(0x0A, inner)
        inner = _length(0x32, inner)
    answer = refusal(call(caller.app, "FinishJob", raw + _length(0x22, inner)))
    assert answer.reason == "MALFORMED_MESSAGE"
    caller.finish(job.id, nested(45))
    assert caller.results(job.id).results == nested(45)


def _length(tag: int, content: bytes) -> bytes:
    size, prefix = len(content), bytearray([tag])
    while size > 127:
        prefix.append(size & 127 | 128)
        size >>= 7
    return bytes([*prefix, size]) + content


@pytest.mark.parametrize("method", METHODS)
def test_an_empty_message_is_told_what_it_lacks(caller: Caller, method: str) -> None:
    answer = call(caller.app, method, b"")
    if method == "StreamProgress":
        assert answer == [pb.StreamProgressResponse(acked=1).SerializeToString()]
        return
    wanted = {"session_id"} if method in UNNAMED else {"session_id", named(method)}
    if method == "FailJob":
        wanted.add("error.code")
    assert refusal(answer).fields == wanted


@pytest.mark.parametrize("method", sorted(REFUSING))
def test_a_wrong_wire_type_is_an_unknown_field(caller: Caller, method: str) -> None:
    """The session as a number is no session."""
    request = good(method, caller.session, "0" * 32)
    request.ClearField("session_id")
    assert refusal(call(caller.app, method, b"\x08\x01" + request.SerializeToString())).fields == {"session_id"}


@pytest.mark.parametrize("method", METHODS)
def test_unknown_fields_are_passed_over(caller: Caller, method: str) -> None:
    """A mebibyte of them too; nothing of it comes back."""
    job_id = caller.create().id if method != "CreateJob" else "d" * 32
    junk = _length(0xFA, b"")[:0] + b"\xfa\x3f" + _length(0, b"JUNK" * 262_144)[1:]
    answer = call(caller.app, method, good(method, caller.session, job_id).SerializeToString() + junk)
    assert isinstance(answer, list), answer
    assert b"JUNK" not in b"".join(answer)


@pytest.mark.parametrize("method", sorted(REFUSING - UNNAMED - {"UpdateJob"}))
def test_of_a_field_given_twice_the_last_counts(caller: Caller, method: str) -> None:
    job_id = caller.create().id
    wrong = pb.GetJobRequest(session_id="another", job_id="0" * 32).SerializeToString()
    answer = call(caller.app, method, wrong + good(method, caller.session, job_id).SerializeToString())
    assert isinstance(answer, list), answer


def test_of_two_amounts_the_last_counts(caller: Caller) -> None:
    job = caller.create()
    named_job = pb.ReportProgressRequest(session_id=caller.session, job_id=job.id).SerializeToString()
    progress = pb.ReportProgressRequest(progress=5).SerializeToString()
    advance = pb.ReportProgressRequest(advance=2).SerializeToString()
    call(caller.app, "ReportProgress", named_job + advance + progress)
    assert caller.get(job.id).progress == 5
    call(caller.app, "ReportProgress", named_job + progress + advance)
    assert caller.get(job.id).progress == 7


@pytest.mark.parametrize("method", METHODS)
def test_mutated_bytes(caller: Caller, method: str) -> None:
    """Whatever the bytes, the answer is one that a caller can make sense of."""
    rng = random.Random(method)
    waits = method in ("WatchJob", "WatchJobs", "GetJob")
    for _ in range(10 if waits else 25):
        raw = bytearray(good(method, caller.session, caller.create().id).SerializeToString())
        for _ in range(rng.randint(1, 4)):
            position = rng.randrange(len(raw))
            match rng.randrange(4):
                case 0:
                    raw[position] = rng.randrange(256)
                case 1:
                    raw[position] ^= 1 << rng.randrange(8)
                case 2:
                    del raw[position : position + rng.randint(1, 3)]
                case _:
                    raw[position:position] = rng.randbytes(rng.randint(1, 3))
        try:
            call(caller.app, method, bytes(raw), timeout=0.1 if waits else TIMEOUT)
        except AssertionError as error:
            # A watch of nothing waits until its caller gives up: such an end has no details of the server.
            assert waits and "DEADLINE_EXCEEDED without details" in str(error), (raw, error)


# Text.


def places(method: str) -> list[str]:
    return sorted({place.path for place in strings(good(method, "s", "0" * 32))})


STRINGS = [(method, path) for method in FULL for path in places(method)]


@pytest.mark.parametrize(("method", "path"), STRINGS)
def test_no_text_holds_a_nul(caller: Caller, method: str, path: str) -> None:
    """SQLite would cut it there and PostgreSQL refuse it: it is told by the name of its field."""
    job_id = "d" * 32 if method == "CreateJob" else caller.create().id
    before = caller.list()
    for text in ("\0", "a\0b"):
        request = good(method, caller.session, job_id)
        for place in strings(request):
            if place.path == path:
                place.set(text)
                break
        answer = refusal(call(caller.app, method, request.SerializeToString()))
        assert (answer.code, answer.reason) == ("INVALID_ARGUMENT", "INVALID_REQUEST")
        first = path.removesuffix(" (key)").removeprefix("reports.").replace(".paths", "").split(".")[0]
        assert all(field.split(".")[0].split("[")[0] == first for field in answer.fields), answer.fields
    assert caller.list() == before, "a request that failed changed something"


SQL = [
    "'; DROP TABLE job; --",
    '" OR 1=1 --',
    "%",
    "$1 ?1 :name %s %(x)s {0}",
    "\\'; DELETE FROM job; --",
    "1; SELECT pg_sleep(10)",
]


@pytest.mark.parametrize(("method", "path"), [item for item in STRINGS if not item[1].endswith("job_id")])
def test_sql_is_text_like_any_other(caller: Caller, method: str, path: str) -> None:
    """Stored, compared, refused for its form: never run. A session that is named so has none of another's jobs."""
    created = {caller.create(name="n", invoker="i", labels={"l": "v"}).id for _ in SQL}
    for number, (text, job_id) in enumerate(zip(SQL, created, strict=True)):
        request = good(method, caller.session, f"{number:032x}" if method == "CreateJob" else job_id)
        for place in strings(request):
            if place.path == path:
                place.set(text)
                break
        if (method, path) == ("WatchJobs", "session_id"):
            # Such a session is empty, and a watch of it would wait.
            answer = call(caller.app, "ListJobs", pb.ListJobsRequest(session_id=text).SerializeToString())
        else:
            answer = call(caller.app, method, request.SerializeToString())
        if isinstance(answer, Refusal):
            assert answer.reason in ("INVALID_REQUEST", "JOB_NOT_FOUND"), answer
        elif (method, path) == ("CreateJob", "session_id"):
            Caller(caller.app, text).clear(f"{number:032x}")
        elif path.endswith("session_id"):
            assert answer == [b""], "found another's job"
    kept = {job.id for job in caller.list(page_size=1000).jobs}
    assert kept >= created


def test_every_string_of_a_request_is_in_these_tables() -> None:
    """A new field without a case here fails."""
    ignored = {"google.protobuf.Struct", "google.protobuf.Value", "google.rpc.Status", "google.protobuf.FieldMask"}

    def walk(descriptor: Any, prefix: str) -> Iterator[str]:
        for field in descriptor.fields:
            path = f"{prefix}{field.name}"
            if field.message_type is None:
                if field.type == field.TYPE_STRING:
                    yield path
            elif field.message_type.GetOptions().map_entry:
                yield f"{path} (key)"
            elif field.message_type.full_name not in ignored | {"headway.v1.Job"}:
                yield from walk(field.message_type, f"{path}.")

    # Empty in a good request: tokens and a job to continue have tests of their own.
    given = {"page_token", "resume_token", "continues"}
    for name, method in METHODS.items():
        assert {path for path in walk(method.input_type, "") if path not in given} <= set(places(name))


IDS = {
    "empty": "",
    "zero": "0",
    "31 digits": "a" * 31,
    "33 digits": "a" * 33,
    "10 KB": "a" * 10_240,
    "a path": "../../etc/passwd",
    "percent": "%00",
    "wildcards": "%" * 32,
    "underscores": "_" * 32,
    "emoji": "😀" * 32,
    "right to left": "\u202e" + "a" * 31,
    "digits of another script": "٠" * 32,
    "full width": "ａ" * 32,
    "upper case": "C" * 32,
    "mixed case": "C" + "c" * 31,
    "space behind": "c" * 32 + " ",
    "space before": " " + "c" * 32,
    "line feed behind": "c" * 32 + "\n",
    "a NUL": "c" * 31 + "\0",
    "with dashes": "cccccccc-cccc-cccc-cccc-cccccccccccc",
    "SQL": "' OR '1'='1",
    "no hex digit": "g" * 32,
}


@pytest.mark.parametrize("kind", IDS)
def test_an_id_is_32_lower_case_hexadecimal_digits_and_nothing_else(caller: Caller, kind: str) -> None:
    """All that is like the id of a job that is there finds nothing; the field at fault is named."""
    for method in METHODS:
        request = good(method, caller.session, IDS[kind])
        if method == "CreateJob" and not IDS[kind]:
            continue
        if method in ("ListJobs", "WatchJobs"):
            continue
        wanted = named(method).removeprefix("reports.")
        assert refusal(call(caller.app, method, request.SerializeToString())).fields == {wanted}, method


SESSIONS = {
    "empty": "",
    "a NUL": "a\0b",
    "CR LF": "a\r\nb",
    "a tab": "a\tb",
    "escape": "\x1b[31m",
    "DEL": "\x7f",
    "C1": "a\x85b",
    "257 bytes": "x" * 257,
    "129 characters of 2 bytes": "é" * 129,
    "65 characters of 4 bytes": "😀" * 65,
    "1 MB": "x" * 1_000_000,
}


@pytest.mark.parametrize("kind", SESSIONS)
def test_what_is_no_session_id(caller: Caller, caplog: pytest.LogCaptureFixture, kind: str) -> None:
    """The field is named, its text is neither answered nor logged."""
    caplog.set_level(logging.DEBUG)
    for method in METHODS:
        answer = refusal(call(caller.app, method, good(method, SESSIONS[kind], "0" * 32).SerializeToString()))
        assert answer.fields == {"session_id"}, method
        if len(SESSIONS[kind]) > 2:
            assert SESSIONS[kind] not in answer.message
    if len(SESSIONS[kind]) > 2:
        assert SESSIONS[kind] not in caplog.text


@pytest.mark.parametrize(
    "text", ["x" * 256, "é" * 128, "😀" * 64, " ", "--", "%", "a b", "-x", "\u202e", "\u2028"], ids=len
)
def test_what_is_a_session_id(caller: Caller, text: str) -> None:
    someone = Caller(caller.app, text)
    job = someone.create()
    assert [found.id for found in someone.list().jobs] == [job.id]
    someone.clear(job.id)


# Fields.

BIG = {f"k{n}": "v" for n in range(65)}


def span(seconds: int = 0, nanos: int = 0) -> duration_pb2.Duration:
    return duration_pb2.Duration(seconds=seconds, nanos=nanos)


BAD_SPANS = {
    "negative": span(-1),
    "negative nanos": span(0, -1),
    "opposite signs": span(1, -1),
    "too many nanos": span(0, 10**9),
    "nanos at their limit": span(0, 2**31 - 1),
    "10^9 s": span(10**9),
    "int64": span(INT64_MAX),
    "-int64": span(INT64_MIN),
    "one nanosecond too long": span(3650 * 86_400, 1),
}


@pytest.mark.parametrize("kind", BAD_SPANS)
def test_what_is_no_span(caller: Caller, kind: str) -> None:
    bad = BAD_SPANS[kind]
    spans = {"heartbeat_timeout": bad, "stall_timeout": bad, "retention": bad}
    assert faults(lambda: caller.create(**spans)) == spans.keys()
    request = pb.CancelJobRequest(session_id=caller.session, job_id="c" * 32, grace_period=bad)
    assert faults(lambda: caller.app.stub.CancelJob(request, timeout=TIMEOUT)) == {"grace_period"}
    if bad.seconds <= 0 or bad.nanos < 0 or bad.nanos > 999_999_999:
        assert faults(lambda: caller.get("c" * 32, wait=bad)) == {"wait"}


def create(field: str, bad: object, fields: set[str] | None = None) -> "Case":
    return (lambda caller, _: caller.create(**{field: bad})), fields or {field}


def report(field: str, bad: object, fields: set[str] | None = None) -> "Case":
    return (lambda caller, job_id: caller.report(job_id, **{field: bad})), fields or {field}


def update(bad: job_pb2.Job, mask: list[str], fields: set[str]) -> "Case":
    def change(caller: Caller, job_id: str) -> object:
        bad.id = job_id
        return caller.update(bad, mask)

    return change, fields


def fail(error: status_pb2.Status, fields: set[str]) -> "Case":
    return lambda caller, job_id: caller.app.stub.FailJob(
        pb.FailJobRequest(session_id=caller.session, job_id=job_id, error=error), timeout=TIMEOUT
    ), fields


def finish(results: struct_pb2.Value, fields: set[str]) -> "Case":
    return (lambda caller, job_id: caller.finish(job_id, results)), fields


def variables(bad: struct_pb2.Struct, fields: set[str]) -> "Case":
    return lambda caller, job_id: caller.app.stub.SetVariables(
        pb.SetVariablesRequest(session_id=caller.session, job_id=job_id, variables=bad), timeout=TIMEOUT
    ), fields


def number(value: float) -> struct_pb2.Value:
    return struct_pb2.Value(number_value=value)


def detail(url: str, value: bytes = b"") -> status_pb2.Status:
    return status_pb2.Status(code=13, details=[any_pb2.Any(type_url=url, value=value)])


GOOGLE = "type.googleapis.com/google.rpc"
LONG = duration_pb2.Duration(seconds=2**62)
INFO = error_details_pb2.ErrorInfo(reason="R", domain="d", metadata={"k": "x" * 65_600}).SerializeToString()
NAN, INF = float("nan"), float("inf")

Case = tuple[Callable[[Caller, str], object], set[str]]

CASES: dict[str, Case] = {
    "name too long": create("name", "x" * 257),
    "invoker too long": create("invoker", "x" * 257),
    "unit too long": create("unit", "x" * 33),
    "key too long": create("key", "x" * 257),
    "continues no id": create("continues", "X" * 32),
    "continues with U+0000": create("continues", "a" * 31 + "\0"),
    "size negative": create("size", -1),
    "size int64 min": create("size", INT64_MIN),
    "65 labels": create("labels", BIG),
    "10,000 labels": create("labels", {f"k{n}": "v" for n in range(10_000)}),
    "label without a key": create("labels", {"": "v"}),
    "label key of 64": create("labels", {"k" * 64: "v"}, {"labels"}),
    "label key of 10 KB": create("labels", {"k" * 10_240: "v"}, {"labels"}),
    "label value of 257": create("labels", {"k": "v" * 257}, {"labels[k]"}),
    "label value with U+0000": create("labels", {"k": "a\0b"}, {"labels[k]"}),
    "progress negative": report("progress", -1),
    "progress int64 min": report("progress", INT64_MIN),
    "advance below 0": report("advance", -1),
    "advance int64 min": report("advance", INT64_MIN),
    "sequence negative": report("sequence", -1),
    "attempt negative": report("attempt", -(2**31)),
    "attempt ahead": report("attempt", 2**31 - 1),
    "part of 129": report("part", "x" * 129),
    "message of 1025": report("message", "x" * 1025),
    "report size negative": report("size", -1),
    "65 counters": report("counters", dict.fromkeys(BIG, 1)),
    "counter without a name": report("counters", {"": 1}),
    "counter name of 129": report("counters", {"x" * 129: 1}),
    "counter int64 min": report("counters", {"x": INT64_MIN}, {"counters[x]"}),
    "record error without a record": report("record_errors", [job_pb2.RecordError()], {"record_errors[0].record"}),
    "record of 257": report("record_errors", [job_pb2.RecordError(record="x" * 257)], {"record_errors[0].record"}),
    "code of 65": report("record_errors", [job_pb2.RecordError(record="x", code="x" * 65)], {"record_errors[0].code"}),
    "error message of 1025": report(
        "record_errors", [job_pb2.RecordError(record="x", message="x" * 1025)], {"record_errors[0].message"}
    ),
    "50,000 record errors": report("record_errors", [job_pb2.RecordError()] * 50_000),
    "257 variables with a report": report("variables", struct({f"{n}": n for n in range(257)})),
    "variable without a name": variables(struct({"": 1}), {"variables"}),
    "variable name of 129": variables(struct({"x" * 129: 1}), {"variables"}),
    "10,000 variables": variables(struct({f"{n}": n for n in range(10_000)}), {"variables"}),
    "a variable of 257 KiB": variables(struct({"v": "x" * 257 * 1024}), {"variables"}),
    "a variable of 1 MB": variables(struct({"v": "x" * 1_000_000}), {"variables"}),
    "a variable that is NaN": variables(struct_pb2.Struct(fields={"v": number(NAN)}), {"variables.v"}),
    "a variable that is infinite": variables(struct_pb2.Struct(fields={"v": number(INF)}), {"variables.v"}),
    "a variable of no kind": variables(struct_pb2.Struct(fields={"v": struct_pb2.Value()}), {"variables.v"}),
    "results NaN": finish(number(NAN), {"results"}),
    "results infinite": finish(number(-INF), {"results"}),
    "results of no kind": finish(struct_pb2.Value(), {"results"}),
    "results with NaN inside": finish(
        struct_pb2.Value(list_value=struct_pb2.ListValue(values=[number(1), number(NAN)])), {"results[1]"}
    ),
    "results of 1 MiB and a byte": finish(struct_pb2.Value(string_value="x" * (1024 * 1024 - 1)), {"results"}),
    "results larger in UTF-8": finish(struct_pb2.Value(string_value="é" * (1024 * 512)), {"results"}),
    "no error": fail(status_pb2.Status(), {"error.code"}),
    "error code 17": fail(status_pb2.Status(code=17), {"error.code"}),
    "error message of 1025 characters": fail(status_pb2.Status(code=13, message="x" * 1025), {"error.message"}),
    "error with U+0000": fail(status_pb2.Status(code=13, message="a\0"), {"error.message"}),
    "unknown type of detail": fail(detail("type.googleapis.com/evil.Type"), {"error.details[0]"}),
    "detail without a type": fail(detail(""), {"error.details[0]"}),
    "detail with a span that is none": fail(
        detail(f"{GOOGLE}.RetryInfo", error_details_pb2.RetryInfo(retry_delay=LONG).SerializeToString()),
        {"error.details[0]"},
    ),
    "detail in a detail": fail(detail("type.googleapis.com/google.protobuf.Any"), {"error.details[0]"}),
    "detail that is a file": fail(detail("file:///etc/passwd"), {"error.details[0]"}),
    "detail with U+0000": fail(detail(f"{GOOGLE}.ErrorInfo\0"), {"error.details[0]"}),
    "detail that does not parse": fail(detail(f"{GOOGLE}.ErrorInfo", b"\xff\xff"), {"error.details[0]"}),
    "details beyond 64 KiB": fail(detail(f"{GOOGLE}.ErrorInfo", INFO), {"error.details"}),
    "new name too long": update(job_pb2.Job(name="x" * 257), [], {"job.name"}),
    "new invoker too long": update(job_pb2.Job(invoker="x" * 257), ["invoker"], {"job.invoker"}),
    "new unit too long": update(job_pb2.Job(unit="x" * 33), [], {"job.unit"}),
    "new size negative": update(job_pb2.Job(size=-1), ["size"], {"job.size"}),
    "new labels": update(job_pb2.Job(labels={"": "x"}), [], {"job.labels"}),
    "65 new labels": update(job_pb2.Job(labels=BIG), [], {"job.labels"}),
    "mask": update(job_pb2.Job(name="x"), ["*"], {"update_mask"}),
    "mask and value": update(job_pb2.Job(name="x" * 257), ["name", "status"], {"job.name", "update_mask"}),
    "reason of 1025": ((lambda caller, job_id: caller.cancel(job_id, "x" * 1025)), {"reason"}),
    "257 names to get": ((lambda caller, job_id: caller.variables(job_id, *["x"] * 257)), {"names"}),
    "an empty name to get": ((lambda caller, job_id: caller.variables(job_id, "a", "")), {"names[1]"}),
    "257 names to remove": ((lambda caller, job_id: caller.set(job_id, {}, ["x"] * 257)), {"remove"}),
    "an empty name to remove": ((lambda caller, job_id: caller.set(job_id, {}, [""])), {"remove[0]"}),
    "a filter by a label without a key": ((lambda caller, _: caller.list(labels={"": "v"})), {"labels"}),
    "a filter by 65 labels": ((lambda caller, _: caller.list(labels=BIG)), {"labels"}),
    "a filter by too long a name": ((lambda caller, _: caller.list(name="x" * 257)), {"name"}),
    "a million statuses": ((lambda caller, _: caller.list(statuses=[2] * 1_000_000)), {"statuses"}),
    "page size": ((lambda caller, _: caller.list(page_size=-1)), {"page_size"}),
}


@pytest.mark.parametrize("case", CASES)
def test_a_field_at_fault_is_named(caller: Caller, case: str) -> None:
    """And nothing else: the job is as it was."""
    attempt, fields = CASES[case]
    job = caller.create()
    assert faults(lambda: attempt(caller, job.id)) == fields
    assert caller.get(job.id) == job
    assert caller.variables(job.id) == {}
    assert len(caller.list().jobs) == 2


ALLOWED: dict[str, Callable[[Caller, str], object]] = {
    "name of 256": lambda caller, _: caller.create(name="😀" * 256),
    "unit of 32": lambda caller, _: caller.create(unit="é" * 32),
    "64 labels of full length": lambda caller, _: caller.create(labels={f"{n:063}": "😀" * 256 for n in range(64)}),
    "largest size": lambda caller, _: caller.create(size=INT64_MAX),
    "longest spans": lambda caller, _: caller.create(
        heartbeat_timeout=span(3650 * 86_400), stall_timeout=span(3650 * 86_400), retention=span(3650 * 86_400)
    ),
    "largest progress": lambda caller, job_id: caller.report(job_id, progress=INT64_MAX),
    "largest sequence": lambda caller, job_id: caller.report(job_id, sequence=INT64_MAX),
    "part of 128": lambda caller, job_id: caller.report(job_id, part="😀" * 128, progress=1),
    "message of 1024": lambda caller, job_id: caller.report(job_id, message="😀" * 1024),
    "counters at their limits": lambda caller, job_id: caller.report(
        job_id, counters={"😀" * 128: INT64_MAX, "least": -INT64_MAX}
    ),
    "record error of full length": lambda caller, job_id: caller.report(
        job_id, record_errors=[job_pb2.RecordError(record="😀" * 256, code="😀" * 64, message="😀" * 1024)]
    ),
    "results of 1 MiB": lambda caller, job_id: caller.finish(
        job_id, struct_pb2.Value(string_value="x" * (1024 * 1024 - 2))
    ),
    "details of nearly 64 KiB": lambda caller, job_id: caller.app.stub.FailJob(
        pb.FailJobRequest(
            session_id=caller.session,
            job_id=job_id,
            error=detail(f"{GOOGLE}.ErrorInfo", error_details_pb2.ErrorInfo(reason="x" * 65_000).SerializeToString()),
        ),
        timeout=TIMEOUT,
    ),
    "reason of 1024": lambda caller, job_id: caller.cancel(job_id, "😀" * 1024),
    "256 names": lambda caller, job_id: caller.variables(job_id, *[f"{n}" for n in range(256)]),
    "no amount": lambda caller, job_id: caller.report(job_id),
    "every status": lambda caller, _: caller.list(statuses=list(range(1, 7)) * 2),
    "the longest wait": lambda caller, job_id: caller.get(job_id, wait=span(3650 * 86_400)),
}


@pytest.mark.parametrize("case", ALLOWED)
def test_what_is_just_within_the_limits_is_accepted(caller: Caller, case: str) -> None:
    job = caller.create()
    ALLOWED[case](caller, job.id)
    now = caller.get(job.id)
    assert now.revision in (1, 2)


def test_all_faults_of_a_request_are_told_at_once(caller: Caller) -> None:
    bad: dict[str, Any] = {
        "job_id": "x",
        "name": "x" * 257,
        "invoker": "a\0",
        "size": -1,
        "unit": "x" * 33,
        "labels": {"": "x"},
        "heartbeat_timeout": span(-1),
        "stall_timeout": span(-1),
        "retention": span(-1),
    }
    assert faults(lambda: caller.create(**bad)) == bad.keys()
    assert faults(lambda: Caller(caller.app, "").report("x", sequence=-1, attempt=-1, progress=-1, size=-1)) == {
        "session_id",
        "job_id",
        "sequence",
        "attempt",
        "progress",
        "size",
    }


MANY: dict[str, Callable[[Caller], object]] = {
    "record errors": lambda caller: caller.report("c" * 32, record_errors=[job_pb2.RecordError()] * 1000),
    "statuses": lambda caller: caller.list(statuses=[99] * 20),
    "mask": lambda caller: caller.update(job_pb2.Job(id="c" * 32), ["nonsense"] * 5000),
    "names": lambda caller: caller.variables("c" * 32, *[""] * 256),
    "labels with long keys": lambda caller: caller.create(labels={f"{'😀' * 5000}{n}": "x" for n in range(60)}),
    "label values": lambda caller: caller.create(labels={f"{'😀' * 60}{n}": "x" * 300 for n in range(64)}),
    "a variable with a long name": lambda caller: caller.app.stub.SetVariables(
        pb.SetVariablesRequest(
            session_id=caller.session,
            job_id="c" * 32,
            variables=struct_pb2.Struct(fields={"x" * 100_000: number(NAN)}),
        ),
        timeout=TIMEOUT,
    ),
    "numbers in results": lambda caller: caller.finish(
        "c" * 32, struct_pb2.Value(list_value=struct_pb2.ListValue(values=[number(NAN)] * 10_000))
    ),
    "deep names in results": lambda caller: caller.finish(
        "c" * 32, struct_pb2.Value(struct_value=struct_pb2.Struct(fields={"😀" * 50_000: number(NAN)}))
    ),
}


@pytest.mark.parametrize("kind", MANY)
def test_however_much_is_wrong_the_answer_arrives(caller: Caller, kind: str) -> None:
    """Refusals travel in headers, which are small: they are cut to fit, and are not lost."""
    refusal = refused_with("INVALID_REQUEST", lambda: MANY[kind](caller))
    assert refusal.code == "INVALID_ARGUMENT"
    # What gRPC takes in headers for sure is 8 KiB, with the message percent-encoded.
    assert len(quote(refusal.message)) + sum(len(value) for _, value in refusal.trailers) < 8000


def test_a_message_beyond_the_limit_is_refused(caller: Caller) -> None:
    """By gRPC itself, before anybody reads it."""
    with pytest.raises(grpc.RpcError) as failure:
        caller.create(name="x" * (4 * 1024 * 1024 + 1))
    assert isinstance(failure.value, grpc.Call)
    assert failure.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_an_unknown_method_is_unimplemented(caller: Caller) -> None:
    for path in ("/headway.v1.JobService/Nothing", "/headway.v1.Nothing/GetJob", "/headway.v1.JobService/getjob", "/x"):
        unary: Callable[..., bytes] = caller.app.channel.unary_unary(path)
        with pytest.raises(grpc.RpcError) as failure:
            unary(b"", timeout=TIMEOUT)
        assert isinstance(failure.value, grpc.Call)
        assert failure.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_a_job_that_names_all_its_own_is_still_read(caller: Caller) -> None:
    """Everything at its limit at once: such a job is answered, listed and watched like any other."""
    labels = {f"{n:063}": "😀" * 256 for n in range(64)}
    job = caller.create(name="😀" * 256, invoker="😀" * 256, unit="😀" * 32, labels=labels)
    caller.report(job.id, message="😀" * 1024, counters={f"{n:03}{'😀' * 125}": INT64_MAX for n in range(64)})
    reports = [{"job_id": job.id, "part": f"{n:03}{'😀' * 125}", "progress": 2**54} for n in range(256)]
    list(caller.stream([caller.batch(*reports)]))
    now = caller.get(job.id)
    assert len(now.parts) == 256
    assert now.progress == 256 * 2**54
    assert now in caller.list().jobs
    watch = caller.watch(job.id)
    assert next(watch).job == now
    watch.cancel()
