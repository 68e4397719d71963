"""Each call is answered with the job as its own step left it, however many calls meet in one commit."""

import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from headway.v1 import job_pb2
from headway.v1 import job_service_pb2 as pb
from tests.support.caller import TIMEOUT, Caller
from tests.support.waiting import held_commits

ROUNDS = 50
CALLERS = 20


def test_no_two_workers_are_told_the_same_attempt(caller: Caller) -> None:
    """50 rounds of 20 take-overs at once: all attempts differ, and only the last one may report."""
    for _ in range(ROUNDS):
        job_id = caller.create().id
        request = pb.StartJobRequest(session_id=caller.session, job_id=job_id, take_over=True)
        calls = [caller.app.stub.StartJob.future(request, timeout=TIMEOUT) for _ in range(CALLERS)]
        attempts = [call.result().attempt for call in calls]
        assert sorted(attempts) == list(range(2, CALLERS + 2))
        stale = pb.StreamProgressRequest(
            reports=[
                pb.ReportProgressRequest(session_id=caller.session, job_id=job_id, attempt=attempt, part=str(attempt))
                for attempt in sorted(attempts)
            ]
        )
        (response,) = caller.stream([stale])
        assert [failure.report for failure in response.failures] == list(range(CALLERS - 1))


def test_take_overs_that_meet_in_one_commit_get_their_own_attempts(caller: Caller) -> None:
    job_id = caller.create().id
    with ThreadPoolExecutor(CALLERS) as pool, held_commits(caller.app) as wait_for:
        calls = [pool.submit(caller.start, job_id, take_over=True) for _ in range(CALLERS)]
        wait_for(CALLERS)
    jobs = [call.result() for call in calls]
    assert sorted(job.attempt for job in jobs) == list(range(2, CALLERS + 2))
    assert len({job.revision for job in jobs}) == CALLERS


def test_updates_that_meet_in_one_commit_are_answered_with_their_own_names(caller: Caller) -> None:
    job_id = caller.create().id
    with ThreadPoolExecutor(CALLERS) as pool, held_commits(caller.app) as wait_for:
        calls = {
            name: pool.submit(caller.update, job_pb2.Job(id=job_id, name=name))
            for name in (f"name {number}" for number in range(CALLERS))
        }
        wait_for(CALLERS)
    assert {name: call.result().name for name, call in calls.items()} == {name: name for name in calls}
    assert max(Counter(call.result().revision for call in calls.values()).values()) == 1


@pytest.mark.parametrize("first", ["create", "report", "finish", "cancel", "set"])
def test_no_call_is_answered_with_what_a_later_one_of_its_commit_did(caller: Caller, first: str) -> None:
    """The first call, then a take-over, a rename and an end: all in one commit, in this order."""
    job_id = "0190b5a1c8d07b2a9c3e5f60718293a4"
    caller.create(job_id=job_id, name="before")
    calls: dict[str, Callable[[], job_pb2.Job | pb.ReportProgressResponse]] = {
        "create": lambda: caller.create(job_id=job_id, name="before"),
        "report": lambda: caller.report(job_id, progress=1),
        "finish": lambda: caller.finish(job_id),
        "cancel": lambda: caller.cancel(job_id, grace=60),
        "set": lambda: caller.set(job_id, {"a": 1}),
    }
    with ThreadPoolExecutor(3) as pool, held_commits(caller.app) as wait_for:
        early = pool.submit(calls[first])
        wait_for(1)
        if first != "finish":
            middle = pool.submit(caller.start, job_id, take_over=True)
            wait_for(2)
        late = pool.submit(caller.update, job_pb2.Job(id=job_id, name="after"))
        wait_for(2 if first == "finish" else 3)
    answer = early.result()
    if isinstance(answer, pb.ReportProgressResponse):
        assert answer.revision < middle.result().revision
    else:
        assert (answer.name, answer.attempt) == ("before", 1)
        assert answer.revision < late.result().revision
    if first != "finish":
        assert middle.result().name == "before"
        assert middle.result().revision < late.result().revision
    assert late.result().name == "after"


def test_an_update_that_lost_its_revision_check_is_refused_within_one_commit(caller: Caller) -> None:
    job = caller.create()
    with ThreadPoolExecutor(CALLERS) as pool, held_commits(caller.app) as wait_for:
        lock = threading.Lock()
        won: list[str] = []

        def rename(name: str) -> None:
            caller.update(job_pb2.Job(id=job.id, name=name), revision=job.revision)
            with lock:
                won.append(name)

        calls = [pool.submit(rename, str(number)) for number in range(CALLERS)]
        wait_for(CALLERS)
    refusals = [call.exception() for call in calls]
    assert refusals.count(None) == 1
    assert caller.get(job.id).name == won[0]
