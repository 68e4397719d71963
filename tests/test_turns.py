"""Turns: holders take turns, however much each requests, and no turn is lost."""

import asyncio

import pytest

from headway_server.resources.turns import Turns


async def settle() -> None:
    """Let everything go on that can."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_who_asks_for_little_does_not_wait_for_who_asks_for_much() -> None:
    turns = Turns(1)
    served: list[str] = []

    async def work(holder: str) -> None:
        async with turns.of(holder):
            served.append(holder)
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group:
        for holder in ["greedy"] * 50 + ["modest", "other", "modest"]:
            group.create_task(work(holder))
    assert len(served) == 53
    # The first came when nobody else was there; then all take turns.
    assert served[1:6] == ["greedy", "modest", "other", "greedy", "modest"]


async def test_so_many_work_at_a_time_and_no_more() -> None:
    turns = Turns(2)
    working = most = 0

    async def work() -> None:
        nonlocal working, most
        async with turns.of("one"):
            working += 1
            most = max(most, working)
            await asyncio.sleep(0)
            working -= 1

    async with asyncio.TaskGroup() as group:
        for _ in range(20):
            group.create_task(work())
    assert most == 2


@pytest.mark.parametrize("given_up", ["while it waits", "as a place becomes free", "when its turn has just come"])
async def test_a_turn_that_is_given_up_goes_to_the_next(given_up: str) -> None:
    turns = Turns(1)
    release = asyncio.Event()

    async def work() -> None:
        async with turns.of("one"):
            await release.wait()

    first, second, third = (asyncio.create_task(work()) for _ in range(3))
    await settle()
    if given_up == "when its turn has just come":
        release.set()
        await asyncio.wait({first})
    if given_up == "as a place becomes free":
        # The first goes on before the second learns that it is cancelled.
        release.set()
    second.cancel()
    release.set()
    await asyncio.wait_for(asyncio.gather(first, third), 5)
    async with asyncio.timeout(5), turns.of("another"):
        pass


async def test_who_leaves_leaves_nothing_behind() -> None:
    turns = Turns(1)
    async with turns.of("one"):
        waiting = [asyncio.create_task(turns.of(f"{number % 7}").__aenter__()) for number in range(100)]
        await settle()
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        assert not turns._waiting


async def test_so_many_steps_are_made_in_a_cycle_of_the_event_loop() -> None:
    turns = Turns(2)
    made: list[str] = []

    async def step(holder: str) -> None:
        await turns.step(holder)
        made.append(holder)

    async with asyncio.TaskGroup() as group:
        for holder in ["greedy"] * 20 + ["modest"]:
            group.create_task(step(holder))
        await asyncio.sleep(0)
        assert made == ["greedy", "greedy"]
        assert turns.are_taken
        before = 2
        while turns.are_taken:
            await asyncio.sleep(0)
            assert len(made) - before <= 2
            before = len(made)
    assert len(made) == 21
    assert "modest" in made[:5]


async def test_how_many_turns_there_are_before_a_new_one() -> None:
    turns = Turns(1)

    async def work(holder: str) -> None:
        async with turns.of(holder):
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group:
        assert turns.ahead("modest") == 0
        for holder in ["working", *["greedy"] * 9, "other"]:
            group.create_task(work(holder))
        await asyncio.sleep(0)
        assert turns.ahead("modest") == 2
        assert turns.ahead("greedy") == 10
