"""Every method of the background job that Headway grew from: new, fetch, set, get, finish and the rest."""

import json
import math
import re
from typing import Any

import pytest
from google.protobuf import struct_pb2

from headway.v1 import job_pb2
from headway.v1 import job_service_pb2 as pb
from tests.support.app import NOON
from tests.support.caller import Caller, Json, plain, value
from tests.support.refusals import refused_with

VALUES: dict[str, Json] = {
    "null": None,
    "true": True,
    "false": False,
    "zero": 0,
    "one": 1,
    "negative": -17,
    "fraction": 0.1,
    "2^53 - 1": 2**53 - 1,
    "2^53": 2**53,
    "-2^53": -(2**53),
    "negative zero": -0.0,
    "large": 1e308,
    "small": 5e-324,
    "many digits": 1.7976931348623157e308,
    "1e22": 1e22,
    "empty text": "",
    "text": 'it\'s "quoted" \\ and /slashed/',
    "line breaks": "a\r\nb\tc\x01\x7f\u2028",
    "scripts": "Ελληνικά עברית العربية हिन्दी 日本語 Ünïcödé",
    "four bytes": "😀𝒳🏳️‍🌈",
    "a number in text": "12345678901234567890",
    "empty list": [],
    "empty map": {},
    "list": [None, True, 1, "x", [], {}],
    "map": {"b": 1, "a": [2, {"": "empty name", "日": None}]},
    "deep": [[[[[[[[[[{"a": {"a": {"a": [0]}}}]]]]]]]]]],
}
"""One of every kind of JSON."""

NAMES = [
    "Stage MARC records",
    "Ünïcödé",
    "日本語の仕事",
    "مهمة",
    "😀",
    "<script>alert(1)</script>",
    "a'b\"c%_\\;--",
    " ",
]


