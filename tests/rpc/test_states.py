"""Every verb in every state; endings, take-overs, updates, cancellation requests, and the history of it all."""

from collections.abc import Callable

import pytest
from google.rpc import code_pb2, error_details_pb2, status_pb2

from headway.v1 import job_pb2
from headway.v1 import job_service_pb2 as pb
from tests.support.caller import Caller, seconds, value
from tests.support.refusals import faults, outcome, refused_with

PENDING = job_pb2.JOB_STATUS_PENDING
RUNNING = job_pb2.JOB_STATUS_RUNNING
LOST = job_pb2.JOB_STATUS_LOST
COMPLETED = job_pb2.JOB_STATUS_COMPLETED
FAILED = job_pb2.JOB_STATUS_FAILED
CANCELLED = job_pb2.JOB_STATUS_CANCELLED
STATES = {"PENDING": PENDING, "RUNNING": RUNNING, "LOST": LOST, "COMPLETED": COMPLETED, "FAILED": FAILED,
          "CANCELLED": CANCELLED}  # fmt: skip

RESULTS = value({"added": 1})


def bring(caller: Caller, state: str) -> job_pb2.Job:
    """A job in that state."""
    job = caller.create(pending=state == "PENDING", heartbeat_timeout=seconds(60), name="before", size=10)
    match state:
        case "LOST":
            caller.app.pass_time(61)
        case "COMPLETED":
            caller.finish(job.id, RESULTS)
        case "FAILED":
            caller.fail(job.id, message="broken")
        case "CANCELLED":
            caller.fail(job.id, code=code_pb2.CANCELLED, message="as wished")
    job = caller.get(job.id)
    assert job.status == STATES[state]
    return job


def update(mask: str) -> Callable[[Caller, str], object]:
    def call(caller: Caller, job_id: str) -> object:
        changed = job_pb2.Job(id=job_id, name="after", size=11, unit="records", labels={"a": "1"}, invoker="me")
        return caller.update(changed, [mask])

    return call


VERBS: dict[str, Callable[[Caller, str], object]] = {
    "StartJob": lambda caller, job_id: caller.start(job_id),
    "StartJob take_over": lambda caller, job_id: caller.start(job_id, take_over=True),
    "ReportProgress": lambda caller, job_id: caller.report(job_id, progress=5),
    "heartbeat": lambda caller, job_id: caller.report(job_id),
    "FinishJob": lambda caller, job_id: caller.finish(job_id, value({"other": 2})),
    "FailJob": lambda caller, job_id: caller.fail(job_id, message="another reason"),
    "FailJob CANCELLED": lambda caller, job_id: caller.fail(job_id, code=code_pb2.CANCELLED, message="another reason"),
    "CancelJob": lambda caller, job_id: caller.cancel(job_id, "no more", 60),
    "CancelJob at once": lambda caller, job_id: caller.cancel(job_id, "no more", 0),
    "SetVariables": lambda caller, job_id: caller.set(job_id, {"a": 1}),
    "UpdateJob name": update("name"),
    "UpdateJob invoker": update("invoker"),
    "UpdateJob labels": update("labels"),
    "UpdateJob size": update("size"),
    "UpdateJob unit": update("unit"),
    "GetJob": lambda caller, job_id: caller.get(job_id),
    "GetVariables": lambda caller, job_id: caller.variables(job_id),
    "GetResults": lambda caller, job_id: caller.results(job_id),
    "ListRecordErrors": lambda caller, job_id: caller.errors(job_id),
}

E, N, S = "JOB_ENDED", "JOB_NOT_STARTED", "JOB_ALREADY_STARTED"

