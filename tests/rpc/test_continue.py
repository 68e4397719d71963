"""Jobs that carry on the work of others, and jobs that are found by their key."""

from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from google.rpc import code_pb2, error_details_pb2

from headway.v1 import job_pb2
from tests.rpc.test_states import CANCELLED, FAILED, LOST, PENDING, RUNNING, bring
from tests.support.caller import Caller, seconds
from tests.support.refusals import faults, from_error, refused_with

GONE = "0190b5a1c8d07b2a9c3e5f6071829399"


def broken_off(caller: Caller) -> job_pb2.Job:
    """A job that failed in the middle, with a checkpoint."""
    job = caller.create(
        name="Import", invoker="alice", size=1000, unit="records", labels={"kind": "import"}, key="night"
    )
    caller.report(job.id, progress=300, sequence=7, counters={"added": 290}, message="file 3")
    caller.report(job.id, part="b", progress=50, record_errors=[{"record": "r1"}, {"record": "r2"}])
    caller.set(job.id, {"offset": 350, "note": None})
    return caller.fail(job.id, message="the disk is full")


def test_the_new_job_begins_where_the_other_one_stands(caller: Caller) -> None:
    before = broken_off(caller)
    job = caller.create(continues=before.id)
    assert (job.name, job.invoker, job.size, job.unit) == ("Import", "alice", 1000, "records")
    assert dict(job.labels) == {"kind": "import"}
    assert (dict(job.parts), job.progress, dict(job.counters)) == ({"": 300, "b": 50}, 350, {"added": 290})
    assert caller.variables(job.id) == {"offset": 350, "note": None}
    assert (job.status, job.attempt, job.continues, job.key) == (RUNNING, 1, before.id, "")
    # What belongs to the run that failed stays with it.
    assert (job.error_count, job.message, job.HasField("error")) == (0, "", False)
    assert caller.errors(job.id).total == 0
    # Its own worker counts its reports from 1.
    assert caller.report(job.id, progress=301, sequence=1).progress == 351
    assert caller.report(job.id, counters={"added": 1}).progress == 351
    assert caller.get(job.id).counters["added"] == 291
    former = caller.get(before.id)
    assert (former.continued_by, former.progress, former.counters["added"]) == (job.id, 350, 290)
    assert (former.status, former.error.message, former.end_time) == (FAILED, "the disk is full", before.end_time)
    # A checkpoint of the one is none of the other.
    caller.set(job.id, {"offset": 400})
    assert caller.variables(before.id)["offset"] == 350


def test_what_the_request_gives_wins(caller: Caller) -> None:
    before = broken_off(caller)
    job = caller.create(
        continues=before.id, name="Again", invoker="bob", size=2000, unit="files", labels={"try": "2"}, pending=True
    )
    assert (job.name, job.invoker, job.size, job.unit, dict(job.labels)) == (
        "Again",
        "bob",
        2000,
        "files",
        {"try": "2"},
    )
    assert (job.status, job.progress) == (PENDING, 350)
    assert [found.id for found in caller.list(labels={"try": "2"}).jobs] == [job.id]
    assert caller.start(job.id).attempt == 1


def test_inherited_labels_are_found_by_lists(caller: Caller) -> None:
    before = broken_off(caller)
    job = caller.create(continues=before.id)
    assert [found.id for found in caller.list(labels={"kind": "import"}).jobs] == [job.id, before.id]


def test_both_histories_tell_of_it(caller: Caller) -> None:
    before = broken_off(caller)
    job = caller.create(continues=before.id)
    former = caller.get(before.id)
    assert former.revision == before.revision + 1
    assert (former.history[-1].status, former.history[-1].reason) == (FAILED, f"continued by {job.id}")
    assert former.history[-1].revision == former.revision
    assert [(change.status, change.reason) for change in job.history] == [(RUNNING, f"continues {before.id}")]


def test_a_take_over_stands_in_the_history(caller: Caller) -> None:
    job = caller.create()
    taken = caller.start(job.id, take_over=True)
    assert [(change.status, change.reason) for change in taken.history] == [
        (RUNNING, "created"),
        (RUNNING, "taken over, attempt 2"),
    ]
    assert taken.history[-1].revision == taken.revision


@pytest.mark.parametrize("state", ["COMPLETED", "CANCELLED", "LOST"])
def test_every_job_that_ended_or_is_lost_can_be_continued(caller: Caller, state: str) -> None:
    before = bring(caller, state)
    job = caller.create(continues=before.id)
    assert (job.name, job.status) == ("before", RUNNING)
    assert caller.get(before.id).continued_by == job.id