def same(left: Any, right: Any) -> bool:
    """Whether two JSON values are equal in kind too: true is not 1, and -0.0 is not 0."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, int | float) and isinstance(right, int | float):
        return left == right and math.copysign(1, left) == math.copysign(1, right)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same(left[name], right[name]) for name in left)
    return type(left) is type(right) and bool(left == right)


def test_new_needs_a_session_and_nothing_else(caller: Caller) -> None:
    """A job made of nothing but a session is RUNNING at once, at progress 0."""
    now = caller.app.clock.now() / 1e6
    job = caller.create()
    assert re.fullmatch(r"[0-9a-f]{32}", job.id)
    assert job.status == job_pb2.JOB_STATUS_RUNNING
    assert (job.progress, job.size, job.attempt, job.revision) == (0, 0, 1, 1)
    assert (job.name, job.invoker, job.unit, job.message) == ("", "", "", "")
    assert job.create_time == job.start_time == job.last_contact_time
    assert job.create_time.ToNanoseconds() / 1e9 == pytest.approx(now, abs=1)
    for absent in ("end_time", "last_progress_time", "error", "cancellation", "estimate", "heartbeat_timeout"):
        assert not job.HasField(absent), absent
    assert [(change.status, change.revision) for change in job.history] == [(job_pb2.JOB_STATUS_RUNNING, 1)]
    assert not job.stalled


def test_new_keeps_name_invoker_and_size(caller: Caller) -> None:
    job = caller.create(name="Import", invoker="stage-marc-import", size=5000)
    assert (job.name, job.invoker, job.size) == ("Import", "stage-marc-import", 5000)
    assert caller.get(job.id) == job


def test_an_assigned_id_is_a_uuid_that_sorts_by_time(caller: Caller) -> None:
    """Version 7 of RFC 9562, with the milliseconds of its creation."""
    ids = [caller.create().id for _ in range(20)]
    caller.app.clock.forward(1)
    ids.append(caller.create().id)
    assert ids == sorted(ids)
    assert len(set(ids)) == len(ids)
    for job_id in ids:
        assert job_id[12] == "7"
        assert job_id[16] in "89ab"
        assert int(job_id[:12], 16) >= NOON // 1000


def test_an_id_can_be_chosen(caller: Caller, stranger: Caller) -> None:
    """The same id and parameters give the same job; other parameters are refused; other sessions do not matter."""
    chosen = "0123456789abcdef" * 2
    job = caller.create(job_id=chosen, name="mine", labels={"a": "1", "b": "2"})
    assert job.id == chosen
    assert caller.create(job_id=chosen, name="mine", labels={"b": "2", "a": "1"}) == job
    assert (
        refused_with("JOB_ALREADY_EXISTS", lambda: caller.create(job_id=chosen, name="other")).code == "ALREADY_EXISTS"
    )
    assert stranger.create(job_id=chosen, name="theirs").name == "theirs"
    assert caller.get(chosen) == job


def test_fetch_gives_the_job(caller: Caller) -> None:
    job = caller.create(name="x", labels={"branch": "CPL"}, unit="records")
    assert caller.get(job.id) == job
    assert caller.get(job.id) == job, "reading changes nothing"


def test_fetch_in_another_session_finds_nothing(caller: Caller, stranger: Caller) -> None:
    job = caller.create()
    assert refused_with("JOB_NOT_FOUND", lambda: stranger.get(job.id)).code == "NOT_FOUND"
    assert list(stranger.list().jobs) == []
    assert caller.get(job.id).id == job.id


def described(job: job_pb2.Job, field: str, text: str) -> job_pb2.Job:
    """What an update sends that changes this field."""
    changed = job_pb2.Job(id=job.id)
    setattr(changed, field, text)
    return changed


@pytest.mark.parametrize("field", ["name", "invoker"])
@pytest.mark.parametrize("text", NAMES)
def test_name_and_invoker_can_be_read_and_written(caller: Caller, field: str, text: str) -> None:
    """In any script, at creation and later."""
    job = caller.create(**{field: text})
    assert getattr(caller.get(job.id), field) == text
    caller.update(described(job, field, "other"))
    changed = caller.update(described(job, field, text), [field])
    assert getattr(changed, field) == text
    assert caller.get(job.id) == changed


@pytest.mark.parametrize("size", [0, 1, 5000, 2**63 - 1])
def test_size_can_be_read_and_written(caller: Caller, size: int) -> None:
    job = caller.create(size=size)
    assert caller.get(job.id).size == size
    assert caller.update(job_pb2.Job(id=job.id, size=7)).size == 7
    assert caller.update(job_pb2.Job(id=job.id, size=size), ["size"]).size == size


def test_progress_can_be_read_and_written(caller: Caller) -> None:
    job = caller.create(size=10)
    for progress in (1, 5, 10):
        answer = caller.report(job.id, progress=progress)
        assert answer.progress == progress
        assert caller.get(job.id).progress == progress


def test_status_changes_by_verbs_alone(caller: Caller) -> None:
    """Neither a full meter nor an update ends a job."""
    job = caller.create(size=10)
    caller.report(job.id, progress=10)
    caller.update(job_pb2.Job(id=job.id, name="x", status=job_pb2.JOB_STATUS_FAILED, progress=3))
    now = caller.get(job.id)
    assert (now.status, now.progress) == (job_pb2.JOB_STATUS_RUNNING, 10)


@pytest.mark.parametrize("kind", VALUES)
def test_finish_keeps_results_of_any_kind(caller: Caller, kind: str) -> None:
    """A map by custom; any JSON value is kept as given."""
    job = caller.create()
    assert caller.finish(job.id, value(VALUES[kind])).status == job_pb2.JOB_STATUS_COMPLETED
    answer = caller.results(job.id)
    assert answer.HasField("results")
    assert same(plain(answer.results), VALUES[kind])


def test_finish_without_results(caller: Caller) -> None:
    job = caller.create()
    assert caller.finish(job.id).status == job_pb2.JOB_STATUS_COMPLETED
    assert not caller.results(job.id).HasField("results")


def test_results_can_be_a_mebibyte(caller: Caller) -> None:
    job = caller.create()
    text = "x" * (1024 * 1024 - 2)
    caller.finish(job.id, value(text))
    assert caller.results(job.id).results.string_value == text


def test_results_are_absent_before_the_end_and_after_another_end(caller: Caller) -> None:
    """Absent is no error."""
    pending, running, failed, cancelled = caller.create(pending=True), caller.create(), caller.create(), caller.create()
    caller.fail(failed.id)
    caller.fail(cancelled.id, code=1)
    lost = caller.create(heartbeat_timeout={"seconds": 5})
    caller.app.pass_time(6)
    assert caller.get(lost.id).status == job_pb2.JOB_STATUS_LOST
    for job in (pending, running, failed, cancelled, lost):
        assert caller.results(job.id) == pb.GetResultsResponse()


def test_set_merges_and_get_reads(caller: Caller) -> None:
    """Other variables stay; one that was never set is absent."""
    job = caller.create()
    assert caller.variables(job.id) == {}
    caller.set(job.id, {"a": 1, "b": "two"})
    caller.set(job.id, {"b": None, "c": [3]})
    assert caller.variables(job.id) == {"a": 1, "b": None, "c": [3]}
    assert caller.variables(job.id, "a", "never", "b") == {"a": 1, "b": None}
    assert caller.variables(job.id, "never") == {}


def test_set_replaces_a_map_as_a_whole(caller: Caller) -> None:
    job = caller.create()
    caller.set(job.id, {"map": {"a": 1}})
    caller.set(job.id, {"map": {"b": 2}})
    assert caller.variables(job.id) == {"map": {"b": 2}}


def test_set_removes_before_it_sets(caller: Caller) -> None:
    job = caller.create()
    caller.set(job.id, {"a": 1, "b": 2, "c": 3})
    caller.set(job.id, {"a": 9}, remove=["a", "b", "never"])
    assert caller.variables(job.id) == {"a": 9, "c": 3}


def test_variables_keep_every_kind_of_json(caller: Caller) -> None:
    """The kinds are kept, and so are the names, whatever their script."""
    job = caller.create()
    caller.set(job.id, VALUES)
    assert same(caller.variables(job.id), VALUES)
    names: dict[str, Json] = dict.fromkeys([*NAMES, "x" * 128, "é", "é", "a.b", "variables"], "set")
    caller.set(job.id, names)
    assert caller.variables(job.id, *names) == names


def test_variables_of_another_session_are_not_there(caller: Caller, stranger: Caller) -> None:
    job = caller.create()
    caller.set(job.id, {"a": 1})
    refused_with("JOB_NOT_FOUND", lambda: stranger.variables(job.id))
    refused_with("JOB_NOT_FOUND", lambda: stranger.set(job.id, {"a": 2}))
    refused_with("JOB_NOT_FOUND", lambda: stranger.clear(job.id))
    assert caller.variables(job.id) == {"a": 1}


def test_all_variables_may_take_256_kibibytes_and_be_256(caller: Caller) -> None:
    """Counted as JSON: names, and values with their quotes."""
    job = caller.create()
    caller.set(job.id, {"a": "x" * (256 * 1024 - 3)})
    refused_with("INVALID_REQUEST", lambda: caller.set(job.id, {"b": 1}))
    assert caller.variables(job.id, "b") == {}
    caller.set(job.id, {f"{n}": n for n in range(256)}, remove=["a"])
    refused_with("INVALID_REQUEST", lambda: caller.set(job.id, {"one more": 1}))
    assert len(caller.variables(job.id)) == 256


def test_clear_removes_all_that_belongs_to_the_job(caller: Caller) -> None:
    """A job made anew with the same id knows nothing of the old one's variables, results and errors."""
    chosen = "c1ea" * 8
    caller.create(job_id=chosen, labels={"a": "1"}, name="old")
    caller.set(chosen, {"secret": 1})
    caller.report(chosen, record_errors=[job_pb2.RecordError(record="r1")], counters={"added": 1})
    caller.finish(chosen, value({"secret": 2}))
    caller.clear(chosen)
    for read in (caller.get, caller.results, caller.variables, caller.errors, caller.clear):
        refused_with("JOB_NOT_FOUND", read, chosen)
    assert list(caller.list().jobs) == []
    again = caller.create(job_id=chosen, name="new")
    assert (again.name, again.error_count, again.status) == ("new", 0, job_pb2.JOB_STATUS_RUNNING)
    assert caller.variables(chosen) == {}
    assert caller.results(chosen) == pb.GetResultsResponse()
    assert caller.errors(chosen) == pb.ListRecordErrorsResponse()
    assert list(caller.list(labels={"a": "1"}).jobs) == []


