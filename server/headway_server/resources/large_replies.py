"""Limits how many large replies are made at a time, because their size is not known in advance."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from headway_server.domain.errors import MemoryLimit
from headway_server.resources.budget import Budget
from headway_server.resources.turns import Turns

LARGE_REPLIES_MAX = 6
"""Large replies that are made at a time. Each takes up to about 10 MB while it is made."""

REPLY_ROOM = 64 * 1024
"""Bytes that a connection must still have free before its next large reply is made."""


class LargeReplies:
    """Connections take turns. `unsent` is the budget in which replies count once they are made."""

    def __init__(self, unsent: Budget) -> None:
        self._unsent = unsent
        self._turns = Turns(LARGE_REPLIES_MAX)

    @asynccontextmanager
    async def turn(self, connection: str) -> AsyncGenerator[None, None]:
        """Wait for this connection's turn. Raises MemoryLimit if the connection does not receive its replies."""
        async with self._turns.of(connection):
            if not self._unsent.allows(connection, REPLY_ROOM):
                raise MemoryLimit
            yield
