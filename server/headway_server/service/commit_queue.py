"""The way from the event loop to the writer's thread, on which calls gather without waking anybody needlessly."""

import asyncio
import queue
import time
from collections import deque
from collections.abc import Iterable
from typing import Generic, TypeVar

GATHER_TIME = 0.001
"""Seconds that who takes waits for company, from when it began to wait at all."""

T = TypeVar("T")

_NEVER = 2**63


class CommitQueue(Generic[T]):
    """Put from the loop, take in one other thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._items: deque[T] = deque()
        self._bell: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._wanted = _NEVER
        """The bell is rung when so many are in the line. Always set before the line is looked at, so that none is
        missed; a ring too many does no harm."""
        self._looking = False
        self.closed = False

    def put(self, item: T) -> None:
        self._items.append(item)
        if not self._looking:
            # Those that come in one turn of the loop ring once.
            self._looking = True
            self._loop.call_soon(self._look)

    def _look(self) -> None:
        self._looking = False
        if len(self._items) >= self._wanted:
            self._wanted = _NEVER
            self._bell.put(None)

    def close(self) -> None:
        """Nothing more is put; what is in the line can still be taken."""
        self.closed = True
        self._bell.put(None)

    def wait(self, company: int) -> None:
        """Waits for something to take, and a moment for so many. Returns at once if the line is closed."""
        until = time.monotonic() + GATHER_TIME
        self._wanted = 1
        while not self._items and not self.closed:
            self._bell.get()
            self._wanted = 1
        while not self.closed and (left := until - time.monotonic()) > 0:
            self._wanted = company
            if len(self._items) >= company:
                break
            try:
                self._bell.get(timeout=left)
            except queue.Empty:
                break
        self._wanted = _NEVER

    def take(self) -> T | None:
        """The first in the line, or None."""
        try:
            return self._items.popleft()
        except IndexError:
            return None

    def put_back(self, items: Iterable[T]) -> None:
        """To the head of the line, in their order."""
        self._items.extendleft(reversed([*items]))
