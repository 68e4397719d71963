"""Bad JSON: told what is wrong with it, never served in part, never a fault of the server's."""

import json
import logging
import random
import time
from collections.abc import Iterator

import pytest

from tests.support.caller import Caller, plain
from tests.support.http import Client
from tests.support.methods import FULL, METHODS
from tests.support.refusals import Refusal


@pytest.fixture(autouse=True)
def still_served(client: Client, caller: Caller, caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """After every test here the server serves, nothing was created, and no fault is logged."""
    yield
    assert list(caller.list().jobs) == []
    records = [r for r in caplog.records if r.levelno >= logging.WARNING and not r.name.startswith("asyncio")]
    assert records == []


def deep(levels: int, opening: str, closing: str) -> bytes:
    return (opening * levels + "1" + closing * levels).encode()


MALFORMED: dict[str, bytes] = {
    "nothing": b"",
    "white space": b" \n",
    "no JSON": b"hello",
    "cut off": b'{"sessionId":"s"',
    "trailing data": b'{"sessionId":"s"} x',
    "two objects": b'{"sessionId":"s"}{"sessionId":"s"}',
    "a byte order mark": b'\xef\xbb\xbf{"sessionId":"s"}',
    "UTF-16": '{"sessionId":"s"}'.encode("utf-16"),
    "UTF-32": '{"sessionId":"s"}'.encode("utf-32-le"),
    "Latin-1": b'{"sessionId":"s","name":"caf\xe9"}',
    "a surrogate as bytes": b'{"sessionId":"s","name":"\xed\xa0\x80"}',
    "a key twice": b'{"sessionId":"s","name":"a","name":"b"}',
    "a key twice within": b'{"sessionId":"s","labels":{"a":"1","a":"2"}}',
    "NaN": b'{"sessionId":"s","size":NaN}',
    "Infinity": b'{"sessionId":"s","size":Infinity}',
    "minus Infinity": b'{"sessionId":"s","size":-Infinity}',
    "1e400": b'{"sessionId":"s","size":1e400}',
    "an integer beyond 2^53": b'{"sessionId":"s","size":9007199254740993}',
    "an integer of 5000 digits": b'{"sessionId":"s","size":' + b"9" * 5000 + b"}",
    "100,000 lists deep": deep(100_000, "[", "]"),
    "100,000 objects deep": deep(100_000, '{"a":', "}"),
    "100,000 never closed": b"[" * 100_000,
    "101 lists deep": deep(101, "[", "]"),
    "brackets that do not match": b'{"sessionId":"s"]',
    "a list": b'[{"sessionId":"s"}]',
    "a text": b'"s"',
    "null": b"null",
    "a comment": b'{"sessionId":"s"/*x*/}',
    "a trailing comma": b'{"sessionId":"s",}',
    "single quotes": b"{'sessionId':'s'}",
    "a control character": b'{"sessionId":"s","name":"a\nb"}',
    "a NUL byte": b'{"sessionId":"s"}\0',
}


@pytest.mark.parametrize("kind", MALFORMED)
def test_what_is_no_json(client: Client, kind: str) -> None:
    answer = client.call("CreateJob", MALFORMED[kind])
    assert (answer.status, answer.refusal.reason) == (400, "MALFORMED_MESSAGE")
    assert answer.refusal.code == "INVALID_ARGUMENT"


SHAPES: dict[str, tuple[object, str]] = {
    "an unknown field": ({"foo": 1}, "foo"),
    "an unknown field within": ({"labels": {"a": "b"}, "Name": "n"}, "Name"),
    "a number for text": ({"name": 5}, "name"),
    "text for a number": ({"size": "abc"}, "size"),
    "a fraction": ({"size": 1.5}, "size"),
    "true for a number": ({"size": True}, "size"),
    "a number for true": ({"pending": 1}, "pending"),
    "a number beyond int64": ({"size": "99999999999999999999"}, "size"),
    "a large float": ({"size": 1e30}, "size"),
    "a span without its unit": ({"heartbeatTimeout": "60"}, "heartbeat_timeout"),
    "a span as a number": ({"heartbeatTimeout": 60}, "heartbeat_timeout"),
    "a list for a map": ({"labels": ["a"]}, "labels"),
    "a number in a map": ({"labels": {"a": 1}}, "labels"),
    "null in a map": ({"labels": {"a": None}}, "labels"),
    "an object for text": ({"name": {"a": 1}}, "name"),
    "a list for text": ({"name": ["a"]}, "name"),
}


@pytest.mark.parametrize("kind", SHAPES)
def test_what_is_not_of_the_schema(client: Client, session: str, kind: str) -> None:
    """The field is named as in the proto, and what it must be; nothing of what was sent is said."""
    fields, blamed = SHAPES[kind]
    assert isinstance(fields, dict)
    answer = client.call("CreateJob", {"sessionId": session, **fields})
    assert (answer.status, answer.refusal.reason) == (400, "INVALID_REQUEST")
    assert answer.refusal.fields == {blamed}
    assert "abc" not in answer.refusal.message and session not in answer.refusal.message


def test_lone_surrogates_are_no_text(client: Client, session: str) -> None:
    for text in ("\\ud800", "a\\udfffb", "\\udc00\\ud800"):
        for field in ('"name":"%s"', '"%s":"n"', '"labels":{"%s":"v"}', '"labels":{"k":"%s"}'):
            body = f'{{"sessionId":"{session}",{field % text}}}'.encode()
            answer = client.call("CreateJob", body)
            assert (answer.status, answer.refusal.reason) == (400, "MALFORMED_MESSAGE"), body
    for text in (
        f'{{"sessionId":"{session}","jobId":"{"0" * 32}","variables":{{"v":"\\ud800"}}}}',
        f'{{"sessionId":"{session}","jobId":"{"0" * 32}","variables":{{"\\ud800":1}}}}',
        f'{{"sessionId":"{session}","jobId":"{"0" * 32}","variables":{{"v":["\\ud800"]}}}}',
    ):
        assert client.call("SetVariables", text.encode()).refusal.code == "INVALID_ARGUMENT"


def test_names_of_fields_that_are_none(client: Client, session: str) -> None:
    """Whatever stands there, the answer can be read."""
    for name in ("\\u0000", "", "x" * 100_000, "é\\n", '\\"at \\"', "Failed to parse name field: "):
        answer = client.call("CreateJob", f'{{"sessionId":"{session}","{name}":1}}'.encode())
        assert (answer.status, answer.refusal.reason) == (400, "INVALID_REQUEST"), name
        assert "not a field" in answer.refusal.message
        assert len(answer.body) < 2000


def test_a_field_under_both_of_its_names(client: Client, session: str) -> None:
    answer = client.call("CreateJob", {"sessionId": session, "session_id": "another"})
    assert answer.refusal.fields == {"session_id"}
    job = {"id": "0" * 32, "errorCount": "1", "error_count": "1"}
    answer = client.call("UpdateJob", {"sessionId": session, "job": job})
    assert answer.refusal.fields == {"job.error_count"}


@pytest.mark.parametrize(
    ("method", "fields", "blamed"),
    [
        ("ListJobs", {"statuses": ["NO_SUCH_STATUS"]}, "statuses"),
        ("ListJobs", {"statuses": "JOB_STATUS_RUNNING"}, "statuses"),
        ("ListJobs", {"statuses": [None]}, "statuses"),
        ("UpdateJob", {"job": {"id": "0" * 32}, "updateMask": "a_b"}, "update_mask"),
        ("UpdateJob", {"job": {"id": "0" * 32}, "updateMask": ["name"]}, "update_mask"),
        ("UpdateJob", {"job": {"id": 5}}, "job.id"),
        ("UpdateJob", {"job": {"foo": 5}}, "job.foo"),
        ("UpdateJob", {"job": 5}, "job"),
        ("ReportProgress", {"recordErrors": [{"foo": 1}]}, "record_errors.foo"),
        ("ReportProgress", {"progress": "1", "advance": "1"}, ""),
    ],
)
def test_fields_of_other_requests(
    client: Client, session: str, method: str, fields: dict[str, object], blamed: str
) -> None:
    answer = client.call(method, {"sessionId": session, **fields})
    assert answer.refusal.code == "INVALID_ARGUMENT"
    assert answer.refusal.fields == {blamed} if blamed else answer.refusal.fields


@pytest.mark.parametrize(
    "detail",
    [
        {"@type": "nothing"},
        {"@type": 5},
        {"@type": ["x"]},
        {},
        5,
        "x",
        None,
        {"@type": "type.googleapis.com/google.protobuf.Any"},
        {"@type": "type.googleapis.com/google.protobuf.Any", "value": {"@type": "x"}},
        {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "foo": 1},
        {"@type": "type.googleapis.com/headway.v1.Job", "id": "x"},
    ],
)
def test_details_of_an_error_that_are_none(client: Client, session: str, detail: object) -> None:
    body = {"sessionId": session, "jobId": "0" * 32, "error": {"code": 13, "details": [detail]}}
    answer = client.call("FailJob", body)
    assert (answer.status, answer.refusal.code) == (400, "INVALID_ARGUMENT")


def test_results_may_be_as_deep_as_over_grpc_and_no_deeper(client: Client, caller: Caller) -> None:
    """49 lists are 100 levels of protobuf; what is stored can be read through either transport."""
    body = '{"sessionId":"%s","jobId":"%s","results":%s}'
    for depth in (45, 49, 50, 60, 99):
        job = caller.create()
        text = "[" * depth + "null" + "]" * depth
        answer = client.call("FinishJob", (body % (caller.session, job.id, text)).encode())
        if depth < 50:
            assert answer.status == 200
            read = client.call("GetResults", {"sessionId": caller.session, "jobId": job.id})
            assert read.body.decode() == f'{{"results":{text}}}'
            assert plain(caller.results(job.id).results) == json.loads(text)
        else:
            assert answer.refusal.reason == "MALFORMED_MESSAGE"
        caller.clear(job.id)


def test_brackets_in_text_are_no_nesting(client: Client, caller: Caller) -> None:
    name = '[{\\"' * 50
    answer = client.call("CreateJob", f'{{"sessionId":"{caller.session}","name":"{name}"}}'.encode())
    assert answer.json["name"] == '[{"' * 50
    caller.clear(answer.json["id"])


def test_numbers_up_to_2_53_may_be_numbers(client: Client, caller: Caller) -> None:
    for size in (2**53, str(2**63 - 1), 1e3, 5.0):
        answer = client.call("CreateJob", json.dumps({"sessionId": caller.session, "size": size}).encode())
        assert answer.json["size"] == str(int(size) if isinstance(size, float) else size)
        caller.clear(answer.json["id"])


@pytest.mark.parametrize(
    "body", [b"[" * 4_000_000, deep(1_000_000, "[", "]"), b'{"a":' * 700_000, b'"' + b"\\" * 4_000_000]
)
def test_large_nonsense_takes_no_time(client: Client, caller: Caller, body: bytes) -> None:
    began = time.monotonic()
    answer = client.call("CreateJob", body)
    assert answer.status == 400
    assert isinstance(answer.refusal, Refusal)
    assert time.monotonic() - began < 3


def test_a_pair_of_surrogates_is_a_character(client: Client, caller: Caller) -> None:
    answer = client.call("CreateJob", f'{{"sessionId":"{caller.session}","name":"\\ud83d\\ude00"}}'.encode())
    assert answer.json["name"] == "😀"
    caller.clear(answer.json["id"])


PIECES = [
    *("\\ud800", "\\u0000", '"', "{", "}", "[", "]", ",", ":", "1e400", "-", "NaN", "null", "true", "1", "9" * 30),
    *('"@type"', "é", "\\", '"\\ud800"', "{}", "[]", "1.5", "-0", '""', '"-1s"', '"1.0000000001s"', '"9999999999999s"'),
]


@pytest.mark.parametrize("method", [name for name, method in METHODS.items() if not method.server_streaming])
def test_mutated_json(client: Client, caller: Caller, method: str) -> None:
    """Whatever it says, the answer is one that a caller can make sense of."""
    rng = random.Random(method)
    whole = json.dumps(FULL[method]).replace("SESSION", caller.session)
    whole = whole.replace('"message": "m"}}', '"message": "m", "details": [{"@type": "x/google.rpc.Help"}]}}')
    for _ in range(60):
        text = whole
        for _ in range(rng.randint(1, 3)):
            start = rng.randrange(len(text))
            text = text[:start] + rng.choice(PIECES) + text[start + rng.choice([0, 0, 1, 3, 8]) :]
        answer = client.call(method, text.encode())
        if answer.status != 200:
            assert answer.refusal.code not in ("INTERNAL", "UNKNOWN"), text
    for job in caller.list().jobs:
        caller.clear(job.id)