def test_a_lost_worker_that_comes_back_spoils_nothing(caller: Caller) -> None:
    before = bring(caller, "LOST")
    job = caller.create(continues=before.id)
    former = caller.get(before.id)
    assert (former.status, former.error.code) == (FAILED, code_pb2.ABORTED)
    info = error_details_pb2.ErrorInfo()
    assert former.error.details[0].Unpack(info)
    assert (info.reason, info.domain) == ("CONTINUED", "headway")
    assert former.history[-1].reason == f"continued by {job.id}"
    refused_with("JOB_ENDED", caller.report, before.id, progress=9)
    refused_with("JOB_ENDED", caller.finish, before.id)
    refused_with("JOB_ENDED", caller.start, before.id, take_over=True)
    assert caller.get(job.id) == job


@pytest.mark.parametrize("state", ["PENDING", "RUNNING"])
def test_a_job_that_goes_on_is_not_continued(caller: Caller, state: str) -> None:
    before = bring(caller, state)
    assert refused_with("JOB_NOT_ENDED", caller.create, continues=before.id).code == "FAILED_PRECONDITION"
    assert caller.get(before.id) == before
    assert len(caller.list().jobs) == 1


def test_only_jobs_of_the_session_are_continued(caller: Caller, stranger: Caller) -> None:
    before = broken_off(stranger)
    for unknown in (before.id, GONE):
        assert refused_with("JOB_NOT_FOUND", caller.create, continues=unknown).code == "NOT_FOUND"
    assert faults(caller.create, continues="x", key="k" * 257) == {"continues", "key"}
    assert not caller.list().jobs
    assert stranger.get(before.id) == before


def test_a_job_is_continued_once(caller: Caller) -> None:
    before = broken_off(caller)
    job = caller.create(continues=before.id)
    refusal = refused_with("JOB_ALREADY_CONTINUED", caller.create, continues=before.id, name="second")
    assert refusal.code == "FAILED_PRECONDITION"
    assert job.id in refusal.message
    (info,) = [detail for detail in refusal.details if isinstance(detail, error_details_pb2.ErrorInfo)]
    assert dict(info.metadata) == {"job_id": job.id}
    assert len(caller.list().jobs) == 2


def test_many_that_continue_one_job_at_once_make_one(caller: Caller) -> None:
    before = broken_off(caller)

    def attempt(number: int) -> str:
        try:
            return caller.create(continues=before.id, name=str(number)).id
        except grpc.RpcError as error:
            refusal = from_error(error)
            assert refusal.reason == "JOB_ALREADY_CONTINUED"
            return refusal.message.split()[2]

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(attempt, range(8)))) == 1
    assert len(caller.list().jobs) == 2


def test_a_repeat_with_the_same_id_is_the_same_job(caller: Caller) -> None:
    before = broken_off(caller)
    first = caller.create(continues=before.id, job_id=GONE)
    assert caller.create(continues=before.id, job_id=GONE) == first
    caller.finish(first.id)
    assert caller.create(continues=before.id, job_id=GONE).id == first.id
    refused_with("JOB_ALREADY_EXISTS", caller.create, job_id=GONE)
    assert len(caller.list().jobs) == 2


def test_once_the_successor_is_cleared_the_job_can_be_continued_again(caller: Caller) -> None:
    before = broken_off(caller)
    first = caller.create(continues=before.id)
    caller.clear(first.id)
    assert caller.get(before.id).continued_by == first.id
    second = caller.create(continues=before.id)
    assert caller.get(before.id).continued_by == second.id
    caller.clear(before.id)
    assert caller.get(second.id).continues == before.id


def test_a_chain_of_jobs(caller: Caller) -> None:
    ids = [broken_off(caller).id]
    for number in range(3):
        job = caller.create(continues=ids[-1])
        caller.report(job.id, part="", advance=10)
        caller.fail(job.id, message=f"again {number}")
        ids.append(job.id)
    assert caller.get(ids[-1]).progress == 380
    assert [caller.get(job_id).continued_by for job_id in ids] == [*ids[1:], ""]


def test_those_who_watch_are_told(caller: Caller) -> None:
    before = broken_off(caller)
    watch = caller.watch_all()
    assert next(watch).job.id == before.id
    job = caller.create(continues=before.id)
    told = {update.job.id: update.job for update in (next(watch), next(watch))}
    assert told[before.id].continued_by == job.id
    assert told[job.id].continues == before.id
    watch.cancel()


