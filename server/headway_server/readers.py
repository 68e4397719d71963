"""Reads off the event loop: a few threads with a connection each, so that no read waits for a write."""

import asyncio
import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Generic, TypeVar  # futures of any result wait here

import peewee

from headway_server.errors import DatabaseUnavailable, ShuttingDown
from headway_server.store import Store, as_job_error

THREADS = 4

TOGETHER = 8
"""Reads that one thread answers with one wake-up of the event loop, when so many wait."""

T = TypeVar("T")


class _Read(Generic[T]):
    def __init__(self, query: Callable[[], T], future: "asyncio.Future[T]") -> None:
        self._query = query
        self._future = future
        self._result: T
        self._error: Exception | None = None

    def run(self, store: Store) -> None:
        if self._future.done():
            return
        try:
            self._result = self._attempt(store)
        except Exception as error:
            self._error = error

    def _attempt(self, store: Store) -> T:
        try:
            return self._query()
        except (peewee.OperationalError, peewee.InterfaceError):
            # Most likely the connection was lost since it was last used; a second failure is the database's.
            store.disconnect()
        try:
            return self._query()
        except (peewee.OperationalError, peewee.InterfaceError) as error:
            store.disconnect()
            raise as_job_error(error) from error

    def deliver(self) -> None:
        if self._future.done():
            return
        if self._error is not None:
            self._future.set_exception(self._error)
        else:
            self._future.set_result(self._result)


class Readers:
    """Runs the store's reads."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._loop = asyncio.get_running_loop()
        self._queue: queue.SimpleQueue[_Read[Any] | None] = queue.SimpleQueue()
        self._closed = False
        self._waiting: set[asyncio.Future[Any]] = set()
        self._threads = [
            threading.Thread(target=self._run, name=f"headway-reader-{number}", daemon=True)
            for number in range(THREADS)
        ]
        for thread in self._threads:
            thread.start()

    async def read(self, query: Callable[[], T]) -> T:
        """What the query returns. Raises DatabaseUnavailable if the database does not answer."""
        if self._closed:
            raise ShuttingDown
        future: asyncio.Future[T] = self._loop.create_future()
        self._queue.put(_Read(query, future))
        self._waiting.add(future)
        try:
            return await future
        finally:
            self._waiting.discard(future)

    def give_up(self) -> None:
        """The database hangs: answer all that waits with DatabaseUnavailable."""
        for future in self._waiting:
            if not future.done():
                future.set_exception(DatabaseUnavailable())

    async def close(self) -> None:
        """Answer what waits, then close the connections."""
        if not self._closed:
            self._closed = True
            for _ in self._threads:
                self._queue.put(None)
        for thread in self._threads:
            await asyncio.to_thread(thread.join)

    def _run(self) -> None:
        # At once: later there may be no file descriptor left for it.
        with suppress(peewee.PeeweeException):
            self._store.connect()
        ended = False
        while not ended:
            reads: list[_Read[object]] = []
            item = self._queue.get()
            while item is not None:
                item.run(self._store)
                reads.append(item)
                if len(reads) == TOGETHER:
                    break
                try:
                    item = self._queue.get_nowait()
                except queue.Empty:
                    break
            else:
                ended = True
            if reads:
                self._loop.call_soon_threadsafe(_deliver, reads)
        self._store.disconnect()


def _deliver(reads: list[_Read[object]]) -> None:
    for read in reads:
        read.deliver()
