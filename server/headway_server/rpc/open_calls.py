"""The open gRPC calls: counted for each connection, and ended when their caller neither sends nor reads.

A call is open from the arrival of its headers until gRPC has sent all of its answer. Every method is registered as one
whose requests are a stream: gRPC would otherwise read the message itself, and nobody would see a call without one.
"""

from __future__ import annotations

import asyncio
import gc
import math
import time
from collections.abc import Collection
from typing import TypeAlias

import grpc.aio

from headway_server.domain.errors import JobError, MalformedMessage, MemoryLimit, RequestTooSlow, StreamExpired
from headway_server.resources.budget import Budget
from headway_server.resources.large_replies import LargeReplies
from headway_server.resources.turns import Turns

MESSAGE_TIMEOUT = 30.0
"""Seconds from the headers of a call to the end of its first message, as for a request over HTTP."""

SLOW_MESSAGE_AFTER = 2.0
"""Seconds after which a first message that is not there counts as slow. gRPC may hold most of it (up to 4 MiB)."""

SLOW_MESSAGES_MAX = 64
"""Slow first messages, in all. Those of a connection that has more than its share of them are refused."""

WRITE_TIMEOUT = 60.0
"""Seconds in which a caller must take a message that is sent to them."""

SHUTDOWN_WRITE_TIMEOUT = 0.5
"""The same while the server stops: it does not wait long for those who do not read."""

AUXILIARY_LIFE = 3600.0
"""Seconds that a stream of gRPC's own services (health, reflection) lives, as a stream of reports does."""

AUXILIARY_CALLS = 1000
"""Open calls of gRPC's own services, in all. A client needs one or two of them."""

UNCOUNTED_REPLY_BYTES = 1024
"""Answers of at most so many bytes are not worth counting: they are less than what an open call takes anyway."""

MESSAGES_A_CYCLE = 16
"""First messages that are worked on in one cycle of the event loop, connections by turns: each takes up to some ms, and
gRPC brings hundreds at once."""

ARRIVING_MAX = 64
"""First messages that are awaited before further calls have to wait."""

ARRIVAL_TIME = 0.1
"""Seconds, or up to twice as many, after which a message that has not come is not awaited in that sense any more."""

WRITES_A_CYCLE = 32
"""Messages of streams that are sent in one cycle of the event loop, connections by turns. It takes some 3 ms then, and
other calls take several cycles, however many watches have something to send."""

LATE_CALLS_INTERVAL = 1.0
"""Seconds between two looks for calls that are late. A timer for each call would cost more than the calls' count."""

OUTER_TASK = "rpc_task"
"""What grpc.aio names the task that it makes for each call; the handler's task is made within it."""

Context: TypeAlias = "grpc.aio.ServicerContext[bytes, bytes]"


class Call:
    """One open call. `connection` names the connection that it came through."""

    __slots__ = (
        "_calls",
        "_context",
        "_life_end",
        "_message",
        "_unsent_bytes",
        "budget",
        "connection",
        "due",
        "ended",
        "late",
        "task",
        "writing",
    )

    def __init__(
        self, calls: OpenCalls, context: Context, connection: str, budget: Budget, task: asyncio.Task[object]
    ) -> None:
        self.connection = connection
        self.budget = budget
        """Where it counts."""
        self.task = task
        """Its handler runs in this."""
        self.due = calls.now + MESSAGE_TIMEOUT
        """When it is late, if nothing happens before."""
        self.late: type[JobError] = RequestTooSlow
        """What its caller is told then."""
        self.ended = False
        """Whether it was cancelled because it was late."""
        self.writing = False
        """Whether its caller has yet to take something."""
        self._calls = calls
        self._context = context
        self._life_end = math.inf
        self._message = b""
        self._unsent_bytes = 0

    async def arrive(self) -> None:
        """Wait for the first message. Raises MalformedMessage if the call has none."""
        arrivals = self._calls.arrivals
        begun = arrivals.begin()
        try:
            raw = await self._context.read()
        finally:
            arrivals.end(begun)
        self.due = math.inf
        if not isinstance(raw, bytes):
            raise MalformedMessage("The call has no message; send one.")
        self._message = raw
        await self._calls.messages.step(self.connection)

    @property
    def arriving(self) -> bool:
        """Whether its first message is not there yet."""
        return self.late is RequestTooSlow and not self.writing and self.due < math.inf

    @property
    def size(self) -> int:
        """Bytes of its first message, as long as nobody has taken that."""
        return len(self._message)

    def message(self) -> bytes:
        """The first message, once: a call that lives long does not hold what it began with."""
        raw, self._message = self._message, b""
        return raw

    def lives(self, seconds: float) -> None:
        """End it with StreamExpired after this time."""
        self.due = self._life_end = self._calls.now + seconds
        self.late = StreamExpired

    def answer(self, size: int) -> None:
        """The answer, of so many bytes, is handed to gRPC now. Raises MemoryLimit."""
        if size > UNCOUNTED_REPLY_BYTES:
            self._calls.unsent.take(self.connection, size)
            self._unsent_bytes = size
        self.writing = True
        self.due = self._calls.now + WRITE_TIMEOUT

    async def write(self, raw: bytes) -> None:
        """Send a message of a stream; returns when the caller has room for it. Raises MemoryLimit."""
        await self._calls.writes.step(self.connection)
        self.answer(len(raw))
        await self._context.write(raw)
        self.due = self._life_end
        self.sent()

    def sent(self) -> None:
        """gRPC holds nothing of the answers any more."""
        self.writing = False
        if self._unsent_bytes:
            self._calls.unsent.give_back(self.connection, self._unsent_bytes)
            self._unsent_bytes = 0

    def end(self) -> None:
        """Cancel the handler, which tells the caller why."""
        self.due = math.inf
        self.ended = True
        self.task.cancel()