def test_clear_works_in_every_state(caller: Caller) -> None:
    pending, running, completed, failed = caller.create(pending=True), caller.create(), caller.create(), caller.create()
    lost = caller.create(heartbeat_timeout={"seconds": 5})
    caller.app.pass_time(6)
    caller.finish(completed.id)
    caller.fail(failed.id)
    for job in (pending, running, completed, failed, lost):
        caller.clear(job.id)
    assert list(caller.list().jobs) == []


def test_clear_of_what_is_not_there(caller: Caller) -> None:
    """NOT_FOUND, unless the caller said that this is fine."""
    job = caller.create()
    caller.clear(job.id)
    refused_with("JOB_NOT_FOUND", lambda: caller.clear(job.id))
    caller.clear(job.id, allow_missing=True)


def test_text_is_data(caller: Caller) -> None:
    """Markup, escapes and formulas come back as they were given."""
    for text in ("<script>alert(1)</script>", "\x1b[31mred\x1b[0m", "a\r\nb", '=cmd|"/c calc"!A1', "a\u202eb"):
        job = caller.create(name=text, labels={"text": text})
        caller.report(job.id, message=text)
        caller.set(job.id, {"text": text})
        now = caller.get(job.id)
        assert (now.name, now.message, now.labels["text"]) == (text, text, text)
        assert caller.variables(job.id) == {"text": text}


def test_json_is_kept_as_python_reads_it(caller: Caller) -> None:
    """What a caller writes as JSON, another caller reads as the same JSON."""
    text = json.dumps(VALUES, sort_keys=True)
    job = caller.create()
    caller.finish(job.id, value(json.loads(text)))
    results: struct_pb2.Value = caller.results(job.id).results
    assert json.dumps(_integers(plain(results)), sort_keys=True) == json.dumps(
        _integers(json.loads(text)), sort_keys=True
    )


def _integers(item: Any) -> Any:
    """With whole numbers written alike."""
    if isinstance(item, dict):
        return {name: _integers(inner) for name, inner in item.items()}
    if isinstance(item, list):
        return [_integers(inner) for inner in item]
    return float(item) if isinstance(item, int) and not isinstance(item, bool) else item
