"""Reads off the event loop: a few threads with a connection each, so that no read waits for a write."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import peewee

from headway_server.store import Store, as_job_error

THREADS = 4

T = TypeVar("T")


class Readers:
    """Runs the store's reads."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="headway-reader")

    async def read(self, query: Callable[[], T]) -> T:
        """What the query returns. Raises DatabaseUnavailable if the database does not answer."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._attempt, query)

    def _attempt(self, query: Callable[[], T]) -> T:
        try:
            return query()
        except (peewee.OperationalError, peewee.InterfaceError):
            # Most likely the connection was lost since it was last used; a second failure is the database's.
            self.store.disconnect()
        try:
            return query()
        except (peewee.OperationalError, peewee.InterfaceError) as error:
            self.store.disconnect()
            raise as_job_error(error) from error

    async def close(self) -> None:
        """Wait for the reads that run."""
        await asyncio.to_thread(self._pool.shutdown)
