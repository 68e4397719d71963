import asyncio
from collections.abc import AsyncIterator

import pytest

import headway
from headway import aio
from headway.v1 import job_pb2
from tests.support.server import ServerProcess


@pytest.fixture
async def ahw(server: ServerProcess, session: str) -> AsyncIterator[aio.Client]:
    async with aio.connect(server.address, session=session) as connection:
        yield connection


async def spool_files(text: str) -> AsyncIterator[str]:
    for spool_file in text:
        yield spool_file


async def test_the_example_of_the_documentation(server: ServerProcess, session: str) -> None:
    async with headway.aio.connect(server.address) as hw:
        async with hw.job(session, "Stage", size=7, unit="records") as job:
            async for _ in job.track(spool_files("abc")):
                job.count("added")
            async for _ in job.track([1, 2]):
                pass
            for _ in job.track([1, 2]):
                pass
            job.results = {"added": 3}
        seen = await hw.get(session, job.id)
        assert (seen.status, seen.progress, seen.counters["added"]) == (
            job_pb2.JOB_STATUS_COMPLETED,
            7,
            3,
        )
        assert await hw.results(session, job.id) == {"added": 3}


async def test_an_exception_fails_the_job(ahw: aio.Client) -> None:
    with pytest.raises(LookupError):
        async with ahw.job() as job:
            job.advance()
            raise LookupError("gone")
    seen = await ahw.get(None, job.id)
    assert (seen.error.message, seen.progress) == ("LookupError: gone", 1)


async def test_a_cancelled_task_cancels_its_job(ahw: aio.Client) -> None:
    begun = asyncio.Event()
    ids = []

    async def work() -> None:
        async with ahw.job() as job:
            ids.append(job.id)
            begun.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await ahw.get(None, ids[0])).status == job_pb2.JOB_STATUS_CANCELLED


async def test_the_documented_methods(ahw: aio.Client) -> None:
    job = await ahw.new(None, "Import", "admin", 100)
    job.set({"file": "a.mrc"})
    job.name = "Import 2"
    job.progress += 5
    assert await job.get("file") == "a.mrc"
    assert await job.get("nothing") is None
    assert await job.flush()
    again = await ahw.fetch(None, job.id)
    assert again is not None
    assert (again.name, again.progress, await again.get("file")) == ("Import 2", 5, "a.mrc")
    await job.finish({"added": 5})
    assert (await again.refresh()).results == {"added": 5}
    assert (await again.wait()).status == job_pb2.JOB_STATUS_COMPLETED
    failed = await ahw.job(name="second")
    await failed.fail("no")
    assert failed.status is headway.Status.FAILED
    await job.clear()
    assert await ahw.fetch(None, job.id) is None
    assert [listed.id async for listed in ahw.list()] == [failed.id]


async def test_resume_and_cancel(ahw: aio.Client) -> None:
    first = await ahw.job()
    first.checkpoint({"offset": 3})
    assert await first.flush()
    async with await ahw.resume(None, first.id) as second:
        assert await second.get("offset") == 3
        await second.cancel("enough", 30)
        second.record_error("r", "m")
        assert await asyncio.to_thread(second.cancelled.wait, 10)
    assert (await ahw.record_errors(None, second.id)).total == 1


async def test_what_is_wrong_is_said_at_once(ahw: aio.Client) -> None:
    with pytest.raises(headway.InvalidError):
        await ahw.job(name="x", job_id="x")
    with pytest.raises(headway.NotFoundError):
        await ahw.get(None, "0" * 32)


async def test_watches(ahw: aio.Client) -> None:
    job = await ahw.job()
    changes = ahw.watch_session()
    assert (await anext(changes)).job.id == job.id
    states = ahw.watch(None, job.id)
    assert (await anext(states)).revision == 1
    await job.finish()
    assert [state.status async for state in states][-1] == job_pb2.JOB_STATUS_COMPLETED
    async for change in changes:
        if change.job.status == job_pb2.JOB_STATUS_COMPLETED:
            break
    await ahw.clear(None, job.id)
    async for change in changes:
        if change.removed_job_id == job.id:
            break
    await changes.aclose()


async def test_watches_and_waits_follow_a_restart(own_server: ServerProcess, session: str) -> None:
    async with aio.connect(own_server.address, session=session) as hw:
        job = await hw.job()
        states, changes = hw.watch(None, job.id), hw.watch_session()
        first = await anext(states)
        assert (await anext(changes)).job == first
        waiting = asyncio.create_task(job.wait())
        own_server.kill()
        await asyncio.to_thread(own_server.start)
        job.advance(3)
        await job.finish()
        async with asyncio.timeout(20):
            seen = [state async for state in states]
            revisions = [state.revision for state in (first, *seen)]
            assert seen[-1].status == job_pb2.JOB_STATUS_COMPLETED
            assert revisions == sorted(set(revisions))
            async for change in changes:
                if change.job.status == job_pb2.JOB_STATUS_COMPLETED:
                    break
            final = await waiting
        assert (final.status, final.progress) == (job_pb2.JOB_STATUS_COMPLETED, 3)
        await changes.aclose()


async def test_the_loop_continues_while_the_server_is_unreachable(own_server: ServerProcess, session: str) -> None:
    own_server.kill()
    async with aio.connect(own_server.address, session=session) as hw:
        async with hw.job() as job:
            job.advance(3)
        own_server.start()
        assert await job.flush()
        assert (await hw.get(None, job.id)).progress == 3


async def test_an_asynchronous_iterable_needs_async_for(ahw: aio.Client) -> None:
    async with ahw.job() as job:
        with pytest.raises(TypeError, match="async for"):
            list(job.track(spool_files("a")))
