"""Cancellation requests, and the news that another worker has the job, reach the working code."""

import asyncio
import queue
import threading
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta

import pytest

import headway
from headway import aio
from headway.errors import HeadwayError
from headway.v1 import job_pb2
from tests.support.server import ServerProcess


@pytest.fixture
async def ahw(server: ServerProcess, session: str) -> AsyncIterator[aio.Client]:
    async with aio.connect(server.address, session=session) as connection:
        yield connection


def test_track_raises_at_the_next_item(hw: headway.Client) -> None:
    taken = []
    with pytest.raises(headway.JobCancelled) as caught, hw.job() as job:
        for number in job.track(range(10)):
            taken.append(number)
            if number == 3:
                hw.cancel(None, job.id, reason="enough", grace=30)
                assert job.cancelled.wait(10)
    assert taken == [0, 1, 2, 3]
    assert caught.value.reason == "enough"
    assert caught.value.deadline is not None
    assert timedelta(0) < caught.value.deadline - datetime.now(UTC) <= timedelta(seconds=30)
    seen = hw.get(None, job.id)
    assert (seen.status, seen.progress, seen.size) == (job_pb2.JOB_STATUS_CANCELLED, 4, 10)


def test_work_that_is_done_before_a_cancellation_completes(hw: headway.Client) -> None:
    with hw.job() as job:
        for _ in job.track([1]):
            hw.cancel(None, job.id, grace=30)
            assert job.cancelled.wait(10)
    assert hw.get(None, job.id).status == job_pb2.JOB_STATUS_COMPLETED


def test_a_loop_that_is_told_not_to_heed_it_goes_on(hw: headway.Client) -> None:
    with hw.job() as job:
        for number in job.track(range(3), cancellable=False):
            if number == 0:
                hw.cancel(None, job.id, grace=30)
                assert job.cancelled.wait(10)
    assert job.progress == 3


def test_a_break_is_not_counted(hw: headway.Client) -> None:
    with hw.job() as job:
        for number in job.track(iter(range(5))):
            if number == 2:
                break
    assert hw.get(None, job.id).progress == 2


def test_a_worker_that_was_replaced_is_told_once_and_stops(hw: headway.Client) -> None:
    told: queue.SimpleQueue[tuple[HeadwayError, str]] = queue.SimpleQueue()

    def tell(error: HeadwayError) -> None:
        told.put((error, threading.current_thread().name))

    first = hw.job(on_stopped=tell)
    first.raise_if_stopped()
    with pytest.raises(headway.StateError, match="Another worker") as caught:
        for number in first.track(range(10)):
            if number == 1:
                hw.resume(None, first.id)
                first.flush()
                error, thread = told.get(timeout=10)
    assert caught.value is error
    assert (error.reason, thread, first.progress) == ("STALE_ATTEMPT", "headway", 2)
    with pytest.raises(headway.StateError):
        first.raise_if_stopped()
    first.on_stopped = tell
    assert told.get(timeout=10)[0] is error
    assert told.empty()


@pytest.mark.parametrize("reason", ["JOB_ENDED", "JOB_NOT_FOUND"])
def test_the_job_is_gone(hw: headway.Client, reason: str, caplog: pytest.LogCaptureFixture) -> None:
    told: queue.SimpleQueue[HeadwayError] = queue.SimpleQueue()

    def faulty(error: HeadwayError) -> None:
        told.put(error)
        raise RuntimeError("in the callback")

    job, other = hw.job(on_stopped=faulty), hw.job()
    if reason == "JOB_ENDED":
        hw.cancel(None, job.id, grace=0)
    else:
        hw.clear(None, job.id)
    job.advance()
    assert told.get(timeout=10).reason == reason
    other.advance()
    assert other.flush()
    assert any("callback failed" in record.getMessage() for record in caplog.records)


def test_an_end_of_ones_own_tells_nobody(hw: headway.Client) -> None:
    told: list[HeadwayError] = []
    with hw.job(on_stopped=told.append) as job:
        pass
    assert hw.get(None, job.id).status == job_pb2.JOB_STATUS_COMPLETED
    job.raise_if_stopped()
    assert (told, job.stopped) == ([], None)


async def endless() -> AsyncIterator[int]:
    number = 0
    while True:
        yield number
        number += 1
        await asyncio.sleep(0)


async def test_async_track_raises_at_the_next_item(ahw: aio.Client) -> None:
    with pytest.raises(headway.JobCancelled, match="enough"):
        async with ahw.job() as job:
            async for number in job.track(endless()):
                if number == 3:
                    await ahw.cancel(None, job.id, reason="enough", grace=30)
    seen = await ahw.get(None, job.id)
    assert (seen.status, seen.progress) == (job_pb2.JOB_STATUS_CANCELLED, job.progress)


async def test_the_task_is_cancelled_inside_the_block_and_goes_on_after_it(ahw: aio.Client) -> None:
    with pytest.raises(headway.JobCancelled) as caught:
        async with ahw.job(cancel_task=True) as job:
            await ahw.cancel(None, job.id, reason="enough", grace=30)
            await asyncio.Event().wait()
    assert (caught.value.reason, caught.value.deadline is not None) == ("enough", True)
    seen = await ahw.get(None, job.id)
    assert (seen.status, seen.error.message) == (job_pb2.JOB_STATUS_CANCELLED, "JobCancelled: enough")
    task = asyncio.current_task()
    assert task is not None and task.cancelling() == 0


async def test_a_cancellation_by_somebody_else_stays_one(ahw: aio.Client) -> None:
    begun = asyncio.Event()

    async def work() -> None:
        async with ahw.job(cancel_task=True):
            begun.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_an_exception_of_the_works_own_stays_one(ahw: aio.Client) -> None:
    with pytest.raises(LookupError):
        async with ahw.job(cancel_task=True) as job:
            try:
                await ahw.cancel(None, job.id, reason="enough", grace=30)
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                raise LookupError("while cleaning up") from None
    assert (await ahw.get(None, job.id)).status == job_pb2.JOB_STATUS_FAILED
    await asyncio.sleep(0)


async def test_a_cancellation_after_the_block_cancels_nothing(ahw: aio.Client) -> None:
    async with ahw.job(cancel_task=True) as job:
        pass
    job_state = job._job_state
    assert job_state.on_cancelled is not None
    job_state.cancel(job_pb2.Cancellation(requested=True))
    await asyncio.sleep(0)
    task = asyncio.current_task()
    assert task is not None and task.cancelling() == 0


def test_both_kinds_of_loop_take_both_kinds_of_items(hw: headway.Client) -> None:
    def numbers() -> Iterator[int]:
        yield from range(3)

    with hw.job() as job:
        assert list(job.track(numbers())) == [0, 1, 2]
        assert list(job.track([])) == []
    assert job.progress == 3