# What each verb leads to: a status if it is allowed, else the reason of the refusal.
TABLE = {
    #                      PENDING      RUNNING      LOST         COMPLETED    FAILED    CANCELLED
    "StartJob":           ("RUNNING",   S,           S,           E,           E,        E),
    "StartJob take_over": ("RUNNING",   "RUNNING",   "RUNNING",   E,           E,        E),
    "ReportProgress":     (N,           "RUNNING",   "RUNNING",   E,           E,        E),
    "heartbeat":          (N,           "RUNNING",   "RUNNING",   E,           E,        E),
    "FinishJob":          (N,           "COMPLETED", "COMPLETED", E,           E,        E),
    "FailJob":            (N,           "FAILED",    "FAILED",    E,           E,        E),
    "FailJob CANCELLED":  (N,           "CANCELLED", "CANCELLED", E,           E,        E),
    "CancelJob":          ("CANCELLED", "RUNNING",   "CANCELLED", E,           E,        "CANCELLED"),
    "CancelJob at once":  ("CANCELLED", "CANCELLED", "CANCELLED", E,           E,        "CANCELLED"),
    "SetVariables":       ("PENDING",   "RUNNING",   "LOST",      "COMPLETED", "FAILED", "CANCELLED"),
    "UpdateJob name":     ("PENDING",   "RUNNING",   "LOST",      "COMPLETED", "FAILED", "CANCELLED"),
    "UpdateJob invoker":  ("PENDING",   "RUNNING",   "LOST",      "COMPLETED", "FAILED", "CANCELLED"),
    "UpdateJob labels":   ("PENDING",   "RUNNING",   "LOST",      "COMPLETED", "FAILED", "CANCELLED"),
    "UpdateJob size":     ("PENDING",   "RUNNING",   "LOST",      E,           E,        E),
    "UpdateJob unit":     ("PENDING",   "RUNNING",   "LOST",      E,           E,        E),
    "GetJob":             ("PENDING",   "RUNNING",   "LOST",      "COMPLETED", "FAILED", "CANCELLED"),
    "GetVariables":       ("PENDING",   "RUNNING",   "LOST",      "COMPLETED", "FAILED", "CANCELLED"),
    "GetResults":         ("PENDING",   "RUNNING",   "LOST",      "COMPLETED", "FAILED", "CANCELLED"),
    "ListRecordErrors":   ("PENDING",   "RUNNING",   "LOST",      "COMPLETED", "FAILED", "CANCELLED"),
}  # fmt: skip


def test_the_table_has_every_verb() -> None:
    assert TABLE.keys() == VERBS.keys()


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_in_every_state(caller: Caller, verb: str, state: str) -> None:
    """It leads where the table says, or is refused for the reason that the table says and changes nothing."""
    wanted = TABLE[verb][list(STATES).index(state)]
    job = bring(caller, state)
    result = outcome(lambda: VERBS[verb](caller, job.id))
    now = caller.get(job.id)
    if wanted in STATES:
        assert (result, now.status) == ("OK", STATES[wanted])
    else:
        assert result == wanted
        assert now == job, "a request that failed changed something"
    if now.status == job.status and now.attempt == job.attempt:
        assert now.history == job.history
    else:
        assert now.history[:-1] == job.history
        assert (now.history[-1].status, now.history[-1].revision) == (now.status, now.revision)
        assert now.history[-1].reason
    assert now.HasField("end_time") == (now.status in (COMPLETED, FAILED, CANCELLED))
    assert now.HasField("error") == (now.status in (FAILED, CANCELLED))
    assert now.HasField("start_time") == (state != "PENDING" or now.status == RUNNING)


ENDINGS: dict[str, tuple[str, Callable[[Caller, str], job_pb2.Job]]] = {
    "results": ("COMPLETED", lambda caller, job_id: caller.finish(job_id, value({"b": [1, 2.5], "a": None}))),
    "no results": ("COMPLETED", lambda caller, job_id: caller.finish(job_id)),
    "null": ("COMPLETED", lambda caller, job_id: caller.finish(job_id, value(None))),
    "an empty map": ("COMPLETED", lambda caller, job_id: caller.finish(job_id, value({}))),
    "minus zero": ("COMPLETED", lambda caller, job_id: caller.finish(job_id, value(-0.0))),
    "zero": ("COMPLETED", lambda caller, job_id: caller.finish(job_id, value(0))),
    "an error": ("FAILED", lambda caller, job_id: caller.fail(job_id, message="disk full")),
    "another code": ("FAILED", lambda caller, job_id: caller.fail(job_id, code=2, message="disk full")),
    "another message": ("FAILED", lambda caller, job_id: caller.fail(job_id, message="disk full!")),
    "cancelled": ("CANCELLED", lambda caller, job_id: caller.fail(job_id, code=1, message="disk full")),
}


@pytest.mark.parametrize("first", ENDINGS)
def test_only_an_exact_repeat_of_an_ending_is_no_error(caller: Caller, first: str) -> None:
    """A retry answers as the first call did; every other ending is refused and changes nothing."""
    status, end = ENDINGS[first]
    job = caller.create()
    ended = end(caller, job.id)
    assert ended.status == STATES[status]
    assert end(caller, job.id) == ended
    for name, (_, other) in ENDINGS.items():
        if name != first:
            assert refused_with("JOB_ENDED", other, caller, job.id).code == "FAILED_PRECONDITION"
    assert end(caller, job.id) == ended
    assert caller.get(job.id) == ended


