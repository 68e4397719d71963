"""Reports: parts, sequences, all or nothing, what rides along, and how the server paces its workers."""

import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from headway.v1 import job_pb2
from headway.v1 import job_service_pb2 as pb
from tests.support.caller import Caller, seconds, struct
from tests.support.refusals import faults, outcome, refused_with

INT64_MAX = 2**63 - 1


def at_once(count: int, call: Callable[[int], object]) -> list[object]:
    """What so many callers are answered who call at the same time."""
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(call, range(count)))


def test_progress_is_the_sum_of_the_parts(caller: Caller) -> None:
    """Workers that share a job do not read each other."""
    job = caller.create(size=100)
    assert caller.report(job.id, part="a", progress=10).progress == 10
    assert caller.report(job.id, part="b", progress=5).progress == 15
    assert caller.report(job.id, part="a", advance=7).progress == 22
    assert caller.report(job.id, progress=3).progress == 25
    now = caller.get(job.id)
    assert dict(now.parts) == {"a": 17, "b": 5, "": 3}
    assert now.progress == 25


def test_a_part_can_have_any_name(caller: Caller) -> None:
    names = ["", " ", "a ", "a", "é", "é", "日本", "😀" * 128, "'; DROP TABLE job; --", "%", "_"]
    job = caller.create()
    for number, name in enumerate(names, 1):
        caller.report(job.id, part=name, progress=number)
    assert dict(caller.get(job.id).parts) == {name: number for number, name in enumerate(names, 1)}


def test_a_retried_advance_counts_once(caller: Caller) -> None:
    """And every retry is answered as the first call was."""
    job = caller.create()
    first = caller.report(job.id, advance=5, sequence=1, counters={"added": 5})
    for _ in range(3):
        assert caller.report(job.id, advance=5, sequence=1, counters={"added": 5}) == first
    now = caller.get(job.id)
    assert (now.progress, dict(now.counters), now.revision) == (5, {"added": 5}, first.revision)


def test_a_report_that_many_deliver_at_once_counts_once(caller: Caller) -> None:
    job = caller.create()
    answers = at_once(8, lambda _: caller.report(job.id, advance=5, sequence=1, counters={"added": 5}))
    for answer in answers:
        assert isinstance(answer, pb.ReportProgressResponse)
        # How soon to come back depends on the server's load, and so on the moment.
        answer.ClearField("next_report_after")
    assert all(answer == answers[0] for answer in answers), answers
    now = caller.get(job.id)
    assert (now.progress, dict(now.counters), now.revision) == (5, {"added": 5}, 2)


def test_a_job_that_many_create_at_once_is_one_job(caller: Caller) -> None:
    """All are answered alike, for their parameters are; of those who want another one none succeeds."""
    chosen = "ab" * 16
    answers = at_once(8, lambda _: caller.create(job_id=chosen, name="x"))
    assert all(answer == answers[0] for answer in answers)
    assert [job.id for job in caller.list().jobs] == [chosen]
    differing = at_once(8, lambda n: outcome(caller.create, job_id="cd" * 16, name=f"{n}"))
    assert sorted(map(str, differing)) == ["JOB_ALREADY_EXISTS"] * 7 + ["OK"]


def test_a_repeated_creation_gives_the_job_as_it_is_now(caller: Caller) -> None:
    """Whatever became of it meanwhile: changed, reported on, ended."""
    chosen = "ef" * 16
    caller.create(job_id=chosen, name="x", size=5, heartbeat_timeout=seconds(60))
    caller.report(chosen, progress=3)
    caller.update(job_pb2.Job(id=chosen, name="y", size=7))
    ended = caller.finish(chosen)
    assert caller.create(job_id=chosen, name="x", size=5, heartbeat_timeout=seconds(60)) == ended
    for other in ({"name": "y"}, {"name": "x", "size": 7}, {"name": "x", "size": 5}, {"pending": True}):
        assert outcome(caller.create, job_id=chosen, **other) == "JOB_ALREADY_EXISTS"


