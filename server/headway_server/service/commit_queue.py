"""The queue from the event loop to the commit writer's thread. Calls gather in it, and it wakes the thread rarely."""

import asyncio
import queue
import time
from collections import deque
from collections.abc import Iterable
from typing import Generic, TypeVar

GATHER_TIME = 0.001
"""Seconds that the thread waits for further calls, counted from the moment when it began to wait."""

T = TypeVar("T")

_NEVER = 2**63


class CommitQueue(Generic[T]):
    """The event loop puts items. One other thread takes them."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._items: deque[T] = deque()
        self._signals: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._signal_at = _NEVER
        """The thread is signalled when the queue has this many items. The thread sets it before it checks the queue, so
        that it misses no item. A superfluous signal does no harm."""
        self._check_is_scheduled = False
        self.closed = False

    def put(self, item: T) -> None:
        self._items.append(item)
        if not self._check_is_scheduled:
            # All items of one cycle of the loop cause one signal.
            self._check_is_scheduled = True
            self._loop.call_soon(self._check)

    def _check(self) -> None:
        self._check_is_scheduled = False
        if len(self._items) >= self._signal_at:
            self._signal_at = _NEVER
            self._signals.put(None)

    def close(self) -> None:
        """Accept no further items. Items in the queue can still be taken."""
        self.closed = True
        self._signals.put(None)

    def wait(self, expected: int) -> None:
        """Wait for an item, and then up to GATHER_TIME for `expected` items. Returns at once if the queue is closed."""
        until = time.monotonic() + GATHER_TIME
        self._signal_at = 1
        while not self._items and not self.closed:
            self._signals.get()
            self._signal_at = 1
        while not self.closed and (left := until - time.monotonic()) > 0:
            self._signal_at = expected
            if len(self._items) >= expected:
                break
            try:
                self._signals.get(timeout=left)
            except queue.Empty:
                break
        self._signal_at = _NEVER

    def take(self) -> T | None:
        """The first item, or None if the queue is empty."""
        try:
            return self._items.popleft()
        except IndexError:
            return None

    def put_back(self, items: Iterable[T]) -> None:
        """Put the items at the head of the queue, in their order."""
        self._items.extendleft(reversed([*items]))
