"""Lets a few operations run at a time, with holders taking turns: no holder waits for all requests of another one."""

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager


class Turns:
    """`places` operations may run at a time. Only the event loop uses it."""

    def __init__(self, places: int) -> None:
        self._free = places
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()
        """Waiting operations, by holder. The first holder is next. Nothing waits while a place is free."""

    @property
    def are_taken(self) -> bool:
        """Whether an operation waits for a place."""
        return bool(self._waiting)

    def ahead(self, holder: str) -> int:
        """The most turns that come before one that this holder requests now."""
        rounds = len(self._waiting.get(holder, ())) + 1
        return sum([min(len(queue), rounds) for queue in self._waiting.values()])

    @asynccontextmanager
    async def of(self, holder: str) -> AsyncGenerator[None, None]:
        """Wait for this holder's turn, and hold a place for the block."""
        await self._take(holder)
        try:
            yield
        finally:
            self._pass_on()

    async def step(self, holder: str) -> None:
        """Wait for this holder's turn, for work until the next `await`. The place is free in the loop's next cycle."""
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
            # A cancelled task leaves the queue only when it runs next.
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1