def test_workers_at_once_lose_nothing(caller: Caller) -> None:
    """Advances, counters and errors of many callers all count."""
    job = caller.create()
    error = job_pb2.RecordError(record="r")
    at_once(8, lambda n: [caller.report(job.id, part=f"{n % 2}", advance=1, counters={"a": 2}, record_errors=[error])
                          for _ in range(10)])  # fmt: skip
    now = caller.get(job.id)
    assert (now.progress, dict(now.parts), dict(now.counters)) == (80, {"0": 40, "1": 40}, {"a": 160})
    assert now.error_count == caller.errors(job.id).total == 80


def test_an_older_report_changes_nothing(caller: Caller) -> None:
    """Nothing of it, not its message, variables or errors either; it is acknowledged all the same."""
    job = caller.create()
    caller.report(job.id, progress=50, sequence=5, message="new", variables=struct({"at": 50}))
    before = caller.get(job.id)
    answer = caller.report(
        job.id,
        progress=10,
        sequence=4,
        message="old",
        size=3,
        counters={"a": 1},
        record_errors=[job_pb2.RecordError(record="r")],
        variables=struct({"at": 10}),
    )
    assert (answer.progress, answer.revision) == (50, before.revision)
    assert caller.get(job.id) == before
    assert caller.variables(job.id) == {"at": 50}
    assert caller.errors(job.id).total == 0


def test_sequences_count_by_part_and_may_have_gaps(caller: Caller) -> None:
    job = caller.create()
    caller.report(job.id, part="a", advance=1, sequence=INT64_MAX)
    assert caller.report(job.id, part="b", advance=1, sequence=1).progress == 2
    assert caller.report(job.id, part="b", advance=1, sequence=100).progress == 3
    assert caller.report(job.id, part="b", advance=1, sequence=99).progress == 3
    assert caller.report(job.id, part="a", advance=1, sequence=INT64_MAX).progress == 3


def test_without_a_sequence_every_report_counts(caller: Caller) -> None:
    job = caller.create()
    caller.report(job.id, advance=1, sequence=9)
    assert caller.report(job.id, advance=1).progress == 2
    assert caller.report(job.id, advance=1).progress == 3
    assert caller.report(job.id, advance=1, sequence=9).progress == 3


def test_a_refused_report_does_not_use_its_sequence_up(caller: Caller) -> None:
    job = caller.create()
    refused_with("INVALID_REQUEST", lambda: caller.report(job.id, advance=-1, sequence=1))
    assert caller.report(job.id, advance=1, sequence=1).progress == 1


def test_a_later_report_can_go_back(caller: Caller) -> None:
    """A newer report may say less than an older one: the worker knows best."""
    job = caller.create(size=10)
    caller.report(job.id, progress=8, sequence=1)
    assert caller.report(job.id, progress=3, sequence=2).progress == 3
    assert caller.report(job.id, advance=-2, sequence=3).progress == 1


def test_progress_may_go_beyond_the_size(caller: Caller) -> None:
    job = caller.create(size=10)
    assert caller.report(job.id, progress=25).progress == 25
    now = caller.get(job.id)
    assert (now.size, now.progress) == (10, 25)


def test_shuffled_and_repeated_reports_end_at_the_same_meter(caller: Caller) -> None:
    """Whatever the network does: what counts is the newest report of each part."""
    shuffle = random.Random(7)
    reports = [(part, sequence) for part in ("", "a", "b") for sequence in range(1, 11)]
    deliveries = reports * 2
    shuffle.shuffle(deliveries)
    job = caller.create()
    newest: dict[str, int] = {}
    for part, sequence in deliveries:
        newest[part] = max(newest.get(part, 0), sequence)
        answer = caller.report(job.id, part=part, sequence=sequence, progress=sequence * 10)
        assert answer.progress == 10 * sum(newest.values())


