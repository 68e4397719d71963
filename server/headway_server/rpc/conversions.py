"""Requests that are converted off the event loop, by turns of their connections; refused if they would wait long."""

import time
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from headway_server.domain.errors import Overloaded
from headway_server.resources.offload import read_off_loop
from headway_server.resources.turns import Turns

CONVERSIONS_QUEUED = 4
"""Requests that wait for the thread which converts them: enough that it never waits for the event loop."""

CONVERSION_WAIT_MAX = 0.5
"""Seconds that a request may have to wait for its turn; most callers would not wait for more."""

CONVERSION_SMOOTHING = 0.05
"""The weight of the latest conversion in the average time of one."""

T = TypeVar("T")
P = ParamSpec("P")


class Conversions:
    """All of a server."""

    def __init__(self) -> None:
        self._turns = Turns(CONVERSIONS_QUEUED)
        self._seconds = 0.0
        """What a conversion takes, on average over the latest."""

    async def __call__(self, connection: str, convert: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        """What `convert` returns or raises. Raises Overloaded if that would take long because of the others."""
        wait = self._turns.ahead(connection) * self._seconds
        if wait > CONVERSION_WAIT_MAX:
            raise Overloaded(wait)
        return await self.without_limit(connection, convert, *arguments, **named)

    async def without_limit(self, connection: str, convert: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        """The same for who can be made to wait, and does not come with more meanwhile: a stream."""

        def timed() -> T:
            began = time.perf_counter()
            try:
                return convert(*arguments, **named)
            finally:
                self._seconds += (time.perf_counter() - began - self._seconds) * CONVERSION_SMOOTHING

        async with self._turns.of(connection):
            return await read_off_loop(timed)
