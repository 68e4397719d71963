"""Converts requests off the event loop. Connections take turns. Requests that would wait long are refused."""

import time
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from headway_server.domain.errors import Overloaded
from headway_server.resources.offload import read_off_loop
from headway_server.resources.turns import Turns

CONVERSIONS_QUEUED = 4
"""Requests that are queued for the converting thread: enough that it never waits for the event loop."""

CONVERSION_WAIT_MAX = 0.5
"""Seconds that a request may wait for its turn: most callers would not wait longer."""

CONVERSION_SMOOTHING = 0.05
"""The share of the latest conversion in the average time of a conversion."""

T = TypeVar("T")
P = ParamSpec("P")


class Conversions:
    """The conversions of a server."""

    def __init__(self) -> None:
        self._turns = Turns(CONVERSIONS_QUEUED)
        self._seconds = 0.0
        """The average time of the latest conversions, in seconds."""

    async def __call__(self, connection: str, convert: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        """Run `convert` when it is the connection's turn. Raises Overloaded if the wait would be long."""
        wait = self._turns.ahead(connection) * self._seconds
        if wait > CONVERSION_WAIT_MAX:
            raise Overloaded(wait)
        return await self.without_limit(connection, convert, *arguments, **named)

    async def without_limit(self, connection: str, convert: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        """The same without a limit of the wait, for streams: they can wait, and send nothing else meanwhile."""

        def timed() -> T:
            began = time.perf_counter()
            try:
                return convert(*arguments, **named)
            finally:
                self._seconds += (time.perf_counter() - began - self._seconds) * CONVERSION_SMOOTHING

        async with self._turns.of(connection):
            return await read_off_loop(timed)
