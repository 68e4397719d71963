"""Reads do not wait for each other: a slow list holds up no other read, and nothing holds up the sweep."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from headway.v1 import job_pb2
from headway_server.domain.errors import Overloaded
from headway_server.storage import read_pool as readers_module
from tests.support.app import RunningApp
from tests.support.caller import Caller, seconds

LIMIT = 20.0


@contextmanager
def held(app: RunningApp, *, lists: int = 0, reads: int = 0) -> Iterator[None]:
    """So many lists and reads of one job that do not end before the block does, and that are being read."""
    go = threading.Event()
    running = threading.Semaphore(0)

    def wait(*_: object) -> None:
        running.release()
        assert go.wait(LIMIT)

    readers = app.app.readers

    async def start() -> list[asyncio.Task[None]]:
        tasks = [asyncio.create_task(readers.list(f"holder {number}", wait)) for number in range(lists)]
        return tasks + [asyncio.create_task(readers.read(wait)) for _ in range(reads)]

    tasks = app.run(start())
    for _ in range(min(lists, readers_module.LIST_THREADS) + min(reads, readers_module.READ_THREADS)):
        assert running.acquire(timeout=LIMIT)
    try:
        yield
    finally:
        go.set()

        async def end() -> None:
            await asyncio.gather(*tasks)

        app.run(end())


def test_a_finished_read_does_not_wait_for_a_slow_one(app: RunningApp, session: str) -> None:
    caller = Caller(app, session)
    job = caller.create()
    with held(app, lists=5, reads=readers_module.READ_THREADS - 1):
        for _ in range(20):
            assert caller.variables(job.id) is not None
            assert caller.errors(job.id).total == 0


def test_the_sweep_waits_for_no_read(app: RunningApp, session: str) -> None:
    """Workers are found lost while every thread that reads for callers is taken."""
    caller = Caller(app, session)
    job = caller.create(heartbeat_timeout=seconds(5))
    with held(app, lists=20, reads=20):
        app.pass_time(6)
    assert caller.get(job.id).status == job_pb2.JOB_STATUS_LOST


def test_a_list_that_nobody_waits_for_ends(app: RunningApp, monkeypatch: pytest.MonkeyPatch) -> None:
    began, ended = threading.Event(), threading.Event()

    def scan(stop: readers_module.Stop) -> None:
        began.set()
        while not stop():
            pass
        ended.set()

    async def give_up() -> None:
        task = asyncio.create_task(app.app.readers.list("holder", scan))
        await asyncio.to_thread(began.wait, LIMIT)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    monkeypatch.setattr(readers_module, "LIST_TIME", 3600)
    app.run(give_up())
    assert ended.wait(LIMIT)


def test_a_session_has_so_many_lists_waiting_and_others_have_room(app: RunningApp) -> None:
    async def crowd() -> int:
        answers = await asyncio.gather(
            *[app.app.readers.list("greedy", lambda _: None) for _ in range(readers_module.LISTS_WAITING)],
            app.app.readers.list("modest", lambda _: None),
            return_exceptions=True,
        )
        assert answers[-1] is None
        refused = [answer for answer in answers if isinstance(answer, Overloaded)]
        assert all(answer.retry_after for answer in refused)
        return len(refused)

    refused = app.run(crowd())
    assert 0 < refused < readers_module.LISTS_WAITING


def test_reads_that_are_given_up_are_all_answered(app: RunningApp) -> None:
    """The database hangs: waiting callers get an error."""

    async def give_up() -> int:
        go = threading.Event()
        tasks = [asyncio.create_task(app.app.readers.read(lambda: go.wait(LIMIT))) for _ in range(10)]
        await asyncio.sleep(0)
        app.app.readers.give_up()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        go.set()
        return sum(isinstance(answer, Exception) for answer in answers)

    assert app.run(give_up()) == 10
