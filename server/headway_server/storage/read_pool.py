"""Reads off the event loop: threads with a connection each. No read waits for a write.

Each kind of read has its own threads, so that no read waits for a slower kind: reads of one job, lists and snapshots,
the sweeper, and reads of the change log.
"""

import asyncio
import queue
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Generic, TypeVar  # futures of any result wait here

from headway_server.domain.errors import DatabaseUnavailable, Overloaded, ShuttingDown
from headway_server.resources.budget import Budget, Share
from headway_server.resources.turns import Turns
from headway_server.storage.database_errors import (
    DATABASE_ERRORS,
    Treatment,
    as_bug,
    as_job_error,
    log_error,
    treatment,
)
from headway_server.storage.store import Store

READ_THREADS = 4
"""Threads for reads of one job."""

READS_WAITING = 20_000
"""Reads of one job that may wait for a thread. More are refused."""

LIST_THREADS = 2
"""Threads for lists and the snapshots of watches."""

SNAPSHOTS = 1
"""Snapshots that are read at a time: a list waits for one of them at most, even if there are thousands of watches."""

LISTS_WAITING = 1024
"""Lists that wait or are read, in all. A Budget limits the share of each session."""

LIST_TIME = 0.25
"""Seconds after which the scan of a filter ends with what it has found, so that other lists get their turn."""

LIST_STATEMENT_TIMEOUT = 5_000
"""Milliseconds that one statement of a list may take. Usually it takes a hundredth of that."""

READ_TRIES = 2
"""How often a read is tried if a new connection may help."""

ANSWER_TIMEOUT = 4.0
"""Seconds after which a database that does not answer counts as unreachable."""

T = TypeVar("T")

Stop = Callable[[], bool]
"""Whether a scan should end with what it has found: its time is over, or its caller has given up."""


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
        for tries_left in reversed(range(READ_TRIES)):
            try:
                return self._query()
            except DATABASE_ERRORS as error:
                log_error(error)
                store.disconnect()
                match treatment(error):
                    case Treatment.BUG:
                        raise as_bug(error) from None
                    case Treatment.RETRY | Treatment.RECONNECT if tries_left:
                        # Most likely the connection was lost since its last use.
                        pass
                    case _:
                        raise as_job_error(error) from error
        raise AssertionError("unreachable")

    def deliver(self) -> None:
        if self._future.done():
            return
        if self._error is not None:
            self._future.set_exception(self._error)
        else:
            self._future.set_result(self._result)


class _Pool:
    """Threads that take reads from one queue. Each read returns as soon as it is done."""

    def __init__(self, store: Store, name: str, threads: int) -> None:
        self._store = store
        self._loop = asyncio.get_running_loop()
        self._queue: queue.SimpleQueue[_Read[Any] | None] = queue.SimpleQueue()
        self._done: deque[_Read[Any]] = deque()
        self._woken = False
        """Whether the event loop will collect the finished reads. It resets this first, so that it misses none."""
        self._closed = False
        self._waiting: set[asyncio.Future[Any]] = set()
        self._threads = [
            threading.Thread(target=self._run, name=f"headway-{name}-{number}", daemon=True)
            for number in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def waiting(self) -> int:
        """The number of reads that have not returned yet."""
        return len(self._waiting)

    async def read(self, query: Callable[[Callable[[], bool]], T]) -> T:
        """Run the query. Its argument is a function that tells whether the caller has given up."""
        if self._closed:
            raise ShuttingDown
        future: asyncio.Future[T] = self._loop.create_future()
        self._queue.put(_Read(lambda: query(future.done), future))
        self._waiting.add(future)
        try:
            return await future
        finally:
            self._waiting.discard(future)

    def give_up(self) -> None:
        """The database does not answer: fail all waiting reads with DatabaseUnavailable."""
        for future in self._waiting:
            if not future.done():
                future.set_exception(DatabaseUnavailable())

    async def close(self) -> None:
        """Finish the waiting reads, then close the connections."""
        if not self._closed:
            self._closed = True
            for _ in self._threads:
                self._queue.put(None)
        for thread in self._threads:
            await asyncio.to_thread(thread.join)

    def _run(self) -> None:
        # Connect at once: later no file descriptor may be left.
        with suppress(*DATABASE_ERRORS):
            self._store.connect()
        while (read := self._queue.get()) is not None:
            read.run(self._store)
            self._done.append(read)
            if not self._woken:
                self._woken = True
                try:
                    self._loop.call_soon_threadsafe(self._deliver)
                except RuntimeError:  # The loop has ended, and with it all waiting callers.
                    break
        self._store.disconnect()

    def _deliver(self) -> None:
        self._woken = False
        while self._done:
            self._done.popleft().deliver()


class Readers:
    """Runs the store's reads. Each raises DatabaseUnavailable if the database does not answer."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._reads = _Pool(store, "reader", READ_THREADS)
        self._lists = _Pool(store, "list", LIST_THREADS)
        self._sweeps = _Pool(store, "sweep", 1)
        self._looks = _Pool(store, "look", 1)
        self._pools = (self._reads, self._lists, self._sweeps, self._looks)
        self._lists_turns = Turns(LIST_THREADS)
        self._snapshots_turns = Turns(SNAPSHOTS)
        self._lists_waiting = Budget(LISTS_WAITING, Overloaded)

    async def read(self, query: Callable[[], T]) -> T:
        """Run a query that needs the rows of few jobs. Raises Overloaded."""
        if self._reads.waiting >= READS_WAITING:
            raise Overloaded
        return await self._reads.read(lambda _: query())

    async def list(self, holder: str, query: Callable[[Stop], T]) -> T:
        """Run a query for a page of jobs. `holder`: whose list it is. Raises Overloaded if too many lists of this
        holder, or in all, are waiting."""
        with Share(self._lists_waiting, holder, 1):
            async with self._lists_turns.of(holder):
                return await self._page(query)

    async def snapshot(self, holder: str, query: Callable[[Stop], T]) -> T:
        """Run a query for a page of a watch. Watches can wait, and their number is limited elsewhere."""
        async with self._snapshots_turns.of(holder):
            return await self._page(query)

    async def _page(self, query: Callable[[Stop], T]) -> T:
        def within_time(gone: Callable[[], bool]) -> T:
            self._store.prepare_for_lists(LIST_STATEMENT_TIMEOUT)
            end = time.monotonic() + LIST_TIME
            return query(lambda: gone() or time.monotonic() > end)

        return await self._lists.read(within_time)

    async def sweep(self, query: Callable[[], T]) -> T:
        """Run a query of the sweeper. It does not wait for reads of callers."""
        return await self._sweeps.read(lambda _: query())

    async def look(self, query: Callable[[], T]) -> T:
        """Run a query that reads the change log."""

        def prepared(_: Stop) -> T:
            self._store.prepare_for_lists(LIST_STATEMENT_TIMEOUT)
            return query()

        return await self._looks.read(prepared)

    def give_up(self) -> None:
        """The database does not answer: fail all waiting reads with DatabaseUnavailable."""
        for pool in self._pools:
            pool.give_up()

    async def close(self) -> None:
        """Finish the waiting reads, then close the connections."""
        for pool in self._pools:
            await pool.close()


async def within_timeout(work: Awaitable[T]) -> T:
    """The result of the work. Raises TimeoutError if the database does not answer within ANSWER_TIMEOUT."""
    async with asyncio.timeout(ANSWER_TIMEOUT):
        return await work
