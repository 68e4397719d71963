"""Waiting for what a server does in its own time, and making it do several things at once."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager

from tests.support.app import RunningApp

WAIT_TIMEOUT = 10.0


def until(condition: Callable[[], bool], timeout: float = WAIT_TIMEOUT) -> None:
    """Return as soon as the condition holds; it is an error if it does not in good time."""
    end = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"did not come true within {timeout:g} s")
        time.sleep(0.002)


def watchers_gone(app: RunningApp) -> bool:
    """Whether nobody watches anything."""
    return app.app.hub.watches == 0


@contextmanager
def held_commits(app: RunningApp) -> Iterator[Callable[[int], None]]:
    """Hold all writes back; at the end those that wait are committed together.

    The function it gives waits until so many calls wait.
    """
    go = threading.Event()
    held = threading.Event()

    def hold() -> None:
        held.set()
        go.wait(WAIT_TIMEOUT)

    started: Future[None] = Future()

    async def begin() -> None:
        started.set_result(None)
        await app.app.writer.run_task(hold)

    thread = threading.Thread(target=lambda: app.run(begin()))
    thread.start()
    assert held.wait(WAIT_TIMEOUT)
    limit = app.app.settings.limits.pending_writes
    try:
        yield lambda calls: until(lambda: app.app.writer.load >= (calls + 1) / limit)
    finally:
        go.set()
        thread.join()
