"""The hub: what waits for slow watches is shared between them, bounded in bytes, and never out of order."""

import tracemalloc
from contextlib import ExitStack

import pytest

from headway_server.domain.job import Job
from headway_server.domain.limits import Limits
from headway_server.service.watch_hub import Behind, SessionInbox, WatchHub
from headway_server.storage.change_log import Snapshot
from headway_server.storage.listing import JobEvent, Removal

SESSION = "a" * 32
LIFE = 600.0


def job(number: int, time: int, revision: int = 1, labels: int = 0) -> Job:
    made = Job(SESSION, f"{number:032x}", update_time=time, revision=revision, create_time=number)
    made.labels = {f"{number}-{n}": "x" * 256 for n in range(labels)}
    return made


def hub(limits: Limits | None = None, *, shared: bool = False) -> WatchHub:
    return WatchHub(limits or Limits(), 0, Snapshot(1) if shared else None)


async def test_900_unread_watches_take_little_while_jobs_come_and_go() -> None:
    watched = hub()
    with ExitStack() as watches:
        for _ in range(900):
            watches.enter_context(watched.session(SESSION, LIFE, "connection"))
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            for number in range(3000):
                watched.publish([job(number, 2 * number + 1)])
                watched.publish([Removal(SESSION, f"{number:032x}", 2 * number + 2)])
            most = tracemalloc.get_traced_memory()[0] - before
            watches.close()
            left = tracemalloc.get_traced_memory()[0] - before
        finally:
            tracemalloc.stop()
    assert most < 10 * 1024 * 1024
    assert left < 100 * 1024
    assert watched.bytes_held == 0


async def test_large_jobs_take_no_more_than_the_limit_and_what_is_dropped_is_told() -> None:
    limit = 16 * 1024 * 1024
    watched = hub(Limits(watch_bytes=limit))
    with watched.session(SESSION, LIFE, "connection") as slow, watched.session(SESSION, LIFE, "connection") as quick:
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            for number in range(300):
                watched.publish([job(number, number + 1, labels=64)])
                taken = quick.take()
                assert isinstance(taken, Job)
                assert taken.create_time == number
            most = tracemalloc.get_traced_memory()[0] - before
        finally:
            tracemalloc.stop()
        assert watched.bytes_held <= limit
        assert most < limit
        assert quick.take() is None
        with pytest.raises(Behind):
            slow.take()
        slow.skip()
        assert slow.take() is None
        assert watched.bytes_held == 0


def taken(inbox: SessionInbox) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    while (seen := inbox.take()) is not None:
        found.append((int(seen.id, 16), seen.revision if isinstance(seen, Job) else 0))
    return found


async def test_a_slow_watch_gets_the_latest_state_of_each_job_oldest_change_first() -> None:
    watched = hub()
    with watched.session(SESSION, LIFE, "connection") as slow, watched.session(None, LIFE, "connection") as everything:
        changes: list[JobEvent] = [job(1, 1), job(2, 2), job(1, 3, 2), job(3, 4), Removal(SESSION, f"{3:032x}", 5)]
        changes += [job(3, 6), job(2, 7, 2), Removal(SESSION, f"{2:032x}", 8)]
        watched.publish(changes)
        assert taken(slow) == taken(everything) == [(1, 2), (3, 0), (3, 1), (2, 0)]


@pytest.mark.parametrize("shared", [False, True])
async def test_what_is_looked_up_again_is_told_once(shared: bool) -> None:
    watched = hub(shared=shared)
    with watched.session(SESSION, LIFE, "connection") as inbox, watched.session(SESSION, LIFE, "connection"):
        watched.publish([job(1, 1), job(2, 2)])
        if not shared:
            assert taken(inbox) == [(1, 1), (2, 1)]
            return
        # A look finds them again, and what another server wrote.
        watched.publish([job(2, 2), job(1, 1), job(3, 3)])
        assert taken(inbox) == [(1, 1), (2, 1), (3, 1)]
        watched.publish([job(2, 2), job(3, 3), job(1, 4, 2)])
        assert taken(inbox) == [(1, 2)]
        watched.looked(Snapshot(2))
        watched.publish([job(1, 4, 2)])
        assert taken(inbox) == []