BAD_PIECES: dict[str, dict[str, Any]] = {
    "progress": {"progress": -1},
    "advance": {"advance": -100},
    "advance beyond int64": {"advance": INT64_MAX},
    "sequence": {"sequence": -1},
    "attempt": {"attempt": -1},
    "attempt ahead": {"attempt": 2},
    "part": {"part": "x" * 129},
    "size": {"size": -1},
    "message": {"message": "x" * 1025},
    "message with U+0000": {"message": "a\0b"},
    "counters": {"counters": {"ok": 1, "": 1}},
    "counter beyond int64": {"counters": {"full": 1}},
    "counters, too many": {"counters": {f"c{n}": 1 for n in range(64)}},
    "record_errors": {"record_errors": [job_pb2.RecordError(record="ok"), job_pb2.RecordError(code="no record")]},
    "variables": {"variables": struct({"ok": 1, "": 2})},
    "variables, too many": {"variables": struct({f"v{n}": 1 for n in range(256)})},
    "variables, too large": {"variables": struct({"big": "x" * 256 * 1024})},
}


@pytest.mark.parametrize("piece", BAD_PIECES)
def test_all_of_a_report_is_applied_or_none_of_it(caller: Caller, piece: str) -> None:
    """One bad piece, and nothing of the report is seen; without it, everything is."""
    job = caller.create()
    caller.report(job.id, progress=50, counters={"full": INT64_MAX}, variables=struct({"at": 50}))
    before = caller.get(job.id)
    whole: dict[str, Any] = {
        "part": "",
        "progress": 60,
        "sequence": 1,
        "size": 100,
        "message": "here",
        "counters": {"added": 3},
        "record_errors": [job_pb2.RecordError(record="r1", code="C", message="m")],
        "variables": struct({"at": 60}),
    }
    bad = {**whole, **BAD_PIECES[piece]}
    if "advance" in bad:
        del bad["progress"]
    fields = faults(lambda: caller.report(job.id, **bad))
    assert any(field.startswith(piece.split()[0].split(",")[0].removesuffix("s")) for field in fields), fields
    assert caller.get(job.id) == before
    assert caller.variables(job.id) == {"at": 50}
    assert caller.errors(job.id) == pb.ListRecordErrorsResponse()
    caller.report(job.id, **whole)
    now = caller.get(job.id)
    assert (now.progress, now.size, now.message, now.error_count) == (60, 100, "here", 1)
    assert dict(now.counters) == {"full": INT64_MAX, "added": 3}
    assert caller.variables(job.id) == {"at": 60}
    assert list(caller.errors(job.id).first) == [job_pb2.RecordError(record="r1", code="C", message="m")]
    assert now.revision == before.revision + 1


def test_counters_are_added_up(caller: Caller) -> None:
    """Deltas, negative ones too, of every name on its own."""
    job = caller.create()
    caller.report(job.id, counters={"added": 3, "skipped": 0, "日": 1})
    caller.report(job.id, counters={"added": 4, "updated": -2})
    assert dict(caller.get(job.id).counters) == {"added": 7, "skipped": 0, "updated": -2, "日": 1}


def test_a_job_has_so_many_counters_and_parts_and_no_more(caller: Caller) -> None:
    job = caller.create()
    caller.report(job.id, counters={f"c{n}": 1 for n in range(64)})
    assert faults(lambda: caller.report(job.id, counters={"one more": 1})) == {"counters"}
    caller.report(job.id, counters={"c0": 1})
    for number in range(256):
        caller.report(job.id, part=f"p{number}", progress=1)
    assert faults(lambda: caller.report(job.id, part="one more", progress=1)) == {"part"}
    assert caller.report(job.id, part="p0", progress=2).progress == 257


