"""Turns at making large answers: what is read and converted at once is bounded before anybody knows how large it is."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from headway_server.domain.errors import MemoryLimit
from headway_server.resources.budget import Budget
from headway_server.resources.turns import Turns

LARGE_REPLIES_MAX = 6
"""Large answers that are made at once; one takes some 10 MB at most while it is made."""

REPLY_ROOM = 64 * 1024
"""Bytes that a connection must still be allowed to hold before the next answer for it is made."""


class LargeReplies:
    """`unsent` is what all answers count in once they are made."""

    def __init__(self, unsent: Budget) -> None:
        self._unsent = unsent
        self._turns = Turns(LARGE_REPLIES_MAX)

    @asynccontextmanager
    async def turn(self, connection: str) -> AsyncGenerator[None, None]:
        """Wait until it is this connection's turn. Raises MemoryLimit if it does not take the answers that it has."""
        async with self._turns.of(connection):
            if not self._unsent.allows(connection, REPLY_ROOM):
                raise MemoryLimit
            yield