def test_the_order_of_a_map_does_not_matter_for_a_repeat(caller: Caller) -> None:
    job = caller.create()
    ended = caller.finish(job.id, value({"a": 1, "b": {"x": 1, "y": 2}}))
    assert caller.finish(job.id, value({"b": {"y": 2, "x": 1}, "a": 1})) == ended


def test_the_error_is_kept_as_given(caller: Caller) -> None:
    """Code, message and details of the kinds that everybody knows."""
    error = status_pb2.Status(code=code_pb2.DATA_LOSS, message="tape 7 é😀")
    error.details.add().Pack(error_details_pb2.ErrorInfo(reason="TAPE", domain="library.example", metadata={"a": "1"}))
    error.details.add().Pack(error_details_pb2.ResourceInfo(resource_name="tape 7"))
    job = caller.create()
    request = pb.FailJobRequest(session_id=caller.session, job_id=job.id, error=error)
    ended = caller.app.stub.FailJob(request, timeout=10)
    assert ended.error == error
    assert caller.app.stub.FailJob(request, timeout=10) == ended
    assert caller.get(job.id).error == error


@pytest.mark.parametrize("code", range(1, 17))
def test_a_job_can_fail_with_every_code(caller: Caller, code: int) -> None:
    """CANCELLED alone ends it as CANCELLED."""
    ended = caller.fail(caller.create().id, code=code)
    assert (ended.status, ended.error.code) == (CANCELLED if code == 1 else FAILED, code)


@pytest.mark.parametrize("code", [0, -1, 17, 2**31 - 1, -(2**31)])
def test_a_job_cannot_fail_with_what_is_no_error(caller: Caller, code: int) -> None:
    job = caller.create()
    assert faults(lambda: caller.fail(job.id, code=code)) == {"error.code"}
    assert caller.get(job.id) == job


def test_starting_a_pending_job(caller: Caller) -> None:
    job = caller.create(pending=True)
    assert job.status == PENDING
    assert not job.HasField("start_time")
    assert not job.HasField("last_contact_time")
    caller.app.clock.forward(5)
    started = caller.start(job.id)
    assert (started.status, started.attempt) == (RUNNING, 1)
    assert started.start_time == started.last_contact_time
    assert started.start_time.ToNanoseconds() > job.create_time.ToNanoseconds() + 4_000_000_000


def test_taking_a_job_over_shuts_its_former_worker_out(caller: Caller) -> None:
    """Neither reports nor endings of an older attempt can spoil the successor's work."""
    job = caller.create()
    start_time = job.start_time
    for attempt in (2, 3):
        taken = caller.start(job.id, take_over=True)
        assert (taken.attempt, taken.status, taken.start_time) == (attempt, RUNNING, start_time)
    stale: list[Callable[[], object]] = [
        lambda: caller.report(job.id, attempt=2, progress=1),
        lambda: caller.report(job.id, attempt=1),
        lambda: caller.finish(job.id, attempt=2),
        lambda: caller.fail(job.id, attempt=1),
    ]
    before = caller.get(job.id)
    for call in stale:
        assert refused_with("STALE_ATTEMPT", call).code == "FAILED_PRECONDITION"
    assert caller.get(job.id) == before
    for ahead in (lambda: caller.finish(job.id, attempt=4), lambda: caller.fail(job.id, attempt=4)):
        assert faults(ahead) == {"attempt"}
    assert caller.finish(job.id, attempt=3).status == COMPLETED
    assert caller.finish(job.id, attempt=3).status == COMPLETED


def test_a_lost_worker_that_comes_back_after_a_take_over_is_refused(caller: Caller) -> None:
    job = bring(caller, "LOST")
    taken = caller.start(job.id, take_over=True)
    assert (taken.status, taken.attempt) == (RUNNING, 2)
    refused_with("STALE_ATTEMPT", lambda: caller.finish(job.id, RESULTS, attempt=1))
    assert caller.finish(job.id, attempt=2).status == COMPLETED


def test_update_without_a_mask_sets_what_is_set(caller: Caller) -> None:
    job = caller.create(name="n", invoker="i", size=1, unit="u", labels={"a": "1"})
    changed = caller.update(job_pb2.Job(id=job.id, name="N", size=2))
    assert (changed.name, changed.invoker, changed.size, changed.unit) == ("N", "i", 2, "u")
    assert dict(changed.labels) == {"a": "1"}
    assert changed.revision == job.revision + 1


