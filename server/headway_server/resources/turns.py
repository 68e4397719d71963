"""Lets a few work at a time, and each holder in its turn, so that nobody waits for all that another one asked for."""

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager


class Turns:
    """So many `places` to work at. It is used by the event loop alone."""

    def __init__(self, places: int) -> None:
        self._free = places
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()
        """Those that wait, by holder; the holder whose turn is next first. Nobody waits while a place is free."""

    @property
    def are_taken(self) -> bool:
        """Whether somebody waits for a place."""
        return bool(self._waiting)

    def ahead(self, holder: str) -> int:
        """How many turns there are at most before one that this holder asks for now."""
        rounds = len(self._waiting.get(holder, ())) + 1
        return sum([min(len(queue), rounds) for queue in self._waiting.values()])

    @asynccontextmanager
    async def of(self, holder: str) -> AsyncGenerator[None, None]:
        """A place to work at, once it is this holder's turn."""
        await self._take(holder)
        try:
            yield
        finally:
            self._pass_on()

    async def step(self, holder: str) -> None:
        """The same for work that is done before the next `await`: the place is free in the event loop's next cycle."""
        await self._take(holder)
        asyncio.get_running_loop().call_soon(self._pass_on)

    async def _take(self, holder: str) -> None:
        if self._free:
            self._free -= 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        queue = self._waiting.setdefault(holder, deque())
        queue.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():
                self._pass_on()
            elif turn in queue:
                queue.remove(turn)
                if not queue:
                    del self._waiting[holder]
            raise

    def _pass_on(self) -> None:
        while self._waiting:
            holder, queue = self._waiting.popitem(last=False)
            turn = queue.popleft()
            if queue:
                self._waiting[holder] = queue
            # Whoever was cancelled leaves the queue only when its task runs next.
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1
