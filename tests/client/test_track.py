"""Loops that count: lengths that are none, loops that are run again, and work that is for nothing."""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import headway
from headway import aio
from headway.v1 import job_pb2
from tests.client.test_lifecycle import run
from tests.support.server import ServerProcess


class Items:
    """Three items and whatever `len` says."""

    def __init__(self, length: Callable[[], int]) -> None:
        self._length = length

    def __iter__(self) -> Iterator[str]:
        return iter("abc")

    def __len__(self) -> int:
        return self._length()


def unknown(error: type[Exception]) -> Callable[[], int]:
    def length() -> int:
        raise error("not known")

    return length


@pytest.mark.parametrize(
    "length",
    [unknown(TypeError), unknown(NotImplementedError), unknown(KeyError), lambda: -1, lambda: 2**70],
    ids=["TypeError", "NotImplementedError", "KeyError", "negative", "huge"],
)
def test_a_length_that_cannot_be_had_is_not_known(hw: headway.Client, length: Callable[[], int]) -> None:
    with hw.job() as job:
        assert list(job.track(Items(length))) == ["a", "b", "c"]
        assert list(job.part("p").track(Items(length))) == ["a", "b", "c"]
        assert job.size == 0
    seen = hw.get(None, job.id)
    assert (seen.status, seen.size, seen.progress) == (job_pb2.JOB_STATUS_COMPLETED, 0, 6)


class Hinted:
    def __init__(self, hint: Callable[[], int]) -> None:
        self._hint = hint

    def __iter__(self) -> Iterator[str]:
        return iter("abc")

    def __length_hint__(self) -> int:
        return self._hint()


def test_a_length_hint_is_a_size_too(hw: headway.Client) -> None:
    for items in (Hinted(lambda: 3), reversed("abc"), iter("abc")):
        with hw.job() as job:
            list(job.track(items))
        assert hw.get(None, job.id).size == 3
    for hint in (unknown(TypeError), unknown(RuntimeError), lambda: -1):
        with hw.job() as job:
            assert len(list(job.track(Hinted(hint)))) == 3
        assert (hw.get(None, job.id).size, hw.get(None, job.id).progress) == (0, 3)


def test_a_source_is_asked_for_its_items_once_a_loop(hw: headway.Client) -> None:
    begun = []

    class Query:
        def __iter__(self) -> Iterator[int]:
            begun.append("a query that takes long")
            return iter([1, 2])

    with hw.job() as job:
        items = job.track(Query())
        assert begun == []
        assert list(items) == list(items) == [1, 2]
    assert len(begun) == 2


def test_a_length_that_was_too_short_is_given_up(hw: headway.Client) -> None:
    with hw.job() as short, hw.job(size=2) as told:
        assert list(short.track(Items(lambda: 2))) == list(told.track(Items(lambda: 2))) == ["a", "b", "c"]
        assert short.flush() and told.flush()
        assert (short.size, told.size) == (0, 2)
    assert hw.get(None, short.id).size == 0
    # What the worker itself has said stays, and so does what it says later.
    assert hw.get(None, told.id).size == 2
    with hw.job() as later:
        for _ in later.track(Items(lambda: 2)):
            later.size = 5
    assert hw.get(None, later.id).size == 5


def test_nested_loops_are_more_than_the_length_of_the_outer_one(hw: headway.Client) -> None:
    with hw.job() as job:
        for _ in job.track(range(3)):
            list(job.track(range(4)))
    seen = hw.get(None, job.id)
    assert (seen.progress, seen.size) == (15, 0)


def test_threads_can_share_one_loop(hw: headway.Client) -> None:
    with hw.job() as job, ThreadPoolExecutor(2) as pool:
        items = iter(job.track(range(20_000)))
        before = sys.getswitchinterval()
        sys.setswitchinterval(1e-6)
        try:
            shares = list(pool.map(lambda _: list(items), range(2)))
        finally:
            sys.setswitchinterval(before)
    assert sorted(shares[0] + shares[1]) == list(range(20_000))
    assert hw.get(None, job.id).progress == 20_000


def test_a_loop_that_is_run_again_counts_again(hw: headway.Client, caplog: pytest.LogCaptureFixture) -> None:
    with hw.job(size=6) as job:
        items = job.track([1, 2, 3])
        assert (list(items), list(items)) == ([1, 2, 3], [1, 2, 3])
    assert hw.get(None, job.id).progress == 6
    assert caplog.messages == []


def test_a_loop_over_an_iterator_that_is_used_up_says_so(hw: headway.Client, caplog: pytest.LogCaptureFixture) -> None:
    with hw.job() as job:
        items = job.track(iter([1, 2, 3]))
        for item in items:
            if item == 1:
                break
        assert list(items) == [2, 3]
        assert caplog.messages == []
        assert list(items) == []
    (warning,) = caplog.messages
    assert "an iterator gives its items only once" in warning
    assert job.progress == 2


def test_what_cannot_be_looped_over(hw: headway.Client) -> None:
    async def numbers() -> AsyncIterator[int]:
        yield 1

    with hw.job() as job:
        with pytest.raises(TypeError, match="not 'int'"):
            list(job.track(10))  # type: ignore[arg-type] # the mistake
        with pytest.raises(TypeError, match="async for"):
            list(job.track(numbers()))


class Both:
    """As a bar of tqdm.auto is."""

    def __iter__(self) -> Iterator[int]:
        return iter([1, 2])

    async def __aiter__(self) -> AsyncIterator[int]:
        yield 3