def test_update_with_a_mask_sets_just_that(caller: Caller) -> None:
    """Empty values too; labels are replaced as a whole."""
    job = caller.create(name="n", invoker="i", size=1, unit="u", labels={"a": "1", "b": "2"})
    new = job_pb2.Job(id=job.id, name="ignored", labels={"c": "3"})
    changed = caller.update(new, ["invoker", "size", "labels"])
    assert (changed.name, changed.invoker, changed.size, changed.unit) == ("n", "", 0, "u")
    assert dict(changed.labels) == {"c": "3"}
    assert [j.id for j in caller.list(labels={"c": "3"}).jobs] == [job.id]
    assert list(caller.list(labels={"a": "1"}).jobs) == []
    assert dict(caller.update(job_pb2.Job(id=job.id), ["labels"]).labels) == {}


@pytest.mark.parametrize(
    "path",
    ["*", "", "id", "status", "progress", "revision", "heartbeat_timeout", "job.name", "Name", "labels.a", "nonsense",
     "history", "error.message", "name "],
)  # fmt: skip
def test_update_refuses_other_paths(caller: Caller, path: str) -> None:
    job = caller.create(name="n")
    assert faults(lambda: caller.update(job_pb2.Job(id=job.id, name="N"), ["name", path])) == {"update_mask"}
    assert caller.get(job.id) == job


def test_update_checks_the_revision(caller: Caller) -> None:
    """ABORTED if somebody else was there before; 0 is not checked."""
    job = caller.create()
    caller.report(job.id, progress=1)
    change = job_pb2.Job(id=job.id, name="mine")
    for wrong in (job.revision, job.revision + 2, 2**63 - 1):
        assert refused_with("REVISION_MISMATCH", caller.update, change, revision=wrong).code == "ABORTED"
    assert caller.get(job.id).name == ""
    assert caller.update(change, revision=job.revision + 1).name == "mine"
    assert faults(lambda: caller.update(change, revision=-1)) == {"revision"}


def test_an_update_that_changes_nothing_is_no_change(caller: Caller) -> None:
    job = caller.create(name="n", labels={"a": "1"})
    assert caller.update(job_pb2.Job(id=job.id, name="n", labels={"a": "1"})) == job
    assert caller.update(job_pb2.Job(id=job.id)) == job
    assert caller.set(job.id) == job


def test_after_the_end_size_and_unit_are_fixed_and_the_rest_is_not(caller: Caller) -> None:
    """All of an update or none of it, then too."""
    job = bring(caller, "COMPLETED")
    refused_with("JOB_ENDED", lambda: caller.update(job_pb2.Job(id=job.id, name="x", size=99)))
    refused_with("JOB_ENDED", lambda: caller.update(job_pb2.Job(id=job.id, name="x", unit="x")))
    assert caller.get(job.id) == job
    changed = caller.update(job_pb2.Job(id=job.id, name="x", size=10))
    assert (changed.name, changed.size, changed.status) == ("x", 10, COMPLETED)
    caller.set(job.id, {"note": "checked"})
    assert caller.variables(job.id) == {"note": "checked"}
    assert caller.results(job.id).results == RESULTS


def test_a_cancelled_worker_learns_of_it_and_ends_the_job_itself(caller: Caller) -> None:
    job = caller.create()
    wished = caller.cancel(job.id, "wrong file é", 60)
    assert wished.status == RUNNING
    assert (wished.cancellation.requested, wished.cancellation.reason) == (True, "wrong file é")
    assert not wished.cancellation.seen
    deadline = wished.cancellation.deadline.ToNanoseconds() - caller.app.clock.now() * 1000
    assert deadline == pytest.approx(60e9, abs=1e7)
    told = caller.report(job.id, progress=1).cancellation
    assert (told.requested, told.reason, told.deadline) == (True, "wrong file é", wished.cancellation.deadline)
    assert caller.get(job.id).cancellation.seen
    ended = caller.fail(job.id, code=code_pb2.CANCELLED, message="stopped at record 1")
    assert ended.status == CANCELLED
    assert ended.error == status_pb2.Status(code=code_pb2.CANCELLED, message="stopped at record 1")
    assert ended.cancellation.reason == "wrong file é"


def test_a_cancelled_worker_may_finish_or_fail_all_the_same(caller: Caller) -> None:
    """A cancellation request does not undo what was done."""
    for end, status in ((caller.finish, COMPLETED), (caller.fail, FAILED)):
        job = caller.create()
        caller.cancel(job.id)
        assert end(job.id).status == status