class _Arrivals:
    """How many first messages are awaited that can be expected soon. A timer for each would cost more."""

    def __init__(self) -> None:
        self._span = 0
        self._now = 0
        """Those awaited since this span of time began."""
        self._before = 0
        """The same of the span before."""

    def __len__(self) -> int:
        self._turn()
        return self._now + self._before

    def begin(self) -> int:
        """One is awaited from now on; what `end` is to be given."""
        self._turn()
        self._now += 1
        return self._span

    def end(self, begun: int) -> None:
        """It has come, or will not come."""
        if begun == self._span:
            self._now -= 1
        elif begun == self._span - 1:
            self._before -= 1

    def _turn(self) -> None:
        span = int(time.monotonic() / ARRIVAL_TIME)
        if span != self._span:
            self._before = self._now if span == self._span + 1 else 0
            self._now = 0
            self._span = span


class OpenCalls:
    """All of them. `total` may be open; `unsent` is shared by all that is sent and not yet taken."""

    def __init__(self, total: int, unsent: Budget) -> None:
        self.unsent = unsent
        self.large_replies = LargeReplies(unsent)
        self.arrivals = _Arrivals()
        self.messages = Turns(MESSAGES_A_CYCLE)
        self.writes = Turns(WRITES_A_CYCLE)
        self.now = 0.0
        """Seconds, as of the last sweep: exact enough, and cheaper than to ask the clock twice a call."""
        self._calls = Budget(total, MemoryLimit)
        self._auxiliary = Budget(AUXILIARY_CALLS, MemoryLimit)
        self._open: dict[asyncio.Task[object], Call] = {}

    def begin(self, context: Context, *, auxiliary: bool = False) -> Call:
        """A call whose headers have arrived. Raises MemoryLimit if its connection has its share of calls open."""
        connection = context.peer()
        budget = self._auxiliary if auxiliary else self._calls
        budget.take(connection, 1)
        task = asyncio.current_task()
        assert task is not None
        call = self._open[task] = Call(self, context, connection, budget, task)
        # The context's own callbacks would make a circle of references, and keep the call until the next collection.
        task.add_done_callback(self._over)
        return call

    def _over(self, task: asyncio.Task[object]) -> None:
        call = self._open.pop(task)
        call.budget.give_back(call.connection, 1)
        call.sent()

    def __len__(self) -> int:
        return len(self._open)

    @property
    def are_busy(self) -> bool:
        """Whether further calls have to wait, so that it is known of them for how long."""
        return self.messages.are_taken or len(self.arrivals) >= ARRIVING_MAX

    async def run(self) -> None:
        """End the calls that are late, for ever."""
        loop = asyncio.get_running_loop()
        self.now = loop.time()
        while True:
            await asyncio.sleep(LATE_CALLS_INTERVAL)
            await self.sweep(loop.time())

    async def sweep(self, now: float) -> None:
        """End the calls that are late; `now` is the loop's time."""
        self.now = now
        stuck: list[Call] = []
        slow: list[Call] = []
        for call in self._open.values():
            if call.due <= now:
                if call.writing:
                    stuck.append(call)
                else:
                    call.end()
            elif call.arriving and call.due <= now + MESSAGE_TIMEOUT - SLOW_MESSAGE_AFTER:
                slow.append(call)
        # The oldest of them go first: they had the most time.
        messages = Budget(SLOW_MESSAGES_MAX, MemoryLimit)
        for call in reversed(slow):
            if messages.allows(call.connection, 1):
                messages.take(call.connection, 1)
            else:
                call.late = MemoryLimit
                call.end()
        await _reset(stuck)

    async def close(self) -> None:
        """Give those who have yet to take something a short time, then end their calls."""
        writing = [call for call in self._open.values() if call.writing]
        if writing:
            await asyncio.sleep(SHUTDOWN_WRITE_TIMEOUT)
            await _reset([call for call in writing if call.writing])


async def _reset(calls: Collection[Call]) -> None:
    """End calls whose answer cannot be sent, and free what gRPC holds of it. Their callers see CANCELLED.

    A status would wait behind the answer, and grpc.aio has no way to cancel a call. But gRPC cancels a call that
    nothing refers to any more. Two tasks do: that of the handler, and an outer one that waits for the call's end.
    (grpc.aio itself refers to the call that came last until another comes; that one is ended then.)
    """
    if not calls:
        return
    loop = asyncio.get_running_loop()
    outer_tasks = await asyncio.to_thread(_outer_tasks, loop, {call.task for call in calls})
    for call in calls:
        outer = outer_tasks.get(call.task)
        if outer is not None and call.writing:
            call.task.cancel()
            outer.cancel()


def _outer_tasks(
    loop: asyncio.AbstractEventLoop, handlers: Collection[asyncio.Task[object]]
) -> dict[asyncio.Task[object], asyncio.Task[object]]:
    """The outer task of each handler's. It has the handler's among its variables."""
    found: dict[asyncio.Task[object], asyncio.Task[object]] = {}
    for outer in asyncio.all_tasks(loop):
        if outer.get_name() == OUTER_TASK:
            for variables in gc.get_referents(outer.get_coro()):
                for variable in gc.get_referents(variables):
                    if isinstance(variable, asyncio.Task) and variable in handlers:
                        found[variable] = outer
    return found