@pytest.mark.parametrize("total", [1, 99, 100, 101, 199, 200, 201, 350])
def test_the_first_and_last_record_errors_are_kept_and_the_count_is_exact(caller: Caller, total: int) -> None:
    job = caller.create()
    errors = [job_pb2.RecordError(record=f"r{n}", code=f"C{n % 3}", message=f"wrong {n} é😀") for n in range(total)]
    sizes = random.Random(total)
    done = 0
    while done < total:
        some = sizes.randint(1, 70)
        caller.report(job.id, record_errors=errors[done : done + some])
        done += some
    kept = caller.errors(job.id)
    assert list(kept.first) == errors[:100]
    assert list(kept.last) == errors[-100:]
    assert kept.total == caller.get(job.id).error_count == total


def test_one_report_can_carry_a_thousand_record_errors(caller: Caller) -> None:
    job = caller.create()
    errors = [job_pb2.RecordError(record=f"r{n}") for n in range(1000)]
    caller.report(job.id, record_errors=errors)
    caller.report(job.id, record_errors=[job_pb2.RecordError(record="last")])
    kept = caller.errors(job.id)
    assert [error.record for error in kept.first] == [f"r{n}" for n in range(100)]
    assert [error.record for error in kept.last] == [*[f"r{n}" for n in range(901, 1000)], "last"]
    assert kept.total == 1001
    assert faults(lambda: caller.report(job.id, record_errors=[*errors, errors[0]])) == {"record_errors"}


def test_variables_ride_along(caller: Caller) -> None:
    """A checkpoint is merged as SetVariables does it."""
    job = caller.create()
    caller.set(job.id, {"kept": True, "at": 0})
    caller.report(job.id, progress=7, variables=struct({"at": 7, "new": None}))
    assert caller.variables(job.id) == {"kept": True, "at": 7, "new": None}


def test_message_and_size_stay_until_they_are_said_anew(caller: Caller) -> None:
    """An empty message clears it, and size 0 says that it is not known."""
    job = caller.create(size=5)
    caller.report(job.id, message="reading", size=10)
    caller.report(job.id, progress=1)
    now = caller.get(job.id)
    assert (now.message, now.size) == ("reading", 10)
    caller.report(job.id, message="", size=0)
    now = caller.get(job.id)
    assert (now.message, now.size) == ("", 0)


def test_a_report_without_an_amount_is_a_heartbeat(caller: Caller) -> None:
    """Contact, and no progress."""
    job = caller.create()
    caller.report(job.id, progress=5)
    before = caller.get(job.id)
    caller.app.clock.forward(10)
    caller.report(job.id)
    now = caller.get(job.id)
    assert now.last_contact_time.ToNanoseconds() - before.last_contact_time.ToNanoseconds() > 9_900_000_000
    assert now.last_progress_time == before.last_progress_time
    assert (now.progress, dict(now.parts)) == (5, {"": 5})


def test_a_report_that_says_what_was_known_is_contact_and_no_progress(caller: Caller) -> None:
    job = caller.create()
    caller.report(job.id, progress=5)
    before = caller.get(job.id)
    caller.app.clock.forward(10)
    caller.report(job.id, progress=5)
    now = caller.get(job.id)
    assert now.last_progress_time == before.last_progress_time
    assert now.last_contact_time != before.last_contact_time


def test_a_report_answers_what_the_worker_must_know(caller: Caller) -> None:
    job = caller.create()
    answer = caller.report(job.id, progress=4)
    assert answer.status == job_pb2.JOB_STATUS_RUNNING
    assert answer.progress == 4
    assert answer.revision == caller.get(job.id).revision
    assert not answer.HasField("cancellation")
    assert answer.HasField("next_report_after")
    caller.cancel(job.id, "enough")
    answer = caller.report(job.id)
    assert answer.cancellation.requested
    assert answer.cancellation.reason == "enough"


def test_the_server_paces_its_workers_by_whether_somebody_looks(caller: Caller) -> None:
    """Short while the job is watched, longer while it is not."""
    job, other = caller.create(), caller.create()

    def pace(job_id: str) -> float:
        return caller.report(job_id).next_report_after.ToTimedelta().total_seconds()

    alone = pace(job.id)
    watch = caller.watch(job.id)
    next(watch)
    watched = pace(job.id)
    assert 0 < watched < 1 <= alone
    assert pace(other.id) == alone, "nobody looks at that one"
    watch.cancel()
    session_watch = caller.watch_all()
    next(session_watch)
    assert pace(other.id) == watched
    session_watch.cancel()