async def test_each_loop_takes_the_items_of_its_kind(hw: headway.Client) -> None:
    with hw.job() as job:
        assert list(job.track(Both())) == [1, 2]
        assert [item async for item in job.track(Both())] == [3]
        assert [item async for item in job.track([4, 5])] == [4, 5]
    assert job.progress == 5


def cancel_and_wait(hw: headway.Client, job: headway.Job) -> None:
    hw.cancel(None, job.id, reason="enough", grace=30)
    assert job.cancelled.wait(10)


def test_loops_of_parts_heed_a_cancellation_too(hw: headway.Client) -> None:
    with hw.job() as job:
        part = job.part("early")
        for number in part.track(range(10), cancellable=False):
            if number == 3:
                cancel_and_wait(hw, job)
        assert part.progress == 10
        for late in (part, job.part("late"), job):
            with pytest.raises(headway.JobCancelled, match="enough"):
                list(late.track([1, 2]))
        job.fail(headway.JobCancelled("enough"))


def test_inner_loops_raise_and_outer_ones_do_not_count(hw: headway.Client) -> None:
    with pytest.raises(headway.JobCancelled), hw.job() as job:
        for outer in job.track(range(3)):
            for inner in job.track(range(3)):
                if (outer, inner) == (1, 1):
                    cancel_and_wait(hw, job)
    # 3 and 1 of the outer loop, 2 of the inner.
    assert hw.get(None, job.id).progress == 6


def test_a_job_that_is_ended_as_cancelled_at_once_cancels_its_worker(hw: headway.Client) -> None:
    seen = []
    with pytest.raises(headway.JobCancelled, match="at once"), hw.job() as job:
        for number in job.track(range(10)):
            seen.append(number)
            if number == 2:
                hw.cancel(None, job.id, reason="at once", grace=0)
                assert job.cancelled.wait(10)
    assert seen == [0, 1, 2]
    assert job.status is headway.Status.CANCELLED


def test_a_job_that_somebody_else_has_ended_stops_its_worker(hw: headway.Client) -> None:
    with hw.job() as job:
        other = hw.fetch(None, job.id)
        assert other is not None
        other.fail("no disk left")
        job.advance()
        job.flush()
        with pytest.raises(headway.StateError):
            list(job.track([1]))
        assert list(job.track([1], cancellable=False)) == [1]
    assert job.status is headway.Status.FAILED


def test_a_job_that_was_cleared_is_no_reason_to_end_the_work(hw: headway.Client) -> None:
    with hw.job() as job:
        hw.clear(None, job.id)
        job.advance()
        job.flush()
        assert job.stopped is not None
        assert list(job.track([1, 2])) == [1, 2]


async def test_asynchronous_loops_are_ended_as_well(server: ServerProcess, session: str) -> None:
    async def numbers() -> AsyncIterator[int]:
        for number in range(1000):
            await asyncio.sleep(0)
            yield number

    async with aio.connect(server.address, session=session) as hw:
        for items in (numbers(), range(1000)):
            seen = []
            with pytest.raises(headway.JobCancelled):
                async with hw.job() as job:
                    async for number in job.track(items):
                        seen.append(number)
                        if number == 2:
                            await hw.cancel(None, job.id, grace=0)
                            assert await asyncio.to_thread(job.cancelled.wait, 10)
            assert (seen, job.progress) == ([0, 1, 2], 3)
        async with hw.job() as job:
            await hw.cancel(None, job.id, grace=30)
            assert await asyncio.to_thread(job.cancelled.wait, 10)
            assert [item async for item in job.track([1, 2], cancellable=False)] == [1, 2]


PAST_THE_END = """
import headway
with headway.connect() as hw, hw.job(name="past the end") as job:
    hw.cancel(None, job.id, reason="too late", grace=0)
    {before}
    job.results = {results}
print("done", job.status)
"""


@pytest.mark.parametrize(
    "before", ["pass", "job.advance()", "job.advance(); job.flush(); list(job.track([1, 2], cancellable=False))"]
)
def test_a_worker_that_goes_on_is_told_and_its_results_are_kept(
    server: ServerProcess, session: str, hw: headway.Client, before: str
) -> None:
    script = PAST_THE_END.format(before=before, results={"added": 3})
    done = run(script, server.address, session)
    (job,) = hw.list()
    assert (done.returncode, done.stdout) == (0, "done CANCELLED\n")
    assert done.stderr.splitlines() == [
        f"headway: job {job.id} is no longer reported: it was cancelled: too late",
        f"headway: job {job.id} had ended before its worker finished, and its results are in its variable 'results'",
    ]
    assert job.status == job_pb2.JOB_STATUS_CANCELLED
    assert hw.variables(None, job.id) == {"results": {"added": 3}}
    assert hw.results(None, job.id) is None


def test_results_that_are_no_variable_are_kept_in_a_file(
    server: ServerProcess, session: str, hw: headway.Client
) -> None:
    script = PAST_THE_END.format(before="pass", results="'9' * 300_000")
    done = run(script, server.address, session)
    assert (done.returncode, done.stdout) == (0, "done CANCELLED\n")
    (_, warning) = done.stderr.splitlines()
    _, _, place = warning.partition("its results are in ")
    assert "FinishJobRequest" in Path(place.partition(": ")[0]).read_text()


def test_results_of_a_job_that_another_has_completed_are_not_kept(hw: headway.Client) -> None:
    with hw.job() as job:
        other = hw.fetch(None, job.id)
        assert other is not None
        other.finish({"by": "other"})
        job.results = {"by": "me"}
    assert hw.results(None, job.id) == {"by": "other"}
    assert hw.variables(None, job.id) == {}