def test_the_server_ends_a_cancelled_job_when_its_deadline_passes(caller: Caller) -> None:
    """Then and not before, whether its worker reports or not."""
    job = caller.create()
    caller.cancel(job.id, "no longer needed", 30)
    caller.app.pass_time(29.9)
    caller.report(job.id, progress=1)
    assert caller.get(job.id).status == RUNNING
    caller.app.pass_time(0.2)
    ended = caller.get(job.id)
    assert ended.status == CANCELLED
    assert (ended.error.code, ended.error.message) == (code_pb2.CANCELLED, "no longer needed")
    info = error_details_pb2.ErrorInfo()
    assert ended.error.details[0].Unpack(info)
    assert (info.reason, info.domain) == ("CANCELLED_BY_SERVER", "headway")
    refused_with("JOB_ENDED", lambda: caller.report(job.id, progress=2))
    refused_with("JOB_ENDED", lambda: caller.finish(job.id))


def test_without_a_grace_period_it_is_the_servers(caller: Caller) -> None:
    job = caller.create()
    wished = caller.cancel(job.id)
    span = wished.cancellation.deadline.ToNanoseconds() - caller.app.clock.now() * 1000
    assert span == pytest.approx(60e9, abs=1e7)


@pytest.mark.parametrize("state", ["PENDING", "LOST"])
def test_where_no_worker_is_there_a_cancelled_job_ends_at_once(caller: Caller, state: str) -> None:
    job = bring(caller, state)
    ended = caller.cancel(job.id, "why", 3600)
    assert (ended.status, ended.error.message) == (CANCELLED, "why")
    assert ended.HasField("end_time")


def test_a_second_request_can_bring_the_deadline_forward_and_not_put_it_off(caller: Caller) -> None:
    job = caller.create()
    first = caller.cancel(job.id, "first", 60)
    later = caller.cancel(job.id, "second", 600)
    assert later == first
    sooner = caller.cancel(job.id, "third", 10)
    assert sooner.cancellation.deadline.ToNanoseconds() < first.cancellation.deadline.ToNanoseconds()
    assert sooner.cancellation.reason == "first"
    caller.app.pass_time(11)
    assert caller.get(job.id).status == CANCELLED


def test_cancelling_a_cancelled_job_changes_nothing(caller: Caller) -> None:
    job = bring(caller, "CANCELLED")
    assert caller.cancel(job.id, "again", 0) == job


def test_a_successor_is_told_of_the_cancellation_again(caller: Caller) -> None:
    job = caller.create()
    caller.cancel(job.id, "enough", 600)
    caller.report(job.id)
    assert caller.get(job.id).cancellation.seen
    assert not caller.start(job.id, take_over=True).cancellation.seen
    assert caller.report(job.id, attempt=2).cancellation.requested
    assert caller.get(job.id).cancellation.seen


def test_history_tells_every_change_of_status(caller: Caller) -> None:
    job = caller.create(pending=True, heartbeat_timeout=seconds(60))
    caller.start(job.id)
    caller.app.pass_time(61)
    caller.report(job.id, progress=1)
    caller.app.pass_time(61)
    caller.start(job.id, take_over=True)
    history = caller.finish(job.id).history
    assert [change.status for change in history] == [PENDING, RUNNING, LOST, RUNNING, LOST, RUNNING, COMPLETED]
    revisions = [change.revision for change in history]
    assert revisions == sorted(set(revisions))
    times = [change.time.ToNanoseconds() for change in history]
    assert times == sorted(times)
    assert all(change.reason for change in history)


def test_history_keeps_the_first_and_the_last_32_changes(caller: Caller) -> None:
    job = caller.create(heartbeat_timeout=seconds(60))
    seen = list(job.history)
    for _ in range(40):
        caller.app.pass_time(61)
        seen.append(caller.get(job.id).history[-1])
        caller.report(job.id)
        seen.append(caller.get(job.id).history[-1])
    assert len(seen) == 81
    assert list(caller.get(job.id).history) == seen[:32] + seen[-32:]


def test_the_revision_grows_with_every_change_and_with_nothing_else(caller: Caller) -> None:
    job = caller.create()
    changes: list[Callable[[], object]] = [
        lambda: caller.report(job.id, progress=1),
        lambda: caller.report(job.id),
        lambda: caller.set(job.id, {"a": 1}),
        lambda: caller.update(job_pb2.Job(id=job.id, name="x")),
        lambda: caller.cancel(job.id, "x", 600),
        lambda: caller.start(job.id, take_over=True),
        lambda: caller.finish(job.id),
        lambda: caller.update(job_pb2.Job(id=job.id, name="y")),
    ]
    revisions = [job.revision]
    for change in changes:
        change()
        revisions.append(caller.get(job.id).revision)
    assert revisions == sorted(set(revisions))
    for read in (caller.get, caller.variables, caller.results, caller.errors):
        read(job.id)
    caller.list()
    assert caller.get(job.id).revision == revisions[-1]