def test_the_pace_goes_on_and_the_gap_is_not_held_against_it(caller: Caller) -> None:
    before = caller.create(size=1000)
    for done in range(100, 600, 100):
        caller.app.clock.forward(10)
        caller.report(before.id, progress=done)
    caller.fail(before.id)
    caller.app.clock.forward(3600)
    job = caller.create(continues=before.id)
    caller.report(job.id, progress=510)
    caller.app.clock.forward(10)
    caller.report(job.id, progress=610)
    estimate = caller.get(job.id).estimate
    assert estimate.rate == pytest.approx(10)
    assert estimate.remaining_likely.ToTimedelta().total_seconds() == pytest.approx(39)


# Keys.


@pytest.mark.parametrize("state", ["PENDING", "RUNNING", "LOST"])
def test_a_key_finds_the_unfinished_job(caller: Caller, state: str) -> None:
    job = caller.create(key="nightly", pending=state == "PENDING", heartbeat_timeout=seconds(60), name="first")
    assert job.key == "nightly"
    if state == "LOST":
        caller.app.pass_time(61)
    found = caller.create(key="nightly", job_id=GONE, name="second", size=9)
    assert found == caller.get(job.id)
    assert found.status == {"PENDING": PENDING, "RUNNING": RUNNING, "LOST": LOST}[state]
    assert len(caller.list().jobs) == 1


def test_a_job_that_ended_is_not_found_by_its_key(caller: Caller) -> None:
    ids = []
    for end in (caller.finish, caller.fail, lambda job_id: caller.cancel(job_id, grace=0), caller.clear):
        job = caller.create(key="nightly")
        end(job.id)
        ids.append(job.id)
    assert len({*ids, caller.create(key="nightly").id}) == 5
    assert caller.get(ids[0]).key == "nightly"


def test_keys_belong_to_their_session(caller: Caller, stranger: Caller) -> None:
    assert len({caller.create(key="k").id, stranger.create(key="k").id, caller.create(key="K").id}) == 3
    assert len({caller.create().id for _ in range(3)}) == 3
    longest = "\U0001f600" * 256
    assert caller.create(key=longest).id == caller.create(key=longest).id


def test_many_that_look_for_one_key_at_once_find_one_job(caller: Caller) -> None:
    with ThreadPoolExecutor(8) as pool:
        assert len({job.id for job in pool.map(lambda n: caller.create(key="k", name=str(n)), range(16))}) == 1


def test_the_id_is_looked_for_before_the_key(caller: Caller) -> None:
    """A repeat of the call that made a job is answered with it, whatever its key is by now."""
    first = caller.create(key="k", job_id=GONE)
    caller.finish(first.id)
    second = caller.create(key="k")
    assert caller.create(key="k", job_id=GONE).id == first.id
    refused_with("JOB_ALREADY_EXISTS", caller.create, key="another", job_id=GONE)
    assert caller.create(key="k").id == second.id


def test_a_worker_who_had_begun_already_has_a_job_of_its_own(caller: Caller) -> None:
    first = caller.create(key="k")
    own = caller.create(key="k", key_if_free=True, job_id=GONE)
    assert (own.id, own.key) == (GONE, "")
    # The repeat of the call, and of the one that only asked.
    assert caller.create(key="k", key_if_free=True, job_id=GONE) == own
    assert caller.create(key="k", job_id=GONE) == own
    caller.finish(first.id)
    assert caller.create(key="k", key_if_free=True).key == "k"


def test_a_key_together_with_a_job_to_continue(caller: Caller) -> None:
    before = broken_off(caller)
    job = caller.create(key="night", continues=before.id)
    assert (job.key, job.continues) == ("night", before.id)
    # At every further start the same call finds it.
    assert caller.create(key="night", continues=before.id) == job
    caller.create(key="other")
    assert refused_with("JOB_ALREADY_EXISTS", caller.create, key="other", continues=before.id).code == "ALREADY_EXISTS"


def test_a_lost_job_hands_its_key_on(caller: Caller) -> None:
    before = caller.create(key="night", heartbeat_timeout=seconds(60))
    refused_with("JOB_NOT_ENDED", caller.create, key="night", continues=before.id)
    caller.app.pass_time(61)
    job = caller.create(key="night", continues=before.id)
    assert (job.id != before.id, job.key) == (True, "night")
    assert caller.create(key="night") == job


def test_a_job_that_was_found_is_taken_over(caller: Caller) -> None:
    caller.create(key="k")
    found = caller.create(key="k")
    taken = caller.start(found.id, take_over=True)
    assert taken.attempt == 2
    refused_with("STALE_ATTEMPT", caller.report, found.id, attempt=1, progress=1)
    assert caller.get(found.id).status != CANCELLED