@pytest.mark.parametrize("heartbeat", [0.003, 0.5, 3, 60, 86_400])
def test_the_next_report_is_due_well_before_the_job_counts_as_lost(caller: Caller, heartbeat: float) -> None:
    job = caller.create(heartbeat_timeout=seconds(heartbeat))
    wait = caller.report(job.id).next_report_after.ToTimedelta().total_seconds()
    assert wait <= heartbeat / 3


def test_a_report_of_another_attempt_is_refused(caller: Caller) -> None:
    """Of an older one as stale; of one that was never given as a mistake. 0 is not checked."""
    job = caller.create()
    caller.report(job.id, attempt=1, progress=1)
    assert faults(lambda: caller.report(job.id, attempt=2, progress=9)) == {"attempt"}
    assert caller.start(job.id, take_over=True).attempt == 2
    assert refused_with("STALE_ATTEMPT", lambda: caller.report(job.id, attempt=1, progress=9)).code == (
        "FAILED_PRECONDITION"
    )
    assert caller.report(job.id, attempt=2, progress=2).progress == 2
    assert caller.report(job.id, progress=3).progress == 3


def test_a_take_over_lets_sequences_begin_anew_and_keeps_the_meter(caller: Caller) -> None:
    job = caller.create()
    caller.report(job.id, attempt=1, sequence=900, progress=40, variables=struct({"at": 40}))
    caller.start(job.id, take_over=True)
    assert caller.variables(job.id) == {"at": 40}
    assert caller.report(job.id, attempt=2, sequence=1, advance=1).progress == 41


def test_a_job_tells_the_greatest_sequence_of_its_attempt(caller: Caller) -> None:
    """Of all its parts, whatever the clock says: a worker that continues without take-over must number higher."""
    job = caller.create()
    assert job.last_sequence == 0
    caller.report(job.id, progress=1)
    assert caller.get(job.id).last_sequence == 0
    ahead = caller.get(job.id).create_time.ToMicroseconds() + 10 * 365 * 24 * 3_600_000_000
    caller.report(job.id, part="a", sequence=ahead, advance=1)
    caller.report(job.id, part="b", sequence=7, advance=1)
    assert caller.get(job.id).last_sequence == ahead
    # Neither what is old nor what is refused was applied.
    caller.report(job.id, part="a", sequence=ahead - 1, advance=1)
    refused_with("INVALID_REQUEST", lambda: caller.report(job.id, sequence=INT64_MAX, advance=-2))
    assert [seen.last_sequence for seen in caller.list().jobs] == [ahead]
    caller.report(job.id, part="b", sequence=INT64_MAX, advance=1)
    assert caller.get(job.id).last_sequence == INT64_MAX
    assert caller.start(job.id, take_over=True).last_sequence == 0
    assert caller.get(job.id).last_sequence == 0
    caller.report(job.id, attempt=2, sequence=1, advance=1)
    assert caller.get(job.id).last_sequence == 1
    caller.finish(job.id)
    assert caller.get(job.id).last_sequence == 1


def test_the_meter_cannot_run_over(caller: Caller) -> None:
    """A job's progress is an int64, over all parts."""
    job = caller.create()
    assert caller.report(job.id, part="a", progress=INT64_MAX - 1).progress == INT64_MAX - 1
    assert caller.report(job.id, part="b", progress=1).progress == INT64_MAX
    assert faults(lambda: caller.report(job.id, part="b", progress=2)) == {"progress"}
    assert faults(lambda: caller.report(job.id, part="b", advance=1)) == {"advance"}
    assert faults(lambda: caller.report(job.id, part="b", advance=-(2**63))) == {"advance"}
    assert caller.report(job.id, part="a", progress=0).progress == 1
