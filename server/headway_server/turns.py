"""Turns at making large answers: what is read and converted at once is bounded before anybody knows how large it is."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from weakref import WeakValueDictionary

from headway_server.budget import Budget
from headway_server.errors import MemoryLimit

TURNS = 16
"""Large answers that are made at once; one takes some 10 MB at most while it is made."""

TURNS_A_CONNECTION = 4
"""Those of one connection. Its further calls wait for those, and others do not wait for them."""

ROOM = 64 * 1024
"""Bytes that a connection must still be allowed to hold before the next answer for it is made."""


class Turns:
    """`unsent` is what all answers count in once they are made."""

    def __init__(self, unsent: Budget) -> None:
        self._unsent = unsent
        self._all = asyncio.Semaphore(TURNS)
        self._connections: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    @asynccontextmanager
    async def turn(self, connection: str) -> AsyncGenerator[None, None]:
        """Wait for a turn. Raises MemoryLimit if the caller does not take the answers that they have."""
        own = self._connections.get(connection)
        if own is None:
            own = self._connections[connection] = asyncio.Semaphore(TURNS_A_CONNECTION)
        async with own, self._all:
            if not self._unsent.allows(connection, ROOM):
                raise MemoryLimit
            yield
