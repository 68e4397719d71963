"""The line between the event loop and the writer's thread: nothing is lost, doubled, reordered or forgotten."""

import asyncio
import random
import threading
import time

from headway_server.service.commit_queue import GATHER_TIME, CommitQueue

JOIN_TIMEOUT = 10.0


def take_all(line: CommitQueue[int], expected: int, taken: list[int]) -> None:
    while True:
        line.wait(expected)
        closed = line.closed
        before = len(taken)
        while (item := line.take()) is not None:
            taken.append(item)
        if closed and len(taken) == before:
            return


def test_all_that_is_put_is_taken_once_and_in_order() -> None:
    async def put_many(line: CommitQueue[int], count: int) -> None:
        chance = random.Random(count)
        for number in range(count):
            line.put(number)
            # In turns of the loop of any length: alone, or many together.
            if chance.random() < 0.3:
                await asyncio.sleep(0)
            if chance.random() < 0.005:
                await asyncio.sleep(2 * GATHER_TIME)

    async def run(expected: int) -> list[int]:
        line: CommitQueue[int] = CommitQueue(asyncio.get_running_loop())
        taken: list[int] = []
        thread = threading.Thread(target=take_all, args=(line, expected, taken))
        thread.start()
        await put_many(line, 3000)
        await asyncio.sleep(0)
        line.close()
        await asyncio.to_thread(thread.join, JOIN_TIMEOUT)
        assert not thread.is_alive()
        return taken

    for expected in (0, 1, 2, 50, 10_000):
        assert asyncio.run(run(expected)) == list(range(3000))


def test_a_lone_call_does_not_wait_for_calls_that_never_come() -> None:
    async def run() -> float:
        line: CommitQueue[str] = CommitQueue(asyncio.get_running_loop())
        waiting = asyncio.create_task(asyncio.to_thread(line.wait, 1000))
        await asyncio.sleep(0)
        began = time.monotonic()
        line.put("alone")
        await asyncio.wait_for(waiting, JOIN_TIMEOUT)
        assert line.take() == "alone"
        line.close()
        return time.monotonic() - began

    assert asyncio.run(run()) < JOIN_TIMEOUT / 2


def test_what_is_put_back_comes_first() -> None:
    async def run() -> list[int | None]:
        line: CommitQueue[int] = CommitQueue(asyncio.get_running_loop())
        for number in (1, 2, 3):
            line.put(number)
        taken = [line.take(), line.take()]
        line.put_back([item for item in taken if item is not None])
        return [line.take() for _ in range(4)]

    assert asyncio.run(run()) == [1, 2, 3, None]
